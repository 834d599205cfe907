//! What a model answers, complete.

use nemo_types::Usage;

use super::{Json, Part, Text};
use crate::{FinishReason, ServiceTier};

#[derive(Clone, Debug, Default)]
pub struct Response<'a> {
    /// The upstream's id for it; empty: it has none.
    pub id: Text<'a>,
    /// What the upstream says has answered; empty: it doesn't say.
    pub model: Text<'a>,
    /// Seconds since the epoch.
    pub created: Option<u64>,
    pub choices: Vec<Choice<'a>>,
    pub usage: Option<Usage>,
    pub service_tier: ServiceTier,
    pub system_fingerprint: Option<Text<'a>>,
}

#[derive(Clone, Debug)]
pub struct Choice<'a> {
    pub index: u32,
    /// Text, thinking, tool calls, refusals, images, in the model's order.
    pub parts: Vec<Part<'a>>,
    pub finish: Option<Finish<'a>>,
    /// OpenAI's shape: `{"content":[{token,logprob,bytes,top_logprobs}],"refusal":…}`.
    pub logprobs: Option<Json<'a>>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish<'a> {
    Stop,
    /// This one of the request's stop sequences was met.
    StopSequence(Text<'a>),
    Length,
    ToolCalls,
    /// A filter of the provider took it.
    ContentFilter,
    /// The model would not.
    Refusal,
    /// Anthropic's `pause_turn`: to be gone on with.
    Pause,
    /// The model wrote a call that nobody can read (Gemini's `MALFORMED_FUNCTION_CALL`).
    MalformedCall,
    Error,
    Other(Text<'a>),
}

impl Finish<'_> {
    /// In the words of OpenAI and of the request log.
    pub fn reason(&self) -> FinishReason {
        match self {
            Self::Stop | Self::StopSequence(_) | Self::Pause => FinishReason::Stop,
            Self::Length => FinishReason::Length,
            Self::ToolCalls => FinishReason::ToolCalls,
            Self::ContentFilter | Self::Refusal => FinishReason::ContentFilter,
            Self::MalformedCall | Self::Error => FinishReason::Error,
            Self::Other(word) => FinishReason::new(word),
        }
    }
}
