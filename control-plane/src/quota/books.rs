//! What can happen to the rows of windows and leases. Pure: every bank applies these and nothing else, so what holds
//! here holds in memory and in PostgreSQL.
//!
//! Of a window: `settled + outstanding + overrun <= limit` after every grant (I3); `outstanding` is the sum of what its
//! leases have outstanding; what is settled and overrun is the sum of its ledger entries.
//! Of a lease: `outstanding = granted - returned - spent - forfeited >= 0`. Reports are cumulative, so that doubled and
//! reordered ones change nothing; events are counted once by whoever calls [`settle`].

use std::{collections::BTreeMap, sync::Arc};

use nemo_types::{BudgetId, LeaseId, Nanos, OrgId};
use time::OffsetDateTime;

use crate::ledger::{Entry, Kind};

/// Milliseconds since 1970, by the bank's clock.
pub type Millis = i64;

const HOUR_MS: Millis = 3_600_000;

/// One window of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowKey {
    pub budget: BudgetId,
    /// Seconds since 1970.
    pub start: i64,
}

/// Spend of a rolling window within one hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub settled: i64,
    pub overrun: i64,
}

/// Where a window stands. Amounts in nano-USD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRow {
    pub key: WindowKey,
    pub org: OrgId,
    /// Seconds since 1970; `None`: never.
    pub end: Option<i64>,
    pub rolling_hours: Option<u16>,
    pub limit: i64,
    pub settled: i64,
    pub outstanding: i64,
    pub overrun: i64,
    /// What left a rolling window by age.
    pub aged: i64,
    pub aged_overrun: i64,
    /// Leases whose nodes asked for more than they were given unasked.
    pub users: i32,
    pub starved_at: Option<Millis>,
    pub active_at: Millis,
    /// By hour since 1970. A bank that loads rows has only the changes here.
    pub slots: BTreeMap<i64, Slot>,
}

/// What may happen to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// The node may spend of it.
    Active,
    /// The node holds nothing of it any more, and its last events are on their way.
    Done,
    /// The node is lost, or the window is long over; events may still come.
    Held,
    Closed,
}

impl LeaseState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Done => "done",
            Self::Held => "held",
            Self::Closed => "closed",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Active, Self::Done, Self::Held, Self::Closed].into_iter().find(|it| it.name() == name)
    }
}

/// A slice of a window that one process of a node holds. Amounts in nano-USD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    pub id: LeaseId,
    pub key: WindowKey,
    pub org: OrgId,
    pub node_id: Arc<str>,
    pub epoch: u64,
    pub granted: i64,
    pub returned: i64,
    pub spent: i64,
    pub overrun: i64,
    pub forfeited: i64,
    /// As the node last said.
    pub reserved: i64,
    pub state: LeaseState,
    /// The node asked for it, other than for what every node is given.
    pub asked: bool,
    pub ttl_ms: u32,
    pub held_at: Option<Millis>,
    pub closed_at: Option<Millis>,
}

/// What becomes of what a lost lease had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostLease {
    /// It counts as spent: the node may have spent it.
    Charge,
    Release,
}

impl WindowRow {
    pub fn new(key: WindowKey, org: OrgId, end: Option<i64>, limit: i64, now: Millis) -> Self {
        Self {
            key,
            org,
            end,
            rolling_hours: None,
            limit,
            settled: 0,
            outstanding: 0,
            overrun: 0,
            aged: 0,
            aged_overrun: 0,
            users: 0,
            starved_at: None,
            active_at: now,
            slots: BTreeMap::new(),
        }
    }

    /// What can be granted; never negative.
    pub fn headroom(&self) -> i64 {
        let taken = i128::from(self.settled) + i128::from(self.outstanding) + i128::from(self.overrun);
        i64::try_from((i128::from(self.limit) - taken).max(0)).unwrap_or(i64::MAX)
    }

    /// More is out than the limit allows: it was lowered, or an upstream billed beyond its reservation.
    pub fn is_over(&self) -> bool {
        i128::from(self.settled) + i128::from(self.outstanding) + i128::from(self.overrun)
            > i128::from(self.limit)
    }

    fn slot(&mut self, hour: i64) -> Option<&mut Slot> {
        self.rolling_hours.map(|_| self.slots.entry(hour).or_default())
    }

    /// The oldest hour that counts in a rolling window: the one that the last so many hours begin in. What was spent in it
    /// may be of its last minute, so it counts until all of the hour is past: for at least so many hours, and for at most
    /// one more.
    pub fn oldest_hour(&self, now: Millis) -> Option<i64> {
        self.rolling_hours.map(|hours| hour_of(now) - i64::from(hours))
    }
}

impl LeaseRow {
    /// What the node may hold or have spent that is not settled.
    pub fn outstanding(&self) -> i64 {
        self.granted - self.returned - self.spent - self.forfeited
    }

    pub fn is_closed(&self) -> bool {
        self.state == LeaseState::Closed
    }
}

/// Hours since 1970.
pub fn hour_of(now: Millis) -> i64 {
    now.div_euclid(HOUR_MS)
}

/// Grants `nanos` if they are left; else nothing changes. The one place where money goes out (I3).
pub fn grant(window: &mut WindowRow, lease: &mut LeaseRow, nanos: i64) -> bool {
    if nanos <= 0 || nanos > window.headroom() || lease.state != LeaseState::Active {
        return false;
    }
    let Some(granted) = lease.granted.checked_add(nanos) else { return false };
    lease.granted = granted;
    window.outstanding += nanos;
    true
}

/// Takes back all of a lease that was never written: another one is there already.
pub fn withdraw(window: &mut WindowRow, lease: &mut LeaseRow) {
    window.outstanding -= lease.outstanding();
    lease.granted = 0;
}

/// The node has handed back `total` since the lease was granted. Returns what is new of it.
pub fn hand_back(window: &mut WindowRow, lease: &mut LeaseRow, total: i64, now: Millis) -> i64 {
    if lease.is_closed() {
        return 0;
    }
    let back = total.saturating_sub(lease.returned).clamp(0, lease.outstanding());
    lease.returned += back;
    window.outstanding -= back;
    close_if_spent(window, lease, now);
    back
}

/// The node holds nothing of the lease any more, and will not.
pub fn done(window: &mut WindowRow, lease: &mut LeaseRow, now: Millis) {
    if matches!(lease.state, LeaseState::Active | LeaseState::Held) {
        lease.state = LeaseState::Done;
        lease.held_at = Some(now);
        forget_user(window, lease);
    }
    close_if_spent(window, lease, now);
}

/// The node, or its window, is gone: nothing more is granted, events may still come.
pub fn hold(window: &mut WindowRow, lease: &mut LeaseRow, now: Millis) {
    if lease.state == LeaseState::Active {
        lease.state = LeaseState::Held;
        lease.held_at = Some(now);
        forget_user(window, lease);
        close_if_spent(window, lease, now);
    }
}

/// The lease is one that its node asked for.
pub fn ask(window: &mut WindowRow, lease: &mut LeaseRow, now: Millis) {
    window.active_at = now;
    if !lease.asked && lease.state == LeaseState::Active {
        lease.asked = true;
        window.users += 1;
    }
}

/// The node has no use for it at the moment.
pub fn forget_user(window: &mut WindowRow, lease: &mut LeaseRow) {
    if lease.asked {
        lease.asked = false;
        window.users = (window.users - 1).max(0);
    }
}

/// A lease that nothing can happen to any more is closed: its node holds nothing, and every event has come.
fn close_if_spent(window: &mut WindowRow, lease: &mut LeaseRow, now: Millis) {
    if matches!(lease.state, LeaseState::Done | LeaseState::Held) && lease.outstanding() == 0 {
        lease.state = LeaseState::Closed;
        lease.closed_at = Some(now);
        forget_user(window, lease);
    }
}

/// Requests have cost `nanos`, which a lease or (`None`) nobody stood for. `entries` gets what that is in the ledger:
/// always settle and overrun that add up to `nanos`.
///
/// Beyond what the lease has left is overrun: an upstream billed more than was reserved. What was forfeited before the
/// events came is taken out of the forfeited part.
pub fn settle(
    window: &mut WindowRow,
    lease: Option<&mut LeaseRow>,
    nanos: i64,
    now: Millis,
    entries: &mut Vec<Entry>,
) {
    let nanos = nanos.max(0);
    let hour = hour_of(now);
    window.active_at = window.active_at.max(now);
    let Some(lease) = lease else {
        window.settled = window.settled.saturating_add(nanos);
        if let Some(slot) = window.slot(hour) {
            slot.settled += nanos;
        }
        entries.extend(entry(window, None, Kind::Settle, nanos));
        return;
    };
    let within = nanos.min(lease.outstanding());
    let forfeited = (nanos - within).min(lease.forfeited);
    let overrun = nanos - within - forfeited;
    lease.spent += within + forfeited;
    lease.forfeited -= forfeited;
    lease.overrun = lease.overrun.saturating_add(overrun);
    window.outstanding -= within;
    // What was forfeited is in `settled` since then.
    window.settled = window.settled.saturating_add(within);
    window.overrun = window.overrun.saturating_add(overrun);
    if let Some(slot) = window.slot(hour) {
        slot.settled += within;
        slot.overrun += overrun;
    }
    entries.extend(entry(window, Some(lease.id), Kind::Settle, within + forfeited));
    entries.extend(entry(window, Some(lease.id), Kind::Adjust, -forfeited));
    entries.extend(entry(window, Some(lease.id), Kind::Overrun, overrun));
    close_if_spent(window, lease, now);
}

/// Requests have cost `nanos` of a lease that is forgotten: nobody stood for them.
pub fn settle_unknown(window: &mut WindowRow, nanos: i64, now: Millis, entries: &mut Vec<Entry>) {
    let nanos = nanos.max(0);
    window.overrun = window.overrun.saturating_add(nanos);
    if let Some(slot) = window.slot(hour_of(now)) {
        slot.overrun += nanos;
    }
    entries.extend(entry(window, None, Kind::Overrun, nanos));
}

/// Ends a lease of which no event is expected any more.
pub fn close(
    window: &mut WindowRow,
    lease: &mut LeaseRow,
    policy: LostLease,
    now: Millis,
    entries: &mut Vec<Entry>,
) {
    if lease.is_closed() {
        return;
    }
    let left = lease.outstanding();
    window.outstanding -= left;
    match policy {
        LostLease::Release => lease.returned += left,
        LostLease::Charge => {
            lease.forfeited += left;
            window.settled = window.settled.saturating_add(left);
            if let Some(slot) = window.slot(hour_of(now)) {
                slot.settled += left;
            }
            entries.extend(entry(window, Some(lease.id), Kind::Forfeit, left));
        }
    }
    forget_user(window, lease);
    lease.state = LeaseState::Closed;
    lease.closed_at = Some(now);
}

/// An operator knows that a lost node has not spent what it held: gives back what was forfeited, or closes a lease that
/// waits. Returns what came free.
pub fn release(window: &mut WindowRow, lease: &mut LeaseRow, now: Millis, entries: &mut Vec<Entry>) -> i64 {
    if !lease.is_closed() {
        let left = lease.outstanding();
        close(window, lease, LostLease::Release, now, entries);
        return left;
    }
    let back = lease.forfeited;
    lease.forfeited = 0;
    lease.returned += back;
    // Taken from the hour that it was charged in; if that has aged out, it is no longer in `settled`.
    let hour = lease.closed_at.map_or_else(|| hour_of(now), hour_of);
    match window.oldest_hour(now) {
        Some(oldest) if hour < oldest => window.aged -= back,
        _ => {
            window.settled -= back;
            if let Some(slot) = window.slot(hour) {
                slot.settled -= back;
            }
        }
    }
    entries.extend(entry(window, Some(lease.id), Kind::Release, -back));
    back
}

/// An hour of a rolling window is over.
pub fn age_out(window: &mut WindowRow, slot: Slot) {
    window.settled -= slot.settled;
    window.aged += slot.settled;
    window.overrun -= slot.overrun;
    window.aged_overrun += slot.overrun;
}

/// Entries of one kind, window and lease as one each, in the order of the first.
pub fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    let mut places = std::collections::HashMap::with_capacity(entries.len());
    let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let key = (entry.kind, entry.budget_id, entry.window_start, entry.lease_id);
        let place = *places.entry(key).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => first.nanos.0 = first.nanos.0.saturating_add(entry.nanos.0),
            None => merged.push(entry),
        }
    }
    merged
}

fn entry(window: &WindowRow, lease: Option<LeaseId>, kind: Kind, nanos: i64) -> Option<Entry> {
    let start = OffsetDateTime::from_unix_timestamp(window.key.start).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (nanos != 0).then(|| Entry::of_window(kind, window.org, (window.key.budget, start), lease, Nanos(nanos)))
}

#[cfg(test)]
mod tests;
