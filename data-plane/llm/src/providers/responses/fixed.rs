//! The answer as an object: what the client asked for is repeated in it, as OpenAI does and its SDKs require.

use nemo_types::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::affinity;
use crate::{
    ServiceTier,
    codec::Echo,
    ir::Finish,
    providers::write::{self, Object},
};

/// What is the same in all events of an answer.
#[derive(Debug)]
pub(super) struct Fixed {
    /// Its members, the opening brace before them.
    head: Vec<u8>,
}

/// What is not.
pub(super) struct Now<'n> {
    pub(super) outcome: Outcome,
    /// Items, each written already.
    pub(super) output: &'n [Vec<u8>],
    pub(super) usage: Option<&'n Usage>,
    pub(super) tier: ServiceTier,
}

/// How far the answer is, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: &'static str,
    /// Why it is incomplete.
    reason: Option<&'static str>,
    /// Why it failed.
    error: Option<&'static str>,
}

impl Outcome {
    pub(super) const IN_PROGRESS: Self = Self { status: "in_progress", reason: None, error: None };
    pub(super) const COMPLETED: Self = Self { status: "completed", ..Self::IN_PROGRESS };

    pub(super) fn of(finish: &Finish<'_>) -> Self {
        let incomplete = |reason| Self { status: "incomplete", reason: Some(reason), error: None };
        let failed = |error| Self { status: "failed", reason: None, error: Some(error) };
        match finish {
            Finish::Length => incomplete("max_output_tokens"),
            Finish::ContentFilter | Finish::Refusal => incomplete("content_filter"),
            Finish::MalformedCall => failed("The model wrote a call that can't be read."),
            Finish::Error => failed("The model's provider ended the answer with an error."),
            Finish::Stop | Finish::StopSequence(_) | Finish::ToolCalls | Finish::Pause | Finish::Other(_) => {
                Self::COMPLETED
            }
        }
    }

    /// Of the item that was being written when it ended.
    pub(super) fn item_status(self) -> &'static str {
        if self.status == "completed" { "completed" } else { "incomplete" }
    }

    /// The event that ends the stream.
    pub(super) fn event(self) -> &'static str {
        match self.status {
            "incomplete" => "response.incomplete",
            "failed" => "response.failed",
            _ => "response.completed",
        }
    }
}

/// What a request says that its answer says as well.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Asked<'a> {
    #[serde(borrow)]
    instructions: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    parallel_tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_key: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    safety_identifier: Option<&'a RawValue>,
    #[serde(borrow)]
    temperature: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    top_logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    top_p: Option<&'a RawValue>,
    #[serde(borrow)]
    truncation: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
}

impl Fixed {
    /// `model`: empty when the upstream doesn't say.
    pub(super) fn new(echo: &Echo, created: Option<u64>, model: &str) -> Self {
        // It was read before; if the client has sent something twice, nothing is repeated.
        let asked: Asked<'_> = serde_json::from_slice(&echo.request).unwrap_or_default();
        let mut head = Vec::with_capacity(512);
        let mut object = Object::open(&mut head);
        let id = format!("resp_{}", echo.id);
        object.text("id", &affinity::wrap(&echo.affinity, &id));
        object.text("object", "response");
        object.value("created_at", created.unwrap_or(echo.created));
        object.text("model", if model.is_empty() { &echo.model } else { model });
        let mut repeat = |name: &str, value: Option<&RawValue>, else_: &str| {
            object.raw(name, value.map_or(else_, RawValue::get));
        };
        repeat("background", None, "false");
        repeat("instructions", asked.instructions, "null");
        repeat("max_output_tokens", asked.max_output_tokens, "null");
        repeat("max_tool_calls", asked.max_tool_calls, "null");
        repeat("metadata", asked.metadata, "{}");
        repeat("parallel_tool_calls", asked.parallel_tool_calls, "true");
        repeat("previous_response_id", None, "null");
        repeat("prompt_cache_key", asked.prompt_cache_key, "null");
        repeat("reasoning", asked.reasoning, r#"{"effort":null,"summary":null}"#);
        repeat("safety_identifier", asked.safety_identifier, "null");
        // There is nobody here who could.
        repeat("store", None, "false");
        repeat("temperature", asked.temperature, "null");
        repeat("text", asked.text, r#"{"format":{"type":"text"}}"#);
        repeat("tool_choice", asked.tool_choice, r#""auto""#);
        repeat("tools", asked.tools, "[]");
        repeat("top_logprobs", asked.top_logprobs, "0");
        repeat("top_p", asked.top_p, "null");
        repeat("truncation", asked.truncation, r#""disabled""#);
        repeat("user", asked.user, "null");
        Self { head }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, now: &Now<'_>) {
        out.extend_from_slice(&self.head);
        let mut object = Object::go_on(out);
        object.text("status", now.outcome.status);
        match now.outcome.error {
            Some(message) => object.object("error", |error| {
                error.text("code", "server_error");
                error.text("message", message);
            }),
            None => object.raw("error", "null"),
        }
        match now.outcome.reason {
            Some(reason) => object.object("incomplete_details", |details| details.text("reason", reason)),
            None => object.raw("incomplete_details", "null"),
        }
        object.array("output", now.output, |out, item| out.extend_from_slice(item));
        if let Some(tier) = now.tier.openai() {
            object.text("service_tier", tier);
        }
        match now.usage {
            Some(counts) => usage(object.member("usage"), counts),
            None => object.raw("usage", "null"),
        }
        object.close();
    }
}

fn usage(out: &mut Vec<u8>, usage: &Usage) {
    let (input, output) = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
    write::object(out, |object| {
        object.value("input_tokens", input);
        object.object("input_tokens_details", |details| {
            details.value("cached_tokens", usage.cache_read.unwrap_or(0));
            details.value("cache_write_tokens", usage.cache_write.unwrap_or(0));
        });
        object.value("output_tokens", output);
        object.object("output_tokens_details", |details| {
            details.value("reasoning_tokens", usage.reasoning.unwrap_or(0));
        });
        object.value("total_tokens", input.saturating_add(output));
    });
}
