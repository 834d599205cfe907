//! Options that commands share: where the admin API is, whose things are meant, how a write behaves, what is printed.

use std::path::PathBuf;

use clap::Args;

/// Where the admin API is, and in which form results are printed.
#[derive(Clone, Debug, Args)]
#[group(skip)]
#[command(next_help_heading = "Connection and output")]
pub struct Target {
    /// Data directory of the running `nemo standalone`
    #[arg(long, value_name = "DIR", env = "NEMO_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Admin gRPC API of a control plane elsewhere
    #[arg(long, alias = "admin-url", value_name = "URL", env = "NEMO_ADMIN_URL", requires = "token")]
    pub url: Option<String>,
    /// Admin token for --url; better as the variable
    #[arg(
        long,
        alias = "admin-token",
        value_name = "TOKEN",
        env = "NEMO_ADMIN_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Certificate authority of an https:// --url (PEM)
    #[arg(long, value_name = "FILE", env = "NEMO_ADMIN_CA")]
    pub ca: Option<PathBuf>,
    /// Print JSON, with the fields of the admin API
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print only ids, and secrets where there is one
    #[arg(long, short)]
    pub quiet: bool,
}

/// For what every organization has of its own.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Org {
    /// Organization by name or id [default: default, else the oldest]
    #[arg(long, value_name = "ORG", env = "NEMO_ORG")]
    pub org: Option<String>,
}

/// For what belongs to the operator or to one organization.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Owner {
    /// Those of this organization (name or id); absent: the operator's, shared with every organization
    #[arg(long, value_name = "ORG", env = "NEMO_ORG")]
    pub org: Option<String>,
}

/// For commands that change something.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Write {
    /// Return only when every live node has applied the change
    #[arg(long)]
    pub wait: bool,
    /// Only check whether the control plane would accept this
    #[arg(long)]
    pub validate_only: bool,
    #[command(flatten)]
    pub target: Target,
}

/// For commands that delete something.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Delete {
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub write: Write,
}
