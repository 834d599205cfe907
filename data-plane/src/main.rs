//! The binary `nemo-data-plane`: one node of a fleet.

use std::{num::NonZero, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use clap::Parser;
use nemo_data_plane::{ControlEndpoint, Settings};
use nemo_runtime::{
    drain,
    grpc::NodeToken,
    signal,
    telemetry::{self, TelemetrySettings},
};
use nemo_types::{Keyring, Secret};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// A request allocates a few dozen small things and frees them on the same thread: mimalloc's home ground.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves API clients and routes their requests to model providers, by the configuration that the control plane
/// pushes. Keeps serving when the control plane is away.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    NEMO_SEAL_KEY=$(cat seal-key) nemo-data-plane --control-plane http://127.0.0.1:8082\n  \
    nemo-data-plane --config node.toml --listen 0.0.0.0:8080\n\n\
    Every setting of the config file can be given as a variable: NEMO_LISTEN, NEMO_TIMEOUTS__HEAD_MS, …"
)]
struct Arguments {
    /// Settings file (TOML); the defaults and their reasons are in config.default.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where API clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<std::net::SocketAddr>,
    /// Health and metrics [default: 127.0.0.1:9080]
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<std::net::SocketAddr>,
    /// Certificate chain of the data port (PEM); read again when the file changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificate chain of the health and metrics port (PEM)
    #[arg(long, value_name = "FILE", requires = "ops_tls_key")]
    ops_tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "ops_tls_cert")]
    ops_tls_key: Option<PathBuf>,
    /// Allow ports without TLS that other machines can reach, and a control plane elsewhere without TLS
    #[arg(long)]
    allow_plaintext: bool,
    /// The authority of the control plane's certificate (PEM), for https addresses
    #[arg(long, value_name = "FILE")]
    control_plane_ca: Option<PathBuf>,
    /// This node's certificate (PEM), for control planes that are started with --node-ca
    #[arg(long, value_name = "FILE", requires = "node_key")]
    node_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "node_cert")]
    node_key: Option<PathBuf>,
    /// Collector that gets traces and metrics, for example http://127.0.0.1:4317 (OTLP over gRPC)
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// The control plane's gRPC address, for example http://127.0.0.1:8082
    #[arg(long, value_name = "URL")]
    control_plane: Option<String>,
    /// Where the node keeps its id and the last-good snapshot
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File with the sealing keys that the control plane seals credentials with
    #[arg(long, value_name = "FILE", env = "NEMO_SEAL_KEY_FILE")]
    seal_key_file: Option<PathBuf>,
    /// The same keys, the current one first
    #[arg(long, value_name = "KEYS", env = "NEMO_SEAL_KEY", hide_env_values = true)]
    seal_key: Option<String>,
    /// File with the fleet's token, as the control plane has it
    #[arg(long, value_name = "FILE", env = "NEMO_NODE_TOKEN_FILE")]
    node_token_file: Option<PathBuf>,
    /// The token itself
    #[arg(long, value_name = "TOKEN", env = "NEMO_NODE_TOKEN", hide_env_values = true)]
    node_token: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let guard = match telemetry::init(&TelemetrySettings::default()) {
        Ok(guard) => guard,
        Err(error) => return fail(&anyhow::Error::new(error)),
    };
    let outcome = runtime().map_err(Into::into).and_then(|runtime| runtime.block_on(run(arguments)));
    drop(guard);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "nemo-data-plane: {error:#}");
    ExitCode::FAILURE
}

/// One thread per core that this process may use, or as many as `TOKIO_WORKER_THREADS` says. For one, the scheduler
/// that shares work between threads would only cost.
fn runtime() -> std::io::Result<Runtime> {
    let given = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|text| text.trim().parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = given.filter(|threads| *threads > 0).unwrap_or_else(cores);
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().thread_name("nemo-data").build()
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = settings(&arguments)?;
    let keyring = Arc::new(keyring(&arguments)?);
    let token = match secret(arguments.node_token, arguments.node_token_file, "node token")? {
        Some(token) => NodeToken::new(&token)?,
        None => NodeToken::none(),
    };
    if settings.control_plane.is_empty() {
        bail!("no control plane given: use --control-plane http://host:8082 or NEMO_CONTROL_PLANE");
    }
    let authority = Some(settings.control_plane_ca.clone()).filter(|path| !path.as_os_str().is_empty());
    let endpoint = ControlEndpoint::Address {
        uri: settings.control_plane.clone(),
        authority,
        identity: settings.control_plane_tls.clone(),
        token,
    };
    let (trigger, watcher) = drain::channel();
    let stop = CancellationToken::new();
    // Whoever replaces certificates sends a SIGHUP, which ends a process that has none.
    let _hangups = signal::Hangups::install();
    let open_files = nemo_runtime::open_files::raise_limit();
    tracing::debug!(open_files, "the limit of open files");
    let signals = signal::watch(signal::Signals::install()?, trigger, stop);
    let serving = async {
        let node = nemo_data_plane::start(settings, endpoint, keyring, watcher.clone()).await?;
        // The patience of the drain counts from its start.
        watcher.signaled().await;
        node.join().await;
        anyhow::Ok(())
    };
    tokio::select! {
        ended = serving => ended,
        // The second one.
        () = signals => Ok(()),
    }
}

fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let mut settings = Settings::load(arguments.config.as_deref())?;
    if let Some(listen) = arguments.listen {
        settings.listen = listen;
    }
    if let Some(listen) = arguments.ops_listen {
        settings.ops_listen = listen;
    }
    let files = [
        (&arguments.tls_cert, &mut settings.tls.cert),
        (&arguments.tls_key, &mut settings.tls.key),
        (&arguments.ops_tls_cert, &mut settings.ops_tls.cert),
        (&arguments.ops_tls_key, &mut settings.ops_tls.key),
        (&arguments.control_plane_ca, &mut settings.control_plane_ca),
        (&arguments.node_cert, &mut settings.control_plane_tls.cert),
        (&arguments.node_key, &mut settings.control_plane_tls.key),
    ];
    for (given, setting) in files {
        if let Some(path) = given {
            setting.clone_from(path);
        }
    }
    settings.allow_plaintext |= arguments.allow_plaintext;
    if let Some(endpoint) = &arguments.otlp_endpoint {
        settings.otlp.endpoint.clone_from(endpoint);
    }
    if let Some(uri) = &arguments.control_plane {
        settings.control_plane.clone_from(uri);
    }
    if let Some(dir) = &arguments.data_dir {
        settings.data_dir.clone_from(dir);
    }
    Ok(settings)
}

fn keyring(arguments: &Arguments) -> anyhow::Result<Keyring> {
    let text = secret(arguments.seal_key.clone(), arguments.seal_key_file.clone(), "sealing key")?.context(
        "no sealing key given: use --seal-key-file or NEMO_SEAL_KEY, with the control plane's key",
    )?;
    Ok(Keyring::parse(text.expose())?)
}

fn secret(text: Option<String>, file: Option<PathBuf>, what: &str) -> anyhow::Result<Option<Secret>> {
    match (text, file) {
        (Some(text), _) => Ok(Some(Secret::new(text.trim()))),
        (None, None) => Ok(None),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("the {what} file {} can't be read", path.display()))?;
            Ok(Some(Secret::new(text.trim())))
        }
    }
}
