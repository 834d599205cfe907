//! Writing what Claude is asked: the body as a whole.

use super::{
    super::{
        claude::Claude,
        writer::{self, Object},
    },
    format::Form,
    messages::Conversation,
    thinking::{self, Thinking},
    tools::Tools,
};
use crate::{
    CodecError, Dialect,
    codec::{Destination, Encoded},
    ir::{Effort, Param, Request},
};

/// What an answer may have when neither the client nor the catalog says.
const DEFAULT_MAX_TOKENS: u64 = 4096;
/// What Vertex wants in the body, instead of a header.
const VERTEX_VERSION: &str = "vertex-2023-10-16";

/// What is left out, each parameter once.
#[derive(Debug, Default)]
pub(super) struct Dropped(Vec<Param>);

impl Dropped {
    pub(super) fn add(&mut self, param: Param) {
        if !self.0.contains(&param) {
            self.0.push(param);
        }
    }

    pub(super) fn add_if(&mut self, is_said: bool, param: Param) {
        if is_said {
            self.add(param);
        }
    }
}

pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    encode_with(request, to, false)
}

/// `counting`: tokens are to be counted, nothing answered.
pub(in super::super) fn encode_with(
    request: &Request<'_>,
    to: &Destination<'_>,
    counting: bool,
) -> Result<Encoded, CodecError> {
    refuse(request)?;
    let claude = Claude::of(to.model);
    let mut dropped = Dropped::default();
    let conversation = Conversation::of(request, &mut dropped)?;
    let mut tools = Tools::of(request, &conversation)?;
    let budget = thinking::wanted_budget(request);
    let max_tokens = max_tokens(request, to, budget);
    let thinking = thinking::decide(request, claude, &conversation, &mut tools, max_tokens, &mut dropped);
    let on = thinking.is_on(claude);
    let form = Form::of(request, claude, to.hosted, &mut tools, on, &mut dropped)?;
    note_dropped(request, &mut dropped);

    let mut out = Vec::with_capacity(1024 + conversation.size());
    let mut body = Object::open(&mut out);
    if to.hosted {
        body.value("anthropic_version", VERTEX_VERSION);
    }
    if !to.hosted || counting {
        body.value("model", to.model);
    }
    if !counting {
        body.value("max_tokens", max_tokens);
    }
    conversation.write_system(&mut body, form.instruction())?;
    conversation.write_messages(&mut body)?;
    tools.write(&mut body, claude, to.hosted, &form, &mut dropped)?;
    thinking.write(&mut body);
    let effort = if let Thinking::Adaptive { effort, .. } = thinking { effort } else { None };
    write_output_config(&mut body, effort, &form);
    if !counting {
        thinking::write_sampling(&mut body, request, claude, on, &mut dropped);
        write_rest(&mut body, request, &mut dropped);
    }
    write_extras(&mut body, request, counting, &mut dropped);
    body.close();
    Ok(Encoded { forced_tool: form.is_tool(), ..Encoded::new(out, dropped.0) })
}

/// What can't be left out without changing what is asked.
fn refuse(request: &Request<'_>) -> Result<(), CodecError> {
    if request.choices > 1 {
        let path = Param::Choices.name(request.dialect);
        let message = format!("`{path}` must be 1 for this model: it gives one answer to a request.");
        return Err(CodecError::unsupported(path, message));
    }
    if request.previous_response_id.is_some() {
        let message = "`previous_response_id` can't be used with this model: its provider keeps no answers. Send the whole conversation as `input`.";
        return Err(CodecError::invalid("previous_response_id", message));
    }
    if request.modalities.iter().any(|modality| !modality.eq_ignore_ascii_case("text")) {
        let path = Param::Modalities.name(request.dialect);
        let message = format!("`{path}` must be text only for this model: it answers in text.");
        return Err(CodecError::unsupported(path, message));
    }
    Ok(())
}

fn max_tokens(request: &Request<'_>, to: &Destination<'_>, budget: Option<u64>) -> u64 {
    let most = Some(to.most_output).filter(|most| *most > 0);
    // Thoughts count as well, and an answer must fit behind them.
    let default = DEFAULT_MAX_TOKENS.saturating_add(budget.unwrap_or(0));
    let asked = request.max_output.or(most).unwrap_or(default);
    let possible = asked.min(most.unwrap_or(u64::MAX));
    possible.min(to.cap.unwrap_or(u64::MAX))
}

/// What only others know.
fn note_dropped(request: &Request<'_>, dropped: &mut Dropped) {
    let sampling = &request.sampling;
    let is_set = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
    dropped.add_if(is_set(sampling.frequency_penalty), Param::FrequencyPenalty);
    dropped.add_if(is_set(sampling.presence_penalty), Param::PresencePenalty);
    dropped.add_if(is_set(sampling.min_p), Param::MinP);
    dropped.add_if(sampling.seed.is_some(), Param::Seed);
    if let Some(logprobs) = request.logprobs {
        dropped.add(Param::Logprobs);
        dropped.add_if(logprobs.top.is_some(), Param::TopLogprobs);
    }
    dropped.add_if(request.metadata.is_some(), Param::Metadata);
    dropped.add_if(request.cache_key.is_some(), Param::CacheKey);
    // Nothing is kept, which is what `false` asks for.
    dropped.add_if(request.store == Some(true), Param::Store);
    let names = request.messages.iter().any(|message| message.name.is_some());
    dropped.add_if(names, Param::ParticipantName);
}

fn write_output_config(body: &mut Object<'_>, effort: Option<Effort>, form: &Form<'_, '_>) {
    let schema = form.native_schema();
    if effort.is_none() && schema.is_none() {
        return;
    }
    let mut config = Object::open(body.member("output_config"));
    if let Some(effort) = effort {
        config.value("effort", thinking::effort_name(effort));
    }
    if let Some(schema) = schema {
        let mut format = Object::open(config.member("format"));
        format.value("type", "json_schema");
        format.raw("schema", schema);
        format.close();
    }
    config.close();
}

fn write_rest(body: &mut Object<'_>, request: &Request<'_>, dropped: &mut Dropped) {
    if request.stream {
        body.value("stream", true);
    }
    let (stop, blank): (Vec<_>, Vec<_>) =
        request.stop.iter().partition(|sequence| !sequence.trim().is_empty());
    dropped.add_if(!blank.is_empty(), Param::Stop);
    if !stop.is_empty() {
        body.value("stop_sequences", &stop);
    }
    if let Some(user) = &request.user {
        let mut metadata = Object::open(body.member("metadata"));
        metadata.value("user_id", user);
        metadata.close();
    }
    match request.service_tier.as_deref() {
        Some(tier) if request.dialect == Dialect::Messages => body.value("service_tier", tier),
        // Both mean: as the account has it.
        None | Some("auto") => {}
        Some("default" | "standard") => body.value("service_tier", "standard_only"),
        Some(_) => dropped.add(Param::ServiceTier),
    }
}

fn write_extras(body: &mut Object<'_>, request: &Request<'_>, counting: bool, dropped: &mut Dropped) {
    for (name, value) in &request.extras {
        if request.dialect != Dialect::Messages {
            dropped.add(Param::Other((**name).into()));
        } else if !counting || matches!(&**name, "cache_control" | "context_management" | "mcp_servers") {
            writer::raw(body.member(&writer::escaped(name)), value.get());
        }
    }
}
