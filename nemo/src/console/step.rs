//! Progress on standard error of what takes over a second: steps of unknown length, and bars where the length is
//! known. Called by `nemo standalone` and by commands that wait.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Steps that take less are not worth a line.
const QUIET: Duration = Duration::from_secs(1);
/// How often a running step is shown again where lines cannot be rewritten.
const REPEAT: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_millis(200);

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

/// Progress through a known number of things: a bar on a terminal, nothing elsewhere.
#[derive(Debug)]
pub struct Bar {
    name: &'static str,
    total: usize,
    done: usize,
    start: Instant,
    terminal: bool,
    shown: bool,
}

impl Bar {
    pub fn new(name: &'static str, total: usize) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { name, total, done: 0, start: Instant::now(), terminal, shown: false }
    }

    /// One more is done.
    pub fn advance(&mut self) {
        self.done += 1;
        if let Some(text) = self.line(self.start.elapsed()) {
            self.shown = true;
            write_error(&text);
        }
    }

    /// There are more than was thought.
    pub fn set_total(&mut self, total: usize) {
        self.total = total.max(self.done);
    }

    fn line(&self, elapsed: Duration) -> Option<String> {
        const WIDTH: usize = 24;
        if !self.terminal || elapsed < QUIET {
            return None;
        }
        let full = (self.done * WIDTH).checked_div(self.total).unwrap_or(WIDTH).min(WIDTH);
        let (full, rest) = ("█".repeat(full), "░".repeat(WIDTH - full));
        Some(format!("\r  {} {full}{rest} {}/{}\x1b[K", self.name, self.done, self.total))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            write_error("\r\x1b[K");
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
    fn a_bar_fills_and_is_silent_without_a_terminal() {
        let mut bar = Bar::new("Applying", 4);
        (bar.terminal, bar.done) = (true, 1);
        assert_eq!(bar.line(Duration::from_millis(10)), None);
        let text = bar.line(Duration::from_secs(2)).unwrap();
        assert!(text.contains("1/4") && text.matches('█').count() == 6, "{text:?}");
        bar.terminal = false;
        assert_eq!(bar.line(Duration::from_secs(2)), None);
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
