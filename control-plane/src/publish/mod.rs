//! From rows to revisions that nodes can hold (I5).
//!
//! - [`builder`]: rows of Postgres → resources, only what changed
//! - [`publisher`]: applies, compiles, and only then publishes; runs as one task of the process
//! - [`history`]: the published set and the deltas that led to it
//! - `doubts`: what the chain prover finds about a published revision
//! - `recorder`: keeps what routing reads of every published revision
//! - [`revocations`]: what must stop at once, ahead of pushes
//! - [`cursor`]: what one node holds, and what it is sent next
//!
//! Called by `app.rs` (the task) and `grpc/config_service.rs` (one cursor per stream).

pub mod builder;
pub mod cursor;
mod doubts;
pub mod history;
pub mod metrics;
pub mod publisher;
mod recorder;
pub mod revocations;

pub use history::{Published, Update};
pub use publisher::{Publisher, Unpublishable};
pub use revocations::Revocations;
