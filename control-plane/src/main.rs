//! `nemo-control-plane`: arguments → settings → [`nemo_control_plane::app`] → exit code.
//!
//! Exit codes: 0 after an orderly stop, 1 when it could not start or was stopped at once, 2 for wrong arguments or
//! settings.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand, ValueEnum};
use nemo_control_plane::{
    admin::{Admin, Call, oidc::OidcOptions},
    app,
    catalog::sync::SyncOptions,
    config::{ConfigError, DATABASE_PATIENCE, Settings},
    credits::BillingOptions,
    retention::RetentionOptions,
    store::{PoolSizes, Store},
};
use nemo_proto::admin::CreateAdminTokenRequest;
use nemo_runtime::{TaskGroup, drain, signal, telemetry};
use nemo_types::Secret;
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  NEMO_SEAL_KEY=$(openssl rand -hex 32) nemo-control-plane --postgres-url postgres://nemo@localhost/nemo
  nemo-control-plane migrate --postgres-url postgres://nemo@localhost/nemo
  nemo-control-plane admin-token --name alice
  nemo-control-plane --config /etc/nemo/control-plane.toml

Every setting is also an environment variable, which keeps secrets off the command line:
  NEMO_POSTGRES_URL, NEMO_SEAL_KEY (64 hexadecimal digits), NEMO_NODE_TOKEN, NEMO_REST_ADDR, NEMO_GRPC_ADDR,
  NEMO_METRICS_ADDR, NEMO_ETCD_ENDPOINTS, NEMO_ETCD_PASSWORD, NEMO_OIDC_ISSUER, NEMO_OIDC_AUDIENCE, NEMO_APP_CONNECTIONS, NEMO_SYSTEM_CONNECTIONS, NEMO_LOGGING__FORMAT; NEMO_LOG filters the log.
Options win over the environment, the environment over the file.";

/// The control plane of Nemo Router: tenancy, configuration, request log.
#[derive(Parser)]
#[command(name = "nemo-control-plane", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the admin API and the nodes, after bringing the database up to date (the default).
    Serve,
    /// Bring the database up to date and exit.
    Migrate,
    /// Make an operator's token for the admin API, print it, and exit. The only way in on a fresh database.
    AdminToken {
        /// What the token is for, as lists of tokens show it.
        #[arg(long, default_value = "operator")]
        name: String,
    },
}

#[derive(Args)]
struct Options {
    /// Settings file (TOML).
    #[arg(long, global = true, value_name = "FILE", env = "NEMO_CONFIG")]
    config: Option<PathBuf>,
    /// Database: postgres://user:password@host:5432/database.
    #[arg(long, global = true, value_name = "URL")]
    postgres_url: Option<String>,
    /// Where the admin REST API listens [default: 127.0.0.1:8081].
    #[arg(long, global = true, value_name = "ADDRESS")]
    rest_addr: Option<SocketAddr>,
    /// Where gRPC listens, for nodes and admin clients [default: 127.0.0.1:8082].
    #[arg(long, global = true, value_name = "ADDRESS")]
    grpc_addr: Option<SocketAddr>,
    /// Where /livez, /readyz and /metrics are [default: 127.0.0.1:9081].
    #[arg(long, global = true, value_name = "ADDRESS")]
    metrics_addr: Option<SocketAddr>,
    /// File with the sealing keys; the same on every node.
    #[arg(long, global = true, value_name = "FILE")]
    seal_key_file: Option<PathBuf>,
    /// File with the token that nodes must show; required unless gRPC listens on loopback, or with --node-ca.
    #[arg(long, global = true, value_name = "FILE")]
    node_token_file: Option<PathBuf>,
    /// Certificate chain of the REST and gRPC ports (PEM); read again when the file changes.
    #[arg(long, global = true, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Certificate chain of the health and metrics port (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    ops_tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    ops_tls_key: Option<PathBuf>,
    /// Authority of the nodes' certificates (PEM): with it, every node must show one.
    #[arg(long, global = true, value_name = "FILE")]
    node_ca: Option<PathBuf>,
    /// etcd, where several replicas share cooldowns: http(s)://host:2379, several separated by commas. Without it, this
    /// is the only replica.
    #[arg(long, global = true, value_name = "URLS")]
    etcd_endpoints: Option<String>,
    /// Authority of etcd's certificate (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// This replica's certificate for an etcd that asks for one (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    etcd_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    etcd_key: Option<PathBuf>,
    /// etcd's user, where it wants one.
    #[arg(long, global = true, value_name = "NAME")]
    etcd_user: Option<String>,
    /// File with that user's password.
    #[arg(long, global = true, value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
    /// Allow ports without TLS that other machines can reach.
    #[arg(long, global = true)]
    allow_plaintext: bool,
    /// Form of the log on standard error [default: auto].
    #[arg(long, global = true)]
    log_format: Option<LogFormat>,
    #[command(flatten)]
    oidc: OidcOptions,
    #[command(flatten)]
    retention: RetentionOptions,
    #[command(flatten)]
    billing: BillingOptions,
    #[command(flatten)]
    catalog: SyncOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
    /// Text on a terminal, JSON elsewhere.
    Auto,
}

impl Options {
    fn settings(self) -> Result<Settings, ConfigError> {
        let mut settings = Settings::load(self.config.as_deref())?;
        if let Some(url) = self.postgres_url {
            settings.postgres_url = Secret::new(url);
        }
        settings.rest_addr = self.rest_addr.unwrap_or(settings.rest_addr);
        settings.grpc_addr = self.grpc_addr.unwrap_or(settings.grpc_addr);
        settings.metrics_addr = self.metrics_addr.unwrap_or(settings.metrics_addr);
        settings.seal_key_file = self.seal_key_file.unwrap_or(settings.seal_key_file);
        settings.node_token_file = self.node_token_file.unwrap_or(settings.node_token_file);
        settings.retention = self.retention.over(settings.retention);
        let files = [
            (self.tls_cert, &mut settings.tls.cert),
            (self.tls_key, &mut settings.tls.key),
            (self.ops_tls_cert, &mut settings.ops_tls.cert),
            (self.ops_tls_key, &mut settings.ops_tls.key),
            (self.node_ca, &mut settings.node_ca),
            (self.etcd_ca, &mut settings.etcd_ca),
            (self.etcd_cert, &mut settings.etcd_tls.cert),
            (self.etcd_key, &mut settings.etcd_tls.key),
            (self.etcd_password_file, &mut settings.etcd_password_file),
        ];
        for (given, setting) in files {
            if let Some(path) = given {
                *setting = path;
            }
        }
        settings.etcd_endpoints = self.etcd_endpoints.unwrap_or(settings.etcd_endpoints);
        settings.etcd_user = self.etcd_user.unwrap_or(settings.etcd_user);
        settings.allow_plaintext |= self.allow_plaintext;
        settings.set_oidc(self.oidc);
        settings.set_billing(self.billing);
        settings.set_catalog(self.catalog);
        settings.logging.format = match self.log_format {
            Some(LogFormat::Text) => telemetry::Format::Text,
            Some(LogFormat::Json) => telemetry::Format::Json,
            Some(LogFormat::Auto) => telemetry::Format::Auto,
            None => settings.logging.format,
        };
        Ok(settings)
    }
}

fn main() -> ExitCode {
    let Arguments { command, options } = Arguments::parse();
    let settings = match options.settings() {
        Ok(settings) => settings,
        Err(error) => return complain(&error),
    };
    let _logs = match telemetry::init(&settings.logging) {
        Ok(guard) => guard,
        Err(error) => return complain(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "can't start threads");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(command.unwrap_or(Command::Serve), settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<ConfigError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Before there is a log.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn complain(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("nemo-control-plane: {error}");
    ExitCode::from(2)
}

async fn run(command: Command, settings: Settings) -> anyhow::Result<()> {
    match command {
        Command::Migrate => {
            if settings.postgres_url.expose().is_empty() {
                return Err(ConfigError::NoDatabase.into());
            }
            Store::migrate_when_up(&settings.postgres_url, DATABASE_PATIENCE).await?;
            tracing::info!("the database is up to date");
            Ok(())
        }
        Command::Serve => serve(settings).await,
        Command::AdminToken { name } => admin_token(settings, name).await,
    }
}

/// Whoever can reach the database and holds the sealing key owns the installation.
async fn admin_token(settings: Settings, name: String) -> anyhow::Result<()> {
    let keyring = Arc::new(settings.keyring()?);
    let config = settings.into_config()?;
    let store =
        Store::open(&config.postgres_url, PoolSizes { app: 1, system: 1 }, config.database_patience).await?;
    let request = CreateAdminTokenRequest { name, ..CreateAdminTokenRequest::default() };
    let made = Admin::new(store.clone(), keyring).create_admin_token(&Call::local_operator(), request).await;
    store.close().await;
    let made = made.map_err(|error| anyhow::anyhow!("{error}"))?;
    writeln!(std::io::stdout(), "{}", made.token)?;
    Ok(())
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    nemo_runtime::open_files::raise_limit();
    let keyring = Arc::new(settings.keyring()?);
    let config = settings.into_config()?;
    let (trigger, drain) = drain::channel();
    // Whoever replaces certificates sends a SIGHUP, which ends a process that has none.
    let _hangups = signal::Hangups::install();
    let (signals, stop) = (TaskGroup::new(), CancellationToken::new());
    let (keep, second) = (trigger.clone(), stop.clone());
    signals.spawn("signals", signal::watch(signal::Signals::install()?, trigger, second));
    let serving = async {
        let bound = app::start(config, keyring, drain.clone()).await?;
        drain.signaled().await;
        bound.join().await;
        tracing::info!("stopped");
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = serving => ended,
        () = stop.cancelled() => Err(anyhow::anyhow!("stopped at once, on the second signal")),
    };
    drop(keep);
    ended
}
