//! Windows and leases of budgets in PostgreSQL. [`SqlBank`] is the [`Bank`] of the product: it loads rows, lets
//! [`crate::quota`] work on them, and writes what changed, in one transaction. Called by `grpc/quota_service.rs`, by the
//! usage ingest ([`settle`]) and by the reclaimer.
//!
//! - [`rows`]: loading and writing rows; the guard of I3 is [`rows::save`]'s one conditional `UPDATE`
//! - [`sessions`]: node processes, their epochs, and what they are given unasked
//! - [`standby`]: giving that, to many nodes at once
//! - [`memory`]: what a replica remembers between reports
//! - [`expire`]: lost leases, rolling windows, what is forgotten
//!
//! Locking order: `budget_windows` by (budget, start), then nothing: whoever changes a lease holds its window's row, so
//! leases need no locks of their own. Rows of windows are made before any is locked.

mod expire;
mod memory;
mod rows;
mod sessions;
mod standby;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use nemo_proto::quota::{LeaseReport, Recall};
use nemo_types::{BudgetId, LeaseId};
use sqlx::PgConnection;
use tokio::sync::mpsc;

pub(super) use self::sessions::terms;
use self::{memory::Memory, sessions::Session, standby::Recipient};
use super::{Store, StoreError, ledger};
use crate::{
    ledger::Entry,
    quota::{
        Settings,
        bank::{Bank, BankError, Expired, Given, NodeEpoch, SettledCharge, greeting},
        books::{self, LeaseRow, LeaseState, LostLease, Millis, WindowKey, WindowRow},
        desk::{self, Answer, Item, Rows, Terms, Visit},
        window::Span,
    },
};

/// Source of the entries that closing, releasing and forfeiting make; the lease makes each unique.
pub const SOURCE: &str = "lease";
/// Times that a report is tried when the database gives it up as a deadlock's victim.
const TRIES: usize = 3;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlBank {
    store: Store,
    settings: Settings,
    /// By hand, in tests; else the database's clock counts.
    clock: Option<Arc<AtomicI64>>,
    memory: Arc<Memory>,
}

/// What a report is about, once it is known who reports.
struct Case<'a> {
    node: &'a NodeEpoch,
    session: Session,
    items: Vec<Item>,
    /// As they were before anything was locked.
    known: HashMap<LeaseId, LeaseRow>,
    /// What is asked for, and what is given unasked.
    asked: Vec<(BudgetId, Span)>,
    standby: Vec<(BudgetId, Span)>,
    /// Leases that were found to be so.
    in_order: HashSet<LeaseId>,
    terms: HashMap<BudgetId, Terms>,
}

impl SqlBank {
    pub fn new(store: Store, settings: Settings) -> Self {
        Self { store, settings, clock: None, memory: Arc::new(Memory::new()) }
    }

    /// For tests: a clock that is set by hand, in milliseconds since 1970.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<AtomicI64>) -> Self {
        self.clock = Some(clock);
        self
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn manual_now(&self) -> Option<Millis> {
        self.clock.as_ref().map(|clock| clock.load(Ordering::Relaxed))
    }

    async fn now(&self, tx: &mut PgConnection) -> Result<Millis, StoreError> {
        match self.manual_now() {
            Some(now) => Ok(now),
            None => database_now(tx).await,
        }
    }

    async fn report_until_done(
        &self,
        node: &NodeEpoch,
        report: &LeaseReport,
        later: Option<&mpsc::Sender<Given>>,
    ) -> Result<Answer, BankError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_report(node, report, later).await {
                Err(BankError::Store(error)) if tries < TRIES && is_victim(&error) => {
                    tracing::debug!(node = &*node.node_id, %error, "a report is tried again");
                }
                answer => return answer,
            }
        }
    }

    async fn try_report(
        &self,
        node: &NodeEpoch,
        report: &LeaseReport,
        later: Option<&mpsc::Sender<Given>>,
    ) -> Result<Answer, BankError> {
        let mut tx = self.store.system().await?;
        let session = sessions::renew(tx.conn(), node, report.seq, self.manual_now(), &self.settings).await?;
        if session.newest > node.epoch {
            return Err(BankError::Fenced { epoch: node.epoch, newest: session.newest });
        }
        let mut closed = Vec::new();
        for over in report.closed_epochs.iter().filter(|over| over.epoch < node.epoch) {
            close_epoch(tx.conn(), &node.node_id, over.epoch, over.exact, session.now).await?;
            closed.push(over.epoch);
        }
        let full = report.full && !session.stale;
        let mut case = self.open(tx.conn(), node, session, report).await?;
        let (mut rows, mut answer) = self.work(tx.conn(), &case).await?;
        if full {
            // After the work, so that it is as the work left it.
            let changed: HashSet<LeaseId> = rows.leases.keys().copied().collect();
            case.known.retain(|id, _| !changed.contains(id));
            for lease in std::mem::take(&mut case.known).into_values() {
                rows.insert(lease);
            }
        }
        let starving = sessions::starving(tx.conn(), case.session.id, case.session.now).await?;
        let windows = windows_of(tx.conn(), &rows, full).await?;
        let mut mint = LeaseId::generate;
        let mut visit = self.visit(node, &case.session, &mut mint, std::mem::take(&mut answer));
        if full {
            visit.repeat(rows.leases.values().filter_map(|lease| Some((windows.get(&lease.key)?, lease))));
        }
        visit.call_back(starving.iter().map(|(window, lease)| (window, lease)));
        let mut answer = visit.answer;
        answer.directive.epochs_closed = closed;
        answer.directive.answers = report.seq;
        tx.commit().await?;
        self.remember(&mut case, &rows);
        self.give_unasked(&case, later, &mut answer).await;
        Ok(answer)
    }

    /// What is committed need not be looked up with the next report.
    fn remember(&self, case: &mut Case<'_>, rows: &Rows) {
        let (session, now) = (case.session.id, case.session.now);
        self.memory.made(rows.windows.keys());
        let (open, ended): (Vec<&LeaseRow>, Vec<&LeaseRow>) = rows
            .leases
            .values()
            .filter(|it| owns(case.node, it))
            .partition(|it| it.state == LeaseState::Active);
        self.memory.ended(session, ended.into_iter().map(|lease| lease.id));
        self.memory.in_order(
            session,
            now,
            open.into_iter().map(|lease| lease.id).chain(case.in_order.drain()),
        );
        if !case.session.stale {
            self.memory.looked(session, now, std::mem::take(&mut case.session.horizon));
        }
    }

    async fn give_unasked(&self, case: &Case<'_>, later: Option<&mpsc::Sender<Given>>, answer: &mut Answer) {
        let standby = &case.standby;
        let (node, session) = (case.node.clone(), &case.session);
        let to = Recipient { node, session: session.id, nodes: session.nodes };
        if standby.len() > standby::AT_ONCE
            && later.is_some_and(|later| self.memory.standby.push(&to, standby, later))
        {
            return;
        }
        if let Err(error) = self.give_at_once(to, standby, answer).await {
            // It asks when it needs some.
            tracing::debug!(node = &*case.node.node_id, %error, "slices were not given unasked");
        }
    }

    /// Nano-USD that nodes hold of windows that have not been over for a day, and how many windows are starved for.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn sums(&self) -> Result<(i64, i64), StoreError> {
        let mut tx = self.store.system().await?;
        let sql = "SELECT least(coalesce(sum(outstanding_nanos), 0), 9223372036854775807)::bigint, \
                          count(*) FILTER (WHERE starved_at > now() - interval '30 seconds') \
                   FROM budget_windows WHERE window_end IS NULL OR window_end > now() - interval '1 day'";
        Ok(sqlx::query_as(sql).fetch_one(tx.conn()).await?)
    }

    fn visit<'a>(
        &'a self,
        node: &'a NodeEpoch,
        session: &Session,
        mint: &'a mut (dyn FnMut() -> LeaseId + Send),
        answer: Answer,
    ) -> Visit<'a> {
        Visit { node, settings: &self.settings, now: session.now, nodes: session.nodes, mint, answer }
    }

    /// Finds out what the report is about, without locking anything.
    async fn open<'a>(
        &self,
        tx: &mut PgConnection,
        node: &'a NodeEpoch,
        session: Session,
        report: &LeaseReport,
    ) -> Result<Case<'a>, StoreError> {
        let mut items = desk::items(report);
        let full = report.full && !session.stale;
        if session.stale {
            items.iter_mut().for_each(Item::ask_nothing);
        }
        let mut known: HashMap<LeaseId, LeaseRow> = HashMap::new();
        if full {
            let own = rows::leases_of_session(tx, session.id).await?;
            known.extend(own.into_iter().map(|lease| (lease.id, lease)));
        }
        let mut in_order = HashSet::new();
        if !full {
            // What was only spent leads to nothing here, since events settle that; as long as the lease is in order.
            let plain = |item: &Item| !item.asks() && !item.done && item.returned == 0;
            let mut ids: Vec<LeaseId> =
                items.iter().filter(|it| plain(it)).filter_map(|it| it.lease).collect();
            self.memory.retain_unknown(session.id, session.now, &mut ids);
            in_order = rows::active_of_session(tx, session.id, &ids).await?;
            let doubtful: HashSet<LeaseId> = ids.into_iter().filter(|id| !in_order.contains(id)).collect();
            items.retain(|item| !plain(item) || item.lease.is_some_and(|id| doubtful.contains(&id)));
        }
        let named: Vec<LeaseId> =
            items.iter().filter_map(|item| item.lease).filter(|id| !known.contains_key(id)).collect();
        known.extend(rows::leases(tx, &named).await?.into_iter().map(|lease| (lease.id, lease)));
        let unasked = if session.stale {
            Vec::new()
        } else {
            let looked = self.memory.horizon(session.id, session.now).filter(|_| !full);
            sessions::unasked(tx, &session, node, full, looked.as_deref()).await?
        };
        let asking: Vec<BudgetId> = items.iter().filter(|item| item.asks()).map(|item| item.budget).collect();
        let mut terms = self.terms(tx, asking).await?;
        let span = |id: &BudgetId| terms.get(id).map(|it| (*id, it.span(session.now)));
        let asked: BTreeSet<BudgetId> =
            items.iter().filter(|item| item.asks()).map(|item| item.budget).collect();
        let asked: Vec<_> = asked.iter().filter_map(span).collect();
        let held: HashSet<WindowKey> = known
            .values()
            .filter(|lease| full && lease.state == LeaseState::Active)
            .map(|lease| lease.key)
            .collect();
        let mut standby: Vec<_> = Vec::with_capacity(unasked.len());
        for (it, at) in unasked {
            let span = it.span(at);
            if !held.contains(&it.key(span)) {
                standby.push((it.budget, span));
            }
            terms.entry(it.budget).or_insert(it);
        }
        standby.sort_by_key(|(id, span)| (*id, span.start));
        standby.dedup();
        Ok(Case { node, session, items, known, asked, standby, in_order, terms })
    }

    /// Locks what is to change, and changes it.
    async fn work(&self, tx: &mut PgConnection, case: &Case<'_>) -> Result<(Rows, Answer), StoreError> {
        let relevant: Vec<Item> = case.items.iter().copied().filter(|item| changes(item, case)).collect();
        let asked_keys: Vec<WindowKey> = case.asked.iter().map(key).collect();
        let lease_of = |item: &Item| item.lease.and_then(|id| case.known.get(&id));
        let mut keys: Vec<WindowKey> =
            relevant.iter().filter_map(|it| lease_of(it).map(|it| it.key)).collect();
        keys.extend(&asked_keys);
        let ids: Vec<LeaseId> = relevant.iter().filter_map(|item| lease_of(item).map(|it| it.id)).collect();
        self.ensure(tx, &case.asked).await?;
        let before = rows::lock(tx, &keys).await?;
        let mut rows = Rows::of(before.clone());
        let leases = rows::leases_for(tx, &ids, case.session.id, &asked_keys).await?;
        let old: HashMap<LeaseId, LeaseRow> = leases.iter().map(|it| (it.id, it.clone())).collect();
        leases.into_iter().for_each(|lease| rows.insert(lease));

        let mut mint = LeaseId::generate;
        let answer =
            Answer { directive: greeting(self.settings.report_ms, case.session.nodes), ..Answer::default() };
        let mut visit = self.visit(case.node, &case.session, &mut mint, answer);
        visit.hand_back(&mut rows, &relevant);
        visit.serve(&mut rows, &relevant, &case.terms);
        let answer = visit.answer;
        rows::save(tx, (&before, &old), &rows, case.session.id).await?;
        Ok((rows, answer))
    }

    /// The terms of budgets, at most [`TERMS_TTL`] old.
    async fn terms(
        &self,
        tx: &mut PgConnection,
        mut ids: Vec<BudgetId>,
    ) -> Result<HashMap<BudgetId, Terms>, StoreError> {
        let mut found = self.memory.fresh_terms(&mut ids);
        if !ids.is_empty() {
            let read = sessions::terms(tx, &ids).await?;
            self.memory.learn_terms(&read);
            found.extend(read.into_iter().map(|it| (it.budget, it)));
        }
        Ok(found)
    }

    /// Makes rows for windows that have none. Before any row is locked.
    async fn ensure(&self, tx: &mut PgConnection, spans: &[(BudgetId, Span)]) -> Result<(), StoreError> {
        let mut new: Vec<(BudgetId, Span)> =
            spans.iter().filter(|span| !self.memory.is_made(key(span))).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        new.sort_by_key(|(id, span)| (*id, span.start));
        new.dedup();
        // They are remembered when they are committed.
        rows::make(tx, &new, self.manual_now()).await
    }
}

fn key((budget, span): &(BudgetId, Span)) -> WindowKey {
    WindowKey { budget: *budget, start: span.start }
}

/// The windows of the leases that are named again; none when none are.
async fn windows_of(
    tx: &mut PgConnection,
    rows: &Rows,
    full: bool,
) -> Result<BTreeMap<WindowKey, WindowRow>, StoreError> {
    if !full {
        return Ok(BTreeMap::new());
    }
    let missing: BTreeSet<WindowKey> =
        rows.leases.values().map(|lease| lease.key).filter(|key| !rows.windows.contains_key(key)).collect();
    let missing: Vec<WindowKey> = missing.into_iter().collect();
    let mut windows = rows::windows(tx, &missing).await?;
    windows.extend(rows.windows.iter().map(|(key, window)| (*key, window.clone())));
    Ok(windows)
}

/// Whether anything follows from it for the rows.
fn changes(item: &Item, case: &Case<'_>) -> bool {
    let Some(id) = item.lease else { return item.asks() };
    let Some(lease) = case.known.get(&id) else { return true };
    item.asks()
        || item.returned > lease.returned
        || lease.state != LeaseState::Active
        || item.done
        || !owns(case.node, lease)
}

fn owns(node: &NodeEpoch, lease: &LeaseRow) -> bool {
    lease.epoch == node.epoch && lease.node_id == node.node_id
}

async fn database_now(tx: &mut PgConnection) -> Result<Millis, StoreError> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    Ok(sqlx::query_scalar(sql).fetch_one(tx).await?)
}

/// Books what requests cost, and returns what that is in the ledger: at most one entry for each kind, window and lease.
/// The caller books the entries in the same transaction, and has made sure that each charge comes once. Charges to
/// budgets that are gone lead to nothing.
///
/// # Errors
/// When the database can't be written.
pub async fn settle(tx: &mut PgConnection, charges: &[SettledCharge]) -> Result<Vec<Entry>, StoreError> {
    if charges.is_empty() {
        return Ok(Vec::new());
    }
    let now = nemo_runtime::clock::unix_us() / 1000;
    settle_at(tx, charges, now).await
}

async fn settle_at(
    tx: &mut PgConnection,
    charges: &[SettledCharge],
    now: Millis,
) -> Result<Vec<Entry>, StoreError> {
    let ids: BTreeSet<LeaseId> = charges.iter().filter_map(|charge| charge.lease_id).collect();
    let ids: Vec<LeaseId> = ids.into_iter().collect();
    let known: HashMap<LeaseId, WindowKey> =
        rows::leases(tx, &ids).await?.into_iter().map(|lease| (lease.id, lease.key)).collect();
    let lease_of = |charge: &SettledCharge| charge.lease_id.filter(|id| known.contains_key(id));
    // Charges that no lease stands for are of the window that their request began in.
    let bare: BTreeSet<BudgetId> =
        charges.iter().filter(|it| lease_of(it).is_none()).map(|it| it.budget_id).collect();
    let bare: Vec<BudgetId> = bare.into_iter().collect();
    let terms: HashMap<BudgetId, Terms> = if bare.is_empty() {
        HashMap::new()
    } else {
        sessions::terms(tx, &bare).await?.into_iter().map(|it| (it.budget, it)).collect()
    };
    let span = |charge: &SettledCharge| terms.get(&charge.budget_id).map(|it| it.span(charge.at));
    let mut bare: Vec<(BudgetId, Span)> = charges
        .iter()
        .filter(|charge| lease_of(charge).is_none())
        .filter_map(|charge| Some((charge.budget_id, span(charge)?)))
        .collect();
    bare.sort_by_key(|(id, span)| (*id, span.start));
    bare.dedup();
    if !bare.is_empty() {
        rows::make(tx, &bare, Some(now)).await?;
    }
    let mut keys: Vec<WindowKey> = known.values().copied().collect();
    keys.extend(bare.iter().map(|(budget, span)| WindowKey { budget: *budget, start: span.start }));
    let before = rows::lock(tx, &keys).await?;
    let mut rows = Rows::of(before.clone());
    let leases = rows::leases(tx, &ids).await?;
    let old: HashMap<LeaseId, LeaseRow> = leases.iter().map(|it| (it.id, it.clone())).collect();
    leases.into_iter().for_each(|lease| rows.insert(lease));
    let mut entries = Vec::with_capacity(charges.len());
    for charge in charges {
        if let Some((window, lease)) = lease_of(charge).and_then(|id| rows.both(id)) {
            books::settle(window, Some(lease), charge.nanos, now, &mut entries);
            continue;
        }
        let Some(span) = span(charge) else { continue };
        let key = WindowKey { budget: charge.budget_id, start: span.start };
        let Some(window) = rows.windows.get_mut(&key) else { continue };
        if charge.lease_id.is_some() {
            books::settle_unknown(window, charge.nanos, now, &mut entries);
        } else {
            books::settle(window, None, charge.nanos, now, &mut entries);
        }
    }
    rows::save(tx, (&before, &old), &rows, 0).await?;
    Ok(books::merged(entries))
}

/// Ends what a process had leased. Returns what that is in the ledger, booked.
async fn close_epoch(
    tx: &mut PgConnection,
    node_id: &str,
    epoch: u64,
    exact: bool,
    now: Millis,
) -> Result<Vec<Entry>, StoreError> {
    let open = rows::open_of_epoch(tx, node_id, epoch).await?;
    close_all(tx, &open, now, |_, lost| if exact { LostLease::Release } else { lost }).await
}

/// Closes leases as `policy` says of each, given the policy of its budget, and books the entries.
async fn close_all(
    tx: &mut PgConnection,
    open: &[LeaseRow],
    now: Millis,
    policy: impl Fn(&LeaseRow, LostLease) -> LostLease,
) -> Result<Vec<Entry>, StoreError> {
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<WindowKey> = open.iter().map(|lease| lease.key).collect();
    let ids: Vec<LeaseId> = open.iter().map(|lease| lease.id).collect();
    let budgets: BTreeSet<BudgetId> = keys.iter().map(|key| key.budget).collect();
    let budgets: Vec<BudgetId> = budgets.into_iter().collect();
    let lost: HashMap<BudgetId, LostLease> =
        sessions::terms(tx, &budgets).await?.into_iter().map(|it| (it.budget, it.lost)).collect();
    let before = rows::lock(tx, &keys).await?;
    let mut rows = Rows::of(before.clone());
    let leases = rows::leases(tx, &ids).await?;
    let old: HashMap<LeaseId, LeaseRow> = leases.iter().map(|it| (it.id, it.clone())).collect();
    leases.into_iter().for_each(|lease| rows.insert(lease));
    let mut entries = Vec::new();
    for id in ids {
        let Some((window, lease)) = rows.both(id) else { continue };
        let policy = policy(lease, lost.get(&lease.key.budget).copied().unwrap_or(LostLease::Charge));
        books::close(window, lease, policy, now, &mut entries);
    }
    rows::save(tx, (&before, &old), &rows, 0).await?;
    ledger::book(tx, SOURCE, &entries).await?;
    Ok(entries)
}

/// An operator gives back what a lost lease holds or has forfeited. Nano-USD; `None`: there is no such lease. The entry
/// is booked.
///
/// # Errors
/// When the database can't be written.
pub async fn release(tx: &mut PgConnection, id: LeaseId, now: Millis) -> Result<Option<i64>, StoreError> {
    let Some(found) = rows::leases(tx, &[id]).await?.pop() else { return Ok(None) };
    let before = rows::lock(tx, &[found.key]).await?;
    let mut rows = Rows::of(before.clone());
    let leases = rows::leases(tx, &[id]).await?;
    let old: HashMap<LeaseId, LeaseRow> = leases.iter().map(|it| (it.id, it.clone())).collect();
    leases.into_iter().for_each(|lease| rows.insert(lease));
    let Some((window, lease)) = rows.both(id) else { return Ok(None) };
    let mut entries = Vec::new();
    let back = books::release(window, lease, now, &mut entries);
    rows::save(tx, (&before, &old), &rows, 0).await?;
    ledger::book(tx, SOURCE, &entries).await?;
    Ok(Some(back))
}

#[tonic::async_trait]
impl Bank for SqlBank {
    async fn report(&self, node: &NodeEpoch, report: &LeaseReport) -> Result<Answer, BankError> {
        self.report_until_done(node, report, None).await
    }

    async fn report_in_parts(
        &self,
        node: &NodeEpoch,
        report: &LeaseReport,
        later: &mpsc::Sender<Given>,
    ) -> Result<Answer, BankError> {
        self.report_until_done(node, report, Some(later)).await
    }

    async fn recalls(&self, node: &NodeEpoch) -> Result<Vec<Recall>, BankError> {
        let mut tx = self.store.system().await?;
        let now = self.now(tx.conn()).await?;
        let Some(session) = sessions::find(tx.conn(), node).await? else { return Ok(Vec::new()) };
        let starving = sessions::starving(tx.conn(), session, now).await?;
        let called = starving.iter().filter(|(window, lease)| desk::is_called_back(Some(window), lease, now));
        Ok(called.map(|(_, lease)| desk::recall(lease.id)).collect())
    }

    async fn expire(&self) -> Result<Expired, BankError> {
        let expired = expire::run(self).await?;
        if expired.held > 0 || expired.closed > 0 {
            self.memory.doubt_leases();
        }
        Ok(expired)
    }

    async fn close_epoch(&self, node_id: &str, epoch: u64, exact: bool) -> Result<Vec<Entry>, BankError> {
        let mut tx = self.store.system().await?;
        let now = self.now(tx.conn()).await?;
        let entries = close_epoch(tx.conn(), node_id, epoch, exact, now).await?;
        tx.commit().await?;
        self.memory.doubt_leases();
        Ok(entries)
    }

    async fn settle(&self, source: &str, charges: &[SettledCharge]) -> Result<Vec<Entry>, BankError> {
        let mut tx = self.store.system().await?;
        let now = self.now(tx.conn()).await?;
        let entries = settle_at(tx.conn(), charges, now).await?;
        ledger::book(tx.conn(), source, &entries).await?;
        tx.commit().await?;
        Ok(entries)
    }

    async fn release(&self, lease: LeaseId) -> Result<Option<i64>, BankError> {
        let mut tx = self.store.system().await?;
        let now = self.now(tx.conn()).await?;
        let back = release(tx.conn(), lease, now).await?;
        tx.commit().await?;
        self.memory.doubt_leases();
        Ok(back)
    }
}

/// A deadlock or a serialization failure: nothing happened, and it will not happen again at once.
fn is_victim(error: &StoreError) -> bool {
    let StoreError::Unavailable(error) = error else { return false };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "40P01" || code == "40001")
}
