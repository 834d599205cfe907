//! The integration tests, in one binary (link time). Those that need a gateway start one through
//! [`nemo_tests::fleet`]; `make test` runs them once per pairing.

// `cfg(test)` although nothing else can be built here: it is how clippy knows that helpers may unwrap.
#[cfg(test)]
mod admin;
#[cfg(test)]
mod arch;
#[cfg(test)]
mod attempts;
#[cfg(test)]
mod audio;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod budgets_admin;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod cli_apply;
#[cfg(test)]
mod cli_offline;
#[cfg(test)]
mod conversions;
#[cfg(test)]
mod cooldown;
#[cfg(test)]
mod count_tokens;
#[cfg(test)]
mod credits;
#[cfg(test)]
mod crossing;
#[cfg(test)]
mod crossing_budget;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod fault_matrix;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hosting;
#[cfg(test)]
mod image_urls;
#[cfg(test)]
mod images;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod media;
#[cfg(test)]
mod models;
#[cfg(test)]
mod moderations;
#[cfg(test)]
mod oidc;
#[cfg(test)]
mod overrides;
#[cfg(test)]
mod overspend;
#[cfg(test)]
mod own_deployments;
#[cfg(test)]
mod own_requests;
#[cfg(test)]
mod portkey;
#[cfg(test)]
mod rate_limit;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod roles;
#[cfg(test)]
mod routing_admin;
#[cfg(test)]
mod standalone_tls;
#[cfg(test)]
mod stored;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod tags;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod usage_query;
#[cfg(test)]
mod writes;
