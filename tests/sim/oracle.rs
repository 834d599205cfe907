//! What must hold. Cheap checks after every step that moved money, thorough ones now and then and at the end.

use std::collections::{BTreeMap, BTreeSet};

use nemo_control_plane::{
    ledger::Kind,
    quota::books::{LeaseState, LostLease, WindowKey, WindowRow},
};
use nemo_types::{BudgetId, LeaseId};

use crate::{
    node::Node,
    plane::{Plane, is_lost},
};

/// What the event of a dispatched request must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Under way.
    Open { reserved: i64 },
    /// It ended at this cost.
    Exact(i64),
    /// Its process was killed: it is charged as it was reserved.
    Lost(i64),
    /// The machine lost power, or the disk: if anything is charged, then at most `most`. What was known to have cost
    /// `real` may be charged as it was reserved, for the disk has forgotten its end.
    Uncertain { most: i64, real: i64 },
}

/// What a budget promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Denied without a lease, lost leases charged: never above its limit.
    pub strict: bool,
    pub lost: LostLease,
}

#[derive(Default)]
pub struct Oracle {
    pub promises: BTreeMap<BudgetId, Promise>,
    pub expected: BTreeMap<u128, Expected>,
    /// What settled and outstanding may be together: the limit, or less than before when that was lowered.
    pub caps: BTreeMap<WindowKey, i64>,
    /// No upstream bills above its bound in this world.
    pub honest: bool,
    /// The bank was told limits twice as large as they are.
    pub half: bool,
    /// What was charged beyond its cost, because a disk has forgotten how requests ended. Their leases were given the
    /// rest back, and spent it on others.
    pub excess: BTreeMap<BudgetId, i64>,
    pub checks: u64,
}

impl Oracle {
    /// After every report, ingest and expiry.
    pub fn windows(&mut self, plane: &Plane) {
        self.checks += 1;
        for window in plane.bank.windows() {
            let promise = self.promises[&window.key.budget];
            assert!(window.outstanding >= 0, "{window:?}");
            if !promise.strict {
                continue;
            }
            let held = window.settled + window.outstanding;
            let limit = if self.half { window.limit / 2 } else { window.limit };
            let cap = self.caps.entry(window.key).or_insert(limit);
            *cap = (*cap).max(limit);
            assert!(held <= *cap, "more is out than the limit of {cap}: {window:?}");
            *cap = limit.max(held);
            if self.honest {
                let excess = self.excess.get(&window.key.budget).copied().unwrap_or(0);
                assert!(
                    window.overrun + window.aged_overrun <= excess,
                    "an overrun, though no upstream billed more than was reserved: {window:?}"
                );
            }
        }
    }

    /// Nodes against the bank, and the bank against itself.
    pub fn leases(&mut self, plane: &Plane, nodes: &mut [Node], now: u64) {
        let leases = plane.bank.leases();
        let mut sums: BTreeMap<WindowKey, i64> = BTreeMap::new();
        let mut by_id = BTreeMap::new();
        for lease in &leases {
            assert!(lease.outstanding() >= 0, "{lease:?}");
            assert!(lease.forfeited >= 0 && lease.returned >= 0 && lease.spent >= 0, "{lease:?}");
            *sums.entry(lease.key).or_default() += if lease.is_closed() { 0 } else { lease.outstanding() };
            by_id.insert(lease.id, lease);
        }
        for window in plane.bank.windows() {
            let sum = sums.get(&window.key).copied().unwrap_or(0);
            assert_eq!(window.outstanding, sum, "outstanding is not the sum of the leases: {window:?}");
        }
        let mut users: BTreeSet<LeaseId> = BTreeSet::new();
        for node in nodes {
            let (name, epoch) = (node.name.clone(), node.epoch);
            let Some(process) = node.at(now) else { continue };
            for held in process.table.held() {
                let row = by_id.get(&held.lease).unwrap_or_else(|| panic!("{held:?} is nobody's"));
                assert!(row.node_id == name && row.epoch == epoch, "{held:?} is another's: {row:?}");
                assert!(
                    held.granted.0 <= row.granted,
                    "granted to the node but not by the bank: {held:?} {row:?}"
                );
                assert!(held.returned.0 >= row.returned || row.is_closed(), "{held:?} {row:?}");
                if self.honest {
                    assert!(held.free.0 >= 0, "{held:?}");
                }
                if held.usable {
                    assert!(users.insert(held.lease), "two use {held:?}");
                    assert!(
                        row.state == LeaseState::Active,
                        "usable, but given away or done: {held:?} {row:?}"
                    );
                }
            }
        }
    }

    /// Each event that is new.
    pub fn ingested(&mut self, id: u128, event: &nemo_proto::usage::UsageEvent) {
        let cost = event.cost_nanos.unwrap();
        for charge in distinct(event) {
            assert_eq!(charge, cost, "each budget is charged the whole cost: {event:?}");
        }
        match self.expected.get(&id) {
            Some(Expected::Exact(actual)) => {
                assert!(!is_lost(event) && cost == *actual, "expected {actual}: {event:?}");
            }
            Some(Expected::Lost(reserved)) => {
                assert!(is_lost(event) && cost == *reserved, "expected to be lost at {reserved}: {event:?}");
            }
            Some(Expected::Uncertain { most, real }) => {
                assert!(cost <= *most, "at most {most}: {event:?}");
                let excess = (cost - real).max(0);
                for budget in event.charges.iter().filter_map(|it| BudgetId::from_bytes(&it.budget_id)) {
                    *self.excess.entry(budget).or_default() += excess;
                }
            }
            other => panic!("{other:?}, but ingested: {event:?}"),
        }
    }

    /// When everybody is at rest: every request is billed once, and every nano-dollar is somewhere.
    pub fn books(&self, plane: &Plane) {
        for (id, expected) in &self.expected {
            let there = plane.ingested.contains_key(id);
            match expected {
                Expected::Exact(_) | Expected::Lost(_) => assert!(there, "{expected:?} was never billed"),
                Expected::Uncertain { .. } => {}
                Expected::Open { .. } => panic!("a request never ended"),
            }
        }
        let mut sums: BTreeMap<(BudgetId, i64), (i64, i64)> = BTreeMap::new();
        let mut charged: BTreeMap<BudgetId, i128> = BTreeMap::new();
        for entry in plane.bank.entries() {
            let (budget, nanos) = (entry.budget_id.unwrap(), entry.nanos.0);
            let sum = sums.entry((budget, entry.window_start.unwrap().unix_timestamp())).or_default();
            match entry.kind {
                Kind::Overrun => sum.1 += nanos,
                _ => sum.0 += nanos,
            }
            if matches!(entry.kind, Kind::Settle | Kind::Overrun) {
                *charged.entry(budget).or_default() += i128::from(nanos);
            }
        }
        for window in plane.bank.windows() {
            let (settled, overrun) =
                sums.get(&(window.key.budget, window.key.start)).copied().unwrap_or_default();
            assert_eq!(
                window.settled + window.aged,
                settled,
                "settled is not the sum of its entries: {window:?}"
            );
            assert_eq!(window.overrun + window.aged_overrun, overrun, "{window:?}");
        }
        for (budget, charges) in &plane.charged {
            let entries = charged.get(budget).copied().unwrap_or(0);
            assert_eq!(entries, *charges, "what was charged is not what is in the ledger");
        }
        self.charges_are_what_requests_cost(plane);
    }

    /// From the requests themselves, not from what was counted when they were ingested.
    fn charges_are_what_requests_cost(&self, plane: &Plane) {
        let mut sums: BTreeMap<BudgetId, i128> = BTreeMap::new();
        for event in plane.ingested.values() {
            for charge in &event.charges {
                let budget = BudgetId::from_bytes(&charge.budget_id).unwrap();
                *sums.entry(budget).or_default() += i128::from(charge.nanos);
            }
        }
        assert_eq!(sums, plane.charged, "an event was charged not exactly once");
    }

    /// Nobody holds anything any more.
    pub fn ended(&self, plane: &Plane) {
        for lease in plane.bank.leases() {
            assert!(lease.is_closed(), "a lease never ended: {lease:?}");
        }
        for window in plane.bank.windows() {
            assert_eq!(window.outstanding, 0, "{window:?}");
        }
    }
}

/// What an event charges to each of its budgets, over all leases.
fn distinct(event: &nemo_proto::usage::UsageEvent) -> Vec<i64> {
    let mut sums: BTreeMap<&[u8], i64> = BTreeMap::new();
    for charge in &event.charges {
        *sums.entry(&charge.budget_id).or_default() += charge.nanos;
    }
    sums.into_values().collect()
}

/// What could still be granted of a window, and comes back when everybody hands back.
pub fn left(window: &WindowRow) -> i64 {
    window.limit - window.settled - window.overrun
}
