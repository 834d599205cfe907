//! The most that a call can cost: what is reserved before it is sent. Every count at the highest price that could hold
//! for it, whatever the answer will say was cached, thought, spoken or served faster.

use super::{line, rates::Rates, rounded_up};
use crate::{Measure, Nanos, NanosPerMillion, PriceSheet, Unit};

impl PriceSheet {
    /// An upper bound of what a call costs that consumes at most so many prompt tokens (cached ones included), so many
    /// completion tokens (reasoning included), and of each of `measures` at most as much; whichever service tier serves
    /// it and whichever quality or size is delivered. What `measures` does not name is not covered.
    ///
    /// Never below [`Self::cost_in`] of such a call. `None` when something of it has no known price, or when the bound
    /// leaves the range of [`Nanos`]: nothing can be promised then.
    pub fn upper_bound(&self, input_tokens: u64, output_tokens: u64, measures: &[Measure]) -> Option<Nanos> {
        let base = Rates::at(self, None);
        let reached = self.steps.iter().filter(|step| step.is_reached(input_tokens));
        let (mut by_token, mut input, mut output) = (base.by_token(), None, None);
        for rates in std::iter::once(base).chain(reached.map(|step| Rates::at(self, Some(step)))) {
            by_token |= rates.by_token();
            let prompt = [rates.input, rates.cache_read, rates.cache_write, rates.cache_write_1h];
            input = prompt.into_iter().flatten().max().max(input);
            output = [rates.output, rates.reasoning].into_iter().flatten().max().max(output);
        }
        let (mut sum, mut instead_of_tokens) = (0_i128, false);
        for measure in measures.iter().filter(|measure| !measure.unit.is_token()) {
            match self.highest(measure.unit) {
                Some(price) => {
                    sum = sum.checked_add(line(measure.quantity, price)?)?;
                    instead_of_tokens |= !measure.unit.is_tool();
                }
                None if measure.unit.is_tool() && measure.quantity > 0 => return None,
                None => {}
            }
        }
        if self.fee_per_request(measures).is_some() {
            sum = sum.checked_add(line(1, self.highest(Unit::Requests)?)?)?;
            instead_of_tokens |= !by_token;
        }
        // Whoever has no price for text may still bill the tokens of images.
        by_token |= !instead_of_tokens && self.units.iter().any(|price| price.unit.is_token());
        if by_token {
            for (count, known, price, parts) in [
                (input_tokens, base.input, input, [Unit::AudioInputTokens, Unit::ImageInputTokens]),
                (output_tokens, base.output, output, [Unit::AudioOutputTokens, Unit::ImageOutputTokens]),
            ] {
                if count > 0 {
                    let parts = parts.into_iter().filter_map(|unit| self.highest(unit)).max();
                    known.or(parts)?;
                    sum = sum.checked_add(line(count, price.max(parts)?)?)?;
                }
            }
        } else if !instead_of_tokens {
            return None;
        }
        rounded_up(sum)
    }

    /// The highest price of a unit: what will be delivered is not known before.
    fn highest(&self, unit: Unit) -> Option<NanosPerMillion> {
        self.units.iter().filter(|price| price.unit == unit).map(|price| price.price).max()
    }
}
