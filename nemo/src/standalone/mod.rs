//! `nemo standalone`: both planes in one process, a database, and nothing mocked.
//!
//! The control plane runs on one runtime, the data plane on another, so that neither starves the other; between
//! them are the same gRPC services as in a fleet, over memory. Order of the end: data plane (requests finish, usage
//! is shipped), control plane, database.

mod address;
mod banner;
mod ports;
mod ready;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nemo_control_plane::{
    app as control_plane, config::Config, credits::payments::Payments, fleet::NodeToken, retention::Retention,
};
use nemo_data_plane::{ControlEndpoint, Settings};
use nemo_proto::admin::Model;
use nemo_runtime::{
    TaskGroup,
    drain::{self, DrainTrigger, DrainWatcher},
    signal,
    telemetry::{self, TelemetrySettings},
    tls::{ServerTls, check_plaintext},
};
use nemo_types::{Keyring, Secret};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use self::{address::Port, ports::Ports};
use crate::{
    admin_client::Running,
    bootstrap, cli, console,
    data_dir::{self, DataDir, Lock},
    demo,
    embedded_postgres::{EmbeddedPostgres, Options, discover::Places},
    providers::{
        self, Desired,
        apply::{Applied, Applier},
        environment::{self, Found},
        file::{self, ConfigFile},
    },
};

/// The control plane has little to do; two threads keep a slow query from holding up a push.
const CONTROL_THREADS: usize = 2;
/// How long threads may take to end when everything else has.
const THREADS_END: Duration = Duration::from_secs(2);
/// What is logged unless `NEMO_LOG` says otherwise: the terminal is for the banner.
const LOG_FILTER: &str = "warn";

/// Runs until a signal. Must be called on the main thread: the database ends with the thread that started it.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub fn run(options: &cli::Standalone) -> anyhow::Result<()> {
    let format = match options.log_format {
        cli::LogFormat::Text => telemetry::Format::Text,
        cli::LogFormat::Json => telemetry::Format::Json,
    };
    let settings =
        TelemetrySettings { format, filter: LOG_FILTER.to_owned(), ..TelemetrySettings::default() };
    let _logs = telemetry::init(&settings)?;
    let control = runtime("nemo-control", Some(CONTROL_THREADS))?;
    let data = runtime("nemo-data", None)?;
    let ended = control.block_on(until_stopped(options, data.handle().clone()));
    data.shutdown_timeout(THREADS_END);
    control.shutdown_timeout(THREADS_END);
    ended
}

fn runtime(name: &str, threads: Option<usize>) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().thread_name(name).build().context("threads cannot be started")
}

async fn until_stopped(options: &cli::Standalone, data: Handle) -> anyhow::Result<()> {
    // Held to the very end: whoever finds the directory unlocked may take the database over.
    let (inputs, _lock) = Inputs::read(options)?;
    let (trigger, drain) = drain::channel();
    let (tasks, stop) = (TaskGroup::new(), CancellationToken::new());
    let (on_signal, second) = (trigger.clone(), stop.clone());
    tasks.spawn("signals", signal::watch(signal::Signals::install()?, on_signal, second));
    let mut postgres = None;
    let ended = tokio::select! {
        ended = Box::pin(serve(options, inputs, &data, &drain, &mut postgres)) => ended,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped at once, on the second signal")),
    };
    if let Some(mut postgres) = postgres {
        if stop.is_cancelled() {
            postgres.stop_now().await;
        } else {
            console::step("Stopping PostgreSQL", postgres.stop()).await;
        }
    }
    drop(trigger);
    ended
}

/// What can be wrong without anything running: read and checked first.
struct Inputs {
    dir: DataDir,
    keyring: Arc<Keyring>,
    file: Option<ConfigFile>,
    environment: Vec<Found>,
    node: Settings,
    ports: Ports,
}

impl Inputs {
    fn read(options: &cli::Standalone) -> anyhow::Result<(Self, Lock)> {
        let variable = |name: &str| std::env::var(name).ok();
        let file = options.config.as_ref().map(|path| file::read(path, variable)).transpose()?;
        let environment = if file.is_some() { Vec::new() } else { environment::find(variable)? };
        let mut node = Settings::load(None)?;
        node.allow_plaintext |= options.allow_plaintext;
        if variable("NEMO_DRAIN__NOTICE_MS").is_none() {
            // No load balancer watches one process on one machine, and whoever presses Ctrl-C waits for it.
            node.drain.notice_ms = 0;
        }
        check_exposure(options)?;
        let ports = Ports::hold(options)?;
        let path = options.data_dir.clone().map_or_else(data_dir::default_path, Ok)?;
        let (dir, lock) = DataDir::open(&path)?;
        node.listen = options.listen;
        (node.tls, node.ops_tls) = (options.tls.data(), options.tls.ops());
        node.ops_listen = ports.node_ops;
        node.data_dir = dir.file("node");
        let keyring = Arc::new(bootstrap::keyring(&dir)?);
        Ok((Self { dir, keyring, file, environment, node, ports }, lock))
    }
}

/// What other machines can reach is encrypted, and asks nodes who they are. Certificates are tried before anything
/// slow, too.
fn check_exposure(options: &cli::Standalone) -> anyhow::Result<()> {
    let tls = &options.tls;
    if options.node_token.is_none() && tls.node_ca.is_none() && !options.grpc_listen.ip().is_loopback() {
        anyhow::bail!(
            "--grpc-listen {} can be reached from other machines, so nodes must show a token: set NEMO_NODE_TOKEN \
             (`openssl rand -hex 32` makes one), or a certificate: give --node-ca",
            options.grpc_listen
        );
    }
    let (data, admin, ops, admin_ops) = (tls.data(), tls.admin(), tls.ops(), tls.admin_ops());
    let admin_options = "--admin-tls-cert and --admin-tls-key";
    let all = [
        ("--listen", Some(options.listen), ("--tls-cert and --tls-key", &data)),
        ("--admin-listen", Some(options.admin_listen), (admin_options, &admin)),
        ("--grpc-listen", Some(options.grpc_listen), (admin_options, &admin)),
        ("--ops-listen", options.ops_listen, ("--ops-tls-cert and --ops-tls-key", &ops)),
        (
            "--admin-ops-listen",
            options.admin_ops_listen,
            ("--admin-ops-tls-cert and --admin-ops-tls-key", &admin_ops),
        ),
    ];
    for (option, addr, tls) in all {
        // Where nobody said otherwise it is loopback.
        if let Some(addr) = addr {
            check_plaintext((option, addr), tls, options.allow_plaintext)?;
        }
    }
    for identity in [&data, &ops, &admin_ops] {
        ServerTls::load(identity, None)?;
    }
    ServerTls::load(&admin, tls.node_ca.clone())?;
    Ok(())
}

async fn serve(
    options: &cli::Standalone,
    inputs: Inputs,
    data: &Handle,
    drain: &DrainWatcher,
    postgres: &mut Option<EmbeddedPostgres>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let Some(url) = database(options, &inputs.dir, drain, postgres).await? else { return Ok(()) };
    let planes = Planes::start(options, inputs, url, data, drain).await?;
    let Some(planes) = planes else { return Ok(()) };
    planes.announce(begin)?;
    let ended = match postgres {
        Some(postgres) => postgres.supervise(drain).await,
        None => {
            drain.signaled().await;
            Ok(())
        }
    };
    planes.stop().await;
    ended
}

/// The database's URL; `None` when the drain started first.
async fn database(
    options: &cli::Standalone,
    dir: &DataDir,
    drain: &DrainWatcher,
    postgres: &mut Option<EmbeddedPostgres>,
) -> anyhow::Result<Option<Secret>> {
    if let Some(url) = &options.postgres_url {
        return Ok(Some(Secret::new(url)));
    }
    let settings = Options {
        dir: dir.path().to_owned(),
        user: options.postgres_user.clone(),
        places: Places::of_this_process(),
    };
    let Some(started) = Box::pin(EmbeddedPostgres::start(&settings, drain)).await? else { return Ok(None) };
    let url = Secret::new(started.url());
    *postgres = Some(started);
    Ok(Some(url))
}

/// Both planes, and the demo when it is needed.
struct Planes {
    dir: DataDir,
    control: control_plane::Bound,
    control_drain: DrainTrigger,
    node: nemo_data_plane::Bound,
    node_drain: DrainTrigger,
    tasks: TaskGroup,
    banner: banner::Banner,
    /// What the gRPC port shows.
    admin_cert: Option<PathBuf>,
}

impl Planes {
    /// `None` when the drain started first.
    async fn start(
        options: &cli::Standalone,
        mut inputs: Inputs,
        postgres_url: Secret,
        data: &Handle,
        drain: &DrainWatcher,
    ) -> anyhow::Result<Option<Self>> {
        let (control_drain, control_watcher) = drain::channel();
        let config = Config {
            rest_addr: options.admin_listen,
            grpc_addr: options.grpc_listen,
            metrics_addr: inputs.ports.control_ops,
            node_token: options.node_token.as_deref().map(NodeToken::new).transpose()?,
            tls: options.tls.admin(),
            ops_tls: options.tls.admin_ops(),
            node_ca: options.tls.node_ca.clone(),
            oidc: options.oidc.check()?,
            allow_plaintext: options.allow_plaintext,
            retention: options.retention.over(Retention::default()),
            payments: Payments::new(&options.billing.secret().context("--payments-webhook-secret-file")?)?,
            catalog_sync: options.catalog.settings().context("--catalog-sources")?,
            private_webhooks: options.billing.webhooks_allow_private.unwrap_or_default(),
            ..Config::local(postgres_url.clone())
        };
        inputs.ports.release_control();
        let starting = Box::pin(control_plane::start(config, inputs.keyring.clone(), control_watcher));
        let control = tokio::select! {
            control = console::step("Starting the control plane", starting) => control?,
            () = drain.signaled() => return Ok(None),
        };
        let tasks = TaskGroup::new();
        let (node_drain, node_watcher) = drain::channel();
        let configured = console::step(
            "Configuring the providers",
            Box::pin(configure(options, &inputs, &control, &tasks, control_drain.watcher())),
        )
        .await?;
        let endpoint = ControlEndpoint::InProcess(control.node_connector.clone());
        inputs.ports.release_node();
        let start = nemo_data_plane::start(inputs.node, endpoint, inputs.keyring, node_watcher);
        let node =
            data.spawn(Box::pin(start)).await.context("the data plane panicked while it started")??;
        let Configured { first, applied, notes, sample, demo } = configured;
        let data_port = Port::new(node.data_addr, &options.tls.data())?;
        let admin_port = Port::new(control.rest_addr, &options.tls.admin())?;
        // The data port is open: a database that goes away now ends nothing any more.
        let waiting = async {
            let revision = ready::revision(&postgres_url).await?;
            let published = ready::published(&control.registry, revision);
            ready::wait(published, &data_port, sample.as_deref(), first.new_key.as_ref()).await
        };
        let served = tokio::select! {
            served = console::step("Waiting for the first snapshot", waiting) => served,
            () = drain.signaled() => Ok(()),
        };
        let mut notes = notes;
        if let Err(error) = served {
            notes.push(format!("the configuration has not reached the data plane yet: {error:#}"));
        }
        let banner = banner::Banner {
            data_dir: inputs.dir.path().to_owned(),
            data: data_port,
            admin: admin_port,
            admin_token: first.new_token.then_some(first.admin_token),
            new_key: first.new_key,
            file_keys: applied.keys.into_iter().map(|(name, secret)| (name, Secret::new(secret))).collect(),
            sample,
            demo,
            notes,
        };
        let admin_cert = options.tls.admin().given()?.map(address::absolute);
        let dir = inputs.dir;
        Ok(Some(Self { dir, control, control_drain, node, node_drain, tasks, banner, admin_cert }))
    }

    fn announce(&self, begin: Instant) -> anyhow::Result<()> {
        let running = Running {
            pid: std::process::id(),
            listen: self.node.data_addr,
            admin_listen: self.control.rest_addr,
            grpc_listen: self.control.grpc_addr,
            admin_cert: self.admin_cert.clone(),
        };
        running.announce(&self.dir)?;
        self.banner.print(begin.elapsed());
        Ok(())
    }

    async fn stop(self) {
        Running::withdraw(&self.dir);
        self.node_drain.start();
        console::step("Finishing requests (Ctrl-C again stops at once)", self.node.join()).await;
        self.control_drain.start();
        console::step("Stopping the control plane", self.control.join()).await;
        self.tasks.join(THREADS_END).await;
    }
}

struct Configured {
    first: bootstrap::Bootstrapped,
    applied: Applied,
    notes: Vec<String>,
    /// A model that can be asked.
    sample: Option<String>,
    demo: bool,
}

/// Organization, key and token, then providers: the file's, the environment's, or the demo.
async fn configure(
    options: &cli::Standalone,
    inputs: &Inputs,
    control: &control_plane::Bound,
    tasks: &TaskGroup,
    drain: DrainWatcher,
) -> anyhow::Result<Configured> {
    let seal_key_id = inputs.keyring.key_ids().into_iter().next().unwrap_or_default();
    let applier = Applier::new(&control.admin, seal_key_id, inputs.dir.file("managed.json"));
    let first = bootstrap::run(&control.admin, &applier, &inputs.dir).await?;
    let catalog = applier.catalog().await?;
    let mut desired = match &inputs.file {
        Some(file) => file.desired(&catalog).await?,
        None => environment::desired(&inputs.environment, &catalog).await,
    };
    let provided =
        !inputs.environment.is_empty() || inputs.file.as_ref().is_some_and(ConfigFile::has_providers);
    if !provided {
        let delay = Duration::from_millis(options.demo_delay_ms);
        let addr = demo::start(tasks, drain, delay, demo_address(&applier).await?)?;
        let Desired { models, deployments, .. } = providers::demo(&format!("http://{addr}/v1"));
        desired.models.extend(models);
        desired.deployments.extend(deployments);
    }
    let applied = applier.apply(&desired, &first.org_id).await?;
    tracing::info!(
        created = applied.created,
        changed = applied.changed,
        removed = applied.removed,
        "providers"
    );
    let catalog = if desired.models.is_empty() { catalog } else { applier.catalog().await? };
    let sample = sample(&desired, &catalog);
    let mut notes = std::mem::take(&mut desired.notes);
    notes.extend(applied.warnings.iter().cloned());
    Ok(Configured { first, applied, notes, sample, demo: !provided })
}

/// Where the demo listened at the last start. The data plane serves its last-good snapshot from the first moment on,
/// and that one has this address.
async fn demo_address(applier: &Applier<'_>) -> anyhow::Result<Option<SocketAddr>> {
    let deployments = applier.deployments().await?;
    let demo = deployments.into_iter().find(|deployment| deployment.provider == demo::PROVIDER);
    Ok(demo.and_then(|demo| demo.base_url.strip_prefix("http://")?.strip_suffix("/v1")?.parse().ok()))
}

/// The cheapest chat model that is deployed: for the example that the banner prints.
fn sample(desired: &Desired, catalog: &[Model]) -> Option<String> {
    let price = |model: &Model, provider: &str| {
        let offering = model.offerings.iter().find(|offering| offering.provider == provider);
        offering
            .and_then(|offering| offering.price.as_ref())
            .and_then(|price| price.output)
            .unwrap_or(i64::MAX)
    };
    let chat = desired.deployments.iter().filter_map(|deployment| {
        let model = catalog.iter().find(|model| model.id == deployment.model)?;
        let speaks = model.endpoints.iter().any(|endpoint| endpoint == "chat.completions");
        speaks.then(|| (price(model, &deployment.provider), model.id.clone()))
    });
    chat.min().map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::demo as demo_desired;

    #[test]
    fn the_sample_is_a_chat_model_and_the_cheapest() {
        let desired = demo_desired("http://127.0.0.1:1/v1");
        assert_eq!(sample(&desired, &desired.models).as_deref(), Some(demo::CHAT_MODEL));
        assert_eq!(sample(&Desired::default(), &desired.models), None);
    }
}
