//! Bootstrap settings of a node: ports, directories, deadlines. Read once, at start, by the binaries.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nemo_runtime::config_file::{self, ConfigError};
use serde::Deserialize;

const DEFAULTS: &str = include_str!("../config.default.toml");

/// See `config.default.toml` for what each is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub control_plane: String,
    pub control_plane_ca: PathBuf,
    pub data_dir: PathBuf,
    pub zone: String,
    pub max_body_bytes: usize,
    pub max_in_flight: u32,
    pub timeouts: Timeouts,
    pub drain: Drain,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    pub connect_ms: u64,
    pub body_ms: u64,
    pub head_ms: u64,
    pub idle_ms: u64,
    pub total_ms: u64,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    pub deadline_ms: u64,
    pub flush_ms: u64,
}

impl Settings {
    /// Defaults, then `file`, then variables `NEMO_<SETTING>`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        config_file::load(DEFAULTS, file, "NEMO_")
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

    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.head_ms)
    }

    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.idle_ms)
    }

    pub fn total_timeout(&self) -> Duration {
        Duration::from_millis(self.timeouts.total_ms)
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
    }
}
