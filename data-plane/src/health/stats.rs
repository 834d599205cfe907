//! What a node knows of a deployment, over all organizations: how busy, how fast, how reliable. It ranks candidates and
//! excludes none. Everything is relaxed atomics; a lost update costs a sample, nothing else.
//!
//! One per deployment, in `Live.upstreams`, carried over between snapshots. Written by [`super::Attempt`], read by
//! [`super::LiveView`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::breaker::Millis;

/// A new sample counts 1/8, an outcome 1/16.
const LATENCY_WEIGHT: u32 = 8;
const OUTCOME_WEIGHT: u32 = 16;
/// After so long without a sample, a latency counts half: who was slow is tried again some day.
const HALF_LIFE_MS: u64 = 60_000;
/// Tokens are counted in units of this many.
const TOKEN_UNIT: u64 = 16;
const MINUTE_MS: u64 = 60_000;
/// Bits of a minute's count; more saturates.
const COUNT_BITS: u32 = 24;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;

/// See the module.
#[derive(Debug)]
#[repr(align(64))]
pub struct DeploymentStats {
    in_flight: AtomicU32,
    /// Time to the first byte, and per output token after it; 0: nothing known.
    ttft_us: Decaying,
    per_token_us: Decaying,
    requests: Minute,
    /// In units of [`TOKEN_UNIT`].
    tokens: Minute,
    /// Share of failures, of [`ALL_FAILED`].
    failed: AtomicU32,
}

const ALL_FAILED: u32 = 1 << 16;

/// The values at one time, as measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub in_flight: u32,
    pub ttft_us: u32,
    pub per_token_us: u32,
    pub rpm_used: u32,
    pub tpm_used: u32,
    pub success_permille: u16,
}

impl Default for DeploymentStats {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            ttft_us: Decaying::default(),
            per_token_us: Decaying::default(),
            requests: Minute::default(),
            tokens: Minute::default(),
            failed: AtomicU32::new(0),
        }
    }
}

impl DeploymentStats {
    pub(crate) fn begun(&self, now: Millis) {
        self.in_flight.fetch_add(1, Relaxed);
        self.requests.add(1, now);
    }

    pub(crate) fn ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn first_byte(&self, after_us: u32, now: Millis) {
        self.ttft_us.sample(after_us, now);
    }

    /// `after_first_byte_us`: from the first byte to the end; 0 when the answer came at once.
    pub(crate) fn succeeded(&self, tokens: u64, after_first_byte_us: u64, now: Millis) {
        if let Some(each) = after_first_byte_us.checked_div(tokens)
            && each > 0
        {
            self.per_token_us.sample(u32::try_from(each).unwrap_or(u32::MAX), now);
        }
        self.used(tokens, now);
        self.outcome(0);
    }

    /// Tokens of an answer that nobody judged.
    pub(crate) fn used(&self, tokens: u64, now: Millis) {
        if tokens > 0 {
            self.tokens.add(tokens.div_ceil(TOKEN_UNIT), now);
        }
    }

    pub(crate) fn failed(&self) {
        self.outcome(ALL_FAILED);
    }

    fn outcome(&self, value: u32) {
        let held = self.failed.load(Relaxed);
        let next = blend(held, value, OUTCOME_WEIGHT);
        if next != held {
            self.failed.store(next, Relaxed);
        }
    }

    pub fn read(&self, now: Millis) -> Reading {
        let failed = self.failed.load(Relaxed).min(ALL_FAILED);
        let permille = 1000 - u64::from(failed) * 1000 / u64::from(ALL_FAILED);
        let clip = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Reading {
            in_flight: self.in_flight.load(Relaxed),
            ttft_us: self.ttft_us.read(now),
            per_token_us: self.per_token_us.read(now),
            rpm_used: clip(self.requests.read(now)),
            tpm_used: clip(self.tokens.read(now).saturating_mul(TOKEN_UNIT)),
            success_permille: u16::try_from(permille).unwrap_or(1000),
        }
    }
}

/// Moves `held` a part of the way to `value`, at least by one.
fn blend(held: u32, value: u32, weight: u32) -> u32 {
    if value >= held {
        held + (value - held).div_ceil(weight)
    } else {
        held - (held - value).div_ceil(weight)
    }
}

/// An average whose old samples fade, by number and by time. Value and second of its last sample in one word.
#[derive(Debug, Default)]
struct Decaying(AtomicU64);

impl Decaying {
    fn sample(&self, value: u32, now: Millis) {
        let held = self.read(now);
        let next = if held == 0 { value.max(1) } else { blend(held, value, LATENCY_WEIGHT).max(1) };
        let second = u64::from(u32::try_from(now / 1000).unwrap_or(u32::MAX));
        self.0.store(second << 32 | u64::from(next), Relaxed);
    }

    fn read(&self, now: Millis) -> u32 {
        let word = self.0.load(Relaxed);
        let age = now.saturating_sub((word >> 32) * 1000);
        let halvings = u32::try_from(age / HALF_LIFE_MS).unwrap_or(u32::MAX);
        u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0).checked_shr(halvings).unwrap_or(0)
    }
}

/// A count over the last minute: what this minute has, and as much of the last one as still lies in the window.
/// Number of the minute, its count and that of the one before in one word.
#[derive(Debug, Default)]
struct Minute(AtomicU64);

impl Minute {
    fn add(&self, count: u64, now: Millis) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (previous, current) = Self::at(word, now);
            let current = current.saturating_add(count).min(MAX_COUNT);
            Some(Self::number(now) << (2 * COUNT_BITS) | previous << COUNT_BITS | current)
        });
    }

    fn read(&self, now: Millis) -> u64 {
        let (previous, current) = Self::at(self.0.load(Relaxed), now);
        current + previous * (MINUTE_MS - now % MINUTE_MS) / MINUTE_MS
    }

    /// Counts of the previous and of the current minute, as of `now`.
    fn at(word: u64, now: Millis) -> (u64, u64) {
        let (held, number) = (word >> (2 * COUNT_BITS), Self::number(now));
        let (previous, current) = (word >> COUNT_BITS & MAX_COUNT, word & MAX_COUNT);
        match number.wrapping_sub(held) & 0xffff {
            0 => (previous, current),
            1 => (current, 0),
            _ => (0, 0),
        }
    }

    /// In 16 bits: a deployment that rests for 45 days to the minute is allowed a wrong guess.
    fn number(now: Millis) -> u64 {
        (now / MINUTE_MS) & 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_follows_its_samples_and_fades_with_time() {
        let stats = DeploymentStats::default();
        assert_eq!(stats.read(0).ttft_us, 0, "nothing known");
        stats.first_byte(80_000, 0);
        assert_eq!(stats.read(0).ttft_us, 80_000);
        for _ in 0..60 {
            stats.first_byte(8_000, 1_000);
        }
        let settled = stats.read(1_000).ttft_us;
        assert!((8_000..8_200).contains(&settled), "{settled}");
        assert_eq!(stats.read(1_000 + HALF_LIFE_MS).ttft_us, settled / 2);
        assert_eq!(stats.read(1_000 + 40 * HALF_LIFE_MS).ttft_us, 0);
    }

    #[test]
    fn tokens_set_the_pace_and_the_minute() {
        let stats = DeploymentStats::default();
        stats.succeeded(100, 2_000_000, 0);
        let reading = stats.read(0);
        assert_eq!((reading.per_token_us, reading.tpm_used), (20_000, 112), "counted in units of 16");
        stats.succeeded(0, 5_000_000, 0);
        assert_eq!(stats.read(0).per_token_us, 20_000, "no tokens, no pace");
    }

    #[test]
    fn a_minute_slides_and_is_forgotten() {
        let stats = DeploymentStats::default();
        for _ in 0..60 {
            stats.begun(30_000);
            stats.ended();
        }
        for (now, expected) in [(30_000, 60), (60_000, 60), (75_000, 45), (119_999, 0), (180_000, 0)] {
            assert_eq!(stats.read(now).rpm_used, expected, "{now}");
        }
        stats.begun(75_000);
        assert_eq!((stats.read(75_000).rpm_used, stats.read(75_000).in_flight), (46, 1));
    }

    #[test]
    fn the_share_of_successes_falls_and_recovers() {
        let stats = DeploymentStats::default();
        assert_eq!(stats.read(0).success_permille, 1000);
        for _ in 0..100 {
            stats.failed();
        }
        assert!(stats.read(0).success_permille < 5);
        for _ in 0..300 {
            stats.succeeded(0, 0, 0);
        }
        assert_eq!(stats.read(0).success_permille, 1000);
    }
}
