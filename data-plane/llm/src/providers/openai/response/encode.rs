//! An answer for a client that asked in this dialect.

use std::{borrow::Cow, fmt::Write as _};

use super::super::{thoughts, usage};
use crate::{
    Echo, FinishReason,
    ir::{Choice, Citation, Content, Finish, Media, Part, Response, Source},
    providers::{
        data_url, tool_id,
        write::{self, Object},
    },
};

pub fn encode(response: &Response<'_>, echo: &Echo) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    let mut out = Object::open(&mut body);
    head(&mut out, "chat.completion", &response.id, &response.model, response.created, echo);
    out.array("choices", &response.choices, |out, choice| self::choice(out, choice, echo));
    if let Some(counts) = &response.usage {
        usage::write(out.member("usage"), counts);
    }
    if let Some(tier) = response.service_tier.openai() {
        out.text("service_tier", tier);
    }
    if let Some(fingerprint) = &response.system_fingerprint {
        out.text("system_fingerprint", fingerprint);
    }
    out.close();
    body
}

/// `id`, `object`, `created`, `model`: the upstream's own, as far as it has them.
pub(in super::super) fn head(
    out: &mut Object<'_>,
    object: &str,
    id: &str,
    model: &str,
    created: Option<u64>,
    echo: &Echo,
) {
    if id.is_empty() {
        let prefix = if object == "text_completion" { "cmpl-" } else { "chatcmpl-" };
        out.text("id", &format!("{prefix}{}", echo.id));
    } else {
        out.text("id", id);
    }
    out.text("object", object);
    out.value("created", created.unwrap_or(echo.created));
    out.text("model", if model.is_empty() { &echo.model } else { model });
}

fn choice(out: &mut Vec<u8>, choice: &Choice<'_>, echo: &Echo) {
    write::object(out, |out| {
        out.value("index", choice.index);
        out.object("message", |out| message(out, choice, echo));
        match &choice.logprobs {
            Some(logprobs) => out.raw("logprobs", logprobs.get()),
            None => out.raw("logprobs", "null"),
        }
        out.text("finish_reason", reason(choice.finish.as_ref()).as_str());
    });
}

/// Clients want a reason of every choice; an upstream that gives none has stopped.
pub(in super::super) fn reason(finish: Option<&Finish<'_>>) -> FinishReason {
    finish.map_or(FinishReason::Stop, Finish::reason)
}

fn message(out: &mut Object<'_>, choice: &Choice<'_>, echo: &Echo) {
    let parts = || choice.parts.iter().map(|part| &part.content);
    out.text("role", "assistant");
    let mut texts = parts().filter_map(|content| match content {
        Content::Text { text, .. } => Some(text),
        _ => None,
    });
    let calls = choice.parts.iter().filter(|part| matches!(part.content, Content::ToolCall(_)));
    let refusals: String = parts()
        .filter_map(|content| match content {
            Content::Refusal(text) => Some(&**text),
            _ => None,
        })
        .collect();
    match (texts.next(), texts.next()) {
        (Some(text), None) => out.text("content", text),
        (Some(first), Some(second)) => {
            let mut all = format!("{first}{second}");
            texts.for_each(|text| all.push_str(text));
            out.text("content", &all);
        }
        (None, _) if calls.clone().next().is_some() || !refusals.is_empty() => out.raw("content", "null"),
        (None, _) => out.text("content", ""),
    }
    if refusals.is_empty() {
        out.raw("refusal", "null");
    } else {
        out.text("refusal", &refusals);
    }
    thoughts::write(
        out,
        parts().filter_map(|content| match content {
            Content::Thinking(thinking) => Some(thinking),
            _ => None,
        }),
    );
    if calls.clone().next().is_some() {
        out.array("tool_calls", calls.enumerate(), |out, (index, part)| {
            call(out, choice.index, index, part, echo)
        });
    }
    annotations(out, choice);
    let images = || {
        parts().filter_map(|content| match content {
            Content::Image(image) => Some(image).filter(|image| is_shown(image)),
            _ => None,
        })
    };
    if images().next().is_some() {
        out.array("images", images().enumerate(), |out, (index, image)| self::image(out, index, image));
    }
    spoken(out, choice, echo);
}

fn call(out: &mut Vec<u8>, choice: u32, index: usize, part: &Part<'_>, echo: &Echo) {
    let Content::ToolCall(call) = &part.content else { return };
    write::object(out, |out| {
        out.text("id", &call_id(&call.id, part.signature.as_deref(), choice, index, echo));
        let (kind, payload) = if call.custom { ("custom", "input") } else { ("function", "arguments") };
        out.text("type", kind);
        out.object(kind, |out| {
            out.text("name", &call.name);
            out.text(payload, &call.arguments);
        });
        if let Some(signature) = &part.signature {
            extra_content(out, signature);
        }
    });
}

/// Where Google's compatibility layer puts its signature.
pub(in super::super) fn extra_content(out: &mut Object<'_>, signature: &str) {
    out.object("extra_content", |out| {
        out.object("google", |out| out.text("thought_signature", signature));
    });
}

/// The id of a call, made up where the upstream has none, with its signature for clients that drop what they don't know.
pub(in super::super) fn call_id<'i>(
    id: &'i str,
    signature: Option<&str>,
    choice: u32,
    index: usize,
    echo: &Echo,
) -> Cow<'i, str> {
    let id = if id.is_empty() {
        let mut made = format!("call_{index}_{}", echo.id);
        if choice > 0 {
            let _ = write!(made, "_{choice}");
        }
        Cow::Owned(made)
    } else {
        Cow::Borrowed(id)
    };
    match signature {
        Some(signature) => Cow::Owned(tool_id::with_signature(&id, signature)),
        None => id,
    }
}

/// Only what has a URL: the rest means something to its own dialect alone.
fn annotations(out: &mut Object<'_>, choice: &Choice<'_>) {
    let mut found = Vec::new();
    let mut written = 0_u32;
    for part in &choice.parts {
        let Content::Text { text, citations } = &part.content else { continue };
        let start = written;
        written = written.saturating_add(length(text));
        found.extend(
            citations
                .iter()
                .filter(|citation| citation.url.is_some())
                .map(|citation| (citation, (start, written))),
        );
    }
    if !found.is_empty() {
        out.array("annotations", found, |out, (citation, around)| annotation(out, citation, around));
    }
}

/// In characters.
pub(in super::super) fn length(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// `around`: the piece of text that it stands on, for a citation that doesn't say where it belongs.
pub(in super::super) fn annotation(out: &mut Vec<u8>, citation: &Citation<'_>, around: (u32, u32)) {
    let (start, end) = citation.span.unwrap_or(around);
    write::object(out, |out| {
        out.text("type", "url_citation");
        out.object("url_citation", |out| {
            let url = citation.url.as_deref().unwrap_or_default();
            out.text("url", url);
            out.text("title", citation.title.as_deref().unwrap_or(url));
            out.value("start_index", start);
            out.value("end_index", end);
            if let Some(quote) = &citation.quote {
                out.text("content", quote);
            }
        });
    });
}

/// Whether it can be shown to a client: not what the provider keeps.
pub(in super::super) fn is_shown(image: &Media<'_>) -> bool {
    matches!(image.source, Source::Base64 { .. } | Source::Url(_))
}

/// As OpenRouter has it.
pub(in super::super) fn image(out: &mut Vec<u8>, index: usize, image: &Media<'_>) {
    write::object(out, |out| {
        out.text("type", "image_url");
        out.object("image_url", |out| match &image.source {
            Source::Base64 { media_type, data } => data_url::push(out.member("url"), media_type, data),
            Source::Url(text) | Source::File(text) | Source::Text(text) => out.text("url", text),
        });
        out.value("index", index);
    });
}

/// A recording that the model made.
fn spoken(out: &mut Object<'_>, choice: &Choice<'_>, echo: &Echo) {
    let recording = choice.parts.iter().find_map(|part| match &part.content {
        Content::Audio(Media { source: Source::Base64 { data, .. }, .. }) => Some(data),
        _ => None,
    });
    if let Some(data) = recording {
        out.object("audio", |out| {
            out.text("id", &format!("audio_{}", echo.id));
            out.text("data", data);
            // It can't be referred to later: nobody keeps it.
            out.value("expires_at", echo.created);
            out.text("transcript", "");
        });
    }
}
