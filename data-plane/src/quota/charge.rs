//! What one request takes of one budget, for its usage event. Plain bytes: a request makes them twice for each budget.

use bytes::Bytes;
use nemo_proto::usage as wire;
use nemo_types::{BudgetId, LeaseId, Nanos};

/// `Charge` of `usage.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub budget: BudgetId,
    /// As the control plane names the window; 0 without a lease, when the node does not know it: the one in which the
    /// event began.
    pub window_start_unix_s: i64,
    /// `None`: the node had no lease, and the budget allows that.
    pub lease: Option<LeaseId>,
    pub nanos: Nanos,
}

impl From<&Charge> for wire::Charge {
    fn from(charge: &Charge) -> Self {
        Self {
            budget_id: Bytes::copy_from_slice(charge.budget.as_bytes()),
            window_start_unix_s: charge.window_start_unix_s,
            lease_id: charge.lease.map_or_else(Bytes::new, |lease| Bytes::copy_from_slice(lease.as_bytes())),
            nanos: charge.nanos.0,
        }
    }
}
