//! What cools down now. The coordinator holds it, every replica follows, and each tells its own nodes: its board is a
//! copy that it keeps when the coordinator goes away (I11), until what is on it is over.
//!
//! - nodes' reports come in through [`Board::report`], are weighed one after the other, and written several at a time
//! - a write is a compare-and-swap: a shorter cooldown never replaces a longer one
//! - without the coordinator nothing is written and nothing waits; nodes go on with their own breakers

mod runner;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nemo_proto::cooldown::Observation;
use nemo_types::{DeploymentId, OrgId};
use tokio::{
    sync::{broadcast, mpsc},
    time::Instant,
};

pub use runner::Runner;

use super::{
    Aggregator, Policy,
    value::{Cause, Scope, Value},
};
use crate::coordination::{CoordinationMetrics, Coordinator, Event, Expect, Listing, Put, Unavailable};

/// Cooldowns in force; beyond, new ones stay each node's own.
pub const MAX_ENTRIES: usize = 50_000;
/// Changes that a slow node may be behind before it is sent the whole board again.
const BACKLOG: usize = 4096;
/// Reports that wait to be weighed.
const REPORTS: usize = 1024;
/// How long the word that a cooldown was lifted stays, for whoever follows.
const LIFTED: Duration = Duration::from_secs(10);
/// Tries of a compare-and-swap.
const TRIES: usize = 8;
/// How long an entry stays after its time, so that its key is known for what it was until the lease ends.
const GRACE: Duration = Duration::from_secs(15);

/// A cooldown in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cooling {
    pub scope: Scope,
    pub cause: Cause,
    pub until: Instant,
    pub reason: String,
    pub reporter: String,
    revision: u64,
}

impl Cooling {
    pub fn remaining(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

/// What has changed on the board.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub revision: u64,
    pub set: Vec<Cooling>,
    /// And whether an administrator lifted it.
    pub cleared: Vec<(Scope, bool)>,
}

/// What a node has told.
#[derive(Clone, Debug)]
pub struct Report {
    pub node: Arc<str>,
    pub observations: Vec<Observation>,
}

/// What became of a cooldown that was to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Set,
    /// A longer one is in force.
    Kept {
        remaining: Duration,
    },
}

type Policies = dyn Fn(OrgId) -> Policy + Send + Sync;

struct Inner {
    coordinator: Arc<dyn Coordinator>,
    policies: Box<Policies>,
    state: Mutex<State>,
    changes: broadcast::Sender<Arc<Change>>,
    reports: mpsc::Sender<Report>,
    metrics: CoordinationMetrics,
    epoch: Instant,
}

#[derive(Default)]
struct State {
    entries: HashMap<Scope, Cooling>,
    revision: u64,
    aggregator: Aggregator,
    /// The coordinator is followed.
    connected: bool,
}

/// See the module. A clone is another handle on the same.
#[derive(Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

/// One node's reading: the whole board, and what changes after it.
pub struct Subscription {
    pub whole: Vec<Cooling>,
    pub revision: u64,
    pub changes: broadcast::Receiver<Arc<Change>>,
}

impl Board {
    /// The board, and what keeps it up to date: [`Runner::run`].
    pub fn new(
        coordinator: Arc<dyn Coordinator>,
        policies: impl Fn(OrgId) -> Policy + Send + Sync + 'static,
        metrics: CoordinationMetrics,
    ) -> (Self, Runner) {
        let (reports, incoming) = mpsc::channel(REPORTS);
        let inner = Inner {
            coordinator,
            policies: Box::new(policies),
            state: Mutex::default(),
            changes: broadcast::Sender::new(BACKLOG),
            reports,
            metrics,
            epoch: Instant::now(),
        };
        let board = Self { inner: Arc::new(inner) };
        (board.clone(), Runner::new(board, incoming))
    }

    /// Takes a node's report. Never waits: with too many waiting it is dropped, and the node's own breaker is all.
    pub fn report(&self, report: Report) {
        if self.inner.reports.try_send(report).is_err() {
            self.inner.metrics.dropped_reports.inc();
        }
    }

    pub fn subscribe(&self) -> Subscription {
        let state = self.lock();
        // Under the lock, so that each change is in one place or the other.
        let changes = self.inner.changes.subscribe();
        Subscription { whole: state.in_force(Instant::now()), revision: state.revision, changes }
    }

    /// What is in force, in order.
    pub fn list(&self) -> Vec<Cooling> {
        let mut all = self.lock().in_force(Instant::now());
        all.sort_by_key(|it| it.scope);
        all
    }

    /// Sets a cooldown, unless a longer one is in force. Every replica knows of it soon after, this one at once.
    ///
    /// # Errors
    /// When the coordinator does not answer; nothing has changed then, as far as can be told.
    pub async fn set(&self, scope: Scope, value: Value) -> Result<Outcome, Unavailable> {
        let (key, wanted) = (scope.key(), Duration::from_millis(value.duration_ms));
        let mut expect = match self.lock().entries.get(&scope) {
            Some(held) if held.remaining(Instant::now()) >= wanted => {
                return Ok(Outcome::Kept { remaining: held.remaining(Instant::now()) });
            }
            Some(held) => Expect::Revision(held.revision),
            None => Expect::Absent,
        };
        for _ in 0..TRIES {
            let put = self.inner.coordinator.put(&key, value.encode(), Some(wanted), expect).await;
            match put.inspect_err(|_| self.failed())? {
                Put::Done { revision } => {
                    self.inner.metrics.cooldowns_set.inc();
                    self.apply(vec![(scope, Some(value), None, revision)]);
                    return Ok(Outcome::Set);
                }
                Put::Conflict(None) => expect = Expect::Absent,
                Put::Conflict(Some(found)) => {
                    let remaining = self.remaining_of(scope, &found);
                    if remaining >= wanted {
                        return Ok(Outcome::Kept { remaining });
                    }
                    expect = Expect::Revision(found.revision);
                }
            }
        }
        Err(Unavailable(format!("{key} is written to by too many at once")))
    }

    /// What is left of an entry that somebody else wrote.
    fn remaining_of(&self, scope: Scope, found: &crate::coordination::Entry) -> Duration {
        let held = self.lock().entries.get(&scope).cloned();
        if let Some(held) = held.filter(|held| held.revision == found.revision) {
            return held.remaining(Instant::now());
        }
        let value = Value::decode(&found.value).filter(|value| !value.lifted);
        let longest = value.map(|value| Duration::from_millis(value.duration_ms)).unwrap_or_default();
        longest.min(found.ttl_left.unwrap_or(longest))
    }

    /// Ends a cooldown, and what nodes hold by themselves. True when one was in force.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub async fn lift(&self, scope: Scope, reporter: &str) -> Result<bool, Unavailable> {
        let now = Instant::now();
        let there = self.lock().entries.get(&scope).is_some_and(|held| held.until > now);
        let value = Value {
            cause: Cause::Manual,
            duration_ms: 0,
            reason: String::new(),
            reporter: reporter.to_owned(),
            generation: 0,
            lifted: true,
        };
        let key = scope.key();
        let put = self.inner.coordinator.put(&key, value.encode(), Some(LIFTED), Expect::Anything);
        if let Put::Done { revision } = put.await.inspect_err(|_| self.failed())? {
            self.apply(vec![(scope, Some(value), None, revision)]);
        }
        Ok(there)
    }

    /// The coordinator is followed at the moment.
    pub fn is_connected(&self) -> bool {
        self.lock().connected
    }

    /// Whether anybody keeps away from this deployment, and for how long: for whoever shows it.
    pub fn of(&self, org: Option<OrgId>, deployment: DeploymentId) -> Option<Cooling> {
        let now = Instant::now();
        let held = self.lock().entries.get(&Scope { org, deployment }).cloned();
        held.filter(|held| held.until > now)
    }

    fn failed(&self) {
        self.inner.metrics.failed_writes.inc();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn connected(&self, connected: bool) {
        self.lock().connected = connected;
        self.inner.metrics.connected.set(connected.into());
    }

    /// The whole truth, after a start or a gap.
    fn listed(&self, listing: &Listing) {
        let mut updates = Vec::new();
        let mut state = self.lock();
        let present: HashMap<_, _> =
            listing.entries.iter().filter_map(|entry| Some((Scope::from_key(&entry.key)?, entry))).collect();
        for scope in state.entries.keys().filter(|scope| !present.contains_key(scope)) {
            updates.push((*scope, None, None, listing.revision));
        }
        for (scope, entry) in present {
            if let Some(value) = Value::decode(&entry.value) {
                // What is older than a restart of the coordinator may count from its beginning.
                let known = state.entries.get(&scope).is_some_and(|held| held.revision == entry.revision);
                if !known {
                    updates.push((scope, Some(value), entry.ttl_left, entry.revision));
                }
            }
        }
        // A coordinator that lost its data counts from the beginning.
        if listing.revision < state.revision {
            state.entries.values_mut().for_each(|held| held.revision = 0);
        }
        drop(state);
        self.apply(updates);
    }

    fn happened(&self, events: Vec<Event>) {
        let update = |event| match event {
            Event::Put(entry) => {
                let scope = Scope::from_key(&entry.key)?;
                Some((scope, Some(Value::decode(&entry.value)?), None, entry.revision))
            }
            Event::Deleted { key, revision } => Some((Scope::from_key(&key)?, None, None, revision)),
        };
        self.apply(events.into_iter().filter_map(update).collect());
    }

    /// Takes over what is newer than what is held, and tells the nodes.
    fn apply(&self, updates: Vec<Update>) {
        let (now, now_ms) = (Instant::now(), self.now_ms());
        let mut state = self.lock();
        let mut change = Change::default();
        for (scope, value, ttl_left, revision) in updates {
            state.revision = state.revision.max(revision);
            if state.entries.get(&scope).is_some_and(|held| held.revision >= revision) {
                continue;
            }
            let lifted = value.as_ref().is_some_and(|value| value.lifted);
            match value.filter(|_| !lifted) {
                Some(value) => {
                    if state.entries.len() >= MAX_ENTRIES && !state.entries.contains_key(&scope) {
                        continue;
                    }
                    let entry = cooling(scope, value, ttl_left, revision, now);
                    if let Some(org) = scope.org.filter(|_| entry.0.cause != Cause::Manual) {
                        let for_ms = u64::try_from(entry.0.remaining(now).as_millis()).unwrap_or(0);
                        state.aggregator.cooled((org, scope.deployment), for_ms, entry.1, now_ms);
                    }
                    change.set.push(entry.0.clone());
                    state.entries.insert(scope, entry.0);
                }
                None => {
                    state.entries.remove(&scope);
                    change.cleared.push((scope, lifted));
                    match scope.org {
                        Some(org) if lifted => state.aggregator.forgive((org, scope.deployment)),
                        None if lifted => state.aggregator.forgive_all(scope.deployment),
                        _ => {}
                    }
                }
            }
        }
        self.tell(state, change);
    }

    fn tell(&self, mut state: MutexGuard<'_, State>, mut change: Change) {
        change.revision = state.revision;
        let now = Instant::now();
        state.entries.retain(|_, held| held.until + GRACE > now);
        let in_force = state.entries.values().filter(|held| held.until > now).count();
        self.inner.metrics.cooldowns.set(i64::try_from(in_force).unwrap_or(i64::MAX));
        if !change.set.is_empty() || !change.cleared.is_empty() {
            // Still under the lock, for the order. Nobody there: nobody to tell.
            let _ = self.inner.changes.send(Arc::new(change));
        }
    }
}

/// Scope, value (none: gone), what is left of its lease when that is known, revision.
type Update = (Scope, Option<Value>, Option<Duration>, u64);

fn cooling(
    scope: Scope,
    value: Value,
    ttl_left: Option<Duration>,
    revision: u64,
    now: Instant,
) -> (Cooling, u32) {
    let left = Duration::from_millis(value.duration_ms);
    let left = ttl_left.map_or(left, |ttl| left.min(ttl));
    let Value { cause, reason, reporter, generation, .. } = value;
    (Cooling { scope, cause, until: now + left, reason, reporter, revision }, generation)
}

impl State {
    fn in_force(&self, now: Instant) -> Vec<Cooling> {
        self.entries.values().filter(|held| held.until > now).cloned().collect()
    }
}
