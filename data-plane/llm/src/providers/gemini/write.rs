//! What Google's JSON looks like when it is written: contents and parts, of requests for an upstream and of answers for a
//! client.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{signature, wire};
use crate::ir::{Json, Media, Source, ToolCall};

#[derive(Debug, Serialize)]
pub(super) struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    pub parts: Vec<Part<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every part is the large one: a box would be one more allocation each"
)]
pub(super) enum Part<'a> {
    Known(Known<'a>),
    /// As this dialect's own client or model wrote it.
    Own(Json<'a>),
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Known<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_false")]
    pub thought: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline_data: Option<Blob<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_data: Option<FileData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_response: Option<FunctionResponse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thought_signature: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blob<'a> {
    pub mime_type: &'a str,
    pub data: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<&'static str>,
    pub file_uri: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
pub(super) struct FunctionCall<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: &'a str,
    pub name: &'a str,
    pub args: Cow<'a, RawValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct FunctionResponse<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub id: &'a str,
    pub name: &'a str,
    pub response: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part<'a>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Known<'a> {
    Known { text: Some(text.into()), ..Known::default() }
}

pub(super) fn call<'a>(call: &'a ToolCall<'_>) -> Known<'a> {
    let args = arguments(&call.arguments, call.custom);
    Known { function_call: Some(FunctionCall { id: &call.id, name: &call.name, args }), ..Known::default() }
}

/// Media of an answer; `None` for what is nowhere to be had.
pub(super) fn media<'a>(media: &'a Media<'_>) -> Option<Known<'a>> {
    Some(match &media.source {
        Source::Base64 { media_type, data } => {
            Known { inline_data: Some(Blob { mime_type: media_type, data }), ..Known::default() }
        }
        Source::Url(uri) | Source::File(uri) => {
            let file = FileData { mime_type: media_type_of(uri), file_uri: Cow::Borrowed(uri) };
            Known { file_data: Some(file), ..Known::default() }
        }
        Source::Text(_) => return None,
    })
}

/// A part as it was, with the signature that stood on it.
pub(super) fn own<'a>(value: &'a RawValue, thought_signature: Option<&str>) -> Part<'a> {
    let signed = thought_signature.and_then(|signature| {
        let open = value.get().trim_end().strip_suffix('}')?;
        let wire = signature::to_wire(signature);
        RawValue::from_string(format!("{open},\"thoughtSignature\":\"{wire}\"}}")).ok()
    });
    Part::Own(signed.map_or(Cow::Borrowed(value), Cow::Owned))
}

/// Google's calls have objects. What is none is kept within one: models don't always write JSON.
pub(super) fn arguments(text: &str, custom: bool) -> Cow<'_, RawValue> {
    if !custom
        && wire::is_object(text)
        && let Ok(raw) = serde_json::from_str::<&RawValue>(text)
    {
        return Cow::Borrowed(raw);
    }
    if text.trim().is_empty() {
        return Cow::Owned(raw("{}".into()));
    }
    let name = if custom { "input" } else { "arguments" };
    Cow::Owned(object(name, text))
}

/// `{"name":"text"}`
pub(super) fn object(name: &str, text: &str) -> Box<RawValue> {
    raw(format!("{{{}:{}}}", quoted(name), quoted(text)))
}

/// As a JSON string.
pub(super) fn quoted(text: &str) -> String {
    // Serializing a string has no way to fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// JSON that was just written, and so is JSON.
pub(super) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// By the ending of a URL's path, where it tells.
pub(super) fn media_type_of(uri: &str) -> Option<&'static str> {
    let path = uri.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "md" => "text/markdown",
        "html" | "htm" => "text/html",
        "csv" => "text/csv",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "ogg" => "audio/ogg",
        "m4a" => "audio/mp4",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_whatever_the_model_wrote() {
        for (text, custom, args) in [
            (r#"{"a": 1}"#, false, r#"{"a": 1}"#),
            (" {} ", false, "{}"),
            ("", false, "{}"),
            (r#"{"a":"#, false, r#"{"arguments":"{\"a\":"}"#),
            ("[1]", false, r#"{"arguments":"[1]"}"#),
            ("ls -l", true, r#"{"input":"ls -l"}"#),
        ] {
            assert_eq!(arguments(text, custom).get(), args, "{text}");
        }
    }

    #[test]
    fn a_url_tells_the_type_by_its_ending() {
        assert_eq!(media_type_of("https://a.b/x.JPG?w=1#f"), Some("image/jpeg"));
        for uri in ["https://a.com/x", "https://a.png/", "gs://bucket/x.exe", ""] {
            assert_eq!(media_type_of(uri), None, "{uri}");
        }
    }

    #[test]
    fn an_own_part_gets_its_signature_back() {
        let value = raw(r#"{"executableCode":{}}"#.into());
        let text = |signature| serde_json::to_string(&own(&value, signature)).unwrap();
        assert_eq!(text(None), r#"{"executableCode":{}}"#);
        assert_eq!(text(Some("QUJD")), r#"{"executableCode":{},"thoughtSignature":"QUJD"}"#);
    }
}
