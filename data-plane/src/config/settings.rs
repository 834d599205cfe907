//! Bootstrap settings of a node: ports, directories, deadlines. Read once, at start, by the binaries.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use nemo_runtime::{
    config_file::{self, ConfigError},
    otlp::OtlpSettings,
    tls::{Identity, PlaintextRefused, check_plaintext},
};
use serde::{Deserialize, Deserializer, de::Error as _};

const DEFAULTS: &str = include_str!("../config.default.toml");

/// See `config.default.toml` for what each is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub control_plane: String,
    pub control_plane_ca: PathBuf,
    pub control_plane_tls: Identity,
    pub tls: Identity,
    pub ops_tls: Identity,
    pub allow_plaintext: bool,
    pub upstream_ca: PathBuf,
    pub gcp_token_url: String,
    pub data_dir: PathBuf,
    pub zone: String,
    pub max_body_bytes: usize,
    pub max_upload_bytes: u64,
    pub max_in_flight: u32,
    pub max_connections: usize,
    /// Networks, separated by commas, of proxies whose `x-forwarded-for` is believed.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Box<[IpNet]>,
    /// Networks, separated by commas, that organizations' own deployments may be in besides the public ones.
    #[serde(deserialize_with = "networks")]
    pub organization_networks: Box<[IpNet]>,
    /// Networks, separated by commas, that images may be fetched from besides the public ones.
    #[serde(deserialize_with = "networks")]
    pub fetch_networks: Box<[IpNet]>,
    pub max_fetch_bytes: u64,
    pub timeouts: Timeouts,
    pub drain: Drain,
    pub journal: Journal,
    pub otlp: OtlpSettings,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    pub connect_ms: u64,
    pub body_ms: u64,
    pub body_idle_ms: u64,
    pub write_ms: u64,
    pub keep_alive_ms: u64,
    pub head_ms: u64,
    pub idle_ms: u64,
    pub total_ms: u64,
    pub config_wait_ms: u64,
    pub lease_wait_ms: u64,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    pub notice_ms: u64,
    pub deadline_ms: u64,
    pub flush_ms: u64,
}

/// The usage journal.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    pub max_bytes: u64,
    pub sync_ms: u64,
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[IpNet]>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let network = |text: &str| {
        let single = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        let parsed = text.parse::<IpNet>().or_else(|_| single());
        parsed.map_err(|_| {
            D::Error::custom(format!("{text:?} is no network, expected for example 10.0.0.0/8, 192.0.2.1"))
        })
    };
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(network).collect()
}

impl Settings {
    /// Defaults, then `file`, then variables `NEMO_<SETTING>`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut settings: Self = config_file::load(DEFAULTS, file, "NEMO_")?;
        settings.otlp.or_environment();
        Ok(settings)
    }

    /// The defaults alone, whatever the environment holds.
    ///
    /// # Errors
    /// Never with the defaults of this build.
    pub fn defaults() -> Result<Self, ConfigError> {
        config_file::load_from(DEFAULTS, None, [], "NEMO_")
    }

    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.connect_ms)
    }

    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.body_ms)
    }

    pub fn body_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.body_idle_ms)
    }

    /// How long a client may take nothing of its answer.
    pub fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.write_ms)
    }

    /// Silence after which a stream gets a comment; `None`: never.
    pub fn keep_alive(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.timeouts.keep_alive_ms)).filter(|every| !every.is_zero())
    }

    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.head_ms)
    }

    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.idle_ms)
    }

    pub fn total_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.total_ms)
    }

    /// How long `x-nemo-min-config-version` waits.
    pub fn config_wait(&self) -> Duration {
        Duration::from_millis(self.timeouts.config_wait_ms)
    }

    /// How long a request waits for a part of a budget.
    pub fn lease_wait(&self) -> Duration {
        Duration::from_millis(self.timeouts.lease_wait_ms)
    }

    /// Addresses of the control plane's replicas.
    pub fn control_planes(&self) -> Vec<&str> {
        self.control_plane.split(',').map(str::trim).filter(|uri| !uri.is_empty()).collect()
    }

    pub fn drain_notice(&self) -> Duration {
        Duration::from_millis(self.drain.notice_ms)
    }

    /// Plaintext stays on this machine, unless the operator says otherwise.
    ///
    /// # Errors
    /// When another machine could reach a port without TLS.
    pub fn check_plaintext(&self) -> Result<(), PlaintextRefused> {
        let data = ("--tls-cert and --tls-key", &self.tls);
        check_plaintext(("--listen", self.listen), data, self.allow_plaintext)?;
        let ops = ("--ops-tls-cert and --ops-tls-key", &self.ops_tls);
        check_plaintext(("--ops-listen", self.ops_listen), ops, self.allow_plaintext)
    }

    pub fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.drain.deadline_ms)
    }

    pub fn flush_deadline(&self) -> Duration {
        Duration::from_millis(self.drain.flush_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_complete_and_safe() {
        let settings = Settings::defaults().unwrap();
        assert!(settings.listen.ip().is_loopback() && settings.ops_listen.ip().is_loopback());
        assert!(settings.max_body_bytes >= 32 << 20, "C18: 32 MiB at least");
        assert!(settings.trusted_proxies.is_empty(), "nobody is believed unasked");
        assert!(settings.fetch_networks.is_empty(), "nothing private is fetched from unasked");
        assert!(settings.organization_networks.is_empty(), "nor do organizations call it");
        assert!(settings.max_fetch_bytes >= 64 << 20, "there is room for several requests");
    }

    fn load(file: &str) -> Result<Settings, ConfigError> {
        config_file::load_from(DEFAULTS, Some(("node.toml", file)), [], "NEMO_")
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let settings = load(
            "trusted_proxies = \"10.0.0.0/8, 192.0.2.1,2001:db8::/32\"\n\
                             control_plane = \"http://a:1, http://b:2,\"",
        )
        .unwrap();
        let networks: Vec<_> = settings.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        assert_eq!(settings.control_planes(), ["http://a:1", "http://b:2"]);
        let error = load("trusted_proxies = \"10.0.0.0/8, everyone\"").unwrap_err().to_string();
        assert!(error.contains("\"everyone\" is no network"), "{error}");
    }
}
