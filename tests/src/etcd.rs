//! A real etcd as a child process: one member, free ports, a temporary directory. It can be killed and started again on
//! what it had.
//!
//! Debian's `etcd-server` is enough (`tools/setup.sh test` installs it); `NEMO_ETCD_BIN` names another binary.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::eventually::eventually_within;
use crate::ports::free_port;
use crate::process::{Process, Spec};

const START: Duration = Duration::from_secs(60);
/// Memory: etcd waits for the disk at each write, and a test learns nothing from that.
const MEMORY: &str = "/dev/shm";
/// What must be free there, in bytes. etcd takes 128 MiB before it holds anything, and several run at once.
const ROOM: u64 = 1 << 30;

/// A running etcd. Gone with its handle.
pub struct Etcd {
    dir: TempDir,
    client: u16,
    peer: u16,
    ops: u16,
    tls: Option<Tls>,
    process: Option<Process>,
}

/// Files of an etcd that asks for certificates, all PEM: whom it trusts, what it shows.
#[derive(Clone, Debug)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Etcd {
    /// Starts one and waits until it serves.
    ///
    /// # Errors
    /// When there is no etcd on this machine, or it does not start; with its log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_as(None).await
    }

    /// One that speaks TLS and wants a certificate of its clients.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(tls: Tls) -> anyhow::Result<Self> {
        Self::start_as(Some(tls)).await
    }

    async fn start_as(tls: Option<Tls>) -> anyhow::Result<Self> {
        let (client, peer, ops) = (free_port()?, free_port()?, free_port()?);
        let mut it = Self { dir: place()?, client, peer, ops, tls, process: None };
        it.restart().await?;
        Ok(it)
    }

    /// What `--etcd-endpoints` takes.
    pub fn endpoint(&self) -> String {
        match self.tls {
            Some(_) => format!("https://localhost:{}", self.client),
            None => format!("http://127.0.0.1:{}", self.client),
        }
    }

    /// Starts it again on the data that it had.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer));
        let mut spec = Spec::new(binary()?);
        if let Some(Tls { ca, cert, key }) = &self.tls {
            spec = spec.arg("--trusted-ca-file").arg(ca).arg("--cert-file").arg(cert);
            spec = spec.arg("--key-file").arg(key).arg("--client-cert-auth");
        }
        let process = spec
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client.replace("localhost", "127.0.0.1")])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", self.ops)])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"])
            .clear_env()
            .env("ETCD_UNSUPPORTED_ARCH", "arm64")
            .spawn()?;
        let serves = eventually_within(START, "etcd serves", async || {
            anyhow::ensure!(process.status().is_none(), "it has ended");
            self.serves().await
        });
        serves.await.with_context(|| format!("the log of etcd:\n{}", process.log()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks for its health.
    ///
    /// # Errors
    /// When it does not say that it is well.
    pub async fn serves(&self) -> anyhow::Result<()> {
        let response = Client::new(([127, 0, 0, 1], self.ops).into()).get("/health").await?;
        anyhow::ensure!(response.text().contains("true"), "{}", response.text());
        Ok(())
    }

    /// Ends it without notice.
    ///
    /// # Errors
    /// When it can't be signaled.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(Signal::KILL)?;
            process.wait_exit().await?;
        }
        Ok(())
    }

    /// Stops answering without closing a connection, as a partition does; until [`Self::thaw`].
    ///
    /// # Errors
    /// When it can't be signaled.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("etcd runs")?.signal(Signal::STOP)
    }

    /// # Errors
    /// When it can't be signaled.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("etcd runs")?.signal(Signal::CONT)
    }
}

fn place() -> std::io::Result<TempDir> {
    let room = rustix::fs::statvfs(MEMORY).is_ok_and(|it| it.f_bavail.saturating_mul(it.f_frsize) >= ROOM);
    // With a name that tells whoever finds it what it was: a test that is killed leaves it there.
    let in_memory = || tempfile::Builder::new().prefix("nemo-etcd-").tempdir_in(MEMORY).ok();
    room.then(in_memory).flatten().map_or_else(tempfile::tempdir, Ok)
}

fn binary() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("NEMO_ETCD_BIN") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file());
    found.context(
        "there is no etcd on the PATH: tools/setup.sh test installs etcd-server, or set NEMO_ETCD_BIN",
    )
}
