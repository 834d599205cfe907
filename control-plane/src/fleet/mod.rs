//! The nodes: who may connect, who is connected, and what each of them holds.
//!
//! - [`auth`]: the node token
//! - [`registry`]: connected nodes, acknowledged revision, lag
//! - [`leases`]: who lives, over all replicas, and who waits for the whole fleet
//! - [`metrics`]: the registry in numbers

pub mod auth;
pub mod leases;
pub mod metrics;
pub mod registry;

pub use auth::{NodeAuth, NodeToken};
pub use leases::{Applied, NotApplied, applied_everywhere, renew_own};
pub use registry::{Connection, Registry};
