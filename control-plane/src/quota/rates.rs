//! Demand for rate limits, by node, and the parts that follow. Fed by `grpc/quota_service.rs` with what this replica's
//! nodes report, and by the exchange with what the nodes of other replicas do: all replicas divide by the same demands,
//! so the parts add up to the limit over the whole fleet, but for what has changed within the last two seconds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use nemo_proto::{
    config::{Kind, resource},
    quota::{RateAssignment, RateReport},
};
use nemo_types::RateLimitId;
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};

use super::shares::{self, Demand, Limit, Share};
use crate::publish::Published;

/// Demand that was not reported again counts for so long.
const LASTS: Duration = Duration::from_secs(30);
/// Limits, and nodes of one limit, whose demand is remembered.
const MAX_LIMITS: usize = 200_000;
const MAX_NODES: usize = 4096;
/// A part that has changed by less, in millionths of the limit, is not told.
const WORTH_TELLING: u32 = 5_000;

/// One node's demand for one limit, as replicas exchange it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDemand {
    pub limit: RateLimitId,
    pub node_id: String,
    pub demand: Demand,
}

#[derive(Debug)]
struct Seen {
    demand: Demand,
    at: Instant,
    /// Connected to this replica.
    own: bool,
    told: Option<Share>,
    /// Not exchanged yet.
    changed: bool,
}

type Board = HashMap<RateLimitId, BTreeMap<Arc<str>, Seen>>;

/// See the module. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Rates {
    published: watch::Receiver<Arc<Published>>,
    board: Arc<Mutex<Board>>,
}

impl Rates {
    /// Limits are looked up in what `published` shows.
    pub fn new(published: watch::Receiver<Arc<Published>>) -> Self {
        Self { published, board: Arc::default() }
    }

    /// A node reports. Returns the parts that it should know, of `nodes` nodes in all. `full`: those that it may have
    /// missed, too.
    pub fn report(
        &self,
        node: &Arc<str>,
        reports: &[RateReport],
        nodes: u32,
        full: bool,
    ) -> Vec<RateAssignment> {
        let now = Instant::now();
        let published = self.published.borrow().clone();
        let mut board = self.lock();
        let mut assignments = Vec::new();
        for report in reports {
            let Some(id) = RateLimitId::from_bytes(&report.limit_id) else { continue };
            let Some(limit) = limit(&published, id) else {
                board.remove(&id);
                continue;
            };
            if board.len() >= MAX_LIMITS && !board.contains_key(&id) {
                continue;
            }
            let demand = Demand {
                requests_per_minute: report.requests_per_minute,
                tokens_per_minute: report.tokens_per_minute,
                concurrent: u64::from(report.concurrent) + u64::from(report.refused),
            };
            let seen = board.entry(id).or_default();
            seen.retain(|_, it| now.duration_since(it.at) < LASTS);
            if seen.len() >= MAX_NODES && !seen.contains_key(node) {
                continue;
            }
            let before = seen.remove(node);
            let told = before.as_ref().and_then(|it| it.told).filter(|_| !full);
            let changed = before.is_none_or(|it| it.changed || it.demand != demand || !it.own);
            seen.insert(node.clone(), Seen { demand, at: now, own: true, told, changed });
            let share = part(seen, node, limit, nodes);
            if told.is_none_or(|told| worth_telling(told, share)) {
                if let Some(it) = seen.get_mut(node) {
                    it.told = Some(share);
                }
                assignments.push(assignment(id, share));
            }
        }
        assignments
    }

    /// What nodes of this replica have reported since the last call, or (`all`) lately.
    pub fn take_changed(&self, all: bool) -> Vec<NodeDemand> {
        let mut changed = Vec::new();
        for (limit, nodes) in &mut *self.lock() {
            for (node, seen) in nodes.iter_mut().filter(|(_, seen)| seen.own && (all || seen.changed)) {
                seen.changed = false;
                changed.push(NodeDemand { limit: *limit, node_id: node.to_string(), demand: seen.demand });
            }
        }
        changed
    }

    /// What nodes of other replicas have reported.
    pub fn heard(&self, others: Vec<NodeDemand>) {
        let now = Instant::now();
        let mut board = self.lock();
        for it in others {
            if board.len() >= MAX_LIMITS && !board.contains_key(&it.limit) {
                continue;
            }
            let nodes = board.entry(it.limit).or_default();
            let own =
                nodes.get(&*it.node_id).is_some_and(|seen| seen.own && now.duration_since(seen.at) < LASTS);
            if !own && (nodes.len() < MAX_NODES || nodes.contains_key(&*it.node_id)) {
                let seen = Seen { demand: it.demand, at: now, own: false, told: None, changed: false };
                nodes.insert(it.node_id.into(), seen);
            }
        }
    }

    /// Forgets what nobody has reported for a while.
    pub fn sweep(&self) {
        self.sweep_at(Instant::now());
    }

    fn sweep_at(&self, now: Instant) {
        self.lock().retain(|_, nodes| {
            nodes.retain(|_, seen| now.duration_since(seen.at) < LASTS);
            !nodes.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // No code that holds the lock can panic half-way through a change.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `node` gets. Nodes that have reported nothing have the floor.
fn part(seen: &BTreeMap<Arc<str>, Seen>, node: &Arc<str>, limit: Limit, nodes: u32) -> Share {
    let mut demands: Vec<Demand> = seen.values().map(|it| it.demand).collect();
    let nodes = usize::try_from(nodes).unwrap_or(MAX_NODES).min(MAX_NODES);
    demands.resize(demands.len().max(nodes), Demand::default());
    let at = seen.keys().position(|it| it == node).unwrap_or(0);
    shares::divide(limit, &demands).get(at).copied().unwrap_or_default()
}

fn worth_telling(told: Share, now: Share) -> bool {
    told.concurrent != now.concurrent
        || told.requests_ppm.abs_diff(now.requests_ppm) >= WORTH_TELLING
        || told.tokens_ppm.abs_diff(now.tokens_ppm) >= WORTH_TELLING
}

fn assignment(limit: RateLimitId, share: Share) -> RateAssignment {
    RateAssignment {
        limit_id: Bytes::copy_from_slice(limit.as_bytes()),
        requests_ppm: share.requests_ppm,
        tokens_ppm: share.tokens_ppm,
        concurrent: share.concurrent,
    }
}

fn limit(published: &Published, id: RateLimitId) -> Option<Limit> {
    let found = published.set.find(Kind::RateLimit, id.as_bytes())?.decode().kind?;
    let resource::Kind::RateLimit(it) = found else { return None };
    Some(Limit {
        requests_per_minute: it.requests_per_minute,
        tokens_per_minute: it.tokens_per_minute,
        concurrent: it.concurrent,
    })
}

#[cfg(test)]
mod tests;
