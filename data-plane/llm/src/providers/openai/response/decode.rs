//! An upstream's answer into the hub.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{request::ExtraIn, thoughts, usage},
    wire::{AnnotationIn, CallIn, ImageIn, MessageIn, SpokenIn, TextIn, finish},
};
use crate::{
    CodecError, ServiceTier,
    ir::{Choice, Content, Part, Response, Thinking, ToolCall},
    providers::read::{self, Str, text},
};

#[derive(Deserialize)]
struct AnswerIn<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    created: Option<f64>,
    #[serde(borrow)]
    choices: Option<Vec<ChoiceIn<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<Str<'a>>,
    #[serde(borrow)]
    system_fingerprint: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct ChoiceIn<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    message: Option<MessageIn<'a>>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    /// Moonshot's place for it.
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// # Errors
/// When it is no answer of this dialect.
pub fn decode(body: &[u8]) -> Result<Response<'_>, CodecError> {
    let answer: AnswerIn<'_> = read::body(body)?;
    let choices = answer.choices.ok_or_else(|| {
        CodecError::invalid("choices", "Missing field `choices`: this is no chat completion.")
    })?;
    let nested = choices.iter().find_map(|choice| choice.usage);
    let usage = answer.usage.and_then(usage::read).or_else(|| nested.and_then(usage::read));
    let tier = answer.service_tier.map(|tier| ServiceTier::new(tier.0.as_bytes()));
    Ok(Response {
        id: text(answer.id).unwrap_or_default(),
        model: text(answer.model).unwrap_or_default(),
        created: answer.created.and_then(seconds),
        choices: choices.into_iter().zip(0..).map(|(choice, at)| choice.read(at)).collect(),
        usage,
        service_tier: tier.unwrap_or_default(),
        system_fingerprint: text(answer.system_fingerprint),
    })
}

/// Whole seconds since the epoch; some services send fractions.
pub(in super::super) fn seconds(created: f64) -> Option<u64> {
    const MAX: f64 = 1e12;
    if !(0.0..MAX).contains(&created) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    Some(created as u64)
}

impl<'a> ChoiceIn<'a> {
    fn read(self, at: u32) -> Choice<'a> {
        let parts = self.message.unwrap_or_default().read();
        let calls = parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
        let logprobs = self.logprobs.filter(|json| json.get() != "null").map(Cow::Borrowed);
        Choice { index: self.index.unwrap_or(at), finish: finish(self.finish_reason, calls), parts, logprobs }
    }
}

impl<'a> MessageIn<'a> {
    fn read(self) -> Vec<Part<'a>> {
        let mut parts = thoughts::read(self.reasoning_details, self.reasoning_content.or(self.reasoning));
        let first = parts.len();
        match self.content {
            None => {}
            Some(TextIn::Plain(text)) => parts.extend(nonempty(text.0).map(Part::text)),
            Some(TextIn::Chunks(chunks)) => {
                for (text, thought) in chunks.into_iter().map(super::wire::ChunkIn::read) {
                    let Some(text) = nonempty(text) else { continue };
                    parts.push(if thought {
                        Part::new(Content::Thinking(Thinking { text, ..Thinking::default() }))
                    } else {
                        Part::text(text)
                    });
                }
            }
        }
        parts.extend(SpokenIn::words(self.audio).map(Part::text));
        cite(&mut parts[first..], self.annotations);
        let images = self.images.into_iter().flatten().filter_map(ImageIn::read);
        parts.extend(images.map(|image| Part::new(Content::Image(image))));
        parts.extend(text(self.refusal).and_then(nonempty).map(|text| Part::new(Content::Refusal(text))));
        if let Some((part, signature)) = parts.get_mut(first).zip(ExtraIn::signature(self.extra_content)) {
            part.signature = Some(signature);
        }
        parts.extend(self.tool_calls.into_iter().flatten().filter_map(call));
        parts
    }
}

fn nonempty(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(text)
}

/// Puts the citations on the text, of which there is one.
fn cite<'a>(parts: &mut [Part<'a>], annotations: Option<Vec<AnnotationIn<'a>>>) {
    let found = parts.iter_mut().find_map(|part| match &mut part.content {
        Content::Text { citations, .. } => Some(citations),
        _ => None,
    });
    if let Some(citations) = found {
        citations.extend(annotations.into_iter().flatten().filter_map(AnnotationIn::read));
    }
}

fn call(call: CallIn<'_>) -> Option<Part<'_>> {
    let (function, custom) = match (call.function, call.custom) {
        (Some(function), _) => (function, false),
        (None, Some(custom)) => (custom, true),
        (None, None) => return None,
    };
    let signature = ExtraIn::signature(call.extra_content);
    let content = Content::ToolCall(ToolCall {
        id: text(call.id).unwrap_or_default(),
        name: text(function.name).unwrap_or_default(),
        arguments: function.arguments.map(|arguments| arguments.0).unwrap_or_default(),
        custom,
    });
    Some(Part { signature, ..Part::new(content) })
}
