//! The one writer to the terminal: results on standard output, progress and errors on standard error. Logs go
//! through tracing instead. Called by every command.

use std::{
    fmt,
    future::Future,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Steps that take less are not worth a line.
const QUIET: Duration = Duration::from_secs(1);
/// How often a running step is shown again where lines cannot be rewritten.
const REPEAT: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_millis(200);

/// Writes a line of the command's result. A reader that went away (`| head`) is no error.
pub fn result(line: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes a line about the command itself.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Runs one step of something that the user waits for, and shows it when it takes longer than a second: on a
/// terminal as a line that counts up, elsewhere as plain lines.
pub async fn step<T>(name: &str, work: impl Future<Output = T>) -> T {
    let mut shown = Shown::new(name, io::stderr().is_terminal());
    let mut ticks = tokio::time::interval(REDRAW);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                if let Some(text) = shown.done() {
                    write_error(&text);
                }
                return done;
            }
            _ = ticks.tick() => {
                if let Some(text) = shown.tick() {
                    write_error(&text);
                }
            }
        }
    }
}

fn write_error(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// What has been shown of a running step, and what is to be shown now.
struct Shown<'n> {
    name: &'n str,
    terminal: bool,
    start: Instant,
    /// Elapsed time at the last line.
    last: Option<Duration>,
}

impl<'n> Shown<'n> {
    fn new(name: &'n str, terminal: bool) -> Self {
        Self { name, terminal, start: Instant::now(), last: None }
    }

    fn tick(&mut self) -> Option<String> {
        self.running(self.start.elapsed())
    }

    fn running(&mut self, elapsed: Duration) -> Option<String> {
        if elapsed < QUIET {
            return None;
        }
        if self.terminal {
            self.last = Some(elapsed);
            return Some(format!("\r  {} … {:.1} s\x1b[K", self.name, elapsed.as_secs_f32()));
        }
        if self.last.is_some_and(|last| elapsed - last < REPEAT) {
            return None;
        }
        self.last = Some(elapsed);
        Some(format!("  {} … {} s\n", self.name, elapsed.as_secs()))
    }

    fn done(&mut self) -> Option<String> {
        self.ended(self.start.elapsed())
    }

    fn ended(&self, elapsed: Duration) -> Option<String> {
        self.last?;
        let start = if self.terminal { "\r" } else { "" };
        let end = if self.terminal { "\x1b[K\n" } else { "\n" };
        Some(format!("{start}  {}: {:.1} s{end}", self.name, elapsed.as_secs_f32()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_steps_are_silent() {
        let mut shown = Shown::new("x", false);
        assert_eq!(shown.running(Duration::from_millis(900)), None);
        assert_eq!(shown.ended(Duration::from_millis(950)), None);
    }

    #[test]
    fn long_steps_are_plain_lines_without_a_terminal() {
        let mut shown = Shown::new("Starting", false);
        assert_eq!(shown.running(Duration::from_millis(1100)).unwrap(), "  Starting … 1 s\n");
        assert_eq!(shown.running(Duration::from_secs(5)), None);
        assert_eq!(shown.running(Duration::from_secs(12)).unwrap(), "  Starting … 12 s\n");
        assert_eq!(shown.ended(Duration::from_millis(12_500)).unwrap(), "  Starting: 12.5 s\n");
    }

    #[test]
    fn on_a_terminal_one_line_counts_up() {
        let mut shown = Shown::new("Starting", true);
        for seconds in 2..5 {
            let text = shown.running(Duration::from_secs(seconds)).unwrap();
            assert!(text.starts_with('\r') && !text.contains('\n'), "{text:?}");
        }
        assert!(shown.ended(Duration::from_secs(5)).unwrap().ends_with('\n'));
    }
}
