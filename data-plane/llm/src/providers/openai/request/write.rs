//! The messages of a request, out of the hub. Called by [`super::encode`].

use std::{borrow::Cow, fmt::Write as _};

use super::{
    super::{content::audio_format, thoughts},
    encode::Dropped,
};
use crate::{
    CodecError,
    ir::{
        CacheMark, Content, Document, Media, Message, Param, Part, Request, Role, Source, Thinking, ToolCall,
        ToolResult,
    },
    providers::{
        data_url,
        write::{self, Object},
    },
    quirks::{CallIds, ChatQuirks, Thoughts},
};

pub(super) struct Messages<'r, 'a> {
    request: &'r Request<'a>,
    quirks: &'r ChatQuirks,
    dropped: &'r mut Dropped,
    /// Pictures that tools returned: here results are text, so they follow behind the last of them as the user's.
    pictures: Vec<(&'r str, &'r Media<'a>)>,
}

/// What stands between two pieces of text that become one.
const PARAGRAPH: &str = "\n\n";

impl<'r, 'a> Messages<'r, 'a> {
    pub(super) fn new(request: &'r Request<'a>, quirks: &'r ChatQuirks, dropped: &'r mut Dropped) -> Self {
        Self { request, quirks, dropped, pictures: Vec::new() }
    }

    /// The list, behind an instruction of our own if there is one.
    pub(super) fn write(mut self, out: &mut Vec<u8>, instruction: Option<&str>) -> Result<(), CodecError> {
        out.push(b'[');
        let first = out.len();
        if let Some(instruction) = instruction {
            write::object(next(out, first), |out| {
                out.text("role", "system");
                out.text("content", instruction);
            });
        }
        for message in &self.request.messages {
            match message.role {
                Role::System | Role::Developer => self.instructions(message, out, first)?,
                Role::Assistant => self.assistant(message, out, first)?,
                Role::User => self.user(message, out, first)?,
            }
        }
        self.flush_pictures(out, first);
        out.push(b']');
        Ok(())
    }

    fn instructions(
        &mut self,
        message: &'r Message<'a>,
        out: &mut Vec<u8>,
        first: usize,
    ) -> Result<(), CodecError> {
        self.flush_pictures(out, first);
        let developer = message.role == Role::Developer && self.quirks.developer;
        let mut object = Object::open(next(out, first));
        object.text("role", if developer { "developer" } else { "system" });
        self.content(message, &message.parts.iter().collect::<Vec<_>>(), true, object.member("content"))?;
        object.close();
        Ok(())
    }

    fn user(&mut self, message: &'r Message<'a>, out: &mut Vec<u8>, first: usize) -> Result<(), CodecError> {
        let mut rest = Vec::with_capacity(message.parts.len());
        for part in &message.parts {
            let Content::ToolResult(result) = &part.content else {
                rest.push(part);
                continue;
            };
            if part.cache.is_some() {
                self.dropped.note(Param::CacheControl);
            }
            self.result(message, part, result, next(out, first))?;
        }
        if rest.is_empty() && !message.parts.is_empty() {
            return Ok(());
        }
        self.flush_pictures(out, first);
        let mut object = Object::open(next(out, first));
        object.text("role", "user");
        if let Some(name) = &message.name {
            object.text("name", name);
        }
        self.content(message, &rest, false, object.member("content"))?;
        object.close();
        Ok(())
    }

    fn result(
        &mut self,
        message: &Message<'_>,
        part: &Part<'_>,
        result: &'r ToolResult<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let mut text = String::new();
        for inner in &result.content {
            match &inner.content {
                Content::Text { text: piece, .. } => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(piece);
                }
                Content::Image(image) if check_image(image).is_ok() => {
                    self.pictures.push((&result.call_id, image))
                }
                Content::Document(Document { source: Source::Text(piece), .. }) => text.push_str(piece),
                _ => {
                    let place = self.request.dialect.place(message.at, Some(part.at));
                    let message = "Results of tools can only be text and images with this model's provider.";
                    return Err(CodecError::unsupported(place, message));
                }
            }
        }
        if result.is_error {
            self.dropped.note(Param::Other("is_error".into()));
        }
        write::object(out, |out| {
            out.text("role", "tool");
            out.text("tool_call_id", &self.call_id(&result.call_id, result.name.as_deref()));
            out.text("content", &text);
        });
        Ok(())
    }

    fn flush_pictures(&mut self, out: &mut Vec<u8>, first: usize) {
        let pictures = std::mem::take(&mut self.pictures);
        if pictures.is_empty() {
            return;
        }
        write::object(next(out, first), |object| {
            object.text("role", "user");
            let list = object.member("content");
            list.push(b'[');
            let start = list.len();
            for (call, image) in pictures {
                let mut note = String::from("An image that the call ");
                let _ = write!(note, "{call} returned:");
                text_part(next(list, start), &note, None);
                image_part(next(list, start), image);
            }
            list.push(b']');
        });
    }

    fn assistant(
        &mut self,
        message: &'r Message<'a>,
        out: &mut Vec<u8>,
        first: usize,
    ) -> Result<(), CodecError> {
        self.flush_pictures(out, first);
        let (mut content, mut calls, mut thought, mut refusal) = (Vec::new(), Vec::new(), Vec::new(), None);
        for part in &message.parts {
            match &part.content {
                Content::ToolCall(call) => calls.push(call),
                Content::Thinking(thinking) => thought.push(thinking),
                Content::Refusal(text) => refusal = Some(text),
                _ => content.push(part),
            }
        }
        let mut object = Object::open(next(out, first));
        object.text("role", "assistant");
        if let Some(name) = &message.name {
            object.text("name", name);
        }
        if !content.is_empty() {
            self.content(message, &content, true, object.member("content"))?;
        } else if calls.is_empty() && refusal.is_none() {
            object.text("content", "");
        } else {
            object.raw("content", "null");
        }
        if let Some(refusal) = refusal {
            object.text("refusal", refusal);
        }
        self.thoughts(&thought, &mut object);
        if !calls.is_empty() {
            object.array("tool_calls", calls, |out, call| self.call(out, call));
        }
        object.close();
        Ok(())
    }

    fn thoughts(&mut self, thoughts: &[&Thinking<'_>], out: &mut Object<'_>) {
        if thoughts.is_empty() {
            return;
        }
        match self.quirks.thoughts {
            Thoughts::Dropped => self.dropped.note(Param::Thinking),
            Thoughts::Details => thoughts::write_details(out, thoughts.iter().copied()),
            Thoughts::Text => {
                let text: String = thoughts.iter().map(|thought| &*thought.text).collect();
                if text.is_empty() {
                    self.dropped.note(Param::Thinking);
                } else {
                    out.text("reasoning_content", &text);
                }
            }
        }
    }

    fn call(&self, out: &mut Vec<u8>, call: &ToolCall<'_>) {
        write::object(out, |out| {
            out.text("id", &self.call_id(&call.id, Some(&call.name)));
            let (kind, payload) = if call.custom { ("custom", "input") } else { ("function", "arguments") };
            out.text("type", kind);
            out.object(kind, |out| {
                out.text("name", &call.name);
                // Some services parse it, and fail on nothing.
                let nothing = call.arguments.is_empty() && !call.custom;
                out.text(payload, if nothing { "{}" } else { &call.arguments });
            });
        });
    }

    /// An id that the target takes: the same for a call and for its result.
    fn call_id<'i>(&self, id: &'i str, name: Option<&str>) -> Cow<'i, str> {
        let id = match (id, name) {
            ("", Some(name)) => Cow::Owned(format!("call_{name}")),
            (id, _) => Cow::Borrowed(id),
        };
        match self.quirks.call_ids {
            CallIds::Any if id.len() <= 40 => id,
            CallIds::Any => Cow::Owned(format!("call_{:016x}", hash(&id))),
            CallIds::Nine if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) => id,
            CallIds::Nine => Cow::Owned(nine(hash(&id))),
        }
    }

    /// Text alone, where that is all there is: what every service understands. `joined`: several texts become one.
    fn content(
        &mut self,
        message: &Message<'_>,
        parts: &[&'r Part<'a>],
        joined: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let marked = parts.iter().any(|part| part.cache.is_some());
        if marked && !self.quirks.cache_marks {
            self.dropped.note(Param::CacheControl);
        }
        let marked = marked && self.quirks.cache_marks;
        let texts = parts.iter().filter_map(|part| match &part.content {
            Content::Text { text, .. } => Some(&**text),
            _ => None,
        });
        let all_text = texts.clone().count() == parts.len();
        if all_text && !marked && (joined || parts.len() <= 1) {
            let separator = if message.role == Role::Assistant { "" } else { PARAGRAPH };
            let texts: Vec<_> = texts.collect();
            match texts[..] {
                [text] => write::text(out, text),
                _ => write::text(out, &texts.join(separator)),
            }
            return Ok(());
        }
        out.push(b'[');
        let first = out.len();
        for part in parts {
            self.part(message, part, next(out, first))?;
        }
        out.push(b']');
        Ok(())
    }

    fn part(&mut self, message: &Message<'_>, part: &Part<'_>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let refuse = |what: &str| {
            let place = self.request.dialect.place(message.at, Some(part.at));
            Err(CodecError::unsupported(place, format!("The model's provider does not take {what}.")))
        };
        match &part.content {
            Content::Text { text, .. } => {
                text_part(out, text, part.cache.filter(|_| self.quirks.cache_marks));
            }
            Content::Refusal(text) => write::object(out, |out| {
                out.text("type", "refusal");
                out.text("refusal", text);
            }),
            Content::Image(image) => {
                if let Err(what) = check_image(image) {
                    return refuse(what);
                }
                image_part(out, image);
            }
            Content::Audio(Media { source: Source::Base64 { media_type, data }, .. }) => {
                let Some(format) = audio_format(media_type) else {
                    return refuse("recordings of this media type");
                };
                write::object(out, |out| {
                    out.text("type", "input_audio");
                    out.object("input_audio", |out| {
                        out.text("data", data);
                        out.text("format", format);
                    });
                });
            }
            Content::Audio(_) => return refuse("recordings by URL or as files"),
            Content::Video(_) => return refuse("video"),
            Content::Document(document) => {
                if document.citations {
                    self.dropped.note(Param::Citations);
                }
                if !self.document(document, out) {
                    return refuse("documents by URL, or files that another provider keeps");
                }
            }
            Content::Opaque { .. } => return refuse("parts of this type"),
            Content::ToolCall(_) | Content::ToolResult(_) | Content::Thinking(_) => {
                return refuse("such parts in a message of this role");
            }
        }
        Ok(())
    }

    /// False when the target can't read it.
    fn document(&self, document: &Document<'_>, out: &mut Vec<u8>) -> bool {
        use crate::Dialect::{Chat, Completions, Responses};
        let name = document.name.as_deref();
        match &document.source {
            Source::Text(text) => {
                let heading = name.map(|name| format!("{name}:\n\n{text}"));
                text_part(out, heading.as_deref().unwrap_or(text), None);
            }
            Source::Base64 { media_type, data } => write::object(out, |out| {
                out.text("type", "file");
                out.object("file", |out| {
                    out.text("filename", name.unwrap_or("document.pdf"));
                    data_url::push(out.member("file_data"), media_type, data);
                });
            }),
            // Ids of OpenAI's files, between two of its own dialects.
            Source::File(id) if matches!(self.request.dialect, Chat | Completions | Responses) => {
                write::object(out, |out| {
                    out.text("type", "file");
                    out.object("file", |out| out.text("file_id", id));
                });
            }
            Source::File(_) | Source::Url(_) => return false,
        }
        true
    }
}

fn text_part(out: &mut Vec<u8>, text: &str, cache: Option<CacheMark>) {
    write::object(out, |out| {
        out.text("type", "text");
        out.text("text", text);
        match cache {
            None => {}
            Some(CacheMark::Default) => out.raw("cache_control", r#"{"type":"ephemeral"}"#),
            Some(CacheMark::Hour) => out.raw("cache_control", r#"{"type":"ephemeral","ttl":"1h"}"#),
        }
    });
}

/// # Errors
/// What it is that can't be sent.
fn check_image(image: &Media<'_>) -> Result<(), &'static str> {
    match &image.source {
        Source::Url(url) if url.starts_with("gs:") => Err("images in Google's storage"),
        Source::Url(_) | Source::Base64 { .. } => Ok(()),
        Source::File(_) | Source::Text(_) => Err("images that another provider keeps"),
    }
}

/// Of an image that was found to be good.
fn image_part(out: &mut Vec<u8>, image: &Media<'_>) {
    write::object(out, |out| {
        out.text("type", "image_url");
        out.object("image_url", |out| {
            match &image.source {
                Source::Base64 { media_type, data } => data_url::push(out.member("url"), media_type, data),
                Source::Url(text) | Source::File(text) | Source::Text(text) => out.text("url", text),
            }
            if let Some(detail) = &image.detail {
                out.text("detail", detail);
            }
        });
    });
}

/// Where the next element of the list goes whose first is, or would be, at `first`.
fn next(out: &mut Vec<u8>, first: usize) -> &mut Vec<u8> {
    if out.len() > first {
        out.push(b',');
    }
    out
}

/// FNV-1a: ids have to be the same on every node and in every version.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn nine(mut number: u64) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let letters = std::iter::from_fn(|| {
        let letter = LETTERS.get(usize::try_from(number % 62).unwrap_or(0)).copied();
        number /= 62;
        letter.map(char::from)
    });
    letters.take(9).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_ids_are_nine_letters_and_differ() {
        let ids: std::collections::HashSet<_> =
            (0..1000).map(|n| nine(hash(&format!("toolu_{n}")))).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }
}
