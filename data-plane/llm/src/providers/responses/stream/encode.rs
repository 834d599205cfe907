//! Events for a client, named and numbered. A text belongs to a message item, which stays open until something else
//! begins; thoughts and calls are items of their own.

use nemo_types::Usage;

use super::{
    super::{
        affinity,
        fixed::{Fixed, Now, Outcome},
        reasoning, response,
        write::{self, Call, Words},
    },
    open::{Item, Kind, Open},
};
use crate::{
    ServiceTier,
    codec::Echo,
    ir::{Block, Citation, Delta, Event, Json, Source},
    providers::write::Object,
};

#[derive(Debug)]
pub struct Encoder {
    echo: Echo,
    fixed: Option<Fixed>,
    events: Events,
    /// Those that are done, by their index; empty: not done.
    items: Vec<Vec<u8>>,
    message: Option<Message>,
    open: Vec<Open>,
    outcome: Outcome,
    usage: Option<Usage>,
    tier: ServiceTier,
}

/// Most items of an answer; what comes after them is not passed on.
const MAX_ITEMS: usize = 16 << 10;

/// The message that texts go into.
#[derive(Debug)]
struct Message {
    item: Item,
    /// Its parts that are done.
    parts: Vec<u8>,
    count: u32,
}

/// Numbers the events.
#[derive(Debug, Default)]
struct Events {
    sequence: u64,
}

impl Events {
    fn write(&mut self, out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        let mut object = Object::open(out);
        object.text("type", name);
        object.value("sequence_number", self.sequence);
        write(&mut object);
        object.close();
        out.extend_from_slice(b"\n\n");
        self.sequence += 1;
    }

    /// An event of an item, or of a part of one.
    fn of(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        item: &Item,
        part: Option<(&str, u32)>,
        write: impl FnOnce(&mut Object<'_>),
    ) {
        self.write(out, name, |object| {
            object.text("item_id", &item.id);
            object.value("output_index", item.index);
            if let Some((name, index)) = part {
                object.value(name, index);
            }
            write(object);
        });
    }

    /// An item begins or ends: it stands in the event whole.
    fn item(&mut self, out: &mut Vec<u8>, name: &str, index: usize, json: &[u8]) {
        self.write(out, name, |object| {
            object.value("output_index", index);
            object.member("item").extend_from_slice(json);
        });
    }
}

impl Encoder {
    pub fn new(echo: Echo) -> Self {
        Self {
            echo,
            fixed: None,
            events: Events::default(),
            items: Vec::new(),
            message: None,
            open: Vec::new(),
            outcome: Outcome::COMPLETED,
            usage: None,
            tier: ServiceTier::default(),
        }
    }

    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { model, created, service_tier, .. } => {
                self.tier = *service_tier;
                self.start(model, *created, out);
            }
            Event::BlockStart { choice: 0, block, kind } => self.block(*block, kind, out),
            Event::Delta { choice: 0, block, delta } => self.delta(*block, delta, out),
            Event::BlockStop { choice: 0, block } => {
                if let Some(at) = self.open.iter().position(|open| open.block == *block) {
                    let open = self.open.remove(at);
                    self.stop(open, out);
                }
            }
            Event::Logprobs { choice: 0, logprobs } => self.logprobs(logprobs, out),
            Event::Finish { choice: 0, finish } => self.outcome = Outcome::of(finish),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::End => self.end(out),
            // There is one choice in this dialect, and the gateway renders errors itself.
            _ => {}
        }
    }

    fn start(&mut self, model: &str, created: Option<u64>, out: &mut Vec<u8>) {
        if self.fixed.is_some() {
            return;
        }
        self.fixed = Some(Fixed::new(&self.echo, created, model));
        self.answer(out, "response.created", Outcome::IN_PROGRESS);
        self.answer(out, "response.in_progress", Outcome::IN_PROGRESS);
    }

    /// An event with the whole answer in it.
    fn answer(&mut self, out: &mut Vec<u8>, name: &str, outcome: Outcome) {
        let Some(fixed) = &self.fixed else { return };
        let now = Now { outcome, output: &self.items, usage: self.usage.as_ref(), tier: self.tier };
        self.events.write(out, name, |object| fixed.write(object.member("response"), &now));
    }

    fn next_item(&mut self, kind: &str) -> Item {
        let index = self.items.len();
        self.items.push(Vec::new());
        Item { index, id: format!("{kind}_{}_{index}", self.echo.id) }
    }

    fn block(&mut self, block: u32, kind: &Block<'_>, out: &mut Vec<u8>) {
        if self.items.len() >= MAX_ITEMS || self.open.iter().any(|open| open.block == block) {
            return;
        }
        match kind {
            Block::Text => {
                let content =
                    self.words(out, &Words::Text { literal: b"\"\"", annotations: b"", logprobs: b"" });
                let kind = Kind::Text { content, annotations: Vec::new(), count: 0, logprobs: Vec::new() };
                self.open.push(Open::new(block, kind));
            }
            Block::Refusal => {
                let content = self.words(out, &Words::Refusal { literal: b"\"\"" });
                self.open.push(Open::new(block, Kind::Refusal { content }));
            }
            Block::Thinking { .. } => {
                self.end_message("completed", out);
                let item = self.reasoning_item(out);
                self.open.push(Open::new(block, Kind::Thinking { item, signature: String::new() }));
            }
            Block::Encrypted { data, id } => {
                self.end_message("completed", out);
                let item = self.reasoning_item(out);
                let encrypted = reasoning::content(Some(data), None, !id.is_empty());
                self.end_reasoning(&item, None, encrypted.as_deref(), out);
            }
            Block::ToolCall { id, name, custom } => {
                self.end_message("completed", out);
                let (call_id, name) = (id.to_string(), name.to_string());
                let kind =
                    Kind::Call { item: None, call_id, name, signature: String::new(), custom: *custom };
                self.open.push(Open::new(block, kind));
            }
            Block::Image(media) => {
                if let Source::Base64 { data, .. } = &media.source {
                    self.end_message("completed", out);
                    let item = self.next_item("ig");
                    let mut json = Vec::new();
                    write::image(&mut json, &item.id, None);
                    self.events.item(out, "response.output_item.added", item.index, &json);
                    json.clear();
                    write::image(&mut json, &item.id, Some(data));
                    self.item_done(&item, json, out);
                }
            }
            // There is no form for it.
            Block::Audio => {}
        }
    }

    /// Begins a part of the message, and the message if there is none. Returns the part's index.
    fn words(&mut self, out: &mut Vec<u8>, empty: &Words<'_>) -> u32 {
        let mut message = match self.message.take() {
            Some(message) => message,
            None => {
                let item = self.next_item("msg");
                let mut json = Vec::new();
                write::message(&mut json, &item.id, "in_progress", b"");
                self.events.item(out, "response.output_item.added", item.index, &json);
                Message { item, parts: Vec::new(), count: 0 }
            }
        };
        let content = message.count;
        message.count += 1;
        let part = Some(("content_index", content));
        self.events.of(out, "response.content_part.added", &message.item, part, |object| {
            empty.write(object.member("part"));
        });
        self.message = Some(message);
        content
    }

    fn delta(&mut self, block: u32, delta: &Delta<'_>, out: &mut Vec<u8>) {
        let Some(at) = self.open.iter().position(|open| open.block == block) else { return };
        match delta {
            Delta::Text(text) | Delta::Refusal(text) => self.words_delta(at, text, out),
            Delta::Thinking(text) => self.thinking_delta(at, text, out),
            Delta::Arguments(text) => self.arguments_delta(at, text, out),
            Delta::Citation(citation) => self.citation(at, citation, out),
            Delta::Signature(text) => {
                if let Kind::Thinking { signature, .. } | Kind::Call { signature, .. } =
                    &mut self.open[at].kind
                {
                    signature.push_str(text);
                }
            }
            Delta::Audio(_) => {}
        }
    }

    fn words_delta(&mut self, at: usize, text: &str, out: &mut Vec<u8>) {
        let Self { events, message: Some(message), open, .. } = self else { return };
        let open = &mut open[at];
        let (content, name) = match open.kind {
            Kind::Text { content, .. } => (content, "response.output_text.delta"),
            Kind::Refusal { content } => (content, "response.refusal.delta"),
            _ => return,
        };
        let is_text = matches!(open.kind, Kind::Text { .. });
        events.of(out, name, &message.item, Some(("content_index", content)), |object| {
            open.write(object.member("delta"), text);
            if is_text {
                object.raw("logprobs", "[]");
            }
        });
    }

    /// They come behind the text that they are of: in an event of their own, which adds no text.
    fn logprobs(&mut self, json: &Json<'_>, out: &mut Vec<u8>) {
        let Self { events, message: Some(message), open, .. } = self else { return };
        let tokens = write::logprobs(Some(json));
        let Some(Open { kind: Kind::Text { content, logprobs, .. }, .. }) = open.last_mut() else { return };
        if tokens.is_empty() {
            return;
        }
        events.of(
            out,
            "response.output_text.delta",
            &message.item,
            Some(("content_index", *content)),
            |object| {
                object.text("delta", "");
                write::elements(object, "logprobs", tokens.as_bytes());
            },
        );
        if !logprobs.is_empty() {
            logprobs.push(b',');
        }
        logprobs.extend_from_slice(tokens.as_bytes());
    }

    fn citation(&mut self, at: usize, citation: &Citation<'_>, out: &mut Vec<u8>) {
        let Self { events, message: Some(message), open, .. } = self else { return };
        let Kind::Text { content, annotations, count, .. } = &mut open[at].kind else { return };
        let mut json = Vec::new();
        if !write::annotation(&mut json, citation) {
            return;
        }
        let part = Some(("content_index", *content));
        events.of(out, "response.output_text.annotation.added", &message.item, part, |object| {
            object.value("annotation_index", *count);
            object.member("annotation").extend_from_slice(&json);
        });
        *count += 1;
        if !annotations.is_empty() {
            annotations.push(b',');
        }
        annotations.append(&mut json);
    }

    fn thinking_delta(&mut self, at: usize, text: &str, out: &mut Vec<u8>) {
        let Self { events, open, .. } = self;
        let open = &mut open[at];
        let Kind::Thinking { item, .. } = &open.kind else { return };
        if text.is_empty() {
            return;
        }
        let (item, part) = (item.clone(), Some(("summary_index", 0)));
        if open.is_empty() {
            events.of(out, "response.reasoning_summary_part.added", &item, part, |object| {
                write::summary_part(object.member("part"), b"\"\"");
            });
        }
        events.of(out, "response.reasoning_summary_text.delta", &item, part, |object| {
            open.write(object.member("delta"), text);
        });
    }

    fn arguments_delta(&mut self, at: usize, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let mut open = self.open.remove(at);
        if let Some((item, custom)) = self.announce(&mut open, out) {
            let name = if custom {
                "response.custom_tool_call_input.delta"
            } else {
                "response.function_call_arguments.delta"
            };
            self.events.of(out, name, &item, None, |object| open.write(object.member("delta"), text));
        }
        self.open.insert(at, open);
    }

    /// Tells the client of a call, now that its id is known for good.
    fn announce(&mut self, open: &mut Open, out: &mut Vec<u8>) -> Option<(Item, bool)> {
        let Kind::Call { item, call_id, name, signature, custom } = &mut open.kind else { return None };
        if let Some(item) = item {
            return Some((item.clone(), *custom));
        }
        let new = self.next_item(if *custom { "ctc" } else { "fc" });
        let signature = Some(signature.as_str()).filter(|signature| !signature.is_empty());
        *call_id = response::call_id(call_id, signature, || format!("call_{}_{}", self.echo.id, new.index));
        let call = Call { id: &new.id, call_id, name, custom: *custom };
        let mut json = Vec::new();
        call.write(&mut json, "in_progress", b"\"\"");
        self.events.item(out, "response.output_item.added", new.index, &json);
        *item = Some(new.clone());
        Some((new, *custom))
    }

    fn stop(&mut self, mut open: Open, out: &mut Vec<u8>) {
        let literal = open.literal();
        match &open.kind {
            Kind::Text { content, annotations, logprobs, .. } => {
                let words = Words::Text { literal: &literal, annotations, logprobs };
                self.words_done(*content, &words, out, |object| {
                    object.member("text").extend_from_slice(&literal);
                    write::elements(object, "logprobs", logprobs);
                });
            }
            Kind::Refusal { content } => {
                self.words_done(*content, &Words::Refusal { literal: &literal }, out, |object| {
                    object.member("refusal").extend_from_slice(&literal);
                });
            }
            Kind::Thinking { item, signature } => {
                let (part, summary) =
                    (Some(("summary_index", 0)), (!open.is_empty()).then_some(&literal[..]));
                if let Some(literal) = summary {
                    self.events.of(out, "response.reasoning_summary_text.done", item, part, |object| {
                        object.member("text").extend_from_slice(literal);
                    });
                    self.events.of(out, "response.reasoning_summary_part.done", item, part, |object| {
                        write::summary_part(object.member("part"), literal);
                    });
                }
                let encrypted = reasoning::content(None, Some(signature), false);
                self.end_reasoning(item, summary, encrypted.as_deref(), out);
            }
            Kind::Call { .. } => self.call_done(&mut open, out),
        }
    }

    fn words_done(
        &mut self,
        content: u32,
        words: &Words<'_>,
        out: &mut Vec<u8>,
        whole: impl FnOnce(&mut Object<'_>),
    ) {
        let Self { events, message: Some(message), .. } = self else { return };
        let part = Some(("content_index", content));
        let name = match words {
            Words::Text { .. } => "response.output_text.done",
            Words::Refusal { .. } => "response.refusal.done",
        };
        events.of(out, name, &message.item, part, whole);
        if !message.parts.is_empty() {
            message.parts.push(b',');
        }
        let start = message.parts.len();
        words.write(&mut message.parts);
        let json = &message.parts[start..];
        events.of(out, "response.content_part.done", &message.item, part, |object| {
            object.member("part").extend_from_slice(json);
        });
    }

    fn call_done(&mut self, open: &mut Open, out: &mut Vec<u8>) {
        let Some((item, custom)) = self.announce(open, out) else { return };
        let (kind, field) = if custom {
            ("response.custom_tool_call_input", "input")
        } else {
            ("response.function_call_arguments", "arguments")
        };
        if open.is_empty() && !custom {
            // Clients parse it.
            self.events.of(out, &format!("{kind}.delta"), &item, None, |object| {
                open.write(object.member("delta"), "{}");
            });
        }
        let literal = open.literal();
        self.events.of(out, &format!("{kind}.done"), &item, None, |object| {
            object.member(field).extend_from_slice(&literal);
        });
        let Kind::Call { call_id, name, .. } = &open.kind else { return };
        let mut json = Vec::new();
        Call { id: &item.id, call_id, name, custom }.write(&mut json, "completed", &literal);
        self.item_done(&item, json, out);
    }

    fn reasoning_item(&mut self, out: &mut Vec<u8>) -> Item {
        let Item { index, id } = self.next_item("rs");
        let id = affinity::wrap(&self.echo.affinity, &id).into_owned();
        let mut json = Vec::new();
        write::reasoning(&mut json, &id, None, None);
        self.events.item(out, "response.output_item.added", index, &json);
        Item { index, id }
    }

    fn end_reasoning(
        &mut self,
        item: &Item,
        summary: Option<&[u8]>,
        encrypted: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let encrypted = encrypted.map(|data| affinity::wrap_content(&self.echo.affinity, data));
        let mut json = Vec::new();
        write::reasoning(&mut json, &item.id, summary, encrypted.as_deref());
        self.item_done(item, json, out);
    }

    fn item_done(&mut self, item: &Item, json: Vec<u8>, out: &mut Vec<u8>) {
        self.events.item(out, "response.output_item.done", item.index, &json);
        if let Some(slot) = self.items.get_mut(item.index) {
            *slot = json;
        }
    }

    fn end_message(&mut self, status: &str, out: &mut Vec<u8>) {
        // A text that is still open belongs to it.
        while let Some(at) =
            self.open.iter().position(|open| matches!(open.kind, Kind::Text { .. } | Kind::Refusal { .. }))
        {
            let open = self.open.remove(at);
            self.stop(open, out);
        }
        if let Some(message) = self.message.take() {
            let mut json = Vec::new();
            write::message(&mut json, &message.item.id, status, &message.parts);
            self.item_done(&message.item, json, out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.start("", None, out);
        self.end_message(self.outcome.item_status(), out);
        for open in std::mem::take(&mut self.open) {
            self.stop(open, out);
        }
        self.items.retain(|item| !item.is_empty());
        self.answer(out, self.outcome.event(), self.outcome);
    }
}
