//! Child processes that never outlive the test.
//!
//! Each child is started by a thread of its own that waits for it. Dropping [`Process`] kills it; should the test
//! process itself be killed, the kernel does (`setpriv --pdeathsig`, which acts when the starting *thread* ends: the
//! reason for the thread). What the child writes is kept, bounded, and printed by a failing test on request.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Pid;
pub use rustix::process::Signal;

use crate::eventually::{eventually_within, patience};

/// Lines kept of what a child writes; older ones are dropped.
const LOG_LINES: usize = 20_000;
/// A longer line is cut.
const LOG_LINE_BYTES: u64 = 64 * 1024;
/// Standard output and standard error.
const OUTPUTS: usize = 2;
/// How often the waiting thread looks for the end of its child.
const REAP_EVERY: Duration = Duration::from_millis(10);

/// Where and when a process may run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The only core that it runs on.
    pub core: Option<usize>,
    /// It gets only time that nobody else wants. Unlike with niceness, whoever else wakes up goes first at once.
    pub idle: bool,
}

impl Place {
    /// What has to stand before a command line: programs that replace themselves by the rest of it.
    pub fn prefix(self) -> Vec<String> {
        let core = self.core.map(|core| ["taskset".into(), "-c".into(), core.to_string()]);
        let idle = self.idle.then(|| ["chrt", "--idle", "0"].map(String::from));
        core.into_iter().chain(idle).flatten().collect()
    }
}

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Spec {
    program: OsString,
    args: Vec<OsString>,
    /// `None` removes the variable.
    envs: Vec<(OsString, Option<OsString>)>,
    clear_env: bool,
    place: Place,
}

impl Spec {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        Self { program, args: Vec::new(), envs: Vec::new(), clear_env: false, place: Place::default() }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), None));
        self
    }

    /// Starts from an environment with nothing but `PATH` and `HOME`.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Pins the child to one core.
    #[must_use]
    pub fn core(self, core: Option<usize>) -> Self {
        self.place(Place { core, ..Place::default() })
    }

    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    fn command(&self) -> Command {
        // All wrappers replace themselves by the program, so that the pid stays that of the program.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.args(self.place.prefix());
        command.arg(&self.program).args(&self.args);
        if self.clear_env {
            command.env_clear();
            for name in ["PATH", "HOME"] {
                command.envs(std::env::var_os(name).map(|value| (name, value)));
            }
        }
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Starts the child.
    ///
    /// # Errors
    /// When `setpriv` is not installed. A program that does not exist shows as an early exit instead.
    pub fn spawn(self) -> anyhow::Result<Process> {
        let name = self.program.to_string_lossy().into_owned();
        let log = Arc::new(Mutex::new(Log::default()));
        let (started, start) = mpsc::sync_channel(1);
        let for_thread = log.clone();
        thread::Builder::new()
            .name(format!("wait:{name}"))
            .spawn(move || run(&self, &for_thread, &started))?;
        let state = start.recv().context("the starting thread ended")?;
        let state = state.with_context(|| format!("start {name} through setpriv (package util-linux)"))?;
        let pid = lock(&state).child.id();
        Ok(Process { name, pid, state, log })
    }
}

struct State {
    child: Child,
    status: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    /// Lines that were dropped from the front.
    dropped: usize,
    /// Outputs that were read to their end.
    closed: usize,
}

/// A running child. Killed on drop.
pub struct Process {
    name: String,
    pid: u32,
    state: Arc<Mutex<State>>,
    log: Arc<Mutex<Log>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Started = mpsc::SyncSender<std::io::Result<Arc<Mutex<State>>>>;

/// Body of the thread: start, pump both outputs, wait.
fn run(spec: &Spec, log: &Arc<Mutex<Log>>, started: &Started) {
    let mut command = spec.command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let state = Arc::new(Mutex::new(State { child, status: None }));
    let sent = started.send(Ok(state.clone()));
    drop(sent);
    thread::scope(|scope| {
        if let Some(stdout) = stdout {
            scope.spawn(move || pump_all(stdout, log));
        }
        if let Some(stderr) = stderr {
            scope.spawn(move || pump_all(stderr, log));
        }
        loop {
            let mut state = lock(&state);
            if let Ok(Some(status)) = state.child.try_wait() {
                state.status = Some(status);
                break;
            }
            drop(state);
            thread::sleep(REAP_EVERY);
        }
    });
}

fn pump_all(output: impl Read, log: &Mutex<Log>) {
    pump(output, log);
    lock(log).closed += 1;
}

fn pump(output: impl Read, log: &Mutex<Log>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.by_ref().take(LOG_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let mut log = lock(log);
                if log.lines.len() == LOG_LINES {
                    log.lines.pop_front();
                    log.dropped += 1;
                }
                log.lines.push_back(text);
            }
        }
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything that the child wrote to both outputs, as far as it is kept.
    pub fn log(&self) -> String {
        let log = lock(&self.log);
        let mut text = String::new();
        if log.dropped > 0 {
            text = format!("({} earlier lines dropped)\n", log.dropped);
        }
        for line in &log.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// How the child ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        lock(&self.state).status
    }

    /// Waits for the first line that `pick` maps to something, from the child's beginning.
    ///
    /// # Errors
    /// When the child ended without such a line, or patience did: with its log.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let found = eventually_within(patience, what, async || {
            let ended = self.status();
            let log = lock(&self.log);
            match (log.lines.iter().find_map(|line| pick(line)), ended) {
                (Some(found), _) => Ok(Ok(found)),
                // A line that was written just before the end must still be found.
                (None, Some(status)) if log.closed == OUTPUTS => Ok(Err(status)),
                (None, _) => Err("no such line yet"),
            }
        });
        let found = found.await.with_context(|| format!("{} wrote:\n{}", self.name, self.log()))?;
        found.map_err(|status| {
            anyhow::anyhow!("{} ended ({status}) before {what}; it wrote:\n{}", self.name, self.log())
        })
    }

    /// [`Self::wait_for`] a line that contains `part`; returns the line.
    pub async fn wait_line(&self, part: &str) -> anyhow::Result<String> {
        let what = format!("a line with {part:?}");
        self.wait_for(&what, patience(), |line| line.contains(part).then(|| line.to_owned())).await
    }

    /// Waits for the child to end by itself, and for all that it wrote to be in the log.
    pub async fn wait_exit(&self) -> anyhow::Result<ExitStatus> {
        let exit = eventually_within(patience(), "its end", async || {
            let status = self.status().ok_or("still running")?;
            // Whoever looks into the log next finds what it wrote last.
            if lock(&self.log).closed == OUTPUTS { Ok(status) } else { Err("its outputs are still open") }
        });
        exit.await.with_context(|| format!("{} wrote:\n{}", self.name, self.log()))
    }

    /// Sends a signal; nothing happens if the child has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // Under the lock that reaping takes, so that the pid is still ours.
        let state = lock(&self.state);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("pid out of range")?;
        if state.status.is_none() {
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Asks the child to end (SIGTERM) and waits for it.
    pub async fn stop(self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.status.is_none() {
            let _gone = state.child.kill();
            state.status = state.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !(stat.is_empty() || stat.contains(") Z "))
    }

    fn shell(script: &str) -> Process {
        Spec::new("sh").args(["-c", script]).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_dropped_process_is_dead() {
        let child = shell("echo ready; exec sleep 600");
        child.wait_line("ready").await.unwrap();
        let pid = child.pid();
        assert!(alive(pid));
        drop(child);
        assert!(!alive(pid));
    }

    #[tokio::test]
    async fn an_idle_process_keeps_its_pid() {
        let script = "echo pid $$; exec sleep 600";
        let child =
            Spec::new("sh").args(["-c", script]).place(Place { core: None, idle: true }).spawn().unwrap();
        child.wait_line(&format!("pid {}", child.pid())).await.unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
        // Field 41 by the manual; the name in parentheses, which may hold spaces, is field 2.
        let policy = stat.rsplit(')').next().unwrap().split_whitespace().nth(38);
        assert_eq!(policy, Some("5"), "SCHED_IDLE: {stat}");
    }

    #[tokio::test]
    async fn both_outputs_and_the_status_are_seen() {
        let child = shell("echo out; echo err >&2; exit 3");
        assert_eq!(child.wait_exit().await.unwrap().code(), Some(3));
        crate::eventually("both lines", async || crate::eventually::yes(child.log().lines().count() == 2))
            .await
            .unwrap();
        assert!(child.log().contains("out") && child.log().contains("err"), "{}", child.log());
    }

    #[tokio::test]
    async fn waiting_for_a_line_of_a_process_that_ended_fails_at_once_with_its_log() {
        let child = shell("echo 'port taken'; exit 1");
        let error = child.wait_line("listening").await.unwrap_err();
        assert!(error.to_string().contains("port taken"), "{error}");
    }

    #[tokio::test]
    async fn a_process_ends_when_its_starter_is_killed() {
        // The outer shell is ours; what it starts is started the same way as by `Spec`, by a process that dies.
        let child = shell("setpriv --pdeathsig KILL -- sleep 600 & echo $!; wait");
        let inner = child.wait_for("the pid", patience(), |line| line.parse::<u32>().ok()).await.unwrap();
        let exec = async || crate::eventually::yes(comm(inner) == "sleep");
        crate::eventually("setpriv to have become sleep", exec).await.unwrap();
        drop(child);
        crate::eventually("the inner process to die", async || crate::eventually::yes(!alive(inner)))
            .await
            .unwrap();
    }

    fn comm(pid: u32) -> String {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
    }

    #[tokio::test]
    async fn stop_is_a_sigterm_that_the_process_can_handle() {
        let child = shell("trap 'echo drained; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        child.wait_line("ready").await.unwrap();
        assert_eq!(child.stop().await.unwrap().code(), Some(7));
    }
}
