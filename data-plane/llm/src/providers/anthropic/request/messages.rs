//! The conversation: instructions apart from it, turns that alternate, results of tools at the head of theirs.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
};

use serde_json::value::RawValue;

use super::{
    super::{
        citations, opaque,
        writer::{self, Array, Object},
    },
    encode::Dropped,
    files::write_file,
};
use crate::{
    CodecError, Dialect,
    ir::{CacheMark, Content, Param, Part, Request, Role, Source, Thinking, ToolCall, ToolResult},
};

/// One side's turn. A part comes with the place of its message among the client's.
#[derive(Debug)]
struct Turn<'r, 'a> {
    assistant: bool,
    parts: Vec<(u16, &'r Part<'a>)>,
}

/// What is said so far.
#[derive(Debug)]
pub(super) struct Conversation<'r, 'a> {
    dialect: Dialect,
    system: Vec<(u16, &'r Part<'a>)>,
    turns: Vec<Turn<'r, 'a>>,
    called: Vec<&'r str>,
    /// The same, to be found.
    known: HashSet<&'r str>,
}

impl<'r, 'a> Conversation<'r, 'a> {
    pub(super) fn of(request: &'r Request<'a>, dropped: &mut Dropped) -> Result<Self, CodecError> {
        let mut this = Self {
            dialect: request.dialect,
            system: Vec::new(),
            turns: Vec::new(),
            called: Vec::new(),
            known: HashSet::new(),
        };
        for message in &request.messages {
            let parts = message.parts.iter().map(|part| (message.at, part));
            match message.role {
                Role::System | Role::Developer => this.system.extend(parts.filter(|(_, part)| is_said(part))),
                Role::User | Role::Assistant => {
                    for (at, part) in parts {
                        this.note(part, dropped);
                        if is_said(part) {
                            this.push(message.role == Role::Assistant, at, part);
                        }
                    }
                }
            }
        }
        if this.turns.is_empty() {
            // Claude answers somebody: instructions alone are put to it as a question.
            let parts = std::mem::take(&mut this.system);
            if parts.is_empty() {
                let message =
                    "The conversation is empty: this model needs at least one message with content.";
                return Err(CodecError::unsupported("messages", message));
            }
            this.turns.push(Turn { assistant: false, parts });
        }
        for turn in this.turns.iter_mut().filter(|turn| !turn.assistant) {
            turn.parts.sort_by_key(|(_, part)| !matches!(part.content, Content::ToolResult(_)));
        }
        Ok(this)
    }

    fn push(&mut self, assistant: bool, at: u16, part: &'r Part<'a>) {
        match self.turns.last_mut().filter(|turn| turn.assistant == assistant) {
            Some(turn) => turn.parts.push((at, part)),
            None => self.turns.push(Turn { assistant, parts: vec![(at, part)] }),
        }
    }

    fn note(&mut self, part: &'r Part<'a>, dropped: &mut Dropped) {
        // Google's, which only Google wants back.
        dropped.add_if(part.signature.is_some(), Param::Thinking);
        match &part.content {
            Content::Thinking(thinking) => dropped.add_if(Thought::of(thinking).is_none(), Param::Thinking),
            Content::ToolCall(call) if self.known.insert(&call.name) => self.called.push(&call.name),
            Content::Image(media) => {
                let detail = media.detail.as_deref().is_some_and(|detail| detail != "auto");
                dropped.add_if(detail, Param::ImageDetail);
            }
            Content::Text { citations, .. } => {
                let strange = citations.iter().any(|citation| !citations::is_native(citation));
                dropped.add_if(strange, Param::Citations);
            }
            _ => {}
        }
    }

    /// The functions that were called.
    pub(super) fn called(&self) -> Vec<&'r str> {
        self.called.clone()
    }

    /// The last word is results of calls that the model made without showing thoughts, so that it can't be told now to
    /// show them.
    pub(super) fn lacks_thoughts(&self) -> bool {
        let in_round = self.turns.last().is_some_and(|turn| {
            turn.parts.iter().any(|(_, part)| matches!(part.content, Content::ToolResult(_)))
        });
        let before = self.turns.iter().rev().find(|turn| turn.assistant).and_then(|turn| turn.parts.first());
        in_round && !before.is_some_and(|(_, part)| matches!(part.content, Content::Thinking(_)))
    }

    /// Bytes of all texts and files, about: what the body will have at least.
    pub(super) fn size(&self) -> usize {
        let parts = self.turns.iter().flat_map(|turn| &turn.parts).chain(&self.system);
        parts.map(|(_, part)| 48 + size(&part.content)).sum()
    }

    pub(super) fn write_system(
        &self,
        body: &mut Object<'_>,
        instruction: Option<&str>,
    ) -> Result<(), CodecError> {
        let texts: Vec<_> =
            self.system.iter().map(|(at, part)| self.system_text(*at, part)).collect::<Result<_, _>>()?;
        match (&texts[..], instruction) {
            ([], None) => {}
            ([(text, None)], None) => body.value("system", *text),
            ([], Some(instruction)) => body.value("system", instruction),
            _ => {
                let mut array = Array::open(body.member("system"));
                let added = instruction.map(|text| (text, None));
                for (text, cache) in texts.into_iter().chain(added) {
                    write_text(array.item(), text, cache, &[]);
                }
                array.close();
            }
        }
        Ok(())
    }

    fn system_text(&self, at: u16, part: &'r Part<'a>) -> Result<(&'r str, Option<CacheMark>), CodecError> {
        match &part.content {
            Content::Text { text, .. } => Ok((text, part.cache)),
            _ => {
                let path = self.dialect.place(at, Some(part.at));
                let message =
                    format!("`{path}` must be text: this model's instructions can't hold anything else.");
                Err(CodecError::unsupported(path, message))
            }
        }
    }

    pub(super) fn write_messages(&self, body: &mut Object<'_>) -> Result<(), CodecError> {
        let mut ids = Ids::default();
        let mut array = Array::open(body.member("messages"));
        for (index, turn) in self.turns.iter().enumerate() {
            let mut message = Object::open(array.item());
            message.value("role", if turn.assistant { "assistant" } else { "user" });
            let prefill = turn.assistant && index + 1 == self.turns.len();
            match &turn.parts[..] {
                [(_, Part { content: Content::Text { text, citations }, cache: None, .. })]
                    if citations.is_empty() =>
                {
                    message.value("content", if prefill { text.trim_end() } else { text });
                }
                parts => {
                    let mut content = Array::open(message.member("content"));
                    for (position, (at, part)) in parts.iter().enumerate() {
                        let last = prefill && position + 1 == parts.len();
                        self.write_part(&mut content, *at, part, last, &mut ids)?;
                    }
                    content.close();
                }
            }
            message.close();
        }
        array.close();
        Ok(())
    }

    fn write_part(
        &self,
        content: &mut Array<'_>,
        at: u16,
        part: &Part<'_>,
        prefill: bool,
        ids: &mut Ids,
    ) -> Result<(), CodecError> {
        match &part.content {
            Content::Text { text, citations } => {
                // What is gone on with may not end with white space.
                let text = if prefill { text.trim_end() } else { text };
                write_text(content.item(), text, part.cache, citations);
            }
            Content::Refusal(text) => write_text(content.item(), text, part.cache, &[]),
            Content::Thinking(thinking) => {
                if let Some(thought) = Thought::of(thinking) {
                    thought.write(content.item());
                }
            }
            Content::ToolCall(call) => {
                let mut object = Object::open(content.item());
                object.value("type", "tool_use");
                object.value("id", ids.of_call(call));
                object.value("name", &call.name);
                write_input(object.member("input"), call);
                close(object, part.cache);
            }
            Content::ToolResult(result) => {
                let mut object = Object::open(content.item());
                object.value("type", "tool_result");
                object.value("tool_use_id", ids.of_result(result));
                self.write_result(&mut object, at, part.at, result)?;
                if result.is_error {
                    object.value("is_error", true);
                }
                close(object, part.cache);
            }
            _ => {
                let place = self.dialect.place(at, Some(part.at));
                write_file(content.item(), part, self.dialect, &place)?;
            }
        }
        Ok(())
    }

    fn write_result(
        &self,
        object: &mut Object<'_>,
        at: u16,
        part_at: u16,
        result: &ToolResult<'_>,
    ) -> Result<(), CodecError> {
        let parts: Vec<_> = result.content.iter().filter(|part| is_said(part)).collect();
        if let [Part { content: Content::Text { text, .. }, cache: None, .. }] = parts[..] {
            object.value("content", text);
            return Ok(());
        }
        if parts.is_empty() {
            return Ok(());
        }
        let mut content = Array::open(object.member("content"));
        for part in parts {
            if let Content::Text { text, citations } = &part.content {
                write_text(content.item(), text, part.cache, citations);
                continue;
            }
            let place = match self.dialect {
                // There the message is the result.
                Dialect::Chat => self.dialect.place(at, Some(part.at)),
                _ => format!("{}.content[{}]", self.dialect.place(at, Some(part_at)), part.at),
            };
            write_file(content.item(), part, self.dialect, &place)?;
        }
        content.close();
        Ok(())
    }
}

/// Whether anything would be written: Claude refuses empty texts, and thoughts that are not its own.
fn is_said(part: &Part<'_>) -> bool {
    match &part.content {
        Content::Text { text, .. } | Content::Refusal(text) => !text.trim().is_empty(),
        Content::Thinking(thinking) => Thought::of(thinking).is_some(),
        _ => true,
    }
}

fn size(content: &Content<'_>) -> usize {
    let of = |source: &Source<'_>| match source {
        Source::Url(text) | Source::File(text) | Source::Text(text) | Source::Base64 { data: text, .. } => {
            text.len()
        }
    };
    match content {
        Content::Text { text, .. } | Content::Refusal(text) => text.len(),
        Content::Image(media) | Content::Audio(media) | Content::Video(media) => of(&media.source),
        Content::Document(document) => of(&document.source),
        Content::ToolCall(call) => call.arguments.len(),
        Content::ToolResult(result) => result.content.iter().map(|part| size(&part.content)).sum(),
        Content::Thinking(thinking) => {
            thinking.text.len() + thinking.signature.as_ref().map_or(0, |it| it.len())
        }
        Content::Opaque { value, .. } => value.get().len(),
    }
}

/// Thoughts that Claude takes back.
enum Thought<'r> {
    Signed { text: &'r str, signature: &'r str },
    Redacted(&'r str),
}

impl<'r> Thought<'r> {
    fn of(thinking: &'r Thinking<'_>) -> Option<Self> {
        let own = |content: &'r str| Some(content).filter(|it| !it.is_empty() && !opaque::is_openai(it));
        let text = &*thinking.text;
        if let Some(signature) = thinking.signature.as_deref().and_then(own) {
            return Some(Self::Signed { text, signature });
        }
        let content = thinking.encrypted.as_deref().and_then(own)?;
        // Clients of Responses keep a signature where OpenAI has the encrypted thoughts.
        Some(if text.is_empty() {
            Self::Redacted(content)
        } else {
            Self::Signed { text, signature: content }
        })
    }

    fn write(self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        match self {
            Self::Signed { text, signature } => {
                object.value("type", "thinking");
                object.value("thinking", text);
                object.value("signature", signature);
            }
            Self::Redacted(data) => {
                object.value("type", "redacted_thinking");
                object.value("data", data);
            }
        }
        object.close();
    }
}

/// Ids of calls in the alphabet that Claude takes, the same for a call and its result.
#[derive(Debug, Default)]
struct Ids {
    made_up: u32,
    /// Of calls without id, and not answered yet: name and id.
    open: HashMap<String, VecDeque<String>>,
}

impl Ids {
    fn of_call<'i>(&mut self, call: &'i ToolCall<'_>) -> Cow<'i, str> {
        if !call.id.is_empty() {
            return fitting(&call.id);
        }
        let id = format!("call_{}", self.made_up);
        self.made_up += 1;
        self.open.entry(call.name.clone().into_owned()).or_default().push_back(id.clone());
        Cow::Owned(id)
    }

    fn of_result<'i>(&mut self, result: &'i ToolResult<'_>) -> Cow<'i, str> {
        if !result.call_id.is_empty() {
            return fitting(&result.call_id);
        }
        let open = result.name.as_deref().and_then(|name| self.open.get_mut(name));
        open.and_then(VecDeque::pop_front).map_or(Cow::Borrowed("call"), Cow::Owned)
    }
}

/// Letters, digits, `_` and `-` stay; with others in it, a hash keeps ids apart that would look alike.
fn fitting(id: &str) -> Cow<'_, str> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if id.chars().all(fits) {
        return Cow::Borrowed(id);
    }
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let plain: String = id.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect();
    Cow::Owned(format!("{plain}_{hash:016x}"))
}

/// Arguments have to be an object. What a model wrote that is none is kept as text.
fn write_input(out: &mut Vec<u8>, call: &ToolCall<'_>) {
    let arguments = call.arguments.trim();
    if arguments.is_empty() && !call.custom {
        out.extend_from_slice(b"{}");
        return;
    }
    let is_object =
        !call.custom && arguments.starts_with('{') && serde_json::from_str::<&RawValue>(arguments).is_ok();
    if is_object {
        return writer::raw(out, arguments);
    }
    let mut object = Object::open(out);
    object.value(if call.custom { "input" } else { "arguments" }, &call.arguments);
    object.close();
}

pub(super) fn cache_control(object: &mut Object<'_>, mark: CacheMark) {
    let mut control = Object::open(object.member("cache_control"));
    control.value("type", "ephemeral");
    if mark == CacheMark::Hour {
        control.value("ttl", "1h");
    }
    control.close();
}

pub(super) fn close(mut object: Object<'_>, cache: Option<CacheMark>) {
    if let Some(mark) = cache {
        cache_control(&mut object, mark);
    }
    object.close();
}

fn write_text(
    out: &mut Vec<u8>,
    text: &str,
    cache: Option<CacheMark>,
    citations: &[crate::ir::Citation<'_>],
) {
    let mut object = Object::open(out);
    object.value("type", "text");
    object.value("text", text);
    if citations.iter().any(citations::is_native) {
        let mut array = Array::open(object.member("citations"));
        for citation in citations.iter().filter(|citation| citations::is_native(citation)) {
            citations::write(array.item(), citation);
        }
        array.close();
    }
    close(object, cache);
}
