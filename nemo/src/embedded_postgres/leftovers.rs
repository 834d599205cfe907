//! What an earlier run may have left: a server that still runs or is still dying, or its files.
//!
//! The caller holds the lock of the data directory, so whatever is found belongs to a process that is gone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};

use super::files::{Files, PORT};

/// How long a leftover server may take to stop in order, and then to stop at all.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// Ends a server that still runs on this data and removes files that would stop a new one.
///
/// # Errors
/// When the old server cannot be ended.
pub async fn clear(files: &Files) -> anyhow::Result<()> {
    let pid_file = files.data.join("postmaster.pid");
    let recorded = fs::read_to_string(&pid_file).ok();
    let pid = recorded
        .as_deref()
        .and_then(|text| text.lines().next())
        .and_then(|line| line.trim().parse::<i32>().ok());
    if let Some(pid) = pid.and_then(Pid::from_raw).filter(|pid| serves(*pid, &files.data)) {
        tracing::warn!(pid = pid.as_raw_nonzero(), "ending the PostgreSQL server of an earlier run");
        // Fast, then immediate: the write-ahead log makes both safe.
        for signal in [Signal::INT, Signal::QUIT] {
            let _ = kill_process(pid, signal);
            if gone(pid, &files.data).await {
                break;
            }
        }
        if serves(pid, &files.data) {
            bail!(
                "an earlier PostgreSQL server (pid {}) still runs on {} and does not stop; end it with `kill -9 {0}`",
                pid.as_raw_nonzero(),
                files.data.display()
            );
        }
    }
    // Its pid may belong to somebody else by now, and then PostgreSQL would refuse to start.
    let _ = fs::remove_file(&pid_file);
    for name in [format!(".s.PGSQL.{PORT}"), format!(".s.PGSQL.{PORT}.lock")] {
        let _ = fs::remove_file(files.sockets.join(name));
    }
    Ok(())
}

async fn gone(pid: Pid, data: &Path) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if !serves(pid, data) {
            return true;
        }
        tokio::time::sleep(POLL).await;
    }
    false
}

/// True when the process is a server on this data: a postmaster's working directory is its data directory.
fn serves(pid: Pid, data: &Path) -> bool {
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    let (Ok(cwd), Ok(data)) = (fs::read_link(format!("{proc}/cwd")), data.canonicalize()) else {
        return false;
    };
    let command = fs::read(format!("{proc}/cmdline")).unwrap_or_default();
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    cwd == data && program.ends_with(b"postgres")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_name_another_living_process_are_removed_and_the_process_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            Files { data: dir.path().into(), sockets: dir.path().into(), log: dir.path().join("log") };
        let pid_file = dir.path().join("postmaster.pid");
        fs::write(&pid_file, format!("{}\n{}\n", std::process::id(), dir.path().display())).unwrap();
        fs::write(dir.path().join(".s.PGSQL.5432.lock"), "1\n").unwrap();
        clear(&files).await.unwrap();
        assert!(!pid_file.exists() && !dir.path().join(".s.PGSQL.5432.lock").exists());
        // Nothing there at all is fine too.
        clear(&files).await.unwrap();
    }
}
