//! Latency histograms with fixed bounds, so that those of hours, keys and replicas can be added up. Pure.
//!
//! Four bounds for each doubling, from one millisecond to 17.5 minutes, so a percentile is off by a fifth at most. They
//! are part of what is stored: a change of them would need new columns.

/// Counters of one histogram: one for each bound, and one for what is above the last.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// Upper bounds in microseconds, included in their bucket.
const BOUNDS: [u64; 81] = bounds();

const fn bounds() -> [u64; 81] {
    // Nanoseconds: 1 ms times the powers of the fourth root of two.
    const QUARTERS: [u64; 4] = [1_000_000, 1_189_207, 1_414_214, 1_681_793];
    let mut bounds = [0; 81];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = (QUARTERS[at % 4] << (at / 4)) / 1000;
        at += 1;
    }
    bounds
}

/// Requests per bucket of latency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram(pub [i64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    /// What the database returns; buckets it does not have are empty.
    pub fn from_counts(counts: &[i64]) -> Self {
        let mut histogram = Self::default();
        histogram.0.iter_mut().zip(counts).for_each(|(bucket, count)| *bucket = (*count).max(0));
        histogram
    }

    /// Counts one request.
    pub fn record(&mut self, micros: i64) {
        let micros = u64::try_from(micros).unwrap_or_default();
        self.0[BOUNDS.partition_point(|bound| *bound < micros)] += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
    }

    /// How many requests were recorded.
    pub fn count(&self) -> i64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Microseconds that `per_mille` of the requests took at most, interpolated within their bucket; `None` without
    /// requests. Above the last bound it is that bound.
    pub fn quantile(&self, per_mille: u16) -> Option<u64> {
        let total = u128::try_from(self.count()).ok().filter(|total| *total > 0)?;
        // The rank counts from one: the median of a single request is that request.
        let rank = (total * u128::from(per_mille.min(1000))).div_ceil(1000).max(1);
        let mut below = 0;
        for (at, count) in self.0.iter().enumerate() {
            let count = u128::try_from(*count).unwrap_or_default();
            if below + count >= rank {
                let lower = at.checked_sub(1).map_or(0, |at| BOUNDS[at]);
                let Some(upper) = BOUNDS.get(at) else { return Some(lower) };
                let part = u128::from(upper - lower) * (rank - below) / count;
                return Some(lower + u64::try_from(part).unwrap_or_default());
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_grow_by_a_fifth() {
        assert_eq!(BOUNDS[..5], [1000, 1189, 1414, 1681, 2000]);
        assert_eq!(BOUNDS[80], 1_048_576_000);
        for pair in BOUNDS.windows(2) {
            assert!((1187..=1191).contains(&(pair[1] * 1000 / pair[0])), "{pair:?}");
        }
    }

    #[test]
    fn nothing_has_no_quantile_and_extremes_have_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        for micros in [-5, 0, 1000, 1001, i64::MAX] {
            histogram.record(micros);
        }
        assert_eq!((histogram.0[0], histogram.0[1], histogram.0[BUCKETS - 1]), (3, 1, 1));
        assert_eq!(histogram.quantile(1000), Some(BOUNDS[80]));
    }

    proptest! {
        /// Off by one bucket's width at most, and the same whether added up or recorded at once.
        #[test]
        fn quantiles_are_within_their_bucket_and_add_up(
            mut samples in prop::collection::vec(1_i64..900_000_000, 1..200), split in 0_usize..200, per_mille in 1_u16..=1000,
        ) {
            let (mut whole, mut first, mut second) = (Histogram::default(), Histogram::default(), Histogram::default());
            for (at, sample) in samples.iter().enumerate() {
                whole.record(*sample);
                if at < split { first.record(*sample) } else { second.record(*sample) }
            }
            first.add(&second);
            prop_assert_eq!(&first, &whole);
            samples.sort_unstable();
            let rank = (samples.len() * usize::from(per_mille)).div_ceil(1000);
            let exact = u64::try_from(samples[rank - 1]).unwrap();
            let told = whole.quantile(per_mille).unwrap();
            let bucket = BOUNDS.partition_point(|bound| *bound < exact);
            let lower = bucket.checked_sub(1).map_or(0, |at| BOUNDS[at]);
            prop_assert!((lower..=BOUNDS[bucket]).contains(&told), "{} for {}", told, exact);
        }
    }
}
