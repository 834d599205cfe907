//! Every conversation with the control plane: one session after the other with any of its replicas, each with a config
//! stream, a revocation stream, a cooldown stream, a quota stream and a usage stream. Nothing here is on a request's way; when no replica answers,
//! sessions are retried with backoff and the node serves what it has (I4).

pub mod config_stream;
pub mod cooldown_stream;
pub mod identity;
pub mod metrics;
pub mod quota_stream;
pub mod revocation_stream;
pub mod saver;
pub mod usage_stream;

use std::{sync::Arc, time::Duration};

use nemo_proto::{
    common::NodeInfo,
    fleet::{RegisterRequest, RegisterResponse, fleet_service_client::FleetServiceClient},
};
use nemo_runtime::{TaskGroup, backoff::Backoff, drain::DrainWatcher, grpc::NodeToken};
use nemo_types::Keyring;
use tokio_util::sync::CancellationToken;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use self::{
    config_stream::ConfigStream, cooldown_stream::CooldownStream, metrics::ControlMetrics,
    quota_stream::QuotaStream, revocation_stream::RevocationStream, saver::Saver, usage_stream::UsageStream,
};
use crate::{
    config::{SnapshotHandle, apply::Applier, last_good::LastGood},
    health::HealthBoard,
    quota::QuotaTable,
    usage::Journal,
};

/// A channel that carries the fleet's token.
pub type NodeChannel = InterceptedService<Channel, NodeToken>;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the last session may take: a node that is not heard of any more is waited for, needlessly.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long the control plane may take to hear that leases are handed back.
const HAND_BACK: Duration = Duration::from_secs(2);

/// What the conversations need.
pub struct Control {
    /// One per replica of the control plane; at least one.
    pub channels: Vec<Channel>,
    pub token: NodeToken,
    pub info: NodeInfo,
    pub snapshot: SnapshotHandle,
    pub health: HealthBoard,
    pub quota: QuotaTable,
    pub journal: Journal,
    pub flush_deadline: Duration,
    pub metrics: ControlMetrics,
}

/// Starts the tasks. They end after `drain`, when usage is shipped or its deadline has passed.
pub fn spawn(
    tasks: &TaskGroup,
    control: Control,
    applier: Applier,
    (last_good, keyring): (LastGood, Arc<Keyring>),
    drain: &DrainWatcher,
) {
    let saver = Saver::new();
    let (sets, saver_drain) = (saver.subscribe(), drain.clone());
    tasks.spawn("last-good", saver::run(sets, last_good, keyring, saver_drain));
    let drain = drain.clone();
    tasks.spawn("control plane", async move {
        let journal = control.journal.clone();
        sessions(control, applier, saver, drain).await;
        journal.finish();
    });
}

async fn sessions(control: Control, applier: Applier, saver: Saver, drain: DrainWatcher) {
    let Control { channels, token, info, snapshot, health, quota, journal, flush_deadline, metrics } =
        control;
    let mut replicas = Replicas::new(channels, &token);
    let revocations = RevocationStream::new(info.clone(), snapshot, metrics.clone());
    let cooldowns = CooldownStream::new(info.clone(), health);
    let quotas = QuotaStream::new(info.clone(), quota.clone(), journal.clone());
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut config = ConfigStream::new(info.clone(), applier, saver, metrics.clone());
    let mut usage = UsageStream::new(info.clone(), journal, metrics.clone());
    let deadline = async {
        drain.signaled().await;
        tokio::time::sleep(flush_deadline).await;
    };
    tokio::pin!(deadline);
    loop {
        let Some(channel) = replicas.current() else { return };
        let session = async {
            let welcome = register(channel, &info).await?;
            metrics.connected.set(1);
            tracing::info!("connected to the control plane");
            backoff.reset();
            let (shipped, handed_back) = (CancellationToken::new(), CancellationToken::new());
            let shipping = async {
                let ended = usage.run(channel, &welcome, &drain).await;
                if ended.is_ok() && drain.is_draining() && usage.waiting() == 0 {
                    // What is not handed back is locked until it expires.
                    let _ = tokio::time::timeout(HAND_BACK, handed_back.cancelled()).await;
                    // The goodbye must have arrived before the connection goes: the server's end of its stream says so.
                    shipped.cancel();
                    tokio::time::sleep(GOODBYE).await;
                }
                ended
            };
            tokio::select! {
                ended = config.run(channel, &welcome, &drain, &shipped) => ended,
                ended = revocations.run(channel) => ended,
                ended = cooldowns.run(channel) => ended,
                ended = quotas.run(channel, &drain, &handed_back) => ended,
                ended = shipping => ended,
            }
        };
        let ended = tokio::select! {
            ended = session => ended,
            () = &mut deadline => {
                tracing::warn!(events = usage.waiting(), "usage events were not shipped before the deadline");
                return;
            }
        };
        metrics.connected.set(0);
        match ended {
            Ok(()) if drain.is_draining() && usage.waiting() == 0 && quota.is_empty() => return,
            Ok(()) => {}
            Err(status) => tracing::warn!(
                code = ?status.code(),
                "no connection to the control plane, serving on with what is held: {}",
                status.message()
            ),
        }
        if drain.is_draining() && usage.waiting() == 0 && quota.is_empty() {
            return;
        }
        // Whatever ended this session, another replica may be better off.
        replicas.next();
        // A node that stops tries once more at once: its last events wait.
        let pause = if drain.is_draining() { FIRST_RETRY } else { backoff.next_delay() };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = async { drain.signaled().await }, if !drain.is_draining() => {}
        }
    }
}

/// The replicas of the control plane, in turn. Nodes begin at different ones, so that the load is spread.
struct Replicas {
    channels: Vec<NodeChannel>,
    at: usize,
}

impl Replicas {
    fn new(channels: Vec<Channel>, token: &NodeToken) -> Self {
        let at = fastrand::usize(..channels.len().max(1));
        let channels =
            channels.into_iter().map(|channel| InterceptedService::new(channel, token.clone())).collect();
        Self { channels, at }
    }

    fn current(&self) -> Option<&NodeChannel> {
        self.channels.get(self.at % self.channels.len().max(1))
    }

    fn next(&mut self) {
        self.at = self.at.wrapping_add(1);
    }
}

async fn register(channel: &NodeChannel, info: &NodeInfo) -> Result<RegisterResponse, tonic::Status> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut request =
        tonic::Request::new(RegisterRequest { info: Some(info.clone()), boot_id: boot_id.trim().into() });
    request.set_timeout(REGISTER_TIMEOUT);
    Ok(FleetServiceClient::new(channel.clone()).register(request).await?.into_inner())
}
