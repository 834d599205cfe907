//! What the processes of one gateway share: ports, keys, a database, a directory; and how each of them is started.
//!
//! Used by [`crate::fleet`] for tests and by the bench for the gateway that it measures.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::client::Client;
use crate::eventually::eventually_within;
use crate::ports::free_port;
use crate::process::{Process, Spec};

/// Starting three processes on a busy machine.
const START: Duration = Duration::from_secs(60);
const SEAL_KEY: &str = "6f0e1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100";
pub const NODE_TOKEN: &str = "node-token-for-tests-only";

/// Where the processes listen.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub data: SocketAddr,
    pub ops: SocketAddr,
    pub rest: SocketAddr,
    pub grpc: SocketAddr,
    pub control_ops: SocketAddr,
}

impl Ports {
    fn free() -> anyhow::Result<Self> {
        let next = || anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        Ok(Self { data: next()?, ops: next()?, rest: next()?, grpc: next()?, control_ops: next()? })
    }
}

/// The place of one gateway. Its directory goes when it is dropped.
#[derive(Debug)]
pub struct Site {
    pub ports: Ports,
    dir: TempDir,
    postgres_url: String,
    /// What the processes log: a filter as in `NEMO_LOG`.
    pub log: &'static str,
    /// Settings of the data plane, as `NEMO_…` variables.
    pub node_settings: Vec<(String, String)>,
    /// Settings of the control plane.
    pub control_settings: Vec<(String, String)>,
}

impl Site {
    pub fn new(postgres_url: &str) -> anyhow::Result<Self> {
        let (ports, dir) = (Ports::free()?, tempfile::tempdir()?);
        std::fs::write(dir.path().join("seal-key"), SEAL_KEY)?;
        let (node_settings, control_settings) = (Vec::new(), Vec::new());
        let postgres_url = postgres_url.into();
        Ok(Self { ports, dir, postgres_url, log: "info", node_settings, control_settings })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `nemo standalone`.
    pub fn standalone(&self) -> anyhow::Result<Spec> {
        let ports = self.ports;
        let settings = self.control_settings.iter();
        let spec = settings.fold(self.node_spec("nemo")?, |spec, (name, value)| spec.env(name, value));
        Ok(spec
            .arg("standalone")
            .arg("--data-dir")
            .arg(self.dir().join("data"))
            .args(["--postgres-url", &self.postgres_url])
            .args(["--listen", &ports.data.to_string(), "--ops-listen", &ports.ops.to_string()])
            .args(["--admin-listen", &ports.rest.to_string(), "--grpc-listen", &ports.grpc.to_string()])
            .args(["--admin-ops-listen", &ports.control_ops.to_string()]))
    }

    /// `nemo-control-plane serve`.
    pub fn control_plane(&self) -> anyhow::Result<Spec> {
        let ports = self.ports;
        Ok(self
            .control_plane_spec()?
            .arg("serve")
            .args(["--rest-addr", &ports.rest.to_string(), "--grpc-addr", &ports.grpc.to_string()])
            .args(["--metrics-addr", &ports.control_ops.to_string()]))
    }

    fn control_plane_spec(&self) -> anyhow::Result<Spec> {
        let settings = self.control_settings.iter();
        let spec =
            settings.fold(self.spec("nemo-control-plane")?, |spec, (name, value)| spec.env(name, value));
        Ok(spec
            .env("NEMO_POSTGRES_URL", &self.postgres_url)
            .env("NEMO_SEAL_KEY_FILE", self.dir().join("seal-key"))
            .env("NEMO_NODE_TOKEN", NODE_TOKEN))
    }

    /// `nemo-data-plane`.
    pub fn data_plane(&self) -> anyhow::Result<Spec> {
        self.data_plane_of(&format!("http://{}", self.ports.grpc))
    }

    /// The same, with the addresses of these control planes.
    pub fn data_plane_of(&self, control_planes: &str) -> anyhow::Result<Spec> {
        let ports = self.ports;
        Ok(self
            .node_spec("nemo-data-plane")?
            .env("NEMO_SEAL_KEY_FILE", self.dir().join("seal-key"))
            .env("NEMO_NODE_TOKEN", NODE_TOKEN)
            .args(["--listen", &ports.data.to_string(), "--ops-listen", &ports.ops.to_string()])
            .arg("--data-dir")
            .arg(self.dir().join("node"))
            .arg(format!("--control-plane={control_planes}")))
    }

    fn node_spec(&self, binary: &str) -> anyhow::Result<Spec> {
        let settings = self.node_settings.iter();
        // No load balancer is in front of a test.
        let spec = self.spec(binary)?.env("NEMO_DRAIN__NOTICE_MS", "0");
        // Nor is an upstream of a test on the internet, whoever it belongs to.
        let spec = spec.env("NEMO_ORGANIZATION_NETWORKS", "127.0.0.0/8");
        Ok(settings.fold(spec, |spec, (name, value)| spec.env(name, value)))
    }

    fn spec(&self, binary: &str) -> anyhow::Result<Spec> {
        Ok(Spec::new(binary_path(binary)?).clear_env().env("NEMO_LOG", self.log).env("NO_COLOR", "1"))
    }

    /// Makes an operator's token as the operator would, with `nemo-control-plane admin-token`.
    pub async fn operator_token(&self) -> anyhow::Result<String> {
        let process = self.control_plane_spec()?.args(["admin-token", "--name", "tests"]).spawn()?;
        let line = process.wait_line("adm-nemo-").await?;
        anyhow::ensure!(process.wait_exit().await?.success(), "admin-token failed:\n{}", process.log());
        let token = line.split_whitespace().find(|word| word.starts_with("adm-nemo-"));
        Ok(token.context("no token in the output")?.to_owned())
    }
}

/// Waits until `/readyz` on the ops port says so.
pub async fn wait_ready(process: &Process, ops: SocketAddr) -> anyhow::Result<()> {
    let ready = eventually_within(START, "the process is ready", async || {
        anyhow::ensure!(process.status().is_none(), "it has ended");
        let response = Client::new(ops).get("/readyz").await?;
        anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(())
    });
    ready.await.with_context(|| format!("the log:\n{}", process.log()))
}

/// A binary of this workspace, built beside this one.
pub fn binary_path(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().skip(1).take(3).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built: run `cargo build --workspace --bins` (make test does)")
    })
}
