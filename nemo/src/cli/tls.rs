//! TLS of the ports of `nemo standalone`: the settings that the two planes have when they run apart.

use std::path::PathBuf;

use clap::Args;
use nemo_runtime::tls::Identity;

/// No port takes another's certificate: that of clients seldom names where operators and probes connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS (all PEM files; read again when they change, and on SIGHUP)")]
pub struct PortTls {
    /// Certificate chain of the data port
    #[arg(long, value_name = "FILE", env = "NEMO_TLS__CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "NEMO_TLS__KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificate chain of both admin APIs, REST and gRPC
    #[arg(long, value_name = "FILE", env = "NEMO_ADMIN_TLS__CERT", requires = "admin_tls_key")]
    admin_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "NEMO_ADMIN_TLS__KEY", requires = "admin_tls_cert")]
    admin_tls_key: Option<PathBuf>,
    /// Certificate chain of the data plane's health and metrics
    #[arg(long, value_name = "FILE", env = "NEMO_OPS_TLS__CERT", requires = "ops_tls_key")]
    ops_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "NEMO_OPS_TLS__KEY", requires = "ops_tls_cert")]
    ops_tls_key: Option<PathBuf>,
    /// Certificate chain of the control plane's health and metrics
    #[arg(long, value_name = "FILE", env = "NEMO_ADMIN_OPS_TLS__CERT", requires = "admin_ops_tls_key")]
    admin_ops_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "NEMO_ADMIN_OPS_TLS__KEY", requires = "admin_ops_tls_cert")]
    admin_ops_tls_key: Option<PathBuf>,
    /// Authority of the certificates that nodes elsewhere must show; needs TLS on the admin APIs
    #[arg(long, value_name = "FILE", env = "NEMO_NODE_CA", requires = "admin_tls_cert")]
    pub node_ca: Option<PathBuf>,
}

fn identity(cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Identity {
    Identity { cert: cert.cloned().unwrap_or_default(), key: key.cloned().unwrap_or_default() }
}

impl PortTls {
    pub fn data(&self) -> Identity {
        identity(self.tls_cert.as_ref(), self.tls_key.as_ref())
    }

    pub fn admin(&self) -> Identity {
        identity(self.admin_tls_cert.as_ref(), self.admin_tls_key.as_ref())
    }

    pub fn ops(&self) -> Identity {
        identity(self.ops_tls_cert.as_ref(), self.ops_tls_key.as_ref())
    }

    pub fn admin_ops(&self) -> Identity {
        identity(self.admin_ops_tls_cert.as_ref(), self.admin_ops_tls_key.as_ref())
    }
}
