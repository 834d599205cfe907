//! Claude's events, read.

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::super::{
    blocks, citations, errors,
    response::finish,
    usage::{Counts, Totals},
    wire::Str,
};
use crate::{
    CodecError, ServiceTier,
    ir::{Block, Delta, Event, Events},
};

/// Blocks that may be open at the same time. Claude has one open; more would be no stream of its.
const MAX_OPEN: usize = 64;

/// Reads the events of one answer.
#[derive(Debug, Default)]
pub struct Decoder {
    open: SmallVec<[Open; 2]>,
    /// Blocks that were handed on: those that nobody else knows are not, and don't count.
    blocks: u32,
    totals: Totals,
    started: bool,
    finished: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Anthropic's count, over blocks of all kinds.
    index: u32,
    /// The hub's; `None`: not handed on.
    block: Option<u32>,
    kind: Kind,
    /// A call that has no arguments yet.
    bare_call: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call,
    /// Whole from the start, or not handed on.
    Other,
}

/// All members that an event of any type can have.
#[derive(Debug, Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<ContentBlock<'a>>,
    #[serde(borrow, default)]
    delta: Option<WireDelta<'a>>,
    #[serde(borrow, default)]
    usage: Option<Counts<'a>>,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<Str<'a>>,
    #[serde(borrow, default)]
    model: Option<Str<'a>>,
    #[serde(borrow, default)]
    usage: Option<Counts<'a>>,
}

#[derive(Debug, Deserialize)]
struct ContentBlock<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    text: Option<Str<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Str<'a>>,
    #[serde(borrow, default)]
    signature: Option<Str<'a>>,
    #[serde(borrow, default)]
    data: Option<Str<'a>>,
    #[serde(borrow, default)]
    id: Option<Str<'a>>,
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct WireDelta<'a> {
    /// Of content; the delta of a message has none.
    #[serde(borrow, rename = "type", default)]
    kind: Option<Str<'a>>,
    #[serde(borrow, default)]
    text: Option<Str<'a>>,
    #[serde(borrow, default)]
    partial_json: Option<Str<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Str<'a>>,
    #[serde(borrow, default)]
    signature: Option<Str<'a>>,
    #[serde(borrow, default)]
    citation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stop_reason: Option<Str<'a>>,
    #[serde(borrow, default)]
    stop_sequence: Option<Str<'a>>,
}

impl Decoder {
    /// # Errors
    /// When the event is none of Anthropic's.
    pub fn event<'a>(&mut self, data: &'a [u8], out: &mut Events<'a>) -> Result<(), CodecError> {
        if self.ended {
            return Ok(());
        }
        let wire: Wire<'a> = serde_json::from_slice(data).map_err(|error| broken(&error.to_string()))?;
        match &*wire.kind.0 {
            "content_block_delta" => {
                if let (Some(index), Some(delta)) = (wire.index, wire.delta) {
                    self.delta(index, delta, out)?;
                }
            }
            "content_block_start" => {
                if let (Some(index), Some(block)) = (wire.index, wire.content_block) {
                    self.begin(out);
                    self.start(index, block, out)?;
                }
            }
            "content_block_stop" => {
                if let Some(at) = self.open.iter().position(|open| Some(open.index) == wire.index) {
                    let open = self.open.remove(at);
                    stop(open, out);
                }
            }
            "message_start" => self.message(wire.message, out),
            "message_delta" => self.message_delta(wire.delta, wire.usage, out),
            "message_stop" => {
                self.begin(out);
                self.close(out);
                self.ended = true;
                out.push(Event::End);
            }
            "error" => {
                self.ended = true;
                out.push(Event::Error(errors::decode(200, data)));
            }
            // `ping`, and what is yet to come.
            _ => {}
        }
        Ok(())
    }

    /// The upstream has closed the stream.
    pub fn finish(&mut self, out: &mut Events<'static>) {
        if self.ended || !self.finished {
            return;
        }
        self.close(out);
        self.ended = true;
        out.push(Event::End);
    }

    /// For a stream that leaves out how it begins.
    fn begin(&mut self, out: &mut Events<'_>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Start {
                id: "".into(),
                model: "".into(),
                created: None,
                service_tier: ServiceTier::default(),
            });
        }
    }

    fn close(&mut self, out: &mut Events<'_>) {
        for open in std::mem::take(&mut self.open) {
            stop(open, out);
        }
    }

    fn message<'a>(&mut self, message: Option<Message<'a>>, out: &mut Events<'a>) {
        let Some(message) = message else { return };
        let counts = message.usage.unwrap_or_default();
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Start {
                id: message.id.map(|it| it.0).unwrap_or_default(),
                model: message.model.map(|it| it.0).unwrap_or_default(),
                created: None,
                service_tier: counts.tier(),
            });
        }
        self.count(counts, out);
    }

    fn message_delta<'a>(
        &mut self,
        delta: Option<WireDelta<'a>>,
        usage: Option<Counts<'a>>,
        out: &mut Events<'a>,
    ) {
        self.begin(out);
        if let Some(WireDelta { stop_reason: Some(reason), stop_sequence, .. }) = delta
            && !std::mem::replace(&mut self.finished, true)
        {
            self.close(out);
            out.push(Event::Finish { choice: 0, finish: finish(reason.0, stop_sequence) });
        }
        if let Some(counts) = usage {
            self.count(counts, out);
        }
    }

    fn count(&mut self, counts: Counts<'_>, out: &mut Events<'_>) {
        self.totals = counts.since(&self.totals);
        let usage = self.totals.usage();
        if !usage.is_unknown() {
            out.push(Event::Usage(usage));
        }
    }

    fn start<'a>(
        &mut self,
        index: u32,
        wire: ContentBlock<'a>,
        out: &mut Events<'a>,
    ) -> Result<(), CodecError> {
        if self.open.len() >= MAX_OPEN || self.open.iter().any(|open| open.index == index) {
            return Err(broken("a block begins twice, or too many are open"));
        }
        let text = |text: Option<Str<'a>>| text.map(|it| it.0).unwrap_or_default();
        let (mut first, mut sign, mut bare_call) = (None, None, false);
        let kind = match &*wire.kind.0 {
            "text" => {
                first = wire.text.map(|it| Delta::Text(it.0));
                Some(Block::Text)
            }
            "thinking" => {
                let thinking = blocks::thinking(wire.thinking, wire.signature);
                first = Some(Delta::Thinking(thinking.text));
                sign = thinking.signature.map(Delta::Signature);
                Some(Block::Thinking { id: "".into() })
            }
            "redacted_thinking" => Some(Block::Encrypted { data: text(wire.data), id: "".into() }),
            "tool_use" => {
                let input = wire.input.map(RawValue::get).filter(|input| !is_empty_object(input));
                bare_call = input.is_none();
                first = input.map(|input| Delta::Arguments(input.into()));
                Some(Block::ToolCall { id: text(wire.id), name: text(wire.name), custom: false })
            }
            // What the provider's own tools were called with and found.
            _ => None,
        };
        let Some(kind) = kind else {
            self.open.push(Open { index, block: None, kind: Kind::Other, bare_call: false });
            return Ok(());
        };
        let is_call = matches!(kind, Block::ToolCall { .. });
        let within = |open: &Open| open.block.is_some() && !(is_call && open.kind == Kind::Call);
        if self.finished || self.open.iter().any(within) {
            return Err(broken("a block begins within another one, or behind the last one"));
        }
        let block = self.blocks;
        self.blocks = self.blocks.saturating_add(1);
        let takes = match kind {
            Block::Text => Kind::Text,
            Block::Thinking { .. } => Kind::Thinking,
            Block::ToolCall { .. } => Kind::Call,
            _ => Kind::Other,
        };
        self.open.push(Open { index, block: Some(block), kind: takes, bare_call });
        out.push(Event::BlockStart { choice: 0, block, kind });
        for delta in first.into_iter().chain(sign) {
            if !is_empty(&delta) {
                out.push(Event::Delta { choice: 0, block, delta });
            }
        }
        Ok(())
    }

    fn delta<'a>(&mut self, index: u32, wire: WireDelta<'a>, out: &mut Events<'a>) -> Result<(), CodecError> {
        let open = self.open.iter_mut().find(|open| open.index == index);
        let open = open.ok_or_else(|| broken("a piece of a block that is not open"))?;
        let Some(block) = open.block else { return Ok(()) };
        let kind = wire.kind.map(|it| it.0).unwrap_or_default();
        let (of, delta) = match &*kind {
            "text_delta" => (Kind::Text, wire.text.map(|it| Delta::Text(it.0))),
            "input_json_delta" => (Kind::Call, wire.partial_json.map(|it| Delta::Arguments(it.0))),
            "thinking_delta" => (Kind::Thinking, wire.thinking.map(|it| Delta::Thinking(it.0))),
            "signature_delta" => (Kind::Thinking, wire.signature.map(|it| Delta::Signature(it.0))),
            "citations_delta" => {
                (Kind::Text, wire.citation.map(|raw| Delta::Citation(citations::decode(raw))))
            }
            // What is yet to come.
            _ => return Ok(()),
        };
        if of != open.kind {
            return Err(broken("a piece of another kind than its block"));
        }
        if let Some(delta) = delta.filter(|delta| !is_empty(delta)) {
            open.bare_call = false;
            out.push(Event::Delta { choice: 0, block, delta });
        }
        Ok(())
    }
}

fn broken(what: &str) -> CodecError {
    CodecError::invalid("", format!("The upstream's stream is broken: {what}."))
}

fn stop(open: Open, out: &mut Events<'_>) {
    let Some(block) = open.block else { return };
    // Arguments are JSON: no text at all would be none.
    if open.bare_call {
        out.push(Event::Delta { choice: 0, block, delta: Delta::Arguments("{}".into()) });
    }
    out.push(Event::BlockStop { choice: 0, block });
}

fn is_empty(delta: &Delta<'_>) -> bool {
    match delta {
        Delta::Text(text) | Delta::Thinking(text) | Delta::Signature(text) | Delta::Arguments(text) => {
            text.is_empty()
        }
        _ => false,
    }
}

fn is_empty_object(json: &str) -> bool {
    json == "null" || json.strip_prefix('{').is_some_and(|rest| rest.trim_start() == "}")
}
