//! What a node tells the control plane: what it has of each budget, what it would like, and its demand for rates. Called
//! by `control::quota_stream` every few seconds, or at once when a request waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use bytes::Bytes;
use nemo_proto::quota::{BudgetReport, LeaseReport, RateReport};

use super::{
    QuotaTable,
    account::{Account, Books},
    clock::Moment,
    lease::{Lease, Told},
};

/// How many seconds of its spending a node would like to have: so long it serves without a control plane.
const OUTAGE_SECONDS: i64 = 15 * 60;
/// A slice that nobody used for so long is handed back, but for what came unasked.
const IDLE: u64 = 300_000_000_000;
/// Between two looks at everything that is held.
const SWEEP: u64 = 10_000_000_000;
/// What is known of a budget or a limit that nobody used for so long is forgotten.
const FORGET: u64 = 600_000_000_000;
/// Reports that were not answered yet, of which it is known when they were sent.
const MAX_UNANSWERED: usize = 64;
/// The spend rate follows within about so many nanoseconds.
const RATE_OVER: i64 = 30_000_000_000;

/// Which reports were sent, and which were answered.
#[derive(Debug, Default)]
pub struct Reports {
    last: u64,
    unanswered: VecDeque<(u64, Moment)>,
    /// The newest that was answered.
    pub(super) answered: u64,
    swept_at: Moment,
}

impl Reports {
    fn next(&mut self, now: Moment) -> u64 {
        self.last += 1;
        if self.unanswered.len() == MAX_UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((self.last, now));
        self.last
    }

    /// When that report was sent; `None`: an answer from the past, or to none.
    pub(super) fn answered_by(&mut self, seq: u64) -> Option<Moment> {
        if seq <= self.answered || seq > self.last {
            return None;
        }
        self.answered = seq;
        let at = self.unanswered.iter().find(|(sent, _)| *sent == seq).map(|(_, at)| *at);
        self.unanswered.retain(|(sent, _)| *sent > seq);
        at
    }
}

/// A report that is being made.
struct Making {
    seq: u64,
    answered: u64,
    now: Moment,
    renewed_at: Moment,
    full: bool,
    draining: bool,
}

impl QuotaTable {
    /// What has changed since the last report was answered; everything when `full`, as the first of a stream must be.
    pub fn report(&self, full: bool) -> LeaseReport {
        let now = self.now();
        let draining = self.inner.draining.load(Acquire);
        let (making, sweep) = {
            let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
            let sweep = now.saturating_sub(reports.swept_at) >= SWEEP;
            if sweep {
                reports.swept_at = now;
            }
            let (seq, answered) = (reports.next(now), reports.answered);
            (Making { seq, answered, now, renewed_at: self.renewed_at(), full, draining }, sweep)
        };
        let changed = std::mem::take(&mut *self.changed());
        self.inner.retry_at.store(Moment::MAX, Relaxed);
        let mut report = LeaseReport { full, seq: making.seq, ..LeaseReport::default() };
        if full || sweep || draining {
            let mut all = Vec::new();
            self.inner.accounts.for_each(|_, account| all.push(account.clone()));
            all.iter().for_each(|account| self.of_account(account, &making, &mut report.budgets));
            let mut meters = Vec::new();
            self.inner.meters.for_each(|_, meter| meters.push(meter.clone()));
            meters.iter().for_each(|meter| self.of_meter(meter, now, full, &mut report.rates));
            self.forget(now);
        } else {
            for budget in changed.budgets {
                if let Some(account) = self.inner.accounts.get(&budget) {
                    self.of_account(&account, &making, &mut report.budgets);
                }
            }
            for limit in changed.rates {
                if let Some(meter) = self.inner.meters.get(&limit) {
                    self.of_meter(&meter, now, false, &mut report.rates);
                }
            }
        }
        report
    }

    fn of_meter(&self, meter: &super::share::Meter, now: Moment, full: bool, out: &mut Vec<RateReport>) {
        let dirty = meter.dirty.swap(false, AcqRel);
        if !dirty && !full {
            return;
        }
        let seen = meter.seen(now);
        if seen != super::share::Seen::default() {
            // Once more, until it has died away.
            self.touch_meter(meter);
        }
        out.push(RateReport {
            limit_id: Bytes::copy_from_slice(meter.id.as_bytes()),
            requests_per_minute: seen.requests_per_minute,
            tokens_per_minute: seen.tokens_per_minute,
            concurrent: seen.concurrent,
            refused: seen.refused,
        });
    }

    fn of_account(&self, account: &Account, making: &Making, out: &mut Vec<BudgetReport>) {
        account.core.dirty.swap(false, AcqRel);
        let mut books = account.books();
        account.drop_ended(&mut books, making.answered, making.now);
        let leases = account.leases.load_full();
        for lease in leases.iter() {
            self.tidy(lease, making);
        }
        rate(&mut books, account, &leases, making.now);
        let wish = if making.draining { Wish::default() } else { self.wish(&mut books, &leases, making) };
        let current = leases.iter().rev().find(|lease| making.is_usable(lease)).map(|lease| lease.id);
        let mut again = wish.wants > 0 && books.demand.until > making.now;
        for lease in leases.iter() {
            let wish = if current == Some(lease.id) { wish } else { Wish::default() };
            let now = Totals::of(lease);
            let changed = now.differ(&lease.told);
            let unheard = lease.told.seq.load(Relaxed) > making.answered;
            again |= changed || unheard || now.done;
            if making.full || changed || unheard || wish.wants > 0 {
                now.tell(&lease.told, making.seq);
                out.push(BudgetReport {
                    budget_id: id(account),
                    lease_id: Bytes::copy_from_slice(lease.id.as_bytes()),
                    wants: wish.wants,
                    needs: wish.needs,
                    least: wish.least,
                    partial: wish.least < wish.needs,
                    reserved: now.reserved,
                    returned_total: now.returned,
                    spent_total: now.spent,
                    spend_rate: books.spend_rate,
                    done: now.done,
                });
            }
        }
        if current.is_none() && wish.wants > 0 {
            out.push(BudgetReport {
                budget_id: id(account),
                wants: wish.wants,
                needs: wish.needs,
                least: wish.least,
                partial: wish.least < wish.needs,
                spend_rate: books.spend_rate,
                ..BudgetReport::default()
            });
        }
        if again {
            drop(books);
            self.touch(&account.core);
        }
    }

    /// Ends what is over, and hands back what is not needed.
    fn tidy(&self, lease: &Lease, making: &Making) {
        let alive = lease.is_alive(making.now, making.renewed_at);
        if !lease.is_retired() && (making.draining || lease.is_over(making.now) || !alive || lease.free() < 0)
        {
            if !alive {
                self.inner.metrics.expired.inc();
            }
            lease.retire();
        }
        let idle = making.now.saturating_sub(lease.used_at()) >= IDLE && lease.is_current(making.now);
        let back = if lease.is_retired() {
            lease.hand_back(0)
        } else if idle && lease.reserved() == 0 {
            lease.hand_back(lease.standby)
        } else {
            0
        };
        self.inner.metrics.returned.inc_by(back.unsigned_abs());
    }

    fn wish(&self, books: &mut Books, leases: &[Arc<Lease>], making: &Making) -> Wish {
        let usable = || leases.iter().filter(|lease| making.is_usable(lease));
        let free = usable().map(|lease| lease.free()).max().unwrap_or(0);
        let granted = usable().map(|lease| lease.granted() - lease.returned()).max().unwrap_or(0);
        if books.demand.until <= making.now || books.demand.largest <= free {
            books.demand = super::account::Demand::default();
        }
        // What is handed back because nobody uses it is not asked for again.
        let used = leases.iter().any(|lease| making.now.saturating_sub(lease.used_at()) < IDLE);
        let modest = !used || making.now < books.modest_until;
        let ahead = if modest { 0 } else { books.spend_rate.saturating_mul(OUTAGE_SECONDS) };
        // Before a rate is known, twice what it had.
        let ran_low = std::mem::take(&mut books.ran_low) && !modest;
        let low = if ran_low { granted.saturating_mul(2) } else { 0 };
        let aim = ahead.max(low).max(books.demand.sum);
        if books.demand.sum == 0 && low == 0 && free >= aim / 2 {
            return Wish::default();
        }
        let beyond = |need: i64| if books.demand.sum == 0 { 0 } else { need.saturating_sub(free).max(1) };
        let (needs, least) = (beyond(books.demand.largest), beyond(books.demand.least));
        Wish { wants: aim.saturating_sub(free).max(needs).max(0), needs, least }
    }

    /// Drops what is known of budgets and limits that nobody has used for long.
    fn forget(&self, now: Moment) {
        let mut leases = 0;
        self.inner.accounts.retain(|_, account| {
            let held = account.leases.load().len();
            leases += held;
            if held > 0 || account.core.dirty.load(Relaxed) || account.core.waiting.load(Relaxed) > 0 {
                return true;
            }
            let mut books = account.books();
            let noted = books.note.is_some_and(|note| note.holds(now));
            let idle = now.saturating_sub(books.touched_at) >= FORGET;
            books.has_gone(now) || !idle || (noted && now.saturating_sub(books.touched_at) < 6 * FORGET)
        });
        self.inner.meters.retain(|_, meter| !meter.is_idle(now, FORGET) || meter.dirty.load(Relaxed));
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.inner.metrics.leases.set(number(leases));
        self.inner.metrics.budgets.set(number(self.inner.accounts.len()));
        self.inner.metrics.rates.set(number(self.inner.meters.len()));
    }
}

impl Making {
    fn is_usable(&self, lease: &Lease) -> bool {
        lease.is_open(self.now, self.renewed_at) && !lease.is_retired()
    }
}

fn id(account: &Account) -> Bytes {
    Bytes::copy_from_slice(account.core.budget.as_bytes())
}

/// What a node would like to be able to reserve of a budget, beyond what it has.
#[derive(Clone, Copy, Default)]
struct Wish {
    wants: i64,
    /// Of that: by the largest request that waits.
    needs: i64,
    /// The smallest part that is of use to one of them.
    least: i64,
}

/// What a report says of a lease.
struct Totals {
    returned: i64,
    spent: i64,
    reserved: i64,
    done: bool,
}

impl Totals {
    fn of(lease: &Lease) -> Self {
        Self {
            returned: lease.returned(),
            spent: lease.spent(),
            reserved: lease.reserved(),
            done: lease.is_retired(),
        }
    }

    fn differ(&self, told: &Told) -> bool {
        self.returned != told.returned.load(Relaxed)
            || self.spent != told.spent.load(Relaxed)
            || self.reserved != told.reserved.load(Relaxed)
            || self.done != told.done.load(Relaxed)
    }

    fn tell(&self, told: &Told, seq: u64) {
        told.returned.store(self.returned, Relaxed);
        told.spent.store(self.spent, Relaxed);
        told.reserved.store(self.reserved, Relaxed);
        told.done.store(self.done, Relaxed);
        told.seq.store(seq, Relaxed);
    }
}

/// What was spent since the last look, in proportion to how long ago that was.
fn rate(books: &mut Books, account: &Account, leases: &[Arc<Lease>], now: Moment) {
    let elapsed = i64::try_from(now.saturating_sub(books.rated_at)).unwrap_or(i64::MAX);
    if elapsed < 200_000_000 {
        return;
    }
    books.rated_at = now;
    let unleased = account.core.unleased.load(Relaxed);
    let mut spent = unleased - std::mem::replace(&mut books.unleased_counted, unleased);
    for lease in leases {
        let total = lease.spent();
        spent = spent.saturating_add(total - lease.counted.swap(total, Relaxed));
    }
    let now = i128::from(spent) * 1_000_000_000 / i128::from(elapsed);
    let weight = i128::from(elapsed.min(RATE_OVER));
    let smooth =
        i128::from(books.spend_rate) + (now - i128::from(books.spend_rate)) * weight / i128::from(RATE_OVER);
    // Whole numbers would never get down to nothing.
    let stuck = spent == 0 && smooth == i128::from(books.spend_rate);
    books.spend_rate = i64::try_from(smooth - i128::from(stuck)).unwrap_or(i64::MAX).max(0);
}
