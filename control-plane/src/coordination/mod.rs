//! What the replicas of the control plane agree on beside the database: small values that come and go. Cooldowns, who
//! leads a job, which nodes live. Nothing here is needed to serve a request or an admin call (I11).
//!
//! - [`Coordinator`]: the six things that can be done; one contract suite runs against every implementation
//! - [`etcd`]: for installations with several replicas; [`local`]: in this process, for one
//! - [`election`]: jobs that one replica should do; [`membership`]: which nodes live
//!
//! Keys: `/nemo/cooldown/<org or *>/<deployment>`, `/nemo/suspect/<org>/<deployment>/<node>`, `/nemo/leader/<job>`,
//! `/nemo/nodes/<id>`. Values live as long as their time to live, and no time of day is in them.

#[cfg(test)]
mod contract;
pub mod election;
pub mod etcd;
pub mod local;
pub mod membership;
pub mod metrics;

use std::{fmt, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

pub use election::{Election, Role};
pub use etcd::{EtcdCoordinator, EtcdSettings};
pub use local::LocalCoordinator;
pub use metrics::CoordinationMetrics;

/// How long a leader, or a member, counts after its replica was last heard of.
pub const HOLD_TTL: Duration = Duration::from_secs(10);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// When it was last written, on the coordinator's count of writes.
    pub revision: u64,
    /// What is left of its time to live; `None`: it stays until it is deleted.
    pub ttl_left: Option<Duration>,
}

/// What there is below a prefix, as of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<Entry>,
    pub revision: u64,
}

/// What a write wants to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    /// Last written at that revision.
    Revision(u64),
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    Done {
        revision: u64,
    },
    /// Nothing was written; what is there instead.
    Conflict(Option<Entry>),
}

/// Something happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    /// By somebody, or because its time was over.
    Deleted {
        key: String,
        revision: u64,
    },
}

/// The coordinator can't be asked now. Try again later, and go on without it until then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator does not answer: {0}")]
pub struct Unavailable(pub String);

/// Why no more events come. In either case: list again, and watch from there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("events between here and there are forgotten")]
    Compacted,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Events below a prefix, in order and without gaps.
#[tonic::async_trait]
pub trait Watch: Send + fmt::Debug {
    /// The next events; at least one. May be dropped and called again.
    async fn next(&mut self) -> Result<Vec<Event>, Ended>;
}

/// See the module.
#[tonic::async_trait]
pub trait Coordinator: Send + Sync + fmt::Debug + 'static {
    /// What there is below `prefix`.
    async fn list(&self, prefix: &str) -> Result<Listing, Unavailable>;

    /// Writes a value if what it expects is there. Fractions of a second of `ttl` may be rounded up.
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        expect: Expect,
    ) -> Result<Put, Unavailable>;

    /// Deletes a key if what it expects is there; true when it did.
    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Unavailable>;

    /// What happens below `prefix` after `revision`.
    async fn watch(&self, prefix: &str, revision: u64) -> Result<Box<dyn Watch>, Unavailable>;

    /// Writes a key that nobody else has, and keeps it for as long as the handle lives; `None`: somebody has it. When
    /// the process dies, it goes after `ttl`.
    async fn hold(&self, key: &str, value: Bytes, ttl: Duration) -> Result<Option<Hold>, Unavailable>;

    /// Waits until `candidate` leads the job. At most one does at a time, except for as long as a lost leader needs to
    /// notice.
    async fn campaign(&self, job: &str, candidate: &str) -> Result<Hold, Unavailable> {
        let key = leader_key(job);
        loop {
            let value = Bytes::copy_from_slice(candidate.as_bytes());
            if let Some(hold) = self.hold(&key, value, HOLD_TTL).await? {
                return Ok(hold);
            }
            let listing = self.list(&key).await?;
            if listing.entries.iter().any(|entry| entry.key == key) {
                wait_for_end(self.watch(&key, listing.revision).await?, &key).await?;
            }
        }
    }
}

async fn wait_for_end(mut watch: Box<dyn Watch>, key: &str) -> Result<(), Unavailable> {
    loop {
        match watch.next().await {
            Ok(events) => {
                let gone = |event: &Event| matches!(event, Event::Deleted { key: it, .. } if it == key);
                if events.iter().any(gone) {
                    return Ok(());
                }
            }
            Err(Ended::Compacted) => return Ok(()),
            Err(Ended::Unavailable(error)) => return Err(error),
        }
    }
}

/// Where the leader of a job is found.
pub fn leader_key(job: &str) -> String {
    format!("/nemo/leader/{job}")
}

/// A key that is ours. Dropping it gives it back.
pub struct Hold {
    lost: watch::Receiver<bool>,
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Hold {
    fn new(lost: watch::Receiver<bool>, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { lost, release: Some(Box::new(release)) }
    }

    /// Whether it may be somebody else's by now.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow() || self.lost.has_changed().is_err()
    }

    /// Resolves when it may be somebody else's.
    pub async fn lost(&mut self) {
        // Whoever kept it is gone: nobody keeps it.
        let _ = self.lost.wait_for(|lost| *lost).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("lost", &*self.lost.borrow()).finish_non_exhaustive()
    }
}
