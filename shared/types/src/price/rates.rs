//! The prices that hold for one call: those of the sheet, or of the step that its prompt's length and its service tier
//! lead to. Called by [`super::cost`] and [`super::bound`].

use crate::{NanosPerMillion, PriceSheet, PriceStep};

type Price = Option<NanosPerMillion>;

/// Prices per token with every fallback made. `None`: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) input: Price,
    pub(super) output: Price,
    pub(super) cache_read: Price,
    pub(super) cache_write: Price,
    pub(super) cache_write_1h: Price,
    pub(super) reasoning: Price,
}

impl Rates {
    /// Of a call with so many prompt tokens, served in this tier (empty: not told).
    pub(super) fn of(sheet: &PriceSheet, input_tokens: u64, service_tier: &str) -> Self {
        let applying = sheet.steps.iter().filter(|step| {
            step.is_reached(input_tokens)
                && (step.service_tier.is_empty() || *step.service_tier == *service_tier)
        });
        Self::at(sheet, applying.max_by_key(|step| (step.above_input_tokens, !step.service_tier.is_empty())))
    }

    /// Of the sheet, or of one of its steps.
    pub(super) fn at(sheet: &PriceSheet, step: Option<&PriceStep>) -> Self {
        let pick = |own: fn(&PriceStep) -> Price, of_sheet: Price| step.and_then(own).or(of_sheet);
        let input = pick(|step| step.input, sheet.input);
        let output = pick(|step| step.output, sheet.output);
        let cache_write = pick(|step| step.cache_write, sheet.cache_write).or(input);
        Self {
            input,
            output,
            cache_read: pick(|step| step.cache_read, sheet.cache_read).or(input),
            cache_write,
            cache_write_1h: pick(|step| step.cache_write_1h, sheet.cache_write_1h).or(cache_write),
            reasoning: pick(|step| step.reasoning, sheet.reasoning).or(output),
        }
    }

    /// Whether there is any price per token.
    pub(super) fn by_token(&self) -> bool {
        self.input.is_some() || self.output.is_some()
    }
}

impl PriceStep {
    /// Whether a prompt of so many tokens is long enough for it.
    pub(super) fn is_reached(&self, input_tokens: u64) -> bool {
        // A step from the first token on holds for a prompt of none as well.
        self.above_input_tokens == 0 || input_tokens > self.above_input_tokens
    }
}
