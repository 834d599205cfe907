//! How commands find the `nemo standalone` of a data directory: it says where it listens, in a file. Written by
//! [`crate::standalone`], read by [`super::AdminClient`].

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::data_dir::{self, DataDir};

const RUNNING: &str = "standalone.json";

/// What a running `nemo standalone` tells its owner's other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub grpc_listen: SocketAddr,
    /// The certificate that the gRPC port shows; none: it speaks plaintext. Whoever may read this directory may trust
    /// exactly that certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_cert: Option<PathBuf>,
}

impl Running {
    /// # Errors
    /// When the data directory cannot be written.
    pub fn announce(&self, dir: &DataDir) -> anyhow::Result<()> {
        data_dir::write_file(&dir.file(RUNNING), &serde_json::to_vec_pretty(self)?, 0o644)
    }

    /// Takes the announcement back. What is left behind by a crash is told apart by the lock.
    pub fn withdraw(dir: &DataDir) {
        let _ = std::fs::remove_file(dir.file(RUNNING));
    }

    pub(super) fn find(dir: &DataDir) -> anyhow::Result<Self> {
        let path = dir.path().display();
        let not_running = || {
            let option = default_dir_option(dir.path());
            format!("nemo is not running on {path}; start it with `nemo standalone{option}`")
        };
        if !dir.in_use() {
            bail!(not_running());
        }
        let text = match std::fs::read(dir.file(RUNNING)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("nemo on {path} is still starting, or stopping; try again in a moment")
            }
            Err(error) => return Err(error).with_context(|| format!("{path}/{RUNNING} cannot be read")),
        };
        serde_json::from_slice(&text).with_context(|| format!("{path}/{RUNNING} is damaged; restart nemo"))
    }
}

/// ` --data-dir …` unless the directory is the default.
pub fn default_dir_option(dir: &Path) -> String {
    match data_dir::default_path() {
        Ok(default) if default == dir || default.canonicalize().is_ok_and(|default| default == dir) => {
            String::new()
        }
        _ => format!(" --data-dir {}", dir.display()),
    }
}

/// An address to connect to, for one that was listened on: `0.0.0.0` is everywhere, so also here.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port()))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_say_when_nothing_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (data, lock) = DataDir::open(dir.path()).unwrap();
        let starting = Running::find(&data).unwrap_err().to_string();
        assert!(starting.contains("still starting"), "{starting}");
        let addr = SocketAddr::from(([0, 0, 0, 0], 1));
        let running = Running {
            pid: 1,
            listen: addr,
            admin_listen: addr,
            grpc_listen: addr,
            admin_cert: Some("/etc/nemo/admin.pem".into()),
        };
        running.announce(&data).unwrap();
        assert_eq!(Running::find(&data).unwrap(), running);
        // A crash leaves the announcement behind, but not the lock.
        drop(lock);
        let error = Running::find(&data).unwrap_err().to_string();
        assert!(
            error.contains("nemo is not running") && error.contains("nemo standalone --data-dir"),
            "{error}"
        );
    }

    #[test]
    fn everywhere_is_also_here() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
