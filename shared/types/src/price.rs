//! Prices per token and per unit, and what a call costs at them. Integers only; one rounding per call, upwards.

use std::sync::Arc;

use crate::{Measure, Nanos, Unit, UnitPrice, Usage};

/// A price in nano-USD per million tokens (or units): 2.50 USD per million is `NanosPerMillion(2_500_000_000)`.
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
    /// What is billed by another unit than text tokens. Token units (image, audio) fall back to `input` and `output`.
    pub units: Arc<[UnitPrice]>,
}

impl PriceSheet {
    /// Cost of `usage`, rounded up to the next nano-dollar.
    ///
    /// `None` when something that was consumed has no known price or no known count, when the counts contradict
    /// each other (more cached than prompt tokens), or when the sum leaves the range of [`Nanos`].
    pub fn cost(&self, usage: &Usage) -> Option<Nanos> {
        rounded_up(self.tokens(usage, &[])?)
    }

    /// Cost of a call that was counted in tokens, in other units, or in both, rounded up to the next nano-dollar.
    ///
    /// `None`, as for [`Self::cost`], when what was consumed has no known price: no measure that is priced by itself,
    /// and no token count with a price for it. Token counts are passed over where the sheet has no price per token but
    /// one for a measure: image models report both and bill by one.
    pub fn cost_of(&self, usage: Option<&Usage>, measures: &[Measure]) -> Option<Nanos> {
        let mut billed: Option<i128> = None;
        for measure in measures.iter().filter(|measure| !measure.unit.is_token()) {
            if let Some(price) = self.unit_price(measure) {
                let line = i128::from(measure.quantity).checked_mul(i128::from(price.0))?;
                billed = Some(billed.unwrap_or(0).checked_add(line)?);
            }
        }
        let by_token = self.input.is_some() || self.output.is_some();
        let tokens = match usage {
            Some(usage) if by_token || billed.is_none() => Some(self.tokens(usage, measures)?),
            _ => None,
        };
        match (billed, tokens) {
            (None, None) => None,
            (billed, tokens) => rounded_up(billed.unwrap_or(0).checked_add(tokens.unwrap_or(0))?),
        }
    }

    /// The price that fits closest.
    fn unit_price(&self, measure: &Measure) -> Option<NanosPerMillion> {
        let fitting = self.units.iter().filter(|price| price.fits(measure));
        fitting.max_by_key(|price| price.closeness()).map(|price| price.price)
    }

    /// Sum over the token counts, in nano-dollars per million.
    fn tokens(&self, usage: &Usage, measures: &[Measure]) -> Option<i128> {
        let cache_read = usage.cache_read.unwrap_or(0);
        let cache_write = usage.cache_write.unwrap_or(0);
        // Embeddings have no completion; every call has a prompt.
        let mut input = usage.input?.checked_sub(cache_read)?.checked_sub(cache_write)?;
        let mut output = usage.output.unwrap_or(0);
        let mut sum: i128 = 0;
        let mut add = |tokens: u64, price: Option<NanosPerMillion>| {
            if tokens > 0 {
                sum = sum.checked_add(i128::from(tokens).checked_mul(i128::from(price?.0))?)?;
            }
            Some(())
        };
        if !self.units.is_empty() {
            let measured =
                |unit| measures.iter().find(|measure| measure.unit == unit).map(|measure| measure.quantity);
            for (unit, count, of_input) in [
                (Unit::AudioInputTokens, usage.audio_input, true),
                (Unit::ImageInputTokens, measured(Unit::ImageInputTokens), true),
                (Unit::AudioOutputTokens, usage.audio_output, false),
                (Unit::ImageOutputTokens, measured(Unit::ImageOutputTokens), false),
            ] {
                let (Some(count), Some(price)) = (count, self.unit_price(&Measure::new(unit, 0))) else {
                    continue;
                };
                let whole = if of_input { &mut input } else { &mut output };
                // What of it was cached is billed as cached.
                let count = count.min(*whole);
                *whole -= count;
                add(count, Some(price))?;
            }
        }
        add(input, self.input)?;
        add(cache_read, self.cache_read.or(self.input))?;
        add(cache_write, self.cache_write.or(self.input))?;
        add(output, self.output)?;
        Some(sum)
    }
}

fn rounded_up(sum: i128) -> Option<Nanos> {
    let (quotient, remainder) = (sum / 1_000_000, sum % 1_000_000);
    i64::try_from(quotient + i128::from(remainder > 0)).ok().map(Nanos)
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
            units: Arc::default(),
        }
    }

    fn unit(unit: Unit, quality: &str, price: i64) -> UnitPrice {
        UnitPrice { unit, quality: quality.into(), size: "".into(), price: NanosPerMillion(price) }
    }

    #[test]
    fn units_are_priced_by_the_closest_price() {
        let units =
            [unit(Unit::Images, "", 40_000_000_000_000), unit(Unit::Images, "hd", 80_000_000_000_000)];
        let sheet = PriceSheet { units: units.into(), ..PriceSheet::default() };
        let images = |quality: &str| [Measure { quality: quality.into(), ..Measure::new(Unit::Images, 2) }];
        assert_eq!(sheet.cost_of(None, &images("hd")), Some(Nanos(160_000_000)));
        assert_eq!(sheet.cost_of(None, &images("standard")), Some(Nanos(80_000_000)));
        // Reported beside them, with no price of their own.
        let usage = Usage { input: Some(10), output: Some(10), ..Usage::default() };
        assert_eq!(sheet.cost_of(Some(&usage), &images("hd")), Some(Nanos(160_000_000)));
    }

    #[test]
    fn what_has_no_price_for_its_unit_costs_nobody_knows_what() {
        let seconds = [Measure::new(Unit::AudioMilliseconds, 1000)];
        assert_eq!(sheet().cost_of(None, &seconds), None);
        assert_eq!(PriceSheet::default().cost_of(None, &seconds), None);
        assert_eq!(sheet().cost_of(None, &[]), None);
        let free = PriceSheet { units: [unit(Unit::Requests, "", 0)].into(), ..PriceSheet::default() };
        assert_eq!(free.cost_of(None, &[Measure::new(Unit::Requests, 1)]), Some(Nanos::ZERO));
    }

    #[test]
    fn image_and_audio_tokens_are_billed_once_at_their_own_price() {
        let units = [
            unit(Unit::ImageInputTokens, "", 10_000_000_000),
            unit(Unit::ImageOutputTokens, "", 40_000_000_000),
            unit(Unit::AudioInputTokens, "", 6_000_000_000),
        ];
        let sheet = PriceSheet { units: units.into(), ..sheet() };
        let usage = Usage { input: Some(100), output: Some(1000), audio_input: Some(20), ..Usage::default() };
        let measures =
            [Measure::new(Unit::ImageInputTokens, 50), Measure::new(Unit::ImageOutputTokens, 1000)];
        // 30 text, 50 image and 20 audio tokens in, 1000 image tokens out.
        assert_eq!(
            sheet.cost_of(Some(&usage), &measures),
            Some(Nanos(75_000 + 500_000 + 120_000 + 40_000_000))
        );
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
