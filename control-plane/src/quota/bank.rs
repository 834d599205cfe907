//! Who keeps the rows of windows and leases. [`SqlBank`](crate::store::leases::SqlBank) does in PostgreSQL,
//! [`MemoryBank`] here, for simulations and tests; one contract suite runs against both.
//!
//! Both load the same rows, let [`Visit`] and [`books`] work on them, and keep what changed, atomically.

mod memory;

#[cfg(test)]
pub(crate) mod contract;

use std::sync::Arc;

use nemo_proto::quota::{BudgetGrant, LeaseDirective, LeaseReport, Recall};
use nemo_types::{BudgetId, LeaseId};
use tokio::sync::mpsc;

pub use memory::MemoryBank;

#[cfg(doc)]
use super::desk::Visit;
use super::{
    books::{self, Millis},
    desk::{Answer, Tally},
};
use crate::{ledger::Entry, store::StoreError};

/// Most budgets that a node is given a slice of unasked.
pub const MAX_STANDBY: usize = 20_000;
/// A budget counts as active for so long after it was last used.
pub const ACTIVE_MS: Millis = 24 * 3_600_000;
/// The next window's slice is given so long before it begins.
pub const AHEAD_MS: Millis = 10 * 60_000;
/// Closed leases are remembered for so long: events may be up to 30 days late.
pub const FORGET_MS: Millis = 32 * 24 * 3_600_000;

/// One process of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeEpoch {
    pub node_id: Arc<str>,
    pub epoch: u64,
}

/// Why a bank did nothing.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// A later process of this node has reported: this one must not be given anything.
    #[error("epoch {epoch} of this node is over: epoch {newest} has reported")]
    Fenced { epoch: u64, newest: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one request, or several together, take of one lease or window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledCharge {
    pub budget_id: BudgetId,
    /// As the node named it; without a lease, the window of `at` counts.
    pub window_start: i64,
    pub lease_id: Option<LeaseId>,
    pub nanos: i64,
    /// When the request began.
    pub at: Millis,
}

/// What [`Bank::expire`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Leases whose node, or window, is gone.
    pub held: u64,
    /// Leases that no event is expected of any more.
    pub closed: u64,
    /// Of what was closed: charged. Nano-USD.
    pub forfeited: i64,
    /// Hours of rolling windows that are over.
    pub aged: u64,
    /// Old leases and sessions that are forgotten.
    pub forgotten: u64,
}

/// Slices that a node is given after the answer to its report.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub grants: Vec<BudgetGrant>,
    pub tally: Tally,
}

impl Given {
    pub fn add(&mut self, more: Self) {
        self.grants.extend(more.grants);
        self.tally.add(&more.tally);
    }
}

/// See the module.
#[tonic::async_trait]
pub trait Bank: Send + Sync + 'static {
    /// A node reports: renews its leases, takes back, grants. Epochs that it has closed are closed.
    async fn report(&self, node: &NodeEpoch, report: &LeaseReport) -> Result<Answer, BankError>;

    /// As [`report`](Self::report), but much that the node did not ask for may come later, in parts. When `later` is
    /// closed, nothing more comes.
    async fn report_in_parts(
        &self,
        node: &NodeEpoch,
        report: &LeaseReport,
        later: &mpsc::Sender<Given>,
    ) -> Result<Answer, BankError> {
        let _ = later;
        self.report(node, report).await
    }

    /// What the node holds of windows that others starve for. It must have reported.
    async fn recalls(&self, node: &NodeEpoch) -> Result<Vec<Recall>, BankError>;

    /// Finds leases whose node is lost, closes those that have waited long enough, ages rolling windows. Bounded work:
    /// call it again while it did something.
    async fn expire(&self) -> Result<Expired, BankError>;

    /// A process is over. `exact`: all its events are settled, so what is left of its leases is left.
    async fn close_epoch(&self, node_id: &str, epoch: u64, exact: bool) -> Result<Vec<Entry>, BankError>;

    /// Books what requests cost. Each charge must come once: whoever calls sees to that.
    async fn settle(&self, source: &str, charges: &[SettledCharge]) -> Result<Vec<Entry>, BankError>;

    /// An operator gives back what a lost lease holds or has forfeited. Nano-USD; `None`: there is no such lease.
    async fn release(&self, lease: LeaseId) -> Result<Option<i64>, BankError>;
}

/// Whether a lease waits for events only, and since when that has been long enough.
fn waited(lease: &books::LeaseRow, now: Millis, hold_ms: Millis) -> bool {
    matches!(lease.state, books::LeaseState::Held | books::LeaseState::Done)
        && lease.held_at.is_some_and(|at| at + hold_ms < now)
}

/// A directive with what every answer carries.
pub fn greeting(report_ms: u32, nodes: u32) -> LeaseDirective {
    LeaseDirective { report_ms, nodes, ..LeaseDirective::default() }
}
