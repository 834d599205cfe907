//! Publishes revisions: reads what changed, applies it, compiles it, and only then shows it to the nodes (I5).
//!
//! One task per process runs [`Publisher::run`]; config streams read through [`Publisher::subscribe`] and
//! [`Publisher::update`]. A revision that does not compile is not published: the one before stays, an error says why, and
//! the next change is tried again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nemo_runtime::drain::DrainWatcher;
use nemo_snapshot::{
    Checksum, Delta, Rejection, Routing, Snapshot, compile,
    prover::{Finding, prove},
    recompile,
};
use tokio::sync::{Notify, watch};

use super::{
    builder::{self, Build},
    doubts,
    history::{History, Published, Update},
    metrics::PublishMetrics,
    recorder::Recorder,
};
use crate::store::Store;

/// Shortest time between two revisions: at most ten pushes per second, however many rows change.
const COALESCE: Duration = Duration::from_millis(100);
/// Rejections that are logged of one revision.
const LOGGED_REJECTIONS: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("reading the configuration: {0}")]
    Store(#[from] builder::BuildError),
    #[error("revision {revision} can't be served: {}", first(rejections))]
    Unpublishable { revision: u64, rejections: Vec<Rejection> },
    #[error("the compiler stopped unexpectedly")]
    Compiler,
}

fn first(rejections: &[Rejection]) -> String {
    let shown: Vec<_> = rejections.iter().take(LOGGED_REJECTIONS).map(ToString::to_string).collect();
    let more = rejections.len().saturating_sub(shown.len());
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

/// The newest revision, which can't be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublishable {
    /// What stays published.
    pub published: u64,
    pub revision: u64,
    /// Resources, fields and what is wrong with them.
    pub reason: String,
}

impl Unpublishable {
    /// Whether `revision` can't reach the nodes before somebody mends the configuration.
    pub fn holds_back(&self, revision: u64) -> bool {
        (self.published + 1..=self.revision).contains(&revision)
    }
}

pub struct Publisher {
    history: Mutex<History>,
    current: watch::Sender<Arc<Published>>,
    /// Newest compiled view, to compile only the sections that change.
    compiled: Mutex<Option<Snapshot>>,
    /// That of the newest compiled view.
    routing: Mutex<Arc<Routing>>,
    /// Newest revision that was read, published or not.
    database_revision: AtomicU64,
    /// Tickets of those who wait for a read that starts after they asked.
    wanted: AtomicU64,
    wake: Notify,
    served: watch::Sender<u64>,
    unpublishable: watch::Sender<Option<Unpublishable>>,
    metrics: PublishMetrics,
    recorder: Recorder,
    /// Findings that were logged and still hold.
    logged: Mutex<Vec<Finding>>,
}

impl Publisher {
    pub fn new(metrics: PublishMetrics) -> Self {
        Self {
            history: Mutex::default(),
            current: watch::Sender::new(Arc::default()),
            compiled: Mutex::default(),
            routing: Mutex::default(),
            database_revision: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            wake: Notify::new(),
            served: watch::Sender::new(0),
            unpublishable: watch::Sender::new(None),
            metrics,
            recorder: Recorder::default(),
            logged: Mutex::default(),
        }
    }

    /// The published revision, and every later one. Revision zero: nothing yet.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.current.subscribe()
    }

    /// The published deployments and the settings of routing.
    pub fn routing(&self) -> Arc<Routing> {
        lock(&self.routing).clone()
    }

    /// The newest revision while it can't be published.
    pub fn unpublishable(&self) -> watch::Receiver<Option<Unpublishable>> {
        self.unpublishable.subscribe()
    }

    /// What a node that holds this needs.
    pub fn update(&self, held_revision: u64, held_checksum: Option<Checksum>) -> Update {
        lock(&self.history).update(held_revision, held_checksum)
    }

    /// Newest revision that was seen in the database, published or not.
    pub fn database_revision(&self) -> u64 {
        self.database_revision.load(Ordering::Acquire)
    }

    /// Resolves when the database has been read by a read that began after this call. Waits while it is away.
    pub async fn caught_up(&self) {
        let ticket = self.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        let mut served = self.served.subscribe();
        self.wake.notify_one();
        // The sender lives in `self`, so the only end of the wait is success.
        let _ = served.wait_for(|served| *served >= ticket).await;
    }

    /// Reads what changed since the last revision, and publishes it.
    ///
    /// # Errors
    /// When the database can't be read or the revision does not compile; what was published stays.
    pub async fn refresh(&self, store: &Store) -> Result<(), PublishError> {
        let tickets = self.wanted.load(Ordering::Acquire);
        let held = lock(&self.history).published().revision;
        let build = builder::build(store, held).await.inspect_err(|_| self.metrics.failed_read())?;
        self.metrics.database_revision(build.revision);
        let seen = self.database_revision.swap(build.revision, Ordering::AcqRel);
        // What was refused before is not compiled again until something changes.
        let news = build.revision != held && (build.revision != seen || held == 0);
        let result = if news { self.publish_recorded(build, Some(store)).await } else { Ok(()) };
        self.served.send_modify(|served| *served = (*served).max(tickets));
        result
    }

    /// Publishes `build` if it compiles, without a trace in the history of the configuration.
    ///
    /// # Errors
    /// [`PublishError::Unpublishable`] with every reason.
    pub async fn publish(&self, build: Build) -> Result<(), PublishError> {
        self.publish_recorded(build, None).await
    }

    /// As [`Self::publish`], and what routing reads is recorded before a node can have it.
    async fn publish_recorded(&self, build: Build, store: Option<&Store>) -> Result<(), PublishError> {
        let Build { revision, base_revision, delta } = build;
        let base = lock(&self.history).published().clone();
        let published = base.revision;
        let follows = base_revision == published && base_revision != 0;
        let previous = lock(&self.compiled).take().filter(|_| follows);
        let keep = previous.clone();
        let work = move || {
            let mut set = if follows { base.set.clone() } else { nemo_snapshot::ResourceSet::default() };
            set.apply(&delta);
            let snapshot = match &previous {
                Some(previous) => recompile(previous, &base.set, &set, &delta, revision),
                None => compile(&set, revision),
            };
            // Only where routing was compiled again.
            let proved = snapshot.as_ref().ok().filter(|snapshot| {
                previous.as_ref().is_none_or(|it| !Arc::ptr_eq(&it.routing, &snapshot.routing))
            });
            let findings = proved.map(|snapshot| prove(&set, &snapshot.routing));
            (snapshot, set, delta, findings)
        };
        // Tens of milliseconds for a large set: not on a thread that answers nodes.
        let joined = tokio::task::spawn_blocking(work).await;
        let (snapshot, set, delta, findings) = joined.map_err(|_| PublishError::Compiler)?;
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(rejections) => {
                *lock(&self.compiled) = keep;
                self.metrics.unpublishable();
                let reason = first(&rejections);
                self.unpublishable.send_replace(Some(Unpublishable { published, revision, reason }));
                return Err(PublishError::Unpublishable { revision, rejections });
            }
        };
        *lock(&self.routing) = snapshot.routing.clone();
        *lock(&self.compiled) = Some(snapshot);
        if let Some(findings) = findings {
            self.metrics.findings(&findings);
            doubts::log(&mut lock(&self.logged), revision, findings);
        }
        if let Some(store) = store {
            self.recorder.record(store, revision, follows.then_some(&delta), &set).await;
        }
        self.show(Arc::new(Published::new(revision, set)), follows.then_some(delta));
        Ok(())
    }

    fn show(&self, next: Arc<Published>, delta: Option<Delta>) {
        self.metrics.published(&next);
        self.unpublishable.send_replace(None);
        tracing::info!(
            revision = next.revision,
            resources = next.set.len(),
            changed =
                delta.as_ref().map_or(next.set.len(), |delta| delta.upserts.len() + delta.removals.len()),
            "published"
        );
        let mut history = lock(&self.history);
        match delta {
            Some(delta) => history.advance(next.clone(), delta),
            None => history.restart(next.clone()),
        }
        drop(history);
        self.current.send_replace(next);
    }

    /// Follows the database until drain.
    pub async fn run(self: Arc<Self>, store: Store, drain: DrainWatcher) {
        let mut changes = store.watch_config();
        loop {
            tokio::select! {
                () = drain.signaled() => return,
                () = changes.changed() => {}
                () = self.wake.notified() => {}
            }
            match self.refresh(&store).await {
                Ok(()) => {}
                Err(error @ PublishError::Store(_)) => {
                    tracing::warn!(%error, "keeping the published revision until the database answers");
                }
                Err(error) => tracing::error!(%error, "keeping the published revision until the next change"),
            }
            tokio::select! {
                () = drain.signaled() => return,
                () = tokio::time::sleep(COALESCE) => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is replaced whole, so a panic elsewhere can't leave it half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
