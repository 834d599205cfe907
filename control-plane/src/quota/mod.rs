//! Quota: slices of budgets and shares of rate limits for the nodes.
//!
//! A budget is never overspent (I3) because money is *granted* before it is spent: for each window of a budget,
//! `settled + outstanding + overrun` never grows above the limit by a grant, and a node spends only what it was granted.
//!
//! - [`window`]: when windows begin and end
//! - [`books`]: what can happen to the rows of windows and leases, and the ledger entries that follow
//! - [`allocator`]: how large a slice is
//! - [`desk`]: one report of a node against rows: what it hands back, what it gets, what it is told
//! - [`bank`]: who keeps the rows: [`bank::Bank`], in memory here, in PostgreSQL in [`crate::store::leases`]
//! - [`shares`]: how a rate limit is divided; [`rates`]: who wants how much of it
//! - [`reclaimer`]: the jobs: lost leases, rolling windows, exchange of demand
//! - [`settings`]: the numbers; [`metrics`]: the instruments
//!
//! Rows and decisions are without IO, and deterministic given the clock.

pub mod allocator;
pub mod bank;
pub mod books;
pub mod desk;
pub mod metrics;
pub mod rates;
pub mod reclaimer;
pub mod settings;
pub mod shares;
pub mod window;

pub use bank::{Bank, BankError, MemoryBank, NodeEpoch, SettledCharge};
pub use books::{LeaseRow, WindowKey, WindowRow};
pub use settings::Settings;
pub use window::{Window, WindowError};
