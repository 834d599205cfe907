//! Weighs what nodes report of upstreams, and finds what the whole fleet should keep away from. Pure: time and chance
//! are arguments. Held by [`super::board`].
//!
//! - "Too many requests", and a refused credential or account, mean the same to every node: one node whose breaker
//!   opened by it is enough.
//! - Timeouts, 5xx and broken connections may be that node's own trouble: two nodes' breakers must have opened by them
//!   within the window, or the failures must be a share of all attempts that is too great to be chance. Openings of
//!   nodes at other replicas count (they are in the coordinator); counts are those of this replica's nodes.
//! - How long: the upstream's hint, else the organization's cooldown, doubled for each that follows on the heels of
//!   another, up to its longest; and never shorter than what the node itself does.

use std::collections::{HashMap, VecDeque};

use nemo_snapshot::RoutingPolicy;
use nemo_types::{DeploymentId, OrgId};

use super::value::Cause;

/// Milliseconds on whatever clock the caller has.
pub type Millis = u64;
pub type Pair = (OrgId, DeploymentId);

/// Pairs that are remembered; more is forgotten, oldest first.
const MAX_PAIRS: usize = 50_000;
/// Nodes that count for one pair: two are enough.
const MAX_SUSPECTS: usize = 8;
/// Parts of the window.
const SLICES: u64 = 10;
/// Largest part that chance adds, as 1/n of the cooldown.
const JITTER_PART: u64 = 5;

/// An organization's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub cooldown_ms: u64,
    pub longest_ms: u64,
    pub min_attempts: u64,
    pub error_percent: u64,
    pub window_ms: u64,
}

impl Policy {
    pub fn of(policy: &RoutingPolicy) -> Self {
        Self {
            cooldown_ms: policy.cooldown_ms.into(),
            longest_ms: u64::from(policy.cooldown_max_ms).max(1),
            min_attempts: u64::from(policy.cluster_min_attempts).max(1),
            error_percent: u64::from(policy.cluster_error_percent).clamp(1, 100),
            window_ms: u64::from(policy.cluster_window_ms).max(SLICES),
        }
    }
}

/// What a node has told of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub node: &'a str,
    pub cause: Cause,
    pub attempts: u32,
    pub failures: u32,
    /// Its breaker has opened, for so long.
    pub opened_ms: Option<u64>,
    pub hint_ms: Option<u64>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Nothing,
    /// One node keeps away; the others should be told apart from that when a second does. For so long.
    Suspect {
        for_ms: u64,
    },
    Cool {
        cause: Cause,
        for_ms: u64,
        generation: u32,
    },
}

#[derive(Debug, Default)]
struct Evidence {
    /// Nodes whose breaker opened, and until when that counts.
    suspects: Vec<(Box<str>, Millis)>,
    /// Start, attempts, failures.
    slices: VecDeque<(Millis, u64, u64)>,
    /// Cooldowns on each other's heels, and until when one more would be.
    generation: u32,
    heels_until: Millis,
    cooled_until: Millis,
    touched: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Aggregator {
    pairs: HashMap<Pair, Evidence>,
}

impl Aggregator {
    /// One of this replica's nodes reports. `jitter` is any random number.
    pub fn observe(
        &mut self,
        pair: Pair,
        seen: Seen<'_>,
        policy: Policy,
        now: Millis,
        jitter: u64,
    ) -> Finding {
        let evidence = self.evidence(pair, now);
        let shares = evidence.count(seen, policy, now);
        let Some(opened_ms) = seen.opened_ms else {
            let told = shares && evidence.cooled_until <= now;
            return if told { evidence.cool(seen, policy, now, jitter) } else { Finding::Nothing };
        };
        let certain = matches!(seen.cause, Cause::RateLimited | Cause::Credential);
        if !certain {
            evidence.suspect(seen.node, now + policy.window_ms, now);
        }
        if certain || shares || evidence.suspects.len() > 1 {
            return evidence.cool(seen, policy, now, jitter);
        }
        Finding::Suspect { for_ms: opened_ms.max(policy.window_ms) }
    }

    /// A node, at whatever replica, keeps away. What follows if one of ours does as well.
    pub fn suspected(
        &mut self,
        pair: Pair,
        (node, cause): (&str, Cause),
        policy: Policy,
        now: Millis,
        jitter: u64,
    ) -> Finding {
        let evidence = self.evidence(pair, now);
        let before = evidence.suspects.iter().filter(|(_, until)| *until > now).count();
        evidence.suspect(node, now + policy.window_ms, now);
        if before == 1 && evidence.suspects.len() > 1 && evidence.cooled_until <= now {
            let seen = Seen { node, cause, attempts: 0, failures: 0, opened_ms: None, hint_ms: None };
            return evidence.cool(seen, policy, now, jitter);
        }
        Finding::Nothing
    }

    /// It cools down, whoever decided that: evidence begins anew.
    pub fn cooled(&mut self, pair: Pair, for_ms: u64, generation: u32, now: Millis) {
        let evidence = self.evidence(pair, now);
        evidence.generation = evidence.generation.max(generation);
        evidence.spend(for_ms, now);
    }

    /// An administrator ended it: nothing is held against it.
    pub fn forgive(&mut self, pair: Pair) {
        self.pairs.remove(&pair);
    }

    /// As [`Self::forgive`], for all organizations.
    pub fn forgive_all(&mut self, deployment: DeploymentId) {
        self.pairs.retain(|(_, it), _| *it != deployment);
    }

    /// Forgets what no longer counts.
    pub fn sweep(&mut self, now: Millis) {
        const IDLE_MS: Millis = 600_000;
        self.pairs.retain(|_, evidence| {
            now < evidence.heels_until || now.saturating_sub(evidence.touched) < IDLE_MS
        });
    }

    fn evidence(&mut self, pair: Pair, now: Millis) -> &mut Evidence {
        if self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&pair) {
            let oldest = self.pairs.iter().min_by_key(|(_, evidence)| evidence.touched);
            if let Some(oldest) = oldest.map(|(pair, _)| *pair) {
                self.pairs.remove(&oldest);
            }
        }
        let evidence = self.pairs.entry(pair).or_default();
        evidence.touched = now;
        evidence
    }
}

impl Evidence {
    /// Adds the counts. True when too great a share has failed.
    fn count(&mut self, seen: Seen<'_>, policy: Policy, now: Millis) -> bool {
        let slice = policy.window_ms / SLICES;
        while self.slices.front().is_some_and(|(start, ..)| start + policy.window_ms <= now) {
            self.slices.pop_front();
        }
        let (attempts, failures) = (u64::from(seen.attempts), u64::from(seen.failures));
        match self.slices.back_mut().filter(|(start, ..)| now < *start + slice) {
            Some((_, all, failed)) => {
                *all += attempts;
                *failed += failures;
            }
            None if attempts > 0 => self.slices.push_back((now, attempts, failures)),
            None => {}
        }
        let sum = |(all, failed): (u64, u64), slice: &(Millis, u64, u64)| (all + slice.1, failed + slice.2);
        let (all, failed) = self.slices.iter().fold((0, 0), sum);
        failures > 0 && all >= policy.min_attempts && failed * 100 >= all * policy.error_percent
    }

    fn suspect(&mut self, node: &str, until: Millis, now: Millis) {
        self.suspects.retain(|(it, until)| **it != *node && *until > now);
        if self.suspects.len() < MAX_SUSPECTS {
            self.suspects.push((node.into(), until));
        }
    }

    fn cool(&mut self, seen: Seen<'_>, policy: Policy, now: Millis, jitter: u64) -> Finding {
        if now >= self.heels_until {
            self.generation = 0;
        }
        let doubled = policy.cooldown_ms.saturating_mul(1 << self.generation.min(32));
        let base = seen.hint_ms.unwrap_or(doubled).clamp(1, policy.longest_ms);
        let jittered = base + jitter % (base / JITTER_PART + 1);
        let for_ms = jittered.max(seen.opened_ms.unwrap_or(0)).min(policy.longest_ms);
        if self.cooled_until <= now {
            self.generation = self.generation.saturating_add(1);
        }
        self.spend(for_ms, now);
        Finding::Cool { cause: seen.cause, for_ms, generation: self.generation }
    }

    /// The evidence has led to a cooldown.
    fn spend(&mut self, for_ms: u64, now: Millis) {
        self.suspects.clear();
        self.slices.clear();
        self.cooled_until = self.cooled_until.max(now + for_ms);
        // A failure within as much time again is the same trouble still.
        self.heels_until = self.heels_until.max(self.cooled_until + for_ms.max(30_000));
    }
}

#[cfg(test)]
mod tests;
