//! What one request takes of one budget, as usage events bring it and as the request log keeps it. Pure. Called by the
//! usage ingest and by who shows a request.

use nemo_proto::usage as pb;
use nemo_types::{BudgetId, LeaseId, Nanos};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// One charge. A request has one for each budget that covers it, each of the request's whole cost; several that add up to
/// it when it was extended into another lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub budget_id: BudgetId,
    /// Whole seconds.
    pub window_start: OffsetDateTime,
    /// `None`: the node had none, and the budget allows that.
    pub lease_id: Option<LeaseId>,
    /// Not negative.
    pub nanos: Nanos,
}

/// As it stands in the column.
#[derive(Serialize, Deserialize)]
struct Column {
    budget: BudgetId,
    window: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    lease: Option<LeaseId>,
    nanos: i64,
}

impl Charge {
    /// `None` for what no node sends: an id that is none, a negative amount, a window outside of time.
    pub fn from_event(charge: &pb::Charge) -> Option<Self> {
        let lease_id = match charge.lease_id.is_empty() {
            true => None,
            false => Some(LeaseId::from_bytes(&charge.lease_id)?),
        };
        Some(Self {
            budget_id: BudgetId::from_bytes(&charge.budget_id)?,
            window_start: window(charge.window_start_unix_s)?,
            lease_id,
            nanos: Nanos(charge.nanos).max(Nanos::ZERO),
        })
        .filter(|_| charge.nanos >= 0)
    }

    pub fn to_event(self) -> pb::Charge {
        pb::Charge {
            budget_id: self.budget_id.as_bytes().to_vec().into(),
            window_start_unix_s: self.window_start.unix_timestamp(),
            lease_id: self.lease_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default().into(),
            nanos: self.nanos.0,
        }
    }
}

/// What PostgreSQL and `time` both can express.
fn window(unix_s: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(unix_s).ok().filter(|at| (1..=9999).contains(&at.year()))
}

/// The column `charges`; `None` for none.
pub fn to_column(charges: &[Charge]) -> Option<String> {
    if charges.is_empty() {
        return None;
    }
    let columns: Vec<_> = charges
        .iter()
        .map(|charge| Column {
            budget: charge.budget_id,
            window: charge.window_start.unix_timestamp(),
            lease: charge.lease_id,
            nanos: charge.nanos.0,
        })
        .collect();
    serde_json::to_string(&columns).ok()
}

/// What can't be read is no charge: the column is only ever written by [`to_column`].
pub fn from_column(column: Option<&str>) -> Vec<Charge> {
    let columns: Vec<Column> = column.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    columns
        .into_iter()
        .filter_map(|it| {
            Some(Charge {
                budget_id: it.budget,
                window_start: window(it.window)?,
                lease_id: it.lease,
                nanos: Nanos(it.nanos),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> pb::Charge {
        pb::Charge {
            budget_id: BudgetId::generate().as_bytes().to_vec().into(),
            window_start_unix_s: 1_790_000_000,
            lease_id: LeaseId::generate().as_bytes().to_vec().into(),
            nanos: 7,
        }
    }

    #[test]
    fn a_charge_survives_its_column_and_the_way_back_to_an_event() {
        let without_lease = pb::Charge { lease_id: bytes::Bytes::new(), nanos: 0, ..event() };
        let events = [event(), without_lease];
        let charges: Vec<_> = events.iter().map(|it| Charge::from_event(it).unwrap()).collect();
        let read = from_column(to_column(&charges).as_deref());
        assert_eq!(read, charges);
        assert_eq!(read.into_iter().map(Charge::to_event).collect::<Vec<_>>(), events);
        assert_eq!((to_column(&[]), from_column(None), from_column(Some("x"))), (None, vec![], vec![]));
    }

    #[test]
    fn what_no_node_sends_is_no_charge() {
        for bad in [
            pb::Charge { budget_id: b"x".as_slice().into(), ..event() },
            pb::Charge { lease_id: b"x".as_slice().into(), ..event() },
            pb::Charge { nanos: -1, ..event() },
            pb::Charge { window_start_unix_s: i64::MAX, ..event() },
            pb::Charge { window_start_unix_s: i64::MIN, ..event() },
        ] {
            assert_eq!(Charge::from_event(&bad), None, "{bad:?}");
        }
    }
}
