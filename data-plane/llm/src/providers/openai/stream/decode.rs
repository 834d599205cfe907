//! The chunks of an upstream, as events. Services differ in what they leave out and where they put usage and thoughts;
//! whatever comes, the order of [`Event`] is kept.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{
        request::ExtraIn,
        response::{AnnotationIn, CallIn, ImageIn, MessageIn, SpokenIn, TextIn, finish, seconds},
        thoughts::{Detail, DetailIn},
        usage,
    },
    arguments::Arguments,
};
use crate::{
    CodecError, ServiceTier,
    ir::{Block, Delta, Event, Events, Finish, Text},
    providers::read::{self, Str, text},
};

/// Most choices of a stream, and most calls of a choice that are open at once: what the reader remembers is bounded.
const MAX_OPEN: usize = 128;

#[derive(Deserialize)]
struct ChunkIn<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    created: Option<f64>,
    #[serde(borrow)]
    choices: Option<Vec<ChoiceIn<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<Str<'a>>,
    #[serde(borrow)]
    x_groq: Option<GroqIn<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Where Groq puts its usage.
#[derive(Deserialize)]
struct GroqIn<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChoiceIn<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    delta: Option<MessageIn<'a>>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    /// Moonshot's place for it.
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Debug, Default)]
pub struct Decoder {
    started: bool,
    ended: bool,
    choices: Vec<Choice>,
}

/// What is open of a choice.
#[derive(Debug, Default)]
struct Choice {
    index: u32,
    /// The number of the next block.
    next: u32,
    /// Text, thinking or refusal.
    open: Option<(Kind, u32)>,
    calls: Vec<Call>,
    /// The highest index of a call that was seen, for calls without one.
    last_call: u32,
    called: bool,
    finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Refusal,
}

#[derive(Debug)]
struct Call {
    index: u32,
    block: u32,
    arguments: Arguments,
    /// Its block is stopped.
    closed: bool,
}

impl Decoder {
    /// # Errors
    /// When it is no chunk of this dialect.
    pub fn event<'a>(&mut self, data: &'a [u8], out: &mut Events<'a>) -> Result<(), CodecError> {
        let data = data.trim_ascii();
        if data.is_empty() || self.ended {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.end(out);
            return Ok(());
        }
        let chunk: ChunkIn<'a> = read::body(data)?;
        if chunk.error.is_some_and(|error| error.get() != "null") {
            self.ended = true;
            out.push(Event::Error(crate::decode_error(data)));
            return Ok(());
        }
        let counts = chunk.usage.into_iter().chain(chunk.x_groq.and_then(|groq| groq.usage));
        let nested = chunk.choices.iter().flatten().filter_map(|choice| choice.usage);
        let usage = counts.chain(nested).find_map(usage::read);
        let choices = chunk.choices.unwrap_or_default();
        // Azure opens with a chunk about its filters, which has neither id nor model.
        if choices.is_empty() && usage.is_none() && chunk.id.as_ref().is_none_or(|id| id.0.is_empty()) {
            return Ok(());
        }
        if !self.started {
            self.started = true;
            let tier = chunk.service_tier.map(|tier| ServiceTier::new(tier.0.as_bytes()));
            out.push(Event::Start {
                id: text(chunk.id).unwrap_or_default(),
                model: text(chunk.model).unwrap_or_default(),
                created: chunk.created.and_then(seconds),
                service_tier: tier.unwrap_or_default(),
            });
        }
        for (choice, at) in choices.into_iter().zip(0..) {
            let index = choice.index.unwrap_or(at);
            self.choice(index)?.take(choice, out)?;
        }
        out.extend(usage.map(Event::Usage));
        Ok(())
    }

    /// The upstream has closed the stream. Many don't say that it is complete; a choice says why it ended.
    pub fn finish(&mut self, out: &mut Events<'static>) {
        let complete = self.choices.iter().all(|choice| choice.finished) && !self.choices.is_empty();
        if complete && !self.ended {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Events<'_>) {
        self.ended = true;
        if !self.started {
            let (id, model) = (Text::default(), Text::default());
            out.push(Event::Start { id, model, created: None, service_tier: ServiceTier::default() });
        }
        for choice in self.choices.iter_mut().filter(|choice| !choice.finished) {
            let finish = if choice.called { Finish::ToolCalls } else { Finish::Stop };
            choice.end(finish, out);
        }
        out.push(Event::End);
    }

    fn choice(&mut self, index: u32) -> Result<&mut Choice, CodecError> {
        let at = match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None if self.choices.len() == MAX_OPEN => {
                return Err(CodecError::invalid("choices", "A stream of more choices than one can ask for."));
            }
            None => {
                self.choices.push(Choice { index, ..Choice::default() });
                self.choices.len() - 1
            }
        };
        Ok(&mut self.choices[at])
    }
}

impl Choice {
    fn take<'a>(&mut self, choice: ChoiceIn<'a>, out: &mut Events<'a>) -> Result<(), CodecError> {
        // Some services repeat themselves when all is said.
        if self.finished {
            return Ok(());
        }
        if let Some(delta) = choice.delta {
            self.delta(delta, out)?;
        }
        if let Some(json) = choice.logprobs.filter(|json| json.get() != "null") {
            out.push(Event::Logprobs { choice: self.index, logprobs: Cow::Borrowed(json) });
        }
        if let Some(finish) = finish(choice.finish_reason, self.called) {
            self.end(finish, out);
        }
        Ok(())
    }

    fn delta<'a>(&mut self, delta: MessageIn<'a>, out: &mut Events<'a>) -> Result<(), CodecError> {
        self.thoughts(delta.reasoning_details, delta.reasoning_content.or(delta.reasoning), out);
        match delta.content {
            None => {}
            Some(TextIn::Plain(text)) => self.write(Kind::Text, Delta::Text(text.0), out),
            Some(TextIn::Chunks(chunks)) => {
                for chunk in chunks {
                    match chunk.read() {
                        (text, true) => self.write(Kind::Thinking, Delta::Thinking(text), out),
                        (text, false) => self.write(Kind::Text, Delta::Text(text), out),
                    }
                }
            }
        }
        if let Some(words) = SpokenIn::words(delta.audio) {
            self.write(Kind::Text, Delta::Text(words), out);
        }
        if let Some(signature) = ExtraIn::signature(delta.extra_content) {
            self.write(Kind::Text, Delta::Signature(signature), out);
        }
        for citation in delta.annotations.into_iter().flatten().filter_map(AnnotationIn::read) {
            self.write(Kind::Text, Delta::Citation(citation), out);
        }
        if let Some(refusal) = text(delta.refusal) {
            self.write(Kind::Refusal, Delta::Refusal(refusal), out);
        }
        for image in delta.images.into_iter().flatten().filter_map(ImageIn::read) {
            self.close(out);
            self.whole(Block::Image(image), out);
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.call(call, out)?;
        }
        Ok(())
    }

    /// The details say more than the text, and say it again.
    fn thoughts<'a>(
        &mut self,
        details: Option<Vec<DetailIn<'a>>>,
        plain: Option<Str<'a>>,
        out: &mut Events<'a>,
    ) {
        let mut said = false;
        for detail in details.into_iter().flatten().filter_map(DetailIn::read) {
            match detail {
                Detail::Text { text, signature, .. } => {
                    said |= !text.is_empty();
                    self.write(Kind::Thinking, Delta::Thinking(text), out);
                    if let Some(signature) = signature {
                        self.write(Kind::Thinking, Delta::Signature(signature), out);
                    }
                }
                Detail::Encrypted { data, id } => {
                    said = true;
                    self.close(out);
                    self.whole(Block::Encrypted { data, id: id.unwrap_or_default() }, out);
                }
            }
        }
        if let Some(text) = text(plain).filter(|_| !said) {
            self.write(Kind::Thinking, Delta::Thinking(text), out);
        }
    }

    /// A piece of a block of this kind, which is opened when another one was open. Nothing for an empty piece.
    fn write<'a>(&mut self, kind: Kind, delta: Delta<'a>, out: &mut Events<'a>) {
        let empty = match &delta {
            Delta::Text(text) | Delta::Thinking(text) | Delta::Refusal(text) => text.is_empty(),
            _ => false,
        };
        if empty {
            return;
        }
        let block = match self.open {
            Some((open, block)) if open == kind => block,
            _ => {
                self.close(out);
                let block = self.start(
                    match kind {
                        Kind::Text => Block::Text,
                        Kind::Thinking => Block::Thinking { id: Text::default() },
                        Kind::Refusal => Block::Refusal,
                    },
                    out,
                );
                self.open = Some((kind, block));
                block
            }
        };
        out.push(Event::Delta { choice: self.index, block, delta });
    }

    fn start<'a>(&mut self, kind: Block<'a>, out: &mut Events<'a>) -> u32 {
        let block = self.next;
        self.next = self.next.saturating_add(1);
        out.push(Event::BlockStart { choice: self.index, block, kind });
        block
    }

    fn whole<'a>(&mut self, kind: Block<'a>, out: &mut Events<'a>) {
        let block = self.start(kind, out);
        out.push(Event::BlockStop { choice: self.index, block });
    }

    /// Closes whatever is open. Calls that are closed by it can't be gone on with.
    fn close(&mut self, out: &mut Events<'_>) {
        let choice = self.index;
        if let Some((_, block)) = self.open.take() {
            out.push(Event::BlockStop { choice, block });
        }
        for call in self.calls.iter_mut().filter(|call| !call.closed) {
            call.closed = true;
            out.push(Event::BlockStop { choice, block: call.block });
        }
    }

    fn end<'a>(&mut self, finish: Finish<'a>, out: &mut Events<'a>) {
        self.close(out);
        self.finished = true;
        out.push(Event::Finish { choice: self.index, finish });
    }

    fn call<'a>(&mut self, piece: CallIn<'a>, out: &mut Events<'a>) -> Result<(), CodecError> {
        let custom = piece.function.is_none() && piece.custom.is_some();
        let (name, arguments) = match piece.function.or(piece.custom) {
            Some(function) => (text(function.name), function.arguments.map(|arguments| arguments.0)),
            None => (None, None),
        };
        let id = text(piece.id).filter(|id| !id.is_empty());
        let name = name.filter(|name| !name.is_empty());
        let begins = id.is_some() && name.is_some();
        // Without an index, an id and a name begin another call.
        let index = piece.index.unwrap_or(self.last_call.saturating_add(u32::from(self.called && begins)));
        let mut at = self.calls.iter().position(|call| call.index == index);
        // Some services give every call the index 0.
        if begins && at.is_some_and(|at| self.calls[at].closed) {
            self.calls.retain(|call| call.index != index);
            at = None;
        }
        let at = match at {
            Some(at) => at,
            None => {
                let start =
                    Block::ToolCall { id: id.unwrap_or_default(), name: name.unwrap_or_default(), custom };
                self.begin(index, start, out)?
            }
        };
        let (choice, block) = (self.index, self.calls[at].block);
        if self.calls[at].closed {
            return Ok(());
        }
        if let Some(signature) = ExtraIn::signature(piece.extra_content) {
            out.push(Event::Delta { choice, block, delta: Delta::Signature(signature) });
        }
        if let Some(arguments) = arguments.filter(|arguments| !arguments.is_empty()) {
            let complete = !custom && self.calls[at].arguments.push(&arguments);
            out.push(Event::Delta { choice, block, delta: Delta::Arguments(arguments) });
            if complete {
                self.calls[at].closed = true;
                out.push(Event::BlockStop { choice, block });
            }
        }
        Ok(())
    }

    fn begin<'a>(&mut self, index: u32, start: Block<'a>, out: &mut Events<'a>) -> Result<usize, CodecError> {
        if self.calls.len() == MAX_OPEN {
            self.calls.retain(|call| !call.closed);
            if self.calls.len() == MAX_OPEN {
                return Err(CodecError::invalid("choices", "More tool calls at once than one can follow."));
            }
        }
        if let Some((_, block)) = self.open.take() {
            out.push(Event::BlockStop { choice: self.index, block });
        }
        let block = self.start(start, out);
        (self.called, self.last_call) = (true, index);
        self.calls.push(Call { index, block, arguments: Arguments::default(), closed: false });
        Ok(self.calls.len() - 1)
    }
}
