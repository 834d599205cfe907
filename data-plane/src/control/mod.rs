//! Every conversation with the control plane: one channel, one session after the other, each with a config stream
//! and a usage stream. Nothing here is on a request's way; when the control plane is away, sessions are retried
//! with backoff and the node serves what it has (I4).

pub mod config_stream;
pub mod identity;
pub mod metrics;
pub mod saver;
pub mod usage_stream;

use std::{sync::Arc, time::Duration};

use nemo_proto::{
    common::NodeInfo,
    fleet::{RegisterRequest, RegisterResponse, fleet_service_client::FleetServiceClient},
};
use nemo_runtime::{TaskGroup, backoff::Backoff, drain::DrainWatcher, grpc::NodeToken};
use nemo_types::Keyring;
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use self::{config_stream::ConfigStream, metrics::ControlMetrics, saver::Saver, usage_stream::UsageStream};
use crate::{
    config::{apply::Applier, last_good::LastGood},
    usage::UsageBuffer,
};

/// A channel that carries the fleet's token.
pub type NodeChannel = InterceptedService<Channel, NodeToken>;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the conversations need.
pub struct Control {
    pub channel: Channel,
    pub token: NodeToken,
    pub info: NodeInfo,
    pub usage: UsageBuffer,
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
    tasks.spawn("control plane", async move { sessions(control, applier, saver, drain).await });
}

async fn sessions(control: Control, applier: Applier, saver: Saver, drain: DrainWatcher) {
    let Control { channel, token, info, usage, flush_deadline, metrics } = control;
    let channel = InterceptedService::new(channel, token);
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut config = ConfigStream::new(info.clone(), applier, saver, metrics.clone());
    let mut usage = UsageStream::new(info.clone(), usage, metrics.clone());
    let deadline = async {
        drain.signaled().await;
        tokio::time::sleep(flush_deadline).await;
    };
    tokio::pin!(deadline);
    loop {
        let session = async {
            let welcome = register(&channel, &info).await?;
            metrics.connected.set(1);
            tracing::info!("connected to the control plane");
            backoff.reset();
            tokio::select! {
                ended = config.run(&channel, &drain) => ended,
                ended = usage.run(&channel, &welcome, &drain) => ended,
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
            Ok(()) if drain.is_draining() && usage.waiting() == 0 => return,
            Ok(()) => {}
            Err(status) => tracing::warn!(
                code = ?status.code(),
                "no connection to the control plane, serving on with what is held: {}",
                status.message()
            ),
        }
        if drain.is_draining() && usage.waiting() == 0 {
            return;
        }
        // A node that stops tries once more at once: its last events wait.
        let pause = if drain.is_draining() { FIRST_RETRY } else { backoff.next_delay() };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = async { drain.signaled().await }, if !drain.is_draining() => {}
        }
    }
}

async fn register(channel: &NodeChannel, info: &NodeInfo) -> Result<RegisterResponse, tonic::Status> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut request =
        tonic::Request::new(RegisterRequest { info: Some(info.clone()), boot_id: boot_id.trim().into() });
    request.set_timeout(REGISTER_TIMEOUT);
    Ok(FleetServiceClient::new(channel.clone()).register(request).await?.into_inner())
}
