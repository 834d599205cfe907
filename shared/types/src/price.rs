//! Prices per token and what a [`Usage`] costs at them. Integers only; one rounding per call, upwards.

use std::sync::Arc;

use crate::{Nanos, Usage};

/// A price in nano-USD per million tokens: 2.50 USD per million is `NanosPerMillion(2_500_000_000)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NanosPerMillion(pub i64);

/// The prices of one model at one provider. `None` means unknown, never free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceSheet {
    /// Identity of the price row; every event names the price that it was billed at.
    pub id: Arc<str>,
    pub input: Option<NanosPerMillion>,
    pub output: Option<NanosPerMillion>,
    /// Falls back to `input`.
    pub cache_read: Option<NanosPerMillion>,
    /// Falls back to `input`.
    pub cache_write: Option<NanosPerMillion>,
}

impl PriceSheet {
    /// Cost of `usage`, rounded up to the next nano-dollar.
    ///
    /// `None` when something that was consumed has no known price or no known count, when the counts contradict
    /// each other (more cached than prompt tokens), or when the sum leaves the range of [`Nanos`].
    pub fn cost(&self, usage: &Usage) -> Option<Nanos> {
        let cache_read = usage.cache_read.unwrap_or(0);
        let cache_write = usage.cache_write.unwrap_or(0);
        // Embeddings have no completion; every call has a prompt.
        let uncached = usage.input?.checked_sub(cache_read)?.checked_sub(cache_write)?;
        let lines = [
            (uncached, self.input),
            (cache_read, self.cache_read.or(self.input)),
            (cache_write, self.cache_write.or(self.input)),
            (usage.output.unwrap_or(0), self.output),
        ];
        let mut sum: i128 = 0;
        for (tokens, price) in lines {
            if tokens > 0 {
                sum = sum.checked_add(i128::from(tokens).checked_mul(i128::from(price?.0))?)?;
            }
        }
        let (quotient, remainder) = (sum / 1_000_000, sum % 1_000_000);
        i64::try_from(quotient + i128::from(remainder > 0)).ok().map(Nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sheet() -> PriceSheet {
        PriceSheet {
            id: "test".into(),
            input: Some(NanosPerMillion(2_500_000_000)),
            output: Some(NanosPerMillion(10_000_000_000)),
            cache_read: Some(NanosPerMillion(1_250_000_000)),
            cache_write: None,
        }
    }

    #[test]
    fn cached_tokens_are_billed_once_at_their_own_price() {
        let usage = Usage { input: Some(1000), cache_read: Some(600), output: Some(50), ..Usage::default() };
        // 400 * 2500 + 600 * 1250 + 50 * 10000 nano-USD
        assert_eq!(sheet().cost(&usage), Some(Nanos(1_000_000 + 750_000 + 500_000)));
    }

    #[test]
    fn rounds_up_once() {
        let sheet =
            PriceSheet { input: Some(NanosPerMillion(1)), output: Some(NanosPerMillion(1)), ..sheet() };
        let usage = Usage { input: Some(1), output: Some(1), ..Usage::default() };
        assert_eq!(sheet.cost(&usage), Some(Nanos(1)));
    }

    #[test]
    fn unknown_is_none_and_never_zero() {
        let usage = Usage { input: Some(10), output: Some(10), ..Usage::default() };
        assert_eq!(PriceSheet { output: None, ..sheet() }.cost(&usage), None);
        assert_eq!(sheet().cost(&Usage::default()), None);
        let free =
            PriceSheet { input: Some(NanosPerMillion(0)), output: Some(NanosPerMillion(0)), ..sheet() };
        assert_eq!(free.cost(&usage), Some(Nanos::ZERO));
    }

    #[test]
    fn contradicting_counts_have_no_cost() {
        let usage = Usage { input: Some(10), cache_read: Some(11), output: Some(1), ..Usage::default() };
        assert_eq!(sheet().cost(&usage), None);
    }

    proptest! {
        #[test]
        fn cost_is_never_negative_and_grows_with_usage(
            input in 0_u64..10_000_000, cached in 0_u64..10_000_000, output in 0_u64..10_000_000, more in 0_u64..1000,
        ) {
            let usage = |output| Usage {
                input: Some(input + cached), cache_read: Some(cached), output: Some(output), ..Usage::default()
            };
            let (less, more) = (sheet().cost(&usage(output)).unwrap(), sheet().cost(&usage(output + more)).unwrap());
            prop_assert!(less >= Nanos::ZERO && more >= less);
        }
    }
}
