//! Process plumbing that both planes and the command line use.
//!
//! - lifecycle: [`drain`] (orderly stop), [`tasks`] (owned background work), [`signal`], [`readiness`]
//! - start-up: [`config_file`] (defaults, file, environment), [`telemetry`] (logs that never block)
//! - servers: [`http_server`] (the accept loop of every HTTP port), [`ops_server`] (health and metrics), [`metrics`]
//! - export: [`otlp`] (traces and metrics, off by default), [`trace_context`] (W3C)
//! - TLS: [`tls`] (certificates that are reloaded, plaintext only on loopback); [`open_files`] (room for connections)
//! - [`public_address`]: where nobody is sent whom a tenant could send somewhere
//! - between planes: [`grpc`] (channels and servers over TCP), [`inproc`] (the same over memory)
//! - time: [`clock`] (the only reader of wall-clock time), [`backoff`]
//! - [`in_place`]: boxes without the copy

pub mod backoff;
pub mod clock;
pub mod config_file;
pub mod drain;
pub mod grpc;
pub mod http_server;
mod in_place;
pub mod inproc;
pub mod metrics;
pub mod open_files;
pub mod ops_server;
pub mod otlp;
pub mod public_address;
pub mod readiness;
pub mod signal;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trace_context;

pub use in_place::in_place;
pub use tasks::TaskGroup;
