//! Streams of ConverseStream, event by event. A block of text or thought has no event of its own that begins it; a
//! stream ends with `metadata`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{errors, response};
use crate::{
    ServiceTier,
    codec::CodecError,
    ir::{self, Block, Delta, Event},
    providers::read::{self, Str},
};

/// Blocks that may be open at the same time.
const MAX_OPEN: usize = 64;

/// Reads the events of one answer.
#[derive(Debug, Default)]
pub struct Decoder {
    open: SmallVec<[Open; 2]>,
    /// Blocks so far.
    blocks: u32,
    stage: Stage,
}

/// A block that has begun.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// What Bedrock counts it by.
    index: u64,
    block: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    ToolCall,
    /// Something that clients don't see.
    Hidden,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Before,
    Started,
    /// Why it stopped is known, but not yet what it consumed.
    Stopped,
    Ended,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStart<'a> {
    content_block_index: u64,
    #[serde(borrow)]
    start: Option<Start<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    #[serde(borrow)]
    tool_use: Option<ToolUse<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse<'a> {
    #[serde(borrow)]
    tool_use_id: Str<'a>,
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockDelta<'a> {
    content_block_index: u64,
    #[serde(borrow)]
    delta: Piece<'a>,
}

/// A union.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    tool_use: Option<Input<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Reasoning<'a>>,
    #[serde(borrow)]
    citation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    input: Str<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
    #[serde(borrow)]
    redacted_content: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStop {
    content_block_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stop<'a> {
    #[serde(borrow)]
    stop_reason: Str<'a>,
    #[serde(borrow)]
    additional_model_response_fields: Option<response::Additional<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    usage: Option<response::Tokens>,
}

impl Decoder {
    /// Takes one event; `name` is its `:event-type` or `:exception-type`.
    ///
    /// # Errors
    /// When it is none of this API.
    pub fn event<'a>(
        &mut self,
        name: &str,
        data: &'a [u8],
        out: &mut ir::Events<'a>,
    ) -> Result<(), CodecError> {
        if self.stage == Stage::Ended {
            return Ok(());
        }
        match name {
            "contentBlockDelta" => self.delta(read::body(data)?, out)?,
            "contentBlockStart" => self.block(read::body(data)?, out)?,
            "contentBlockStop" => {
                let stop: BlockStop = read::body(data)?;
                self.close(|open| open.index == stop.content_block_index, out);
            }
            "messageStart" => self.start(out),
            "messageStop" => self.stop(read::body(data)?, out),
            "metadata" => {
                let metadata: Metadata = read::body(data)?;
                self.start(out);
                out.extend(metadata.usage.map(|usage| Event::Usage(usage.usage())));
                if self.stage == Stage::Stopped {
                    self.stage = Stage::Ended;
                    out.push(Event::End);
                }
            }
            _ if name.ends_with("Exception") || name == crate::aws_event_stream::Frame::ERROR => {
                self.stage = Stage::Ended;
                out.push(Event::Error(errors::exception(name, data)));
            }
            // Newer than this, and so nothing that a client could expect.
            _ => {}
        }
        Ok(())
    }

    /// See [`crate::codec::Decoder::finish`].
    pub fn finish(&mut self, out: &mut ir::Events<'static>) {
        if self.stage == Stage::Stopped {
            self.stage = Stage::Ended;
            out.push(Event::End);
        }
    }

    fn start(&mut self, out: &mut ir::Events<'_>) {
        if self.stage == Stage::Before {
            self.stage = Stage::Started;
            out.push(Event::Start {
                id: Cow::Borrowed(""),
                model: Cow::Borrowed(""),
                created: None,
                service_tier: ServiceTier::default(),
            });
        }
    }

    fn block<'a>(&mut self, said: BlockStart<'a>, out: &mut ir::Events<'a>) -> Result<(), CodecError> {
        self.start(out);
        // Of text and thoughts the first piece tells the kind.
        let Some(call) = said.start.and_then(|start| start.tool_use) else { return Ok(()) };
        if call.kind.is_some() {
            return self.open(said.content_block_index, Kind::Hidden, None, out).map(|_| ());
        }
        let kind = Block::ToolCall { id: call.tool_use_id.0, name: call.name.0, custom: false };
        self.open(said.content_block_index, Kind::ToolCall, Some(kind), out).map(|_| ())
    }

    fn delta<'a>(&mut self, said: BlockDelta<'a>, out: &mut ir::Events<'a>) -> Result<(), CodecError> {
        self.start(out);
        let (index, piece) = (said.content_block_index, said.delta);
        if let Some(text) = piece.text {
            return self.put(index, Kind::Text, Delta::Text(text.0), out);
        }
        if let Some(call) = piece.tool_use {
            return self.put(index, Kind::ToolCall, Delta::Arguments(call.input.0), out);
        }
        if let Some(citation) = piece.citation.and_then(response::citation) {
            return self.put(index, Kind::Text, Delta::Citation(citation), out);
        }
        let Some(thought) = piece.reasoning_content else { return Ok(()) };
        if let Some(text) = thought.text {
            self.put(index, Kind::Thinking, Delta::Thinking(text.0), out)?;
        }
        if let Some(signature) = thought.signature {
            self.put(index, Kind::Thinking, Delta::Signature(signature.0), out)?;
        }
        if let Some(data) = thought.redacted_content {
            self.make_room(Kind::Thinking, out);
            let block = self.next()?;
            let kind = Block::Encrypted { data: data.0, id: Cow::Borrowed("") };
            out.push(Event::BlockStart { choice: 0, block, kind });
            out.push(Event::BlockStop { choice: 0, block });
        }
        Ok(())
    }

    /// A piece of the block with this index, which begins if there is none of its kind.
    fn put<'a>(
        &mut self,
        index: u64,
        kind: Kind,
        delta: Delta<'a>,
        out: &mut ir::Events<'a>,
    ) -> Result<(), CodecError> {
        let block = match self.open.iter().find(|open| open.index == index) {
            Some(open) if open.kind == Kind::Hidden => return Ok(()),
            Some(open) if open.kind == kind => open.block,
            _ => {
                let begins = match kind {
                    Kind::Text => Block::Text,
                    Kind::Thinking => Block::Thinking { id: Cow::Borrowed("") },
                    Kind::ToolCall | Kind::Hidden => {
                        return Err(CodecError::invalid(
                            "delta.toolUse",
                            "The upstream's stream has a piece of a call that has not begun.",
                        ));
                    }
                };
                self.close(|open| open.index == index, out);
                self.open(index, kind, Some(begins), out)?
            }
        };
        out.push(Event::Delta { choice: 0, block, delta });
        Ok(())
    }

    fn open<'a>(
        &mut self,
        index: u64,
        kind: Kind,
        begins: Option<Block<'a>>,
        out: &mut ir::Events<'a>,
    ) -> Result<u32, CodecError> {
        if begins.is_some() {
            self.make_room(kind, out);
        }
        self.close(|open| open.index == index, out);
        if self.open.len() == MAX_OPEN {
            return Err(CodecError::invalid(
                "contentBlockIndex",
                "The upstream's stream has more than 64 open blocks.",
            ));
        }
        let mut block = 0;
        if let Some(kind) = begins {
            block = self.next()?;
            out.push(Event::BlockStart { choice: 0, block, kind });
        }
        self.open.push(Open { index, block, kind });
        Ok(block)
    }

    /// Only calls may be open beside each other.
    fn make_room(&mut self, kind: Kind, out: &mut ir::Events<'_>) {
        let beside =
            |open: &Open| open.kind == Kind::Hidden || (open.kind, kind) == (Kind::ToolCall, Kind::ToolCall);
        self.close(|open| !beside(open), out);
    }

    fn next(&mut self) -> Result<u32, CodecError> {
        let block = self.blocks;
        self.blocks = block.checked_add(1).ok_or_else(|| {
            CodecError::invalid("contentBlockIndex", "The upstream's stream has too many blocks.")
        })?;
        Ok(block)
    }

    fn close(&mut self, mut closes: impl FnMut(&Open) -> bool, out: &mut ir::Events<'_>) {
        self.open.retain(|open| {
            let ends = closes(open);
            if ends && open.kind != Kind::Hidden {
                out.push(Event::BlockStop { choice: 0, block: open.block });
            }
            !ends
        });
    }

    fn stop<'a>(&mut self, said: Stop<'a>, out: &mut ir::Events<'a>) {
        self.start(out);
        if self.stage == Stage::Stopped {
            return;
        }
        self.close(|_| true, out);
        let met = said.additional_model_response_fields.and_then(response::Additional::stop_sequence);
        out.push(Event::Finish { choice: 0, finish: response::finish(said.stop_reason.0, met) });
        self.stage = Stage::Stopped;
    }
}

#[cfg(test)]
mod tests;
