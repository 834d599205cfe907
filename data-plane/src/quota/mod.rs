//! Money and rates that this node's requests may use. Nothing in here waits for the network: what a request needs is
//! there or it is refused, and the control plane is asked behind its back (I1).
//!
//! - [`lease`]: a slice of one window of a budget, on atomics; [`account`]: all that is known of one budget
//! - [`reservation`]: what one request holds, and how that ends (I3)
//! - [`share`]: this node's part of a rate limit; [`pass`]: a request that was let through
//! - [`report`] and [`apply`]: what is told to the control plane, and what it says
//! - [`clock`], [`shards`], [`charge`], [`metrics`]: what these stand on
//!
//! Leases, reservations and buckets are kept by id and outlive snapshots. The node may lose touch with the control plane
//! for as long as a lease lives: counted from when it *sent* the last report that was answered, on its own clock, so
//! that no message that was under way for long, and no clock that is set, makes a lease live longer than the control
//! plane waits (I13). A lease that has expired here is never used again.
//!
//! Called by `pipeline::throttle` and `pipeline::reserve`, and by `control::quota_stream`. No task and no timer in here:
//! the fleet simulation runs this very code.

pub mod account;
pub mod apply;
pub mod charge;
pub mod clock;
pub mod lease;
pub mod metrics;
pub mod pass;
pub mod report;
pub mod reservation;
pub mod shards;
pub mod share;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use nemo_snapshot::{Budget, NoLease, RateLimit};
use nemo_types::{BudgetId, Nanos, RateLimitId};
use smallvec::SmallVec;
use tokio::sync::Notify;

use self::{
    account::{Account, Core},
    clock::Moment,
    report::Reports,
    shards::Shards,
    share::Meter,
};
pub use self::{
    charge::Charge,
    clock::Clock,
    metrics::QuotaMetrics,
    pass::{Limited, Pass, RateView, What},
    reservation::{Charges, Denied, Hold, Need},
    share::BucketView,
};

/// Budgets and rate limits of a node. Clones share them.
#[derive(Clone)]
pub struct QuotaTable {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    accounts: Shards<BudgetId, Account>,
    meters: Shards<RateLimitId, Meter>,
    /// When the report was sent that the control plane answered last: leases live from there.
    renewed_at: AtomicU64,
    nodes: AtomicU32,
    draining: AtomicBool,
    /// What has changed since the last report.
    changed: Mutex<Changed>,
    reports: Mutex<Reports>,
    urgent: Notify,
    /// When to ask again for what there was nothing of.
    retry_at: AtomicU64,
    metrics: QuotaMetrics,
}

#[derive(Default)]
struct Changed {
    budgets: Vec<BudgetId>,
    rates: Vec<RateLimitId>,
}

impl fmt::Debug for QuotaTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaTable").field("budgets", &self.inner.accounts.len()).finish_non_exhaustive()
    }
}

impl Default for QuotaTable {
    fn default() -> Self {
        Self::new(Clock::monotonic(), QuotaMetrics::default())
    }
}

impl QuotaTable {
    pub fn new(clock: Clock, metrics: QuotaMetrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                accounts: Shards::default(),
                meters: Shards::default(),
                renewed_at: AtomicU64::new(0),
                nodes: AtomicU32::new(1),
                draining: AtomicBool::new(false),
                changed: Mutex::default(),
                reports: Mutex::default(),
                urgent: Notify::new(),
                retry_at: AtomicU64::new(Moment::MAX),
                metrics,
            }),
        }
    }

    /// Reserves the amount of every budget, in the order of their ids, or nothing of any. CAS only; a refusal takes a lock.
    ///
    /// # Errors
    /// [`Denied`] by the first that has not as much. What is needed is told to the control plane.
    pub fn reserve(&self, budgets: &[Arc<Budget>], bound: Nanos) -> Result<Hold, Denied> {
        self.reserve_or_less(budgets, bound, || bound)
    }

    /// The same for a request that can be cut down, to `least` at the least where its budgets' policy is that: so much is
    /// worth granting. Nothing is held that is less than `bound`.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub fn reserve_or_less(
        &self,
        budgets: &[Arc<Budget>],
        bound: Nanos,
        least: impl Fn() -> Nanos,
    ) -> Result<Hold, Denied> {
        let bound = bound.0.max(0);
        let least = || least().0;
        let mut hold = Hold::new(self.clone(), bound);
        if budgets.is_empty() {
            return Ok(hold);
        }
        let now = self.now();
        if budgets.is_sorted_by_key(|budget| budget.id) {
            for budget in budgets {
                hold.push(self.take(budget, bound, least, now)?);
            }
        } else {
            let mut sorted: SmallVec<[&Arc<Budget>; 8]> = budgets.iter().collect();
            sorted.sort_unstable_by_key(|budget| budget.id);
            for budget in sorted {
                hold.push(self.take(budget, bound, least, now)?);
            }
        }
        Ok(hold)
    }

    /// The largest bound that passes now; the largest number when nothing binds.
    pub fn affordable(&self, budgets: &[Arc<Budget>]) -> Nanos {
        let (now, renewed_at) = (self.now(), self.renewed_at());
        let of_one = |budget: &Arc<Budget>| {
            let account = self.inner.accounts.get(&budget.id);
            let exhausted = || account.as_ref().is_some_and(|it| it.books().word(now).is_some());
            if budget.no_lease == NoLease::Allow && !exhausted() {
                return i64::MAX;
            }
            account.as_ref().and_then(|account| account.available(now, renewed_at)).unwrap_or(0)
        };
        Nanos(budgets.iter().map(of_one).min().unwrap_or(i64::MAX))
    }

    /// Resolves when enough came for what was denied, or an answer that there is not as much. The caller adds a timeout.
    pub fn wanted(&self, denied: &Denied) -> impl Future<Output = ()> + Send + use<> {
        let table = self.clone();
        let (had, need, heard) = match denied {
            Denied::NoLease { need, .. } => (None, Some(*need), None),
            Denied::Short { affordable, need, .. } => (Some(affordable.0), Some(*need), None),
            // Whatever happens next is worth another try.
            Denied::Exhausted { noted_at, .. } => (None, None, Some(*noted_at)),
        };
        let account = self.inner.accounts.get(&denied.budget().id);
        async move {
            let Some(account) = account else { return std::future::pending().await };
            let _waits = Waits::new(account.core.clone());
            loop {
                let mut came = std::pin::pin!(account.core.came.notified());
                came.as_mut().enable();
                // Between the refusal and now it may have come already. What came may have been for a smaller request, or
                // been said of a larger one.
                if heard.is_some() && heard != account.books().note.map(|note| note.noted_at) {
                    return;
                }
                if let Some(need) = need {
                    let now = table.now();
                    let has = account.available(now, table.renewed_at());
                    let enough = has > had && has >= Some(need.least);
                    let missing = need.missing(has.unwrap_or(0));
                    if enough || account.books().word(now).is_some_and(|note| note.denies(missing)) {
                        return;
                    }
                }
                came.await;
                if need.is_none() {
                    return;
                }
            }
        }
    }

    /// Resolves when a report should be sent now: a request was refused for want of money that may be there, a slice runs
    /// low, or something was asked back.
    pub async fn urgent(&self) {
        self.inner.urgent.notified().await;
    }

    /// Until a report is worthwhile because requests were refused, and something may have come back since. `None`: none is.
    pub fn retry_in(&self) -> Option<Duration> {
        let at = self.inner.retry_at.load(Relaxed);
        (at != Moment::MAX).then(|| Duration::from_nanos(at.saturating_sub(self.now())))
    }

    /// From now on nothing can be reserved; what is not held for requests in flight is handed back with the next report.
    pub fn drain(&self) {
        self.inner.draining.store(true, Release);
        self.inner.urgent.notify_one();
    }

    /// Nothing is held any more, and the control plane has heard so.
    pub fn is_empty(&self) -> bool {
        let answered = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner).answered;
        let mut empty = true;
        self.inner.accounts.for_each(|_, account| {
            let leases = account.leases.load();
            empty &= leases.iter().all(|lease| lease::Lease::has_ended(lease, answered));
        });
        empty
    }

    /// Every lease that is not over, for whoever looks at a node from outside.
    pub fn held(&self) -> Vec<Held> {
        let (now, renewed_at) = (self.now(), self.renewed_at());
        let mut held = Vec::new();
        self.inner.accounts.for_each(|budget, account| {
            held.extend(account.leases.load().iter().map(|lease| Held {
                budget: *budget,
                lease: lease.id,
                granted: Nanos(lease.granted()),
                returned: Nanos(lease.returned()),
                spent: Nanos(lease.spent()),
                free: Nanos(lease.free()),
                usable: lease.is_open(now, renewed_at) && !lease.is_retired(),
            }));
        });
        held
    }

    pub fn now(&self) -> Moment {
        self.inner.clock.now()
    }

    fn renewed_at(&self) -> Moment {
        self.inner.renewed_at.load(Acquire)
    }

    fn account(&self, budget: BudgetId, now: Moment) -> Option<Arc<Account>> {
        self.inner.accounts.get_or_insert(budget, || Account::new(budget, now))
    }

    fn meter(&self, limit: &RateLimit, now: Moment) -> Option<Arc<Meter>> {
        let meter = self.inner.meters.get_or_insert(limit.id, || Meter::new(limit.id, now))?;
        meter.follow(limit, self.inner.nodes.load(Relaxed), now);
        Some(meter)
    }

    /// Puts it into the next report, if it isn't in it yet.
    fn touch(&self, core: &Core) {
        if !core.dirty.load(Relaxed) && !core.dirty.swap(true, AcqRel) {
            self.changed().budgets.push(core.budget);
        }
    }

    fn touch_meter(&self, meter: &Meter) {
        if !meter.dirty.load(Relaxed) && !meter.dirty.swap(true, AcqRel) {
            self.changed().rates.push(meter.id);
        }
    }

    /// At most one entry for each account and meter.
    fn changed(&self) -> std::sync::MutexGuard<'_, Changed> {
        self.inner.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub budget: BudgetId,
    pub lease: nemo_types::LeaseId,
    pub granted: Nanos,
    pub returned: Nanos,
    pub spent: Nanos,
    /// Negative after costs above their reservations.
    pub free: Nanos,
    /// Requests may reserve of it.
    pub usable: bool,
}

/// A request that waits for a budget.
struct Waits(Arc<Core>);

impl Waits {
    fn new(core: Arc<Core>) -> Self {
        core.waiting.fetch_add(1, Relaxed);
        Self(core)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
