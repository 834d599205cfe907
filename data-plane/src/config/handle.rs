//! The one place that requests load the configuration from (I2). Written by [`super::apply`] alone.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::Live;

/// The current [`Live`], swapped whole. Clones share it.
#[derive(Clone)]
pub struct SnapshotHandle {
    current: Arc<ArcSwapOption<Live>>,
    revision: watch::Sender<Option<u64>>,
}

impl Default for SnapshotHandle {
    fn default() -> Self {
        Self { current: Arc::new(ArcSwapOption::empty()), revision: watch::Sender::new(None) }
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

    pub(super) fn store(&self, live: Live) {
        let revision = live.snapshot.revision;
        self.current.store(Some(Arc::new(live)));
        self.revision.send_replace(Some(revision));
    }
}
