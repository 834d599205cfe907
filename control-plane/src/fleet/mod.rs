//! The nodes: who may connect, who is connected, and what each of them holds.
//!
//! - [`auth`]: the node token
//! - [`registry`]: connected nodes, acknowledged revision, lag
//! - [`metrics`]: the registry in numbers

pub mod auth;
pub mod metrics;
pub mod registry;

pub use auth::{NodeAuth, NodeToken};
pub use registry::{Connection, Registry};
