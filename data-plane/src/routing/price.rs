//! What a request would cost at a deployment, as far as one can tell before it is sent: for the order by cost, and for
//! ceilings. Called by [`super::candidates`] and the strategies.

use nemo_llm::{Endpoint, preferences::MaxPrice};
use nemo_snapshot::Deployment;
use nemo_types::{Measure, Nanos, NanosPerMillion, PriceSheet, Unit, Usage};
use smallvec::SmallVec;

use super::{Ask, Ceiling, Reason};

/// Tokens that an answer is expected to have, unless the request allows fewer. What a request allows is a limit and no
/// forecast: clients ask for thousands to be safe.
const USUAL_OUTPUT: u64 = 512;
/// What one image counts where images are billed in tokens.
const USUAL_IMAGE_TOKENS: u64 = 1_000;
/// A recording whose length nobody knows.
const USUAL_AUDIO_MS: u64 = 60_000;
const BYTES_PER_TOKEN: u64 = 4;

/// What a request is expected to consume.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    usage: Usage,
    /// Beside tokens; empty for text.
    measures: SmallVec<[Measure; 2]>,
}

impl Shape {
    pub(super) fn expected(ask: &Ask<'_>) -> Self {
        let answers = ask.endpoint.has_choices() || ask.endpoint == Endpoint::Responses;
        let output = ask.output_tokens.map_or(USUAL_OUTPUT, |most| most.min(USUAL_OUTPUT));
        Self::new(ask, if answers { output } else { 0 })
    }

    /// Nothing but what is sure: the prompt, and the output that the request asks for.
    fn told(ask: &Ask<'_>) -> Self {
        Self::new(ask, ask.output_tokens.unwrap_or(0))
    }

    fn new(ask: &Ask<'_>, output: u64) -> Self {
        let mut shape = Self {
            usage: Usage { input: Some(ask.input_tokens), output: Some(output), ..Usage::default() },
            measures: SmallVec::new(),
        };
        let measure = match ask.endpoint {
            endpoint if endpoint.is_text() => return shape,
            Endpoint::ImageGenerations | Endpoint::ImageEdits | Endpoint::ImageVariations => {
                shape.usage.output = Some(USUAL_IMAGE_TOKENS);
                shape.measures.push(Measure::new(Unit::ImageOutputTokens, USUAL_IMAGE_TOKENS));
                Measure::new(Unit::Images, 1)
            }
            Endpoint::Speech => {
                Measure::new(Unit::Characters, ask.input_tokens.saturating_mul(BYTES_PER_TOKEN))
            }
            Endpoint::Transcriptions | Endpoint::Translations => {
                Measure::new(Unit::AudioMilliseconds, USUAL_AUDIO_MS)
            }
            Endpoint::Rerank => Measure::new(Unit::SearchUnits, 1),
            _ => Measure::new(Unit::Requests, 1),
        };
        shape.measures.push(measure);
        shape
    }

    /// `None`: nobody knows.
    pub(super) fn cost(&self, deployment: &Deployment) -> Option<Nanos> {
        let price = deployment.price.as_deref()?;
        if self.measures.is_empty() {
            price.cost(&self.usage)
        } else {
            price.cost_of(Some(&self.usage), &self.measures)
        }
    }

    /// Tokens that it counts against a limit per minute; at least 1.
    pub(super) fn tokens(&self) -> u64 {
        let count = |tokens: Option<u64>| tokens.unwrap_or(0);
        count(self.usage.input).saturating_add(count(self.usage.output)).max(1)
    }

    pub(super) fn output(&self) -> u64 {
        self.usage.output.unwrap_or(0)
    }
}

/// The ceilings of a request.
#[derive(Clone, Debug)]
pub(super) struct Ceilings {
    of_price: MaxPrice,
    of_cost: Option<(Nanos, Shape)>,
    endpoint: Endpoint,
}

impl Ceilings {
    /// `None`: the request has none.
    pub(super) fn of(ask: &Ask<'_>) -> Option<Self> {
        let of_price = ask.preferences.map(|it| it.max_price).unwrap_or_default();
        if ask.max_cost.is_none() && of_price == MaxPrice::default() {
            return None;
        }
        let of_cost = ask.max_cost.map(|most| (most, Shape::told(ask)));
        Some(Self { of_price, of_cost, endpoint: ask.endpoint })
    }

    /// # Errors
    /// Why this deployment is above one of them, or nobody knows.
    pub(super) fn check(&self, deployment: &Deployment) -> Result<(), Reason> {
        let sheet = deployment.price.as_deref();
        let answers = self.endpoint.has_choices() || self.endpoint == Endpoint::Responses;
        let by_unit = |unit| unit_price(sheet, unit);
        let by_token = |price: fn(&PriceSheet) -> Option<NanosPerMillion>| {
            let sheet = sheet?;
            // What is billed by other units alone has no price per token, and so is not above any.
            price(sheet).or((!sheet.units.is_empty()).then_some(NanosPerMillion(0)))
        };
        let free = Some(NanosPerMillion(0)).filter(|_| sheet.is_some());
        for (ceiling, most, price) in [
            (Ceiling::Prompt, self.of_price.prompt, by_token(|sheet| sheet.input)),
            (
                Ceiling::Completion,
                self.of_price.completion.filter(|_| answers),
                by_token(|sheet| sheet.output),
            ),
            (Ceiling::Request, self.of_price.request, by_unit(Unit::Requests).or(free)),
            (Ceiling::Image, self.of_price.image.filter(|_| self.endpoint.is_image()), by_unit(Unit::Images)),
        ] {
            let Some(most) = most else { continue };
            if price.ok_or(Reason::PriceUnknown(ceiling))? > most {
                return Err(Reason::TooExpensive(ceiling));
            }
        }
        if let Some((most, shape)) = &self.of_cost {
            let cost = shape.cost(deployment).ok_or(Reason::PriceUnknown(Ceiling::Cost))?;
            if cost > *most {
                return Err(Reason::TooExpensive(Ceiling::Cost));
            }
        }
        Ok(())
    }
}

/// The highest of those for the unit: which quality or size it will be is not known here.
fn unit_price(sheet: Option<&PriceSheet>, unit: Unit) -> Option<NanosPerMillion> {
    sheet?.units.iter().filter(|price| price.unit == unit).map(|price| price.price).max()
}
