//! Servers that a test run shares: `nemo-testenv postgres -- cargo nextest run`,
//! `nemo-testenv control-plane -- tests/schemathesis/run.sh`, `nemo-testenv upstream --port 9000`.
//!
//! Called by `make test` and by the suites in other languages.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use nemo_tests::control::ControlPlane;
use nemo_tests::postgres::{SHARED_DIR_ENV, Server};
use nemo_tests::upstream::Upstream;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Parser)]
#[command(about = "Servers that a test run shares")]
struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Start a throw-away PostgreSQL, run a command with NEMO_TEST_PG_DIR naming its socket directory, stop it.
    Postgres {
        /// The command and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Start a control plane with a database of its own, run a command with NEMO_ADMIN_URL and NEMO_ADMIN_TOKEN naming
    /// its REST port and an operator's token, stop it.
    ControlPlane {
        /// The command and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Serve the scripted OpenAI-compatible upstream until interrupted.
    Upstream {
        /// Port on 127.0.0.1; 0 takes a free one and prints it.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Refuse requests without this bearer token.
        #[arg(long)]
        api_key: Option<String>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Args::parse().command {
        What::Postgres { command } => postgres(&command).await,
        What::ControlPlane { command } => control_plane(&command).await,
        What::Upstream { port, api_key } => upstream(port, api_key).await,
    };
    result.unwrap_or_else(|error| {
        let _closed = writeln!(std::io::stderr(), "nemo-testenv: {error:#}");
        ExitCode::from(125)
    })
}

async fn postgres(command: &[String]) -> anyhow::Result<ExitCode> {
    // Before the server, so that a signal during its start does not leave it behind.
    let signals = Signals::listen()?;
    let server = Server::start().await?;
    let socket_dir = server.socket_dir().to_owned();
    let status = signals.run(command, &[(SHARED_DIR_ENV, socket_dir.as_os_str())]).await?;
    drop(server);
    Ok(exit_code(status))
}

async fn control_plane(command: &[String]) -> anyhow::Result<ExitCode> {
    let signals = Signals::listen()?;
    let control_plane = ControlPlane::start_alone(&[]).await?;
    let url = format!("http://{}", control_plane.rest_addr());
    let token = control_plane.admin.token().to_owned();
    let env = [("NEMO_ADMIN_URL", url.as_ref()), ("NEMO_ADMIN_TOKEN", token.as_ref())];
    let status = signals.run(command, &env).await?;
    let ended = control_plane.process.status();
    anyhow::ensure!(
        ended.is_none(),
        "the control plane ended by itself; it wrote:\n{}",
        control_plane.process.log()
    );
    Ok(exit_code(status))
}

/// The command is in our process group and gets ^C itself; we must outlive it to stop the servers after it. SIGTERM
/// reaches only us, so it is passed on.
struct Signals {
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let (interrupts, terminations) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupts, terminations })
    }

    async fn run(mut self, command: &[String], env: &[(&str, &OsStr)]) -> anyhow::Result<ExitStatus> {
        let (program, args) = command.split_first().context("no command")?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(status?),
                _ = self.interrupts.recv() => {}
                _ = self.terminations.recv() => terminate(child.id()),
            }
        }
    }
}

fn terminate(pid: Option<u32>) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// As shells report it: 128 + signal for a killed command.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

async fn upstream(port: u16, api_key: Option<String>) -> anyhow::Result<ExitCode> {
    let mut terminations = signal(SignalKind::terminate())?;
    let upstream = Upstream::builder().port(port).api_key(api_key).start().await?;
    writeln!(std::io::stdout(), "listening on {}", upstream.base_url())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminations.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}
