//! Prices per token and per unit, and what a call costs at them. Integers only; one rounding per call, upwards.
//!
//! - [`rates`]: which prices hold for a prompt of this length in this service tier
//! - [`cost`]: what a call costs, from what was counted
//! - [`bound`]: the most that a call can cost, from what it is allowed to consume

use std::sync::Arc;

use crate::{Nanos, UnitPrice};

mod bound;
mod cost;
mod rates;
#[cfg(test)]
mod tests;

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
    /// What is billed by another unit than text tokens. Token units (image, audio) fall back to `input` and `output`. A
    /// price for requests is paid by every call.
    pub units: Arc<[UnitPrice]>,
    /// Falls back to `cache_write`.
    pub cache_write_1h: Option<NanosPerMillion>,
    /// Falls back to `output`.
    pub reasoning: Option<NanosPerMillion>,
    /// Prices of long prompts and of service tiers.
    pub steps: Arc<[PriceStep]>,
}

/// Other prices under a condition; what is `None` falls back to the sheet itself. Of several steps that apply the one
/// with the highest threshold wins, and a tier's before one for any tier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceStep {
    /// For prompts of more tokens than this; 0: of any length.
    pub above_input_tokens: u64,
    /// For calls that were served in this tier; empty: in any.
    pub service_tier: Box<str>,
    pub input: Option<NanosPerMillion>,
    pub output: Option<NanosPerMillion>,
    pub cache_read: Option<NanosPerMillion>,
    pub cache_write: Option<NanosPerMillion>,
    pub cache_write_1h: Option<NanosPerMillion>,
    pub reasoning: Option<NanosPerMillion>,
}

/// The sum of lines in nano-dollars per million, in nano-dollars; a part of one is paid as a whole one.
fn rounded_up(sum: i128) -> Option<Nanos> {
    let (quotient, remainder) = (sum / 1_000_000, sum % 1_000_000);
    i64::try_from(quotient + i128::from(remainder > 0)).ok().map(Nanos)
}

/// So many at this price. A price below zero is none: no call ever earns money.
fn line(count: u64, price: NanosPerMillion) -> Option<i128> {
    (price.0 >= 0).then(|| i128::from(count).checked_mul(i128::from(price.0)))?
}
