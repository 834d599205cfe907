//! Time. The only place that reads the wall clock; logic that depends on time takes a [`Clock`], or an instant
//! as an argument.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Microseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_us() -> i64 {
    // A clock before 1970 reads as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    u64::try_from(unix_us() / 1000).unwrap_or_default()
}

/// Wall-clock and monotonic time, real or driven by a test.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Microseconds since the Unix epoch. May jump.
    fn unix_us(&self) -> i64;

    /// Time since the clock was made. Never goes back.
    fn elapsed(&self) -> Duration;

    /// Milliseconds since the Unix epoch.
    fn unix_ms(&self) -> u64 {
        u64::try_from(self.unix_us() / 1000).unwrap_or_default()
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Real {
    start: Instant,
}

impl Real {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for Real {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for Real {
    fn unix_us(&self) -> i64 {
        unix_us()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct Manual {
    start: i64,
    now: AtomicI64,
    /// Difference between wall clock and monotonic clock: [`Manual::jump`].
    skew: AtomicI64,
}

impl Manual {
    /// Starts at this many microseconds since the Unix epoch.
    pub fn at(unix_us: i64) -> Self {
        Self { start: unix_us, now: AtomicI64::new(unix_us), skew: AtomicI64::new(0) }
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.now.fetch_add(by, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock, by this many microseconds, forwards or back. Monotonic time does not notice.
    pub fn jump(&self, micros: i64) {
        self.skew.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for Manual {
    fn unix_us(&self) -> i64 {
        self.now.load(Ordering::Relaxed) + self.skew.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(
            u64::try_from(self.now.load(Ordering::Relaxed) - self.start).unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_clocks_agree_and_do_not_go_back() {
        let clock = Real::new();
        let (wall, elapsed) = (clock.unix_us(), clock.elapsed());
        assert!(wall > 1_700_000_000_000_000);
        assert!(clock.unix_ms().abs_diff(unix_ms()) < 60_000);
        assert!(clock.elapsed() >= elapsed);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_and_jumps_only_on_the_wall() {
        let clock = Manual::at(5_000_000);
        clock.advance(Duration::from_secs(2));
        clock.jump(-3_000_000);
        assert_eq!(
            (clock.unix_us(), clock.unix_ms(), clock.elapsed()),
            (4_000_000, 4000, Duration::from_secs(2))
        );
    }
}
