//! Keeps a [`Board`] up to date: follows the coordinator, weighs reports, writes what they lead to. One per replica,
//! started by `app.rs`.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use nemo_proto::cooldown::Observation;
use nemo_runtime::{backoff::Backoff, drain::DrainWatcher};
use nemo_types::{DeploymentId, OrgId};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{Board, Report};
use crate::{
    cooldown::{
        aggregator::{Finding, Pair, Seen},
        value::{COOLDOWNS, Cause, NODES, SUSPECTS, Scope, Value, suspect, suspect_key},
    },
    coordination::{Ended, Event, Expect, Listing},
};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// Writes under way.
const WRITES: usize = 64;
const SWEEP: Duration = Duration::from_secs(5);
/// What a suspicion says beside its key is the cause.
const LONGEST_CAUSE: usize = 32;

/// See the module.
pub struct Runner {
    board: Board,
    reports: mpsc::Receiver<Report>,
}

/// What a report leads to.
enum Write {
    Cool(Scope, Value),
    Suspect { key: String, cause: Cause, for_ms: u64 },
}

impl Runner {
    pub(super) fn new(board: Board, reports: mpsc::Receiver<Report>) -> Self {
        Self { board, reports }
    }

    /// Until drain.
    pub async fn run(self, drain: DrainWatcher) {
        let Self { board, reports } = self;
        let (found, findings) = mpsc::channel(WRITES);
        let suspicions = Suspicions { board: &board, found };
        let members = Members { board: &board, ids: std::sync::Mutex::default() };
        tokio::select! {
            () = drain.signaled() => {}
            () = follow(&board, COOLDOWNS, &board) => {}
            () = follow(&board, SUSPECTS, &suspicions) => {}
            () = follow(&board, NODES, &members) => {}
            () = weigh(&board, reports, findings) => {}
        }
    }
}

/// Takes what is below a prefix.
trait Follower {
    fn listed(&self, listing: &Listing);
    fn happened(&self, events: Vec<Event>);
    fn connected(&self, _: bool) {}
}

impl Follower for Board {
    fn listed(&self, listing: &Listing) {
        Board::listed(self, listing);
    }

    fn happened(&self, events: Vec<Event>) {
        Board::happened(self, events);
    }

    fn connected(&self, connected: bool) {
        Board::connected(self, connected);
    }
}

/// Lists and watches, and begins anew when that breaks off.
async fn follow(board: &Board, prefix: &str, follower: &impl Follower) {
    let coordinator = &board.inner.coordinator;
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut following = true;
    loop {
        let followed = async {
            let listing = coordinator.list(prefix).await?;
            let mut watch = coordinator.watch(prefix, listing.revision).await?;
            follower.listed(&listing);
            follower.connected(true);
            backoff.reset();
            following = true;
            tracing::info!(prefix, entries = listing.entries.len(), "following the coordinator");
            loop {
                follower.happened(watch.next().await?);
            }
        };
        // It only ends with an error.
        let ended: Result<(), Ended> = followed.await;
        if let Err(Ended::Unavailable(error)) = &ended {
            follower.connected(false);
            // Once, however often it is tried.
            if std::mem::replace(&mut following, false) {
                tracing::warn!(prefix, %error, "keeping what is known until it does");
            } else {
                tracing::debug!(prefix, %error, "still keeping what is known");
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

struct Members<'a> {
    board: &'a Board,
    ids: std::sync::Mutex<HashSet<String>>,
}

impl Members<'_> {
    fn change(&self, change: impl FnOnce(&mut HashSet<String>)) {
        let mut ids = self.ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut ids);
        self.board.inner.metrics.members.set(i64::try_from(ids.len()).unwrap_or(i64::MAX));
    }
}

impl Follower for Members<'_> {
    fn listed(&self, listing: &Listing) {
        self.change(|ids| *ids = listing.entries.iter().map(|entry| entry.key.clone()).collect());
    }

    fn happened(&self, events: Vec<Event>) {
        self.change(|ids| {
            for event in events {
                match event {
                    Event::Put(entry) => drop(ids.insert(entry.key)),
                    Event::Deleted { key, .. } => drop(ids.remove(&key)),
                }
            }
        });
    }
}

struct Suspicions<'a> {
    board: &'a Board,
    found: mpsc::Sender<Write>,
}

impl Suspicions<'_> {
    fn suspected(&self, key: &str, value: &[u8]) {
        let Some((pair, node)) = suspect(key) else { return };
        let cause = serde_json::from_slice(value.get(..value.len().min(LONGEST_CAUSE)).unwrap_or_default());
        let cause = cause.unwrap_or(Cause::ServerError);
        let board = self.board;
        let (policy, now) = ((board.inner.policies)(pair.0), board.now_ms());
        let finding = board.lock().aggregator.suspected(pair, (node, cause), policy, now, fastrand::u64(..));
        if let Some(write) = write(pair, node, cause, finding) {
            // With so many under way already, the other replica's word is enough.
            let _ = self.found.try_send(write);
        }
    }
}

impl Follower for Suspicions<'_> {
    fn listed(&self, listing: &Listing) {
        listing.entries.iter().for_each(|entry| self.suspected(&entry.key, &entry.value));
    }

    fn happened(&self, events: Vec<Event>) {
        for event in events {
            if let Event::Put(entry) = event {
                self.suspected(&entry.key, &entry.value);
            }
        }
    }
}

fn write((org, deployment): Pair, node: &str, cause: Cause, finding: Finding) -> Option<Write> {
    match finding {
        Finding::Nothing => None,
        Finding::Suspect { for_ms } => {
            Some(Write::Suspect { key: suspect_key((org, deployment), node), cause, for_ms })
        }
        Finding::Cool { cause, for_ms, generation } => {
            let (reason, reporter) = (String::new(), node.to_owned());
            let value = Value { cause, duration_ms: for_ms, reason, reporter, generation, lifted: false };
            Some(Write::Cool(Scope { org: Some(org), deployment }, value))
        }
    }
}

async fn weigh(board: &Board, mut reports: mpsc::Receiver<Report>, mut findings: mpsc::Receiver<Write>) {
    let mut writing = FuturesUnordered::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let room = writing.len() < WRITES;
        let writes = tokio::select! {
            Some(()) = writing.next() => continue,
            Some(report) = reports.recv(), if room => weighed(board, &report),
            Some(write) = findings.recv(), if room => vec![write],
            _ = sweep.tick() => {
                let (now, mut state) = (board.now_ms(), board.lock());
                state.aggregator.sweep(now);
                board.tell(state, super::Change::default());
                continue;
            }
        };
        // Without the coordinator nothing is written, so that nothing waits for it.
        if board.is_connected() {
            writing.extend(writes.into_iter().map(|write| written(board, write)));
        }
    }
}

fn weighed(board: &Board, report: &Report) -> Vec<Write> {
    let weigh = |observation: &Observation| {
        let pair: Pair =
            (OrgId::from_bytes(&observation.org_id)?, DeploymentId::from_bytes(&observation.deployment_id)?);
        let cause = Cause::of(observation.failure_class())?;
        let seen = Seen {
            node: &report.node,
            cause,
            attempts: observation.attempts,
            failures: observation.failures,
            opened_ms: observation.opened_ms.map(u64::from),
            hint_ms: observation.hint_ms.map(u64::from),
        };
        let (policy, now) = ((board.inner.policies)(pair.0), board.now_ms());
        let finding = board.lock().aggregator.observe(pair, seen, policy, now, fastrand::u64(..));
        write(pair, &report.node, cause, finding)
    };
    report.observations.iter().filter_map(weigh).collect()
}

async fn written(board: &Board, write: Write) {
    let failed = match write {
        Write::Cool(scope, value) => {
            let (cause, for_ms) = (value.cause.label(), value.duration_ms);
            let set = board.set(scope, value).await;
            if set.is_ok() {
                tracing::info!(
                    org = scope.org.map(tracing::field::display),
                    deployment = %scope.deployment,
                    cause,
                    for_ms,
                    "the fleet keeps away from a deployment"
                );
            }
            set.err()
        }
        Write::Suspect { key, cause, for_ms } => {
            let value = Bytes::from(serde_json::to_vec(&cause).unwrap_or_default());
            let ttl = Some(Duration::from_millis(for_ms));
            let put = board.inner.coordinator.put(&key, value, ttl, Expect::Anything).await;
            put.inspect_err(|_| board.failed()).err()
        }
    };
    if let Some(error) = failed {
        tracing::warn!(%error, "a finding about an upstream stays this node's own");
    }
}
