//! Waiting for a condition by polling it, instead of sleeping for as long as it might take.
//!
//! `NEMO_TEST_PATIENCE` (seconds) replaces the default patience, for slow machines and sanitizers.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Nobody waits for it where all is well, so it may be long: machines that run tests stand still now and then.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let given = std::env::var("NEMO_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    given.map_or(DEFAULT_PATIENCE, Duration::from_secs)
});

/// How long a test waits for something that is bound to happen.
pub fn patience() -> Duration {
    *PATIENCE
}

/// Polls `probe` until it returns `Ok`, for at most [`patience`].
///
/// # Errors
/// The last error of the probe, with `what` was waited for and how long.
pub async fn eventually<T, E: Display>(
    what: &str,
    probe: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    eventually_within(patience(), what, probe).await
}

/// [`eventually`] with a patience of its own. Probes at least once, and once more after the last pause.
pub async fn eventually_within<T, E: Display>(
    patience: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let out_of_time = start.elapsed() >= patience;
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if out_of_time => {
                anyhow::bail!("waited {:.1} s for {what}: {error}", start.elapsed().as_secs_f64())
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// For conditions that are a plain yes or no: `eventually("drained", async || yes(count() == 0))`.
pub fn yes(condition: bool) -> Result<(), &'static str> {
    if condition { Ok(()) } else { Err("not yet") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_stops_at_the_first_success() {
        let mut calls = 0;
        let got = eventually("third time", async || {
            calls += 1;
            if calls == 3 { Ok(calls) } else { Err("too early") }
        });
        assert_eq!(got.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn running_out_of_patience_names_what_was_awaited_and_the_last_error() {
        let probe = async || Err::<(), _>("still 7 rows");
        let error = eventually_within(Duration::from_millis(5), "an empty table", probe).await.unwrap_err();
        assert!(
            error.to_string().contains("an empty table") && error.to_string().contains("still 7 rows"),
            "{error}"
        );
    }
}
