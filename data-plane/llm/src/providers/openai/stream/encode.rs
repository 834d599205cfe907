//! Events as chunks, for a client that asked in this dialect (requirements E.3). A chunk is written straight into the
//! buffer: all but its delta is the same for every chunk, and is written once.

use nemo_types::Usage;

use super::super::{
    response::{annotation, call_id, extra_content, head, image, is_shown, length},
    usage,
};
use crate::{
    Echo,
    ir::{Block, Citation, Delta, Event},
    providers::write::{self, Object},
};

#[derive(Debug)]
pub struct Encoder {
    echo: Echo,
    /// `data: {"id":…,"object":…,"created":…,"model":…`
    head: Vec<u8>,
    service_tier: Box<str>,
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Debug, Default)]
struct Choice {
    index: u32,
    /// Calls so far.
    calls: usize,
    /// Items of `reasoning_details` so far.
    details: usize,
    images: usize,
    /// Characters of text so far, and how many they were when the block of text began.
    written: u32,
    began: u32,
    open: Vec<Open>,
}

/// A block that is not closed.
#[derive(Debug)]
struct Open {
    block: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text,
    /// The number of its item.
    Thinking(usize),
    Call {
        index: usize,
        custom: bool,
        /// Name of a call without id that is not written yet: its signature, which comes next, goes into the id.
        held: Option<Box<str>>,
        /// Some of its arguments are written.
        said: bool,
    },
    Other,
}

impl Encoder {
    pub fn new(echo: Echo) -> Self {
        Self { echo, head: Vec::new(), service_tier: Box::default(), choices: Vec::new(), usage: None }
    }

    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created, service_tier } => {
                self.head.clear();
                self.head.extend_from_slice(b"data: ");
                let mut object = Object::open(&mut self.head);
                head(&mut object, "chat.completion.chunk", id, model, *created, &self.echo);
                self.service_tier = service_tier.openai().unwrap_or_default().into();
            }
            Event::BlockStart { choice, block, kind } => self.start(*choice, *block, kind, out),
            Event::Delta { choice, block, delta } => self.delta(*choice, *block, delta, out),
            Event::BlockStop { choice, block } => {
                self.release(*choice, *block, None, out);
                self.stop(*choice, *block, out);
            }
            Event::Logprobs { choice, logprobs } => {
                self.role(*choice, out);
                self.chunk(*choice, out, |_| {}, Some(logprobs.get()), None);
            }
            Event::Finish { choice, finish } => {
                self.role(*choice, out);
                self.chunk(*choice, out, |_| {}, None, Some(finish.reason().as_str()));
            }
            Event::Usage(counts) => self.usage = Some(*counts),
            Event::Error(_) => {}
            Event::End => {
                self.end(out);
            }
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        if let Some(counts) = self.usage.as_ref().filter(|_| self.echo.include_usage) {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b",\"choices\":[],\"usage\":");
            usage::write(out, counts);
            self.tail(out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn tail(&self, out: &mut Vec<u8>) {
        if !self.service_tier.is_empty() {
            out.extend_from_slice(b",\"service_tier\":");
            write::text(out, &self.service_tier);
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// One chunk of one choice.
    fn chunk(
        &self,
        choice: u32,
        out: &mut Vec<u8>,
        delta: impl FnOnce(&mut Object<'_>),
        logprobs: Option<&str>,
        finish: Option<&str>,
    ) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[");
        write::object(out, |out| {
            out.value("index", choice);
            out.object("delta", delta);
            out.raw("logprobs", logprobs.unwrap_or("null"));
            match finish {
                Some(reason) => out.text("finish_reason", reason),
                None => out.raw("finish_reason", "null"),
            }
        });
        out.push(b']');
        if self.echo.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        self.tail(out);
    }

    /// The role comes first, once.
    fn role(&mut self, choice: u32, out: &mut Vec<u8>) -> usize {
        if let Some(at) = self.choices.iter().position(|of| of.index == choice) {
            return at;
        }
        self.choices.push(Choice { index: choice, ..Choice::default() });
        self.chunk(
            choice,
            out,
            |out| {
                out.text("role", "assistant");
                out.text("content", "");
            },
            None,
            None,
        );
        self.choices.len() - 1
    }

    fn start(&mut self, choice: u32, block: u32, kind: &Block<'_>, out: &mut Vec<u8>) {
        let at = self.role(choice, out);
        let of = &mut self.choices[at];
        let open = match kind {
            Block::Text => {
                of.began = of.written;
                Kind::Text
            }
            Block::Thinking { .. } => {
                of.details += 1;
                Kind::Thinking(of.details - 1)
            }
            Block::Encrypted { data, id } => {
                let index = of.details;
                of.details += 1;
                self.encrypted(choice, index, data, id, out);
                Kind::Other
            }
            Block::ToolCall { id, name, custom } => {
                let index = of.calls;
                of.calls += 1;
                let held = id.is_empty().then(|| name.as_ref().into());
                if held.is_none() {
                    let id = call_id(id, None, choice, index, &self.echo);
                    self.call(choice, out, index, &id, name, *custom, None);
                }
                Kind::Call { index, custom: *custom, held, said: false }
            }
            Block::Image(picture) => {
                let index = of.images;
                of.images += 1;
                if is_shown(picture) {
                    let write = |out: &mut Object<'_>| {
                        out.array("images", [()], |out, ()| image(out, index, picture))
                    };
                    self.chunk(choice, out, write, None, None);
                }
                Kind::Other
            }
            Block::Refusal | Block::Audio => Kind::Other,
        };
        self.choices[at].open.push(Open { block, kind: open });
    }

    fn encrypted(&self, choice: u32, index: usize, data: &str, id: &str, out: &mut Vec<u8>) {
        let write = |out: &mut Object<'_>| {
            detail(out, index, |out| {
                out.text("type", "reasoning.encrypted");
                out.text("data", data);
                if !id.is_empty() {
                    out.text("id", id);
                }
            });
        };
        self.chunk(choice, out, write, None, None);
    }

    #[expect(clippy::too_many_arguments, reason = "all that a call begins with")]
    fn call(
        &self,
        choice: u32,
        out: &mut Vec<u8>,
        index: usize,
        id: &str,
        name: &str,
        custom: bool,
        signature: Option<&str>,
    ) {
        let write = |out: &mut Object<'_>| {
            piece(out, index, |out| {
                out.text("id", id);
                let (kind, payload) = if custom { ("custom", "input") } else { ("function", "arguments") };
                out.text("type", kind);
                out.object(kind, |out| {
                    out.text("name", name);
                    out.text(payload, "");
                });
                if let Some(signature) = signature {
                    extra_content(out, signature);
                }
            });
        };
        self.chunk(choice, out, write, None, None);
    }

    /// Writes the beginning of a call that was held. False when none was.
    fn release(&mut self, choice: u32, block: u32, signature: Option<&str>, out: &mut Vec<u8>) -> bool {
        let of = self.choices.iter_mut().find(|of| of.index == choice);
        let open = of.and_then(|of| of.open.iter_mut().find(|open| open.block == block));
        let Some(Open { kind: Kind::Call { index, custom, held, .. }, .. }) = open else { return false };
        let (index, custom) = (*index, *custom);
        let Some(name) = held.take() else { return false };
        let id = call_id("", signature, choice, index, &self.echo);
        self.call(choice, out, index, &id, &name, custom, signature);
        true
    }

    fn stop(&mut self, choice: u32, block: u32, out: &mut Vec<u8>) {
        let Some(of) = self.choices.iter_mut().find(|of| of.index == choice) else { return };
        let Some(at) = of.open.iter().position(|open| open.block == block) else { return };
        // Clients parse what they have collected, and fail on nothing.
        if let Kind::Call { index, custom: false, said: false, .. } = of.open.remove(at).kind {
            self.arguments(choice, index, false, "{}", out);
        }
    }

    /// A piece of the arguments of a call.
    fn arguments(&self, choice: u32, index: usize, custom: bool, text: &str, out: &mut Vec<u8>) {
        let (kind, payload) = if custom { ("custom", "input") } else { ("function", "arguments") };
        let write = |out: &mut Object<'_>| {
            piece(out, index, |out| out.object(kind, |out| out.text(payload, text)));
        };
        self.chunk(choice, out, write, None, None);
    }

    fn delta(&mut self, choice: u32, block: u32, delta: &Delta<'_>, out: &mut Vec<u8>) {
        let signature = match delta {
            Delta::Signature(signature) => Some(&**signature),
            _ => None,
        };
        let released = self.release(choice, block, signature, out);
        let at = self.role(choice, out);
        let of = &mut self.choices[at];
        let Some(open) = of.open.iter_mut().find(|open| open.block == block) else { return };
        match (delta, &mut open.kind) {
            (Delta::Text(text), _) => {
                of.written = of.written.saturating_add(length(text));
                self.chunk(choice, out, |out| out.text("content", text), None, None);
            }
            (Delta::Thinking(text), Kind::Thinking(index)) => {
                let index = *index;
                let write = |out: &mut Object<'_>| {
                    out.text("reasoning_content", text);
                    detail(out, index, |out| {
                        out.text("type", "reasoning.text");
                        out.text("text", text);
                    });
                };
                self.chunk(choice, out, write, None, None);
            }
            (Delta::Signature(signature), Kind::Thinking(index)) => {
                let index = *index;
                let write = |out: &mut Object<'_>| {
                    detail(out, index, |out| {
                        out.text("type", "reasoning.text");
                        out.text("signature", signature);
                    });
                };
                self.chunk(choice, out, write, None, None);
            }
            (Delta::Signature(signature), Kind::Call { index, .. }) if !released => {
                let index = *index;
                let write = |out: &mut Object<'_>| piece(out, index, |out| extra_content(out, signature));
                self.chunk(choice, out, write, None, None);
            }
            (Delta::Signature(signature), Kind::Text) => {
                self.chunk(choice, out, |out| extra_content(out, signature), None, None);
            }
            (Delta::Arguments(text), Kind::Call { index, custom, said, .. }) => {
                let (index, custom) = (*index, *custom);
                *said |= !text.is_empty();
                self.arguments(choice, index, custom, text, out);
            }
            (Delta::Refusal(text), _) => {
                self.chunk(choice, out, |out| out.text("refusal", text), None, None);
            }
            (Delta::Citation(citation), _) => {
                let around = (of.began, of.written);
                self.citation(choice, citation, around, out);
            }
            (Delta::Audio(json), _) => {
                self.chunk(choice, out, |out| out.raw("audio", json.get()), None, None)
            }
            (Delta::Thinking(_) | Delta::Signature(_) | Delta::Arguments(_), _) => {}
        }
    }

    /// Only what has a URL: the rest means something to its own dialect alone.
    fn citation(&self, choice: u32, citation: &Citation<'_>, around: (u32, u32), out: &mut Vec<u8>) {
        if citation.url.is_none() {
            return;
        }
        let write = |out: &mut Object<'_>| {
            out.array("annotations", [()], |out, ()| annotation(out, citation, around));
        };
        self.chunk(choice, out, write, None, None);
    }
}

/// A list of one call, by its place in the whole list.
fn piece(out: &mut Object<'_>, index: usize, write: impl FnOnce(&mut Object<'_>)) {
    list("tool_calls", out, |out| {
        out.value("index", index);
        write(out);
    });
}

/// A list of one item of `reasoning_details`.
fn detail(out: &mut Object<'_>, index: usize, write: impl FnOnce(&mut Object<'_>)) {
    list("reasoning_details", out, |out| {
        write(out);
        out.value("index", index);
    });
}

fn list(name: &str, out: &mut Object<'_>, write: impl FnOnce(&mut Object<'_>)) {
    let out = out.member(name);
    out.push(b'[');
    write::object(out, write);
    out.push(b']');
}
