//! The items of an answer as clients get them, whole or in the events of a stream. A *literal* is a JSON string with its
//! quotes, written already.

use crate::{
    Dialect,
    ir::{Citation, Json},
    providers::write::{self, Object},
};

/// What goes into a message: its text, or words of refusal.
pub(super) enum Words<'w> {
    /// `annotations` and `logprobs`: the elements of their arrays.
    Text {
        literal: &'w [u8],
        annotations: &'w [u8],
        logprobs: &'w [u8],
    },
    Refusal {
        literal: &'w [u8],
    },
}

impl Words<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write::object(out, |part| match self {
            Self::Text { literal, annotations, logprobs } => {
                part.text("type", "output_text");
                part.member("text").extend_from_slice(literal);
                elements(part, "annotations", annotations);
                elements(part, "logprobs", logprobs);
            }
            Self::Refusal { literal } => {
                part.text("type", "refusal");
                part.member("refusal").extend_from_slice(literal);
            }
        });
    }
}

/// An array whose elements are written already.
pub(super) fn elements(object: &mut Object<'_>, name: &str, elements: &[u8]) {
    let out = object.member(name);
    out.push(b'[');
    out.extend_from_slice(elements);
    out.push(b']');
}

/// `parts`: the elements of `content`.
pub(super) fn message(out: &mut Vec<u8>, id: &str, status: &str, parts: &[u8]) {
    write::object(out, |item| {
        item.text("id", id);
        item.text("type", "message");
        item.text("status", status);
        item.text("role", "assistant");
        elements(item, "content", parts);
    });
}

/// `summary`: the literal of its text.
pub(super) fn reasoning(out: &mut Vec<u8>, id: &str, summary: Option<&[u8]>, encrypted: Option<&str>) {
    write::object(out, |item| {
        item.text("id", id);
        item.text("type", "reasoning");
        item.array("summary", summary, summary_part);
        if let Some(encrypted) = encrypted {
            item.text("encrypted_content", encrypted);
        }
    });
}

pub(super) fn summary_part(out: &mut Vec<u8>, literal: &[u8]) {
    write::object(out, |part| {
        part.text("type", "summary_text");
        part.member("text").extend_from_slice(literal);
    });
}

/// A call of a function, or of a custom tool.
pub(super) struct Call<'c> {
    pub(super) id: &'c str,
    pub(super) call_id: &'c str,
    pub(super) name: &'c str,
    pub(super) custom: bool,
}

impl Call<'_> {
    /// `literal`: its arguments or input.
    pub(super) fn write(&self, out: &mut Vec<u8>, status: &str, literal: &[u8]) {
        let (kind, input) =
            if self.custom { ("custom_tool_call", "input") } else { ("function_call", "arguments") };
        write::object(out, |item| {
            item.text("id", self.id);
            item.text("type", kind);
            item.text("status", status);
            item.text("call_id", self.call_id);
            item.text("name", self.name);
            item.member(input).extend_from_slice(literal);
        });
    }
}

/// `data`: base64; `None`: not there yet.
pub(super) fn image(out: &mut Vec<u8>, id: &str, data: Option<&str>) {
    write::object(out, |item| {
        item.text("id", id);
        item.text("type", "image_generation_call");
        item.text("status", if data.is_some() { "completed" } else { "in_progress" });
        item.value("result", data);
    });
}

/// Writes a citation, with a comma if it is not the first. False: there is no form for it here.
pub(super) fn annotation(out: &mut Vec<u8>, citation: &Citation<'_>) -> bool {
    let own = match &citation.native {
        Some((Dialect::Responses, json)) => Some(json.get()),
        _ => None,
    };
    if own.is_none() && citation.url.is_none() {
        return false;
    }
    if !out.is_empty() {
        out.push(b',');
    }
    if let Some(own) = own {
        out.extend_from_slice(own.as_bytes());
        return true;
    }
    let (start, end) = citation.span.unwrap_or_default();
    write::object(out, |annotation| {
        annotation.text("type", "url_citation");
        annotation.value("start_index", start);
        annotation.value("end_index", end);
        annotation.text("url", citation.url.as_deref().unwrap_or_default());
        annotation.text("title", citation.title.as_deref().unwrap_or_default());
    });
    true
}

/// The elements of `logprobs`, out of the object that Chat Completions has; empty: there are none.
pub(super) fn logprobs(json: Option<&Json<'_>>) -> String {
    #[derive(serde::Deserialize)]
    struct Logprobs<'a> {
        #[serde(borrow)]
        content: Vec<&'a serde_json::value::RawValue>,
    }
    let tokens = json.and_then(|json| serde_json::from_str::<Logprobs<'_>>(json.get()).ok());
    let tokens: Vec<_> = tokens.iter().flat_map(|it| &it.content).map(|token| token.get()).collect();
    tokens.join(",")
}
