//! The integration tests, in one binary (link time). Those that need a gateway start one through
//! [`nemo_tests::fleet`]; `make test` runs them once per pairing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod admin;
mod arch;
mod auth;
mod bench;
mod chat;
mod embeddings;
mod errors;
mod fleet;
mod models;
mod stream;
mod upstream;
mod usage;
