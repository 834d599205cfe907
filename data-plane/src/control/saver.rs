//! Writes the last-good file beside the config stream: at most once per second, the newest set only.

use std::{sync::Arc, time::Duration};

use nemo_runtime::drain::DrainWatcher;
use nemo_snapshot::ResourceSet;
use nemo_types::Keyring;
use tokio::sync::watch;

use crate::config::last_good::LastGood;

/// Shortest pause between two files.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// A pause lasts so many times what saving took. A file holds everything, so with many keys and frequent changes the
/// disk would otherwise be written without end: this bounds saving to a twentieth of one core.
const SHARE: u32 = 20;

/// A set that was applied, with its revision.
pub type Applied = Option<(Arc<ResourceSet>, u64)>;

/// Where the config stream leaves what it applied.
pub struct Saver {
    newest: watch::Sender<Applied>,
}

impl Saver {
    pub fn new() -> Self {
        Self { newest: watch::Sender::new(None) }
    }

    pub fn subscribe(&self) -> watch::Receiver<Applied> {
        self.newest.subscribe()
    }

    pub fn applied(&self, set: Arc<ResourceSet>, revision: u64) {
        self.newest.send_replace(Some((set, revision)));
    }
}

impl Default for Saver {
    fn default() -> Self {
        Self::new()
    }
}

/// Saves until the drain; what is newest then is saved last.
pub async fn run(
    mut newest: watch::Receiver<Applied>,
    last_good: LastGood,
    keyring: Arc<Keyring>,
    drain: DrainWatcher,
) {
    let last_good = Arc::new(last_good);
    loop {
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = drain.signaled() => if !newest.has_changed().unwrap_or(false) { return },
        }
        let Some((set, revision)) = newest.borrow_and_update().clone() else { continue };
        let (file, keyring) = (last_good.clone(), keyring.clone());
        let begun = tokio::time::Instant::now();
        let saved = tokio::task::spawn_blocking(move || file.save(&set, revision, &keyring)).await;
        match saved {
            Ok(Ok(())) => tracing::debug!(revision, "last-good snapshot saved"),
            Ok(Err(error)) => tracing::error!(revision, %error, "the last-good snapshot can't be saved"),
            Err(error) => tracing::error!(revision, %error, "saving the last-good snapshot failed"),
        }
        tokio::select! {
            () = tokio::time::sleep(DEBOUNCE.max(begun.elapsed() * SHARE)) => {}
            () = drain.signaled() => {}
        }
    }
}
