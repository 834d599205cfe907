//! A bank in memory: the reference for the one in PostgreSQL, and what simulations run. Deterministic: its clock is set
//! by hand, and its ids are counted.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use nemo_proto::quota::{LeaseReport, Recall};
use nemo_types::{BudgetId, LeaseId};
use uuid::Uuid;

use super::{
    ACTIVE_MS, AHEAD_MS, Bank, BankError, Expired, FORGET_MS, MAX_STANDBY, NodeEpoch, SettledCharge,
    greeting, waited,
};
use crate::{
    ledger::Entry,
    quota::{
        books::{self, LeaseRow, LeaseState, LostLease, Millis, WindowKey, WindowRow},
        desk::{self, Answer, Item, Rows, Terms, Visit},
        settings::Settings,
        window::Span,
    },
};

#[derive(Debug)]
struct Session {
    renewed_at: Millis,
    /// Of its newest report.
    seq: u64,
    /// Budgets numbered below have been given to it unasked.
    standby_until: u64,
    ahead_until: Millis,
}

#[derive(Debug, Default)]
struct State {
    /// With the number of their making.
    budgets: BTreeMap<BudgetId, (Terms, u64)>,
    made: u64,
    rows: Rows,
    sessions: BTreeMap<(std::sync::Arc<str>, u64), Session>,
    entries: Vec<Entry>,
    minted: u128,
}

/// See the module.
#[derive(Debug)]
pub struct MemoryBank {
    settings: Settings,
    now: AtomicI64,
    state: Mutex<State>,
}

impl MemoryBank {
    /// A bank whose clock stands at `now`.
    pub fn new(settings: Settings, now: Millis) -> Self {
        Self { settings, now: AtomicI64::new(now), state: Mutex::default() }
    }

    pub fn now(&self) -> Millis {
        self.now.load(Ordering::Relaxed)
    }

    pub fn set_now(&self, now: Millis) {
        self.now.store(now, Ordering::Relaxed);
    }

    /// Adds a budget, or changes it: as in the admin API, the limit of the window that runs follows.
    pub fn put_budget(&self, terms: Terms) {
        let now = self.now();
        let mut state = self.lock();
        let key = terms.key(terms.span(now));
        if let Some(window) = state.rows.windows.get_mut(&key) {
            let lowered = terms.limit < window.limit;
            window.limit = terms.limit;
            if lowered && window.is_over() {
                window.starved_at = Some(now);
            }
        }
        state.made += 1;
        let number = state.budgets.get(&terms.budget).map_or(state.made, |(_, number)| *number);
        state.budgets.insert(terms.budget, (terms, number));
    }

    /// Where every window stands.
    pub fn windows(&self) -> Vec<WindowRow> {
        self.lock().rows.windows.values().cloned().collect()
    }

    pub fn leases(&self) -> Vec<LeaseRow> {
        self.lock().rows.leases.values().cloned().collect()
    }

    /// The ledger: every entry that was made, in order.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Bank::report`], without waiting for anything.
    ///
    /// # Errors
    /// [`BankError::Fenced`].
    pub fn report_now(&self, node: &NodeEpoch, report: &LeaseReport) -> Result<Answer, BankError> {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let (nodes, stale) = state.renew(node, report.seq, now, i64::from(self.settings.report_ms))?;
        let mut closed = Vec::new();
        for over in report.closed_epochs.iter().filter(|over| over.epoch < node.epoch) {
            state.close_epoch(&node.node_id, over.epoch, over.exact, now);
            closed.push(over.epoch);
        }
        let mut items = desk::items(report);
        let full = report.full && !stale;
        if stale {
            items.iter_mut().for_each(Item::ask_nothing);
        }
        let (current, standby) = if stale { Default::default() } else { state.keys(node, &items, full, now) };
        for span in current.iter().chain(&standby) {
            state.ensure(*span, now);
        }
        let terms = state.budgets.iter().map(|(id, (terms, _))| (*id, terms.clone())).collect();
        let (rows, minted) = (&mut state.rows, &mut state.minted);
        let mut mint = || {
            *minted += 1;
            LeaseId(Uuid::from_u128(*minted))
        };
        let answer = Answer { directive: greeting(self.settings.report_ms, nodes), ..Answer::default() };
        let mut visit = Visit { node, settings: &self.settings, now, nodes, mint: &mut mint, answer };
        visit.hand_back(rows, &items);
        visit.serve(rows, &items, &terms);
        let standby: Vec<WindowKey> =
            standby.iter().map(|(budget, span)| WindowKey { budget: *budget, start: span.start }).collect();
        visit.stand_by(rows, &standby);
        let own = || rows.leases.values().filter_map(|lease| Some((rows.windows.get(&lease.key)?, lease)));
        if full {
            visit.repeat(own());
        }
        visit.call_back(own());
        visit.answer.directive.epochs_closed = closed;
        visit.answer.directive.answers = report.seq;
        Ok(visit.answer)
    }

    /// As [`Bank::expire`], without waiting for anything.
    pub fn expire_now(&self) -> Expired {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let mut expired = Expired::default();
        let margin = self.settings.margin_ms();
        let ids: Vec<LeaseId> = state.rows.leases.keys().copied().collect();
        for id in &ids {
            let Some((window, lease)) = state.rows.both(*id) else { continue };
            let session = state.sessions.get(&(lease.node_id.clone(), lease.epoch));
            let silent = session.is_none_or(|it| it.renewed_at + i64::from(lease.ttl_ms) + margin < now);
            let over = window.end.is_some_and(|end| end * 1000 + margin + self.settings.hold_ms() < now);
            if lease.state == LeaseState::Active && (silent || over) {
                books::hold(window, lease, now);
                expired.held += 1;
            }
        }
        for id in ids {
            let Some((window, lease)) = state.rows.both(id) else { continue };
            if waited(lease, now, self.settings.hold_ms()) {
                let policy =
                    state.budgets.get(&lease.key.budget).map_or(LostLease::Charge, |(terms, _)| terms.lost);
                let before = lease.forfeited;
                books::close(window, lease, policy, now, &mut state.entries);
                expired.closed += 1;
                expired.forfeited += lease.forfeited - before;
            }
            if lease.closed_at.is_some_and(|at| at + FORGET_MS < now) {
                state.rows.forget(id);
                expired.forgotten += 1;
            }
        }
        for window in state.rows.windows.values_mut() {
            let Some(oldest) = window.oldest_hour(now) else { continue };
            let kept = window.slots.split_off(&oldest);
            for slot in std::mem::replace(&mut window.slots, kept).into_values() {
                books::age_out(window, slot);
                expired.aged += 1;
            }
        }
        expired
    }

    /// As [`Bank::settle`], without waiting for anything.
    pub fn settle_now(&self, charges: &[SettledCharge]) -> Vec<Entry> {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let before = state.entries.len();
        for charge in charges {
            let held = charge.lease_id.filter(|id| state.rows.leases.contains_key(id));
            if let Some((window, lease)) = held.and_then(|id| state.rows.both(id)) {
                books::settle(window, Some(lease), charge.nanos, now, &mut state.entries);
                continue;
            }
            let Some((terms, _)) = state.budgets.get(&charge.budget_id) else { continue };
            let span = terms.span(charge.at);
            let key = terms.key(span);
            state.ensure((charge.budget_id, span), now);
            let Some(window) = state.rows.windows.get_mut(&key) else { continue };
            if charge.lease_id.is_some() {
                books::settle_unknown(window, charge.nanos, now, &mut state.entries);
            } else {
                books::settle(window, None, charge.nanos, now, &mut state.entries);
            }
        }
        state.entries.get(before..).unwrap_or_default().to_vec()
    }
}

impl State {
    /// The number of live nodes, and whether the report is a leftover of a former stream.
    fn renew(
        &mut self,
        node: &NodeEpoch,
        seq: u64,
        now: Millis,
        report_ms: Millis,
    ) -> Result<(u32, bool), BankError> {
        let newest =
            self.sessions.keys().filter(|(id, _)| *id == node.node_id).map(|(_, epoch)| *epoch).max();
        if let Some(newest) = newest.filter(|newest| *newest > node.epoch) {
            return Err(BankError::Fenced { epoch: node.epoch, newest });
        }
        let fresh = Session { renewed_at: now, seq: 0, standby_until: 0, ahead_until: Millis::MIN };
        let session = self.sessions.entry((node.node_id.clone(), node.epoch)).or_insert(fresh);
        let stale = seq != 0 && seq <= session.seq;
        if !stale {
            session.seq = session.seq.max(seq);
            session.renewed_at = session.renewed_at.max(now);
        }
        let live = self.sessions.values().filter(|it| it.renewed_at + 5 * report_ms >= now).count();
        Ok((u32::try_from(live).unwrap_or(u32::MAX), stale))
    }

    /// The windows that are asked for, and those that the node should have a slice of unasked.
    #[expect(clippy::type_complexity, reason = "two lists of one kind")]
    fn keys(
        &mut self,
        node: &NodeEpoch,
        items: &[Item],
        full: bool,
        now: Millis,
    ) -> (Vec<(BudgetId, Span)>, Vec<(BudgetId, Span)>) {
        let span = |id: &BudgetId| self.budgets.get(id).map(|(terms, _)| (*id, terms.span(now)));
        let asked = items.iter().filter(|item| item.asks()).filter_map(|item| span(&item.budget)).collect();
        let Some(session) = self.sessions.get(&(node.node_id.clone(), node.epoch)) else {
            return (asked, Vec::new());
        };
        let active = |budget: BudgetId| {
            let from = WindowKey { budget, start: i64::MIN };
            let to = WindowKey { budget, start: i64::MAX };
            self.rows.windows.range(from..=to).any(|(_, window)| window.active_at + ACTIVE_MS > now)
        };
        let mut standby: Vec<(BudgetId, Span)> = Vec::new();
        for (id, (terms, number)) in &self.budgets {
            let new = *number > session.standby_until;
            if !terms.disabled && (new || (full && active(*id))) {
                standby.push((*id, terms.span(now)));
            }
            let ends = terms.span(now).end.map(|end| end * 1000);
            if let Some(end) = ends.filter(|end| *end > session.ahead_until && *end <= now + AHEAD_MS)
                && !terms.disabled
                && active(*id)
            {
                standby.push((*id, terms.window.span(end.div_euclid(1000))));
            }
        }
        standby.sort_by_key(|(id, span)| (*id, span.start));
        standby.truncate(MAX_STANDBY);
        let made = self.made;
        if let Some(session) = self.sessions.get_mut(&(node.node_id.clone(), node.epoch)) {
            session.standby_until = made;
            session.ahead_until = now + AHEAD_MS;
        }
        (asked, standby)
    }

    fn ensure(&mut self, (budget, span): (BudgetId, Span), now: Millis) {
        if let Some((terms, _)) = self.budgets.get(&budget) {
            self.rows.windows.entry(terms.key(span)).or_insert_with(|| terms.row(span, now));
        }
    }

    fn close_epoch(&mut self, node_id: &str, epoch: u64, exact: bool, now: Millis) {
        let of = |lease: &&LeaseRow| *lease.node_id == *node_id && lease.epoch == epoch && !lease.is_closed();
        let ids: Vec<LeaseId> = self.rows.leases.values().filter(of).map(|lease| lease.id).collect();
        for id in ids {
            let Some((window, lease)) = self.rows.both(id) else { continue };
            let lost = self.budgets.get(&lease.key.budget).map_or(LostLease::Charge, |(terms, _)| terms.lost);
            let policy = if exact { LostLease::Release } else { lost };
            books::close(window, lease, policy, now, &mut self.entries);
        }
    }
}

#[tonic::async_trait]
impl Bank for MemoryBank {
    async fn report(&self, node: &NodeEpoch, report: &LeaseReport) -> Result<Answer, BankError> {
        self.report_now(node, report)
    }

    async fn recalls(&self, node: &NodeEpoch) -> Result<Vec<Recall>, BankError> {
        let now = self.now();
        let state = self.lock();
        let own = state.rows.leases.values().filter(|lease| {
            lease.node_id == node.node_id
                && lease.epoch == node.epoch
                && desk::is_called_back(state.rows.windows.get(&lease.key), lease, now)
        });
        Ok(own.map(|lease| desk::recall(lease.id)).collect())
    }

    async fn expire(&self) -> Result<Expired, BankError> {
        Ok(self.expire_now())
    }

    async fn close_epoch(&self, node_id: &str, epoch: u64, exact: bool) -> Result<Vec<Entry>, BankError> {
        let now = self.now();
        let mut state = self.lock();
        let before = state.entries.len();
        state.close_epoch(node_id, epoch, exact, now);
        Ok(state.entries.get(before..).unwrap_or_default().to_vec())
    }

    async fn settle(&self, _source: &str, charges: &[SettledCharge]) -> Result<Vec<Entry>, BankError> {
        Ok(self.settle_now(charges))
    }

    async fn release(&self, lease: LeaseId) -> Result<Option<i64>, BankError> {
        let now = self.now();
        let mut state = self.lock();
        let state = &mut *state;
        let Some((window, lease)) = state.rows.both(lease) else { return Ok(None) };
        Ok(Some(books::release(window, lease, now, &mut state.entries)))
    }
}
