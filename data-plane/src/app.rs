//! Wires a node: settings in, bound ports out. The binaries and the tests start it the same way.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use nemo_proto::common::NodeInfo;
use nemo_runtime::{
    TaskGroup,
    drain::{self, DrainWatcher},
    grpc::{self, NodeToken},
    http_server::{self, ServerSettings},
    inproc,
    metrics::Registry,
    ops_server,
    otlp::Otlp,
    readiness::Readiness,
    tls::{ClientTls, Identity, ServerTls},
};
use nemo_types::Keyring;
use tonic::transport::Channel;

use crate::{
    config::{Settings, SnapshotHandle, apply::Applier, last_good::LastGood},
    control::{self, identity},
    drain as phases, edge,
    fetch::Fetcher,
    health::{self, HealthBoard, HealthMetrics},
    pipeline::{context::Sinks, metrics::Metrics, telemetry::Telemetry},
    quota::{Clock, QuotaMetrics, QuotaTable},
    requests::Lookup,
    upstream::UpstreamClient,
    usage::{
        Journal,
        journal::{self, Directory, Limits, MEMORY, Recovered, SEGMENT, Writer},
    },
};

/// What a request needs of its node.
pub struct State {
    pub settings: Settings,
    pub snapshot: SnapshotHandle,
    pub upstream: UpstreamClient,
    pub fetcher: Fetcher,
    pub health: HealthBoard,
    pub quota: QuotaTable,
    /// The request log, for clients.
    pub lookup: Lookup,
    pub sinks: Arc<Sinks>,
}

/// How to reach the control plane.
pub enum ControlEndpoint {
    /// Over the network, with the fleet's token.
    Address {
        /// Of every replica, separated by commas.
        uri: String,
        authority: Option<std::path::PathBuf>,
        /// The node's own certificate, for control planes that ask for one.
        identity: Identity,
        token: NodeToken,
    },
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
        let settings = &self.settings;
        let patience = settings.drain_notice() + settings.drain_deadline() + settings.flush_deadline();
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
    settings.check_plaintext()?;
    let (data_tls, ops_tls) =
        (ServerTls::load(&settings.tls, None)?, ServerTls::load(&settings.ops_tls, None)?);
    let (channels, token, control_tls) = channels(endpoint, settings.allow_plaintext)?;
    let identity = identity::load(&settings.data_dir)
        .with_context(|| format!("the data directory {} can't be used", settings.data_dir.display()))?;
    let journal = open_journal(&settings, identity.epoch)?;
    let data = http_server::bind(settings.listen, "--listen")?;
    let ops = http_server::bind(settings.ops_listen, "--ops-listen")?;
    let (data_addr, ops_addr) = (data.local_addr()?, ops.local_addr()?);

    let (registry, readiness, tasks) = (Registry::new(), Readiness::new(), TaskGroup::new());
    let metrics = registry.register(Metrics::register);
    let snapshot = SnapshotHandle::default();
    let upstream = UpstreamClient::new(upstream_authority(&settings))
        .context("TLS to upstreams can't be set up")?
        .with_organization_networks(&settings.organization_networks);
    let health = HealthBoard::new(registry.register(HealthMetrics::register));
    let quota = QuotaTable::new(Clock::monotonic(), registry.register(QuotaMetrics::register));
    let otlp = Otlp::start(&settings.otlp, "nemo-data-plane", &identity.node_id)?;
    let state = Arc::new(State {
        snapshot: snapshot.clone(),
        upstream: upstream.clone(),
        fetcher: Fetcher::new(
            upstream.tls_http1(),
            settings.fetch_networks.clone(),
            settings.max_fetch_bytes,
        ),
        health: health.clone(),
        quota: quota.clone(),
        lookup: Lookup::new(&channels, &token),
        sinks: Arc::new(Sinks {
            journal: journal.clone(),
            metrics,
            telemetry: otlp.map(Telemetry::new),
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
        channels,
        token,
        info,
        snapshot: snapshot.clone(),
        health: health.clone(),
        quota,
        journal,
        flush_deadline: settings.flush_deadline(),
        metrics: registry.register(control::metrics::ControlMetrics::register),
    };
    control::spawn(&tasks, control, applier, (last_good, keyring), &flushing);
    tasks.spawn("health", health::run(health, flushing.clone()));
    let ops_drain = flushing.clone();
    flush_telemetry(&tasks, &state.sinks, flushing.clone());
    watch_certificates(&tasks, [&data_tls, &ops_tls], control_tls, &flushing);
    fetch_tokens(&tasks, &upstream, &settings, &flushing)?;
    let ops_serving = ops_server::serve_with(ops, ops_tls, readiness.clone(), registry, ops_drain);
    tasks.spawn("ops port", ops_serving);
    let server = ServerSettings {
        drain_deadline: settings.drain_deadline(),
        max_connections: settings.max_connections,
        write: settings.write_timeout(),
        ..ServerSettings::named("data")
    };
    let edge = edge::Edge::new(state);
    let notice = settings.drain_notice();
    tasks.spawn("data port", async move {
        let make = move |other_side| edge.clone().connection(&other_side);
        let port = |closing| http_server::serve_each(data, data_tls, make, server, closing);
        phases::run_port(port, drain, readiness, notice, data_addr).await;
        upstream.close().await;
        after.start();
    });
    tracing::info!(address = %data_addr, node = identity.node_id, "data port open");
    Ok(Bound { data_addr, ops_addr, node_id: identity.node_id, snapshot, tasks, settings })
}

/// Takes over what earlier processes have left, and begins an epoch.
fn open_journal(settings: &Settings, epoch: u64) -> anyhow::Result<Journal> {
    let dir = settings.data_dir.join("journal");
    let refused = || format!("the usage journal in {} can't be used", dir.display());
    let limits = Limits { segment: SEGMENT, max: settings.journal.max_bytes, memory: MEMORY };
    let writer = Writer { epoch, boot_id: journal::boot_id() };
    let storage = Arc::new(Directory::open(&dir).with_context(refused)?);
    let (journal, recovered) = Journal::open(storage, limits, writer).with_context(refused)?;
    journal.keep(std::time::Duration::from_millis(settings.journal.sync_ms.max(1))).with_context(refused)?;
    for Recovered { epoch, events, lost, torn, damaged, exact } in recovered {
        match exact {
            true if events + lost == 0 => tracing::debug!(epoch, "an earlier process left nothing to ship"),
            true => tracing::info!(epoch, events, lost, torn, "shipping what an earlier process left"),
            false => tracing::warn!(
                epoch,
                events,
                lost,
                torn,
                damaged,
                "shipping what is left of an earlier process: part of it may be missing"
            ),
        }
    }
    Ok(journal)
}

/// One for each replica of the control plane.
fn channels(
    endpoint: ControlEndpoint,
    allow_plaintext: bool,
) -> anyhow::Result<(Vec<Channel>, NodeToken, Option<ClientTls>)> {
    Ok(match endpoint {
        ControlEndpoint::Address { uri, authority, identity, token } => {
            let tls = authority.map(|path| ClientTls::load(path, &identity)).transpose()?;
            let mut channels = Vec::new();
            for uri in uri.split(',').map(str::trim).filter(|uri| !uri.is_empty()) {
                grpc::check_plaintext(uri, allow_plaintext)?;
                channels.push(grpc::channel_with(uri, tls.clone())?);
            }
            anyhow::ensure!(!channels.is_empty(), "no address of a control plane in {uri:?}");
            (channels, token, tls)
        }
        ControlEndpoint::InProcess(connector) => {
            (vec![grpc::in_process_channel(connector)], NodeToken::none(), None)
        }
    })
}

/// Until the last request has ended, tokens for upstreams are kept fresh.
fn fetch_tokens(
    tasks: &TaskGroup,
    upstream: &UpstreamClient,
    settings: &Settings,
    drain: &DrainWatcher,
) -> anyhow::Result<()> {
    let url = settings.gcp_token_url.parse().context("gcp_token_url is no URL")?;
    tasks.spawn("tokens", upstream.credentials.clone().run(upstream.clone(), url, drain.clone()));
    Ok(())
}

/// The last spans are made by the last requests.
fn flush_telemetry(tasks: &TaskGroup, sinks: &Arc<Sinks>, drain: DrainWatcher) {
    if sinks.telemetry.is_none() {
        return;
    }
    let sinks = sinks.clone();
    tasks.spawn("OTLP", async move {
        drain.signaled().await;
        let sent = tokio::task::spawn_blocking(move || sinks.telemetry.as_ref().map(Telemetry::shutdown));
        if let Err(error) = sent.await {
            tracing::warn!(%error, "the last spans and metrics were not sent");
        }
    });
}

fn upstream_authority(settings: &Settings) -> Option<&std::path::Path> {
    Some(settings.upstream_ca.as_path()).filter(|path| !path.as_os_str().is_empty())
}

/// New certificates count for new connections, without a restart.
fn watch_certificates(
    tasks: &TaskGroup,
    ports: [&Option<ServerTls>; 2],
    control: Option<ClientTls>,
    drain: &DrainWatcher,
) {
    for tls in ports.into_iter().flatten() {
        tasks.spawn("certificates", tls.clone().watch(drain.clone()));
    }
    if let Some(tls) = control {
        tasks.spawn("certificates", tls.watch(drain.clone()));
    }
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
