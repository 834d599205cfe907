//! Wires the control plane: ports, database, publisher, services. The same for the binary, `nemo standalone` and the
//! tests; everything else takes what it needs as an argument.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper_util::service::TowerToHyperService;
use nemo_runtime::{
    TaskGroup,
    drain::{self, DrainTrigger, DrainWatcher},
    grpc as transport,
    http_server::{self, ServerSettings},
    inproc,
    metrics::Registry as Metrics,
    ops_server,
    readiness::Readiness,
    tls::ServerTls,
};
use nemo_types::Keyring;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tonic::service::{Routes, RoutesBuilder};

use crate::{
    admin::{self, Admin, oidc::Oidc},
    catalog::{self, price_clock, seed::Seeded, sync::CatalogSync},
    config::Config,
    cooldown::{Board, Policy},
    coordination::{
        CoordinationMetrics, Coordinator, Election, EtcdCoordinator, LocalCoordinator, membership,
    },
    credits,
    fleet::{NodeAuth, Registry, leases, metrics::FleetCollector},
    grpc::{
        self, NodeServices, config_service::ConfigService, cooldown_service::CooldownService,
        fleet_service::FleetService, metrics::UsageMetrics, quota_service::QuotaService,
        usage_service::UsageService,
    },
    ledger::verify::{self, LedgerMetrics},
    publish::{Publisher, Revocations, metrics::PublishMetrics},
    quota::{metrics::QuotaMetrics, rates::Rates, reclaimer},
    retention::{self, RetentionMetrics},
    sealing::Sealer,
    store::{Store, idempotency, leases::SqlBank},
    thresholds::{self, ThresholdMetrics},
    webhooks::{
        client::WebhookClient,
        job::{Courier, WebhookMetrics},
    },
};

/// How long a drain waits for requests in flight.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long tasks may take after that.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// A control plane that serves.
pub struct Bound {
    pub rest_addr: SocketAddr,
    pub grpc_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    /// The admin operations, for callers in this process.
    pub admin: Arc<Admin>,
    /// The node services, for a data plane in this process. Needs no node token.
    pub node_connector: inproc::Connector,
    /// Which nodes are connected.
    pub registry: Registry,
    running: Running,
}

/// What ends with the process.
struct Running {
    tasks: TaskGroup,
    ops: TaskGroup,
    ops_drain: DrainTrigger,
    store: Store,
}

impl Bound {
    /// Waits for the end: the drain must have been signaled. Health and metrics answer until everything else is done.
    pub async fn join(self) {
        let Running { tasks, ops, ops_drain, store } = self.running;
        let late = tasks.join(DRAIN_DEADLINE + JOIN_GRACE).await;
        if !late.is_empty() {
            tracing::warn!(tasks = ?late, "stopped before they were done");
        }
        ops_drain.start();
        ops.join(JOIN_GRACE).await;
        store.close().await;
    }
}

/// The three ports, bound before anything slow: a taken one is reported at once.
struct Ports {
    rest: TcpListener,
    grpc: TcpListener,
    metrics: TcpListener,
}

impl Ports {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            rest: http_server::bind(config.rest_addr, "--rest-addr")?,
            grpc: http_server::bind(config.grpc_addr, "--grpc-addr")?,
            metrics: http_server::bind(config.metrics_addr, "--metrics-addr")?,
        })
    }
}

/// Starts the control plane and returns when it serves.
///
/// # Errors
/// When the settings contradict each other, a port is taken, or the database can't be reached or prepared. A
/// configuration that can't be published is no error: the admin API must be up to mend it.
pub async fn start(config: Config, keyring: Arc<Keyring>, drain: DrainWatcher) -> anyhow::Result<Bound> {
    config.check()?;
    let oidc = config.oidc.clone().map(Oidc::new).transpose()?;
    let tls = ServerTls::load(&config.tls, config.node_ca.clone())?;
    let ops_tls = ServerTls::load(&config.ops_tls, None)?;
    let ports = Ports::bind(&config)?;
    let (rest_addr, grpc_addr) = (ports.rest.local_addr()?, ports.grpc.local_addr()?);
    let metrics_addr = ports.metrics.local_addr()?;

    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    let starting = readiness.register("database");
    let (ops, (ops_drain, ops_watcher)) = (TaskGroup::new(), drain::channel());
    for tls in [&tls, &ops_tls].into_iter().flatten() {
        ops.spawn("certificates", tls.clone().watch(ops_watcher.clone()));
    }
    let ops_serving =
        ops_server::serve_with(ports.metrics, ops_tls, readiness.clone(), metrics.clone(), ops_watcher);
    ops.spawn("ops", ops_serving);

    let store = tokio::select! {
        () = drain.signaled() => anyhow::bail!("stopped while waiting for the database"),
        store = Store::open(&config.postgres_url, config.pools, config.database_patience) => store?,
    };
    seed_catalog(&store).await?;
    let publisher = Arc::new(Publisher::new(PublishMetrics::register(&metrics)));
    if let Err(error) = publisher.refresh(&store).await {
        tracing::error!(%error, "nothing is published until this is mended through the admin API");
    }
    let registry = Registry::new(publisher.subscribe());
    metrics.register(|r| r.register_collector(Box::new(FleetCollector(registry.clone()))));
    let admin = Admin::new(store.clone(), keyring.clone())
        .with_fleet(registry.clone(), publisher.unpublishable())
        .with_oidc(oidc.clone())
        .with_payments(config.payments.clone())
        .with_private_webhooks(config.private_webhooks)
        .with_published(publisher.subscribe());
    let tasks = TaskGroup::new();
    let coordinator = coordinator(&config, &tasks)?;
    let board = cooldown_board(&tasks, coordinator.clone(), &publisher, &metrics, &drain);
    let sealer = Sealer::new(keyring.clone());
    let catalog_sync =
        CatalogSync::new(store.clone(), sealer, config.catalog_sync).context("TLS of the catalog sync")?;
    let admin =
        admin.with_cooldowns(board.clone(), publisher.clone()).with_catalog_sync(catalog_sync.clone());
    let admin = Arc::new(admin);
    if let Some(oidc) = oidc {
        tasks.spawn("OIDC keys", oidc.run(drain.clone()));
    }
    tasks.spawn("publisher", publisher.clone().run(store.clone(), drain.clone()));
    let revocations = Revocations::default();
    tasks.spawn("revocations", revocations.clone().run(store.clone(), drain.clone()));
    tasks.spawn("leases", leases::run(registry.clone(), store.clone(), drain.clone()));
    let replica = uuid::Uuid::now_v7().to_string();
    let members = membership::run(coordinator.clone(), registry.clone(), replica.clone(), drain.clone());
    tasks.spawn("members", members);
    let stand = |job| Election::stand(coordinator.clone(), (job, replica.clone()), &tasks, drain.clone());
    tasks.spawn(
        "idempotency",
        idempotency::purge_regularly(store.clone(), stand("idempotency"), drain.clone()),
    );
    let retention_metrics = RetentionMetrics::register(&metrics);
    tasks.spawn(
        "retention",
        retention::run(store.clone(), config.retention, retention_metrics, stand("retention"), drain.clone()),
    );
    tasks.spawn("prices", price_clock::run(store.clone(), stand("prices"), drain.clone()));
    let ledger_metrics = LedgerMetrics::register(&metrics);
    tasks.spawn("ledger", verify::run(store.clone(), ledger_metrics, stand("ledger"), drain.clone()));
    let threshold_metrics = ThresholdMetrics::register(&metrics);
    tasks.spawn(
        "thresholds",
        thresholds::run(store.clone(), threshold_metrics, stand("thresholds"), drain.clone()),
    );
    tasks.spawn("credits", credits::job::run(store.clone(), stand("credits"), drain.clone()));
    let courier = Courier {
        store: store.clone(),
        sealer: Sealer::new(keyring.clone()),
        client: WebhookClient::new(config.private_webhooks).context("TLS of webhooks")?,
        metrics: WebhookMetrics::register(&metrics),
    };
    tasks.spawn("webhooks", courier.run(stand("webhooks"), drain.clone()));
    tasks.spawn("catalog", catalog_sync.run(stand("catalog"), drain.clone()));
    let rates = Rates::new(publisher.subscribe());
    let (quota_metrics, bank) = (QuotaMetrics::register(&metrics), SqlBank::new(store.clone(), config.quota));
    let reclaiming = reclaimer::run(bank.clone(), quota_metrics.clone(), stand("quota"), drain.clone());
    tasks.spawn("quota", reclaiming);
    tasks.spawn("standby", bank.clone().stand_by(drain.clone()));
    if !config.etcd.endpoints.is_empty() {
        tasks.spawn("rates", reclaimer::exchange(store.clone(), rates.clone(), drain.clone()));
    }
    let quota = QuotaService::new(Arc::new(bank), rates, quota_metrics, drain.clone());
    let services = NodeServices {
        config: ConfigService::new(publisher, revocations.clone(), registry.clone(), drain.clone()),
        cooldown: CooldownService::new(board, drain.clone()),
        fleet: FleetService::new(keyring.key_ids()),
        quota,
        usage: UsageService::new(
            store.clone(),
            registry.clone(),
            UsageMetrics::register(&metrics),
            drain.clone(),
        ),
    };
    let node_connector = serve_in_process(&tasks, services.clone(), &drain);
    let auth = NodeAuth::new(config.node_token).with_certificates(config.node_ca.is_some());
    let routes = grpc_routes(&tasks, services, auth, &admin, &drain).await?;
    serve_http(&tasks, "grpc", (ports.grpc, tls.clone()), routes.into_axum_router(), &drain);
    serve_http(&tasks, "rest", (ports.rest, tls), admin::rest::router(admin.clone()), &drain);

    let watcher = drain.clone();
    let draining = readiness.clone();
    tasks.spawn("readiness", async move {
        watcher.signaled().await;
        draining.set_draining();
    });
    starting.ready();
    tracing::info!(%rest_addr, %grpc_addr, %metrics_addr, "the control plane serves");
    let running = Running { tasks, ops, ops_drain, store };
    Ok(Bound { rest_addr, grpc_addr, metrics_addr, admin, node_connector, registry, running })
}

/// Where replicas meet: etcd, or this process when it is the only one. Nothing waits for it.
fn coordinator(config: &Config, tasks: &TaskGroup) -> anyhow::Result<Arc<dyn Coordinator>> {
    if config.etcd.endpoints.is_empty() {
        return Ok(Arc::new(LocalCoordinator::default()));
    }
    Ok(Arc::new(EtcdCoordinator::new(&config.etcd, tasks.clone())?))
}

fn cooldown_board(
    tasks: &TaskGroup,
    coordinator: Arc<dyn Coordinator>,
    publisher: &Arc<Publisher>,
    metrics: &Metrics,
    drain: &DrainWatcher,
) -> Board {
    let publisher = publisher.clone();
    let policies = move |org| Policy::of(publisher.routing().policy(org));
    let (board, runner) = Board::new(coordinator, policies, CoordinationMetrics::register(metrics));
    tasks.spawn("cooldowns", runner.run(drain.clone()));
    board
}

async fn seed_catalog(store: &Store) -> anyhow::Result<()> {
    let bundled = catalog::bundled().context("the bundled catalog")?;
    let micros = i128::from(nemo_runtime::clock::unix_us());
    let now = OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).context("the system clock")?;
    match catalog::seed::seed(store, &bundled, now).await.context("writing the bundled catalog")? {
        Seeded::Written(models) => {
            tracing::info!(models, edition = bundled.generated, "wrote the bundled model catalog");
        }
        Seeded::UpToDate { edition } => tracing::debug!(edition, "the model catalog is up to date"),
    }
    Ok(())
}

/// The node services over memory, for a data plane in this process.
fn serve_in_process(tasks: &TaskGroup, services: NodeServices, drain: &DrainWatcher) -> inproc::Connector {
    let (connector, incoming) = inproc::channel();
    let mut routes = RoutesBuilder::default();
    services.add_to(&mut routes, NodeAuth::default());
    let drain = drain.clone();
    tasks.spawn("in-process gRPC", async move {
        let server = transport::server().add_routes(routes.routes());
        let ended =
            server.serve_with_incoming_shutdown(incoming, async move { drain.signaled().await }).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the in-process gRPC server stopped");
        }
    });
    connector
}

/// Everything that the gRPC port serves.
async fn grpc_routes(
    tasks: &TaskGroup,
    services: NodeServices,
    auth: NodeAuth,
    admin: &Arc<Admin>,
    drain: &DrainWatcher,
) -> anyhow::Result<Routes> {
    let mut routes = RoutesBuilder::default();
    services.add_to(&mut routes, auth);
    grpc::admin::add_to(&mut routes, admin);

    let (health, health_service) = tonic_health::server::health_reporter();
    let names: Vec<&'static str> = NodeServices::names().into_iter().chain(grpc::admin::names()).collect();
    for name in &names {
        health.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    let drain = drain.clone();
    tasks.spawn("gRPC health", async move {
        drain.signaled().await;
        for name in names.iter().chain(&[""]) {
            health.set_service_status(name, tonic_health::ServingStatus::NotServing).await;
        }
    });
    routes.add_service(health_service);

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(nemo_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(reflection().build_v1()?);
    // What older command-line clients speak.
    routes.add_service(reflection().build_v1alpha()?);
    Ok(routes.routes())
}

fn serve_http(
    tasks: &TaskGroup,
    name: &'static str,
    (listener, tls): (TcpListener, Option<ServerTls>),
    router: axum::Router,
    drain: &DrainWatcher,
) {
    let settings = ServerSettings { drain_deadline: DRAIN_DEADLINE, ..ServerSettings::named(name) };
    let service = TowerToHyperService::new(router);
    tasks.spawn(name, http_server::serve_with(listener, tls, service, settings, drain.clone()));
}

#[cfg(test)]
mod tests;
