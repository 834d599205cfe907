//! The processes of a run: upstream, floors, gateway.

use std::net::SocketAddr;

use anyhow::Context as _;
use nemo_tests::client::Client;
use nemo_tests::eventually::patience;
use nemo_tests::process::{Process, Spec};

use super::Args;
use crate::floor::ClientKind;
use crate::proc;

/// A server to measure.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    pub(super) pid: u32,
    pub(super) api_key: String,
    pub(super) idle_kib: u64,
    /// `None` for a gateway that someone else runs.
    process: Option<Process>,
}

impl Target {
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        proc::resident(self.pid)
    }

    pub(super) fn note_idle_memory(&mut self) -> anyhow::Result<()> {
        self.idle_kib = self.memory()?;
        Ok(())
    }

    /// What it has written, for error messages.
    pub(super) fn log(&self) -> String {
        match &self.process {
            Some(process) if !process.log().is_empty() => format!("; it wrote:\n{}", process.log()),
            _ => String::new(),
        }
    }

    /// Waits until it answers a chat.
    async fn ready(&self, model: &str) -> anyhow::Result<()> {
        let client = Client::new(self.addr).bearer(&self.api_key);
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#);
        let probe = async || {
            let answer = client.post("/v1/chat/completions", &body).await?;
            anyhow::ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
            Ok(())
        };
        let what = format!("{} to answer a chat for model {model}", self.name);
        nemo_tests::eventually(&what, probe).await.with_context(|| format!("is it up?{}", self.log()))
    }
}

fn myself() -> anyhow::Result<Spec> {
    Ok(Spec::new(std::env::current_exe()?))
}

/// Starts the upstream.
pub(super) async fn upstream(args: &Args) -> anyhow::Result<Process> {
    let port = args.upstream_port.to_string();
    let process = myself()?.args(["upstream", "--port", &port]).core(args.core(args.load_core)).spawn()?;
    process.wait_line("listening on").await?;
    Ok(process)
}

/// Starts the floors, and starts or joins the gateway; all answer when this returns. Floors come first.
pub(super) async fn start(args: &Args) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for kind in &args.floor {
        targets.push(floor(args, *kind).await?);
    }
    anyhow::ensure!(!targets.is_empty(), "no floor to compare with");
    if let Some(url) = &args.gateway_url {
        targets.push(gateway(args, url)?);
    }
    for target in &targets {
        target.ready(&args.model).await?;
    }
    Ok(targets)
}

async fn floor(args: &Args, kind: ClientKind) -> anyhow::Result<Target> {
    let (name, client) = match kind {
        ClientKind::Legacy => ("floor", "legacy"),
        ClientKind::Raw => ("floor-raw", "raw"),
    };
    let upstream = format!("127.0.0.1:{}", args.upstream_port);
    let spec = myself()?.args(["floor", "--upstream", &upstream, "--client", client]);
    let process = spec.core(args.core(args.target_core)).spawn()?;
    let addr = process
        .wait_for("its address", patience(), |line| line.strip_prefix("listening on http://")?.parse().ok());
    let addr = addr.await?;
    let (name, api_key, pid) = (name.to_owned(), args.api_key.clone(), process.pid());
    Ok(Target { name, addr, pid, api_key, idle_kib: 0, process: Some(process) })
}

fn gateway(args: &Args, url: &str) -> anyhow::Result<Target> {
    let addr = url.trim_end_matches('/').trim_start_matches("http://");
    let addr = addr.parse().with_context(|| format!("--gateway-url {url} is not http://<ip>:<port>"))?;
    let core = args.core(args.target_core);
    let (pid, process) = match (&args.gateway_cmd, args.gateway_pid) {
        (Some(command), _) => {
            let upstream = format!("http://127.0.0.1:{}/v1", args.upstream_port);
            let spec =
                Spec::new("sh").args(["-c", &format!("exec {command}")]).env("NEMO_BENCH_UPSTREAM", upstream);
            let process = spec.core(core).spawn()?;
            (process.pid(), Some(process))
        }
        (None, Some(pid)) => {
            if let Some(core) = core {
                pin(pid, core)?;
            }
            (pid, None)
        }
        (None, None) => {
            anyhow::bail!("--gateway-url needs --gateway-pid or --gateway-cmd: whose CPU time counts?")
        }
    };
    Ok(Target { name: "gateway".into(), addr, pid, api_key: args.api_key.clone(), idle_kib: 0, process })
}

/// Moves all threads of a running process to one core.
fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let output =
        std::process::Command::new("taskset").args(["-acp", &core.to_string(), &pid.to_string()]).output()?;
    anyhow::ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
