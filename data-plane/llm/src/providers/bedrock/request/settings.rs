//! Everything of a request that is neither conversation nor tools: limits, sampling, thinking. Part of
//! [`super::encode`].

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Family, Writing};
use crate::{
    ir::{Content, Effort, Param, Part, Request, Role},
    providers::{
        anthropic::claude::Claude,
        bedrock::fields::{Inference, ServiceTier},
        place,
    },
};

/// The fewest tokens that Claude can be given to think.
const LEAST_BUDGET: u64 = 1024;

pub(super) struct Settings<'r> {
    pub inference: Inference<'r>,
    /// In the model's own words.
    pub additional: Map<String, Value>,
    pub answer_paths: &'static [&'static str],
    pub metadata: BTreeMap<&'r str, &'r str>,
    pub tier: Option<ServiceTier>,
    /// Claude is to think, and so refuses much else.
    pub thinks: bool,
}

pub(super) fn write<'r>(writing: &mut Writing<'_, 'r>) -> Settings<'r> {
    let request = writing.request;
    let limit = [request.max_output, writing.to.cap].into_iter().flatten().min().map(|it| it.max(1));
    let mut additional = Map::new();
    let thinks = reasoning(writing, limit, &mut additional);
    let (temperature, top_p) = sampling(writing, thinks, &mut additional);
    let metadata = metadata(writing);
    let tier = service_tier(writing);
    report(writing);
    let claude = writing.family == Family::Anthropic;
    let stop = stop_sequences(writing);
    // Which of them was met is no part of Converse's own answer.
    let answer_paths: &[_] = if claude && !stop.is_empty() { &["/stop_sequence"] } else { &[] };
    Settings {
        inference: Inference { max_tokens: limit, temperature, top_p, stop_sequences: stop },
        additional,
        answer_paths,
        metadata,
        tier,
        thinks,
    }
}

/// Of those that Claude is given none may be blank.
fn stop_sequences<'r>(writing: &mut Writing<'_, 'r>) -> Vec<&'r str> {
    let all = writing.request.stop.iter().map(|stop| &**stop);
    if writing.family != Family::Anthropic {
        return all.collect();
    }
    let (stop, blank): (Vec<_>, Vec<_>) = all.partition(|stop| !stop.trim().is_empty());
    if !blank.is_empty() {
        writing.drop(Param::Stop);
    }
    stop
}

/// Whether Claude is made to think.
fn reasoning(writing: &mut Writing<'_, '_>, limit: Option<u64>, out: &mut Map<String, Value>) -> bool {
    let claude = (writing.family == Family::Anthropic).then(|| Claude::of(writing.to.model));
    let Some(asked) = writing.request.reasoning else {
        return claude.is_some_and(Claude::thinks_by_itself);
    };
    let none = asked.budget == Some(0) || asked.effort == Some(Effort::None);
    let said = asked.adaptive || asked.budget.is_some() || asked.effort.is_some();
    let effort = asked.effort.or_else(|| asked.budget.map(Effort::from_budget)).unwrap_or(Effort::Medium);
    if let Some(claude) = claude {
        return match (none, said) {
            (true, _) if !claude.thinks_by_itself() => false,
            (true, _) if claude.can_stop_thinking() => {
                out.insert("thinking".into(), json!({ "type": "disabled" }));
                false
            }
            (true, _) => {
                writing.drop(Param::Reasoning);
                true
            }
            (false, false) => claude.thinks_by_itself(),
            (false, true) => claude_thinks(writing, claude, limit, effort, out),
        };
    }
    let word = match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::Max => "high",
    };
    match writing.family {
        _ if !said => {}
        // It can't be told not to think, only to think little.
        Family::OpenAi => {
            out.insert("reasoning_effort".into(), word.into());
            if none {
                writing.drop(Param::Reasoning);
            }
        }
        Family::Nova if writing.to.model.contains("nova-2") => {
            // Nova takes no limit when it thinks hard.
            let word = if word == "high" && limit.is_some() { "medium" } else { word };
            let config = if none {
                json!({ "type": "disabled" })
            } else {
                json!({ "type": "enabled", "maxReasoningEffort": word })
            };
            out.insert("reasoningConfig".into(), config);
        }
        // Models that are not known to think don't.
        _ if none => {}
        _ => writing.drop(Param::Reasoning),
    }
    false
}

fn claude_thinks(
    writing: &mut Writing<'_, '_>,
    claude: Claude,
    limit: Option<u64>,
    effort: Effort,
    out: &mut Map<String, Value>,
) -> bool {
    let asked = writing.request.reasoning.unwrap_or_default();
    if !claude.thinks() {
        writing.drop(Param::Reasoning);
        return false;
    }
    if claude.adapts() && (asked.adaptive || asked.budget.is_none() || !claude.takes_budget()) {
        out.insert("thinking".into(), json!({ "type": "adaptive" }));
        if asked.effort.is_some() || asked.budget.is_some() {
            let word = match effort {
                Effort::None | Effort::Minimal | Effort::Low => "low",
                Effort::Medium => "medium",
                Effort::High => "high",
                Effort::Max => "max",
            };
            out.insert("output_config".into(), json!({ "effort": word }));
        }
        return true;
    }
    // A turn of calls that was begun without thoughts can't be gone on with in thought.
    if calls_without_thought(writing.request) {
        writing.drop(Param::Reasoning);
        return false;
    }
    // Thoughts are part of the output.
    let most = limit.or(Some(writing.to.most_output).filter(|most| *most > 0)).unwrap_or(u64::MAX);
    if most <= LEAST_BUDGET {
        writing.drop(Param::Reasoning);
        return false;
    }
    let budget = asked.budget.unwrap_or_else(|| effort.budget()).min(most - 1).max(LEAST_BUDGET);
    out.insert("thinking".into(), json!({ "type": "enabled", "budget_tokens": budget }));
    true
}

/// Whether the model's last words are calls that no thought stands before which could be sent along.
fn calls_without_thought(request: &Request<'_>) -> bool {
    let Some(last) = request.messages.iter().rfind(|message| message.role == Role::Assistant) else {
        return false;
    };
    let thought = |part: &Part<'_>| match &part.content {
        Content::Thinking(thinking) => thinking.signature.is_some() || thinking.encrypted.is_some(),
        _ => false,
    };
    let calls = last.parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
    calls && !last.parts.iter().any(thought)
}

/// Temperature and `topP`.
fn sampling(
    writing: &mut Writing<'_, '_>,
    thinks: bool,
    out: &mut Map<String, Value>,
) -> (Option<f64>, Option<f64>) {
    let asked = writing.request.sampling;
    let mut temperature =
        place::clamped(asked.temperature, (0.0, 1.0), Param::Temperature, &mut writing.dropped);
    let mut top_p = place::clamped(asked.top_p, (0.0, 1.0), Param::TopP, &mut writing.dropped);
    let mut top_k = asked.top_k;
    if writing.family == Family::Anthropic {
        let claude = Claude::of(writing.to.model);
        let samples = claude.samples();
        if temperature.is_some_and(|it| !samples || (thinks && it < 1.0)) {
            temperature = None;
            writing.drop(Param::Temperature);
        }
        let both = claude.samples_by_one() && temperature.is_some();
        if top_p.is_some_and(|it| !samples || both || (thinks && it < 0.95)) {
            top_p = None;
            writing.drop(Param::TopP);
        }
        if top_k.is_some() && (!samples || thinks) {
            top_k = None;
            writing.drop(Param::TopK);
        }
    }
    if let Some(top_k) = top_k {
        match writing.family {
            Family::Anthropic => {
                out.insert("top_k".into(), top_k.into());
            }
            Family::Nova => {
                out.insert("inferenceConfig".into(), json!({ "topK": top_k }));
            }
            _ => writing.drop(Param::TopK),
        }
    }
    (temperature, top_p)
}

/// The client's own labels, where AWS can keep all of them.
fn metadata<'r>(writing: &mut Writing<'_, 'r>) -> BTreeMap<&'r str, &'r str> {
    #[derive(Deserialize)]
    struct Labels<'a>(#[serde(borrow)] BTreeMap<&'a str, &'a str>);

    let Some(json) = &writing.request.metadata else { return BTreeMap::new() };
    let allowed = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":_@$#=/+,-.".contains(c))
    };
    let fits = |name: &str, value: &str| {
        (1..=256).contains(&name.len()) && value.len() <= 256 && allowed(name) && allowed(value)
    };
    match serde_json::from_str::<Labels<'r>>(json.get()) {
        Ok(Labels(labels)) if labels.len() <= 16 && labels.iter().all(|(name, value)| fits(name, value)) => {
            labels
        }
        _ => {
            writing.drop(Param::Metadata);
            BTreeMap::new()
        }
    }
}

fn service_tier(writing: &mut Writing<'_, '_>) -> Option<ServiceTier> {
    let kind = match &**writing.request.service_tier.as_ref()? {
        "auto" => return None,
        "default" | "standard" | "standard_only" => "default",
        "priority" => "priority",
        "flex" => "flex",
        _ => {
            writing.drop(Param::ServiceTier);
            return None;
        }
    };
    Some(ServiceTier { kind })
}

/// What Converse has no word for.
fn report(writing: &mut Writing<'_, '_>) {
    let request = writing.request;
    let sampling = &request.sampling;
    let top = request.logprobs.and_then(|it| it.top).is_some_and(|top| top > 0);
    let unknown = [
        (request.logprobs.is_some(), Param::Logprobs),
        (top, Param::TopLogprobs),
        (sampling.seed.is_some(), Param::Seed),
        (sampling.min_p.is_some(), Param::MinP),
        // None at all is what happens anyway.
        (sampling.frequency_penalty.is_some_and(|it| it != 0.0), Param::FrequencyPenalty),
        (sampling.presence_penalty.is_some_and(|it| it != 0.0), Param::PresencePenalty),
        (request.user.is_some(), Param::User),
        (request.cache_key.is_some(), Param::CacheKey),
        (request.store == Some(true), Param::Store),
        (request.messages.iter().any(|message| message.name.is_some()), Param::ParticipantName),
    ];
    for (_, param) in unknown.into_iter().filter(|(said, _)| *said) {
        writing.drop(param);
    }
    for (name, _) in &request.extras {
        let name: Cow<'_, str> = name.clone();
        writing.drop(Param::Other(name.into()));
    }
}
