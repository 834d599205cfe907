//! A value made of files, made again when one of them changes. What can't be made is reported once and the old value
//! stays: a certificate that is replaced before its key must not end the service.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;

use super::TlsError;
use crate::drain::DrainWatcher;

/// Certificates change every few weeks; looking takes a few microseconds.
const EVERY: Duration = Duration::from_secs(2);

type Make<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

pub(super) struct Reloaded<T> {
    current: ArcSwap<T>,
    files: Vec<PathBuf>,
    make: Make<T>,
}

impl<T> Reloaded<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(make()?);
        Ok(Self { current, files, make: Box::new(make) })
    }

    pub(super) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(super) async fn watch(&self, drain: DrainWatcher) {
        let mut seen = self.stamps();
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = drain.signaled() => return,
            }
            let now = self.stamps();
            if now == seen {
                continue;
            }
            seen = now;
            match (self.make)() {
                Ok(made) => {
                    self.current.store(Arc::new(made));
                    tracing::info!(files = ?self.files, "certificates read again");
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates changed but can't be used; the old ones stay")
                }
            }
        }
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
