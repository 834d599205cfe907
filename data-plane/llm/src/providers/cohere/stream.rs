//! Streams of `/v2/chat`, whose events name their type themselves.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::response::{self, Logprob, Piece, Tokens};
use crate::{
    ServiceTier, UpstreamErrorInfo,
    codec::CodecError,
    ir::{self, Block, Delta, Event},
    providers::read::{self, Str},
};

/// Reads the events of one answer. At most one block is open at a time: Cohere interleaves nothing.
#[derive(Debug, Default)]
pub struct Decoder {
    open: Option<(Kind, u32)>,
    /// Blocks so far.
    blocks: u32,
    started: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Plan,
    ToolCall,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<Logprob<'a>>,
    /// Of an error that is no event of the stream.
    #[serde(borrow)]
    message: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<Piece<'a>>,
    #[serde(borrow)]
    tool_plan: Option<Str<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Call<'a>>,
    #[serde(borrow)]
    citations: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    arguments: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Last<'a> {
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    usage: Option<Tokens>,
    #[serde(borrow)]
    error: Option<Str<'a>>,
}

impl Decoder {
    /// # Errors
    /// When it is no event of this API.
    pub fn event<'a>(&mut self, data: &'a [u8], out: &mut ir::Events<'a>) -> Result<(), CodecError> {
        // The compatibility layer ends like this, and proxies before the API do.
        if self.ended || data == b"[DONE]" {
            return Ok(());
        }
        let said: Said<'a> = read::body(data)?;
        let Some(kind) = said.kind else {
            let Some(message) = said.message else { return Ok(()) };
            self.fail(&message.0, out);
            return Ok(());
        };
        match (&*kind.0, said.delta) {
            ("message-start", _) => self.start(read::text(said.id), out),
            ("message-end", delta) => self.end(delta, out)?,
            ("content-start" | "content-delta", Some(delta)) => {
                self.content(wrapped(delta)?, out)?;
                if let Some(logprobs) = said.logprobs.and_then(|it| response::logprobs(&[it])) {
                    out.push(Event::Logprobs { choice: 0, logprobs });
                }
            }
            ("tool-plan-delta", Some(delta)) => {
                if let Some(plan) = wrapped(delta)?.tool_plan {
                    self.put(Kind::Plan, Block::Text, Delta::Text(plan.0), out)?;
                }
            }
            ("tool-call-start", Some(delta)) => self.call(wrapped(delta)?, out)?,
            ("tool-call-delta", Some(delta)) => {
                let function = wrapped(delta)?.tool_calls.and_then(|call| call.function);
                self.arguments(function.and_then(|function| function.arguments), out)?;
            }
            ("tool-call-end", _) => self.close(out),
            // The end of a text isn't told until something else begins: citations of it come after it.
            ("citation-start", Some(delta)) => {
                let citation = wrapped(delta)?.citations.and_then(response::citation);
                if let (Some((_, citation)), Some((Kind::Text, block))) = (citation, self.open) {
                    out.push(Event::Delta { choice: 0, block, delta: Delta::Citation(citation) });
                }
            }
            // Ends that say nothing, and what is newer than this.
            _ => {}
        }
        Ok(())
    }

    /// See [`crate::codec::Decoder::finish`]: only `message-end` says that an answer is complete.
    pub fn finish(&mut self, out: &mut ir::Events<'static>) {
        let _ = out;
    }

    fn start<'a>(&mut self, id: Option<ir::Text<'a>>, out: &mut ir::Events<'a>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Start {
                id: id.unwrap_or_default(),
                model: Cow::Borrowed(""),
                created: None,
                service_tier: ServiceTier::default(),
            });
        }
    }

    /// The first piece of a text or a thought, mostly empty, or another one.
    fn content<'a>(&mut self, message: Message<'a>, out: &mut ir::Events<'a>) -> Result<(), CodecError> {
        let Some(piece) = message.content else { return Ok(()) };
        if let Some(thinking) = piece.thinking.filter(|it| !it.0.is_empty()) {
            let begins = Block::Thinking { id: Cow::Borrowed("") };
            return self.put(Kind::Thinking, begins, Delta::Thinking(thinking.0), out);
        }
        match piece.text.filter(|it| !it.0.is_empty()) {
            Some(text) => self.put(Kind::Text, Block::Text, Delta::Text(text.0), out),
            None => Ok(()),
        }
    }

    fn call<'a>(&mut self, message: Message<'a>, out: &mut ir::Events<'a>) -> Result<(), CodecError> {
        let Some(call) = message.tool_calls else { return Ok(()) };
        let (name, arguments) = call.function.map(|it| (it.name, it.arguments)).unwrap_or_default();
        let Some(name) = name else {
            return Err(CodecError::invalid(
                "delta.message.tool_calls.function.name",
                "The upstream's stream has a call of a function without a name.",
            ));
        };
        let id = read::text(call.id).unwrap_or_default();
        self.begin(Kind::ToolCall, Block::ToolCall { id, name: name.0, custom: false }, out)?;
        self.arguments(arguments, out)
    }

    fn arguments<'a>(
        &mut self,
        arguments: Option<Str<'a>>,
        out: &mut ir::Events<'a>,
    ) -> Result<(), CodecError> {
        let Some(arguments) = arguments.filter(|it| !it.0.is_empty()) else { return Ok(()) };
        let Some((Kind::ToolCall, block)) = self.open else {
            return Err(CodecError::invalid(
                "delta.message.tool_calls",
                "The upstream's stream has a piece of a call that has not begun.",
            ));
        };
        out.push(Event::Delta { choice: 0, block, delta: Delta::Arguments(arguments.0) });
        Ok(())
    }

    /// A piece of the open block, which begins if it is of another kind.
    fn put<'a>(
        &mut self,
        kind: Kind,
        begins: Block<'a>,
        delta: Delta<'a>,
        out: &mut ir::Events<'a>,
    ) -> Result<(), CodecError> {
        let block = match self.open {
            Some((open, block)) if open == kind => block,
            _ => self.begin(kind, begins, out)?,
        };
        out.push(Event::Delta { choice: 0, block, delta });
        Ok(())
    }

    fn begin<'a>(
        &mut self,
        kind: Kind,
        begins: Block<'a>,
        out: &mut ir::Events<'a>,
    ) -> Result<u32, CodecError> {
        self.start(None, out);
        self.close(out);
        let block = self.blocks;
        self.blocks = block
            .checked_add(1)
            .ok_or_else(|| CodecError::invalid("index", "The upstream's stream has too many blocks."))?;
        out.push(Event::BlockStart { choice: 0, block, kind: begins });
        self.open = Some((kind, block));
        Ok(block)
    }

    fn close(&mut self, out: &mut ir::Events<'_>) {
        if let Some((_, block)) = self.open.take() {
            out.push(Event::BlockStop { choice: 0, block });
        }
    }

    fn end<'a>(&mut self, delta: Option<&'a RawValue>, out: &mut ir::Events<'a>) -> Result<(), CodecError> {
        let last: Option<Last<'a>> = delta.map(|delta| read::value("delta", delta.get())).transpose()?;
        self.start(None, out);
        let Some(last) = last else {
            self.fail("The upstream's stream ended without a reason.", out);
            return Ok(());
        };
        out.extend(last.usage.map(|usage| Event::Usage(usage.usage())));
        if let Some(error) = last.error.filter(|error| !error.0.is_empty()) {
            self.fail(&error.0, out);
            return Ok(());
        }
        self.close(out);
        let finish = last.finish_reason.map_or(ir::Finish::Stop, |reason| response::finish(reason.0));
        out.push(Event::Finish { choice: 0, finish });
        out.push(Event::End);
        self.ended = true;
        Ok(())
    }

    fn fail(&mut self, message: &str, out: &mut ir::Events<'_>) {
        let message = &message[..message.floor_char_boundary(UpstreamErrorInfo::MAX_MESSAGE)];
        out.push(Event::Error(UpstreamErrorInfo {
            message: Some(message.to_owned()),
            kind: Some("api_error".to_owned()),
            ..UpstreamErrorInfo::default()
        }));
        self.ended = true;
    }
}

fn wrapped(delta: &RawValue) -> Result<Message<'_>, CodecError> {
    Ok(read::value::<Wrapped<'_>>("delta", delta.get())?.message)
}

#[cfg(test)]
mod tests;
