//! CPU time and memory of another process, and the program of this one, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// The program that this process runs, to be started again. A path that stays valid, and the same program, when a build
/// replaces the file in the middle of a run.
pub(crate) fn own_program() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// CPU time of all threads so far, to the nanosecond (but for the running tick).
///
/// A thread that ends takes its time with it, so take differences over seconds in which none does: worker threads live
/// as long as the process.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut total = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("process {pid}"))? {
        // A thread may end between listing and reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanos = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        total += nanos.with_context(|| format!("{tasks}/*/schedstat is {text:?}"))?;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse().ok());
    kib.with_context(|| format!("no VmRSS in {path}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    fn process_clock() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_nanos(time.tv_nsec.cast_unsigned())
    }

    #[test]
    fn cpu_time_grows_by_what_all_threads_burn() {
        let pid = std::process::id();
        let (start, clock, before) = (Instant::now(), process_clock(), cpu_time(pid).unwrap());
        let grown = || cpu_time(pid).unwrap().saturating_sub(before);
        let burn = || {
            while grown() < Duration::from_millis(100) {
                assert!(start.elapsed() < Duration::from_secs(30), "{:?} of CPU time", grown());
            }
            grown()
        };
        let grown = std::thread::scope(|scope| scope.spawn(burn).join().unwrap());
        let burned = process_clock() - clock;
        // The tick that ran at the beginning was in the clock already.
        assert!(grown < burned + Duration::from_millis(50), "{grown:?} of {burned:?}");
        assert!(resident(pid).unwrap() > 500);
    }
}
