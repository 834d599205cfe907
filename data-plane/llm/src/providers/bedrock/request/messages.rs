//! The conversation. Converse wants user and assistant by turns, results of tools before all else in a turn, and
//! instructions in a place of their own. Part of [`super::encode`].

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use super::{Family, NAME, Writing, tools};
use crate::{
    codec::CodecError,
    ir::{
        CacheMark, Content, Document, Media, Message, Param, Part, Role, Source, Thinking, ToolCall,
        ToolResult,
    },
    providers::{
        bedrock::fields::{self, Block, CachePoint, Citations, Input, Reasoning, System, ToolUse},
        place,
    },
};

/// Longest name of a document.
const MAX_DOCUMENT_NAME: usize = 200;
/// Longest id of a call.
const MAX_CALL_ID: usize = 64;

#[derive(Default)]
pub(super) struct Conversation<'r> {
    pub system: Vec<System<'r>>,
    pub messages: Vec<fields::Message<'r>>,
    /// Names of the documents so far: each must be another one.
    documents: HashSet<String>,
}

/// What one message becomes.
#[derive(Default)]
struct Blocks<'r> {
    results: Vec<Block<'r>>,
    others: Vec<Block<'r>>,
}

impl Blocks<'_> {
    /// What Claude is to go on with may not end with white space.
    fn trim_end(&mut self) {
        let last = self.others.iter_mut().rfind(|block| !matches!(block, Block::CachePoint(_)));
        if let Some(Block::Text(text)) = last {
            *text = text.trim_end();
        }
    }
}

pub(super) fn write<'r>(
    writing: &mut Writing<'_, 'r>,
    instruction: Option<&'static str>,
) -> Result<Conversation<'r>, CodecError> {
    let request = writing.request;
    let mut conversation = Conversation::default();
    let mut turn: Option<(&'static str, Blocks<'r>)> = None;
    for message in &request.messages {
        let role = match message.role {
            Role::System | Role::Developer => {
                system(writing, message, &mut conversation.system)?;
                continue;
            }
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        // A run of messages of one role is one turn.
        let (_, blocks) = match &mut turn {
            Some(open) if open.0 == role => open,
            closed => {
                conversation.close(closed.take());
                closed.insert((role, Blocks::default()))
            }
        };
        for part in &message.parts {
            write_part(writing, message, part, &mut conversation.documents, blocks)?;
        }
    }
    if writing.family == Family::Anthropic
        && let Some(("assistant", blocks)) = &mut turn
    {
        blocks.trim_end();
    }
    conversation.close(turn);
    conversation.system.extend(instruction.map(System::Text));
    Ok(conversation)
}

impl<'r> Conversation<'r> {
    fn close(&mut self, turn: Option<(&'static str, Blocks<'r>)>) {
        if let Some((role, mut blocks)) = turn {
            blocks.results.append(&mut blocks.others);
            if !blocks.results.is_empty() {
                self.messages.push(fields::Message { role, content: blocks.results });
            }
        }
    }
}

fn system<'r>(
    writing: &mut Writing<'_, 'r>,
    message: &'r Message<'_>,
    out: &mut Vec<System<'r>>,
) -> Result<(), CodecError> {
    for part in &message.parts {
        let Content::Text { text, .. } = &part.content else {
            return Err(CodecError::unsupported(
                place::of(writing.request, message, part),
                format!("{NAME} takes only text as instructions."),
            ));
        };
        if !text.trim().is_empty() {
            out.push(System::Text(text));
        }
        if let Some(point) = cache_point(writing, part) {
            out.push(System::CachePoint(point));
        }
    }
    Ok(())
}

fn cache_point(writing: &mut Writing<'_, '_>, part: &Part<'_>) -> Option<CachePoint> {
    let mark = part.cache?;
    if writing.family.caches() {
        return Some(CachePoint::new(mark == CacheMark::Hour));
    }
    writing.drop(Param::CacheControl);
    None
}

fn write_part<'r>(
    writing: &mut Writing<'_, 'r>,
    message: &'r Message<'_>,
    part: &'r Part<'_>,
    documents: &mut HashSet<String>,
    out: &mut Blocks<'r>,
) -> Result<(), CodecError> {
    let at = || place::of(writing.request, message, part);
    let block = match &part.content {
        Content::ToolResult(result) => {
            let result = tool_result(writing, (message, part), result, documents)?;
            out.results.push(Block::ToolResult(result));
            out.results.extend(cache_point(writing, part).map(Block::CachePoint));
            return Ok(());
        }
        Content::ToolCall(call) => Some(Block::ToolUse(tool_use(call, &at)?)),
        Content::Thinking(thinking) => think(writing, thinking).map(Block::ReasoningContent),
        // The model's own tools of another provider: they have happened, and what they said is in the text.
        Content::Opaque { .. } if message.role == Role::Assistant => {
            writing.drop(Param::Other(at().into()));
            None
        }
        _ => content(writing, (message, part), part, documents)?,
    };
    let any = block.is_some();
    out.others.extend(block);
    // A mark marks what is before it, which there must be.
    if any || !out.others.is_empty() {
        out.others.extend(cache_point(writing, part).map(Block::CachePoint));
    }
    Ok(())
}

/// What may stand in a message as well as in the result of a tool, which `outer` is then. Nothing: it was blank, which
/// Bedrock refuses.
fn content<'r>(
    writing: &mut Writing<'_, 'r>,
    (message, outer): (&'r Message<'_>, &'r Part<'_>),
    part: &'r Part<'_>,
    documents: &mut HashSet<String>,
) -> Result<Option<Block<'r>>, CodecError> {
    let at = || place::within(writing.request, message, outer, part);
    Ok(Some(match &part.content {
        Content::Text { text, citations } => {
            if !citations.is_empty() {
                writing.drop(Param::Citations);
            }
            if text.trim().is_empty() {
                return Ok(None);
            }
            Block::Text(text)
        }
        Content::Refusal(text) if text.trim().is_empty() => return Ok(None),
        Content::Refusal(text) => Block::Text(text),
        Content::Image(image) => {
            let block = Block::Image(media(image, image_format, "an image (PNG, JPEG, GIF or WebP)", &at)?);
            if image.detail.as_deref().is_some_and(|detail| detail != "auto") {
                writing.drop(Param::ImageDetail);
            }
            block
        }
        Content::Audio(audio) => Block::Audio(media(
            audio,
            audio_format,
            "a recording (WAV, MP3, Ogg, FLAC, AAC, M4A or WebM)",
            &at,
        )?),
        Content::Video(video) => Block::Video(media(
            video,
            video_format,
            "a film (MP4, MOV, MKV, WebM, FLV, MPEG, WMV or 3GP)",
            &at,
        )?),
        Content::Document(document) => Block::Document(write_document(document, documents, &at)?),
        Content::Opaque { dialect, .. } => {
            return Err(CodecError::unsupported(
                at(),
                format!("{NAME} has nothing like this part of `{}`.", dialect.name()),
            ));
        }
        Content::ToolCall(_) | Content::ToolResult(_) | Content::Thinking(_) => {
            return Err(CodecError::invalid(at(), "A tool's result holds text, images and documents."));
        }
    }))
}

fn tool_use<'r>(call: &'r ToolCall<'_>, at: &dyn Fn() -> String) -> Result<ToolUse<'r>, CodecError> {
    if !tools::is_name(&call.name) {
        return Err(CodecError::unsupported(
            at(),
            format!("{NAME} takes names of 1 to 64 letters, digits, `_` and `-`, and not `{}`.", call.name),
        ));
    }
    let text = call.arguments.trim();
    let input = match serde_json::from_str::<&RawValue>(text) {
        Ok(object) if text.starts_with('{') && !call.custom => Input::Object(object),
        _ if text.is_empty() => Input::Empty {},
        _ => Input::Wrapped { input: &call.arguments },
    };
    Ok(ToolUse { tool_use_id: call_id(&call.id), name: &call.name, input })
}

fn tool_result<'r>(
    writing: &mut Writing<'_, 'r>,
    (message, outer): (&'r Message<'_>, &'r Part<'_>),
    result: &'r ToolResult<'_>,
    documents: &mut HashSet<String>,
) -> Result<fields::ToolResult<'r>, CodecError> {
    let mut blocks = Vec::with_capacity(result.content.len());
    for part in &result.content {
        if part.cache.is_some() {
            writing.drop(Param::CacheControl);
        }
        match content(writing, (message, outer), part, documents)? {
            Some(Block::Audio(_)) => {
                return Err(CodecError::unsupported(
                    place::within(writing.request, message, outer, part),
                    format!("{NAME} takes no recordings as the result of a tool."),
                ));
            }
            block => blocks.extend(block),
        }
    }
    let status = result.is_error.then_some("error");
    Ok(fields::ToolResult { tool_use_id: call_id(&result.call_id), content: blocks, status })
}

/// An id that Bedrock takes: the client's own where it can be, the same for a call and its result in any case.
fn call_id(id: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    if (1..=MAX_CALL_ID).contains(&id.len()) && id.bytes().all(allowed) {
        return Cow::Borrowed(id);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Cow::Owned(format!("call_{hex}"))
}

/// Only thoughts that their provider can check: others are refused.
fn think<'r>(writing: &mut Writing<'_, 'r>, thinking: &'r Thinking<'_>) -> Option<Reasoning<'r>> {
    let signature = thinking.signature.as_deref().filter(|it| !it.is_empty());
    let encrypted = thinking.encrypted.as_deref().filter(|it| !it.is_empty());
    // What OpenAI encrypts comes with an id.
    match (signature, encrypted) {
        _ if !writing.family.reads_thoughts() => {}
        (Some(signature), _) => return Some(Reasoning::ReasoningText { text: &thinking.text, signature }),
        (None, Some(data)) if thinking.id.is_none() && crate::providers::data_url::is_base64(data) => {
            return Some(Reasoning::RedactedContent(data));
        }
        _ => {}
    }
    writing.drop(Param::Thinking);
    None
}

fn media<'r>(
    media: &'r Media<'_>,
    format: fn(&str) -> Option<&'static str>,
    expected: &str,
    at: &dyn Fn() -> String,
) -> Result<fields::Media<'r>, CodecError> {
    let (source, name) = source(&media.source, at)?;
    match format(name) {
        Some(format) if !matches!(source, fields::Source::Text(_)) => Ok(fields::Media { format, source }),
        _ => Err(CodecError::unsupported(at(), format!("{NAME} can't read `{name}`. Expected {expected}."))),
    }
}

/// The source, and what tells its format: a media type or a file's name.
fn source<'r>(
    source: &'r Source<'_>,
    at: &dyn Fn() -> String,
) -> Result<(fields::Source<'r>, &'r str), CodecError> {
    match source {
        Source::Base64 { media_type, data } => Ok((fields::Source::Bytes(data), media_type)),
        Source::Text(text) => Ok((fields::Source::Text(text), "text/plain")),
        Source::Url(uri) | Source::File(uri) if uri.starts_with("s3://") => {
            let ending = uri.rsplit_once('.').map_or("", |(_, ending)| ending);
            Ok((fields::Source::S3Location { uri }, ending))
        }
        Source::Url(_) => Err(CodecError::unsupported(
            at(),
            format!(
                "{NAME} fetches nothing from the web, and the gateway only where the organization allows it. Expected base64, or an `s3://` URI."
            ),
        )),
        Source::File(_) => Err(CodecError::unsupported(
            at(),
            format!("{NAME} has no files of another provider. Expected base64, or an `s3://` URI."),
        )),
    }
}

fn write_document<'r>(
    document: &'r Document<'_>,
    taken: &mut HashSet<String>,
    at: &dyn Fn() -> String,
) -> Result<fields::Document<'r>, CodecError> {
    let (source, media_type) = source(&document.source, at)?;
    let Some(format) = document_format(media_type) else {
        return Err(CodecError::unsupported(
            at(),
            format!(
                "{NAME} can't read `{media_type}`. Expected a document (PDF, CSV, Word, Excel, HTML, Markdown or text)."
            ),
        ));
    };
    let name = document_name(document.name.as_deref().unwrap_or_default(), taken);
    Ok(fields::Document {
        format,
        name,
        source,
        context: document.context.as_deref(),
        citations: document.citations.then_some(Citations { enabled: true }),
    })
}

/// A name of letters, digits, single spaces, `-`, `()` and `[]`, that no other document has.
fn document_name(name: &str, taken: &mut HashSet<String>) -> String {
    let mut clean = String::new();
    for character in name.chars() {
        match character {
            ' ' if clean.is_empty() || clean.ends_with(' ') => {}
            ' ' | '-' | '(' | ')' | '[' | ']' => clean.push(character),
            _ if character.is_ascii_alphanumeric() => clean.push(character),
            _ => clean.push('-'),
        }
        if clean.len() == MAX_DOCUMENT_NAME - 8 {
            break;
        }
    }
    let mut clean = clean.trim_end().to_owned();
    if clean.is_empty() {
        clean.push_str("Document");
    }
    if taken.contains(&clean) {
        clean.push_str(&format!(" {}", taken.len() + 1));
    }
    taken.insert(clean.clone());
    clean
}

fn image_format(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "image/png" | "png" => "png",
        "image/jpeg" | "image/jpg" | "jpeg" | "jpg" => "jpeg",
        "image/gif" | "gif" => "gif",
        "image/webp" | "webp" => "webp",
        _ => return None,
    })
}

fn audio_format(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "audio/wav" | "audio/x-wav" | "audio/wave" | "wav" => "wav",
        "audio/mpeg" | "audio/mp3" | "mp3" => "mp3",
        "audio/ogg" | "ogg" => "ogg",
        "audio/opus" | "opus" => "opus",
        "audio/flac" | "audio/x-flac" | "flac" => "flac",
        "audio/aac" | "aac" => "aac",
        "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "m4a" => "m4a",
        "audio/webm" | "webm" => "webm",
        "audio/pcm" | "audio/pcm16" | "audio/l16" | "pcm" => "pcm",
        _ => return None,
    })
}

fn video_format(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "video/mp4" | "mp4" => "mp4",
        "video/quicktime" | "video/mov" | "mov" => "mov",
        "video/x-matroska" | "mkv" => "mkv",
        "video/webm" | "webm" => "webm",
        "video/x-flv" | "flv" => "flv",
        "video/mpeg" | "mpeg" => "mpeg",
        "video/mpg" | "mpg" => "mpg",
        "video/x-ms-wmv" | "video/wmv" | "wmv" => "wmv",
        "video/3gpp" | "3gp" => "three_gp",
        _ => return None,
    })
}

fn document_format(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "application/pdf" | "pdf" => "pdf",
        "text/csv" | "csv" => "csv",
        "application/msword" | "doc" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" | "docx" => "docx",
        "application/vnd.ms-excel" | "xls" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" | "xlsx" => "xlsx",
        "text/html" | "html" => "html",
        "text/plain" | "txt" => "txt",
        "text/markdown" | "md" => "md",
        _ => return None,
    })
}
