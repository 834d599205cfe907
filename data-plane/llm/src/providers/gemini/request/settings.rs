//! `generationConfig` and the other switches of a request, and the report of what Google has no switch for.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::model;
use crate::{
    codec::{CodecError, Destination},
    ir::{Effort, Format, Param, Reasoning, Request},
};

/// Google refuses more.
const MOST_STOPS: usize = 5;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    response_modalities: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

impl GenerationConfig<'_> {
    pub fn is_empty(&self) -> bool {
        let Self { temperature, top_p, top_k, candidate_count, max_output_tokens, stop_sequences, .. } = self;
        temperature.is_none()
            && top_p.is_none()
            && top_k.is_none()
            && candidate_count.is_none()
            && max_output_tokens.is_none()
            && stop_sequences.is_empty()
            && self.presence_penalty.is_none()
            && self.frequency_penalty.is_none()
            && self.seed.is_none()
            && self.response_logprobs.is_none()
            && self.response_mime_type.is_none()
            && self.response_modalities.is_empty()
            && self.thinking_config.is_none()
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    include_thoughts: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<&'static str>,
}

pub(super) fn generation_config<'a>(
    request: &'a Request<'_>,
    to: &Destination<'_>,
    dropped: &mut Vec<Param>,
) -> Result<GenerationConfig<'a>, CodecError> {
    let sampling = &request.sampling;
    if request.stop.len() > MOST_STOPS {
        let message = format!(
            "Google's models stop at {MOST_STOPS} sequences at most, and here are {}.",
            request.stop.len()
        );
        return Err(CodecError::unsupported(Param::Stop.name(request.dialect), message));
    }
    let seed = sampling.seed.and_then(|seed| i32::try_from(seed).ok());
    if seed.is_none() && sampling.seed.is_some() {
        dropped.push(Param::Seed);
    }
    let (response_mime_type, response_json_schema) = match &request.format {
        None => (None, None),
        Some(Format::Json) => (Some("application/json"), None),
        Some(Format::Schema { schema, description, .. }) => {
            if description.is_some() {
                dropped.push(Param::Other("response_format.json_schema.description".into()));
            }
            (Some("application/json"), Some(&**schema))
        }
    };
    let text_only = request.modalities.iter().all(|it| it == "text");
    let max_output_tokens = match (request.max_output, to.cap) {
        (Some(asked), Some(cap)) => Some(asked.min(cap)),
        (asked, cap) => asked.or(cap),
    };
    Ok(GenerationConfig {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        candidate_count: (request.choices > 1).then_some(request.choices),
        max_output_tokens,
        stop_sequences: request.stop.iter().map(|it| &**it).collect(),
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed,
        response_logprobs: request.logprobs.map(|_| true),
        logprobs: request.logprobs.and_then(|it| it.top).filter(|top| *top > 0),
        response_mime_type,
        response_json_schema,
        response_modalities: if text_only { Vec::new() } else { modalities(request) },
        thinking_config: request.reasoning.and_then(|it| thinking(it, max_output_tokens, to.model, dropped)),
    })
}

fn modalities<'a>(request: &Request<'_>) -> Vec<Cow<'a, str>> {
    request.modalities.iter().map(|it| Cow::Owned(it.to_ascii_uppercase())).collect()
}

/// Models of the third generation think in levels, those of 2.5 in tokens, older ones not at all.
fn thinking(
    reasoning: Reasoning,
    max_output: Option<u64>,
    model: &str,
    dropped: &mut Vec<Param>,
) -> Option<ThinkingConfig> {
    let Reasoning { effort, budget, adaptive, visible } = reasoning;
    if effort.is_none() && budget.is_none() && !adaptive && visible.is_none() {
        return None;
    }
    let generation = model::generation(model);
    if generation < model::THINKS {
        let wanted = budget.is_some_and(|tokens| tokens > 0)
            || effort.is_some_and(|it| it != Effort::None)
            || adaptive;
        if wanted {
            dropped.push(Param::Reasoning);
        }
        return None;
    }
    let off = effort == Some(Effort::None) || budget == Some(0);
    if off && (generation >= model::SIGNED || model::is_pro(model)) {
        // They can't be kept from thinking: as little as can be.
        dropped.push(Param::Reasoning);
    }
    let include_thoughts = Some(visible.unwrap_or(true) && !off);
    let effort = effort.or(budget.map(Effort::from_budget)).filter(|_| !adaptive);
    if generation >= model::SIGNED {
        let thinking_level = effort.map(|effort| level(effort, generation, model));
        return Some(ThinkingConfig { include_thoughts, thinking_budget: None, thinking_level });
    }
    let (least, most) = limits(model);
    let tokens = budget.or(effort.map(Effort::budget)).map(|tokens| {
        let room = max_output.map_or(most, |max| most.min(max.saturating_sub(1)));
        if off && !model::is_pro(model) { 0 } else { tokens.min(room).max(least) }
    });
    let thinking_budget = if adaptive { Some(-1) } else { tokens.and_then(|it| i64::try_from(it).ok()) };
    Some(ThinkingConfig { include_thoughts, thinking_budget, thinking_level: None })
}

/// The large model of the first of this generation knows two levels.
fn level(effort: Effort, generation: u32, model: &str) -> &'static str {
    let pro = model::is_pro(model);
    match effort {
        Effort::None | Effort::Minimal if !pro => "MINIMAL",
        Effort::None | Effort::Minimal | Effort::Low => "LOW",
        Effort::Medium if !pro || generation > model::SIGNED => "MEDIUM",
        Effort::Medium | Effort::High | Effort::Max => "HIGH",
    }
}

/// The smallest and largest budget that the models of 2.5 take.
fn limits(model: &str) -> (u64, u64) {
    if model::is_pro(model) {
        (128, 32_768)
    } else if model.contains("-lite") {
        (512, 24_576)
    } else {
        (1, 24_576)
    }
}

/// AI Studio's tiers; Vertex takes them elsewhere.
pub(super) fn service_tier<'a>(
    request: &'a Request<'_>,
    vertex: bool,
    dropped: &mut Vec<Param>,
) -> Option<&'a str> {
    match request.service_tier.as_deref()? {
        "auto" => None,
        "default" | "standard" | "standard_only" => (!vertex).then_some("standard"),
        tier @ ("flex" | "priority") if !vertex => Some(tier),
        _ => {
            dropped.push(Param::ServiceTier);
            None
        }
    }
}

/// What has no place in Google's dialect at all.
pub(super) fn note_dropped(request: &Request<'_>, dropped: &mut Vec<Param>) {
    for (param, asked) in [
        (Param::MinP, request.sampling.min_p.is_some()),
        (Param::User, request.user.is_some()),
        (Param::Metadata, request.metadata.is_some()),
        (Param::CacheKey, request.cache_key.is_some()),
        (Param::Store, request.store == Some(true)),
    ] {
        if asked {
            dropped.push(param);
        }
    }
    dropped.extend(request.extras.iter().map(|(name, _)| Param::Other(Box::from(&**name))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(reasoning: Reasoning, model: &str) -> (Option<ThinkingConfig>, bool) {
        let mut dropped = Vec::new();
        let config = thinking(reasoning, Some(8192), model, &mut dropped);
        (config, dropped.contains(&Param::Reasoning))
    }

    #[test]
    fn thinking_is_asked_for_in_the_words_of_the_generation() {
        let effort = |effort| Reasoning { effort: Some(effort), ..Reasoning::default() };
        let of = |model: &str, it: Effort| config(effort(it), model);
        let budget = |tokens, shown| {
            Some(ThinkingConfig {
                include_thoughts: Some(shown),
                thinking_budget: Some(tokens),
                thinking_level: None,
            })
        };
        let level = |level, shown| {
            Some(ThinkingConfig {
                include_thoughts: Some(shown),
                thinking_budget: None,
                thinking_level: Some(level),
            })
        };
        assert_eq!(of("gemini-2.5-flash", Effort::Low), (budget(1024, true), false));
        assert_eq!(
            of("gemini-2.5-flash", Effort::High),
            (budget(8191, true), false),
            "below the limit of the answer"
        );
        assert_eq!(of("gemini-2.5-flash", Effort::None), (budget(0, false), false));
        assert_eq!(of("gemini-2.5-pro", Effort::None), (budget(128, false), true));
        assert_eq!(of("gemini-3-pro-preview", Effort::Medium), (level("HIGH", true), false));
        assert_eq!(of("gemini-3.1-pro", Effort::Medium), (level("MEDIUM", true), false));
        assert_eq!(of("gemini-3-flash", Effort::None), (level("MINIMAL", false), true));
        assert_eq!(of("gemini-2.0-flash", Effort::High), (None, true));
        assert_eq!(of("gemini-2.0-flash", Effort::None), (None, false));
    }

    #[test]
    fn budgets_and_the_models_own_choice() {
        let with = |budget| Reasoning { budget: Some(budget), visible: Some(false), ..Reasoning::default() };
        let (found, _) = config(with(99_999), "gemini-2.5-flash");
        assert_eq!(found.unwrap().thinking_budget, Some(8191));
        let (found, _) = config(with(4096), "gemini-3-flash");
        assert_eq!(
            found,
            Some(ThinkingConfig {
                include_thoughts: Some(false),
                thinking_budget: None,
                thinking_level: Some("MEDIUM")
            })
        );
        let adaptive = Reasoning { adaptive: true, ..Reasoning::default() };
        assert_eq!(config(adaptive, "gemini-2.5-pro").0.unwrap().thinking_budget, Some(-1));
        assert_eq!(config(Reasoning::default(), "gemini-2.5-pro"), (None, false));
    }
}
