//! Conversions between wire values and [`nemo_types`]. Called by both planes.

use nemo_types::{Measure, NanosPerMillion, PriceSheet, PriceStep, Unit, UnitPrice, Usage};

use crate::common;

impl From<&Usage> for common::Usage {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.input,
            output_tokens: usage.output,
            cache_read_tokens: usage.cache_read,
            cache_write_tokens: usage.cache_write,
            reasoning_tokens: usage.reasoning,
            audio_input_tokens: usage.audio_input,
            audio_output_tokens: usage.audio_output,
            cache_write_1h_tokens: usage.cache_write_1h,
        }
    }
}

impl From<&common::Usage> for Usage {
    fn from(usage: &common::Usage) -> Self {
        Self {
            input: usage.input_tokens,
            output: usage.output_tokens,
            cache_read: usage.cache_read_tokens,
            cache_write: usage.cache_write_tokens,
            reasoning: usage.reasoning_tokens,
            audio_input: usage.audio_input_tokens,
            audio_output: usage.audio_output_tokens,
            cache_write_1h: usage.cache_write_1h_tokens,
        }
    }
}

impl From<&common::PriceSheet> for PriceSheet {
    fn from(sheet: &common::PriceSheet) -> Self {
        Self {
            id: sheet.id.as_str().into(),
            input: sheet.input.map(NanosPerMillion),
            output: sheet.output.map(NanosPerMillion),
            cache_read: sheet.cache_read.map(NanosPerMillion),
            cache_write: sheet.cache_write.map(NanosPerMillion),
            // A unit of a newer control plane has no price here: what is counted in it costs nobody knows what.
            units: sheet.units.iter().filter_map(unit_price).collect(),
            cache_write_1h: sheet.cache_write_1h.map(NanosPerMillion),
            reasoning: sheet.reasoning.map(NanosPerMillion),
            steps: sheet.steps.iter().map(PriceStep::from).collect(),
        }
    }
}

impl From<&PriceSheet> for common::PriceSheet {
    fn from(sheet: &PriceSheet) -> Self {
        Self {
            id: sheet.id.to_string(),
            input: sheet.input.map(|price| price.0),
            output: sheet.output.map(|price| price.0),
            cache_read: sheet.cache_read.map(|price| price.0),
            cache_write: sheet.cache_write.map(|price| price.0),
            units: sheet.units.iter().map(common::UnitPrice::from).collect(),
            cache_write_1h: sheet.cache_write_1h.map(|price| price.0),
            reasoning: sheet.reasoning.map(|price| price.0),
            steps: sheet.steps.iter().map(common::PriceStep::from).collect(),
        }
    }
}

impl From<&common::PriceStep> for PriceStep {
    fn from(step: &common::PriceStep) -> Self {
        Self {
            above_input_tokens: step.above_input_tokens,
            service_tier: step.service_tier.as_str().into(),
            input: step.input.map(NanosPerMillion),
            output: step.output.map(NanosPerMillion),
            cache_read: step.cache_read.map(NanosPerMillion),
            cache_write: step.cache_write.map(NanosPerMillion),
            cache_write_1h: step.cache_write_1h.map(NanosPerMillion),
            reasoning: step.reasoning.map(NanosPerMillion),
        }
    }
}

impl From<&PriceStep> for common::PriceStep {
    fn from(step: &PriceStep) -> Self {
        Self {
            above_input_tokens: step.above_input_tokens,
            service_tier: step.service_tier.to_string(),
            input: step.input.map(|price| price.0),
            output: step.output.map(|price| price.0),
            cache_read: step.cache_read.map(|price| price.0),
            cache_write: step.cache_write.map(|price| price.0),
            cache_write_1h: step.cache_write_1h.map(|price| price.0),
            reasoning: step.reasoning.map(|price| price.0),
        }
    }
}

fn unit_price(price: &common::UnitPrice) -> Option<UnitPrice> {
    let unit = Unit::from_name(&price.unit)?;
    let (quality, size) = (price.quality.as_str().into(), price.size.as_str().into());
    Some(UnitPrice { unit, quality, size, price: NanosPerMillion(price.price) })
}

impl From<&UnitPrice> for common::UnitPrice {
    fn from(price: &UnitPrice) -> Self {
        Self {
            unit: price.unit.name().into(),
            quality: price.quality.to_string(),
            size: price.size.to_string(),
            price: price.price.0,
        }
    }
}

impl From<&Measure> for common::Measure {
    fn from(measure: &Measure) -> Self {
        Self {
            unit: measure.unit.name().into(),
            quantity: measure.quantity,
            quality: measure.quality.to_string(),
            size: measure.size.to_string(),
        }
    }
}
