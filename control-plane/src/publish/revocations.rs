//! The lane that overtakes pushes: what was switched off is told to every connected node as soon as it is committed,
//! without a read of the database and without compiling. Every replica listens, whichever took the write.
//!
//! Filled by one task of the process; each node's stream in `grpc/config_service.rs` reads it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use nemo_proto::config::{Revocation, Revocations as Message, WithdrawnSecret, revocation::Target};
use nemo_runtime::drain::DrainWatcher;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::store::{Store, revocations::RevokedRow};

/// More at once than a node can take wait for the push: nobody buffers without end for it.
const BACKLOG: usize = 4096;
/// The newest are told to a node that subscribes: they may be newer than what it is pushed first.
const RECENT: usize = 256;
/// Most revocations of one message.
const BATCH: usize = 256;

/// Where revocations come in and go out. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct Revocations {
    sender: broadcast::Sender<Revocation>,
    recent: Arc<Mutex<VecDeque<Revocation>>>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), recent: Arc::default() }
    }
}

impl Revocations {
    /// Follows the database until drain.
    pub async fn run(self, store: Store, drain: DrainWatcher) {
        let mut watch = store.watch_revocations();
        loop {
            let (revision, row) = tokio::select! {
                () = drain.signaled() => return watch.close().await,
                told = watch.next() => told,
            };
            let target = match row {
                RevokedRow::Key(public_id) => Target::PublicId(public_id),
                RevokedRow::Secret { public_id, hash } => {
                    Target::Secret(WithdrawnSecret { public_id, secret_hash: hash.to_vec().into() })
                }
                RevokedRow::Team(id) => Target::TeamId(id.into_bytes().to_vec().into()),
                RevokedRow::Organization(id) => Target::OrgId(id.into_bytes().to_vec().into()),
            };
            self.tell(Revocation { revision, target: Some(target) });
        }
    }

    /// Tells every node.
    pub fn tell(&self, revocation: Revocation) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(revocation.clone());
        // Under the lock, so that a subscriber finds it in one place or the other. Nobody there: nobody to tell.
        let _ = self.sender.send(revocation);
    }

    pub fn subscribe(&self) -> Subscription {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        Subscription { recent: recent.iter().cloned().collect(), receiver: self.sender.subscribe() }
    }
}

/// One node's reading.
pub struct Subscription {
    recent: Vec<Revocation>,
    receiver: broadcast::Receiver<Revocation>,
}

impl Subscription {
    /// What there is, at once when there is something; `None` when the control plane ends.
    pub async fn next(&mut self) -> Option<Message> {
        if !self.recent.is_empty() {
            return Some(Message { revocations: std::mem::take(&mut self.recent) });
        }
        let first = loop {
            match self.receiver.recv().await {
                Ok(revocation) => break revocation,
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(
                        missed,
                        "a node is too slow for revocations; they come with its next push"
                    );
                }
                Err(RecvError::Closed) => return None,
            }
        };
        let mut revocations = vec![first];
        while revocations.len() < BATCH
            && let Ok(revocation) = self.receiver.try_recv()
        {
            revocations.push(revocation);
        }
        Some(Message { revocations })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn revocation(revision: u64) -> Revocation {
        Revocation { revision, target: Some(Target::PublicId("a".into())) }
    }

    fn revisions(message: &Message) -> Vec<u64> {
        message.revocations.iter().map(|it| it.revision).collect()
    }

    #[tokio::test]
    async fn every_subscriber_is_told_each_once_and_late_ones_the_newest() {
        let lane = Revocations::default();
        lane.tell(revocation(1));
        let mut early = lane.subscribe();
        (2..5).for_each(|revision| lane.tell(revocation(revision)));
        assert_eq!(revisions(&early.next().await.unwrap()), [1]);
        assert_eq!(revisions(&early.next().await.unwrap()), [2, 3, 4]);
        assert!(early.next().now_or_never().is_none());
        (5..1000).for_each(|revision| lane.tell(revocation(revision)));
        let newest = lane.subscribe().next().await.unwrap();
        assert_eq!(
            (newest.revocations.len(), newest.revocations[0].revision),
            (RECENT, 1000 - RECENT as u64)
        );
    }

    #[tokio::test]
    async fn a_slow_node_loses_the_oldest_and_goes_on() {
        let lane = Revocations::default();
        let mut slow = lane.subscribe();
        (0..BACKLOG as u64 + 10).for_each(|revision| lane.tell(revocation(revision)));
        let first = slow.next().await.unwrap();
        assert_eq!((first.revocations.len(), first.revocations[0].revision), (BATCH, 10));
    }
}
