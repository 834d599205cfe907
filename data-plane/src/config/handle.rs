//! The one place that requests load the configuration from (I2). Written by [`super::apply`] (snapshots) and the
//! revocation stream (what must stop ahead of the next one).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use nemo_proto::config::Revocation;
use tokio::sync::watch;

use super::{Live, revoked::Revoked};

/// The current [`Live`], swapped whole. Clones share it.
#[derive(Clone)]
pub struct SnapshotHandle {
    current: Arc<ArcSwapOption<Live>>,
    revision: watch::Sender<Option<u64>>,
    /// What is revoked beside the current snapshot. Held for a swap: of two writers the later must see what the
    /// earlier wrote. Requests never take it.
    revoked: Arc<Mutex<Revoked>>,
}

impl Default for SnapshotHandle {
    fn default() -> Self {
        Self {
            current: Arc::new(ArcSwapOption::empty()),
            revision: watch::Sender::new(None),
            revoked: Arc::default(),
        }
    }
}

impl SnapshotHandle {
    /// `None` until the first snapshot was applied or read from disk.
    pub fn load(&self) -> Option<Arc<Live>> {
        self.current.load_full()
    }

    /// The revision in force; changes after the swap.
    pub fn revision(&self) -> watch::Receiver<Option<u64>> {
        self.revision.subscribe()
    }

    /// Waits until this revision or a later one is in force, at most for `patience`.
    pub async fn reach(&self, revision: u64, patience: Duration) {
        let reached = |current: &Option<u64>| current.is_some_and(|current| current >= revision);
        if reached(&self.revision.borrow()) {
            return;
        }
        let mut current = self.revision.subscribe();
        // Whether it came in time is seen by whoever loads the snapshot next.
        let _ = tokio::time::timeout(patience, current.wait_for(reached)).await;
    }

    /// Takes effect before the push that says the same. Returns how many were news.
    pub fn revoke(&self, revocations: &[Revocation]) -> usize {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.current.load_full();
        let known = held.as_ref().map_or(0, |live| live.snapshot.revision);
        let news = revocations.iter().filter(|it| it.revision > known && revoked.note(it)).count();
        if let Some(live) = held.filter(|_| news > 0) {
            let mut live = Live { revoked: Arc::new(revoked.clone()), ..live.as_ref().clone() };
            revoked.withdraw_from(&mut live.snapshot.tenancy);
            self.current.store(Some(Arc::new(live)));
        }
        news
    }

    pub(super) fn store(&self, live: Live) {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = live.snapshot.revision;
        let before = self.current.load_full().map_or(0, |live| live.snapshot.revision);
        if revision < before {
            // The database was set back: what was revoked in revisions that are gone is gone too.
            revoked.clear();
        }
        revoked.settle(revision);
        let mut live = Live { revoked: Arc::new(revoked.clone()), ..live };
        revoked.withdraw_from(&mut live.snapshot.tenancy);
        self.current.store(Some(Arc::new(live)));
        drop(revoked);
        self.revision.send_replace(Some(revision));
    }
}

#[cfg(test)]
mod tests;
