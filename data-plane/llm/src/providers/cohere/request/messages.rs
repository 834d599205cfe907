//! The conversation: each result of a tool is a message of its own, and what a model says before it calls a function
//! is its plan. Part of [`super::encode`].

use std::borrow::Cow;

use super::{NAME, Writing};
use crate::{
    codec::CodecError,
    ir::{Content as Said, Document, Media, Message, Param, Part, Role, Source, ToolResult},
    providers::{
        cohere::fields::{self, Body, Call, Content, Grounding, GroundingText, ImageUrl, Piece, ToolCall},
        data_url, place,
    },
};

pub(super) fn write<'r>(writing: &mut Writing<'_, 'r>, body: &mut Body<'r>) -> Result<(), CodecError> {
    for message in &writing.request.messages {
        if message.parts.iter().any(|part| part.cache.is_some()) {
            writing.drop(Param::CacheControl);
        }
        match message.role {
            Role::System | Role::Developer => {
                let content = Content::of(pieces(writing, message, &mut body.documents)?);
                body.messages.push(fields::Message::System { content });
            }
            Role::User => user(writing, message, body)?,
            Role::Assistant => {
                let message = assistant(writing, message)?;
                body.messages.extend(message);
            }
        }
    }
    Ok(())
}

fn user<'r>(
    writing: &mut Writing<'_, 'r>,
    message: &'r Message<'_>,
    body: &mut Body<'r>,
) -> Result<(), CodecError> {
    let mut results = 0;
    for part in &message.parts {
        if let Said::ToolResult(result) = &part.content {
            results += 1;
            let content = tool_result(writing, message, part, result)?;
            body.messages.push(fields::Message::Tool { tool_call_id: &result.call_id, content });
        }
    }
    let pieces = pieces(writing, message, &mut body.documents)?;
    if !pieces.is_empty() || (results == 0 && body.documents.is_empty()) {
        body.messages.push(fields::Message::User { content: Content::of(pieces) });
    }
    Ok(())
}

/// What the user says; results of tools are passed over.
fn pieces<'r>(
    writing: &mut Writing<'_, 'r>,
    message: &'r Message<'_>,
    documents: &mut Vec<Grounding<'r>>,
) -> Result<Vec<Piece<'r>>, CodecError> {
    let mut pieces = Vec::with_capacity(message.parts.len());
    for part in &message.parts {
        let at = || place::of(writing.request, message, part);
        match &part.content {
            Said::ToolResult(_) => {}
            Said::Text { text, .. } | Said::Refusal(text) => pieces.push(Piece::Text { text }),
            Said::Image(image) => pieces.push(Piece::ImageUrl { image_url: image_url(image, &at)? }),
            Said::Document(Document { source: Source::Text(text), name, .. }) => {
                documents.push(Grounding { data: GroundingText { title: name.as_deref(), text } });
            }
            other => return Err(not_taken(other, at())),
        }
    }
    Ok(pieces)
}

fn not_taken(content: &Said<'_>, at: String) -> CodecError {
    let what = match content {
        Said::Audio(_) => "recordings",
        Said::Video(_) => "films",
        Said::Document(_) => "files, only documents of plain text",
        _ => "such parts",
    };
    CodecError::unsupported(at, format!("{NAME} takes no {what}."))
}

fn image_url<'r>(image: &'r Media<'_>, at: &dyn Fn() -> String) -> Result<ImageUrl<'r>, CodecError> {
    let url = match &image.source {
        Source::Url(url) => Cow::Borrowed(&**url),
        Source::Base64 { media_type, data } => Cow::Owned(data_url::write(media_type, data)),
        Source::File(_) | Source::Text(_) => {
            return Err(CodecError::unsupported(
                at(),
                format!("{NAME} has no files of another provider. Expected base64 or an https URL."),
            ));
        }
    };
    Ok(ImageUrl { url, detail: image.detail.as_deref() })
}

fn tool_result<'r>(
    writing: &mut Writing<'_, 'r>,
    message: &'r Message<'_>,
    part: &'r Part<'_>,
    result: &'r ToolResult<'_>,
) -> Result<Content<'r>, CodecError> {
    let mut pieces = Vec::with_capacity(result.content.len());
    for inner in &result.content {
        if inner.cache.is_some() {
            writing.drop(Param::CacheControl);
        }
        let (Said::Text { text, .. } | Said::Document(Document { source: Source::Text(text), .. })) =
            &inner.content
        else {
            let place = place::of(writing.request, message, part);
            return Err(CodecError::unsupported(
                place,
                format!("{NAME} takes only text as the result of a tool."),
            ));
        };
        pieces.push(Piece::Text { text });
    }
    if result.is_error {
        // The text says so too, as a rule; there is no mark for it.
        writing.drop(Param::Other("is_error".into()));
    }
    Ok(Content::of(pieces))
}

/// `None`: nothing of it can be said here.
fn assistant<'r>(
    writing: &mut Writing<'_, 'r>,
    message: &'r Message<'_>,
) -> Result<Option<fields::Message<'r>>, CodecError> {
    let (mut pieces, mut calls) = (Vec::new(), Vec::new());
    for part in &message.parts {
        match &part.content {
            Said::Text { text, citations } => {
                if !citations.is_empty() {
                    writing.drop(Param::Citations);
                }
                pieces.push(Piece::Text { text });
            }
            Said::Refusal(text) => pieces.push(Piece::Text { text }),
            Said::Thinking(thinking) if writing.reasons() && !thinking.text.is_empty() => {
                pieces.push(Piece::Thinking { thinking: &thinking.text });
            }
            Said::Thinking(_) => writing.drop(Param::Thinking),
            Said::ToolCall(call) => {
                let empty = call.arguments.trim().is_empty();
                let arguments = Cow::Borrowed(if empty { "{}" } else { &*call.arguments });
                let function = Call { name: &call.name, arguments };
                calls.push(ToolCall { id: &call.id, kind: "function", function });
            }
            Said::Opaque { .. } => {
                let place = place::of(writing.request, message, part);
                writing.drop(Param::Other(place.into()));
            }
            other => return Err(not_taken(other, place::of(writing.request, message, part))),
        }
    }
    // What is said before a call is a plan, in Cohere's words.
    let mut plan = None;
    if !calls.is_empty() {
        let mut text = String::new();
        pieces.retain(|piece| match piece {
            Piece::Text { text: said } => {
                text.push_str(said);
                false
            }
            _ => true,
        });
        plan = (!text.is_empty()).then_some(text);
    }
    if pieces.is_empty() && calls.is_empty() {
        return Ok(None);
    }
    let content = (!pieces.is_empty()).then(|| Content::of(pieces));
    Ok(Some(fields::Message::Assistant { content, tool_plan: plan, tool_calls: calls }))
}
