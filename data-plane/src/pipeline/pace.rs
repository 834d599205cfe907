//! How slowly a client may send its body: a pause ends it, and so does a rate that only holds the place of others.
//! Called by [`super::ingress`].

use std::{pin::pin, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::Instant;

/// Who is slower than this after [`Pace::whole`] is no use to anybody: 1 MiB in two minutes.
const MIN_BYTES_PER_SECOND: u64 = 8 * 1024;

/// The bounds of one body.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two frames.
    idle: Duration,
    /// For the whole, before the rate counts.
    whole: Duration,
    /// When it had to be waited for first: a body that comes with its head costs no look at the clock.
    started: Option<Instant>,
    received: u64,
}

/// The body did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl Pace {
    pub fn new(idle: Duration, whole: Duration) -> Self {
        Self { idle, whole, started: None, received: 0 }
    }

    /// Waits for the next frame of a body.
    ///
    /// # Errors
    /// [`TooSlow`].
    pub async fn wait<T>(&mut self, frame: impl Future<Output = T>) -> Result<T, TooSlow> {
        let mut frame = pin!(frame);
        if let Some(ready) = frame.as_mut().now_or_never() {
            return Ok(ready);
        }
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / MIN_BYTES_PER_SECOND);
        let due = (started + self.whole + earned).min(now + self.idle);
        tokio::time::timeout_at(due, frame).await.map_err(|_| TooSlow)
    }

    /// How long ago it had to be waited for first.
    pub fn waited(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    pub fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(15);
    const WHOLE: Duration = Duration::from_secs(60);

    /// Seconds until a client that sends `bytes` every `pause` is given up; `None` within an hour of its time.
    async fn given_up(bytes: usize, pause: Duration) -> Option<u64> {
        let begin = Instant::now();
        let mut pace = Pace::new(IDLE, WHOLE);
        while begin.elapsed() < Duration::from_secs(3600) {
            if pace.wait(tokio::time::sleep(pause)).await.is_err() {
                return Some(begin.elapsed().as_secs());
            }
            pace.received(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_and_trickles_end_a_body_and_a_steady_slow_line_does_not() {
        assert_eq!(given_up(1 << 20, Duration::from_secs(20)).await, Some(15), "a pause");
        assert_eq!(given_up(1, Duration::from_secs(10)).await, Some(60), "a byte now and then");
        assert_eq!(given_up(16 * 1024, Duration::from_secs(1)).await, None, "a slow line");
    }
}
