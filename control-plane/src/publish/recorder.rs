//! Keeps what routing reads of every published revision, so that a logged decision can be made again. Called by the
//! publisher, before it shows a revision to the nodes.
//!
//! A history that can't be written holds nothing up: the revision is published without it, an error says so, and the
//! next one is recorded whole.

use std::sync::atomic::{AtomicBool, Ordering};

use nemo_proto::config::{Kind, Resource, resource};
use nemo_snapshot::{Delta, Item, ResourceKey, ResourceSet};
use prost::Message as _;

use crate::store::{
    Store, StoreError,
    config_history::{HistoryRow, Recording},
};

/// What compiling the routing of a revision needs, but for credentials.
const KINDS: [Kind; 5] = [Kind::Organization, Kind::Deployment, Kind::Model, Kind::ModelGroup, Kind::Setting];
/// Families of settings that routing reads. Others are nobody's business here.
const SETTINGS: [&str; 2] = ["routing.", "cooldown."];

/// Writes the history of the configuration.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// The revision before is in the history, so what changed since is enough.
    continues: AtomicBool,
}

impl Recorder {
    /// Records a revision; `delta` leads to it from the one that was published before.
    pub(super) async fn record(
        &self,
        store: &Store,
        revision: u64,
        delta: Option<&Delta>,
        set: &ResourceSet,
    ) {
        let delta = delta.filter(|_| self.continues.load(Ordering::Acquire));
        let recorded = try_record(store, revision, delta, set).await;
        self.continues.store(recorded.is_ok(), Ordering::Release);
        if let Err(error) = recorded {
            tracing::error!(%error, revision,
                "the history of the configuration lacks a revision; decisions made with it can't be replayed");
        }
    }
}

async fn try_record(
    store: &Store,
    revision: u64,
    delta: Option<&Delta>,
    set: &ResourceSet,
) -> Result<(), StoreError> {
    if store.is_recorded(revision).await? {
        return Ok(());
    }
    let (whole, rows) = match delta {
        Some(delta) => (false, changed(delta)),
        None => (true, everything(set)),
    };
    store.record_config(Recording { revision, whole, rows }).await
}

fn everything(set: &ResourceSet) -> Vec<HistoryRow> {
    let items = KINDS.into_iter().flat_map(|kind| set.items(kind));
    items.filter_map(|item| row(&ResourceKey::of(&item.decode())?, Some(item))).collect()
}

fn changed(delta: &Delta) -> Vec<HistoryRow> {
    let upserts = delta.upserts.iter().filter_map(|(key, item)| row(key, Some(item)));
    upserts.chain(delta.removals.iter().filter_map(|key| row(key, None))).collect()
}

/// `None` for what routing does not read.
fn row(key: &ResourceKey, item: Option<&Item>) -> Option<HistoryRow> {
    if !KINDS.contains(&key.kind) {
        return None;
    }
    let resource = match item {
        Some(item) => Some(without_secrets(item.decode())?.encode_to_vec()),
        None => None,
    };
    Some(HistoryRow { kind: i16::try_from(key.kind as i32).ok()?, id: key.id.to_vec(), resource })
}

/// `None` for a setting that routing does not read.
fn without_secrets(mut resource: Resource) -> Option<Resource> {
    match &mut resource.kind {
        Some(resource::Kind::Deployment(deployment)) => deployment.credential_id.clear(),
        Some(resource::Kind::Setting(setting)) => {
            SETTINGS.iter().find(|family| setting.key.starts_with(**family))?;
        }
        _ => {}
    }
    Some(resource)
}

#[cfg(test)]
mod tests;
