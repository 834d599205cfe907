//! A node of the fleet, reduced to its configuration: subscribes, applies and compiles every push as a data plane does,
//! acknowledges it, and tells when. Fifty of them share the memory of what they have in common.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use nemo_proto::common::NodeInfo;
use nemo_proto::config::{
    Ack, Hello, Push, SubscribeRequest, config_service_client::ConfigServiceClient,
    subscribe_request::Message,
};
use nemo_proto::fleet::{RegisterRequest, fleet_service_client::FleetServiceClient};
use nemo_runtime::grpc::{MAX_MESSAGE_BYTES, NodeToken};
use nemo_snapshot::{Checksum, Delta, ResourceKey, ResourceSet, Snapshot, compile, recompile};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// What a node holds.
#[derive(Clone)]
pub(super) struct Held {
    set: Arc<ResourceSet>,
    snapshot: Arc<Snapshot>,
}

impl Held {
    pub(super) fn revision(&self) -> u64 {
        self.snapshot.revision
    }
}

/// A revision that a node has applied.
pub(super) struct Applied {
    pub(super) revision: u64,
    pub(super) at: Instant,
    pub(super) held: Held,
}

/// Follows the configuration from what it holds, until the stream ends or nobody listens any more.
pub(super) async fn follow(
    channel: Channel,
    token: NodeToken,
    number: usize,
    mut held: Option<Held>,
    applied: mpsc::Sender<Applied>,
) -> anyhow::Result<()> {
    let channel = InterceptedService::new(channel, token);
    let info = NodeInfo {
        node_id: format!("bench-{number}"),
        epoch: 1,
        version: "bench".into(),
        ..Default::default()
    };
    let register = RegisterRequest { info: Some(info.clone()), boot_id: String::new() };
    FleetServiceClient::new(channel.clone()).register(register).await?;

    let (answers, outgoing) = mpsc::channel(4);
    let (held_revision, checksum) =
        held.as_ref().map_or((0, Checksum::default()), |held| (held.snapshot.revision, held.set.checksum()));
    let held_checksum = Bytes::copy_from_slice(&checksum.to_bytes());
    let hello = Hello { info: Some(info), held_revision, held_checksum, ..Hello::default() };
    answers.send(SubscribeRequest { message: Some(Message::Hello(hello)) }).await?;
    let mut client = ConfigServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut pushes = client.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut delta = Delta::default();
    while let Some(push) = pushes.message().await? {
        let (nonce, revision, more) = (push.nonce, push.revision, push.more);
        if more {
            collect(&mut delta, push)?;
            continue;
        }
        let started = Instant::now();
        let base = (push.base_revision != 0).then(|| held.take()).flatten();
        let checksum = Checksum::from_bytes(&push.checksum).context("a checksum of another length")?;
        collect(&mut delta, push)?;
        let now = apply(base.as_ref(), &std::mem::take(&mut delta), revision)?;
        anyhow::ensure!(now.set.checksum() == checksum, "the sets differ at revision {revision}");
        held = Some(now.clone());
        let at = Instant::now();
        let apply_micros = u64::try_from((at - started).as_micros()).unwrap_or(u64::MAX);
        let ack = Ack { nonce, revision, applied: true, rejections: Vec::new(), apply_micros };
        answers.send(SubscribeRequest { message: Some(Message::Ack(ack)) }).await?;
        if applied.send(Applied { revision, at, held: now }).await.is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("the control plane ended the stream")
}

fn collect(delta: &mut Delta, push: Push) -> anyhow::Result<()> {
    for resource in push.upserts {
        delta.upsert(resource).map_err(|rejection| anyhow::anyhow!("{rejection}"))?;
    }
    for name in &push.removals {
        delta.remove(ResourceKey::from_name(name).context("a removal of an unknown kind")?);
    }
    Ok(())
}

fn apply(base: Option<&Held>, delta: &Delta, revision: u64) -> anyhow::Result<Held> {
    let mut set = base.map_or_else(ResourceSet::new, |base| base.set.as_ref().clone());
    set.apply(delta);
    let snapshot = match base {
        Some(base) => recompile(&base.snapshot, &base.set, &set, delta, revision),
        None => compile(&set, revision),
    };
    let snapshot = snapshot.map_err(|rejections| anyhow::anyhow!("{}", rejections[0]))?;
    Ok(Held { set: Arc::new(set), snapshot: Arc::new(snapshot) })
}
