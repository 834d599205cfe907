//! An upstream's events. Each is an answer with the parts that are new; nothing says that a part has ended, and the last
//! event is known by the end of the stream alone: some repeat the reason why the answer ended in every event.

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::super::{
    citations, errors, finish, logprobs, response, usage,
    wire::{self, Answer, Candidate},
    write,
};
use crate::{
    codec::CodecError,
    ir::{Block, Content, Delta, Event, Events, Finish, Media, Part, Source, Text},
};

/// Of an answer's text that is kept to count characters in for its citations, in bytes.
const KEPT_TEXT: usize = 256 * 1024;
/// Choices that are told apart; Google makes eight at most.
const MOST_CHOICES: u32 = 128;

#[derive(Debug, Default)]
pub struct Decoder {
    started: bool,
    ended: bool,
    choices: Vec<Choice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Audio,
}

#[derive(Debug)]
struct Choice {
    index: u32,
    /// The number of the next block.
    next: u32,
    open: Option<(u32, Kind)>,
    called: bool,
    finish: Option<Finish<'static>>,
    /// What was said, while it is short enough.
    text: Option<String>,
    /// Of the citations that were told: events repeat them.
    cited: HashSet<u64>,
}

impl Decoder {
    /// # Errors
    /// When it is no event of this dialect.
    pub fn event<'a>(&mut self, data: &'a [u8], out: &mut Events<'a>) -> Result<(), CodecError> {
        if self.ended {
            return Ok(());
        }
        let answer: Answer<'a> = wire::read_answer(data)?;
        if answer.error.is_some() {
            self.ended = true;
            out.push(Event::Error(errors::decode(200, data)));
            return Ok(());
        }
        if !self.started {
            self.started = true;
            out.push(Event::Start {
                id: answer.response_id.unwrap_or_default().0,
                model: answer.model_version.unwrap_or_default().0,
                created: None,
                service_tier: answer.usage_metadata.as_ref().map(usage::tier).unwrap_or_default(),
            });
        }
        for (at, candidate) in answer.candidates.into_iter().flatten().enumerate() {
            let index = candidate.index.unwrap_or(u32::try_from(at).unwrap_or(u32::MAX));
            if index >= MOST_CHOICES {
                let message = format!("The upstream answers {index} times over.");
                return Err(CodecError::invalid("", message));
            }
            self.choice(index).take(candidate, out);
        }
        if answer.prompt_feedback.is_some_and(|it| it.block_reason.is_some()) {
            self.choice(0).finish = Some(Finish::ContentFilter);
        }
        if let Some(usage) = &answer.usage_metadata {
            out.push(Event::Usage(usage::read(usage)));
        }
        Ok(())
    }

    pub fn finish(&mut self, out: &mut Events<'static>) {
        // Without a reason the answer was cut short.
        if self.ended || self.choices.is_empty() || self.choices.iter().any(|choice| choice.finish.is_none())
        {
            return;
        }
        self.ended = true;
        for choice in &mut self.choices {
            choice.close(out);
            if let Some(finish) = choice.finish.take() {
                out.push(Event::Finish { choice: choice.index, finish });
            }
        }
        out.push(Event::End);
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        let at = self.choices.iter().position(|choice| choice.index == index).unwrap_or_else(|| {
            let text = Some(String::new());
            self.choices.push(Choice {
                index,
                next: 0,
                open: None,
                called: false,
                finish: None,
                text,
                cited: HashSet::new(),
            });
            self.choices.len() - 1
        });
        &mut self.choices[at]
    }
}

impl Choice {
    fn take<'a>(&mut self, mut candidate: Candidate<'a>, out: &mut Events<'a>) {
        let parts = candidate.content.take().and_then(|it| it.parts);
        for part in parts.into_iter().flatten().filter_map(response::part) {
            self.part(part, out);
        }
        if let Some(logprobs) = candidate.logprobs_result.and_then(logprobs::read) {
            out.push(Event::Logprobs { choice: self.index, logprobs });
        }
        let text = self.text.as_deref().unwrap_or_default();
        for (_, citation) in citations::read(&mut candidate, text, &|_| 0) {
            let mut hasher = DefaultHasher::new();
            (&citation.url, &citation.title, &citation.quote, citation.span).hash(&mut hasher);
            if self.cited.len() >= citations::MOST || !self.cited.insert(hasher.finish()) {
                continue;
            }
            let block = self.open(Kind::Text, out);
            out.push(Event::Delta { choice: self.index, block, delta: Delta::Citation(citation) });
        }
        let reason = candidate.finish_reason.as_ref().map_or("", |reason| &*reason.0);
        if let Some(finish) = finish::read(reason, self.called) {
            self.finish = Some(finish);
        }
    }

    fn part<'a>(&mut self, part: Part<'a>, out: &mut Events<'a>) {
        let choice = self.index;
        let signature = part.signature.map(Delta::Signature);
        let (kind, delta, signature) = match part.content {
            Content::Text { text, .. } => {
                self.keep(&text);
                (Kind::Text, Delta::Text(text), signature)
            }
            Content::Thinking(thinking) => {
                let signature = thinking.signature.map(Delta::Signature);
                (Kind::Thinking, Delta::Thinking(thinking.text), signature)
            }
            Content::Audio(Media { source: Source::Base64 { data, .. }, .. }) => {
                let json = write::object("data", &data);
                (Kind::Audio, Delta::Audio(Cow::Owned(json)), None)
            }
            Content::ToolCall(call) => {
                self.called = true;
                let kind = Block::ToolCall { id: call.id, name: call.name, custom: false };
                let deltas = signature.into_iter().chain([Delta::Arguments(call.arguments)]);
                return self.whole(kind, deltas, out);
            }
            Content::Image(media) => return self.whole(Block::Image(media), [], out),
            // Films and documents are no part of conversations anywhere else; what Google ran by itself, neither.
            Content::Audio(_)
            | Content::Video(_)
            | Content::Document(_)
            | Content::ToolResult(_)
            | Content::Refusal(_)
            | Content::Opaque { .. } => return,
        };
        let block = self.open(kind, out);
        if !is_empty(&delta) {
            out.push(Event::Delta { choice, block, delta });
        }
        out.extend(signature.map(|delta| Event::Delta { choice, block, delta }));
    }

    fn keep(&mut self, text: &Text<'_>) {
        match &mut self.text {
            Some(kept) if kept.len() + text.len() <= KEPT_TEXT => kept.push_str(text),
            kept => *kept = None,
        }
    }

    /// The open block, if it is of this kind, or a new one.
    fn open(&mut self, kind: Kind, out: &mut Events<'_>) -> u32 {
        if let Some((block, open)) = self.open
            && open == kind
        {
            return block;
        }
        self.close(out);
        let block = self.next;
        self.next += 1;
        self.open = Some((block, kind));
        let kind = match kind {
            Kind::Text => Block::Text,
            Kind::Thinking => Block::Thinking { id: "".into() },
            Kind::Audio => Block::Audio,
        };
        out.push(Event::BlockStart { choice: self.index, block, kind });
        block
    }

    /// A block that comes in one piece.
    fn whole<'a>(
        &mut self,
        kind: Block<'a>,
        deltas: impl IntoIterator<Item = Delta<'a>>,
        out: &mut Events<'a>,
    ) {
        self.close(out);
        let (choice, block) = (self.index, self.next);
        self.next += 1;
        out.push(Event::BlockStart { choice, block, kind });
        out.extend(deltas.into_iter().map(|delta| Event::Delta { choice, block, delta }));
        out.push(Event::BlockStop { choice, block });
    }

    fn close(&mut self, out: &mut Events<'_>) {
        if let Some((block, _)) = self.open.take() {
            out.push(Event::BlockStop { choice: self.index, block });
        }
    }
}

fn is_empty(delta: &Delta<'_>) -> bool {
    matches!(delta, Delta::Text(text) | Delta::Thinking(text) if text.is_empty())
}
