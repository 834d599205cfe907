//! This node's part of one rate limit: buckets of requests and of tokens, and slots for requests at once.
//!
//! A bucket is one number: the moment at which everything that was let through will have been paid for at the limit's
//! pace (GCRA). It may lie a minute ahead, so that a minute's worth can be used at once; there is no window whose edge
//! could be used twice (C22). The pace follows the share that the control plane gives.

use std::sync::{
    Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use nemo_snapshot::RateLimit;
use nemo_types::RateLimitId;

use super::clock::Moment;

/// How much can be used at once, as time at the limit's pace.
pub const BURST: u64 = 60_000_000_000;
/// Fraction bits of the nanoseconds per unit.
const FRACTION: u32 = 16;
/// A whole limit.
pub const WHOLE: u32 = 1_000_000;

/// Requests or tokens per minute.
#[derive(Debug, Default)]
pub struct Bucket {
    /// 0: not limited.
    per_minute: AtomicU64,
    /// Nanoseconds that one unit takes at this node's pace, times 2^16.
    per_unit: AtomicU64,
    full_at: AtomicU64,
    /// Asked for since the last report, refused or not.
    asked: AtomicU64,
}

impl Bucket {
    pub fn is_limited(&self) -> bool {
        self.per_minute.load(Relaxed) != 0
    }

    fn cost(&self, units: u64) -> u64 {
        units.saturating_mul(self.per_unit.load(Relaxed)) >> FRACTION
    }

    /// What is used at `now`, as time.
    fn used(&self, now: Moment) -> u64 {
        self.full_at.load(Acquire).saturating_sub(now)
    }

    /// # Errors
    /// How long until it would pass.
    fn check(&self, units: u64, cost: u64, used: u64) -> Result<(), u64> {
        // More than the fleet has in a minute never passes; more than this node's part does, from an empty bucket, and is
        // paid for afterwards.
        if units > self.per_minute.load(Relaxed) {
            return Err(BURST);
        }
        if used == 0 || used.saturating_add(cost) <= BURST {
            return Ok(());
        }
        Err(used.saturating_add(cost.min(BURST)) - BURST)
    }

    /// # Errors
    /// How long until it would pass.
    pub fn would_pass(&self, units: u64, now: Moment) -> Result<(), u64> {
        if !self.is_limited() || units == 0 {
            return Ok(());
        }
        self.check(units, self.cost(units), self.used(now))
    }

    /// Takes the units. Returns their cost, for [`Bucket::refund`].
    ///
    /// # Errors
    /// How long until they would pass; nothing was taken.
    pub fn take(&self, units: u64, now: Moment) -> Result<u64, u64> {
        if !self.is_limited() || units == 0 {
            return Ok(0);
        }
        let cost = self.cost(units);
        let mut full_at = self.full_at.load(Acquire);
        loop {
            let used = full_at.saturating_sub(now);
            self.check(units, cost, used)?;
            let next = now.saturating_add(used).saturating_add(cost);
            match self.full_at.compare_exchange_weak(full_at, next, AcqRel, Acquire) {
                Ok(_) => return Ok(cost),
                Err(found) => full_at = found,
            }
        }
    }

    pub fn refund(&self, cost: u64) {
        if cost != 0 {
            let less = |full_at: u64| Some(full_at.saturating_sub(cost));
            // `Some` always: it can't fail.
            let _ = self.full_at.fetch_update(AcqRel, Acquire, less);
        }
    }

    /// It was `actual`, not `estimated`.
    pub fn correct(&self, estimated: u64, actual: u64, now: Moment) {
        if !self.is_limited() {
            return;
        }
        if actual <= estimated {
            return self.refund(self.cost(estimated - actual));
        }
        let cost = self.cost(actual - estimated);
        self.asked.fetch_add(actual - estimated, Relaxed);
        let more = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        let _ = self.full_at.fetch_update(AcqRel, Acquire, more);
    }

    /// What was used stays used, in units.
    fn set_pace(&self, per_minute: u64, ppm: u32, now: Moment) {
        let ppm = u128::from(ppm.clamp(1, WHOLE));
        let whole = (u128::from(BURST) << FRACTION) * u128::from(WHOLE);
        let units = u128::from(per_minute.max(1)) * ppm;
        let per_unit = u64::try_from(whole / units).unwrap_or(u64::MAX).max(1);
        let before = self.per_unit.swap(per_unit, Relaxed);
        self.per_minute.store(per_minute, Relaxed);
        if before == 0 || before == per_unit {
            return;
        }
        let scale = |full_at: u64| {
            let used = u128::from(full_at.saturating_sub(now)) * u128::from(per_unit) / u128::from(before);
            // An hour ahead at most: a share that was nearly nothing for a moment does not lock anybody out.
            Some(now.saturating_add(u64::try_from(used).unwrap_or(u64::MAX).min(60 * BURST)))
        };
        let _ = self.full_at.fetch_update(AcqRel, Acquire, scale);
    }

    /// As the whole fleet's: the limit, what is left of it, and nanoseconds until all of it is there again.
    pub fn view(&self, now: Moment) -> Option<BucketView> {
        let limit = self.per_minute.load(Relaxed);
        let used = self.used(now);
        let free = BURST.saturating_sub(used);
        let remaining = match limit.checked_mul(free) {
            Some(product) => product / BURST,
            None => u64::try_from(u128::from(limit) * u128::from(free) / u128::from(BURST)).unwrap_or(limit),
        };
        (limit != 0).then_some(BucketView {
            limit,
            remaining,
            reset: std::time::Duration::from_nanos(used),
            used,
        })
    }
}

/// A bucket, in terms of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketView {
    pub limit: u64,
    pub remaining: u64,
    /// Until `remaining` is `limit`.
    pub reset: std::time::Duration,
    /// For comparing: the fuller, the tighter.
    pub used: u64,
}

impl BucketView {
    pub fn tighter(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => {
                Some(if (other.used, one.limit) > (one.used, other.limit) { other } else { one })
            }
            (one, other) => one.or(other),
        }
    }
}

/// One limit on this node.
#[derive(Debug)]
pub struct Meter {
    pub id: RateLimitId,
    pub requests: Bucket,
    pub tokens: Bucket,
    /// 0: not limited; else one more than the slots.
    slots: AtomicU32,
    in_flight: AtomicU32,
    refused: AtomicU32,
    used_at: AtomicU64,
    pub(super) dirty: AtomicBool,
    /// Of the limit and the fleet, as the buckets were last set.
    nodes: AtomicU32,
    concurrent: AtomicU32,
    terms: Mutex<Terms>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    /// What the control plane gave: of requests and tokens in millionths, and slots.
    assigned: Option<(u32, u32, u32)>,
    /// Per minute, lately.
    requests: u64,
    tokens: u64,
    reported_at: Moment,
}

/// What a node has seen of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub requests_per_minute: u64,
    pub tokens_per_minute: u64,
    pub concurrent: u32,
    pub refused: u32,
}

impl Meter {
    pub fn new(id: RateLimitId, now: Moment) -> Self {
        Self {
            id,
            requests: Bucket::default(),
            tokens: Bucket::default(),
            slots: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            used_at: AtomicU64::new(now),
            dirty: AtomicBool::new(false),
            nodes: AtomicU32::new(0),
            concurrent: AtomicU32::new(0),
            terms: Mutex::new(Terms { reported_at: now, ..Terms::default() }),
        }
    }

    /// The limit as the snapshot has it now, and the number of nodes: usually what it was.
    pub fn follow(&self, limit: &RateLimit, nodes: u32, now: Moment) {
        let per_minute = |limit: Option<std::num::NonZeroU64>| limit.map_or(0, std::num::NonZeroU64::get);
        let (requests, tokens) = (per_minute(limit.requests_per_minute), per_minute(limit.tokens_per_minute));
        let concurrent = limit.concurrent.map_or(0, |slots| slots.saturating_add(1));
        let same = self.requests.per_minute.load(Relaxed) == requests
            && self.tokens.per_minute.load(Relaxed) == tokens
            && self.concurrent.load(Relaxed) == concurrent
            && self.nodes.load(Relaxed) == nodes;
        if !same {
            self.concurrent.store(concurrent, Relaxed);
            self.nodes.store(nodes, Relaxed);
            self.set((requests, tokens), now);
        }
        self.used_at.store(now, Relaxed);
    }

    /// The control plane's division of the limit.
    pub fn assign(&self, requests_ppm: u32, tokens_ppm: u32, concurrent: u32, now: Moment) {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).assigned =
            Some((requests_ppm, tokens_ppm, concurrent));
        self.set((self.requests.per_minute.load(Relaxed), self.tokens.per_minute.load(Relaxed)), now);
    }

    fn set(&self, (requests, tokens): (u64, u64), now: Moment) {
        let terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = self.nodes.load(Relaxed).max(1);
        let concurrent = self.concurrent.load(Relaxed);
        let even = (concurrent.saturating_sub(1)).div_ceil(nodes);
        let (requests_ppm, tokens_ppm, slots) =
            terms.assigned.unwrap_or((WHOLE / nodes, WHOLE / nodes, even));
        self.requests.set_pace(requests, requests_ppm, now);
        self.tokens.set_pace(tokens, tokens_ppm, now);
        let slots = slots.min(concurrent.saturating_sub(1));
        self.slots.store(if concurrent == 0 { 0 } else { slots.saturating_add(1) }, Relaxed);
    }

    pub fn has_slot(&self) -> bool {
        let slots = self.slots.load(Relaxed);
        slots == 0 || self.in_flight.load(Relaxed) < slots - 1
    }

    /// Counts a request in, if there is room.
    pub fn enter(&self) -> bool {
        let slots = self.slots.load(Relaxed);
        if slots == 0 {
            self.in_flight.fetch_add(1, Relaxed);
            return true;
        }
        let more = |in_flight: u32| (in_flight < slots - 1).then_some(in_flight + 1);
        self.in_flight.fetch_update(AcqRel, Acquire, more).is_ok()
    }

    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, AcqRel);
    }

    /// For the next report: admitted or not.
    pub fn count(&self, tokens: u64, refused: bool) {
        self.requests.asked.fetch_add(1, Relaxed);
        if self.tokens.is_limited() {
            self.tokens.asked.fetch_add(tokens, Relaxed);
        }
        if refused {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    /// Demand since the last report, smoothed with what was before.
    pub fn seen(&self, now: Moment) -> Seen {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_sub(terms.reported_at).max(1);
        let rate = |count: u64, before: u64| {
            let now = u128::from(count) * u128::from(BURST) / u128::from(elapsed.max(500_000_000));
            (before / 2).saturating_add(u64::try_from(now / 2).unwrap_or(u64::MAX))
        };
        terms.requests = rate(self.requests.asked.swap(0, Relaxed), terms.requests);
        terms.tokens = rate(self.tokens.asked.swap(0, Relaxed), terms.tokens);
        terms.reported_at = now;
        Seen {
            requests_per_minute: terms.requests,
            tokens_per_minute: terms.tokens,
            concurrent: self.in_flight.load(Relaxed),
            refused: self.refused.swap(0, Relaxed),
        }
    }

    /// Nothing is used of it, and nobody has asked for long: it can be forgotten.
    pub fn is_idle(&self, now: Moment, after: u64) -> bool {
        self.in_flight.load(Relaxed) == 0
            && now.saturating_sub(self.used_at.load(Relaxed)) > after
            && self.requests.used(now) == 0
            && self.tokens.used(now) == 0
    }
}
