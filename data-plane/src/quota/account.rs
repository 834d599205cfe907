//! What a node knows of one budget: its leases, what its requests wait for, and what the control plane said when there
//! was nothing to grant. Requests read the leases; everything else is behind a lock that no request takes unless it is
//! refused.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use nemo_types::{BudgetId, LeaseId};
use tokio::sync::Notify;

use super::{
    clock::Moment,
    lease::{Lease, Terms},
    reservation::Need,
};

/// How long a refused request's need is told: its client comes back, or does not.
const DEMAND_LASTS: u64 = 10_000_000_000;
/// By the least of the needs goes what is of use here, and what is handed back: soon forgotten.
const LEAST_LASTS: u64 = 2_000_000_000;
/// How long a note stands that no request asks after: until the next report, which would ask again.
const NOTE_LASTS: u64 = 2_000_000_000;
/// How often what was said to be worth another question is asked while there is no answer.
const ASK_AGAIN: u64 = 100_000_000;
/// Leases that are over are remembered for so long, so that a grant that was under way for long is not taken for a new
/// one; and so many at most.
const GONE_LASTS: u64 = 3_600_000_000_000;
const MAX_GONE: usize = 256;
/// Leases of one budget at once: this window's, the next one's, and those that are ending.
const MAX_LEASES: usize = 64;

/// What leases and requests share of an account.
#[derive(Debug)]
pub struct Core {
    pub budget: BudgetId,
    /// Something has changed since the last report; it is in the list of what to report.
    pub(super) dirty: AtomicBool,
    /// Requests that wait.
    pub(super) waiting: AtomicU32,
    pub(super) came: Notify,
    /// Spent without a lease.
    pub(super) unleased: AtomicI64,
}

impl Core {
    pub fn new(budget: BudgetId) -> Self {
        Self {
            budget,
            dirty: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            came: Notify::new(),
            unleased: AtomicI64::new(0),
        }
    }

    /// Something came back, or an answer came: who waits may try again.
    pub(super) fn ring(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.came.notify_waiters();
        }
    }
}

#[derive(Debug)]
pub struct Account {
    pub core: Arc<Core>,
    pub(super) leases: ArcSwap<Vec<Arc<Lease>>>,
    books: Mutex<Books>,
}

/// Behind the lock.
#[derive(Debug, Default)]
pub struct Books {
    /// See [`Books::word`].
    pub note: Option<Note>,
    pub demand: Demand,
    /// The newest answer that said something about this budget.
    pub news: u64,
    /// Nano-USD per second, lately.
    pub spend_rate: i64,
    pub rated_at: Moment,
    pub unleased_counted: i64,
    /// A lease has run low since the last report.
    pub ran_low: bool,
    /// Somebody else needs it: nothing is asked for in advance.
    pub modest_until: Moment,
    /// The report that told of a need.
    pub wants_told: u64,
    gone: Vec<(LeaseId, Moment)>,
    pub touched_at: Moment,
}

/// What requests were refused for lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    pub sum: i64,
    pub largest: i64,
    /// When so much was needed last, and so little.
    pub largest_at: Moment,
    pub least_at: Moment,
    /// The least that was of use to one of them: it was the smallest, or could be cut short.
    pub least: i64,
    /// Something was granted since, which may have been a part.
    pub answered: bool,
    pub asked_at: Moment,
    pub until: Moment,
}

/// The control plane had nothing, or not enough, to grant.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    pub limit: i64,
    pub settled: i64,
    /// Held by leases.
    pub outstanding: i64,
    /// `None`: the window never ends.
    pub resets_at: Option<Moment>,
    /// Worth asking again then; `None`: only a new window or a higher limit helps.
    pub retry_at: Option<Moment>,
    /// When some of what was spent comes back by age; `None`: never.
    pub eases_at: Option<Moment>,
    pub noted_at: Moment,
}

impl Note {
    /// Whether it is an answer to who lacks so much: it may be about a larger request, of which a smaller one is no part.
    pub fn denies(&self, missing: i64) -> bool {
        let taken = i128::from(self.settled) + i128::from(self.outstanding);
        i128::from(missing) > i128::from(self.limit) - taken
    }

    pub fn holds(&self, now: Moment) -> bool {
        [self.resets_at, self.retry_at, self.eases_at].into_iter().flatten().all(|at| now < at)
    }

    pub fn resets_in(&self, now: Moment) -> Option<Duration> {
        self.resets_at.map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }

    pub fn retry_after(&self, now: Moment) -> Option<Duration> {
        self.retry_at.map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }

    pub fn eases_in(&self, now: Moment) -> Option<Duration> {
        self.eases_at.map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }
}

impl Books {
    /// The note, while it can be relied on. Money that is granted or bought later is told to who asks for it: a node that
    /// has stopped asking does not hear of it, and what it was told last may be long out of date.
    pub fn word(&self, now: Moment) -> Option<Note> {
        let heard = |note: &Note| self.demand.until > now || now.saturating_sub(note.noted_at) < NOTE_LASTS;
        self.note.filter(|note| note.holds(now) && heard(note))
    }

    /// The note when it is worth another question, and until that is answered the last word all the same: a client that
    /// can't wait for the answer is told what is known, not that nobody knows.
    pub fn ask_again(&mut self, missing: i64, now: Moment) -> Option<Note> {
        let note = self.note.as_mut().filter(|note| note.denies(missing))?;
        let lasts = [note.resets_at, note.eases_at].into_iter().flatten().all(|at| now < at);
        let over = note.retry_at.is_some_and(|at| at <= now);
        if !(lasts && over) || now.saturating_sub(note.noted_at) >= NOTE_LASTS {
            return None;
        }
        note.retry_at = Some(now.saturating_add(ASK_AGAIN));
        Some(*note)
    }

    /// True when the control plane does not know of such a need, and should hear of it now.
    pub fn ask(&mut self, need: Need, now: Moment) -> bool {
        let Need { bound, least } = need;
        if self.demand.until <= now {
            self.demand = Demand::default();
        }
        let answered = std::mem::take(&mut self.demand.answered);
        let demand = &mut self.demand;
        let first = demand.sum == 0;
        let more = answered || first || bound > demand.largest || least < demand.least;
        // One extreme request must not be told of for as long as any others come.
        if first || bound >= demand.largest || now.saturating_sub(demand.largest_at) >= DEMAND_LASTS {
            (demand.largest, demand.largest_at) = (bound, now);
        }
        if first || least <= demand.least || now.saturating_sub(demand.least_at) >= LEAST_LASTS {
            (demand.least, demand.least_at) = (least, now);
        }
        // Requests that are refused come again: not without end.
        self.demand.sum =
            self.demand.sum.saturating_add(bound.max(1)).min(self.demand.largest.saturating_mul(64).max(1));
        self.demand.asked_at = now;
        self.demand.until = now.saturating_add(DEMAND_LASTS);
        more
    }

    pub fn knows_as_gone(&self, lease: LeaseId) -> bool {
        self.gone.iter().any(|(gone, _)| *gone == lease)
    }

    pub fn has_gone(&mut self, now: Moment) -> bool {
        self.gone.retain(|(_, at)| now.saturating_sub(*at) < GONE_LASTS);
        !self.gone.is_empty()
    }

    fn forget(&mut self, lease: LeaseId, now: Moment) {
        if self.gone.len() >= MAX_GONE {
            self.gone.remove(0);
        }
        self.gone.push((lease, now));
    }
}

impl Account {
    /// Whether requests in flight hold something of it.
    pub fn holds_any(&self) -> bool {
        self.leases.load().iter().any(|lease| lease.reserved() > 0)
    }

    pub fn new(budget: BudgetId, now: Moment) -> Self {
        let books = Books { rated_at: now, touched_at: now, ..Books::default() };
        Self {
            core: Arc::new(Core::new(budget)),
            leases: ArcSwap::from_pointee(Vec::new()),
            books: Mutex::new(books),
        }
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that one reservation can have now; `None` without an open lease.
    pub fn available(&self, now: Moment, renewed_at: Moment) -> Option<i64> {
        let leases = self.leases.load();
        let open = leases.iter().filter(|lease| lease.is_open(now, renewed_at) && !lease.is_retired());
        open.map(|lease| lease.available().max(0)).max()
    }

    /// Hands back what is of no use to the requests that wait here, the least of which needs `least`: together with what
    /// other nodes have left over it may be. Returns how much.
    pub(super) fn scraps(&self, least: i64, now: Moment) -> i64 {
        let leases = self.leases.load();
        let free = || leases.iter().filter(|lease| lease.is_current(now) && !lease.is_retired());
        if free().any(|lease| lease.free() >= least) {
            return 0;
        }
        free().map(|lease| lease.hand_back(0)).fold(0, i64::saturating_add)
    }

    /// What this node has spent of what it holds of the present window: the window's spend is at least that.
    pub fn spent(&self, now: Moment) -> i64 {
        let leases = self.leases.load();
        let current = leases.iter().filter(|lease| lease.is_current(now));
        current.map(|lease| lease.spent()).fold(0, i64::saturating_add)
    }

    /// The window that is current, if the node knows one.
    pub fn window(&self, now: Moment) -> Option<i64> {
        let leases = self.leases.load();
        leases.iter().rev().find(|lease| lease.is_current(now)).map(|lease| lease.window_start_unix_s)
    }

    /// `_books` says that the lock is held. False: there are too many.
    pub(super) fn add(&self, _books: &mut Books, terms: &Terms, granted: i64, now: Moment) -> bool {
        let mut leases = Vec::clone(&self.leases.load());
        if leases.len() >= MAX_LEASES {
            return false;
        }
        let lease = Lease::new(terms, self.core.clone(), now);
        lease.granted_to(granted, terms.life);
        leases.push(Arc::new(lease));
        self.leases.store(Arc::new(leases));
        true
    }

    /// Drops leases that are over and whose end the control plane has heard of.
    pub fn drop_ended(&self, books: &mut Books, acknowledged: u64, now: Moment) {
        let leases = self.leases.load();
        let ended = |lease: &Arc<Lease>| Lease::has_ended(lease, acknowledged);
        let (gone, kept): (Vec<_>, Vec<_>) = leases.iter().partition(|lease| ended(lease));
        if gone.is_empty() {
            return;
        }
        gone.iter().for_each(|lease| books.forget(lease.id, now));
        self.leases.store(Arc::new(kept.into_iter().cloned().collect()));
    }
}
