//! A real PostgreSQL as a supervised child of this process, on a unix socket that only its owner can reach.
//!
//! Called by `nemo standalone` unless `--postgres-url` names a server. Invariants: the child ends when this
//! process ends, however that happens (parent-death signal, set by `setpriv` because it needs no unsafe code here);
//! it never runs as root; it listens on no network. **Everything that starts the child must be polled on the
//! main thread**, because the signal is sent when the *thread* that made the child ends.

pub mod account;
pub mod discover;
pub mod files;
mod leftovers;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use nemo_runtime::{backoff::Backoff, drain::DrainWatcher};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::process::{Child, Command};

use self::{
    account::Account,
    discover::{Binaries, Places},
    files::{Files, PORT},
};
use crate::console;

/// The role and the database that the control plane gets. No superuser: row-level security must bind it.
const ROLE: &str = "nemo";
/// How long a start is tried again: after a crash the old server needs about a second to be gone.
const START_RETRIES: Duration = Duration::from_secs(10);
/// Recovery after a crash replays the write-ahead log, which may take a while.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Arguments of the server. Small: one control plane is its only client.
const SERVER_SETTINGS: [&str; 7] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=60",
    "shared_buffers=64MB",
    "jit=off",
    "timezone=UTC",
    "cluster_name=nemo",
];

#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; the database goes into `postgres` below it.
    pub dir: PathBuf,
    /// `--postgres-user`
    pub user: Option<String>,
    pub places: Places,
}

/// A running server.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    binaries: Binaries,
    account: Option<Account>,
    files: Files,
    child: Child,
}

impl EmbeddedPostgres {
    /// Makes the database if there is none, starts the server and waits until it answers. `None` when the drain
    /// started first; then no process is left.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do about it.
    pub async fn start(options: &Options, drain: &DrainWatcher) -> anyhow::Result<Option<Self>> {
        let account = account::for_postgres(options.user.as_deref())?;
        let files = Files::prepare(&options.dir, account.as_ref())?;
        let binaries = discover::find(&options.places, files.major()?)?;
        if files.major()?.is_none() {
            let name = format!("Creating a PostgreSQL {} database", binaries.major);
            tokio::select! {
                made = console::step(&name, initdb(&binaries, account.as_ref(), &files)) => made?,
                () = drain.signaled() => return Ok(None),
            }
        }
        let launching = launch(&binaries, account.as_ref(), &files, drain);
        let Some(child) = console::step("Starting PostgreSQL", launching).await? else { return Ok(None) };
        let mut server = Self { binaries, account, files, child };
        if let Err(error) = server.create_database().await {
            server.stop().await;
            return Err(error);
        }
        Ok(Some(server))
    }

    /// Connects the control plane: role and database `nemo`.
    pub fn url(&self) -> String {
        let host = percent_encode(self.files.sockets.as_os_str());
        format!("postgres://{ROLE}@localhost:{PORT}/{ROLE}?host={host}")
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Starts the server again when it ends by itself. Returns when the drain starts.
    ///
    /// # Errors
    /// When it cannot be started any more.
    pub async fn supervise(&mut self, drain: &DrainWatcher) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let status = tokio::select! {
                biased;
                () = drain.signaled() => return Ok(()),
                status = self.child.wait() => status,
            };
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::error!(
                status,
                log = self.files.complaints(),
                "PostgreSQL ended by itself; starting it again"
            );
            tokio::select! {
                () = drain.signaled() => return Ok(()),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
            match launch(&self.binaries, self.account.as_ref(), &self.files, drain).await? {
                Some(child) => self.child = child,
                None => return Ok(()),
            }
            tracing::info!("PostgreSQL runs again");
        }
    }

    /// Stops in order: clients are disconnected, everything is written. Takes about 0.2 s.
    pub async fn stop(&mut self) {
        if let Err(error) = stop(&mut self.child, &[Signal::INT, Signal::QUIT]).await {
            tracing::error!(%error, "PostgreSQL cannot be stopped");
        }
    }

    /// Stops at once; the next start recovers from the write-ahead log.
    pub async fn stop_now(&mut self) {
        if let Err(error) = stop(&mut self.child, &[Signal::QUIT]).await {
            tracing::error!(%error, "PostgreSQL cannot be stopped");
        }
    }

    fn options(&self, user: &str, database: &str) -> PgConnectOptions {
        connect_options(&self.files, user, database)
    }

    async fn create_database(&self) -> anyhow::Result<()> {
        let mut connection =
            self.options("postgres", "postgres").connect().await.context("PostgreSQL does not answer")?;
        let roles =
            exists(&mut connection, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").await?;
        if !roles {
            run(&mut connection, format!("CREATE ROLE {ROLE} LOGIN CREATEROLE NOSUPERUSER NOBYPASSRLS"))
                .await?;
        }
        let databases =
            exists(&mut connection, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)").await?;
        if !databases {
            run(&mut connection, format!("CREATE DATABASE {ROLE} OWNER {ROLE}")).await?;
        }
        connection.close().await.context("PostgreSQL does not answer")
    }
}

async fn exists(connection: &mut PgConnection, query: &'static str) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(query).bind(ROLE).fetch_one(connection).await?)
}

async fn run(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    let text = statement.clone();
    connection
        .execute(AssertSqlSafe(statement))
        .await
        .map(drop)
        .with_context(|| format!("PostgreSQL refuses `{text}`"))
}

fn connect_options(files: &Files, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&files.sockets)
        .port(PORT)
        .username(user)
        .database(database)
        .disable_statement_logging()
}

/// Makes the database beside its place and moves it there when it is whole: an interrupted first start leaves
/// nothing that looks like a database.
async fn initdb(binaries: &Binaries, account: Option<&Account>, files: &Files) -> anyhow::Result<()> {
    let unfinished = files.data.with_extension("new");
    remove_unfinished(&unfinished).await?;
    files::private_dir(&unfinished, account)?;
    let mut command = command(binaries, "initdb", account, "TERM");
    command
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
        .arg(&unfinished)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| cannot_spawn(&error))?;
    // Whoever gives up waiting leaves nothing behind.
    let group = KillGroup(child.id().and_then(as_pid));
    let output = child.wait_with_output().await.context("initdb")?;
    group.disarm();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let bad = |line: &&str| line.contains("error:") || line.contains("setpriv:");
        let reason = text.lines().find(bad).unwrap_or(text.trim());
        bail!("initdb could not create the database in {}: {reason}", files.data.display());
    }
    std::fs::rename(&unfinished, &files.data)
        .with_context(|| format!("{} cannot be moved into place", unfinished.display()))
}

/// What an interrupted `initdb` left. Its processes may still be writing.
async fn remove_unfinished(path: &std::path::Path) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        match std::fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.exists() => return Ok(()),
            Err(_) if start.elapsed() < START_RETRIES => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error).with_context(|| format!("{} cannot be removed", path.display())),
        }
    }
}

/// Kills a process group when dropped.
struct KillGroup(Option<Pid>);

impl KillGroup {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Gone already is as good.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn as_pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Starts the server and waits until it answers, again and again while an earlier one is in the way. `None` when the
/// drain started first.
async fn launch(
    binaries: &Binaries,
    account: Option<&Account>,
    files: &Files,
    drain: &DrainWatcher,
) -> anyhow::Result<Option<Child>> {
    let start = Instant::now();
    loop {
        leftovers::clear(files).await?;
        let mut child = spawn(binaries, account, files)?;
        let ready = tokio::select! {
            ready = wait_ready(&mut child, files) => ready,
            () = drain.signaled() => Err(NotReady::Unwanted),
        };
        match ready {
            Ok(()) => return Ok(Some(child)),
            Err(NotReady::Unwanted) => {
                stop(&mut child, &[Signal::INT, Signal::QUIT]).await?;
                return Ok(None);
            }
            Err(NotReady::Ended(status)) => {
                let log = files.complaints();
                if start.elapsed() >= START_RETRIES || !is_passing(&log) {
                    let log = if log.is_empty() { status.to_string() } else { log };
                    bail!("PostgreSQL did not start: {log} (more in {})", files.log.display());
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Err(NotReady::Silent) => {
                let _ = stop(&mut child, &[Signal::QUIT]).await;
                bail!("PostgreSQL did not answer within {READY_TIMEOUT:?}; see {}", files.log.display());
            }
        }
    }
}

/// True when the log's complaints go away by themselves once an earlier server is gone.
fn is_passing(log: &str) -> bool {
    ["lock file", "shared memory", "Is another postmaster"].iter().any(|text| log.contains(text))
}

fn spawn(binaries: &Binaries, account: Option<&Account>, files: &Files) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&files.log)
        .with_context(|| format!("{} cannot be written", files.log.display()))?;
    let mut command = command(binaries, "postgres", account, "INT");
    command.arg("-D").arg(&files.data).arg("-k").arg(&files.sockets).arg("-p").arg(PORT.to_string());
    for setting in SERVER_SETTINGS {
        command.args(["-c", setting]);
    }
    command.stdout(log.try_clone()?).stderr(log).spawn().map_err(|error| cannot_spawn(&error))
}

/// A program of PostgreSQL: as its account, ended with us, deaf to the terminal's Ctrl-C (which reaches whole
/// process groups, and the drain wants the database to the end), and without our environment.
fn command(binaries: &Binaries, program: &str, account: Option<&Account>, death_signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    // The signal survives the change of user: setpriv asks for it after that, as its last act.
    command.args(["--pdeathsig", death_signal]);
    if let Some(account) = account {
        command
            .arg(format!("--reuid={}", account.uid))
            .arg(format!("--regid={}", account.gid))
            .arg("--clear-groups");
    }
    command
        .arg("--")
        .arg(binaries.dir.join(program))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(Stdio::null())
        .process_group(0);
    command
}

fn cannot_spawn(error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow!(
                "`setpriv` is not installed; `apt-get install util-linux` installs it, or use --postgres-url"
            )
        }
        _ => anyhow!("PostgreSQL cannot be started: {error}"),
    }
}

enum NotReady {
    Ended(ExitStatus),
    Silent,
    Unwanted,
}

async fn wait_ready(child: &mut Child, files: &Files) -> Result<(), NotReady> {
    let start = Instant::now();
    while start.elapsed() < READY_TIMEOUT {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(NotReady::Ended(status));
        }
        // Also refused while the server recovers.
        if let Ok(connection) = connect_options(files, "postgres", "postgres").connect().await {
            let _ = connection.close().await;
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(NotReady::Silent)
}

/// Sends the signals one after the other until the child is gone, SIGKILL last.
async fn stop(child: &mut Child, signals: &[Signal]) -> anyhow::Result<()> {
    for signal in signals {
        // No id: it has ended already.
        let Some(pid) = child.id().and_then(as_pid) else {
            return Ok(());
        };
        kill_process(pid, *signal)?;
        if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_ok() {
            return Ok(());
        }
    }
    child.kill().await?;
    Ok(())
}

/// For the query part of a URL.
fn percent_encode(text: &OsStr) -> String {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt};
    text.as_bytes().iter().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
