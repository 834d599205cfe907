//! The servers of a run: upstream, floors, and the gateway in one of its forms.

use std::net::SocketAddr;

use anyhow::Context as _;
use nemo_tests::client::Client;
use nemo_tests::eventually::patience;
use nemo_tests::process::{Process, Spec};

use super::gateway::Gateway;
use super::{Args, say};
use crate::floor::ClientKind;
use crate::proc;

/// A server to measure.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    pub(super) pid: u32,
    pub(super) api_key: String,
    pub(super) idle_kib: u64,
    running: Running,
}

/// What keeps it running.
enum Running {
    /// Someone else.
    Elsewhere,
    Process(Process),
    Product(Box<Gateway>),
}

impl Target {
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        proc::resident(self.pid)
    }

    pub(super) fn note_idle_memory(&mut self) -> anyhow::Result<()> {
        self.idle_kib = self.memory()?;
        Ok(())
    }

    /// CPU time since its start.
    pub(super) fn cpu_us(&self) -> anyhow::Result<f64> {
        Ok(proc::cpu_time(self.pid)?.as_secs_f64() * 1e6)
    }

    /// The product, if this is it and it was started here.
    pub(super) fn product(&self) -> Option<&Gateway> {
        if let Running::Product(gateway) = &self.running { Some(gateway) } else { None }
    }

    /// Ends it. The product gets to end by itself: one that is profiled writes its profile then.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.running {
            Running::Elsewhere | Running::Process(_) => Ok(()),
            Running::Product(gateway) => gateway.stop().await,
        }
    }

    /// What it has written, for error messages.
    pub(super) fn log(&self) -> String {
        let log = match &self.running {
            Running::Elsewhere => String::new(),
            Running::Process(process) => process.log(),
            Running::Product(gateway) => gateway.log(),
        };
        if log.is_empty() { log } else { format!("; it wrote:\n{log}") }
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

fn myself() -> Spec {
    Spec::new(proc::own_program())
}

/// The address that one of our own servers prints.
async fn address(process: &Process) -> anyhow::Result<SocketAddr> {
    let pick = |line: &str| line.strip_prefix("listening on http://")?.parse().ok();
    process.wait_for("its address", patience(), pick).await
}

/// Starts the upstream.
pub(super) async fn upstream(args: &Args) -> anyhow::Result<(Process, SocketAddr)> {
    let port = args.upstream_port.unwrap_or(0).to_string();
    let process = myself().args(["upstream", "--port", &port]).core(args.core(args.load_core)).spawn()?;
    let addr = address(&process).await?;
    Ok((process, addr))
}

/// Starts the floors, and starts or joins the gateway; all answer when this returns. Floors come first, the gateway
/// last.
pub(super) async fn start(args: &Args, upstream: SocketAddr) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for kind in &args.floor {
        targets.push(floor(args, *kind, upstream).await?);
    }
    anyhow::ensure!(!targets.is_empty(), "no floor to compare with");
    targets.push(match &args.gateway_url {
        Some(url) => foreign_gateway(args, url, upstream)?,
        None => product(args, upstream).await?,
    });
    for target in &targets {
        target.ready(&args.model).await?;
    }
    Ok(targets)
}

async fn floor(args: &Args, kind: ClientKind, upstream: SocketAddr) -> anyhow::Result<Target> {
    let (name, client) = match kind {
        ClientKind::Legacy => ("floor", "legacy"),
        ClientKind::Raw => ("floor-raw", "raw"),
    };
    let spec = myself().args(["floor", "--upstream", &upstream.to_string(), "--client", client]);
    let process = spec.core(args.core(args.target_core)).spawn()?;
    let addr = address(&process).await?;
    let (name, api_key, pid) = (name.to_owned(), args.api_key.clone(), process.pid());
    Ok(Target { name, addr, pid, api_key, idle_kib: 0, running: Running::Process(process) })
}

async fn product(args: &Args, upstream: SocketAddr) -> anyhow::Result<Target> {
    let gateway = Gateway::start(args, upstream).await?;
    Ok(Target {
        name: "gateway".into(),
        addr: gateway.addr(),
        pid: gateway.pid(),
        api_key: gateway.api_key().into(),
        idle_kib: 0,
        running: Running::Product(Box::new(gateway)),
    })
}

fn foreign_gateway(args: &Args, url: &str, upstream: SocketAddr) -> anyhow::Result<Target> {
    let addr = url.trim_end_matches('/').trim_start_matches("http://");
    let addr = addr.parse().with_context(|| format!("--gateway-url {url} is not http://<ip>:<port>"))?;
    let core = args.core(args.target_core);
    let (pid, running) = match (&args.gateway_cmd, args.gateway_pid) {
        (Some(command), _) => {
            let upstream = format!("http://{upstream}/v1");
            let spec =
                Spec::new("sh").args(["-c", &format!("exec {command}")]).env("NEMO_BENCH_UPSTREAM", upstream);
            let process = spec.core(core).spawn()?;
            (process.pid(), Running::Process(process))
        }
        (None, Some(pid)) => {
            if let Some(core) = core {
                pin(pid, core)?;
            }
            (pid, Running::Elsewhere)
        }
        (None, None) => {
            anyhow::bail!("--gateway-url needs --gateway-pid or --gateway-cmd: whose CPU time counts?")
        }
    };
    Ok(Target { name: "gateway".into(), addr, pid, api_key: args.api_key.clone(), idle_kib: 0, running })
}

/// What must stand before a command line for the program to run whenever it has something to do: real-time priority.
/// Scheduler groups are equals otherwise (a session is one, and so is each of PostgreSQL's processes), and whoever
/// shares the core makes a load generator late by milliseconds.
pub(super) const PUNCTUAL: [&str; 3] = ["chrt", "--fifo", "1"];

/// Gives a running process the priority of [`PUNCTUAL`]. Says so, and returns `false`, where that is not allowed.
pub(super) fn make_punctual(pid: u32) -> bool {
    let output = std::process::Command::new("chrt").args(["--fifo", "-p", "1", &pid.to_string()]).output();
    let done = output.is_ok_and(|output| output.status.success());
    if !done {
        say("no real-time priority for the load generator: latencies will be noisy");
    }
    done
}

/// Moves all threads of a running process to one core.
pub(super) fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let output =
        std::process::Command::new("taskset").args(["-acp", &core.to_string(), &pid.to_string()]).output()?;
    anyhow::ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
