//! A value made of files, made again when one of them changes, and at once on SIGHUP. What can't be made is reported
//! once and the old value stays: a certificate that is replaced before its key must not end the service.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::TlsError;
use crate::{drain::DrainWatcher, signal::Hangups};

/// Certificates change every few weeks; looking takes a few microseconds.
const EVERY: Duration = Duration::from_secs(2);

type Make<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// How often files were read again, with and without success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    pub taken: u64,
    /// They could not be used; the old ones stay.
    pub refused: u64,
}

pub(super) struct Reloaded<T> {
    current: ArcSwap<T>,
    files: Vec<PathBuf>,
    make: Make<T>,
    reloads: watch::Sender<Reloads>,
}

impl<T> Reloaded<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(make()?);
        Ok(Self { current, files, make: Box::new(make), reloads: watch::Sender::default() })
    }

    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Counts what [`Self::watch`] does.
    pub(super) fn reloads(&self) -> watch::Receiver<Reloads> {
        self.reloads.subscribe()
    }

    pub(super) async fn watch(&self, drain: DrainWatcher) {
        self.watch_every(EVERY, drain).await;
    }

    pub(super) async fn watch_every(&self, every: Duration, drain: DrainWatcher) {
        let mut hangups = Hangups::install();
        let mut seen = self.stamps();
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(every) => false,
                () = hangups.next() => true,
                () = drain.signaled() => return,
            };
            let now = self.stamps();
            if asked || now != seen {
                seen = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        let made = (self.make)();
        let taken = made.is_ok();
        match made {
            Ok(made) => {
                self.current.store(Arc::new(made));
                tracing::info!(files = ?self.files, "certificates read again");
            }
            Err(error) => {
                tracing::warn!(%error, "certificates were read again but can't be used; the old ones stay");
            }
        }
        self.reloads.send_modify(|reloads| {
            let count = if taken { &mut reloads.taken } else { &mut reloads.refused };
            *count += 1;
        });
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files.iter().map(|path| Stamp::of(path)).collect()
    }
}

/// What changes when a file is written or replaced, behind symbolic links too (as Kubernetes mounts secrets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    len: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let modified = (found.mtime(), found.mtime_nsec());
        Some(Self { modified, len: found.len(), inode: found.ino() })
    }
}
