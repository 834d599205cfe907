//! A request of another dialect, for a service that speaks this one.

use super::{
    super::{effort, limits},
    schema,
    write::Messages,
};
use crate::{
    CodecError, Destination, Dialect, Encoded, Endpoint, StreamUsage,
    ir::{Effort, Format, Param, Reasoning, Request, Tool, ToolChoice, ToolKind},
    provider::is_reasoning,
    providers::write::{self, Object},
    quirks::{ChatQuirks, ReasoningStyle},
};

/// What is left out, each once.
#[derive(Debug, Default)]
pub(super) struct Dropped(Vec<Param>);

impl Dropped {
    pub(super) fn note(&mut self, param: Param) {
        if !self.0.contains(&param) {
            self.0.push(param);
        }
    }
}

/// # Errors
/// What the target can't do.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    if let Some(wanted) = request.modalities.iter().find(|wanted| !wanted.eq_ignore_ascii_case("text")) {
        let message =
            format!("This model is asked for {wanted}, which can't be translated for its provider.");
        return Err(CodecError::unsupported(Param::Modalities.name(request.dialect), message));
    }
    let quirks = &to.provider.quirks.chat;
    let mut dropped = Dropped::default();
    let mut body = Vec::with_capacity(1024);
    let mut out = Object::open(&mut body);
    out.text("model", to.model);
    let instruction = schema::instruction(request, quirks);
    Messages::new(request, quirks, &mut dropped).write(out.member("messages"), instruction.as_deref())?;
    tools(request, &mut out, &mut dropped)?;
    format(request, quirks, &mut out, &mut dropped);
    lengths(request, to, &mut out, &mut dropped)?;
    sampling(request, to, &mut out, &mut dropped);
    reasoning(request, to, &mut out, &mut dropped);
    identity(request, to, &mut out, &mut dropped);
    if request.stream {
        out.value("stream", true);
        if to.provider.quirks.stream_usage == StreamUsage::Inject {
            out.raw("stream_options", r#"{"include_usage":true}"#);
        }
    }
    for (name, json) in &request.extras {
        // Of chat completions as well.
        if request.dialect == Dialect::Completions && name == "logit_bias" {
            out.raw("logit_bias", json.get());
        } else {
            dropped.note(Param::Other(name.as_ref().into()));
        }
    }
    out.close();
    Ok(Encoded::new(body, dropped.0))
}

fn tools(request: &Request<'_>, out: &mut Object<'_>, dropped: &mut Dropped) -> Result<(), CodecError> {
    // A choice among none is refused.
    if request.tools.is_empty() {
        if matches!(request.tool_choice, Some(ToolChoice::Required | ToolChoice::Function(_))) {
            dropped.note(Param::ToolChoice);
        }
        return Ok(());
    }
    let allowed = |tool: &&Tool<'_>| match &request.tool_choice {
        Some(ToolChoice::Allowed { names, .. }) => names.contains(&tool.name),
        _ => true,
    };
    let mut foreign = None;
    out.array("tools", request.tools.iter().filter(allowed), |out, tool| match &tool.kind {
        ToolKind::Function { parameters, strict } => write::object(out, |out| {
            out.text("type", "function");
            out.object("function", |out| {
                out.text("name", &tool.name);
                if let Some(description) = &tool.description {
                    out.text("description", description);
                }
                if let Some(parameters) = parameters {
                    out.raw("parameters", parameters.get());
                }
                if let Some(strict) = strict {
                    out.value("strict", strict);
                }
            });
        }),
        ToolKind::Native { dialect: Dialect::Chat, value } => out.extend_from_slice(value.get().as_bytes()),
        ToolKind::Native { .. } => {
            out.extend_from_slice(b"null");
            foreign = foreign.or(Some(tool.at));
        }
    });
    if let Some(at) = foreign {
        let message =
            "This tool is run by the provider that defined it; the model's provider doesn't have it.";
        return Err(CodecError::unsupported(format!("tools[{at}]"), message));
    }
    if request.tools.iter().any(|tool| tool.cache.is_some()) {
        dropped.note(Param::CacheControl);
    }
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto | ToolChoice::Allowed { required: false, .. }) => {
            out.text("tool_choice", "auto")
        }
        Some(ToolChoice::None) => out.text("tool_choice", "none"),
        Some(ToolChoice::Required | ToolChoice::Allowed { required: true, .. }) => {
            out.text("tool_choice", "required");
        }
        Some(ToolChoice::Function(name)) => out.object("tool_choice", |out| {
            out.text("type", "function");
            out.object("function", |out| out.text("name", name));
        }),
    }
    if let Some(parallel) = request.parallel_tool_calls {
        out.value("parallel_tool_calls", parallel);
    }
    Ok(())
}

fn format(request: &Request<'_>, quirks: &ChatQuirks, out: &mut Object<'_>, dropped: &mut Dropped) {
    match &request.format {
        None => {}
        Some(Format::Schema { .. }) if !quirks.schemas => {
            dropped.note(Param::Format);
            out.raw("response_format", r#"{"type":"json_object"}"#);
        }
        Some(Format::Json) => out.raw("response_format", r#"{"type":"json_object"}"#),
        Some(Format::Schema { name, description, schema, strict }) => out.object("response_format", |out| {
            out.text("type", "json_schema");
            out.object("json_schema", |out| {
                out.text("name", name.as_deref().unwrap_or("response"));
                if let Some(description) = description {
                    out.text("description", description);
                }
                out.raw("schema", schema.get());
                if let Some(strict) = strict {
                    out.value("strict", strict);
                }
            });
        }),
    }
}

/// OpenAI's models that reason refuse much that steers how others write.
fn is_fixed(to: &Destination<'_>) -> bool {
    is_reasoning(to.model) && !to.model.contains("-chat")
}

/// How much is to be written, and what ends it.
fn lengths(
    request: &Request<'_>,
    to: &Destination<'_>,
    out: &mut Object<'_>,
    dropped: &mut Dropped,
) -> Result<(), CodecError> {
    let limit = request.max_output.into_iter().chain(to.cap).min();
    if let Some((limit, name)) = limit.zip(to.provider.limit_name(Endpoint::ChatCompletions, to.model)) {
        out.value(name, limit);
    }
    if is_fixed(to) && !request.stop.is_empty() {
        dropped.note(Param::Stop);
    } else if !request.stop.is_empty() {
        limits::check_stop(request, to.provider)?;
        out.array("stop", &request.stop, |out, word| write::text(out, word));
    }
    if request.choices > 1 {
        out.value("n", request.choices);
    }
    Ok(())
}

fn sampling(request: &Request<'_>, to: &Destination<'_>, out: &mut Object<'_>, dropped: &mut Dropped) {
    let (sampling, quirks) = (&request.sampling, &to.provider.quirks.chat);
    // They have one temperature, and refuse any other.
    let fixed = is_fixed(to);
    let numbers = [
        ("temperature", sampling.temperature, Param::Temperature, fixed),
        ("top_p", sampling.top_p, Param::TopP, fixed),
        ("frequency_penalty", sampling.frequency_penalty, Param::FrequencyPenalty, fixed),
        ("presence_penalty", sampling.presence_penalty, Param::PresencePenalty, fixed),
        ("min_p", sampling.min_p, Param::MinP, false),
    ];
    for (name, number, param, fixed) in numbers {
        let Some(number) = number else { continue };
        if fixed || quirks.refuses.contains(&param) {
            dropped.note(param);
        } else {
            out.value(name, number);
        }
    }
    let mut whole = |name: &str, number: Option<serde_json::Number>, param: Param| {
        let Some(number) = number else { return };
        if quirks.refuses.contains(&param) {
            dropped.note(param);
        } else {
            out.value(name, number);
        }
    };
    whole("top_k", sampling.top_k.map(Into::into), Param::TopK);
    whole(quirks.seed, sampling.seed.map(Into::into), Param::Seed);
    if let Some(logprobs) = request.logprobs {
        if fixed || quirks.refuses.contains(&Param::Logprobs) {
            dropped.note(Param::Logprobs);
        } else {
            out.value("logprobs", true);
            if let Some(top) = logprobs.top {
                out.value("top_logprobs", top);
            }
        }
    }
}

fn reasoning(request: &Request<'_>, to: &Destination<'_>, out: &mut Object<'_>, dropped: &mut Dropped) {
    let Some(said) = request.reasoning else { return };
    let effort = said.effort.or_else(|| said.budget.map(Effort::from_budget));
    match to.provider.quirks.chat.reasoning {
        ReasoningStyle::Effort => effort_word(effort, to, out, dropped),
        ReasoningStyle::Object => out.object("reasoning", |out| object(&said, out)),
        ReasoningStyle::Switch => {
            let on = effort != Some(Effort::None);
            let switch = if on { r#"{"type":"enabled"}"# } else { r#"{"type":"disabled"}"# };
            out.raw("thinking", switch);
        }
        ReasoningStyle::Budget => {
            out.value("enable_thinking", effort != Some(Effort::None));
            let budget = said.budget.or_else(|| said.effort.map(Effort::budget));
            if let Some(budget) = budget.filter(|budget| *budget > 0) {
                out.value("thinking_budget", budget);
            }
        }
        ReasoningStyle::None => dropped.note(Param::Reasoning),
    }
}

/// `reasoning_effort`: models that don't reason refuse it, and not every model knows every word.
fn effort_word(effort: Option<Effort>, to: &Destination<'_>, out: &mut Object<'_>, dropped: &mut Dropped) {
    let openai = to.provider.quirks.chat.developer;
    let model = to.model.rsplit('/').next().unwrap_or(to.model);
    let word = match effort {
        // It thinks as it does by itself.
        None => return,
        Some(Effort::None) if openai && !is_reasoning(model) => return,
        Some(_) if openai && (!is_reasoning(model) || model.contains("-chat")) => {
            return dropped.note(Param::Reasoning);
        }
        Some(effort) if openai => effort::word(effort, model),
        Some(Effort::None) => "none",
        Some(Effort::Minimal | Effort::Low) => "low",
        Some(Effort::Medium) => "medium",
        Some(Effort::High | Effort::Max) => "high",
    };
    out.text("reasoning_effort", word);
}

/// OpenRouter's `reasoning`.
fn object(said: &Reasoning, out: &mut Object<'_>) {
    match (said.effort, said.budget) {
        (Some(Effort::None), _) | (_, Some(0)) => out.value("enabled", false),
        (_, Some(budget)) => out.value("max_tokens", budget),
        (Some(effort), None) => {
            let word = match effort {
                Effort::None | Effort::Minimal => "minimal",
                Effort::Low => "low",
                Effort::Medium => "medium",
                Effort::High => "high",
                Effort::Max => "xhigh",
            };
            out.text("effort", word);
        }
        (None, None) => out.value("enabled", true),
    }
    if let Some(visible) = said.visible {
        out.value("exclude", !visible);
    }
}

/// Who asks, and what the provider is to keep.
fn identity(request: &Request<'_>, to: &Destination<'_>, out: &mut Object<'_>, dropped: &mut Dropped) {
    let refuses = |param| to.provider.quirks.chat.refuses.contains(&param);
    if let Some(user) = &request.user {
        if refuses(Param::User) || !limits::takes_user(to.provider, user) {
            dropped.note(Param::User);
        } else {
            out.text("user", user);
        }
    }
    if let Some(tier) = &request.service_tier {
        match service_tier(request.dialect, tier) {
            Some(tier) if !refuses(Param::ServiceTier) => out.text("service_tier", tier),
            _ if tier == "auto" => {}
            _ => dropped.note(Param::ServiceTier),
        }
    }
    if let Some(metadata) = &request.metadata {
        if refuses(Param::Metadata) {
            dropped.note(Param::Metadata);
        } else {
            out.raw("metadata", metadata.get());
        }
    }
    if let Some(key) = &request.cache_key {
        if refuses(Param::CacheKey) {
            dropped.note(Param::CacheKey);
        } else {
            out.text("prompt_cache_key", key);
        }
    }
    // Who keeps nothing obeys `false` anyway.
    match request.store {
        Some(store) if !refuses(Param::Store) => out.value("store", store),
        Some(true) => dropped.note(Param::Store),
        _ => {}
    }
}

/// In OpenAI's words; `None` for a tier that it doesn't have.
fn service_tier(dialect: Dialect, tier: &str) -> Option<&str> {
    match (dialect, tier) {
        (Dialect::Chat | Dialect::Completions | Dialect::Responses, tier) => Some(tier),
        (_, "standard_only" | "standard") => Some("default"),
        (_, tier @ ("auto" | "default" | "flex" | "priority")) => Some(tier),
        _ => None,
    }
}
