//! `nemo standalone`: its options.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use nemo_control_plane::{
    admin::oidc::OidcOptions, catalog::sync::SyncOptions, credits::BillingOptions,
    retention::RetentionOptions,
};

use super::tls::PortTls;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nemo standalone
  OPENAI_API_KEY=sk-… GROQ_API_KEY=gsk_… nemo standalone
  OLLAMA_HOST=127.0.0.1:11434 nemo standalone
  nemo standalone --config nemo.toml --listen 0.0.0.0:8443 --tls-cert llm.pem --tls-key llm.key
  nemo standalone --postgres-url postgres://nemo:secret@db:5432/nemo

Without a provider in the environment or the file, a built-in demo answers. `nemo providers` lists the variables.
Stop with Ctrl-C: requests in flight are finished first; press it again to stop at once. NEMO_LOG=info shows the log.")]
pub struct Standalone {
    /// Where state lives [default: $XDG_DATA_HOME/nemo-router, for root /var/lib/nemo-router]
    #[arg(long, value_name = "DIR", env = "NEMO_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where API clients connect
    #[arg(long, value_name = "ADDRESS", env = "NEMO_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Admin REST API
    #[arg(long, value_name = "ADDRESS", env = "NEMO_ADMIN_LISTEN", default_value = "127.0.0.1:8081")]
    pub admin_listen: SocketAddr,
    /// Admin gRPC API
    #[arg(long, value_name = "ADDRESS", env = "NEMO_GRPC_LISTEN", default_value = "127.0.0.1:8082")]
    pub grpc_listen: SocketAddr,
    /// Health and metrics of the data plane [default: 127.0.0.1:9080, a free port when that is taken]
    #[arg(long, value_name = "ADDRESS", env = "NEMO_OPS_LISTEN")]
    pub ops_listen: Option<SocketAddr>,
    /// Health and metrics of the control plane [default: 127.0.0.1:9081, a free port when that is taken]
    #[arg(long, value_name = "ADDRESS", env = "NEMO_ADMIN_OPS_LISTEN")]
    pub admin_ops_listen: Option<SocketAddr>,
    /// Providers, deployments, model groups, keys, budgets and limits (TOML), instead of the environment
    #[arg(long, value_name = "FILE", env = "NEMO_CONFIG")]
    pub config: Option<PathBuf>,
    /// A PostgreSQL server to use instead of starting one
    #[arg(long, value_name = "URL", env = "NEMO_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: Option<String>,
    /// Whom PostgreSQL runs as when this is started by root [default: postgres, else nobody]
    #[arg(long, value_name = "USER", env = "NEMO_POSTGRES_USER")]
    pub postgres_user: Option<String>,
    /// What nodes elsewhere must show to connect; this or --node-ca is needed when --grpc-listen is not loopback
    #[arg(long, value_name = "TOKEN", env = "NEMO_NODE_TOKEN", hide_env_values = true)]
    pub node_token: Option<String>,
    /// Let ports be plaintext on other addresses than loopback: for when a proxy in front does TLS
    #[arg(long, env = "NEMO_ALLOW_PLAINTEXT")]
    pub allow_plaintext: bool,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORM", env = "NEMO_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Pause between the words of the demo model
    #[arg(long, value_name = "MILLISECONDS", env = "NEMO_DEMO_DELAY_MS", default_value_t = 0)]
    pub demo_delay_ms: u64,
    #[command(flatten)]
    pub tls: PortTls,
    #[command(flatten)]
    pub oidc: OidcOptions,
    #[command(flatten)]
    pub retention: RetentionOptions,
    #[command(flatten)]
    pub billing: BillingOptions,
    #[command(flatten)]
    pub catalog: SyncOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}
