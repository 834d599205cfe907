//! Latencies in buckets whose width is under 1 % of their value, from nanoseconds to minutes, in fixed memory.

use std::time::Duration;

/// Linear buckets for each power of two.
const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;
/// Values from 2^40 ns (18 minutes) on fall into the last bucket.
const MAX: u64 = (1 << 40) - 1;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; bucket(MAX) + 1], total: 0, max: Duration::ZERO }
    }

    pub(crate) fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(MAX).min(MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// Smallest recorded value (to the bucket) that at least this share of all values do not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = share * self.total as f64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return Duration::from_nanos(middle(bucket)).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BITS + 1);
    let index = u64::from(shift) * SUB + (nanos >> shift);
    // At most 34 * 128.
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// Value in the middle of a bucket: the inverse of [`bucket`].
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / SUB).saturating_sub(1);
    let low = (bucket - shift * SUB) << shift;
    low + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_within_one_percent_of_it() {
        let mut value = 1_u64;
        while value < MAX {
            for near in [value - 1, value, value + 1] {
                let error = middle(bucket(near)).abs_diff(near);
                assert!(error * 100 <= near.max(50), "{near} in a bucket at {}", middle(bucket(near)));
            }
            value = value * 17 / 16 + 1;
        }
    }

    #[test]
    fn buckets_grow_with_the_value() {
        let values: Vec<u64> =
            (0..40).map(|power| 1 << power).flat_map(|value| [value, value + value / 3]).collect();
        assert!(values.windows(2).all(|pair| bucket(pair[0]) <= bucket(pair[1])));
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let got = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((got - micros).abs() <= micros * 0.01, "{share}: {got}");
        }
        assert_eq!(histogram.max(), Duration::from_millis(1));
    }
}
