//! The breakers of this node, by organization and deployment: only of pairs that have failed lately. Everybody else
//! is not in here and costs nothing. Held by [`super::HealthBoard`].

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use nemo_types::{DeploymentId, OrgId};

use super::breaker::{Admission, Breaker, BreakerPolicy, Cause, FailureClass, Millis, Ticket};

/// A deployment as one organization sees it.
pub type PairKey = (OrgId, DeploymentId);

const SHARDS: usize = 16;
/// Pairs in one shard; beyond it, failures of further pairs are not remembered, and their requests still served.
const MAX_PAIRS: usize = 4_096;
/// How long a pair without failures stays, so that the successes after one count for its share of failures.
const REMEMBER_MS: Millis = 30_000;
/// How long the doubling of a cooldown outlives it.
const FORGET_MS: Millis = 600_000;

/// What a node has seen of a pair since it last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub pair: PairKey,
    /// Of the last failure.
    pub class: FailureClass,
    /// Attempts that ended, and how many of them failed.
    pub attempts: u32,
    pub failures: u32,
    /// The upstream's own hint, if the breaker opened by one.
    pub hint_ms: Option<u64>,
    /// The breaker has opened, and this remains.
    pub opened_ms: Option<u64>,
}

#[derive(Debug)]
struct Pair {
    breaker: Breaker,
    class: FailureClass,
    attempts: u32,
    failures: u32,
    hint_ms: Option<u64>,
    /// Not told yet.
    opened: bool,
    /// It opened by what this node saw: what the fleet said is not told back.
    own: bool,
    touched: Millis,
}

/// A failure of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub pair: PairKey,
    pub ticket: Ticket,
    pub class: FailureClass,
    pub hint_ms: Option<u64>,
    pub policy: BreakerPolicy,
}

type Shard = HashMap<PairKey, Pair, ahash::RandomState>;

#[derive(Debug, Default)]
pub(super) struct Pairs {
    shards: [Mutex<Shard>; SHARDS],
}

impl Pairs {
    fn shard(&self, (org, deployment): &PairKey) -> MutexGuard<'_, Shard> {
        // The last bytes of both ids are random.
        let at = usize::from(org.as_bytes()[15] ^ deployment.as_bytes()[15]) % SHARDS;
        lock(&self.shards[at])
    }

    pub(super) fn admission(&self, pair: &PairKey, now: Millis) -> Admission {
        self.shard(pair).get(pair).map_or(Admission::Ready, |held| held.breaker.admission(now))
    }

    pub(super) fn begin(&self, pair: &PairKey, now: Millis) -> Result<Ticket, (u64, Cause)> {
        match self.shard(pair).get_mut(pair) {
            Some(held) => held.breaker.begin(now),
            None => Ok(Ticket { generation: 0, probe: false }),
        }
    }

    pub(super) fn succeeded(&self, pair: &PairKey, ticket: Ticket, now: Millis) {
        if let Some(held) = self.shard(pair).get_mut(pair) {
            held.breaker.succeeded(ticket);
            held.attempts = held.attempts.saturating_add(1);
            held.touched = now;
        }
    }

    pub(super) fn released(&self, pair: &PairKey, ticket: Ticket, now: Millis) {
        if let Some(held) = self.shard(pair).get_mut(pair) {
            held.breaker.released(ticket, now);
        }
    }

    /// True when the breaker opened. `trouble` counts the pairs.
    pub(super) fn failed(&self, failure: Failure, now: Millis, jitter: u64, trouble: &AtomicUsize) -> bool {
        let Failure { pair, ticket, class, hint_ms, policy } = failure;
        let mut shard = self.shard(&pair);
        let Some(held) = entry(&mut shard, pair, ticket.generation, (class, now), trouble) else {
            return false;
        };
        let opened = held.breaker.failed((ticket, class, hint_ms), policy, now, jitter);
        held.class = class;
        held.attempts = held.attempts.saturating_add(1);
        held.failures = held.failures.saturating_add(1);
        held.touched = now;
        if opened {
            (held.opened, held.own, held.hint_ms) = (true, true, hint_ms);
        } else if hint_ms > held.hint_ms && held.breaker.is_open(now) {
            held.hint_ms = hint_ms;
        }
        opened
    }

    /// The fleet says so; see [`Breaker::cool`].
    pub(super) fn cool(
        &self,
        pair: PairKey,
        until: Millis,
        class: FailureClass,
        now: Millis,
        trouble: &AtomicUsize,
    ) {
        let mut shard = self.shard(&pair);
        if let Some(held) = entry(&mut shard, pair, 0, (class, now), trouble) {
            held.own &= held.breaker.remaining_ms(now).is_some();
            held.breaker.cool(until, Cause::Failure(class));
            held.touched = now;
        }
    }

    /// An administrator lifted a cooldown: of one organization, or of all.
    pub(super) fn reset(&self, org: Option<OrgId>, deployment: DeploymentId) {
        match org {
            Some(org) => {
                if let Some(held) = self.shard(&(org, deployment)).get_mut(&(org, deployment)) {
                    held.breaker.reset();
                    held.opened = false;
                }
            }
            None => {
                for shard in &self.shards {
                    for (_, held) in lock(shard).iter_mut().filter(|((_, it), _)| *it == deployment) {
                        held.breaker.reset();
                        held.opened = false;
                    }
                }
            }
        }
    }

    /// What was not told yet. `all`, for a new session: also what is open and was told before, and no counts, which may be
    /// of long ago.
    pub(super) fn observations(&self, now: Millis, all: bool) -> Vec<Observation> {
        let mut told = Vec::new();
        for shard in &self.shards {
            for (pair, held) in lock(shard).iter_mut() {
                if all {
                    (held.attempts, held.failures) = (0, 0);
                }
                let opened_ms = held.breaker.remaining_ms(now).filter(|_| held.opened || (all && held.own));
                if held.attempts > 0 || opened_ms.is_some() {
                    told.push(Observation {
                        pair: *pair,
                        class: held.class,
                        attempts: std::mem::take(&mut held.attempts),
                        failures: std::mem::take(&mut held.failures),
                        hint_ms: held.hint_ms.filter(|_| opened_ms.is_some()),
                        opened_ms,
                    });
                }
                held.opened = false;
            }
        }
        told
    }

    /// Forgets what is over. Returns how many breakers are open.
    pub(super) fn sweep(&self, now: Millis, trouble: &AtomicUsize) -> usize {
        let mut open = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let before = shard.len();
            shard.retain(|_, held| {
                open += usize::from(held.breaker.is_open(now));
                let idle = now.saturating_sub(held.touched) >= REMEMBER_MS;
                !(idle && (held.breaker.is_pristine() || held.breaker.is_forgettable(now, FORGET_MS)))
            });
            trouble.fetch_sub(before - shard.len(), Relaxed);
        }
        open
    }
}

/// The pair, new if need be; `None` when there is no room.
fn entry<'a>(
    shard: &'a mut Shard,
    pair: PairKey,
    generation: u32,
    (class, now): (FailureClass, Millis),
    trouble: &AtomicUsize,
) -> Option<&'a mut Pair> {
    if !shard.contains_key(&pair) {
        if shard.len() >= MAX_PAIRS {
            return None;
        }
        trouble.fetch_add(1, Relaxed);
    }
    Some(shard.entry(pair).or_insert_with(|| Pair {
        breaker: Breaker::of_generation(generation),
        class,
        attempts: 0,
        failures: 0,
        hint_ms: None,
        opened: false,
        own: false,
        touched: now,
    }))
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // No code that holds the lock can panic half-way through a change.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
