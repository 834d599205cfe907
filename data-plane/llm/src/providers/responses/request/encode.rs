//! A request for an upstream, parameter by parameter.

use super::{out, tools};
use crate::{
    Dialect,
    codec::{CodecError, Destination, Encoded},
    ir::{Effort, Format, Param, Reasoning, Request},
    providers::{
        openai::{effort, limits},
        write::{self, Object},
    },
};

/// # Errors
/// What the target can't do.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    refuse(request)?;
    let mut dropped = Dropped::default();
    let mut body = Vec::with_capacity(1024);
    let mut object = Object::open(&mut body);
    object.text("model", to.model);
    out::input(object.member("input"), request, &mut dropped)?;
    if request.stream {
        object.value("stream", true);
    }
    // Not kept at the provider unless the client says so: in its own dialect that is the default.
    object.value("store", request.store.unwrap_or(false));
    let limit = [request.max_output, to.cap].into_iter().flatten().min();
    limit.into_iter().for_each(|limit| object.value("max_output_tokens", limit));
    let family = Family::of(to.model);
    sampling(&mut object, request, family, &mut dropped);
    reasoning(&mut object, request.reasoning.as_ref(), (family, to.model), &mut dropped);
    include(&mut object, request, family);
    tools(&mut object, request, &mut dropped)?;
    text(&mut object, request);
    rest(&mut object, request, to, &mut dropped);
    object.close();
    Ok(Encoded::new(body, dropped.0))
}

/// Parameters that are left out, each once.
#[derive(Default)]
pub(super) struct Dropped(Vec<Param>);

impl Dropped {
    pub(super) fn add(&mut self, param: Param) {
        if !self.0.contains(&param) {
            self.0.push(param);
        }
    }

    fn add_if(&mut self, is: bool, param: Param) {
        if is {
            self.add(param);
        }
    }
}

/// Without these the answer would not be what was asked for.
fn refuse(request: &Request<'_>) -> Result<(), CodecError> {
    if request.choices > 1 {
        let path = Param::Choices.name(request.dialect);
        let message = format!("This model gives one answer to a request: `{path}` must be 1.");
        return Err(CodecError::unsupported(path, message));
    }
    if request.modalities.iter().any(|modality| !modality.eq_ignore_ascii_case("text")) {
        let path = Param::Modalities.name(request.dialect);
        let message = format!("This model writes text only: `{path}` must name nothing else.");
        return Err(CodecError::unsupported(path, message));
    }
    Ok(())
}

/// What OpenAI's models understand differs. Others are not guessed at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Thinks by itself, and is not to be cooled or heated.
    Reasons,
    /// Thinks when it is asked to (gpt-5.1 and later), and only then is not to be cooled or heated.
    CanReason,
    /// Doesn't think, and refuses to be asked for it.
    Plain,
    Unknown,
}

impl Family {
    fn of(model: &str) -> Self {
        let model = model.rsplit('/').next().unwrap_or(model);
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
        if starts(&["gpt-4", "gpt-3.5", "chatgpt"]) || model.starts_with("gpt-") && model.contains("-chat") {
            Self::Plain
        } else if starts(&["gpt-5."]) {
            Self::CanReason
        } else if starts(&["o1", "o3", "o4", "gpt-5", "gpt-6", "codex"]) {
            Self::Reasons
        } else {
            Self::Unknown
        }
    }
}

fn sampling(object: &mut Object<'_>, request: &Request<'_>, family: Family, dropped: &mut Dropped) {
    let sampling = &request.sampling;
    let fixed = match family {
        Family::Reasons => true,
        Family::CanReason => {
            request.reasoning.as_ref().and_then(effort).is_some_and(|effort| effort != Effort::None)
        }
        Family::Plain | Family::Unknown => false,
    };
    for (name, value, param) in
        [("temperature", sampling.temperature, Param::Temperature), ("top_p", sampling.top_p, Param::TopP)]
    {
        match value {
            Some(_) if fixed => dropped.add(param),
            Some(value) => object.value(name, value),
            None => {}
        }
    }
    dropped.add_if(sampling.top_k.is_some(), Param::TopK);
    dropped.add_if(sampling.min_p.is_some(), Param::MinP);
    dropped.add_if(sampling.frequency_penalty.is_some_and(|it| it != 0.0), Param::FrequencyPenalty);
    dropped.add_if(sampling.presence_penalty.is_some_and(|it| it != 0.0), Param::PresencePenalty);
    dropped.add_if(sampling.seed.is_some(), Param::Seed);
    dropped.add_if(!request.stop.is_empty(), Param::Stop);
    if let Some(top) = request.logprobs.and_then(|logprobs| logprobs.top) {
        object.value("top_logprobs", top);
    }
}

/// How much is to be thought, in OpenAI's words; `None`: as the model does by itself.
fn effort(reasoning: &Reasoning) -> Option<Effort> {
    reasoning.effort.or_else(|| reasoning.budget.map(Effort::from_budget))
}

fn reasoning(
    object: &mut Object<'_>,
    asked: Option<&Reasoning>,
    (family, model): (Family, &str),
    dropped: &mut Dropped,
) {
    let Some(asked) = asked else { return };
    let effort = effort(asked);
    if family == Family::Plain {
        dropped.add_if(effort != Some(Effort::None), Param::Reasoning);
        return;
    }
    let name = effort.map(|effort| match family {
        Family::Unknown => effort::name(effort),
        _ => effort::word(effort, model),
    });
    let summary = asked.visible == Some(true) && effort != Some(Effort::None);
    if name.is_some() || summary {
        object.object("reasoning", |object| {
            name.into_iter().for_each(|name| object.text("effort", name));
            if summary {
                object.text("summary", "auto");
            }
        });
    }
}

/// The client keeps the conversation, so it gets the thoughts to keep as well.
fn include(object: &mut Object<'_>, request: &Request<'_>, family: Family) {
    let thinks = match family {
        Family::Reasons | Family::CanReason => true,
        Family::Unknown => {
            request.reasoning.as_ref().is_some_and(|asked| effort(asked) != Some(Effort::None))
        }
        Family::Plain => false,
    };
    let wanted = [
        (thinks, "reasoning.encrypted_content"),
        (request.logprobs.is_some(), "message.output_text.logprobs"),
    ];
    if wanted.iter().any(|(wanted, _)| *wanted) {
        object.array("include", wanted.into_iter().filter(|(wanted, _)| *wanted), |out, (_, name)| {
            write::text(out, name);
        });
    }
}

fn tools(object: &mut Object<'_>, request: &Request<'_>, dropped: &mut Dropped) -> Result<(), CodecError> {
    if request.tools.is_empty() {
        return Ok(());
    }
    let mut list = Vec::new();
    for tool in &request.tools {
        list.push(if list.is_empty() { b'[' } else { b',' });
        tools::encode(&mut list, tool)?;
        dropped.add_if(tool.cache.is_some(), Param::CacheControl);
    }
    list.push(b']');
    object.member("tools").extend_from_slice(&list);
    if let Some(choice) = &request.tool_choice {
        tools::encode_choice(object.member("tool_choice"), choice, &request.tools);
    }
    if let Some(parallel) = request.parallel_tool_calls {
        object.value("parallel_tool_calls", parallel);
    }
    Ok(())
}

/// What the answer must be, and how long-winded.
fn text(object: &mut Object<'_>, request: &Request<'_>) {
    let verbosity = verbosity(request);
    if request.format.is_none() && verbosity.is_none() {
        return;
    }
    object.object("text", |object| {
        verbosity.into_iter().for_each(|json| object.raw("verbosity", json));
        match &request.format {
            None => {}
            Some(Format::Json) => object.object("format", |format| format.text("type", "json_object")),
            Some(Format::Schema { name, description, schema, strict }) => object.object("format", |format| {
                format.text("type", "json_schema");
                format.text("name", name.as_deref().filter(|name| !name.is_empty()).unwrap_or("answer"));
                description.iter().for_each(|text| format.text("description", text));
                format.raw("schema", schema.get());
                strict.iter().for_each(|strict| format.value("strict", strict));
            }),
        }
    });
}

/// `verbosity` stands at the top with Chat Completions.
fn verbosity<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    let found = request.extras.iter().find(|(name, _)| is_verbosity(request, name));
    found.map(|(_, value)| value.get())
}

fn is_verbosity(request: &Request<'_>, name: &str) -> bool {
    request.dialect == Dialect::Chat && name == "verbosity"
}

fn rest(object: &mut Object<'_>, request: &Request<'_>, to: &Destination<'_>, dropped: &mut Dropped) {
    match &request.user {
        Some(user) if limits::takes_user(to.provider, user) => object.text("user", user),
        Some(_) => dropped.add(Param::User),
        None => {}
    }
    if let Some(key) = &request.cache_key {
        object.text("prompt_cache_key", key);
    }
    let is_openai = matches!(request.dialect, Dialect::Chat | Dialect::Responses);
    match &request.metadata {
        Some(metadata) if is_openai => object.raw("metadata", metadata.get()),
        Some(_) => dropped.add(Param::Metadata),
        None => {}
    }
    match request.service_tier.as_deref() {
        Some(tier @ ("auto" | "default" | "flex" | "priority" | "scale")) => {
            object.text("service_tier", tier)
        }
        Some(_) => dropped.add(Param::ServiceTier),
        None => {}
    }
    for (name, value) in &request.extras {
        match name.as_ref() {
            // The same in both.
            "safety_identifier" | "prompt_cache_retention" if is_openai => object.raw(name, value.get()),
            name if is_verbosity(request, name) => {}
            name => dropped.add(Param::Other(name.into())),
        }
    }
}
