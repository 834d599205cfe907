//! What a request can cost at each of its candidates, before it is sent (requirements D): its input at the highest price
//! that could hold for it, and so much for every token of output. Pure. Called by [`super::plan`].

use nemo_llm::{Asked, Endpoint, Envelope, Features, MostInput, bound::most_audio_ms};
use nemo_snapshot::{Deployment, Model};
use nemo_types::{Measure, Nanos, PriceSheet, Unit};
use smallvec::SmallVec;

/// Output of a conversation that is likely, unless less is allowed.
pub const LIKELY_OUTPUT: u64 = 512;
/// The output that is allowed to a model of which nobody knows how much it makes, unless the request says so: nearly all
/// of them can make as much.
const UNKNOWN_OUTPUT: u64 = 4096;
/// Tokens of one image in the best quality with all the previews that can be asked for.
const IMAGE_OUTPUT: u64 = 8192;
/// Speech: a character is read in well under a second, and a second has at most 50 tokens.
const SPEECH_OUTPUT_PER_CHARACTER: u64 = 32;
/// Text of a recording, for models that tell no limit.
const TRANSCRIPT_OUTPUT: u64 = 16_384;
/// Rerankers bill a search for every hundred documents, long ones in parts of five hundred tokens.
const RERANK_DOCUMENTS: u64 = 100;
const RERANK_PART: u64 = 500;

/// What a request asks for, as far as its cost is concerned.
#[derive(Clone, Debug)]
pub struct Size {
    pub endpoint: Endpoint,
    pub most_input: MostInput,
    pub likely_input: u64,
    /// Tokens that each answer may have, if the request says so.
    pub output: Option<u64>,
    /// Answers that are made.
    pub choices: u64,
    /// Other units than text tokens, as many as there can be.
    units: SmallVec<[Measure; 1]>,
    /// Output of what is no conversation, in tokens.
    other_output: u64,
}

impl Size {
    /// `length`: of the body, in bytes.
    pub fn of(endpoint: Endpoint, envelope: &Envelope<'_>, length: usize) -> Self {
        let mut size = Self {
            endpoint,
            most_input: MostInput::of(length, envelope),
            likely_input: nemo_llm::likely_input_tokens(length, envelope.inlined),
            output: envelope.max_output,
            choices: envelope.choices,
            units: SmallVec::new(),
            other_output: 0,
        };
        if let Some(asked) = &envelope.asked {
            size.measure(asked, length as u64);
        }
        size
    }

    /// Of a form, of which nothing but its fields so far is known. `length`: the most that it has.
    pub fn of_form(endpoint: Endpoint, asked: &Asked, length: u64) -> Self {
        let mut size = Self {
            endpoint,
            most_input: MostInput::of_form(endpoint, length),
            likely_input: 0,
            output: None,
            choices: 1,
            units: SmallVec::new(),
            other_output: 0,
        };
        size.measure(asked, length);
        size
    }

    fn measure(&mut self, asked: &Asked, length: u64) {
        let mut count = |unit, quantity| self.units.push(Measure::new(unit, quantity));
        match self.endpoint {
            Endpoint::ImageGenerations | Endpoint::ImageEdits | Endpoint::ImageVariations => {
                let images = asked.images.unwrap_or(1);
                count(Unit::Images, images);
                self.other_output = images.saturating_mul(IMAGE_OUTPUT);
            }
            Endpoint::Speech => {
                let characters = asked.characters.unwrap_or(length);
                count(Unit::Characters, characters);
                self.other_output = characters.saturating_mul(SPEECH_OUTPUT_PER_CHARACTER);
            }
            Endpoint::Transcriptions | Endpoint::Translations => {
                count(Unit::AudioMilliseconds, most_audio_ms(length));
                self.other_output = TRANSCRIPT_OUTPUT;
            }
            Endpoint::Rerank => {
                let documents = asked.documents.unwrap_or(length);
                count(Unit::SearchUnits, (documents + length / RERANK_PART).div_ceil(RERANK_DOCUMENTS));
                count(Unit::Documents, documents);
            }
            Endpoint::Moderations => count(Unit::Requests, 1),
            Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Responses
            | Endpoint::Messages
            | Endpoint::CountTokens
            | Endpoint::GenerateContent
            | Endpoint::GoogleCountTokens
            | Endpoint::Videos => {}
        }
    }

    /// Whether the upstream can be told how much it may put out.
    pub fn can_be_capped(&self) -> bool {
        self.endpoint.dialect().is_some()
    }

    /// Tokens of output over all answers, and whether the upstream has to be told so.
    fn most_output(&self, model: &Model) -> (u64, bool) {
        if !self.can_be_capped() {
            let known = Some(model.max_output_tokens).filter(|most| *most > 0);
            let transcript = matches!(self.endpoint, Endpoint::Transcriptions | Endpoint::Translations);
            return (known.filter(|_| transcript).unwrap_or(self.other_output), false);
        }
        let known = [model.max_output_tokens, model.context_window].into_iter().find(|most| *most > 0);
        let (each, must_cap) = match self.output.or(known) {
            Some(each) => (each, false),
            None => (UNKNOWN_OUTPUT, true),
        };
        (each.saturating_mul(self.choices), must_cap)
    }

    fn likely_output(&self, most: u64) -> u64 {
        if self.can_be_capped() { most.min(LIKELY_OUTPUT.saturating_mul(self.choices)) } else { most }
    }
}

/// How much is held for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What it can cost at most.
    Strict,
    /// What it is likely to cost.
    Estimated,
}

/// What a request costs at one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Everything but the output.
    pub fixed: Nanos,
    /// A million tokens of output, in nano-USD.
    pub rate: i64,
    /// Tokens of output that are held for when all is held at once.
    pub output: u64,
    /// Tokens of output that there can be. Where the mode is estimated more than `output`.
    pub most: u64,
    /// The model thinks unseen, or may put out what is no text: its output can't be followed while it comes.
    pub hidden: bool,
    /// The upstream must be told `most`, since nothing else says so.
    pub must_cap: bool,
}

impl Terms {
    /// `None`: nobody can tell what it costs.
    pub fn of(size: &Size, deployment: &Deployment, mode: Mode) -> Option<Self> {
        let price = deployment.price.as_deref()?;
        let model = &deployment.model;
        let input = match mode {
            Mode::Strict => size.most_input.tokens(&deployment.upstream_model, model.context_window)?,
            Mode::Estimated => size.likely_input,
        };
        let (most, must_cap) = size.most_output(model);
        let fixed = price.upper_bound(input, 0, &size.units)?;
        let rate = match most {
            0 => 0,
            // A price per million is a whole number of nano-dollars, so this is exact.
            _ => price.upper_bound(input, 1_000_000, &size.units)?.checked_sub(fixed)?.0,
        };
        Some(Self {
            fixed,
            rate,
            output: if mode == Mode::Strict { most } else { size.likely_output(most) },
            most,
            hidden: is_hidden(model, price),
            must_cap: must_cap && mode == Mode::Strict,
        })
    }

    /// Rounded up.
    pub fn cost(&self, output: u64) -> Nanos {
        let line = i128::from(self.rate) * i128::from(output);
        let sum = i128::from(self.fixed.0) + (line + 999_999) / 1_000_000;
        Nanos(i64::try_from(sum).unwrap_or(i64::MAX))
    }

    /// Tokens of output that so much money pays for. `None`: not even the rest of it.
    pub fn affordable(&self, money: Nanos) -> Option<u64> {
        let left = money.checked_sub(self.fixed).filter(|left| left.0 >= 0)?;
        if self.rate <= 0 {
            return Some(u64::MAX);
        }
        u64::try_from(i128::from(left.0) * 1_000_000 / i128::from(self.rate)).ok()
    }
}

/// Whether there can be output that is not seen as text while it comes: thoughts, images or sound. Of a model that nobody
/// knows anything of there can.
fn is_hidden(model: &Model, price: &PriceSheet) -> bool {
    let unknown = model.max_output_tokens == 0 && model.context_window == 0;
    let other = |unit| matches!(unit, Unit::AudioOutputTokens | Unit::ImageOutputTokens);
    unknown
        || price.reasoning.is_some()
        || price.units.iter().any(|price| other(price.unit))
        || model.output_modalities.iter().any(|it| matches!(&**it, "image" | "audio" | "video"))
        || model.tags.iter().any(|tag| &**tag == "reasoning")
}

/// The need that no bound is known for, in words, for the refusal.
pub fn why_unbounded(size: &Size, features: Features, deployment: &Deployment) -> &'static str {
    if deployment.price.is_none() {
        "nobody has set its price"
    } else if features.contains(Features::BACKGROUND) {
        "a `background` answer comes later, and what it has cost with it"
    } else if features.contains(Features::PROVIDER_TOOLS) {
        "the provider's own tools cost as much as they find"
    } else if size.most_input.tokens(&deployment.upstream_model, deployment.model.context_window).is_none() {
        "the request refers to content of unknown size, and the model's context window is not known"
    } else {
        "its price list leaves out what the request uses"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nemo_types::{NanosPerMillion, UnitPrice};
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn deployment(max_output: u64, window: u64, tags: &[&str]) -> Deployment {
        let mut it = Arc::into_inner(testing::deployment("custom", "m")).unwrap();
        let mut model = Arc::into_inner(it.model).unwrap();
        (model.max_output_tokens, model.context_window) = (max_output, window);
        model.tags = tags.iter().map(|tag| (*tag).into()).collect();
        it.model = Arc::new(model);
        it.price = Some(Arc::new(PriceSheet {
            input: Some(NanosPerMillion(2_500_000_000)),
            output: Some(NanosPerMillion(10_000_000_000)),
            ..PriceSheet::default()
        }));
        it
    }

    fn size(body: &serde_json::Value) -> Size {
        let body = body.to_string();
        let endpoint = Endpoint::ChatCompletions;
        Size::of(endpoint, &nemo_llm::parse(endpoint, body.as_bytes()).unwrap(), body.len())
    }

    fn chat(extra: &serde_json::Value) -> Size {
        let mut body = serde_json::json!({ "model": "m", "messages": [] });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        size(&body)
    }

    /// Requirements D 2 and 3.
    #[test]
    fn the_output_is_what_is_allowed_over_all_answers() {
        let most = |extra, at: &Deployment| {
            let terms = Terms::of(&chat(&extra), at, Mode::Strict).unwrap();
            (terms.output, terms.must_cap)
        };
        let known = deployment(4096, 128_000, &[]);
        assert_eq!(most(serde_json::json!({ "max_tokens": 100 }), &known), (100, false));
        assert_eq!(most(serde_json::json!({ "max_tokens": 100, "n": 3 }), &known), (300, false));
        assert_eq!(most(serde_json::json!({}), &known), (4096, false));
        assert_eq!(most(serde_json::json!({ "max_tokens": -1 }), &known), (4096, false));
        assert_eq!(most(serde_json::json!({}), &deployment(0, 9000, &[])), (9000, false));
        assert_eq!(most(serde_json::json!({}), &deployment(0, 0, &[])), (UNKNOWN_OUTPUT, true));
    }

    #[test]
    fn an_estimate_holds_what_is_likely() {
        let at = deployment(4096, 128_000, &["reasoning"]);
        let strict = Terms::of(&chat(&serde_json::json!({})), &at, Mode::Strict).unwrap();
        let likely = Terms::of(&chat(&serde_json::json!({})), &at, Mode::Estimated).unwrap();
        assert_eq!((likely.output, likely.most, strict.hidden), (LIKELY_OUTPUT, 4096, true));
        assert!(likely.fixed < strict.fixed);
    }

    /// I3: of a stream only text is followed, so what may be something else is held for from the start.
    #[test]
    fn i3_output_that_is_no_text_is_not_followed() {
        let hidden = |at: &Deployment| {
            Terms::of(&chat(&serde_json::json!({ "stream": true })), at, Mode::Strict).unwrap().hidden
        };
        assert!(!hidden(&deployment(4096, 128_000, &[])) && !hidden(&deployment(0, 9000, &[])));
        assert!(hidden(&deployment(4096, 128_000, &["reasoning"])));
        assert!(hidden(&deployment(0, 0, &[])), "nobody knows what it does");
        let priced = |unit, reasoning: Option<i64>| {
            let mut at = deployment(4096, 128_000, &[]);
            let mut sheet = PriceSheet::clone(at.price.as_ref().unwrap());
            let price = NanosPerMillion(1);
            sheet.units = [UnitPrice { unit, quality: "".into(), size: "".into(), price }].into();
            sheet.reasoning = reasoning.map(NanosPerMillion);
            at.price = Some(Arc::new(sheet));
            at
        };
        for (unit, reasoning, expected) in [
            (Unit::AudioOutputTokens, None, true),
            (Unit::ImageOutputTokens, None, true),
            (Unit::AudioInputTokens, Some(1), true),
            (Unit::AudioInputTokens, None, false),
        ] {
            assert_eq!(hidden(&priced(unit, reasoning)), expected, "{unit:?} {reasoning:?}");
        }
        let mut draws = deployment(4096, 128_000, &[]);
        let mut model = Arc::into_inner(draws.model).unwrap();
        model.output_modalities = vec!["text".into(), "image".into()];
        draws.model = Arc::new(model);
        assert!(hidden(&draws));
    }

    /// What has no price is never free.
    #[test]
    fn what_nobody_has_priced_has_no_terms() {
        let mut at = deployment(1, 1, &[]);
        let mut sheet = PriceSheet::clone(at.price.as_ref().unwrap());
        sheet.output = None;
        at.price = Some(Arc::new(sheet));
        assert!(Terms::of(&chat(&serde_json::json!({})), &at, Mode::Strict).is_none());
        at.price = None;
        assert!(Terms::of(&chat(&serde_json::json!({})), &at, Mode::Estimated).is_none());
    }

    proptest! {
        /// I3: what is affordable costs no more than there is, and a token more does.
        #[test]
        fn i3_what_is_affordable_is_paid_for(money in 0_i64..10_000_000_000, fixed in 0_i64..1_000_000, rate in 1_i64..100_000_000_000) {
            let terms = Terms { fixed: Nanos(fixed), rate, output: 0, most: 0, hidden: false, must_cap: false };
            match terms.affordable(Nanos(money)) {
                None => prop_assert!(money < fixed),
                Some(tokens) => {
                    prop_assert!(terms.cost(tokens).0 <= money);
                    prop_assert!(terms.cost(tokens + 1).0 > money);
                }
            }
        }
    }
}
