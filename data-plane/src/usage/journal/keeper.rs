//! What the journal does beside the requests, on a thread of its own: syncing what was written, letting go of segments
//! that nobody needs, making the next one ahead. It sleeps while nothing happens, and ends with the journal.

use std::{
    io,
    sync::{Arc, MutexGuard, PoisonError, Weak, atomic::Ordering},
    thread,
    time::Duration,
};

use super::{Journal, Shared, log::SPARE, marker, storage::SegmentFile};

impl Journal {
    /// Starts the thread. What is written is synced within `every`, all of it at once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn keep(&self, every: Duration) -> io::Result<()> {
        let shared = Arc::downgrade(&self.shared);
        let thread = thread::Builder::new().name("nemo-journal".into()).spawn(move || run(&shared, every))?;
        let _ = self.shared.keeper.set(thread.thread().clone());
        Ok(())
    }

    /// One round of the thread. Public for those that have none.
    pub fn tend(&self) {
        let shared = &self.shared;
        shared.dirty.store(false, Ordering::Release);
        let unsynced = shared.log().take_unsynced();
        shared.sync(&unsynced);
        let _in_order = shared.in_order();
        let (buried, moved, wants_spare) = {
            let mut log = shared.log();
            log.release();
            let buried = std::mem::take(&mut log.graveyard);
            // What stands for what is removed must be as safe.
            let moved = if buried.is_empty() { Vec::new() } else { log.take_unsynced() };
            (buried, moved, log.wants_spare())
        };
        shared.sync(&moved);
        shared.remove(&buried);
        if wants_spare {
            let made = shared.storage.create(SPARE, shared.limits.segment as u64);
            shared.log().spare(made);
        }
    }

    /// The last events are written, and as many as possible acknowledged: syncs, removes what nobody needs, and says so
    /// on the disk. Requests that still end are written nevertheless.
    pub fn finish(&self) {
        self.tend();
        let _in_order = self.shared.in_order();
        let mut log = self.shared.log();
        log.release_all();
        log.drop_spare();
        let buried = std::mem::take(&mut log.graveyard);
        // Under the lock, as nothing may come between this and saying so: a request may have ended since `tend`. And all
        // of them: what the thread has taken to sync need not be safe yet.
        let files: Vec<_> = log.live.segments.iter().map(|it| it.file.clone()).collect();
        if !are_synced(&files) {
            log.spoil_live();
        }
        log.clean = true;
        log.mark();
        drop(log);
        self.shared.remove(&buried);
    }

    /// Epochs of former processes of which every event is acknowledged, and whether nothing of them was lost.
    pub fn closed_epochs(&self) -> Vec<(u64, bool)> {
        self.shared.log().over.clone()
    }

    /// The control plane has closed this epoch: it need not be told again, nor by a later process, unless this one dies
    /// before its next round.
    pub fn forget_epoch(&self, epoch: u64) {
        let mut log = self.shared.log();
        let before = log.over.len();
        log.over.retain(|(over, _)| *over != epoch);
        if log.over.len() == before {
            return;
        }
        // Its segments went there before its marker: without one, what is left is taken for damaged.
        log.graveyard.push(marker::name(epoch));
        drop(log);
        self.shared.wake_keeper();
    }
}

impl Shared {
    fn sync(&self, files: &[Arc<dyn SegmentFile>]) {
        if !are_synced(files) {
            self.log().spoil_live();
        }
    }

    /// Held by whoever takes the graveyard until all that was in it is gone: what is removed first is buried first.
    fn in_order(&self) -> MutexGuard<'_, ()> {
        self.removing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remove(&self, names: &[String]) {
        for name in names {
            if let Err(error) = self.storage.remove(name) {
                tracing::error!(%error, name, "a file of the usage journal can't be removed");
            }
        }
    }

    /// Something was written, or can be removed.
    pub(super) fn wake_keeper(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel)
            && let Some(keeper) = self.keeper.get()
        {
            keeper.unpark();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }
}

/// Syncs them. Pages that could not be written may be gone, whatever a later sync says.
fn are_synced(files: &[Arc<dyn SegmentFile>]) -> bool {
    let failed = files.iter().filter_map(|file| file.sync().err());
    failed.inspect(|error| tracing::error!(%error, "the usage journal can't be synced")).count() == 0
}

/// Behind those who serve: a request that waits for the core of a sync would wait as long as that takes.
const NICENESS: i32 = 10;

fn run(shared: &Weak<Shared>, every: Duration) {
    // Of this thread alone, on Linux. Where it is not allowed, nothing depends on it.
    if cfg!(target_os = "linux") {
        let _ = rustix::process::setpriority_process(None, NICENESS);
    }
    loop {
        match shared.upgrade() {
            Some(shared) if shared.dirty.load(Ordering::Acquire) => {}
            Some(shared) => {
                drop(shared);
                thread::park();
                continue;
            }
            None => return,
        }
        // All that is written meanwhile is synced at once.
        thread::sleep(every);
        let Some(shared) = shared.upgrade() else { return };
        Journal { shared }.tend();
    }
}
