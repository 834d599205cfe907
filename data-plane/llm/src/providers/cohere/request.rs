//! Requests to `/v2/chat`.

mod messages;
mod tools;

use super::fields::{Body, Thinking};
use crate::{
    codec::{CodecError, Destination, Encoded},
    ir::{Effort, Param, Request},
    providers::place,
    transcode::JSON_TOOL,
};

/// How errors call this target.
const NAME: &str = "Cohere's API";

struct Writing<'a, 'r> {
    request: &'r Request<'a>,
    to: &'r Destination<'r>,
    dropped: Vec<Param>,
}

impl Writing<'_, '_> {
    fn drop(&mut self, param: Param) {
        place::drop(&mut self.dropped, param);
    }

    /// Others refuse to be told how to think, and are not shown what was thought.
    fn reasons(&self) -> bool {
        self.to.model.contains("reasoning")
    }
}

/// # Errors
/// What Cohere can't do.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    place::one_text_answer(request, NAME)?;
    let mut writing = Writing { request, to, dropped: Vec::new() };
    let mut body = Body { model: to.model, stream: request.stream, ..Body::default() };
    settings(&mut writing, &mut body);
    let forced_tool = tools::write(&mut writing, &mut body)?;
    messages::write(&mut writing, &mut body)?;
    let mut out = Vec::with_capacity(1024);
    crate::providers::write::value(&mut out, &body);
    Ok(Encoded { forced_tool, ..Encoded::new(out, writing.dropped) })
}

/// Everything but conversation and tools.
fn settings<'r>(writing: &mut Writing<'_, 'r>, body: &mut Body<'r>) {
    let request = writing.request;
    let asked = &request.sampling;
    body.max_tokens = [request.max_output, writing.to.cap].into_iter().flatten().min();
    body.stop_sequences = request.stop.iter().map(|stop| &**stop).collect();
    body.temperature = asked.temperature;
    body.seed = asked.seed;
    // Everything, but for the least likely hundredth, is as near as Cohere comes to everything.
    let all = asked.top_p.filter(|top_p| (0.99..=1.0).contains(top_p)).map(|_| 0.99);
    body.p = all.or_else(|| place::clamped(asked.top_p, (0.01, 0.99), Param::TopP, &mut writing.dropped));
    body.k = asked.top_k.map(|k| k.min(500));
    if body.k != asked.top_k {
        writing.drop(Param::TopK);
    }
    let unit = (0.0, 1.0);
    body.frequency_penalty =
        place::clamped(asked.frequency_penalty, unit, Param::FrequencyPenalty, &mut writing.dropped);
    body.presence_penalty =
        place::clamped(asked.presence_penalty, unit, Param::PresencePenalty, &mut writing.dropped);
    body.logprobs = request.logprobs.is_some();
    body.thinking = thinking(writing);
    for (name, json) in &request.extras {
        match &**name {
            "safety_mode" => body.safety_mode = Some(json),
            "citation_options" => body.citation_options = Some(json),
            other => writing.drop(Param::Other(other.into())),
        }
    }
    report(writing);
}

fn thinking(writing: &mut Writing<'_, '_>) -> Option<Thinking> {
    let asked = writing.request.reasoning?;
    let none = asked.budget == Some(0) || asked.effort == Some(Effort::None);
    let said = asked.adaptive || asked.budget.is_some() || asked.effort.is_some();
    if !writing.reasons() {
        if said && !none {
            writing.drop(Param::Reasoning);
        }
        return None;
    }
    if none {
        return Some(Thinking { kind: "disabled", token_budget: None });
    }
    let limit = [writing.request.max_output, writing.to.cap].into_iter().flatten().min();
    let budget = asked.budget.or_else(|| asked.effort.map(Effort::budget));
    let within = |budget: u64| limit.map_or(budget, |limit| budget.min(limit.saturating_sub(1))).max(1);
    said.then(|| Thinking { kind: "enabled", token_budget: budget.map(within) })
}

/// What Cohere has no word for.
fn report(writing: &mut Writing<'_, '_>) {
    let request = writing.request;
    let top = request.logprobs.and_then(|it| it.top).is_some_and(|top| top > 0);
    let tier = request.service_tier.as_deref();
    let unknown = [
        (top, Param::TopLogprobs),
        (request.sampling.min_p.is_some(), Param::MinP),
        (request.user.is_some(), Param::User),
        (request.metadata.is_some(), Param::Metadata),
        (tier.is_some_and(|tier| !matches!(tier, "auto" | "default")), Param::ServiceTier),
        (request.cache_key.is_some(), Param::CacheKey),
        (request.store == Some(true), Param::Store),
        (request.messages.iter().any(|message| message.name.is_some()), Param::ParticipantName),
        (request.tools.iter().any(|tool| tool.cache.is_some()), Param::CacheControl),
        (request.parallel_tool_calls == Some(false) && !request.tools.is_empty(), Param::ParallelToolCalls),
    ];
    for (_, param) in unknown.into_iter().filter(|(said, _)| *said) {
        writing.drop(param);
    }
}

#[cfg(test)]
mod tests;
