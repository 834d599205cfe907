//! Orderly stop: one trigger, any number of watchers.
//!
//! Whoever starts a server keeps the [`DrainTrigger`]; every loop holds a [`DrainWatcher`] and ends when it is
//! signaled. Draining starts once and never ends. Dropping the last trigger starts it too: a server whose owner
//! is gone has nobody left to stop it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// Starts the drain. Cloneable; starting twice is the same as once.
#[derive(Clone, Debug)]
pub struct DrainTrigger {
    shared: Arc<Shared>,
}

/// Learns about the drain.
#[derive(Clone, Debug)]
pub struct DrainWatcher {
    draining: Arc<AtomicBool>,
    changes: watch::Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    draining: Arc<AtomicBool>,
    changes: watch::Sender<()>,
}

impl Shared {
    fn start(&self) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            self.changes.send_replace(());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.start();
    }
}

/// A connected trigger and watcher.
pub fn channel() -> (DrainTrigger, DrainWatcher) {
    let draining = Arc::new(AtomicBool::new(false));
    let (sender, changes) = watch::channel(());
    let shared = Arc::new(Shared { draining: Arc::clone(&draining), changes: sender });
    (DrainTrigger { shared }, DrainWatcher { draining, changes })
}

impl DrainTrigger {
    pub fn start(&self) {
        self.shared.start();
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// One more watcher of this trigger.
    pub fn watcher(&self) -> DrainWatcher {
        DrainWatcher { draining: Arc::clone(&self.shared.draining), changes: self.shared.changes.subscribe() }
    }
}

impl DrainWatcher {
    /// One atomic load: cheap enough for every poll of a connection.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Resolves when the drain has started, at once if it already has. Cancel safe.
    pub async fn signaled(&self) {
        let mut changes = self.changes.clone();
        while !self.is_draining() {
            // An error means that every trigger is gone, which started the drain.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn every_watcher_learns_of_the_drain_also_late_ones() {
        let (trigger, watcher) = channel();
        let early = watcher.clone();
        assert!(!watcher.is_draining());
        assert!(watcher.signaled().now_or_never().is_none());
        trigger.start();
        trigger.start();
        early.signaled().await;
        watcher.signaled().await;
        trigger.watcher().signaled().await;
        assert!(watcher.is_draining() && trigger.is_draining());
    }

    #[tokio::test]
    async fn losing_the_last_trigger_starts_the_drain_but_not_an_earlier_one() {
        let (trigger, watcher) = channel();
        drop(trigger.clone());
        assert!(!watcher.is_draining());
        drop(trigger);
        watcher.signaled().await;
        assert!(watcher.is_draining());
    }
}
