//! Events for Anthropic's clients, written.

use nemo_types::Usage;
use smallvec::SmallVec;

use super::super::{
    citations, opaque,
    request::write_media,
    response::{call_id, message_id, stop_reason, stop_sequence},
    usage,
    writer::{Array, Object, escaped},
};
use crate::{
    ServiceTier,
    codec::Echo,
    ir::{Block, Delta, Event, Finish},
};

/// Blocks that may be open at the same time: as many as an answer has parallel calls. What is beyond is not shown.
const MAX_OPEN: usize = 256;

/// Writes the events of one answer.
#[derive(Debug)]
pub struct Encoder {
    echo: Echo,
    /// Not told yet: the first event tells what the prompt had, which mostly comes right behind.
    start: Option<Start>,
    /// Not told yet: a signature, which goes into the id, comes right behind.
    call: Option<Call>,
    open: SmallVec<[Open; 4]>,
    /// Blocks that the client knows of.
    blocks: u32,
    usage: Usage,
    tier: ServiceTier,
    finish: Option<Finish<'static>>,
    calls: bool,
    refused: bool,
    begun: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Start {
    id: String,
    model: String,
}

#[derive(Debug)]
struct Call {
    block: u32,
    id: String,
    name: String,
    custom: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// The hub's count.
    block: u32,
    /// The client's.
    index: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    /// A call whose arguments are text, to be wrapped.
    Custom,
    Other,
}

impl Encoder {
    pub fn new(echo: Echo) -> Self {
        Self {
            echo,
            start: Some(Start::default()),
            call: None,
            open: SmallVec::new(),
            blocks: 0,
            usage: Usage::default(),
            tier: ServiceTier::default(),
            finish: None,
            calls: false,
            refused: false,
            begun: false,
            ended: false,
        }
    }

    /// Appends whole events to `out`, or nothing.
    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        match event {
            Event::Start { id, model, service_tier, .. } if !self.begun => {
                self.start = Some(Start { id: id.to_string(), model: model.to_string() });
                self.tier = *service_tier;
            }
            Event::Usage(usage) => self.usage = *usage,
            Event::Start { .. } | Event::Logprobs { .. } => {}
            Event::Error(_) => self.ended = true,
            // The dialect knows one answer.
            Event::BlockStart { choice: 0, block, kind } => {
                self.flush(None, out);
                self.begin(out);
                self.block_start(*block, kind, out);
            }
            Event::Delta { choice: 0, block, delta } => {
                if let Delta::Signature(signature) = delta
                    && self.call.as_ref().is_some_and(|call| call.block == *block)
                {
                    return self.flush(Some(signature), out);
                }
                self.flush(None, out);
                self.delta(*block, delta, out);
            }
            Event::BlockStop { choice: 0, block } => {
                self.flush(None, out);
                self.block_stop(*block, out);
            }
            Event::Finish { choice: 0, finish } => self.finish = Some(owned(finish)),
            Event::End => self.end(out),
            _ => {}
        }
    }

    /// `message_start`, once.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(start) = self.start.take() else { return };
        self.begun = true;
        write(out, "message_start", |event| {
            let mut message = Object::open(event.member("message"));
            message.value("id", message_id(&start.id, &self.echo));
            message.value("type", "message");
            message.value("role", "assistant");
            message.value("model", if start.model.is_empty() { &*self.echo.model } else { &start.model });
            Array::open(message.member("content")).close();
            message.value("stop_reason", None::<&str>);
            message.value("stop_sequence", None::<&str>);
            let usage = Object::open(message.member("usage"));
            usage::write(usage, &self.usage, self.tier);
            message.close();
        });
    }

    /// The start of a call that was held back.
    fn flush(&mut self, signature: Option<&str>, out: &mut Vec<u8>) {
        let Some(call) = self.call.take() else { return };
        self.calls = true;
        let at = usize::try_from(call.block).unwrap_or(usize::MAX);
        let id = call_id(&call.id, at, signature, &self.echo).into_owned();
        let kind = if call.custom { Kind::Custom } else { Kind::Other };
        self.open(call.block, kind, out, |block| {
            block.value("type", "tool_use");
            block.value("id", &id);
            block.value("name", &call.name);
            Object::open(block.member("input")).close();
        });
        if call.custom {
            self.piece(call.block, out, |delta| arguments(delta, r#"{"input":""#));
        }
    }

    fn open(&mut self, block: u32, kind: Kind, out: &mut Vec<u8>, content: impl FnOnce(&mut Object<'_>)) {
        if self.open.len() >= MAX_OPEN {
            return;
        }
        let index = self.blocks;
        self.blocks = self.blocks.saturating_add(1);
        self.open.push(Open { block, index, kind });
        write(out, "content_block_start", |event| {
            event.value("index", index);
            let mut object = Object::open(event.member("content_block"));
            content(&mut object);
            object.close();
        });
    }

    fn block_start(&mut self, block: u32, kind: &Block<'_>, out: &mut Vec<u8>) {
        match kind {
            Block::Text | Block::Refusal => {
                self.refused |= matches!(kind, Block::Refusal);
                self.open(block, Kind::Other, out, |block| {
                    block.value("type", "text");
                    block.value("text", "");
                });
            }
            Block::Thinking { .. } => self.open(block, Kind::Thinking, out, |block| {
                block.value("type", "thinking");
                block.value("thinking", "");
                block.value("signature", "");
            }),
            Block::Encrypted { data, id } => self.open(block, Kind::Other, out, |block| {
                block.value("type", "redacted_thinking");
                block.value("data", opaque::pack(data, id));
            }),
            Block::ToolCall { id, name, custom } => {
                self.call = Some(Call { block, id: id.to_string(), name: name.to_string(), custom: *custom });
            }
            Block::Image(media) => self.open(block, Kind::Other, out, |block| {
                block.value("type", "image");
                write_media(block.member("source"), &media.source);
            }),
            // Nothing that clients of this dialect could play.
            Block::Audio => {}
        }
    }

    fn delta(&mut self, block: u32, delta: &Delta<'_>, out: &mut Vec<u8>) {
        let Some(open) = self.open.iter().find(|open| open.block == block) else { return };
        let kind = open.kind;
        // Google's under a text, which only calls can carry here; and what can't be played.
        if matches!(delta, Delta::Audio(_)) || matches!(delta, Delta::Signature(_)) && kind != Kind::Thinking
        {
            return;
        }
        if let Delta::Citation(citation) = delta
            && !citations::is_writable(citation)
        {
            return;
        }
        self.piece(block, out, |object| match delta {
            Delta::Text(text) | Delta::Refusal(text) => {
                object.value("type", "text_delta");
                object.value("text", text);
            }
            Delta::Thinking(text) => {
                object.value("type", "thinking_delta");
                object.value("thinking", text);
            }
            Delta::Arguments(text) if kind == Kind::Custom => arguments(object, &escaped(text)),
            Delta::Arguments(text) => arguments(object, text),
            Delta::Signature(signature) => {
                object.value("type", "signature_delta");
                object.value("signature", signature);
            }
            Delta::Citation(citation) => {
                object.value("type", "citations_delta");
                citations::write(object.member("citation"), citation);
            }
            Delta::Audio(_) => {}
        });
    }

    /// Writes a delta of an open block.
    fn piece(&self, block: u32, out: &mut Vec<u8>, content: impl FnOnce(&mut Object<'_>)) {
        let Some(open) = self.open.iter().find(|open| open.block == block) else { return };
        write(out, "content_block_delta", |event| {
            event.value("index", open.index);
            let mut delta = Object::open(event.member("delta"));
            content(&mut delta);
            delta.close();
        });
    }

    fn block_stop(&mut self, block: u32, out: &mut Vec<u8>) {
        let Some(at) = self.open.iter().position(|open| open.block == block) else { return };
        if self.open.get(at).is_some_and(|open| open.kind == Kind::Custom) {
            self.piece(block, out, |delta| arguments(delta, r#""}"#));
        }
        let open = self.open.remove(at);
        write(out, "content_block_stop", |event| event.value("index", open.index));
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.flush(None, out);
        while let Some(open) = self.open.first() {
            self.block_stop(open.block, out);
        }
        let finish = self.finish.as_ref();
        write(out, "message_delta", |event| {
            let mut delta = Object::open(event.member("delta"));
            delta.value("stop_reason", stop_reason(finish, self.calls, self.refused));
            delta.value("stop_sequence", stop_sequence(finish));
            delta.close();
            usage::write(Object::open(event.member("usage")), &self.usage, ServiceTier::default());
        });
        write(out, "message_stop", |_| {});
        self.ended = true;
    }
}

/// One event, with its name twice, as Anthropic has it.
fn write(out: &mut Vec<u8>, name: &str, content: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    let mut event = Object::open(out);
    event.value("type", name);
    content(&mut event);
    event.close();
    out.extend_from_slice(b"\n\n");
}

fn arguments(delta: &mut Object<'_>, json: &str) {
    delta.value("type", "input_json_delta");
    delta.value("partial_json", json);
}

fn owned(finish: &Finish<'_>) -> Finish<'static> {
    match finish {
        Finish::Stop | Finish::Other(_) => Finish::Stop,
        Finish::StopSequence(sequence) => Finish::StopSequence(sequence.clone().into_owned().into()),
        Finish::Length => Finish::Length,
        Finish::ToolCalls => Finish::ToolCalls,
        Finish::ContentFilter => Finish::ContentFilter,
        Finish::Refusal => Finish::Refusal,
        Finish::Pause => Finish::Pause,
        Finish::MalformedCall => Finish::MalformedCall,
        Finish::Error => Finish::Error,
    }
}
