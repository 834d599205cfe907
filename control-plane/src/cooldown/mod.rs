//! Cooldowns of the whole fleet: an upstream that failed one node spares the others the same failure.
//!
//! - [`aggregator`]: weighs what nodes report; pure
//! - [`board`]: what cools down now, by the coordinator; every replica follows it and tells its nodes
//! - [`value`]: what stands in the coordinator's keys
//!
//! Nodes are served by `grpc/cooldown_service.rs`; administrators by `admin/ops/cooldowns.rs`.

pub mod aggregator;
pub mod board;
pub mod value;

pub use aggregator::{Aggregator, Finding, Policy, Seen};
pub use board::{Board, Change, Cooling, Report, Subscription};
pub use value::{Cause, Scope, Value};
