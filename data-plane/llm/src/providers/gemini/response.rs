//! Answers, whole. Called through [`crate::codec`].

use std::borrow::Cow;

use serde::Serialize;

use super::{
    citations, finish, logprobs, signature, usage,
    wire::{self, Answer, Candidate, Part as WirePart},
    write::{self, Content, Known},
};
use crate::{
    Dialect,
    codec::{CodecError, Echo},
    ir::{self, Choice, Document, Finish, Media, Part, Response, Source, Text, Thinking, ToolCall},
};

/// # Errors
/// When it is no answer of Google's.
pub fn decode(body: &[u8]) -> Result<Response<'_>, CodecError> {
    let answer: Answer<'_> = wire::read_answer(body)?;
    let blocked = answer.prompt_feedback.and_then(|it| it.block_reason).is_some();
    let candidates = answer.candidates.unwrap_or_default();
    let mut choices = Vec::with_capacity(candidates.len().max(1));
    for (at, candidate) in candidates.into_iter().enumerate() {
        choices.push(choice(candidate, u32::try_from(at).unwrap_or(u32::MAX)));
    }
    if choices.is_empty() {
        // A prompt that was refused has no candidates; clients of other dialects expect one.
        let finish = Some(if blocked { Finish::ContentFilter } else { Finish::Error });
        choices.push(Choice { index: 0, parts: Vec::new(), finish, logprobs: None });
    }
    Ok(Response {
        id: answer.response_id.unwrap_or_default().0,
        model: answer.model_version.unwrap_or_default().0,
        created: None,
        choices,
        usage: answer.usage_metadata.as_ref().map(usage::read),
        service_tier: answer.usage_metadata.as_ref().map(usage::tier).unwrap_or_default(),
        system_fingerprint: None,
    })
}

fn choice(mut candidate: Candidate<'_>, at: u32) -> Choice<'_> {
    let wire_parts = candidate.content.take().and_then(|it| it.parts).unwrap_or_default();
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(wire_parts.len());
    // Where the texts of the answer are: of the whole text, and of Google's parts.
    let (mut text, mut starts, mut ends) = (String::new(), Vec::new(), Vec::new());
    let cited = candidate.grounding_metadata.is_some() || candidate.citation_metadata.is_some();
    for wire in wire_parts {
        starts.push(text.len());
        let Some(part) = part(wire) else { continue };
        if let ir::Content::Text { text: said, .. } = &part.content
            && cited
        {
            text.push_str(said);
            ends.push((text.len(), parts.len()));
        }
        parts.push(part);
    }
    let start = |part: usize| starts.get(part).copied().unwrap_or(0);
    for (end, citation) in citations::read(&mut candidate, &text, &start) {
        let place = ends.iter().find(|(until, _)| *until >= end).or(ends.last());
        if let Some(Part { content: ir::Content::Text { citations, .. }, .. }) =
            place.and_then(|(_, at)| parts.get_mut(*at))
        {
            citations.push(citation);
        }
    }
    let called = parts.iter().any(|part| matches!(part.content, ir::Content::ToolCall(_)));
    Choice {
        index: candidate.index.unwrap_or(at),
        finish: candidate.finish_reason.and_then(|reason| finish::read(&reason.0, called)),
        logprobs: candidate.logprobs_result.and_then(logprobs::read),
        parts,
    }
}

/// `None` for a part that says nothing.
pub(super) fn part(wire: WirePart<'_>) -> Option<Part<'_>> {
    let opaque = wire.opaque();
    let signed = wire.thought_signature.map(|it| it.0);
    let content = if let Some(text) = wire.text {
        if wire.thought == Some(true) {
            let thinking = Thinking { text: text.0, signature: signed, ..Thinking::default() };
            return Some(Part::new(ir::Content::Thinking(thinking)));
        }
        if text.0.is_empty() && signed.is_none() {
            return None;
        }
        ir::Content::Text { text: text.0, citations: Vec::new() }
    } else if let Some(call) = wire.function_call {
        let arguments = call.args.map_or(Cow::Borrowed("{}"), |args| wire::compact(args.get()));
        let id = call.id.unwrap_or_default().0;
        ir::Content::ToolCall(ToolCall { id, name: call.name, arguments, custom: false })
    } else if let Some(blob) = wire.inline_data {
        let kind = blob.mime_type.clone();
        media(&kind, Source::Base64 { media_type: blob.mime_type, data: blob.data })
    } else if let Some(file) = wire.file_data {
        media(&file.mime_type.unwrap_or_default().0, Source::Url(file.file_uri))
    } else if let Some((name, value)) = opaque {
        let value = Cow::Owned(write::raw(format!("{{\"{name}\":{}}}", value.get())));
        ir::Content::Opaque { dialect: Dialect::GenerateContent, value }
    } else if signed.is_some() {
        ir::Content::Text { text: Text::Borrowed(""), citations: Vec::new() }
    } else {
        return None;
    };
    Some(Part { signature: signed, ..Part::new(content) })
}

fn media<'a>(kind: &str, source: Source<'a>) -> ir::Content<'a> {
    let media = |source| Media { source, detail: None };
    match kind.split('/').next().unwrap_or_default() {
        "image" => ir::Content::Image(media(source)),
        "audio" => ir::Content::Audio(media(source)),
        "video" => ir::Content::Video(media(source)),
        _ => ir::Content::Document(Document { source, name: None, context: None, citations: false }),
    }
}

/// An answer, or one event of a stream of it, as Google writes them.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<WrittenCandidate<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_metadata: Option<usage::Written>,
    pub model_version: &'a str,
    pub response_id: &'a str,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WrittenCandidate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grounding_metadata: Option<&'a citations::Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs_result: Option<logprobs::Written>,
    pub index: u32,
}

/// For a client of Google's.
pub fn encode(response: &Response<'_>, echo: &Echo) -> Vec<u8> {
    let groundings: Vec<_> = response.choices.iter().map(grounding).collect();
    let candidates = response.choices.iter().zip(&groundings).map(|(choice, grounding)| WrittenCandidate {
        content: Some(Content {
            role: Some("model"),
            parts: choice.parts.iter().filter_map(written).collect(),
        }),
        finish_reason: choice.finish.as_ref().map(finish::write),
        grounding_metadata: (!grounding.is_empty()).then_some(grounding),
        logprobs_result: choice.logprobs.as_deref().and_then(logprobs::write),
        index: choice.index,
    });
    let written = Written {
        candidates: candidates.collect(),
        usage_metadata: response.usage.as_ref().map(usage::write),
        model_version: if response.model.is_empty() { &echo.model } else { &response.model },
        response_id: if response.id.is_empty() { &echo.id } else { &response.id },
    };
    // Serializing text and numbers into memory has no way to fail.
    serde_json::to_vec(&written).unwrap_or_default()
}

fn written<'a>(part: &'a Part<'_>) -> Option<write::Part<'a>> {
    let signed = part.signature.as_deref().map(signature::to_wire);
    let mut known = match &part.content {
        ir::Content::Text { text, .. } | ir::Content::Refusal(text) => {
            if text.is_empty() && signed.is_none() {
                return None;
            }
            write::text(&**text)
        }
        ir::Content::Thinking(thinking) => Known {
            thought: true,
            thought_signature: signature::of_thinking(thinking),
            ..write::text(&*thinking.text)
        },
        ir::Content::ToolCall(call) => write::call(call),
        ir::Content::Image(media) | ir::Content::Audio(media) | ir::Content::Video(media) => {
            write::media(media)?
        }
        ir::Content::Opaque { dialect: Dialect::GenerateContent, value } => {
            return Some(write::own(value, part.signature.as_deref()));
        }
        ir::Content::Document(_) | ir::Content::ToolResult(_) | ir::Content::Opaque { .. } => return None,
    };
    if signed.is_some() {
        known.thought_signature = signed;
    }
    Some(write::Part::Known(known))
}

fn grounding(choice: &Choice<'_>) -> citations::Written {
    let mut written = citations::Written::default();
    let texts = || {
        choice.parts.iter().filter_map(|part| match &part.content {
            ir::Content::Text { text, citations } => Some((text, citations)),
            _ => None,
        })
    };
    if texts().any(|(_, citations)| !citations.is_empty()) {
        let whole: String = texts().map(|(text, _)| &**text).collect();
        for citation in texts().flat_map(|(_, citations)| citations) {
            written.push(citation, Some(&whole));
        }
    }
    written
}
