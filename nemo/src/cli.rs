//! What can be typed. Every command has examples in its help.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Nemo Router: a self-hosted, OpenAI-compatible gateway to language models.
#[derive(Debug, Parser)]
#[command(
    name = "nemo",
    version,
    after_help = "\
Examples:
  nemo standalone                      start everything on this machine
  OPENAI_API_KEY=sk-… nemo standalone  the same, with the models of OpenAI
  nemo keys create --name ci           issue another key
  nemo requests list                   what was asked, and what it cost"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the gateway with everything it needs: both planes and a database, in one process
    Standalone(Box<Standalone>),
    /// Virtual keys: what clients authenticate with
    #[command(subcommand)]
    Keys(Keys),
    /// Models that can be asked for
    #[command(subcommand)]
    Models(Models),
    /// The request log
    #[command(subcommand)]
    Requests(Requests),
    /// Providers that this build knows, with the variables that configure them
    #[command(after_help = "Examples:\n  nemo providers\n  nemo providers --json")]
    Providers {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a nemo.toml without starting anything
    #[command(after_help = "Examples:\n  nemo check-config nemo.toml")]
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nemo standalone
  OPENAI_API_KEY=sk-… GROQ_API_KEY=gsk_… nemo standalone
  OLLAMA_HOST=127.0.0.1:11434 nemo standalone
  nemo standalone --config nemo.toml --listen 0.0.0.0:8080
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
    /// Providers, deployments, model groups and keys (TOML), instead of the environment
    #[arg(long, value_name = "FILE", env = "NEMO_CONFIG")]
    pub config: Option<PathBuf>,
    /// A PostgreSQL server to use instead of starting one
    #[arg(long, value_name = "URL", env = "NEMO_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: Option<String>,
    /// Whom PostgreSQL runs as when this is started by root [default: postgres, else nobody]
    #[arg(long, value_name = "USER", env = "NEMO_POSTGRES_USER")]
    pub postgres_user: Option<String>,
    /// What nodes elsewhere must show to connect; needed when --grpc-listen is not loopback
    #[arg(long, value_name = "TOKEN", env = "NEMO_NODE_TOKEN", hide_env_values = true)]
    pub node_token: Option<String>,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORM", env = "NEMO_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Pause between the words of the demo model
    #[arg(long, value_name = "MILLISECONDS", env = "NEMO_DEMO_DELAY_MS", default_value_t = 0)]
    pub demo_delay_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Where the admin API is.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Data directory of the running `nemo standalone`
    #[arg(long, value_name = "DIR", env = "NEMO_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Admin gRPC API of a control plane elsewhere, with NEMO_ADMIN_TOKEN
    #[arg(long, value_name = "URL", env = "NEMO_ADMIN_URL", requires = "admin_token")]
    pub admin_url: Option<String>,
    /// Token for --admin-url; better as the variable
    #[arg(long, value_name = "TOKEN", env = "NEMO_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Organization by name or id [default: default, else the oldest]
    #[arg(long, value_name = "ORG")]
    pub org: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Issue a key; its secret is printed once
    #[command(after_help = "\
Examples:
  nemo keys create
  nemo keys create --name ci --team build --models gpt-5-mini,openai/* --expires 30d
  KEY=$(nemo keys create --json | jq -r .secret)")]
    Create {
        /// To tell keys apart [default: the date and time]
        #[arg(long)]
        name: Option<String>,
        /// Team by name; made if it does not exist
        #[arg(long, default_value = "default")]
        team: String,
        /// Models that the key may use; absent: all
        #[arg(long, value_delimiter = ',', value_name = "MODELS")]
        models: Vec<String>,
        /// After this the key stops working: 90m, 12h, 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Seconds>,
        #[command(flatten)]
        target: Target,
    },
    /// List keys
    #[command(after_help = "Examples:\n  nemo keys list\n  nemo keys list --json")]
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Give a key a new secret
    #[command(
        after_help = "Examples:\n  nemo keys rotate ci\n  nemo keys rotate ci --overlap 1h   the old secret works for another hour"
    )]
    Rotate {
        /// Name, id, or the first characters of its secret
        key: String,
        /// How long the old secret still works: 90m, 12h, 7d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        overlap: Option<Seconds>,
        #[command(flatten)]
        target: Target,
    },
    /// Stop a key from working, until it is enabled again
    #[command(after_help = "Examples:\n  nemo keys disable ci")]
    Disable {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        target: Target,
    },
    /// Let a disabled key work again
    #[command(after_help = "Examples:\n  nemo keys enable ci")]
    Enable {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a key
    #[command(after_help = "Examples:\n  nemo keys delete ci")]
    Delete {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum Models {
    /// List the models that have a deployment
    #[command(after_help = "\
Examples:
  nemo models list
  nemo models list --provider groq
  nemo models list --all --tag vision   of the whole catalog")]
    List {
        /// The whole catalog, also what no deployment serves
        #[arg(long)]
        all: bool,
        /// Of this provider only
        #[arg(long)]
        provider: Option<String>,
        /// With this tag only
        #[arg(long)]
        tag: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
pub enum Requests {
    /// List requests, the newest first
    #[command(
        after_help = "Examples:\n  nemo requests list\n  nemo requests list --outcome error --limit 50\n  nemo requests list --key ci --json"
    )]
    List {
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Of this model only
        #[arg(long)]
        model: Option<String>,
        /// Of this key only: name, id, or the first characters of its secret
        #[arg(long)]
        key: Option<String>,
        /// ok, error, cancelled or interrupted
        #[arg(long)]
        outcome: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Show all that is known about one request
    #[command(
        after_help = "Examples:\n  nemo requests show 0198f3c2-…   the id is in the header x-request-id"
    )]
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u32);

fn duration(text: &str) -> Result<Seconds, String> {
    let refuse = || format!("{text:?} is no length of time; expected for example 90m, 12h or 30d");
    let split = text.len().saturating_sub(1);
    let (number, unit) = (text.get(..split).ok_or_else(refuse)?, text.get(split..).ok_or_else(refuse)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(refuse()),
    };
    let number: u32 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(seconds).map(Seconds).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            let leaf = command.get_subcommands().next().is_none();
            let plain = ["version", "help"].contains(&command.get_name());
            if leaf && !plain {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n"), "{}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("90m"), Ok(Seconds(5400)));
        assert_eq!(duration("30d"), Ok(Seconds(2_592_000)));
        for text in ["", "d", "30", "-1d", "1y", "99999999999d", "4294967295d", "ä"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
