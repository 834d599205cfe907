//! Events for a client of Google's. It gets whole calls only, so their arguments are collected; and reasons, usage and
//! citations stand in the last event.

use std::borrow::Cow;

use nemo_types::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{
    citations, finish, logprobs,
    response::{Written, WrittenCandidate},
    signature, usage,
    wire::Str,
    write::{self, Blob, Content, FunctionCall, Known, Part},
};
use crate::{
    codec::Echo,
    ir::{Block, Delta, Event, Finish, Thinking},
};

/// Bytes of arguments that are collected at once; an answer that is longer by so much is no answer.
const MOST_ARGUMENTS: usize = 32 * 1024 * 1024;
/// Calls and thoughts that are open at once.
const MOST_OPEN: usize = 1024;

#[derive(Debug)]
pub struct Encoder {
    echo: Echo,
    id: Box<str>,
    model: Box<str>,
    open: Vec<Open>,
    collected: usize,
    finishes: Vec<(u32, Finish<'static>)>,
    grounding: Vec<Grounding>,
    usage: Option<Usage>,
}

/// A block that is written when it is whole, or whose kind its deltas need.
#[derive(Debug)]
struct Open {
    choice: u32,
    block: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Call { id: String, name: String, arguments: String, custom: bool, signature: Option<String> },
    Thinking { id: String },
}

#[derive(Debug)]
struct Grounding {
    choice: u32,
    written: citations::Written,
}

/// OpenAI's `delta.audio`.
#[derive(Deserialize)]
struct Audio<'a> {
    #[serde(borrow)]
    data: Option<Str<'a>>,
    #[serde(borrow)]
    transcript: Option<Str<'a>>,
}

impl Encoder {
    pub fn new(echo: Echo) -> Self {
        let (id, model) = (echo.id.clone(), echo.model.clone());
        let (open, finishes, grounding) = (Vec::new(), Vec::new(), Vec::new());
        Self { echo, id, model, open, collected: 0, finishes, grounding, usage: None }
    }

    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, .. } => {
                self.id = if id.is_empty() { self.echo.id.clone() } else { (**id).into() };
                self.model = if model.is_empty() { self.echo.model.clone() } else { (**model).into() };
            }
            Event::BlockStart { choice, block, kind } => self.start(*choice, *block, kind, out),
            Event::Delta { choice, block, delta } => self.delta(*choice, *block, delta, out),
            Event::BlockStop { choice, block } => self.stop(*choice, *block, out),
            Event::Logprobs { choice, logprobs } => {
                if let Some(written) = logprobs::write(logprobs) {
                    let candidate =
                        WrittenCandidate { index: *choice, logprobs_result: Some(written), ..no_candidate() };
                    self.send(vec![candidate], None, out);
                }
            }
            Event::Finish { choice, finish } => self.finishes.push((*choice, finish::kept(finish))),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::End => self.end(out),
            Event::Error(_) => {}
        }
    }

    fn start(&mut self, choice: u32, block: u32, kind: &Block<'_>, out: &mut Vec<u8>) {
        let kind = match kind {
            Block::ToolCall { id, name, custom } => Kind::Call {
                id: id.clone().into_owned(),
                name: name.clone().into_owned(),
                arguments: String::new(),
                custom: *custom,
                signature: None,
            },
            Block::Thinking { id } => Kind::Thinking { id: id.clone().into_owned() },
            Block::Encrypted { data, id } => {
                let id = (!id.is_empty()).then(|| id.clone());
                let thinking = Thinking { encrypted: Some(data.clone()), id, ..Thinking::default() };
                let thought_signature = signature::of_thinking(&thinking);
                return self.part(choice, Known { thought: true, thought_signature, ..write::text("") }, out);
            }
            Block::Image(media) => {
                if let Some(known) = write::media(media) {
                    self.part(choice, known, out);
                }
                return;
            }
            Block::Text | Block::Refusal | Block::Audio => return,
        };
        if self.open.len() < MOST_OPEN {
            self.open.push(Open { choice, block, kind });
        }
    }

    fn delta(&mut self, choice: u32, block: u32, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match delta {
            Delta::Text(text) | Delta::Refusal(text) => self.part(choice, write::text(&**text), out),
            Delta::Thinking(text) => self.part(choice, Known { thought: true, ..write::text(&**text) }, out),
            Delta::Arguments(piece) => {
                let room = self.collected.saturating_add(piece.len()) <= MOST_ARGUMENTS;
                if let Some(Kind::Call { arguments, .. }) = self.opened(choice, block)
                    && room
                {
                    arguments.push_str(piece);
                    self.collected += piece.len();
                }
            }
            Delta::Signature(signed) => self.signature(choice, block, signed, out),
            Delta::Citation(citation) => {
                let at = self.grounding.iter().position(|it| it.choice == choice).unwrap_or_else(|| {
                    self.grounding.push(Grounding { choice, written: citations::Written::default() });
                    self.grounding.len() - 1
                });
                self.grounding[at].written.push(citation, None);
            }
            Delta::Audio(json) => self.audio(choice, json, out),
        }
    }

    fn signature(&mut self, choice: u32, block: u32, signed: &str, out: &mut Vec<u8>) {
        let known = match self.opened(choice, block) {
            Some(Kind::Call { signature, .. }) => {
                *signature = Some(signed.to_owned());
                return;
            }
            Some(Kind::Thinking { id }) => {
                let id = (!id.is_empty()).then(|| Cow::Owned(id.clone()));
                let thinking = Thinking { signature: Some(signed.into()), id, ..Thinking::default() };
                let wire = signature::of_thinking(&thinking).map(|it| Cow::Owned(it.into_owned()));
                Known { thought: true, thought_signature: wire, ..write::text("") }
            }
            None => Known { thought_signature: Some(signature::to_wire(signed)), ..write::text("") },
        };
        self.part(choice, known, out);
    }

    fn stop(&mut self, choice: u32, block: u32, out: &mut Vec<u8>) {
        let Some(at) = self.open.iter().position(|it| it.choice == choice && it.block == block) else {
            return;
        };
        let Kind::Call { id, name, arguments, custom, signature } = self.open.remove(at).kind else { return };
        self.collected = self.collected.saturating_sub(arguments.len());
        let args = write::arguments(&arguments, custom);
        let function_call = Some(FunctionCall { id: &id, name: &name, args });
        let thought_signature = signature.as_deref().map(signature::to_wire);
        self.part(choice, Known { function_call, thought_signature, ..Known::default() }, out);
    }

    fn audio(&self, choice: u32, json: &RawValue, out: &mut Vec<u8>) {
        let Ok(audio) = serde_json::from_str::<Audio<'_>>(json.get()) else { return };
        if let Some(Str(data)) = &audio.data {
            let inline_data = Some(Blob { mime_type: "audio/pcm;rate=24000", data });
            self.part(choice, Known { inline_data, ..Known::default() }, out);
        }
        if let Some(Str(transcript)) = &audio.transcript {
            self.part(choice, write::text(&**transcript), out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let candidates = self.finishes.iter().map(|(choice, finish)| WrittenCandidate {
            content: Some(Content { role: Some("model"), parts: vec![Part::Known(write::text(""))] }),
            finish_reason: Some(finish::write(finish)),
            grounding_metadata: self.grounding.iter().find(|it| it.choice == *choice).map(|it| &it.written),
            index: *choice,
            ..no_candidate()
        });
        self.send(candidates.collect(), self.usage.as_ref().map(usage::write), out);
    }

    fn opened(&mut self, choice: u32, block: u32) -> Option<&mut Kind> {
        let open = self.open.iter_mut().find(|it| it.choice == choice && it.block == block)?;
        Some(&mut open.kind)
    }

    fn part(&self, choice: u32, known: Known<'_>, out: &mut Vec<u8>) {
        let content = Some(Content { role: Some("model"), parts: vec![Part::Known(known)] });
        self.send(vec![WrittenCandidate { content, index: choice, ..no_candidate() }], None, out);
    }

    fn send(
        &self,
        candidates: Vec<WrittenCandidate<'_>>,
        usage_metadata: Option<usage::Written>,
        out: &mut Vec<u8>,
    ) {
        let written =
            Written { candidates, usage_metadata, model_version: &self.model, response_id: &self.id };
        out.extend_from_slice(b"data: ");
        // Text and numbers into memory: this has no way to fail.
        _ = serde_json::to_writer(&mut *out, &written);
        out.extend_from_slice(b"\r\n\r\n");
    }
}

fn no_candidate<'a>() -> WrittenCandidate<'a> {
    WrittenCandidate::default()
}
