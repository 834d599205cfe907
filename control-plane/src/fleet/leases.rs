//! Leases: which nodes of the whole installation live, and which revision each of them holds.
//!
//! Every replica writes the nodes that are connected to it into one table: at once when something was acknowledged, and
//! again and again while a node says that it lives. A node that says nothing any more, or whose replica is gone, is
//! *fenced* when its lease runs out: it may still serve what it holds (I4), but nobody waits for it. When it comes
//! back it catches up like any other, and until then answers 503 to requests that ask for a newer
//! `x-nemo-min-config-version`.

use std::{collections::BTreeMap, time::Duration};

use nemo_runtime::drain::DrainWatcher;
use tokio::{sync::watch, time::Instant};

use super::Registry;
use crate::{
    publish::Unpublishable,
    store::{Store, StoreError, fleet_nodes},
};

/// How long a node counts after it was heard of.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often a node says that it lives: two of three may be late or lost.
pub const HEARTBEAT: Duration = Duration::from_secs(3);
/// How often leases are written when nothing changes.
const RENEW: Duration = Duration::from_secs(2);
/// Shortest time between two writes: acknowledgements of many nodes are one statement.
const COALESCE: Duration = Duration::from_millis(25);
/// How soon whoever waits looks again, at first and at last: most are done at once, some wait for a lease to run out.
const FIRST_LOOK: Duration = Duration::from_millis(25);
const LAST_LOOK: Duration = Duration::from_millis(400);
/// How often nodes that are long gone are looked for.
const FORGET: Duration = Duration::from_secs(3600);

/// Writes the leases of this replica's nodes until drain.
pub async fn run(registry: Registry, store: Store, drain: DrainWatcher) {
    let mut forget_at = Instant::now();
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = registry.lease_changed() => {}
            () = tokio::time::sleep(RENEW) => {}
        }
        if let Err(error) = write(&registry, &store).await {
            tracing::warn!(%error, "the leases of nodes can't be written; whoever waits for the fleet waits longer");
        }
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET;
            if let Err(error) = fleet_nodes::forget_gone(&store).await {
                tracing::debug!(%error, "nodes that are gone can't be forgotten");
            }
        }
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(COALESCE) => {}
        }
    }
}

async fn write(registry: &Registry, store: &Store) -> Result<(), StoreError> {
    for (node_id, epoch, session) in registry.take_left() {
        fleet_nodes::leave(store, &node_id, epoch, session).await?;
    }
    renew_own(registry, store).await
}

/// Writes the leases of the nodes that are connected to this replica. [`run`] does so all the time; whoever waits for the
/// fleet does so first, or a node that has just subscribed and serves already would not be waited for.
///
/// # Errors
/// When the database can't be reached.
pub async fn renew_own(registry: &Registry, store: &Store) -> Result<(), StoreError> {
    let leases = registry.leases(LEASE, Instant::now());
    if leases.is_empty() { Ok(()) } else { fleet_nodes::renew(store, &leases).await }
}

/// Every live node holds the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub config_version: u64,
    /// How many there are.
    pub nodes: usize,
}

/// Why a version is not applied everywhere.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    #[error("not applied yet by {}", some(nodes))]
    StillWaiting {
        /// Ids of the live nodes that lack it.
        nodes: Vec<String>,
    },
    #[error("refused by {}", refused(nodes))]
    Refused {
        /// Reason by node.
        nodes: BTreeMap<String, String>,
    },
    /// Nothing is sent to the nodes until it is mended.
    #[error("revision {} can't be served: {}", .0.revision, .0.reason)]
    Unpublishable(Unpublishable),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Most nodes that a message names.
const NAMED: usize = 10;

fn some(nodes: &[String]) -> String {
    let more = nodes.len().saturating_sub(NAMED);
    let named: Vec<_> = nodes.iter().take(NAMED).map(|node| format!("node {node}")).collect();
    if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
}

fn refused(nodes: &BTreeMap<String, String>) -> String {
    let named: Vec<_> =
        nodes.iter().take(NAMED).map(|(node, reason)| format!("node {node}: {reason}")).collect();
    named.join("; ")
}

/// Waits until every live node of the installation, whichever replica it is connected to, has applied
/// `config_version` or a later one. `unpublishable`: what this replica can't publish; the others can't either.
///
/// # Errors
/// At once when a node refuses it or it can't be published; when `patience` is over, with the nodes that lack it.
pub async fn applied_everywhere(
    store: &Store,
    unpublishable: &watch::Receiver<Option<Unpublishable>>,
    config_version: u64,
    patience: Duration,
) -> Result<Applied, NotApplied> {
    let deadline = Instant::now() + patience;
    let wanted = i64::try_from(config_version).unwrap_or(i64::MAX);
    let mut pause = FIRST_LOOK;
    loop {
        let nodes = fleet_nodes::live(store).await?;
        let lacking: Vec<_> = nodes.iter().filter(|node| node.revision < wanted).collect();
        if lacking.is_empty() {
            return Ok(Applied { config_version, nodes: nodes.len() });
        }
        let refusing = lacking.iter().filter(|node| node.refused_revision >= wanted);
        let refusing: BTreeMap<_, _> =
            refusing.map(|node| (node.node_id.clone(), node.refusal.clone())).collect();
        if !refusing.is_empty() {
            return Err(NotApplied::Refused { nodes: refusing });
        }
        let held_back = unpublishable.borrow().clone().filter(|it| it.holds_back(config_version));
        if let Some(held_back) = held_back {
            return Err(NotApplied::Unpublishable(held_back));
        }
        if Instant::now() >= deadline {
            let nodes = lacking.into_iter().map(|node| node.node_id.clone()).collect();
            return Err(NotApplied::StillWaiting { nodes });
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = (pause * 3 / 2).min(LAST_LOOK);
    }
}

#[cfg(test)]
mod tests;
