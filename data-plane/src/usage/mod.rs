//! Usage events on their way to the control plane. They are encoded once, when they are made, and lie in the
//! [`journal`] until they are acknowledged: what is sent are the bytes that were written.
//!
//! Filled by `pipeline::context` at the end of every request, emptied by `control::usage_stream`.

mod batch;
mod event;
pub mod journal;

pub use self::{
    batch::{EncodedBatch, Events},
    event::Event,
    journal::Journal,
};

/// A waiting shipper is woken when so many events wait.
pub const WAKE_AT: usize = 500;
