//! Time of the quota core: nanoseconds on a clock that only moves forward, since some moment of this process. Tests and
//! simulations set it by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Nanoseconds on a [`Clock`].
pub type Moment = u64;

#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Monotonic(Instant),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    pub fn monotonic() -> Self {
        Self(Source::Monotonic(Instant::now()))
    }

    /// Stands still but for [`Clock::advance`]; clones share it.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::Monotonic(start) => nanos(start.elapsed()),
            Source::Manual(at) => at.load(SeqCst),
        }
    }

    /// Of a manual clock; another goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(at) = &self.0 {
            at.fetch_add(nanos(by), SeqCst);
        }
    }
}

/// In nanoseconds; more than 584 years are as many.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// From milliseconds on the wire.
pub fn of_ms(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}
