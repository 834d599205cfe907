//! What the control plane says: grants, recalls, that there is nothing, shares of rates. Counters are cumulative, so that
//! a message may come twice, late, or after a newer one. Called by `control::quota_stream`.

use std::sync::{
    PoisonError,
    atomic::Ordering::{Relaxed, Release},
};

use nemo_proto::quota::{BudgetGrant, Exhausted, LeaseDirective, RateAssignment, Recall};
use nemo_types::{BudgetId, LeaseId, RateLimitId};

use super::{
    QuotaTable,
    account::Note,
    clock::{Moment, of_ms},
    lease::{MAX_LEASE, Terms},
};

/// A request that was refused longer ago has given up.
const STILL_ASKS: u64 = 2_000_000_000;
/// How long a recall is heeded.
const MODEST: u64 = 30_000_000_000;

impl QuotaTable {
    pub fn apply(&self, directive: &LeaseDirective) {
        let now = self.now();
        let renewed = {
            let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports.answered_by(directive.answers)
        };
        if let Some(sent_at) = renewed {
            // First what has expired in the meantime: the control plane may have taken it already.
            self.retire_expired(now);
            self.inner.renewed_at.fetch_max(sent_at, Release);
        }
        if directive.nodes != 0 {
            self.inner.nodes.store(directive.nodes, Relaxed);
        }
        for grant in &directive.grants {
            self.grant(grant, directive.answers, now);
        }
        for recall in &directive.recalls {
            self.recall(recall, now);
        }
        for exhausted in &directive.exhausted {
            self.exhausted(exhausted, directive.answers, now);
        }
        for rate in &directive.rates {
            self.assign(rate, now);
        }
    }

    fn retire_expired(&self, now: Moment) {
        let renewed_at = self.renewed_at();
        self.inner.accounts.for_each(|_, account| {
            let leases = account.leases.load();
            if leases.iter().all(|lease| lease.is_alive(now, renewed_at) || lease.is_retired()) {
                return;
            }
            let _books = account.books();
            for lease in leases.iter().filter(|lease| !lease.is_alive(now, renewed_at) && !lease.is_retired())
            {
                self.inner.metrics.expired.inc();
                lease.retire();
            }
            self.touch(&account.core);
        });
    }

    fn grant(&self, grant: &BudgetGrant, answers: u64, now: Moment) {
        let ids = (BudgetId::from_bytes(&grant.budget_id), LeaseId::from_bytes(&grant.lease_id));
        let (Some(budget), Some(id)) = ids else { return };
        let Some(account) = self.account(budget, now) else { return };
        let total = grant.granted_total.clamp(0, MAX_LEASE);
        let ttl = of_ms(grant.ttl_ms.into());
        let life = ttl.saturating_sub(margin(ttl));
        let mut books = account.books();
        let held = account.leases.load().iter().find(|lease| lease.id == id).cloned();
        let more = match held {
            Some(lease) => {
                let before = lease.granted();
                lease.granted_to(total, life);
                lease.granted() - before
            }
            None if books.knows_as_gone(id) => return,
            None => {
                let asked = books.demand.sum > 0 || books.spend_rate > 0;
                let terms = Terms {
                    id,
                    window_start_unix_s: grant.window_start_unix_s,
                    opens_at: now.saturating_add(of_ms(grant.valid_after_ms)),
                    closes_at: match grant.valid_for_ms {
                        0 => Moment::MAX,
                        ms => now.saturating_add(of_ms(ms)),
                    },
                    life,
                    standby: if asked { 0 } else { total },
                };
                if account.add(&mut books, &terms, total, now) { total } else { 0 }
            }
        };
        if more > 0 {
            books.news = books.news.max(answers);
            books.touched_at = now;
            // It may be only a part of what was asked for: who still has too little asks anew, and at once.
            books.demand.answered = books.demand.least < books.demand.largest;
            if grant.valid_after_ms == 0 {
                books.note = None;
            }
            self.inner.metrics.granted.inc_by(more.unsigned_abs());
        }
        drop(books);
        self.touch(&account.core);
        account.core.ring();
    }

    fn recall(&self, recall: &Recall, now: Moment) {
        let Some(id) = LeaseId::from_bytes(&recall.lease_id) else { return };
        // Recalls are rare, and name no budget.
        let mut found = None;
        self.inner.accounts.for_each(|_, account| {
            if found.is_none() {
                let lease = account.leases.load().iter().find(|lease| lease.id == id).cloned();
                found = lease.map(|lease| (account.clone(), lease));
            }
        });
        let Some((account, lease)) = found else { return };
        let mut books = account.books();
        books.touched_at = now;
        // Others starve: for a while no more is asked for than what requests need. What those that wait here need stays, if
        // it is of use to any, or a grant that comes with a recall would be gone before they wake up.
        books.modest_until = now.saturating_add(MODEST);
        let asks = books.demand.sum > 0 && now.saturating_sub(books.demand.asked_at) < STILL_ASKS;
        let useful = asks && lease.free() >= books.demand.least;
        let needed = if useful { books.demand.sum } else { 0 };
        let back = lease.hand_back(recall.keep.max(needed));
        drop((books, lease));
        self.inner.metrics.returned.inc_by(back.unsigned_abs());
        self.touch(&account.core);
        if back > 0 {
            self.inner.urgent.notify_one();
        }
    }

    fn exhausted(&self, exhausted: &Exhausted, answers: u64, now: Moment) {
        let Some(budget) = BudgetId::from_bytes(&exhausted.budget_id) else { return };
        let Some(account) = self.account(budget, now) else { return };
        let mut books = account.books();
        if answers != 0 && answers < books.news {
            return;
        }
        books.news = books.news.max(answers);
        let after = |ms: u64| (ms != 0).then(|| now.saturating_add(of_ms(ms)));
        books.note = Some(Note {
            limit: exhausted.limit,
            settled: exhausted.settled,
            outstanding: exhausted.outstanding,
            resets_at: after(exhausted.resets_in_ms),
            retry_at: after(exhausted.retry_after_ms.into()),
            eases_at: after(exhausted.eases_in_ms),
            noted_at: now,
        });
        // Who waits, or has just been refused, is worth another question as soon as there may be an answer.
        let asks = books.demand.sum > 0 && now.saturating_sub(books.demand.asked_at) < STILL_ASKS;
        if let Some(retry_at) = after(exhausted.retry_after_ms.into()).filter(|_| asks) {
            self.inner.retry_at.fetch_min(retry_at, Relaxed);
            self.touch(&account.core);
        }
        // Where nobody asks any more nothing is of use.
        let useful = if asks { books.demand.least } else { i64::MAX };
        let scraps = if books.demand.sum > 0 { account.scraps(useful, now) } else { 0 };
        drop(books);
        if scraps > 0 {
            self.inner.metrics.returned.inc_by(scraps.unsigned_abs());
            self.touch(&account.core);
            self.inner.urgent.notify_one();
        }
        account.core.ring();
    }

    fn assign(&self, rate: &RateAssignment, now: Moment) {
        let Some(id) = RateLimitId::from_bytes(&rate.limit_id) else { return };
        // Of a limit that no request has met, the even share is good enough.
        if let Some(meter) = self.inner.meters.get(&id) {
            meter.assign(rate.requests_ppm, rate.tokens_ppm, rate.concurrent, now);
        }
    }
}

/// What the clocks of two machines may differ by over so long a time, and a scheduler's pause.
fn margin(ttl: u64) -> u64 {
    (ttl / 100).max(1_000_000_000).min(ttl / 4)
}
