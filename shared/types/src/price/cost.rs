//! What a call costs, from what was counted. Whatever is unknown or contradicts itself has no cost, rather than a wrong
//! one.

use super::{line, rates::Rates, rounded_up};
use crate::{Measure, Nanos, NanosPerMillion, PriceSheet, Unit, Usage};

impl PriceSheet {
    /// Cost of `usage` in the standard tier: see [`Self::cost_in`].
    pub fn cost(&self, usage: &Usage) -> Option<Nanos> {
        self.cost_in("", Some(usage), &[])
    }

    /// Cost of a call in the standard tier: see [`Self::cost_in`].
    pub fn cost_of(&self, usage: Option<&Usage>, measures: &[Measure]) -> Option<Nanos> {
        self.cost_in("", usage, measures)
    }

    /// Cost of a call that was counted in tokens, in other units, or in both, rounded up to the next nano-dollar. Never
    /// below zero.
    ///
    /// `service_tier` is the one that the call was served in, as the answer says; empty: not told.
    ///
    /// `None` when something that was consumed has no known price or no known count, when the counts contradict each
    /// other (more cached than prompt tokens), or when the sum leaves the range of [`Nanos`]. Two exceptions: token
    /// counts are passed over where the sheet has no price per token but one for a measure, and a measure without a
    /// price where tokens are priced, because image models report both and bill by one. Tools are never passed over:
    /// providers bill them on top.
    pub fn cost_in(&self, service_tier: &str, usage: Option<&Usage>, measures: &[Measure]) -> Option<Nanos> {
        let prompt = usage.and_then(|usage| usage.input).unwrap_or(0);
        let rates = Rates::of(self, prompt, service_tier);
        let (mut sum, mut instead_of_tokens) = (0_i128, false);
        for measure in measures.iter().filter(|measure| !measure.unit.is_token()) {
            match self.unit_price(measure) {
                Some(price) => {
                    sum = sum.checked_add(line(measure.quantity, price)?)?;
                    instead_of_tokens |= !measure.unit.is_tool();
                }
                None if measure.unit.is_tool() && measure.quantity > 0 => return None,
                None => {}
            }
        }
        if let Some(fee) = self.fee_per_request(measures) {
            sum = sum.checked_add(line(1, fee)?)?;
            // What is billed by the call alone. Beside a price per token it says nothing of the tokens.
            instead_of_tokens |= !rates.by_token();
        }
        match usage {
            Some(usage) if rates.by_token() || !instead_of_tokens => {
                sum = sum.checked_add(self.tokens(&rates, usage, measures)?)?;
            }
            _ if instead_of_tokens => {}
            _ => return None,
        }
        rounded_up(sum)
    }

    /// The price of the call itself, unless it is among the measures already.
    pub(super) fn fee_per_request(&self, measures: &[Measure]) -> Option<NanosPerMillion> {
        if self.units.is_empty() || measures.iter().any(|measure| measure.unit == Unit::Requests) {
            return None;
        }
        self.unit_price(&Measure::new(Unit::Requests, 1))
    }

    /// The price that fits closest.
    fn unit_price(&self, measure: &Measure) -> Option<NanosPerMillion> {
        let fitting = self.units.iter().filter(|price| price.fits(measure));
        fitting.max_by_key(|price| price.closeness()).map(|price| price.price)
    }

    /// Sum over the token counts, in nano-dollars per million.
    fn tokens(&self, rates: &Rates, usage: &Usage, measures: &[Measure]) -> Option<i128> {
        let count = |count: Option<u64>| count.unwrap_or(0);
        let prompt = usage.input?;
        // Embeddings have no completion; every call has a prompt.
        let completion = count(usage.output);
        let (cache_read, cache_write) = (count(usage.cache_read), count(usage.cache_write));
        let hour = count(usage.cache_write_1h);
        let reasoning = count(usage.reasoning);
        let five_minutes = cache_write.checked_sub(hour)?;
        let mut input = prompt.checked_sub(cache_read)?.checked_sub(cache_write)?;
        let mut output = completion.checked_sub(reasoning)?;
        let mut sum: i128 = 0;
        let mut add = |tokens: u64, price: Option<NanosPerMillion>| {
            if tokens > 0 {
                sum = sum.checked_add(line(tokens, price?)?)?;
            }
            Some(())
        };
        let measured =
            |unit| measures.iter().find(|measure| measure.unit == unit).map(|measure| measure.quantity);
        let parts = [
            (Unit::AudioInputTokens, usage.audio_input, true),
            (Unit::ImageInputTokens, measured(Unit::ImageInputTokens), true),
            (Unit::AudioOutputTokens, usage.audio_output, false),
            (Unit::ImageOutputTokens, measured(Unit::ImageOutputTokens), false),
        ];
        // More parts than there is of the whole.
        let (mut left_input, mut left_output) = (prompt, output);
        for (_, part, of_input) in parts {
            let left = if of_input { &mut left_input } else { &mut left_output };
            *left = left.checked_sub(count(part))?;
        }
        if !self.units.is_empty() {
            for (unit, part, of_input) in parts {
                let (Some(part), Some(price)) = (part, self.unit_price(&Measure::new(unit, 0))) else {
                    continue;
                };
                let whole = if of_input { &mut input } else { &mut output };
                // What of it was cached is billed as cached.
                let part = part.min(*whole);
                *whole -= part;
                add(part, Some(price))?;
            }
        }
        add(input, rates.input)?;
        add(cache_read, rates.cache_read)?;
        add(five_minutes, rates.cache_write)?;
        add(hour, rates.cache_write_1h)?;
        add(output, rates.output)?;
        add(reasoning, rates.reasoning)?;
        Some(sum)
    }
}
