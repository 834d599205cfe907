//! What one request holds of its budgets. It ends exactly once: refunded when nothing was sent, settled at its cost, or,
//! dropped after it was sent, settled at what was reserved.

use std::{sync::Arc, time::Duration};

use nemo_snapshot::{Budget, NoLease, OverBudget};
use nemo_types::Nanos;
use smallvec::SmallVec;

use super::{QuotaTable, account::Core, charge::Charge, clock::Moment, lease::Lease};

/// What a request would hold of a budget. Nano-USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it can cost at most.
    pub bound: i64,
    /// It can be cut down to so much; as much as `bound`: it can't.
    pub least: i64,
}

impl Need {
    /// What there would have to be beyond `free` for more than what can be done with that.
    pub(super) fn missing(self, free: i64) -> i64 {
        let next = if free >= self.least { self.bound } else { self.least };
        next.saturating_sub(free)
    }
}

/// A request can't have what it may cost.
#[derive(Clone, Debug)]
pub enum Denied {
    /// The node holds no lease of this budget. It was asked for: see [`QuotaTable::wanted`].
    NoLease { budget: Arc<Budget>, need: Need },
    /// The lease has less; more was asked for: see [`QuotaTable::wanted`]. After the wait, this much can be had.
    Short { budget: Arc<Budget>, affordable: Nanos, need: Need },
    /// The control plane has said that there is no more; `affordable` of the table tells what this node still has.
    Exhausted {
        budget: Arc<Budget>,
        limit: Nanos,
        /// Spent, and what is beyond the limit.
        settled: Nanos,
        /// Until the window ends; `None`: it never does.
        resets_in: Option<Duration>,
        /// Until some of what was spent comes back by age; `None`: it never does.
        eases_in: Option<Duration>,
        /// What others hold may come back: worth another try then.
        retry_after: Option<Duration>,
        /// When it said so.
        noted_at: Moment,
    },
}

/// When something that this node's own requests hold may have come back.
const HELD_HERE: Duration = Duration::from_millis(100);

impl Denied {
    pub fn budget(&self) -> &Arc<Budget> {
        match self {
            Self::NoLease { budget, .. } | Self::Short { budget, .. } | Self::Exhausted { budget, .. } => {
                budget
            }
        }
    }
}

/// A part of a hold: of one lease, or of none when the budget allows that.
#[derive(Debug)]
pub(super) struct Part {
    pub budget: Arc<Budget>,
    pub source: Source,
    pub reserved: i64,
}

#[derive(Debug)]
pub(super) enum Source {
    Lease(Arc<Lease>),
    /// With the window, if it is known.
    Unleased(Arc<Core>, i64),
}

impl Source {
    fn core(&self) -> &Arc<Core> {
        match self {
            Self::Lease(lease) => &lease.core,
            Self::Unleased(core, _) => core,
        }
    }
}

impl Part {
    fn charge(&self, nanos: i64) -> Charge {
        let (window_start_unix_s, lease) = match &self.source {
            Source::Lease(lease) => (lease.window_start_unix_s, Some(lease.id)),
            Source::Unleased(_, window) => (*window, None),
        };
        Charge { budget: self.budget.id, window_start_unix_s, lease, nanos: Nanos(nanos) }
    }
}

/// Charges of one request: inline for two budgets with an organization's and a team's besides.
pub type Charges = SmallVec<[Charge; 4]>;

/// A reservation over every budget of a request.
#[derive(Debug)]
pub struct Hold {
    table: QuotaTable,
    /// By budget; one that was extended into another lease has two.
    parts: SmallVec<[Part; 4]>,
    reserved: i64,
    sent: bool,
}

impl Hold {
    pub(super) fn new(table: QuotaTable, reserved: i64) -> Self {
        Self { table, parts: SmallVec::new(), reserved, sent: false }
    }

    pub(super) fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Reserves more of every budget, or nothing of any: a stream that goes on, or one more attempt.
    ///
    /// # Errors
    /// [`Denied`]: what is held already stays.
    pub fn extend(&mut self, more: Nanos) -> Result<(), Denied> {
        let more = more.0.max(0);
        let now = self.table.now();
        // A second hold, so that what was taken goes back by itself when the last budget refuses.
        let mut added = Self::new(self.table.clone(), more);
        let mut last = None;
        for part in &self.parts {
            if last == Some(part.budget.id) {
                continue;
            }
            last = Some(part.budget.id);
            // The lease that the request has already, while it lives: also after its window's end.
            let same = self.parts.iter().rev().find(|it| it.budget.id == part.budget.id);
            let taken = same.and_then(|same| self.table.take_again(same, more, now));
            added.parts.push(match taken {
                Some(part) => part,
                None => self.table.take(&part.budget, more, || more, now)?,
            });
        }
        for part in std::mem::take(&mut added.parts) {
            self.join(part);
        }
        self.reserved = self.reserved.saturating_add(more);
        Ok(())
    }

    fn join(&mut self, added: Part) {
        let same = |part: &Part| match (&part.source, &added.source) {
            (Source::Lease(one), Source::Lease(other)) => Arc::ptr_eq(one, other),
            (Source::Unleased(one, at), Source::Unleased(other, then)) => {
                Arc::ptr_eq(one, other) && at == then
            }
            _ => false,
        };
        if let Some(part) = self.parts.iter_mut().find(|part| same(part)) {
            part.reserved = part.reserved.saturating_add(added.reserved);
            return;
        }
        let behind = self.parts.iter().rposition(|part| part.budget.id == added.budget.id);
        self.parts.insert(behind.map_or(self.parts.len(), |at| at + 1), added);
    }

    /// Of each budget.
    pub fn reserved(&self) -> Nanos {
        Nanos(self.reserved)
    }

    /// False: no budget covers the request.
    pub fn is_bound(&self) -> bool {
        !self.parts.is_empty()
    }

    /// As if it cost what is reserved now.
    pub fn charges(&self) -> Charges {
        self.parts.iter().map(|part| part.charge(part.reserved)).collect()
    }

    /// From now on the request costs something, whatever becomes of it.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Ends it at what the request cost, also above the reservation. Returns what its event says.
    pub fn settle(mut self, actual: Nanos) -> Charges {
        let charges = self.shared_out(actual.0.max(0));
        let parts = std::mem::take(&mut self.parts);
        for (part, charge) in parts.iter().zip(&charges) {
            self.table.end(part, charge.nanos.0);
        }
        charges
    }

    /// Each budget is charged the whole cost; its parts in their order, the last one with what is above the reservation.
    fn shared_out(&self, actual: i64) -> Charges {
        let mut charges = Charges::new();
        let mut rest = actual;
        for (at, part) in self.parts.iter().enumerate() {
            let first = at == 0 || self.parts[at - 1].budget.id != part.budget.id;
            let last = self.parts.get(at + 1).is_none_or(|next| next.budget.id != part.budget.id);
            if first {
                rest = actual;
            }
            let nanos = if last { rest } else { rest.min(part.reserved) };
            rest -= nanos;
            charges.push(part.charge(nanos));
        }
        charges
    }

    pub(super) fn ring(source: &Source) {
        source.core().ring();
    }
}

/// I14: only releases.
impl Drop for Hold {
    fn drop(&mut self) {
        for part in std::mem::take(&mut self.parts) {
            let cost = if self.sent { part.reserved } else { 0 };
            self.table.end(&part, cost);
        }
    }
}

impl QuotaTable {
    /// More of the same lease. It need not be in its window any more: what it holds is this node's until it expires or is
    /// handed back.
    fn take_again(&self, part: &Part, more: i64, now: u64) -> Option<Part> {
        let Source::Lease(lease) = &part.source else { return None };
        let source = Source::Lease(lease.clone());
        let taken = lease.is_alive(now, self.renewed_at()) && lease.try_reserve(more, now);
        taken.then(|| Part { budget: part.budget.clone(), source, reserved: more })
    }

    /// From the first open lease that has it.
    ///
    /// # Errors
    /// [`Denied`]: none has. The need is noted, and the least that would do.
    pub(super) fn take(
        &self,
        budget: &Arc<Budget>,
        amount: i64,
        least: impl FnOnce() -> i64,
        now: u64,
    ) -> Result<Part, Denied> {
        let renewed_at = self.renewed_at();
        let taken = self.inner.accounts.with(&budget.id, |account| {
            account.leases.load().iter().find_map(|lease| {
                if lease.available() < amount || !lease.is_open(now, renewed_at) {
                    return None;
                }
                // The reference first: see `Lease::is_done`.
                let lease = lease.clone();
                lease.try_reserve(amount, now).then_some(lease)
            })
        });
        match taken.flatten() {
            Some(lease) => {
                self.touch(&lease.core);
                if lease.ran_low() {
                    self.ran_low(&lease);
                }
                Ok(Part { budget: budget.clone(), source: Source::Lease(lease), reserved: amount })
            }
            None => {
                let least = if budget.over_budget == OverBudget::Cap { least().min(amount) } else { amount };
                self.refuse(budget, Need { bound: amount, least }, now)
            }
        }
    }

    #[cold]
    fn ran_low(&self, lease: &Lease) {
        let Some(account) = self.inner.accounts.get(&lease.core.budget) else { return };
        let mut books = account.books();
        if books.word(self.now()).is_some() {
            return;
        }
        books.ran_low = true;
        drop(books);
        self.inner.urgent.notify_one();
    }

    #[cold]
    fn refuse(&self, budget: &Arc<Budget>, need: Need, now: u64) -> Result<Part, Denied> {
        let Some(account) = self.account(budget.id, now) else {
            self.inner.metrics.denied_no_lease.inc();
            return Err(Denied::NoLease { budget: budget.clone(), need });
        };
        let available = account.available(now, self.renewed_at());
        let missing = need.missing(available.unwrap_or(0));
        let mut books = account.books();
        books.touched_at = now;
        let note = books.word(now).filter(|note| note.denies(missing));
        let asks_again = note.is_none() && budget.no_lease == NoLease::Deny;
        let again = if asks_again { books.ask_again(missing, now) } else { None };
        let urgent = again.is_some();
        let note = note.or(again);
        // Once: the requests that follow go by the answer.
        let doubted = note.is_none() && books.note.take().is_some_and(|note| note.holds(now));
        let more = books.ask(need, now) || doubted;
        drop(books);
        self.touch(&account.core);
        if urgent {
            self.inner.urgent.notify_one();
        }
        if let Some(note) = note {
            // Else not urgent: the next report tells the need all the same, so that money that came back is found.
            self.inner.metrics.denied_exhausted.inc();
            return Err(Denied::Exhausted {
                budget: budget.clone(),
                limit: Nanos(note.limit),
                // What was spent here since then is not in the note.
                settled: Nanos(note.settled.max(account.spent(now))),
                resets_in: note.resets_in(now),
                eases_in: note.eases_in(now),
                // What other requests of this node hold may come back as well, whatever was said of the other nodes.
                retry_after: note.retry_after(now).or_else(|| account.holds_any().then_some(HELD_HERE)),
                noted_at: note.noted_at,
            });
        }
        if more {
            self.inner.urgent.notify_one();
        }
        // It was exhausted when it was last heard of: worth a question before more is spent of it.
        if budget.no_lease == NoLease::Allow && !doubted {
            self.inner.metrics.unleased.inc();
            let source = Source::Unleased(account.core.clone(), account.window(now).unwrap_or(0));
            return Ok(Part { budget: budget.clone(), source, reserved: need.bound });
        }
        Err(match available {
            None => {
                self.inner.metrics.denied_no_lease.inc();
                Denied::NoLease { budget: budget.clone(), need }
            }
            Some(affordable) => {
                self.inner.metrics.denied_short.inc();
                Denied::Short { budget: budget.clone(), affordable: Nanos(affordable), need }
            }
        })
    }

    fn end(&self, part: &Part, cost: i64) {
        match &part.source {
            Source::Lease(lease) => lease.settle(part.reserved, cost),
            Source::Unleased(core, _) => {
                core.unleased.fetch_add(cost, std::sync::atomic::Ordering::Relaxed);
            }
        }
        self.touch(part.source.core());
        Hold::ring(&part.source);
    }
}
