//! Wires a node: settings in, bound ports out. The binaries and the tests start it the same way.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use nemo_proto::common::NodeInfo;
use nemo_runtime::{
    TaskGroup,
    drain::{self, DrainWatcher},
    grpc::NodeToken,
    http_server::{self, ServerSettings},
    inproc,
    metrics::Registry,
    ops_server,
    readiness::Readiness,
};
use nemo_types::Keyring;
use tonic::transport::Channel;

use crate::{
    config::{Settings, SnapshotHandle, apply::Applier, last_good::LastGood},
    control::{self, identity},
    edge,
    pipeline::{context::Sinks, metrics::Metrics},
    upstream::UpstreamClient,
    usage::{CAPACITY, UsageBuffer},
};

/// What a request needs of its node.
pub struct State {
    pub settings: Settings,
    pub snapshot: SnapshotHandle,
    pub upstream: UpstreamClient,
    pub sinks: Arc<Sinks>,
}

/// How to reach the control plane.
pub enum ControlEndpoint {
    /// Over the network, with the fleet's token.
    Address { uri: String, authority: Option<std::path::PathBuf>, token: NodeToken },
    /// In this process.
    InProcess(inproc::Connector),
}

/// A running node.
pub struct Bound {
    pub data_addr: SocketAddr,
    pub ops_addr: SocketAddr,
    pub node_id: String,
    pub snapshot: SnapshotHandle,
    tasks: TaskGroup,
    settings: Settings,
}

impl Bound {
    /// Waits until the drain is over: requests finished, usage shipped, or their deadlines reached.
    pub async fn join(self) {
        let patience = self.settings.drain_deadline() + self.settings.flush_deadline();
        let late = self.tasks.join(patience + std::time::Duration::from_secs(5)).await;
        if !late.is_empty() {
            tracing::warn!(tasks = ?late, "stopped at the drain deadline");
        }
    }
}

/// Starts a node. It serves as soon as it has a snapshot: from disk at once, else from the control plane.
///
/// # Errors
/// When a port is taken, the data directory can't be used, or the control plane's address is malformed.
pub async fn start(
    settings: Settings,
    endpoint: ControlEndpoint,
    keyring: Arc<Keyring>,
    drain: DrainWatcher,
) -> anyhow::Result<Bound> {
    let (channel, token) = channel(endpoint)?;
    let identity = identity::load(&settings.data_dir)
        .with_context(|| format!("the data directory {} can't be used", settings.data_dir.display()))?;
    let data = http_server::bind(settings.listen, "--listen")?;
    let ops = http_server::bind(settings.ops_listen, "--ops-listen")?;
    let (data_addr, ops_addr) = (data.local_addr()?, ops.local_addr()?);

    let (registry, readiness, tasks) = (Registry::new(), Readiness::new(), TaskGroup::new());
    let usage = UsageBuffer::new(CAPACITY);
    let metrics = registry.register(Metrics::register);
    let snapshot = SnapshotHandle::default();
    let upstream = UpstreamClient::new(settings.connect_timeout()).context("TLS can't be set up")?;
    let state = Arc::new(State {
        snapshot: snapshot.clone(),
        upstream: upstream.clone(),
        sinks: Arc::new(Sinks {
            usage: usage.clone(),
            metrics,
            max_in_flight: settings.max_in_flight.into(),
        }),
        settings: settings.clone(),
    });

    let last_good = LastGood::open(&settings.data_dir.join("snapshot"))
        .with_context(|| format!("the data directory {} can't be used", settings.data_dir.display()))?;
    let mut applier = Applier::new(snapshot.clone(), keyring.clone(), upstream.clone());
    restore(&mut applier, &last_good, &keyring);
    readiness_of_snapshot(&tasks, &readiness, &snapshot);

    // Control streams outlive the data port: the last events are made by the last requests.
    let (after, flushing) = drain::channel();
    let info = NodeInfo {
        node_id: identity.node_id.clone(),
        epoch: identity.epoch,
        version: env!("CARGO_PKG_VERSION").into(),
        schema_version: nemo_proto::SCHEMA_VERSION,
        zone: settings.zone.clone(),
    };
    let control = control::Control {
        channel,
        token,
        info,
        usage,
        flush_deadline: settings.flush_deadline(),
        metrics: registry.register(control::metrics::ControlMetrics::register),
    };
    control::spawn(&tasks, control, applier, (last_good, keyring), &flushing);
    let ops_drain = flushing.clone();
    let ops_readiness = readiness.clone();
    tasks.spawn("ops port", async move { ops_server::serve(ops, ops_readiness, registry, ops_drain).await });
    let server =
        ServerSettings { drain_deadline: settings.drain_deadline(), ..ServerSettings::named("data") };
    let service = edge::service(state);
    tasks.spawn("data port", async move {
        let watcher = drain.clone();
        let unready = async {
            watcher.signaled().await;
            readiness.set_draining();
        };
        tokio::join!(http_server::serve(data, service, server, drain), unready);
        upstream.close().await;
        after.start();
    });
    tracing::info!(address = %data_addr, node = identity.node_id, "data port open");
    Ok(Bound { data_addr, ops_addr, node_id: identity.node_id, snapshot, tasks, settings })
}

fn channel(endpoint: ControlEndpoint) -> anyhow::Result<(Channel, NodeToken)> {
    Ok(match endpoint {
        ControlEndpoint::Address { uri, authority, token } => {
            (nemo_runtime::grpc::channel(&uri, authority.as_deref())?, token)
        }
        ControlEndpoint::InProcess(connector) => {
            (nemo_runtime::grpc::in_process_channel(connector), NodeToken::none())
        }
    })
}

/// I4: what was served last is served again, whoever else is away.
fn restore(applier: &mut Applier, last_good: &LastGood, keyring: &Keyring) {
    let found = last_good.load(keyring, |path, reason| {
        tracing::warn!(path = %path.display(), %reason, "a last-good snapshot can't be used");
    });
    let Some((set, revision)) = found else { return };
    match applier.restore(set, revision) {
        Ok(()) => tracing::info!(revision, "serving the last-good snapshot until the control plane answers"),
        Err(rejections) => {
            let reason = rejections.first().map(ToString::to_string);
            tracing::warn!(revision, reason, "the last-good snapshot does not compile any more");
        }
    }
}

fn readiness_of_snapshot(tasks: &TaskGroup, readiness: &Readiness, snapshot: &SnapshotHandle) {
    let (guard, mut revision) = (readiness.register("snapshot"), snapshot.revision());
    tasks.spawn("readiness", async move {
        let _ = revision.wait_for(Option::is_some).await;
        guard.ready();
    });
}
