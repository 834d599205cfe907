//! Content blocks, read. Called by [`super::request`] for what clients send, where a block that nobody knows is an error,
//! and by [`super::response`] for what the upstream answers, where it is kept as it is.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    citations, opaque,
    wire::{self, CacheControl, Str, TextOr},
};
use crate::{
    CodecError, Dialect,
    ir::{Content, Document, Media, Part, Source, Thinking, ToolCall, ToolResult},
    providers::{data_url, tool_id},
};

/// Where a block stands: not every block may stand everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    User,
    Assistant,
    ToolResult,
    /// Of an upstream.
    Answer,
}

/// All members that a block of any kind can have.
#[derive(Debug, Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    text: Option<Str<'a>>,
    #[serde(borrow, default)]
    citations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_control: Option<CacheControl<'a>>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    title: Option<Str<'a>>,
    #[serde(borrow, default)]
    context: Option<Str<'a>>,
    #[serde(borrow, default)]
    id: Option<Str<'a>>,
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_use_id: Option<Str<'a>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
    #[serde(borrow, default)]
    thinking: Option<Str<'a>>,
    #[serde(borrow, default)]
    signature: Option<Str<'a>>,
    #[serde(borrow, default)]
    data: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
struct WireSource<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    media_type: Option<Str<'a>>,
    #[serde(borrow, default)]
    data: Option<Str<'a>>,
    #[serde(borrow, default)]
    url: Option<Str<'a>>,
    #[serde(borrow, default)]
    file_id: Option<Str<'a>>,
    #[serde(borrow, default)]
    content: Option<TextOr<'a>>,
}

#[derive(Debug, Deserialize)]
struct Enabled {
    #[serde(default)]
    enabled: bool,
}

type Path<'p> = &'p dyn Fn() -> String;

/// Reads `content`: a text is one part.
pub(super) fn parts<'a>(
    content: TextOr<'a>,
    within: Within,
    path: Path<'_>,
) -> Result<Vec<Part<'a>>, CodecError> {
    match content {
        TextOr::Text(text) => Ok(vec![Part::text(text)]),
        TextOr::Items(items) => {
            let mut all = Vec::with_capacity(items.len());
            for (at, raw) in items.into_iter().enumerate() {
                let mut part = part(raw, within, &|| format!("{}[{at}]", path()))?;
                part.at = wire::index(at);
                all.push(part);
            }
            Ok(all)
        }
    }
}

/// Reads one block.
pub(super) fn part<'a>(raw: &'a RawValue, within: Within, path: Path<'_>) -> Result<Part<'a>, CodecError> {
    let block: Block<'a> = wire::value(raw.get(), path)?;
    let cache = block.cache_control.as_ref().map(CacheControl::mark);
    let mut signature = None;
    let answer = within == Within::Answer;
    let content = match &*block.kind.0 {
        "text" => {
            let text = required(block.text, "text", "a string", path)?;
            Content::Text { text, citations: citations_of(block.citations) }
        }
        "image" => Content::Image(Media { source: source(block.source, true, path)?, detail: None }),
        "document" if document_is_plain(block.source) => Content::Document(document(&block, path)?),
        "search_result" if !answer => search_result(block, path)?,
        "thinking" if matches!(within, Within::Assistant | Within::Answer) => {
            Content::Thinking(thinking(block.thinking, block.signature))
        }
        "redacted_thinking" if matches!(within, Within::Assistant | Within::Answer) => {
            let data = required(block.data, "data", "a string", path)?;
            Content::Thinking(encrypted(data))
        }
        "tool_use" if matches!(within, Within::Assistant | Within::Answer) => {
            let id = required(block.id, "id", "a string", path)?;
            let name = required(block.name, "name", "a string", path)?;
            let input = block.input.map_or("{}", RawValue::get);
            if !input.starts_with('{') && !answer {
                return Err(expected(&format!("{}.input", path()), "an object with the arguments"));
            }
            let (id, sign) = if answer { (id, None) } else { tool_id::split_text(id) };
            signature = sign;
            let arguments = Cow::Borrowed(input);
            Content::ToolCall(ToolCall { id, name, arguments, custom: false })
        }
        "tool_result" if within == Within::User => tool_result(block, path)?,
        // A document of parts; what the provider's own tools were called with and found; what a container got.
        kind if answer || is_opaque(kind) || kind == "document" => {
            Content::Opaque { dialect: Dialect::Messages, value: Cow::Borrowed(raw) }
        }
        kind => return Err(misplaced(kind, within, &path())),
    };
    Ok(Part { cache, signature, ..Part::new(content) })
}

/// Blocks that mean something to Anthropic alone.
fn is_opaque(kind: &str) -> bool {
    kind.ends_with("_tool_result")
        || matches!(
            kind,
            "server_tool_use"
                | "mcp_tool_use"
                | "container_upload"
                | "tool_reference"
                | "compaction"
                | "browser_state"
        )
}

fn misplaced(kind: &str, within: Within, path: &str) -> CodecError {
    let (place, expected) = match within {
        Within::User => {
            ("a message of the user", "`text`, `image`, `document`, `search_result` or `tool_result`")
        }
        Within::ToolResult => ("the result of a tool", "`text`, `image`, `document` or `search_result`"),
        _ => ("a message of the assistant", "`text`, `thinking`, `redacted_thinking` or `tool_use`"),
    };
    let path = format!("{path}.type");
    let message = format!("`{path}` is `{kind}`, which {place} can't hold: expected {expected}.");
    CodecError::invalid(path, message)
}

fn expected(path: &str, what: &str) -> CodecError {
    CodecError::invalid(path, format!("`{path}` must be {what}."))
}

fn required<'a>(
    value: Option<Str<'a>>,
    name: &str,
    what: &str,
    path: Path<'_>,
) -> Result<Cow<'a, str>, CodecError> {
    value.map(|it| it.0).ok_or_else(|| {
        let path = format!("{}.{name}", path());
        CodecError::invalid(path.clone(), format!("`{path}` is missing: expected {what}."))
    })
}

fn citations_of(raw: Option<&RawValue>) -> Vec<crate::ir::Citation<'_>> {
    // Of text they are a list; anything else says nothing about it.
    let list = raw.and_then(|raw| serde_json::from_str::<Vec<&RawValue>>(raw.get()).ok());
    list.into_iter().flatten().map(citations::decode).collect()
}

/// Thoughts, and what proves that they are the model's own.
pub(super) fn thinking<'a>(text: Option<Str<'a>>, signature: Option<Str<'a>>) -> Thinking<'a> {
    let text = text.map(|it| it.0).unwrap_or_default();
    let signature = signature.map(|it| it.0).filter(|it| !it.is_empty());
    match signature.as_ref().and_then(opaque::unpack) {
        Some((content, id)) => {
            Thinking { text, encrypted: Some(content), id: Some(id), ..Thinking::default() }
        }
        None => Thinking { text, signature, ..Thinking::default() },
    }
}

fn encrypted(data: Cow<'_, str>) -> Thinking<'_> {
    match opaque::unpack(&data) {
        Some((content, id)) => Thinking { encrypted: Some(content), id: Some(id), ..Thinking::default() },
        None => Thinking { encrypted: Some(data), ..Thinking::default() },
    }
}

fn tool_result<'a>(block: Block<'a>, path: Path<'_>) -> Result<Content<'a>, CodecError> {
    let (call_id, _) =
        tool_id::split_text(required(block.tool_use_id, "tool_use_id", "the id of a call", path)?);
    let within = &|| format!("{}.content", path());
    let content = match block.content {
        Some(raw) => parts(wire::value(raw.get(), within)?, Within::ToolResult, within)?,
        None => Vec::new(),
    };
    let is_error = block.is_error.unwrap_or(false);
    Ok(Content::ToolResult(ToolResult { call_id, name: None, content, is_error }))
}

/// A result of a search that the client made: a document with a title and an address.
fn search_result<'a>(block: Block<'a>, path: Path<'_>) -> Result<Content<'a>, CodecError> {
    let within = &|| format!("{}.content", path());
    let content = block.content.ok_or_else(|| expected(&within(), "an array of text blocks"))?;
    let text = joined(wire::value(content.get(), within)?)
        .ok_or_else(|| expected(&within(), "an array of text blocks"))?;
    let address: Option<Str<'a>> =
        block.source.map(|raw| wire::value(raw.get(), &|| format!("{}.source", path()))).transpose()?;
    Ok(Content::Document(Document {
        source: Source::Text(text),
        name: block.title.map(|it| it.0),
        context: address.map(|it| it.0),
        citations: is_enabled(block.citations),
    }))
}

fn is_enabled(citations: Option<&RawValue>) -> bool {
    citations.is_some_and(|raw| serde_json::from_str::<Enabled>(raw.get()).is_ok_and(|it| it.enabled))
}

/// Whether the hub has a place for this source: all but lists with images in them.
fn document_is_plain(source: Option<&RawValue>) -> bool {
    let wire = source.and_then(|raw| serde_json::from_str::<WireSource<'_>>(raw.get()).ok());
    match wire.and_then(|it| it.content) {
        Some(content) => joined(content).is_some(),
        None => true,
    }
}

fn document<'a>(block: &Block<'a>, path: Path<'_>) -> Result<Document<'a>, CodecError> {
    Ok(Document {
        source: source(block.source, false, path)?,
        name: block.title.clone().map(|it| it.0),
        context: block.context.clone().map(|it| it.0),
        citations: is_enabled(block.citations),
    })
}

/// The text of blocks that are all text.
fn joined(content: TextOr<'_>) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a> {
        #[serde(borrow)]
        text: Str<'a>,
    }
    match content {
        TextOr::Text(text) => Some(text),
        TextOr::Items(items) => {
            let texts = items.iter().map(|raw| serde_json::from_str::<Text<'_>>(raw.get()).ok());
            let texts: Vec<_> = texts.map(|text| Some(text?.text.0)).collect::<Option<_>>()?;
            Some(Cow::Owned(texts.join("\n\n")))
        }
    }
}

/// What an image or a document is read from.
fn source<'a>(raw: Option<&'a RawValue>, image: bool, path: Path<'_>) -> Result<Source<'a>, CodecError> {
    let within = || format!("{}.source", path());
    let raw = raw.ok_or_else(|| {
        CodecError::invalid(within(), format!("`{}` is missing: expected an object.", within()))
    })?;
    let wire: WireSource<'a> = wire::value(raw.get(), &within)?;
    let field = |name: &str| format!("{}.{name}", within());
    Ok(match (&*wire.kind.0, image) {
        ("base64", _) => {
            let media_type = required(wire.media_type, "media_type", "a string like `image/png`", &within)?;
            let data = required(wire.data, "data", "a string in base64", &within)?;
            if !data_url::is_base64(&data) {
                return Err(expected(
                    &field("data"),
                    "standard base64 with padding, without `data:` and line breaks",
                ));
            }
            Source::Base64 { media_type, data }
        }
        ("url", _) => Source::Url(required(wire.url, "url", "a string with an address", &within)?),
        ("file", _) => Source::File(required(wire.file_id, "file_id", "a string", &within)?),
        ("text", false) => Source::Text(required(wire.data, "data", "a string", &within)?),
        ("content", false) => Source::Text(
            wire.content
                .and_then(joined)
                .ok_or_else(|| expected(&field("content"), "a string or text blocks"))?,
        ),
        (_, true) => return Err(expected(&field("type"), "`base64`, `url` or `file`")),
        (_, false) => return Err(expected(&field("type"), "`base64`, `text`, `content`, `url` or `file`")),
    })
}
