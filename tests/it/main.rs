//! The integration tests, in one binary (link time). Those that need a gateway start one through
//! [`nemo_tests::fleet`]; `make test` runs them once per pairing.

// `cfg(test)` although nothing else can be built here: it is how clippy knows that helpers may unwrap.
#[cfg(test)]
mod admin;
#[cfg(test)]
mod arch;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod chat;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod models;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod usage;
