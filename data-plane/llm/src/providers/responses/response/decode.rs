//! An upstream's answer.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::wire::{self, Answer, Item, Part as WirePart};
use crate::{
    Dialect,
    codec::CodecError,
    ir::{Choice, Content, Json, Media, Part, Response, Source, Thinking, ToolCall},
};

/// # Errors
/// When it is no answer, or says that it has failed.
pub fn decode(body: &[u8]) -> Result<Response<'_>, CodecError> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| {
        CodecError::invalid("", format!("The upstream's answer is no JSON object: {error}."))
    })?;
    if answer.status.as_str() == "failed" {
        let info = answer.failure();
        return Err(CodecError::invalid("error", info.message.unwrap_or_default()));
    }
    if answer.output.is_none() {
        let message = "The upstream's answer is none of the Responses API: it has no `output`.";
        return Err(CodecError::invalid("output", message));
    }
    let (mut parts, mut all_logprobs) = (Vec::new(), Vec::new());
    for item in wire::list(answer.output) {
        read_item(item, &mut parts, &mut all_logprobs);
    }
    let called = parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
    let finish = Some(answer.finish(called));
    let (created, service_tier, usage) = (answer.created(), answer.tier(), answer.usage());
    let choice = Choice { index: 0, parts, finish, logprobs: logprobs(&all_logprobs) };
    Ok(Response {
        id: answer.id.text(),
        model: answer.model.text(),
        created,
        choices: vec![choice],
        usage,
        service_tier,
        system_fingerprint: None,
    })
}

fn read_item<'a>(json: &'a RawValue, parts: &mut Vec<Part<'a>>, logprobs: &mut Vec<&'a RawValue>) {
    let mut item: Item<'_> = wire::lenient(Some(json)).unwrap_or_default();
    match item.kind.as_str() {
        "message" => {
            for part in wire::list(item.content) {
                let part: WirePart<'_> = wire::lenient(Some(part)).unwrap_or_default();
                match part.kind.as_str() {
                    "refusal" => parts.push(Part::new(Content::Refusal(part.refusal.text()))),
                    "output_text" | "text" => {
                        let citations =
                            wire::list(part.annotations).into_iter().map(wire::citation).collect();
                        parts.push(Part::new(Content::Text { text: part.text.text(), citations }));
                        logprobs.extend(wire::list(part.logprobs));
                    }
                    _ => {}
                }
            }
        }
        "reasoning" => {
            let text = item.thoughts();
            let encrypted = item.encrypted_content.some().filter(|data| !data.is_empty());
            if !text.is_empty() || encrypted.is_some() {
                let thinking = Thinking { text, signature: None, encrypted, id: Some(item.id.text()) };
                parts.push(Part::new(Content::Thinking(thinking)));
            }
        }
        kind @ ("function_call" | "custom_tool_call") => {
            let custom = kind == "custom_tool_call";
            let arguments = std::mem::take(if custom { &mut item.input } else { &mut item.arguments });
            let (id, name) = (item.call_id(), item.name.text());
            let call = ToolCall { id, name, arguments: arguments.text(), custom };
            parts.push(Part::new(Content::ToolCall(call)));
        }
        "image_generation_call" if !item.result.as_str().is_empty() => {
            let media_type = Cow::Borrowed(item.image_type());
            let source = Source::Base64 { media_type, data: item.result.text() };
            parts.push(Part::new(Content::Image(Media { source, detail: None })));
        }
        _ => {
            let value = Cow::Borrowed(json);
            parts.push(Part::new(Content::Opaque { dialect: Dialect::Responses, value }));
        }
    }
}

/// What stands at each part of a text, in the one object that Chat Completions has for all.
pub(in super::super) fn logprobs<'a>(tokens: &[&RawValue]) -> Option<Json<'a>> {
    if tokens.is_empty() {
        return None;
    }
    let tokens: Vec<_> = tokens.iter().map(|token| token.get()).collect();
    let json = format!(r#"{{"content":[{}],"refusal":null}}"#, tokens.join(","));
    RawValue::from_string(json).ok().map(Cow::Owned)
}
