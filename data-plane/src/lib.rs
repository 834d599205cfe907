//! The data plane: proxies and routes requests by a snapshot that the control plane pushes. Stateless but for a
//! last-good copy of that snapshot; no SQL and no etcd anywhere in its tree.
//!
//! - [`app`]: wires a node; used by the binaries and the tests
//! - [`edge`], [`pipeline`], [`routing`], [`upstream`], [`models`]: the data port, in the order of a request
//! - [`health`]: breakers, cooldowns and statistics of upstreams
//! - [`quota`]: money and rates that requests may use: leases, reservations, shares
//! - [`config`]: settings and the live snapshot
//! - [`control`], [`usage`]: conversations with the control plane

pub mod app;
pub mod config;
pub mod control;
pub mod drain;
pub mod edge;
pub mod fetch;
pub mod health;
pub mod models;
pub mod pipeline;
pub mod quota;
pub mod requests;
pub mod routing;
#[cfg(test)]
mod testing;
pub mod upstream;
pub mod usage;

pub use app::{Bound, ControlEndpoint, start};
pub use config::Settings;
pub use nemo_llm;
