//! Bootstrap settings: where to listen, which database, which secrets. Everything else is configuration in the
//! database, changed through the admin API.
//!
//! `main.rs` reads them from defaults, file, environment and options; `nemo standalone` and tests fill [`Config`] by
//! hand.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nemo_runtime::{
    config_file,
    telemetry::TelemetrySettings,
    tls::{Identity, PlaintextRefused, check_plaintext},
};
use nemo_types::{Keyring, Secret};
use serde::{Deserialize, Deserializer};

use crate::{
    admin::oidc::{OidcError, OidcOptions, OidcSettings},
    catalog::sync::{BadSource, SyncOptions, SyncSettings},
    coordination::EtcdSettings,
    credits::{
        BillingOptions,
        payments::{BadSecrets, Payments},
    },
    fleet::{NodeToken, auth::WeakNodeToken},
    quota,
    retention::{Retention, TooShort},
    store::PoolSizes,
};

const DEFAULTS: &str = include_str!("config.default.toml");
/// Prefix of the environment variables: `NEMO_REST_ADDR`, `NEMO_POSTGRES_URL`, …
const ENV_PREFIX: &str = "NEMO_";

/// How long a start waits for the database.
pub const DATABASE_PATIENCE: Duration = Duration::from_secs(60);

/// What [`crate::app::start`] needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Admin REST API.
    pub rest_addr: SocketAddr,
    /// Nodes and admin gRPC API.
    pub grpc_addr: SocketAddr,
    /// Health and metrics.
    pub metrics_addr: SocketAddr,
    /// `postgres://…`; may hold a password.
    pub postgres_url: Secret,
    pub pools: PoolSizes,
    /// This or `node_ca` is required unless `grpc_addr` is loopback.
    pub node_token: Option<NodeToken>,
    /// REST and gRPC.
    pub tls: Identity,
    /// Health and metrics.
    pub ops_tls: Identity,
    /// Nodes must show a certificate that an authority in this PEM file signed.
    pub node_ca: Option<PathBuf>,
    /// Ports that other machines can reach may do without TLS.
    pub allow_plaintext: bool,
    /// How long the start waits for the database.
    pub database_patience: Duration,
    pub retention: Retention,
    /// How budgets and rate limits are divided among the nodes.
    pub quota: quota::Settings,
    /// Whose tokens the admin API accepts beside its own.
    pub oidc: Option<OidcSettings>,
    /// Where replicas meet; without endpoints this is the only one.
    pub etcd: EtcdSettings,
    /// The payment provider whose events are taken.
    pub payments: Option<Payments>,
    /// Webhooks of organizations may go to private networks.
    pub private_webhooks: bool,
    /// Where the catalog is kept current from.
    pub catalog_sync: SyncSettings,
}

impl Config {
    /// All ports on loopback, chosen by the kernel: for tests and `nemo standalone`.
    pub fn local(postgres_url: Secret) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            rest_addr: any,
            grpc_addr: any,
            metrics_addr: any,
            postgres_url,
            pools: PoolSizes::default(),
            node_token: None,
            tls: Identity::default(),
            ops_tls: Identity::default(),
            node_ca: None,
            allow_plaintext: false,
            database_patience: DATABASE_PATIENCE,
            retention: Retention::default(),
            quota: quota::Settings::default(),
            oidc: None,
            etcd: EtcdSettings::default(),
            payments: None,
            private_webhooks: false,
            catalog_sync: SyncSettings::default(),
        }
    }

    /// # Errors
    /// [`ConfigError::NodeTokenRequired`] when nodes elsewhere could connect without a token and without a certificate;
    /// [`ConfigError::Plaintext`] when another machine could reach a port without TLS;
    /// [`ConfigError::Retention`] when rollups would be dropped before all usage has arrived.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.node_token.is_none() && self.node_ca.is_none() && !self.grpc_addr.ip().is_loopback() {
            return Err(ConfigError::NodeTokenRequired(self.grpc_addr));
        }
        if self.node_ca.is_some() && self.tls.given().is_ok_and(|tls| tls.is_none()) {
            return Err(ConfigError::NodeCaWithoutTls);
        }
        let tls = ("--tls-cert and --tls-key", &self.tls);
        check_plaintext(("--rest-addr", self.rest_addr), tls, self.allow_plaintext)?;
        check_plaintext(("--grpc-addr", self.grpc_addr), tls, self.allow_plaintext)?;
        let ops = ("--ops-tls-cert and --ops-tls-key", &self.ops_tls);
        check_plaintext(("--metrics-addr", self.metrics_addr), ops, self.allow_plaintext)?;
        self.retention.check()?;
        self.quota.check()?;
        Ok(())
    }
}

/// The settings file with its layers, as TOML names them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub rest_addr: SocketAddr,
    pub grpc_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    #[serde(deserialize_with = "secret")]
    pub postgres_url: Secret,
    pub app_connections: u32,
    pub system_connections: u32,
    #[serde(deserialize_with = "secret")]
    pub node_token: Secret,
    pub node_token_file: PathBuf,
    pub node_ca: PathBuf,
    pub tls: Identity,
    pub ops_tls: Identity,
    pub allow_plaintext: bool,
    #[serde(deserialize_with = "secret")]
    pub seal_key: Secret,
    pub seal_key_file: PathBuf,
    pub retention: Retention,
    pub quota: quota::Settings,
    pub oidc_issuer: String,
    pub oidc_audience: String,
    pub oidc_subject_claim: String,
    pub oidc_email_claim: String,
    pub oidc_trust_email: bool,
    pub oidc_groups_claim: String,
    pub oidc_roles: String,
    pub oidc_ca_file: PathBuf,
    /// Separated by commas.
    pub etcd_endpoints: String,
    pub etcd_user: String,
    #[serde(deserialize_with = "secret")]
    pub etcd_password: Secret,
    pub etcd_password_file: PathBuf,
    pub etcd_ca: PathBuf,
    pub etcd_tls: Identity,
    #[serde(deserialize_with = "secret")]
    pub payments_webhook_secret: Secret,
    pub payments_webhook_secret_file: PathBuf,
    pub webhooks_allow_private: bool,
    /// Separated by commas.
    pub catalog_sources: String,
    pub catalog_sync_hours: u32,
    pub catalog_deploy_new: bool,
    pub logging: TelemetrySettings,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] config_file::ConfigError),
    #[error(
        "no database: set --postgres-url or NEMO_POSTGRES_URL, for example postgres://user:password@host:5432/nemo"
    )]
    NoDatabase,
    #[error(
        "no sealing key: set NEMO_SEAL_KEY or --seal-key-file to 64 hexadecimal digits (`openssl rand -hex 32` makes \
         one); every node needs the same"
    )]
    NoSealKey,
    #[error("{origin}: {error}")]
    SealKey { origin: String, error: nemo_types::SealError },
    #[error("{origin}: {error}")]
    NodeToken { origin: String, error: WeakNodeToken },
    #[error("can't read {path}: {error}", path = path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(
        "--grpc-addr {0} can be reached from other machines, so nodes must show a token: set NEMO_NODE_TOKEN or \
         --node-token-file (`openssl rand -hex 32` makes one), and the same on every node"
    )]
    NodeTokenRequired(SocketAddr),
    #[error("--node-ca asks nodes for certificates, which needs TLS: give --tls-cert and --tls-key as well")]
    NodeCaWithoutTls,
    #[error(transparent)]
    Plaintext(#[from] PlaintextRefused),
    #[error(transparent)]
    Retention(#[from] TooShort),
    #[error(transparent)]
    Quota(#[from] quota::settings::BadSettings),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error(
        "etcd_endpoints: expected http://host:port or https://host:port, several separated by commas, got {0:?}"
    )]
    EtcdEndpoint(String),
    #[error(
        "etcd_endpoints: {0} is plaintext and on another machine, where a password would be read: use https://, or \
         set allow_plaintext when a mesh does TLS"
    )]
    EtcdPlaintext(String),
    #[error("{origin}: {error}")]
    Payments { origin: String, error: BadSecrets },
    #[error("etcd_user and etcd_password (or etcd_password_file) go together")]
    EtcdUser,
    #[error("catalog_sources: {0}")]
    CatalogSource(#[from] BadSource),
    #[error("{name}: expected 1 to 1000 connections, got {value}")]
    Connections { name: &'static str, value: u32 },
}

impl Settings {
    /// Defaults, then `file`, then the environment.
    ///
    /// # Errors
    /// Everything that is unknown, mistyped or unreadable, with its place.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(config_file::load(DEFAULTS, file, ENV_PREFIX)?)
    }

    /// The sealing keys, from the key itself or its file.
    ///
    /// # Errors
    /// When there is none or it is malformed.
    pub fn keyring(&self) -> Result<Keyring, ConfigError> {
        let (origin, text) = from_file_or_text("seal_key", &self.seal_key, &self.seal_key_file)?
            .ok_or(ConfigError::NoSealKey)?;
        Keyring::parse(text.expose()).map_err(|error| ConfigError::SealKey { origin, error })
    }

    /// What is set in options wins.
    pub fn set_oidc(&mut self, options: OidcOptions) {
        let oidc = options.or(self.oidc());
        self.oidc_issuer = oidc.issuer.unwrap_or_default();
        self.oidc_audience = oidc.audience.unwrap_or_default();
        self.oidc_subject_claim = oidc.subject_claim.unwrap_or_default();
        self.oidc_email_claim = oidc.email_claim.unwrap_or_default();
        self.oidc_trust_email = oidc.trust_email.unwrap_or_default();
        self.oidc_groups_claim = oidc.groups_claim.unwrap_or_default();
        self.oidc_roles = oidc.roles.unwrap_or_default();
        self.oidc_ca_file = oidc.ca_file.unwrap_or_default();
    }

    fn oidc(&self) -> OidcOptions {
        OidcOptions {
            issuer: Some(self.oidc_issuer.clone()),
            audience: Some(self.oidc_audience.clone()),
            subject_claim: Some(self.oidc_subject_claim.clone()),
            email_claim: Some(self.oidc_email_claim.clone()),
            trust_email: Some(self.oidc_trust_email),
            groups_claim: Some(self.oidc_groups_claim.clone()),
            roles: Some(self.oidc_roles.clone()),
            ca_file: Some(self.oidc_ca_file.clone()),
        }
    }

    /// What is set in options wins.
    pub fn set_billing(&mut self, options: BillingOptions) {
        if let Some(secret) = options.payments_webhook_secret {
            self.payments_webhook_secret = Secret::new(secret);
        }
        if let Some(file) = options.payments_webhook_secret_file {
            self.payments_webhook_secret_file = file;
        }
        self.webhooks_allow_private = options.webhooks_allow_private.unwrap_or(self.webhooks_allow_private);
    }

    /// What is set in options wins.
    pub fn set_catalog(&mut self, options: SyncOptions) {
        self.catalog_sources =
            options.catalog_sources.unwrap_or_else(|| std::mem::take(&mut self.catalog_sources));
        self.catalog_sync_hours = options.catalog_sync_hours.unwrap_or(self.catalog_sync_hours);
        self.catalog_deploy_new = options.catalog_deploy_new.unwrap_or(self.catalog_deploy_new);
    }

    fn payments(&self) -> Result<Option<Payments>, ConfigError> {
        let (secret, file) = (&self.payments_webhook_secret, &self.payments_webhook_secret_file);
        match from_file_or_text("payments_webhook_secret", secret, file)? {
            Some((origin, secret)) => {
                Payments::new(&secret).map_err(|error| ConfigError::Payments { origin, error })
            }
            None => Ok(None),
        }
    }

    fn etcd(&self) -> Result<EtcdSettings, ConfigError> {
        let endpoints = self.etcd_endpoints.split(',').map(str::trim).filter(|it| !it.is_empty());
        let endpoints: Vec<String> = endpoints.map(str::to_owned).collect();
        for endpoint in &endpoints {
            let malformed = || ConfigError::EtcdEndpoint(endpoint.clone());
            let uri: http::Uri = endpoint.parse().map_err(|_| malformed())?;
            if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.port().is_none() {
                return Err(malformed());
            }
        }
        let password = from_file_or_text("etcd_password", &self.etcd_password, &self.etcd_password_file)?;
        let user = match (self.etcd_user.trim(), password) {
            ("", None) => None,
            (user, Some((_, password))) if !user.is_empty() => Some((user.to_owned(), password)),
            _ => return Err(ConfigError::EtcdUser),
        };
        let plaintext = endpoints.iter().find(|it| it.starts_with("http://") && !is_loopback(it));
        if let Some(endpoint) = plaintext.filter(|_| user.is_some() && !self.allow_plaintext) {
            return Err(ConfigError::EtcdPlaintext(endpoint.clone()));
        }
        let ca = Some(self.etcd_ca.clone()).filter(|path| !path.as_os_str().is_empty());
        Ok(EtcdSettings { endpoints, user, ca, identity: self.etcd_tls.clone() })
    }

    /// # Errors
    /// When the settings are incomplete or contradict each other.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        if self.postgres_url.expose().is_empty() {
            return Err(ConfigError::NoDatabase);
        }
        for (name, value) in
            [("app_connections", self.app_connections), ("system_connections", self.system_connections)]
        {
            if !(1..=1000).contains(&value) {
                return Err(ConfigError::Connections { name, value });
            }
        }
        let node_token = match from_file_or_text("node_token", &self.node_token, &self.node_token_file)? {
            Some((origin, text)) => Some(
                NodeToken::new(text.expose()).map_err(|error| ConfigError::NodeToken { origin, error })?,
            ),
            None => None,
        };
        let (oidc, etcd, payments) = (self.oidc().check()?, self.etcd()?, self.payments()?);
        let catalog_sync =
            SyncSettings::parse(&self.catalog_sources, self.catalog_sync_hours, self.catalog_deploy_new)?;
        let config = Config {
            rest_addr: self.rest_addr,
            grpc_addr: self.grpc_addr,
            metrics_addr: self.metrics_addr,
            postgres_url: self.postgres_url,
            pools: PoolSizes { app: self.app_connections, system: self.system_connections },
            node_token,
            tls: self.tls,
            ops_tls: self.ops_tls,
            node_ca: Some(self.node_ca).filter(|path| !path.as_os_str().is_empty()),
            allow_plaintext: self.allow_plaintext,
            database_patience: DATABASE_PATIENCE,
            retention: self.retention,
            quota: self.quota,
            oidc,
            etcd,
            payments,
            private_webhooks: self.webhooks_allow_private,
            catalog_sync,
        };
        config.check()?;
        Ok(config)
    }
}

fn is_loopback(endpoint: &str) -> bool {
    let uri: Option<http::Uri> = endpoint.parse().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A secret and where it came from; the file wins. `None` when neither is set.
fn from_file_or_text(
    name: &str,
    text: &Secret,
    file: &Path,
) -> Result<Option<(String, Secret)>, ConfigError> {
    if !file.as_os_str().is_empty() {
        let unreadable = |error| ConfigError::Unreadable { path: file.to_owned(), error };
        let content = fs::read_to_string(file).map_err(unreadable)?;
        return Ok(Some((file.display().to_string(), Secret::new(content.trim()))));
    }
    let is_set = !text.expose().trim().is_empty();
    Ok(is_set.then(|| (format!("{name} (NEMO_{})", name.to_uppercase()), text.clone())))
}

#[cfg(test)]
mod tests;
