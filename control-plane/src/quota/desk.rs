//! One report of a node against the rows that it is about: what it hands back, what it gets, what it is told. Pure; the
//! same for every bank, which loads the rows before and keeps them after.
//!
//! What a node may rely on:
//! - Totals are cumulative, in both directions: a message may be lost, doubled or late.
//! - The first report of a stream is full; the answer names every lease that the node can use, in case it missed one.
//! - A lease that the node has reported as `done` is never named in a grant again, and whoever wants more of that budget
//!   is given another. So a lease that has run out on the node's own clock is dead: report it as `done`.
//! - A lease that is reported and can't be used any more is answered with a recall of everything.
//! - A report whose number is not newer than one that was seen hands back, but neither renews nor asks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use nemo_proto::quota::{BudgetGrant, BudgetReport, Exhausted, LeaseDirective, LeaseReport, Recall};
use nemo_types::{BudgetId, LeaseId, OrgId};

use super::{
    allocator::{self, Ask, Slice},
    bank::NodeEpoch,
    books::{self, LeaseRow, LeaseState, LostLease, Millis, WindowKey, WindowRow},
    settings::Settings,
    window::{Span, Window},
};

/// Idle slices are called back for so long after somebody went away empty-handed.
pub const RECALL_MS: Millis = 30_000;

/// What a budget is, as far as the bank goes by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub budget: BudgetId,
    pub org: OrgId,
    pub window: Window,
    /// Of windows that are yet to be made.
    pub limit: i64,
    pub lost: LostLease,
    pub disabled: bool,
}

impl Terms {
    /// The window that `now` is in.
    pub fn span(&self, now: Millis) -> Span {
        self.window.span(now.div_euclid(1000))
    }

    pub fn key(&self, span: Span) -> WindowKey {
        WindowKey { budget: self.budget, start: span.start }
    }

    /// The row of a window in which nothing has happened.
    pub fn row(&self, span: Span, now: Millis) -> WindowRow {
        let mut row = WindowRow::new(self.key(span), self.org, span.end, self.limit, now);
        row.rolling_hours = self.window.rolling_hours();
        row
    }
}

/// Windows and leases, and which of these more can be granted to.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub windows: BTreeMap<WindowKey, WindowRow>,
    pub leases: BTreeMap<LeaseId, LeaseRow>,
    open: HashMap<(Arc<str>, u64, WindowKey), LeaseId>,
}

impl Rows {
    /// Windows without leases yet.
    pub fn of(windows: BTreeMap<WindowKey, WindowRow>) -> Self {
        Self { windows, ..Self::default() }
    }

    pub fn insert(&mut self, lease: LeaseRow) {
        if lease.state == LeaseState::Active {
            self.open.insert((lease.node_id.clone(), lease.epoch, lease.key), lease.id);
        }
        self.leases.insert(lease.id, lease);
    }

    /// Both rows of a lease; `None`: one of them is gone.
    pub fn both(&mut self, id: LeaseId) -> Option<(&mut WindowRow, &mut LeaseRow)> {
        let lease = self.leases.get_mut(&id)?;
        Some((self.windows.get_mut(&lease.key)?, lease))
    }

    /// The lease that more can be granted to.
    pub fn open(&self, node: &NodeEpoch, key: WindowKey) -> Option<LeaseId> {
        let id = self.open.get(&(node.node_id.clone(), node.epoch, key))?;
        let lease = self.leases.get(id).filter(|lease| lease.state == LeaseState::Active)?;
        Some(lease.id)
    }

    pub fn forget(&mut self, id: LeaseId) -> Option<LeaseRow> {
        let lease = self.leases.remove(&id)?;
        let place = (lease.node_id.clone(), lease.epoch, lease.key);
        if self.open.get(&place) == Some(&id) {
            self.open.remove(&place);
        }
        Some(lease)
    }
}

/// One budget of a report.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub budget: BudgetId,
    pub lease: Option<LeaseId>,
    pub wants: i64,
    pub needs: i64,
    pub reserved: i64,
    pub returned: i64,
    pub spent: i64,
    pub spend_rate: i64,
    pub done: bool,
    /// Of use to a request that waits; at most `needs`.
    pub least: i64,
}

impl Item {
    pub fn asks(&self) -> bool {
        self.wants > 0 || self.needs > 0
    }

    /// For a report that is too old to ask.
    pub fn ask_nothing(&mut self) {
        (self.wants, self.needs, self.least) = (0, 0, 0);
    }
}

/// What can be understood of a report, in the order of the budgets; a malformed id is nobody's.
pub fn items(report: &LeaseReport) -> Vec<Item> {
    let item = |it: &BudgetReport| {
        Some(Item {
            budget: BudgetId::from_bytes(&it.budget_id)?,
            lease: LeaseId::from_bytes(&it.lease_id),
            wants: it.wants.max(0),
            needs: it.needs.max(0),
            least: least(it),
            reserved: it.reserved.max(0),
            returned: it.returned_total,
            spent: it.spent_total.max(0),
            spend_rate: it.spend_rate.max(0),
            done: it.done,
        })
    };
    let mut items: Vec<Item> = report.budgets.iter().filter_map(item).collect();
    items.sort_by_key(|item| (item.budget, item.lease));
    items
}

/// Of nodes that don't tell it: all, or any part.
fn least(it: &BudgetReport) -> i64 {
    match it.least {
        1.. => it.least.min(it.needs.max(0)),
        _ if it.partial => it.needs.clamp(0, 1),
        _ => it.needs.max(0),
    }
}

/// What happened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub grants: u64,
    pub granted_nanos: i64,
    /// Of the grants: near a budget's end.
    pub endgame: u64,
    /// Of the grants: unasked.
    pub standby: u64,
    pub denied: u64,
    pub recalls: u64,
}

impl Answer {
    /// What is granted in it.
    pub fn grants(&self) -> impl Iterator<Item = (LeaseId, &BudgetGrant)> {
        self.directive.grants.iter().filter_map(|it| Some((LeaseId::from_bytes(&it.lease_id)?, it)))
    }

    /// Takes back standby grants of these new leases: they were never made.
    pub fn retract(&mut self, leases: &BTreeSet<LeaseId>) {
        if leases.is_empty() {
            return;
        }
        let tally = &mut self.tally;
        self.directive.grants.retain(|grant| {
            let stays = LeaseId::from_bytes(&grant.lease_id).is_none_or(|id| !leases.contains(&id));
            if !stays {
                tally.grants -= 1;
                tally.standby -= 1;
                tally.granted_nanos -= grant.granted_total;
            }
            stays
        });
    }
}

impl Tally {
    /// Adds what else happened.
    pub fn add(&mut self, more: &Self) {
        self.grants += more.grants;
        self.granted_nanos = self.granted_nanos.saturating_add(more.granted_nanos);
        self.endgame += more.endgame;
        self.standby += more.standby;
        self.denied += more.denied;
        self.recalls += more.recalls;
    }
}

/// What a report leads to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub directive: LeaseDirective,
    /// Windows that the node went away from empty-handed while others hold slices of them.
    pub starved: Vec<WindowKey>,
    /// Leases that it was given more of.
    pub granted: Vec<LeaseId>,
    pub tally: Tally,
}

/// A node at the desk.
pub struct Visit<'a> {
    pub node: &'a NodeEpoch,
    pub settings: &'a Settings,
    pub now: Millis,
    /// That live, this one included.
    pub nodes: u32,
    pub mint: &'a mut (dyn FnMut() -> LeaseId + Send),
    pub answer: Answer,
}

impl Visit<'_> {
    /// Takes what the node hands back, first of all: it may be what somebody waits for.
    pub fn hand_back(&mut self, rows: &mut Rows, items: &[Item]) {
        for item in items {
            let Some(id) = item.lease else { continue };
            let Some((window, lease)) = rows.both(id).filter(|(_, lease)| self.owns(lease)) else {
                if !item.done {
                    self.recall(id);
                }
                continue;
            };
            lease.reserved = item.reserved;
            let back = books::hand_back(window, lease, item.returned, self.now);
            if back > 0 && !item.asks() {
                books::forget_user(window, lease);
            }
            if item.done {
                books::done(window, lease, self.now);
            } else if lease.state != LeaseState::Active {
                self.recall(id);
            }
        }
    }

    /// Grants what is asked for, as far as it is there.
    pub fn serve(&mut self, rows: &mut Rows, items: &[Item], terms: &HashMap<BudgetId, Terms>) {
        for item in items.iter().filter(|item| item.asks()) {
            let Some(terms) = terms.get(&item.budget).filter(|terms| !terms.disabled) else { continue };
            let key = terms.key(terms.span(self.now));
            let open = rows.open(self.node, key).and_then(|id| rows.leases.remove(&id));
            let Some(window) = rows.windows.get_mut(&key) else { continue };
            let fresh = open.is_none();
            let mut lease = open.unwrap_or_else(|| self.new_lease(window));
            let unknown = !fresh && item.lease != Some(lease.id);
            self.serve_one(window, &mut lease, item, unknown);
            if !fresh || lease.granted > 0 {
                rows.insert(lease);
            }
        }
    }

    fn serve_one(&mut self, window: &mut WindowRow, lease: &mut LeaseRow, item: &Item, unknown: bool) {
        let held = (lease.granted - lease.returned - lease.spent.max(item.spent)).max(0);
        // A grant that the node has not heard of yet is what it wants.
        let known = if unknown { held } else { 0 };
        let ask = Ask {
            wants: (item.wants - known).max(0),
            needs: if known >= item.needs { 0 } else { item.needs },
            least: (item.least - known).max(1),
            spend_rate: item.spend_rate,
            held,
        };
        books::ask(window, lease, self.now);
        if let Slice::Grant { nanos, ttl_ms, endgame } = allocator::slice(window, ask, self.settings)
            && books::grant(window, lease, nanos)
        {
            // Only of a new lease may it be shorter: the node may never hear of this grant, and go by what it was told.
            let first = lease.granted == nanos;
            lease.ttl_ms = if first { ttl_ms } else { lease.ttl_ms.max(ttl_ms) };
            self.answer.granted.push(lease.id);
            self.answer.tally.grants += 1;
            self.answer.tally.endgame += u64::from(endgame);
            self.answer.tally.granted_nanos = self.answer.tally.granted_nanos.saturating_add(nanos);
            self.tell(window, lease);
            // For others than the largest, which is not to wait for more.
            if ask.needs > nanos {
                self.say_exhausted(window, lease);
            }
            return;
        }
        if known > 0 {
            self.tell(window, lease);
        }
        if lease.granted == 0 {
            books::forget_user(window, lease);
        }
        if ask.needs > 0 || (ask.wants > 0 && window.headroom() == 0) {
            self.turn_away(window, lease);
        }
    }

    fn turn_away(&mut self, window: &mut WindowRow, lease: &LeaseRow) {
        self.answer.tally.denied += 1;
        let elsewhere = window.outstanding > lease.outstanding();
        // When this began: a window that many starve for is not written for each of them. With nothing held by anybody it
        // says that the budget is exhausted, for what is left is of use to nobody.
        if (elsewhere || window.outstanding == 0)
            && window.starved_at.is_none_or(|at| self.now - at > RECALL_MS / 2)
        {
            window.starved_at = Some(self.now);
        }
        if elsewhere {
            self.answer.starved.push(window.key);
        }
        self.say_exhausted(window, lease);
    }

    fn say_exhausted(&mut self, window: &WindowRow, lease: &LeaseRow) {
        let elsewhere = window.outstanding > lease.outstanding();
        let starving = window.starved_at.map_or(0, |at| self.now - at);
        let patience = match starving {
            ..1000 => 1,
            1000..5000 => 5,
            _ => 20,
        };
        // What this node holds for no request is all that there is for it: nothing of that comes back.
        let may_return = elsewhere || lease.reserved > 0;
        let retry_after_ms = if may_return { allocator::RETRY_MS * patience } else { 0 };
        self.answer.directive.exhausted.push(Exhausted {
            budget_id: bytes(window.key.budget.as_bytes()),
            window_start_unix_s: window.key.start,
            limit: window.limit,
            settled: window.settled.saturating_add(window.overrun),
            outstanding: window.outstanding,
            resets_in_ms: window.end.map_or(0, |end| until(end, self.now).max(1)),
            retry_after_ms,
            // Rolling windows lose an hour when the next one begins.
            eases_in_ms: window
                .rolling_hours
                .map_or(0, |_| until((books::hour_of(self.now) + 1) * 3600, self.now)),
        });
    }

    /// Gives a small slice of each window of which the node has none.
    pub fn stand_by(&mut self, rows: &mut Rows, keys: &[WindowKey]) {
        for key in keys {
            if rows.open(self.node, *key).is_some() {
                continue;
            }
            let Some(window) = rows.windows.get_mut(key) else { continue };
            let nanos = allocator::standby(window, self.nodes, self.settings);
            let mut lease = self.new_lease(window);
            if books::grant(window, &mut lease, nanos) {
                self.answer.tally.grants += 1;
                self.answer.tally.standby += 1;
                self.answer.tally.granted_nanos = self.answer.tally.granted_nanos.saturating_add(nanos);
                self.tell(window, &lease);
                rows.insert(lease);
            }
        }
    }

    /// Names every lease that the node can use, but for those that were named already.
    pub fn repeat<'a>(&mut self, leases: impl IntoIterator<Item = (&'a WindowRow, &'a LeaseRow)>) {
        let named = |grant: &BudgetGrant| LeaseId::from_bytes(&grant.lease_id);
        let named: HashSet<LeaseId> = self.answer.directive.grants.iter().filter_map(named).collect();
        for (window, lease) in leases {
            let over = window.end.is_some_and(|end| until(end, self.now) == 0);
            if lease.state == LeaseState::Active && self.owns(lease) && !over && !named.contains(&lease.id) {
                self.tell(window, lease);
            }
        }
    }

    /// Calls back idle slices of windows that others starve for.
    pub fn call_back<'a>(&mut self, leases: impl IntoIterator<Item = (&'a WindowRow, &'a LeaseRow)>) {
        for (window, lease) in leases {
            // Whoever wants money is not idle: were a new grant called back at once, it would be asked for again at once.
            let wanting =
                self.answer.starved.contains(&window.key) || self.answer.granted.contains(&lease.id);
            if !wanting && self.owns(lease) && is_called_back(Some(window), lease, self.now) {
                self.recall(lease.id);
            }
        }
    }

    fn owns(&self, lease: &LeaseRow) -> bool {
        lease.node_id == self.node.node_id && lease.epoch == self.node.epoch
    }

    fn recall(&mut self, lease: LeaseId) {
        self.answer.tally.recalls += 1;
        self.answer.directive.recalls.push(recall(lease));
    }

    fn new_lease(&mut self, window: &WindowRow) -> LeaseRow {
        LeaseRow {
            id: (self.mint)(),
            key: window.key,
            org: window.org,
            node_id: self.node.node_id.clone(),
            epoch: self.node.epoch,
            granted: 0,
            returned: 0,
            spent: 0,
            overrun: 0,
            forfeited: 0,
            reserved: 0,
            state: LeaseState::Active,
            asked: false,
            ttl_ms: self.settings.ttl_ms(),
            held_at: None,
            closed_at: None,
        }
    }

    fn tell(&mut self, window: &WindowRow, lease: &LeaseRow) {
        self.answer.directive.grants.push(BudgetGrant {
            lease_id: bytes(lease.id.as_bytes()),
            budget_id: bytes(window.key.budget.as_bytes()),
            window_start_unix_s: window.key.start,
            granted_total: lease.granted,
            ttl_ms: lease.ttl_ms,
            valid_after_ms: until(window.key.start, self.now),
            valid_for_ms: window.end.map_or(0, |end| until(end, self.now).max(1)),
        });
    }
}

/// Whether somebody starves for what the lease may have idle.
pub fn is_called_back(window: Option<&WindowRow>, lease: &LeaseRow, now: Millis) -> bool {
    let starved = window.and_then(|window| window.starved_at).is_some_and(|at| now - at < RECALL_MS);
    starved && lease.outstanding() > 0 && lease.state == LeaseState::Active
}

/// Asks for everything that is not reserved.
pub fn recall(lease: LeaseId) -> Recall {
    Recall { lease_id: bytes(lease.as_bytes()), keep: 0 }
}

/// Milliseconds from `now` until a second since 1970; 0 when it is past.
fn until(second: i64, now: Millis) -> u64 {
    u64::try_from(second.saturating_mul(1000).saturating_sub(now)).unwrap_or(0)
}

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}
