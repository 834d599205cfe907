//! Exponential backoff with full jitter: each delay is uniform between nothing and a doubling, capped bound, so
//! that a fleet which lost its server does not come back in step.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    bound: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first delay is at most `base`, no delay is above `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self::with_random(base, cap, fastrand::Rng::new())
    }

    /// With a given source of jitter, for tests and simulation.
    pub fn with_random(base: Duration, cap: Duration, random: fastrand::Rng) -> Self {
        let base = base.max(Duration::from_millis(1)).min(cap);
        Self { base, cap, bound: base, random }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.cap);
        bound.mul_f64(self.random.f64())
    }

    /// After a success: start again from the base.
    pub fn reset(&mut self) {
        self.bound = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_under_a_doubling_bound_and_the_cap() {
        for seed in 0..200 {
            let (base, cap) = (Duration::from_millis(100), Duration::from_secs(5));
            let mut backoff = Backoff::with_random(base, cap, fastrand::Rng::with_seed(seed));
            for step in 0..12 {
                let bound = base.saturating_mul(1 << step).min(cap);
                assert!(backoff.next_delay() <= bound, "seed {seed} step {step}");
            }
            backoff.reset();
            assert!(backoff.next_delay() <= base);
        }
    }

    #[test]
    fn jitter_is_full() {
        let delays: Vec<_> = (0..500)
            .map(|seed| {
                let random = fastrand::Rng::with_seed(seed);
                Backoff::with_random(Duration::from_secs(1), Duration::from_secs(1), random).next_delay()
            })
            .collect();
        assert!(delays.iter().any(|delay| *delay < Duration::from_millis(100)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(900)));
    }
}
