//! Push → set → compile → swap, whole or not at all (I5). Called by the config stream, and once at start with the
//! last-good file.

use std::sync::Arc;

use nemo_proto::config::Push;
use nemo_snapshot::{Checksum, Delta, Rejection, ResourceKey, ResourceSet, compile, recompile};
use nemo_types::Keyring;

use super::{Live, SnapshotHandle};
use crate::upstream::UpstreamClient;

/// The resource set that this node holds, and the only writer of the [`SnapshotHandle`].
pub struct Applier {
    handle: SnapshotHandle,
    keyring: Arc<Keyring>,
    client: UpstreamClient,
    held: Arc<ResourceSet>,
    revision: u64,
    /// Chunks of a push whose last one has not come yet.
    pending: Option<Pending>,
}

struct Pending {
    nonce: u64,
    base_revision: u64,
    delta: Delta,
}

/// Largest set that a node takes, in resources; a full push beyond it is refused before memory runs out.
pub const MAX_RESOURCES: usize = 5_000_000;

impl Applier {
    pub fn new(handle: SnapshotHandle, keyring: Arc<Keyring>, client: UpstreamClient) -> Self {
        Self { handle, keyring, client, held: Arc::default(), revision: 0, pending: None }
    }

    /// Revision and checksum of what is held; revision 0: nothing.
    pub fn held(&self) -> (u64, Checksum) {
        (self.revision, self.held.checksum())
    }

    pub fn set(&self) -> Arc<ResourceSet> {
        self.held.clone()
    }

    /// Forgets the chunks of a push that broke off with its stream.
    pub fn reset(&mut self) {
        self.pending = None;
    }

    /// Takes one message. `Ok(true)`: a revision was applied; `Ok(false)`: more chunks are to come.
    ///
    /// # Errors
    /// Why the push can't be served. Nothing has changed then.
    pub fn push(&mut self, push: Push) -> Result<bool, Vec<Rejection>> {
        let refuse = |field: &str, message: String| vec![Rejection::new(None, field, message)];
        if push.min_schema_version > nemo_proto::SCHEMA_VERSION {
            self.pending = None;
            let ours = nemo_proto::SCHEMA_VERSION;
            let message = format!("needs schema {}, this node understands {ours}", push.min_schema_version);
            return Err(refuse("min_schema_version", message));
        }
        let (revision, checksum, more) = (push.revision, push.checksum.clone(), push.more);
        self.collect(push)?;
        if more {
            return Ok(false);
        }
        let Some(Pending { base_revision, delta, .. }) = self.pending.take() else { return Ok(false) };
        let checksum =
            Checksum::from_bytes(&checksum).ok_or_else(|| refuse("checksum", "not 16 bytes".into()))?;
        if base_revision != 0 && base_revision != self.revision {
            let message = format!("relative to revision {base_revision}, this node holds {}", self.revision);
            return Err(refuse("base_revision", message));
        }
        let mut set = if base_revision == 0 { ResourceSet::new() } else { self.held.as_ref().clone() };
        set.apply(&delta);
        if set.checksum() != checksum {
            return Err(refuse("checksum", "differs from that of the set it should lead to".into()));
        }
        self.swap(set, (base_revision != 0).then_some(&delta), revision)?;
        Ok(true)
    }

    /// Serves a whole set, as read from disk.
    ///
    /// # Errors
    /// Why it can't be served. Nothing has changed then.
    pub fn restore(&mut self, set: ResourceSet, revision: u64) -> Result<(), Vec<Rejection>> {
        self.swap(set, None, revision)
    }

    fn collect(&mut self, push: Push) -> Result<(), Vec<Rejection>> {
        let same = self.pending.as_ref().is_some_and(|pending| pending.nonce == push.nonce);
        if !same {
            let (nonce, base_revision) = (push.nonce, push.base_revision);
            self.pending = Some(Pending { nonce, base_revision, delta: Delta::default() });
        }
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let mut outcome = Ok(());
        for resource in push.upserts {
            outcome = outcome.and_then(|()| pending.delta.upsert(resource));
        }
        for name in &push.removals {
            // Kinds of a newer control plane were never held here.
            if let Some(key) = ResourceKey::from_name(name) {
                pending.delta.remove(key);
            }
        }
        if pending.delta.upserts.len() > MAX_RESOURCES {
            outcome = Err(Rejection::new(None, "upserts", format!("more than {MAX_RESOURCES} resources")));
        }
        outcome.map_err(|rejection| {
            self.pending = None;
            vec![rejection]
        })
    }

    fn swap(&mut self, set: ResourceSet, delta: Option<&Delta>, revision: u64) -> Result<(), Vec<Rejection>> {
        let live = self.handle.load();
        let snapshot = match (live.as_deref(), delta) {
            (Some(live), Some(delta)) => recompile(&live.snapshot, &self.held, &set, delta, revision)?,
            _ => compile(&set, revision)?,
        };
        self.handle.store(Live::prepare(snapshot, live.as_deref(), &self.keyring, &self.client)?);
        self.held = Arc::new(set);
        self.revision = revision;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
