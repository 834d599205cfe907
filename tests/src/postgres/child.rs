//! The server process of a test run: initialised in a temporary directory, durable for nobody, gone with its owner.
//!
//! Between us and PostgreSQL stands a small shell that waits for the end of a pipe whose other end only we hold. When
//! we let go of it, or die in whatever way, the shell stops the server at once and removes the directory. Nothing has
//! to run at exit, which no Rust process can promise.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::find;
use crate::process::Place;

/// `$1` is the directory, the rest the command line of the server.
///
/// SIGQUIT is PostgreSQL's immediate shutdown: no checkpoint for data that is deleted in the next line.
const SUPERVISOR: &str = r#"
dir=$1; shift
"$@" >"$dir/postgres.log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -QUIT "$server" 2>/dev/null
wait "$server"
rm -rf "$dir"
"#;

/// The same for a server that is started again whenever it ends, until we let go.
const RESTARTING: &str = r#"
dir=$1; shift
(
    while [ ! -e "$dir/ended" ]; do
        "$@" >>"$dir/postgres.log" 2>&1 </dev/null
        sleep 0.2
    done
    touch "$dir/gone"
) &
cat >/dev/null
touch "$dir/ended"
while [ ! -e "$dir/gone" ]; do
    kill -QUIT "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null
    sleep 0.1
done
rm -rf "$dir"
"#;

/// Longest path of a directory whose socket (`/.s.PGSQL.5432`) still fits into a socket address.
const LONGEST_SOCKET_DIR: usize = 107 - "/.s.PGSQL.5432".len();

/// A server that this process started.
#[derive(Debug)]
pub struct OwnedServer {
    supervisor: Child,
    socket_dir: PathBuf,
}

impl OwnedServer {
    /// Initialises a server and starts it in this place. It may not accept connections yet. Blocks for about a second.
    pub fn start(place: Place) -> anyhow::Result<Self> {
        Self::start_as(place, false)
    }

    /// The same, of a server that may crash: it loses no commit by that, and is started again.
    pub fn start_crashable() -> anyhow::Result<Self> {
        Self::start_as(Place::default(), true)
    }

    fn start_as(place: Place, crashable: bool) -> anyhow::Result<Self> {
        let programs = find::programs()?;
        let ids = find::unprivileged()?;
        let dir = new_dir(ids)?;
        let started =
            init(&programs, &dir, ids).and_then(|()| supervise(&programs, &dir, ids, place, crashable));
        match started {
            Ok(supervisor) => Ok(Self { supervisor, socket_dir: dir.join("run") }),
            Err(error) => {
                let _left_behind = std::fs::remove_dir_all(&dir);
                Err(error)
            }
        }
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Kills the server and all its backends, as the kernel does when memory runs out.
    pub fn crash(&self) -> anyhow::Result<()> {
        let dir = self.socket_dir.parent().context("the server's directory")?;
        let text = std::fs::read_to_string(dir.join("data/postmaster.pid"))?;
        let server = text.lines().next().context("a pid")?.trim().to_owned();
        let backends = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
        for pid in [server.as_str()].into_iter().chain(backends.split_whitespace()) {
            let pid = rustix::process::Pid::from_raw(pid.parse()?).context("a pid")?;
            // A backend may have ended meanwhile.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        Ok(())
    }
}

impl Drop for OwnedServer {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _status = self.supervisor.wait();
    }
}

/// A fresh directory with `data` and `run` that the server's user owns.
fn new_dir(ids: Option<(u32, u32)>) -> anyhow::Result<PathBuf> {
    let mut base = std::env::temp_dir();
    if !fits(&base, ids.is_some()) {
        base = "/tmp".into();
    }
    // Not removed by us but by the supervisor.
    let dir = tempfile::Builder::new().prefix("nemo-pg-").tempdir_in(&base)?.keep();
    for path in [dir.clone(), dir.join("data"), dir.join("run")] {
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = ids {
            chown(&path, Some(uid), Some(gid))?;
        }
    }
    Ok(dir)
}

/// Whether a socket below `base` has a short enough path, and another user could reach it.
fn fits(base: &Path, other_user: bool) -> bool {
    let short = base.as_os_str().len() + "/nemo-pg-XXXXXX/run".len() <= LONGEST_SOCKET_DIR;
    let searchable = |dir: &Path| dir.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    short && (!other_user || base.ancestors().all(searchable))
}

/// `program` of PostgreSQL as the right user, with an environment of its own, tied to the life of its parent.
fn command(programs: &Path, program: &str, ids: Option<(u32, u32)>) -> Vec<String> {
    let mut line: Vec<String> = ["setpriv", "--pdeathsig", "QUIT"].map(String::from).into();
    if let Some((uid, gid)) = ids {
        line.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    }
    line.extend(["--".into(), programs.join(program).display().to_string()]);
    line
}

fn quiet(command: &mut Command) -> &mut Command {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/bin:/bin").current_dir("/")
}

fn init(programs: &Path, dir: &Path, ids: Option<(u32, u32)>) -> anyhow::Result<()> {
    let line = command(programs, "initdb", ids);
    let mut initdb = Command::new(&line[0]);
    initdb.args(&line[1..]).args([
        "-U",
        super::SUPERUSER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]);
    initdb.arg("-D").arg(dir.join("data")).stdin(Stdio::null());
    let output = quiet(&mut initdb).output().context("run initdb through setpriv (package util-linux)")?;
    anyhow::ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn supervise(
    programs: &Path,
    dir: &Path,
    ids: Option<(u32, u32)>,
    place: Place,
    crashable: bool,
) -> anyhow::Result<Child> {
    let mut shell = Command::new("sh");
    let script = if crashable { RESTARTING } else { SUPERVISOR };
    shell.args(["-c", script, "nemo-pg"]).arg(dir);
    shell.args(place.prefix()).args(command(programs, "postgres", ids));
    shell.arg("-D").arg(dir.join("data")).arg("-k").arg(dir.join("run"));
    let settings = [
        "listen_addresses=",
        "max_connections=300",
        "shared_buffers=64MB",
        "fsync=off",
        // What was committed is with the kernel then, which outlives the server.
        if crashable { "synchronous_commit=on" } else { "synchronous_commit=off" },
        "full_page_writes=off",
        "autovacuum=off",
    ];
    for setting in settings {
        shell.args(["-c", setting]);
    }
    // A process group of its own: ^C at the terminal is for the tests, the server goes after them.
    let shell =
        quiet(&mut shell).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().context("start the supervisor of PostgreSQL")
}
