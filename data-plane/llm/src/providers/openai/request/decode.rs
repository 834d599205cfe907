//! A client's request into the hub.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    messages::{self, MessageIn},
    settings,
};
use crate::{
    CodecError, Dialect,
    extras::ExtraField,
    ir::{Logprobs, Request},
    providers::read::{self, Members, Str, text},
};

/// # Errors
/// What is wrong, by its path.
pub fn decode(body: &[u8]) -> Result<Request<'_>, CodecError> {
    let Members(members) = read::body(body)?;
    let mut request = Request::new(Dialect::Chat, Cow::Borrowed(""));
    let mut messages = None;
    let mut limit = None;
    let (mut logprobs, mut top) = (None, None);
    for (name, json) in members {
        match &*name.0 {
            "model" => request.model = text(read::member::<Str<'_>>("model", json)?).unwrap_or_default(),
            "messages" => messages = read::member::<Vec<MessageIn<'_>>>("messages", json)?,
            // Of both the smaller holds, as where the request passes as it is.
            "max_completion_tokens" | "max_tokens" => {
                limit = limit.into_iter().chain(read::member::<u64>(&name.0, json)?).min();
            }
            "tools" => request.tools = settings::tools(json)?,
            "tool_choice" => request.tool_choice = settings::tool_choice(json)?,
            "parallel_tool_calls" => {
                request.parallel_tool_calls = read::member("parallel_tool_calls", json)?;
            }
            "response_format" => request.format = settings::format(json)?,
            "logprobs" => logprobs = read::member::<bool>("logprobs", json)?,
            "top_logprobs" => top = read::member::<u32>("top_logprobs", json)?,
            "reasoning_effort" => {
                if let Some(word) = read::member::<Str<'_>>("reasoning_effort", json)? {
                    let effort = settings::effort("reasoning_effort", &word.0)?;
                    request.reasoning.get_or_insert_default().effort = Some(effort);
                }
            }
            "reasoning" => settings::reasoning(json, &mut request.reasoning)?,
            "thinking" => settings::thinking(json, &mut request.reasoning)?,
            "include_reasoning" => {
                if let Some(visible) = read::member::<bool>("include_reasoning", json)? {
                    request.reasoning.get_or_insert_default().visible = Some(visible);
                }
            }
            "metadata" => request.metadata = object("metadata", json)?,
            "prompt_cache_key" => request.cache_key = text(read::member("prompt_cache_key", json)?),
            "store" => request.store = read::member("store", json)?,
            "modalities" => {
                let list = read::member::<Vec<Str<'_>>>("modalities", json)?.unwrap_or_default();
                request.modalities = list.into_iter().map(|word| word.0).collect();
            }
            "functions" | "function_call" if json.get() != "null" => {
                let message = "The legacy form of tools is not translated: send `tools`.";
                return Err(CodecError::unsupported(name.0, message));
            }
            _ => parameter(&mut request, name, json)?,
        }
    }
    request.max_output = limit;
    request.logprobs = (logprobs == Some(true) || top.is_some_and(|top| top > 0)).then_some(Logprobs { top });
    let messages = messages.ok_or_else(|| CodecError::invalid("messages", "Missing field `messages`."))?;
    request.messages = messages::read(messages)?;
    request.link_tool_results().map_err(|(message, _)| {
        CodecError::invalid(
            format!("messages[{message}].tool_call_id"),
            "No message before this one has a call of this id among its `tool_calls`.",
        )
    })?;
    Ok(request)
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Members that chat completions and completions have in common; the rest goes to the extras.
pub(in super::super) fn parameter<'a>(
    request: &mut Request<'a>,
    name: Str<'a>,
    json: &'a RawValue,
) -> Result<(), CodecError> {
    let sampling = &mut request.sampling;
    match &*name.0 {
        "stream" => request.stream = read::member("stream", json)?.unwrap_or(false),
        "stream_options" => {
            let options = read::member::<StreamOptions>("stream_options", json)?;
            request.include_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
        }
        "n" => request.choices = read::member("n", json)?.unwrap_or(1),
        "stop" => request.stop = stop(json)?,
        "temperature" => sampling.temperature = read::member("temperature", json)?,
        "top_p" => sampling.top_p = read::member("top_p", json)?,
        "top_k" => sampling.top_k = count("top_k", json)?,
        "min_p" => sampling.min_p = read::member("min_p", json)?,
        "frequency_penalty" => sampling.frequency_penalty = read::member("frequency_penalty", json)?,
        "presence_penalty" => sampling.presence_penalty = read::member("presence_penalty", json)?,
        "seed" => sampling.seed = read::member("seed", json)?,
        "user" => request.user = text(read::member("user", json)?).or(request.user.take()),
        // What `user` is called by now.
        "safety_identifier" if request.user.is_none() => {
            request.user = text(read::member("safety_identifier", json)?);
        }
        "safety_identifier" => {}
        "service_tier" => request.service_tier = text(read::member("service_tier", json)?),
        // Of the gateway, which has read it.
        other if ExtraField::from_name(other).is_some() => {}
        _ if json.get() == "null" => {}
        _ => request.extras.push((name.0, Cow::Borrowed(json))),
    }
    Ok(())
}

/// Local servers take -1 for "as many as there are".
fn count(name: &str, json: &RawValue) -> Result<Option<u64>, CodecError> {
    Ok(read::member::<i64>(name, json)?.and_then(|count| u64::try_from(count).ok()))
}

fn stop(json: &RawValue) -> Result<Vec<Cow<'_, str>>, CodecError> {
    if json.get().starts_with('"') {
        return Ok(text(read::member::<Str<'_>>("stop", json)?).into_iter().collect());
    }
    let list = read::member::<Vec<Str<'_>>>("stop", json)?.unwrap_or_default();
    Ok(list.into_iter().map(|word| word.0).collect())
}

fn object<'a>(name: &str, json: &'a RawValue) -> Result<Option<Cow<'a, RawValue>>, CodecError> {
    match json.get().as_bytes().first() {
        Some(b'{') => Ok(Some(Cow::Borrowed(json))),
        Some(b'n') => Ok(None),
        _ => Err(CodecError::invalid(name, "Expected an object.")),
    }
}
