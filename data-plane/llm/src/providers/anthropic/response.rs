//! Answers: [`decode`] reads Claude's, [`encode`] writes those for Anthropic's clients.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    blocks::{self, Within},
    citations, opaque,
    request::write_media,
    usage::{self, Counts, Totals},
    wire::{self, Str},
    writer::{self, Array, Object},
};
use crate::{
    CodecError, Dialect,
    codec::Echo,
    ir::{self, Choice, Content, Finish, Part, Response, ToolCall},
    providers::{read, tool_id},
};

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<Str<'a>>,
    #[serde(borrow, default)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    stop_reason: Option<Str<'a>>,
    #[serde(borrow, default)]
    stop_sequence: Option<Str<'a>>,
    #[serde(borrow, default)]
    usage: Option<Counts<'a>>,
}

pub fn decode(body: &[u8]) -> Result<Response<'_>, CodecError> {
    let message: Message<'_> = read::body(body)?;
    let mut parts = Vec::with_capacity(message.content.len());
    // Citations are of the block that they stand on; elsewhere texts are one, and places in it are counted from its start.
    let mut written = 0;
    for (at, raw) in message.content.into_iter().enumerate() {
        let mut part = blocks::part(raw, Within::Answer, &|| format!("content[{at}]"))?;
        part.at = wire::index(at);
        if let Content::Text { text, citations } = &mut part.content {
            let until = if citations.is_empty() && written == 0 { 0 } else { count(text) };
            for citation in citations {
                citation.span = Some((written, written.saturating_add(until)));
            }
            written = written.saturating_add(count(text));
        }
        parts.push(part);
    }
    let counts = message.usage.unwrap_or_default();
    let totals = counts.since(&Totals::default());
    let finish = message.stop_reason.map(|reason| finish(reason.0, message.stop_sequence));
    Ok(Response {
        id: message.id.map(|it| it.0).unwrap_or_default(),
        model: message.model.map(|it| it.0).unwrap_or_default(),
        created: None,
        choices: vec![Choice { index: 0, parts, finish, logprobs: None }],
        usage: message.usage.map(|_| totals.usage()),
        service_tier: counts.tier(),
        system_fingerprint: None,
    })
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// Why the answer ended, from Anthropic's words.
pub(super) fn finish<'a>(reason: Cow<'a, str>, sequence: Option<Str<'a>>) -> Finish<'a> {
    match &*reason {
        "end_turn" => Finish::Stop,
        "stop_sequence" => sequence.map_or(Finish::Stop, |sequence| Finish::StopSequence(sequence.0)),
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Refusal,
        "pause_turn" => Finish::Pause,
        _ => Finish::Other(reason),
    }
}

/// Anthropic's word for it. `calls`, `refused`: what the answer has in it, which some providers don't tell.
pub(super) fn stop_reason(finish: Option<&Finish<'_>>, calls: bool, refused: bool) -> &'static str {
    match finish {
        Some(Finish::Length) => "max_tokens",
        Some(Finish::ToolCalls) => "tool_use",
        Some(Finish::StopSequence(_)) => "stop_sequence",
        Some(Finish::ContentFilter | Finish::Refusal) => "refusal",
        Some(Finish::Pause) => "pause_turn",
        _ if refused => "refusal",
        _ if calls => "tool_use",
        _ => "end_turn",
    }
}

/// Anthropic's own id as it is; of others, one in its form.
pub(super) fn message_id<'i>(upstream: &'i str, echo: &Echo) -> Cow<'i, str> {
    if upstream.starts_with("msg_") {
        Cow::Borrowed(upstream)
    } else {
        Cow::Owned(format!("msg_{}", echo.id))
    }
}

/// The id of a call, made up where the upstream has none, with Google's signature in it where there is one.
pub(super) fn call_id<'i>(id: &'i str, block: usize, signature: Option<&str>, echo: &Echo) -> Cow<'i, str> {
    let id = if id.is_empty() { Cow::Owned(format!("call_{block}_{}", echo.id)) } else { Cow::Borrowed(id) };
    match signature.filter(|it| !it.is_empty()) {
        Some(signature) => Cow::Owned(tool_id::with_signature(&id, signature)),
        None => id,
    }
}

pub fn encode(response: &Response<'_>, echo: &Echo) -> Vec<u8> {
    // The dialect knows one answer.
    let choice = response.choices.first();
    let parts = choice.map(|choice| &choice.parts[..]).unwrap_or_default();
    let mut out = Vec::with_capacity(512);
    let mut message = Object::open(&mut out);
    message.value("id", message_id(&response.id, echo));
    message.value("type", "message");
    message.value("role", "assistant");
    let model = if response.model.is_empty() { &*echo.model } else { &*response.model };
    message.value("model", model);
    let mut content = Array::open(message.member("content"));
    for (at, part) in parts.iter().enumerate() {
        write_part(&mut content, at, part, echo);
    }
    content.close();
    let has = |wanted: fn(&Content<'_>) -> bool| parts.iter().any(|part| wanted(&part.content));
    let calls = has(|content| matches!(content, Content::ToolCall(_)));
    let refused = has(|content| matches!(content, Content::Refusal(_)));
    let finish = choice.and_then(|choice| choice.finish.as_ref());
    message.value("stop_reason", stop_reason(finish, calls, refused));
    message.value("stop_sequence", stop_sequence(finish));
    let usage = Object::open(message.member("usage"));
    usage::write(usage, &response.usage.unwrap_or_default(), response.service_tier);
    message.close();
    out
}

pub(super) fn stop_sequence<'f>(finish: Option<&'f Finish<'_>>) -> Option<&'f str> {
    match finish {
        Some(Finish::StopSequence(sequence)) => Some(sequence),
        _ => None,
    }
}

fn write_part(content: &mut Array<'_>, at: usize, part: &Part<'_>, echo: &Echo) {
    match &part.content {
        // Some upstreams have an empty text beside calls, which clients may not send back.
        Content::Text { text, .. } if text.is_empty() => {}
        Content::Text { text, citations } => write_text(content.item(), text, citations),
        Content::Refusal(text) => write_text(content.item(), text, &[]),
        Content::Thinking(thinking) => write_thinking(content.item(), thinking),
        Content::ToolCall(call) => {
            let mut object = Object::open(content.item());
            object.value("type", "tool_use");
            object.value("id", call_id(&call.id, at, part.signature.as_deref(), echo));
            object.value("name", &call.name);
            write_arguments(object.member("input"), call);
            object.close();
        }
        // No model of Anthropic's answers in images; their shape is that of images in requests.
        Content::Image(media) => {
            let mut object = Object::open(content.item());
            object.value("type", "image");
            write_media(object.member("source"), &media.source);
            object.close();
        }
        Content::Opaque { dialect: Dialect::Messages, value } => writer::raw(content.item(), value.get()),
        // Nothing that clients of this dialect could show.
        Content::Audio(_)
        | Content::Video(_)
        | Content::Document(_)
        | Content::ToolResult(_)
        | Content::Opaque { .. } => {}
    }
}

fn write_text(out: &mut Vec<u8>, text: &str, citations: &[ir::Citation<'_>]) {
    let mut object = Object::open(out);
    object.value("type", "text");
    object.value("text", text);
    if citations.iter().any(citations::is_writable) {
        citations::write_all(object.member("citations"), citations);
    }
    object.close();
}

fn write_thinking(out: &mut Vec<u8>, thinking: &ir::Thinking<'_>) {
    let id = thinking.id.as_deref().unwrap_or_default();
    let encrypted = thinking.encrypted.as_deref().map(|content| opaque::pack(content, id));
    let mut object = Object::open(out);
    match encrypted {
        Some(data) if thinking.text.is_empty() => {
            object.value("type", "redacted_thinking");
            object.value("data", &data);
        }
        encrypted => {
            let signature = thinking.signature.as_deref().or(encrypted.as_deref()).unwrap_or_default();
            object.value("type", "thinking");
            object.value("thinking", &thinking.text);
            object.value("signature", signature);
        }
    }
    object.close();
}

/// Arguments as an object; those that a model wrote wrong as the text that it wrote.
fn write_arguments(out: &mut Vec<u8>, call: &ToolCall<'_>) {
    let arguments = call.arguments.trim();
    let is_object = arguments.starts_with('{') && serde_json::from_str::<&RawValue>(arguments).is_ok();
    match (call.custom, is_object) {
        (false, true) => writer::raw(out, arguments),
        (false, false) if arguments.is_empty() => out.extend_from_slice(b"{}"),
        (custom, _) => {
            let mut object = Object::open(out);
            object.value(if custom { "input" } else { "arguments" }, &call.arguments);
            object.close();
        }
    }
}

#[cfg(test)]
mod tests;
