//! Messages as the items of `input`.

use std::{borrow::Cow, collections::HashSet};

use super::{super::reasoning, encode::Dropped};
use crate::{
    Dialect,
    codec::CodecError,
    ir::{Content, Document, Message, Param, Part, Request, Role, Source, Thinking, ToolResult},
    providers::{
        data_url,
        write::{self, Object},
    },
};

/// Longest id of a call that OpenAI takes.
const MAX_CALL_ID: usize = 64;

/// Writes the array of items.
///
/// # Errors
/// What the target can't be given.
pub(super) fn input(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    dropped: &mut Dropped,
) -> Result<(), CodecError> {
    let start = out.len();
    out.push(b'[');
    let mut writer =
        Writer { out, start, dialect: request.dialect, dropped, custom: HashSet::new(), summary: None };
    for message in &request.messages {
        if message.name.is_some() {
            writer.dropped.add(Param::ParticipantName);
        }
        match message.role {
            Role::Assistant => writer.assistant(message)?,
            Role::User => writer.told(message, "user")?,
            Role::System => writer.told(message, "system")?,
            Role::Developer => writer.told(message, "developer")?,
        }
    }
    writer.out.push(b']');
    Ok(())
}

struct Writer<'o, 'r> {
    out: &'o mut Vec<u8>,
    /// Where the array opens.
    start: usize,
    dialect: Dialect,
    dropped: &'o mut Dropped,
    /// Ids of calls of custom tools.
    custom: HashSet<&'r str>,
    /// Thoughts that can be read, as long as it is not known whether encrypted ones follow that they sum up.
    summary: Option<&'r str>,
}

impl<'r> Writer<'_, 'r> {
    fn item(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        if self.out.len() > self.start + 1 {
            self.out.push(b',');
        }
        write::object(self.out, write);
    }

    fn unsupported(&self, message: &Message<'_>, part: &Part<'_>, what: &str) -> CodecError {
        let path = self.dialect.place(message.at, Some(part.at));
        let message = format!("`{path}` is {what}, which this model can't be given.");
        CodecError::unsupported(path, message)
    }

    /// A message to the model. Results of tools are items of their own.
    fn told(&mut self, message: &'r Message<'_>, role: &'static str) -> Result<(), CodecError> {
        let is_result = |part: &Part<'_>| matches!(part.content, Content::ToolResult(_));
        for parts in message.parts.chunk_by(|one, next| !is_result(one) && !is_result(next)) {
            if let [part @ Part { content: Content::ToolResult(result), .. }] = parts {
                self.result(message, part, result)?;
                continue;
            }
            let content = self.content(message, parts)?;
            if !content.is_empty() {
                self.item(|item| {
                    item.text("role", role);
                    item.member("content").extend_from_slice(&content);
                });
            }
        }
        Ok(())
    }

    fn result(
        &mut self,
        message: &Message<'_>,
        part: &Part<'_>,
        result: &ToolResult<'_>,
    ) -> Result<(), CodecError> {
        let mut output = self.content(message, &result.content)?;
        if output.is_empty() {
            output.extend_from_slice(b"\"\"");
        }
        if result.is_error {
            self.dropped.add(Param::Other("is_error".into()));
        }
        if part.cache.is_some() {
            self.dropped.add(Param::CacheControl);
        }
        let custom = self.custom.contains(result.call_id.as_ref());
        self.item(|item| {
            item.text("type", if custom { "custom_tool_call_output" } else { "function_call_output" });
            item.text("call_id", &call_id(&result.call_id));
            item.member("output").extend_from_slice(&output);
        });
        Ok(())
    }

    /// The JSON of `content`: a string if there is but one text, else an array. Empty: there is nothing.
    fn content(&mut self, message: &Message<'_>, parts: &[Part<'_>]) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        if let [Part { content: Content::Text { text, .. }, cache, .. }] = parts {
            if cache.is_some() {
                self.dropped.add(Param::CacheControl);
            }
            write::text(&mut out, text);
            return Ok(out);
        }
        for part in parts {
            let start = out.len();
            out.push(if start == 0 { b'[' } else { b',' });
            self.part(&mut out, message, part)?;
        }
        if !out.is_empty() {
            out.push(b']');
        }
        Ok(out)
    }

    fn part(&mut self, out: &mut Vec<u8>, message: &Message<'_>, part: &Part<'_>) -> Result<(), CodecError> {
        if part.cache.is_some() {
            self.dropped.add(Param::CacheControl);
        }
        if let Content::Opaque { value, dialect: Dialect::Responses } = &part.content {
            out.extend_from_slice(value.get().as_bytes());
            return Ok(());
        }
        let mut object = Object::open(out);
        match &part.content {
            Content::Text { text, .. } | Content::Refusal(text) => {
                object.text("type", "input_text");
                object.text("text", text);
            }
            Content::Image(media) => {
                object.text("type", "input_image");
                match &media.source {
                    Source::Url(url) => object.text("image_url", url),
                    Source::Base64 { media_type, data } => {
                        object.text("image_url", &data_url::write(media_type, data));
                    }
                    Source::File(id) if self.is_openai() => object.text("file_id", id),
                    Source::File(_) => {
                        return Err(self.unsupported(message, part, "a file of another provider"));
                    }
                    Source::Text(_) => return Err(self.unsupported(message, part, "an image made of text")),
                }
                object.text("detail", media.detail.as_deref().unwrap_or("auto"));
            }
            Content::Document(document) => return self.document(object, message, part, document),
            Content::Audio(_) => return Err(self.unsupported(message, part, "audio")),
            Content::Video(_) => return Err(self.unsupported(message, part, "a video")),
            Content::ToolCall(_) | Content::ToolResult(_) | Content::Thinking(_) => {
                return Err(self.unsupported(
                    message,
                    part,
                    "a part that only the model or a tool can write",
                ));
            }
            Content::Opaque { .. } => return Err(self.unsupported(message, part, "a part of another API")),
        }
        object.close();
        Ok(())
    }

    fn document(
        &mut self,
        mut object: Object<'_>,
        message: &Message<'_>,
        part: &Part<'_>,
        document: &Document<'_>,
    ) -> Result<(), CodecError> {
        if document.citations {
            self.dropped.add(Param::Citations);
        }
        let named = |text: &str| match (&document.name, &document.context) {
            (None, None) => Cow::Owned(text.to_owned()),
            (name, context) => {
                let lines = [name.as_deref(), context.as_deref(), Some(text)];
                Cow::<str>::Owned(lines.into_iter().flatten().collect::<Vec<_>>().join("\n\n"))
            }
        };
        if let Source::Text(text) = &document.source {
            object.text("type", "input_text");
            object.text("text", &named(text));
            object.close();
            return Ok(());
        }
        object.text("type", "input_file");
        match &document.source {
            Source::Base64 { media_type, data } => {
                object.text("filename", document.name.as_deref().unwrap_or_else(|| file_name(media_type)));
                object.text("file_data", &data_url::write(media_type, data));
            }
            Source::Url(url) => object.text("file_url", url),
            Source::File(id) if self.is_openai() => object.text("file_id", id),
            Source::File(_) | Source::Text(_) => {
                return Err(self.unsupported(message, part, "a file of another provider"));
            }
        }
        if document.context.is_some() {
            self.dropped.add(Param::Other("context".into()));
        }
        object.close();
        Ok(())
    }

    fn is_openai(&self) -> bool {
        matches!(self.dialect, Dialect::Chat | Dialect::Responses)
    }

    /// What the model has written: its words as one message, thoughts and calls as items between them.
    fn assistant(&mut self, message: &'r Message<'_>) -> Result<(), CodecError> {
        let mut words: Cow<'r, str> = Cow::Borrowed("");
        for part in &message.parts {
            if part.cache.is_some() {
                self.dropped.add(Param::CacheControl);
            }
            match &part.content {
                Content::Text { text, citations } => {
                    if !citations.is_empty() {
                        self.dropped.add(Param::Citations);
                    }
                    append(&mut words, text);
                }
                Content::Refusal(text) => append(&mut words, text),
                Content::Thinking(thinking) => {
                    self.words(&mut words);
                    self.thinking(thinking);
                }
                Content::ToolCall(call) => {
                    self.words(&mut words);
                    self.no_summary();
                    if call.custom {
                        self.custom.insert(&call.id);
                    }
                    self.item(|item| {
                        item.text("type", if call.custom { "custom_tool_call" } else { "function_call" });
                        item.text("call_id", &call_id(&call.id));
                        item.text("name", &call.name);
                        match (call.custom, call.arguments.is_empty()) {
                            (true, _) => item.text("input", &call.arguments),
                            (false, true) => item.text("arguments", "{}"),
                            (false, false) => item.text("arguments", &call.arguments),
                        }
                    });
                }
                Content::Opaque { value, dialect: Dialect::Responses } => {
                    self.words(&mut words);
                    if self.out.len() > self.start + 1 {
                        self.out.push(b',');
                    }
                    self.out.extend_from_slice(value.get().as_bytes());
                }
                Content::Opaque { .. } => {
                    return Err(self.unsupported(message, part, "a part of another API"));
                }
                _ => return Err(self.unsupported(message, part, "no text, and the assistant's")),
            }
        }
        self.words(&mut words);
        self.no_summary();
        Ok(())
    }

    fn words(&mut self, words: &mut Cow<'_, str>) {
        if words.is_empty() {
            return;
        }
        self.no_summary();
        self.item(|item| {
            item.text("role", "assistant");
            item.text("content", words);
        });
        *words = Cow::Borrowed("");
    }

    fn thinking(&mut self, thinking: &'r Thinking<'_>) {
        let Some(encrypted) = reasoning::of_openai(thinking) else {
            self.no_summary();
            if thinking.encrypted.is_some() || thinking.signature.is_some() {
                self.dropped.add(Param::Thinking);
            } else {
                self.summary = Some(&thinking.text).filter(|text| !text.is_empty()).map(Cow::as_ref);
            }
            return;
        };
        let before = self.summary.take();
        let summary = Some(thinking.text.as_ref()).filter(|text| !text.is_empty()).or(before);
        self.item(|item| {
            item.text("type", "reasoning");
            thinking.id.iter().filter(|id| !id.is_empty()).for_each(|id| item.text("id", id));
            item.array("summary", summary, |out, text| {
                write::object(out, |part| {
                    part.text("type", "summary_text");
                    part.text("text", text);
                });
            });
            item.text("encrypted_content", encrypted);
        });
    }

    /// Nothing encrypted follows, so what could be read of it means nothing to OpenAI.
    fn no_summary(&mut self) {
        if self.summary.take().is_some() {
            self.dropped.add(Param::Thinking);
        }
    }
}

fn append<'r>(words: &mut Cow<'r, str>, text: &'r str) {
    if words.is_empty() {
        *words = Cow::Borrowed(text);
    } else {
        words.to_mut().push_str(text);
    }
}

/// The id, or for one that is too long another that is always the same: the call and its result must agree.
fn call_id(id: &str) -> Cow<'_, str> {
    if id.len() <= MAX_CALL_ID {
        return Cow::Borrowed(id);
    }
    // FNV-1a, in 64 bits.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let start = &id[..id.floor_char_boundary(MAX_CALL_ID - 17)];
    Cow::Owned(format!("{start}_{hash:016x}"))
}

/// OpenAI wants a name for what is sent to it.
fn file_name(media_type: &str) -> &'static str {
    match media_type {
        "text/plain" => "document.txt",
        "text/markdown" => "document.md",
        "text/html" => "document.html",
        "text/csv" => "document.csv",
        "application/json" => "document.json",
        _ => "document.pdf",
    }
}
