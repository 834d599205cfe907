//! The events of an upstream.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{
    response,
    wire::{self, Answer, Item, Str},
};
use crate::{
    codec::CodecError,
    ir::{Block, Delta, Event, Events, Finish, Media, Source},
};

/// Most blocks that may be open at once. Items come one after the other, or a few at a time.
const MAX_OPEN: usize = 1024;

#[derive(Debug, Default)]
pub struct Decoder {
    started: bool,
    ended: bool,
    /// The model has called a function.
    called: bool,
    /// Blocks so far.
    blocks: u32,
    open: Vec<Open>,
}

/// A block that has begun.
#[derive(Debug)]
struct Open {
    item: u32,
    part: Part,
    block: u32,
    /// Something of it was told.
    told: bool,
}

/// What of an item it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Content(u32),
    Thoughts,
    Call,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Data<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    output_index: Option<u32>,
    content_index: Option<u32>,
    summary_index: Option<u32>,
    #[serde(borrow)]
    item_id: Str<'a>,
    #[serde(borrow)]
    delta: Str<'a>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    part: Option<&'a RawValue>,
    #[serde(borrow)]
    annotation: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Decoder {
    /// # Errors
    /// When it is no event of this API.
    pub fn event<'a>(&mut self, data: &'a [u8], out: &mut Events<'a>) -> Result<(), CodecError> {
        if self.ended || data == b"[DONE]" {
            return Ok(());
        }
        let event: Data<'a> = serde_json::from_slice(data).map_err(|error| {
            CodecError::invalid(
                "",
                format!("An event of the upstream is no JSON object of this API: {error}."),
            )
        })?;
        let (item, content) = (event.output_index.unwrap_or(0), event.content_index.unwrap_or(0));
        match event.kind.as_str() {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.start(event.response, out)
            }
            "response.output_item.added" => self.item_added(item, event.item, out)?,
            "response.content_part.added" => self.part_added(item, content, event.part, out)?,
            "response.output_text.delta" => {
                let at = self.block(item, Part::Content(content), out, || Block::Text)?;
                self.delta(at, Delta::Text(event.delta.text()), out);
                if let Some(logprobs) = response::logprobs(&wire::list(event.logprobs)) {
                    out.push(Event::Logprobs { choice: 0, logprobs });
                }
            }
            "response.refusal.delta" => {
                let at = self.block(item, Part::Content(content), out, || Block::Refusal)?;
                self.delta(at, Delta::Refusal(event.delta.text()), out);
            }
            "response.output_text.annotation.added" => {
                if let Some(annotation) = event.annotation {
                    let at = self.block(item, Part::Content(content), out, || Block::Text)?;
                    self.delta(at, Delta::Citation(wire::citation(annotation)), out);
                }
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                let id = event.item_id.text();
                let at = self.block(item, Part::Thoughts, out, || Block::Thinking { id })?;
                self.delta(at, Delta::Thinking(event.delta.text()), out);
            }
            // A second paragraph of the summary.
            "response.reasoning_summary_part.added" if event.summary_index.is_some_and(|index| index > 0) => {
                if let Some(at) = self.find(item, Part::Thoughts).filter(|at| self.open[*at].told) {
                    self.delta(at, Delta::Thinking(Cow::Borrowed("\n\n")), out);
                }
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                // Without the item that says what is called, they are of no use.
                if let Some(at) = self.find(item, Part::Call) {
                    self.delta(at, Delta::Arguments(event.delta.text()), out);
                }
            }
            "response.content_part.done" => {
                if let Some(at) = self.find(item, Part::Content(content)) {
                    self.stop(at, out);
                }
            }
            "response.output_item.done" => self.item_done(item, event.item, out)?,
            "response.completed" | "response.incomplete" => self.end(event.response, out),
            "response.failed" => {
                let answer: Answer<'_> = wire::lenient(event.response).unwrap_or_default();
                self.ended = true;
                out.push(Event::Error(answer.failure()));
            }
            "error" => {
                self.ended = true;
                let whole = serde_json::from_slice(data).ok();
                out.push(Event::Error(wire::failure(event.error.or(whole))));
            }
            "" => {
                // Some services send errors without a type, as Chat Completions does.
                let Some(error) = event.error else {
                    return Err(CodecError::invalid("type", "An event of the upstream has no `type`."));
                };
                self.ended = true;
                out.push(Event::Error(wire::failure(Some(error))));
            }
            // The rest repeats what was told, or is of tools that the provider runs itself.
            _ => {}
        }
        Ok(())
    }

    /// Every answer ends with an event that says so.
    pub fn finish(&mut self, _: &mut Events<'static>) {}

    fn start<'a>(&mut self, json: Option<&'a RawValue>, out: &mut Events<'a>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let answer: Answer<'_> = wire::lenient(json).unwrap_or_default();
        let (created, service_tier) = (answer.created(), answer.tier());
        out.push(Event::Start { id: answer.id.text(), model: answer.model.text(), created, service_tier });
    }

    fn item_added<'a>(
        &mut self,
        index: u32,
        json: Option<&'a RawValue>,
        out: &mut Events<'a>,
    ) -> Result<(), CodecError> {
        let item: Item<'a> = wire::lenient(json).unwrap_or_default();
        self.call(index, item, out).map(|_| ())
    }

    /// Begins the call that an item is, if it is one.
    fn call<'a>(
        &mut self,
        index: u32,
        mut item: Item<'a>,
        out: &mut Events<'a>,
    ) -> Result<Option<usize>, CodecError> {
        let custom = match item.kind.as_str() {
            "function_call" => false,
            "custom_tool_call" => true,
            _ => return Ok(None),
        };
        self.called = true;
        let (id, name) = (item.call_id(), item.name.text());
        self.block(index, Part::Call, out, || Block::ToolCall { id, name, custom }).map(Some)
    }

    fn part_added<'a>(
        &mut self,
        item: u32,
        content: u32,
        json: Option<&'a RawValue>,
        out: &mut Events<'a>,
    ) -> Result<(), CodecError> {
        let part: wire::Part<'_> = wire::lenient(json).unwrap_or_default();
        match part.kind.as_str() {
            "output_text" => self.block(item, Part::Content(content), out, || Block::Text).map(|_| ()),
            "refusal" => self.block(item, Part::Content(content), out, || Block::Refusal).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Closes the item's blocks, and tells what of it was not told before.
    fn item_done<'a>(
        &mut self,
        index: u32,
        json: Option<&'a RawValue>,
        out: &mut Events<'a>,
    ) -> Result<(), CodecError> {
        let mut item: Item<'a> = wire::lenient(json).unwrap_or_default();
        match item.kind.as_str() {
            "function_call" | "custom_tool_call" => {
                let custom = item.kind.as_str() == "custom_tool_call";
                let arguments = std::mem::take(if custom { &mut item.input } else { &mut item.arguments });
                if let Some(at) = self.call(index, item, out)?
                    && !self.open[at].told
                    && !arguments.as_str().is_empty()
                {
                    self.delta(at, Delta::Arguments(arguments.text()), out);
                }
            }
            "reasoning" => {
                let text = item.thoughts();
                let id = item.id.text();
                if !text.is_empty() && self.find(index, Part::Thoughts).is_none() {
                    let at = self.block(index, Part::Thoughts, out, || Block::Thinking { id: id.clone() })?;
                    self.delta(at, Delta::Thinking(text), out);
                }
                self.stop_item(index, out);
                let data = item.encrypted_content.text();
                if !data.is_empty() {
                    self.whole(Block::Encrypted { data, id }, out);
                }
            }
            "image_generation_call" if !item.result.as_str().is_empty() => {
                let media_type = Cow::Borrowed(item.image_type());
                let source = Source::Base64 { media_type, data: item.result.text() };
                self.whole(Block::Image(Media { source, detail: None }), out);
            }
            _ => {}
        }
        self.stop_item(index, out);
        Ok(())
    }

    fn end<'a>(&mut self, json: Option<&'a RawValue>, out: &mut Events<'a>) {
        self.start(json, out);
        self.ended = true;
        while let Some(last) = self.open.len().checked_sub(1) {
            self.stop(last, out);
        }
        let answer: Answer<'_> = wire::lenient(json).unwrap_or_default();
        let finish: Finish<'_> = answer.finish(self.called);
        out.push(Event::Finish { choice: 0, finish });
        out.extend(answer.usage().map(Event::Usage));
        out.push(Event::End);
    }

    fn find(&self, item: u32, part: Part) -> Option<usize> {
        self.open.iter().position(|open| open.item == item && open.part == part)
    }

    /// Where the block is among those that are open; begins it if it isn't.
    fn block<'a>(
        &mut self,
        item: u32,
        part: Part,
        out: &mut Events<'a>,
        kind: impl FnOnce() -> Block<'a>,
    ) -> Result<usize, CodecError> {
        if let Some(at) = self.find(item, part) {
            return Ok(at);
        }
        if self.open.len() == MAX_OPEN {
            let message = format!("The upstream's answer has more than {MAX_OPEN} items that don't end.");
            return Err(CodecError::invalid("output_index", message));
        }
        let block = self.next_block();
        out.push(Event::BlockStart { choice: 0, block, kind: kind() });
        self.open.push(Open { item, part, block, told: false });
        Ok(self.open.len() - 1)
    }

    fn next_block(&mut self) -> u32 {
        let block = self.blocks;
        self.blocks = block.saturating_add(1);
        block
    }

    /// A block that comes in one.
    fn whole<'a>(&mut self, kind: Block<'a>, out: &mut Events<'a>) {
        let block = self.next_block();
        out.push(Event::BlockStart { choice: 0, block, kind });
        out.push(Event::BlockStop { choice: 0, block });
    }

    fn delta<'a>(&mut self, at: usize, delta: Delta<'a>, out: &mut Events<'a>) {
        if let Some(open) = self.open.get_mut(at) {
            open.told = true;
            out.push(Event::Delta { choice: 0, block: open.block, delta });
        }
    }

    fn stop(&mut self, at: usize, out: &mut Events<'_>) {
        let open = self.open.remove(at);
        out.push(Event::BlockStop { choice: 0, block: open.block });
    }

    fn stop_item(&mut self, item: u32, out: &mut Events<'_>) {
        while let Some(at) = self.open.iter().position(|open| open.item == item) {
            self.stop(at, out);
        }
    }
}
