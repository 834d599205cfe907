//! An answer for a client.

use super::super::{
    affinity,
    fixed::{Fixed, Now, Outcome},
    reasoning,
    write::{self, Call, Words},
};
use crate::{
    codec::Echo,
    ir::{Choice, Content, Part, Response, Source, Thinking, ToolCall},
    providers::{tool_id, write as json},
};

/// Its first choice: there are no others in this dialect.
pub fn encode(response: &Response<'_>, echo: &Echo) -> Vec<u8> {
    let choice = response.choices.first();
    let outcome = choice.and_then(|choice| choice.finish.as_ref()).map_or(Outcome::COMPLETED, Outcome::of);
    let output = choice.map(|choice| items(choice, outcome, echo)).unwrap_or_default();
    let fixed = Fixed::new(echo, response.created, &response.model);
    let mut out = Vec::with_capacity(1024);
    let usage = response.usage.as_ref();
    fixed.write(&mut out, &Now { outcome, output: &output, usage, tier: response.service_tier });
    out
}

fn items(choice: &Choice<'_>, outcome: Outcome, echo: &Echo) -> Vec<Vec<u8>> {
    let mut writer = Writer { echo, items: Vec::new(), words: Vec::new() };
    let mut logprobs = write::logprobs(choice.logprobs.as_ref());
    for part in &choice.parts {
        match &part.content {
            Content::Text { text, citations } => {
                let mut annotations = Vec::new();
                for citation in citations {
                    write::annotation(&mut annotations, citation);
                }
                let (literal, logprobs) = (literal(text), std::mem::take(&mut logprobs));
                let (annotations, logprobs) = (&annotations[..], logprobs.as_bytes());
                writer.words(&Words::Text { literal: &literal, annotations, logprobs });
            }
            Content::Refusal(text) => writer.words(&Words::Refusal { literal: &literal(text) }),
            Content::Thinking(thinking) => writer.thinking(thinking),
            Content::ToolCall(call) => writer.call(call, part),
            Content::Image(media) => {
                if let Source::Base64 { data, .. } = &media.source {
                    writer.message("completed");
                    let id = writer.id("ig");
                    writer.item(|out| write::image(out, &id, Some(data)));
                }
            }
            // Of other dialects, or without a form in this one.
            _ => {}
        }
    }
    writer.message(outcome.item_status());
    writer.items
}

struct Writer<'e> {
    echo: &'e Echo,
    items: Vec<Vec<u8>>,
    /// The parts of the message that is not ended yet.
    words: Vec<u8>,
}

impl Writer<'_> {
    fn id(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.echo.id, self.items.len())
    }

    fn item(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut item = Vec::new();
        write(&mut item);
        self.items.push(item);
    }

    fn words(&mut self, words: &Words<'_>) {
        if !self.words.is_empty() {
            self.words.push(b',');
        }
        words.write(&mut self.words);
    }

    fn message(&mut self, status: &str) {
        if !self.words.is_empty() {
            let (id, words) = (self.id("msg"), std::mem::take(&mut self.words));
            self.item(|out| write::message(out, &id, status, &words));
        }
    }

    fn thinking(&mut self, thinking: &Thinking<'_>) {
        self.message("completed");
        let id = self.id("rs");
        let id = affinity::wrap(&self.echo.affinity, &id);
        let encrypted = reasoning::content(
            thinking.encrypted.as_deref(),
            thinking.signature.as_deref(),
            thinking.id.is_some(),
        );
        let encrypted = encrypted.as_deref().map(|data| affinity::wrap_content(&self.echo.affinity, data));
        let summary = (!thinking.text.is_empty()).then(|| literal(&thinking.text));
        self.item(|out| write::reasoning(out, &id, summary.as_deref(), encrypted.as_deref()));
    }

    fn call(&mut self, call: &ToolCall<'_>, part: &Part<'_>) {
        self.message("completed");
        let item_id = self.id(if call.custom { "ctc" } else { "fc" });
        let call_id = call_id(&call.id, part.signature.as_deref(), || self.id("call"));
        let arguments = if call.arguments.is_empty() && !call.custom { "{}" } else { &call.arguments };
        let call = Call { id: &item_id, call_id: &call_id, name: &call.name, custom: call.custom };
        self.item(|out| call.write(out, "completed", &literal(arguments)));
    }
}

/// The id that a call's output will have, with Google's signature in it. Made up where the upstream has none.
pub(in super::super) fn call_id(id: &str, signature: Option<&str>, make: impl FnOnce() -> String) -> String {
    let id = if id.is_empty() { make() } else { id.to_owned() };
    match signature {
        Some(signature) => tool_id::with_signature(&id, signature),
        None => id,
    }
}

fn literal(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::text(&mut out, text);
    out
}
