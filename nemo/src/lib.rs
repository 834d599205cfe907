//! All-in-one binary and command line.
//!
//! - [`cli`]: what can be typed; [`console`]: what is answered
//! - [`standalone`]: both planes in one process, with [`embedded_postgres`], [`bootstrap`] of a first
//!   organization, and the [`demo`] provider when there is no other
//! - [`providers`]: credentials, deployments and model groups from the environment or `nemo.toml`, applied
//!   through the admin API
//! - [`commands`]: `nemo keys`, `nemo models`, `nemo requests`: thin over the admin API ([`admin_client`])
//! - [`replay`]: logged decisions made again, also with another policy
//! - [`data_dir`]: where state lives

pub mod admin_client;
pub mod bootstrap;
pub mod cli;
pub mod commands;
pub mod console;
pub mod data_dir;
pub mod demo;
pub mod embedded_postgres;
pub mod providers;
pub mod replay;
pub mod standalone;
