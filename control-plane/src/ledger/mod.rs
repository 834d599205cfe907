//! The ledger: what happened to money, as entries that are only ever added, and the check that the running totals of
//! budgets, leases and credits are their sums.
//!
//! - [`entry`]: what an entry is, and which total each kind is a part of
//! - [`charge`]: what one request takes of one budget
//! - [`verify`]: the check, on demand and every night
//!
//! Entries are written with [`crate::store::ledger::book`], in the transaction that moves the total.

pub mod charge;
pub mod entry;
pub mod verify;

pub use charge::Charge;
pub use entry::{Entry, Kind};
