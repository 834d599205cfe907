//! What a client asks.

use std::collections::HashMap;

use super::{Content, Json, Part, Text, Tool, ToolChoice};
use crate::Dialect;

#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Whose words the parameters are.
    pub dialect: Dialect,
    /// What the client called the model.
    pub model: Text<'a>,
    /// In the client's order, instructions among them.
    pub messages: Vec<Message<'a>>,
    pub tools: Vec<Tool<'a>>,
    pub tool_choice: Option<ToolChoice<'a>>,
    pub parallel_tool_calls: Option<bool>,
    pub format: Option<Format<'a>>,
    /// Tokens of each answer.
    pub max_output: Option<u64>,
    pub stop: Vec<Text<'a>>,
    /// How many answers; 1 when not said.
    pub choices: u32,
    pub sampling: Sampling,
    pub logprobs: Option<Logprobs>,
    pub reasoning: Option<Reasoning>,
    pub stream: bool,
    /// The client wants a usage chunk in its stream.
    pub include_usage: bool,
    pub user: Option<Text<'a>>,
    pub service_tier: Option<Text<'a>>,
    pub metadata: Option<Json<'a>>,
    /// OpenAI's `prompt_cache_key`.
    pub cache_key: Option<Text<'a>>,
    /// Responses: what this goes on from, and whether the provider is to keep the answer.
    pub previous_response_id: Option<Text<'a>>,
    pub store: Option<bool>,
    /// `text`, `audio`, `image`; empty: text.
    pub modalities: Vec<Text<'a>>,
    /// Parameters that the hub has no place for. A target that is not of the same dialect drops and reports them.
    pub extras: Vec<(Text<'a>, Json<'a>)>,
}

impl<'a> Request<'a> {
    pub fn new(dialect: Dialect, model: Text<'a>) -> Self {
        Self {
            dialect,
            model,
            messages: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            format: None,
            max_output: None,
            stop: Vec::new(),
            choices: 1,
            sampling: Sampling::default(),
            logprobs: None,
            reasoning: None,
            stream: false,
            include_usage: false,
            user: None,
            service_tier: None,
            metadata: None,
            cache_key: None,
            previous_response_id: None,
            store: None,
            modalities: Vec::new(),
            extras: Vec::new(),
        }
    }

    /// Gives every tool result the name of the function whose call it answers.
    ///
    /// # Errors
    /// The place `(message, part)` of a result that answers no call before it.
    pub fn link_tool_results(&mut self) -> Result<(), (u16, u16)> {
        let mut names: HashMap<Text<'a>, Text<'a>> = HashMap::new();
        for message in &mut self.messages {
            let at = message.at;
            for part in &mut message.parts {
                match &mut part.content {
                    Content::ToolCall(call) => {
                        names.insert(call.id.clone(), call.name.clone());
                    }
                    Content::ToolResult(result) => {
                        let name = names.get(&result.call_id).ok_or((at, part.at))?;
                        result.name = Some(name.clone());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub role: Role,
    pub parts: Vec<Part<'a>>,
    /// OpenAI's `name` of a participant.
    pub name: Option<Text<'a>>,
    /// Index in the client's list, for errors.
    pub at: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    Developer,
    /// Tool results are parts of its messages.
    User,
    Assistant,
}

/// What the answer must be.
#[derive(Clone, Debug)]
pub enum Format<'a> {
    Json,
    Schema { name: Option<Text<'a>>, description: Option<Text<'a>>, schema: Json<'a>, strict: Option<bool> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub min_p: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub seed: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logprobs {
    /// How many alternatives to each token.
    pub top: Option<u32>,
}

/// How much the model is to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    pub effort: Option<Effort>,
    /// Tokens; `Some(0)`: none at all.
    pub budget: Option<u64>,
    /// The model decides how much (Anthropic's `adaptive`, Gemini's -1).
    pub adaptive: bool,
    /// Whether the thoughts, or a summary, are wanted in the answer; `None`: as the target does by itself.
    pub visible: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Max,
}

impl Effort {
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "max" | "xhigh" => Self::Max,
            _ => return None,
        })
    }

    /// Tokens of thought, for a target that wants a number. Writers keep it below the most that the answer may have.
    pub fn budget(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal | Self::Low => 1024,
            Self::Medium => 8192,
            Self::High => 24_576,
            Self::Max => 32_768,
        }
    }

    /// The effort that comes nearest, for a target that wants a word.
    pub fn from_budget(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..1024 => Self::Minimal,
            1024..4096 => Self::Low,
            4096..16_384 => Self::Medium,
            16_384..32_768 => Self::High,
            _ => Self::Max,
        }
    }
}

/// A parameter that a target can't express.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Param {
    Choices,
    Logprobs,
    TopLogprobs,
    Seed,
    Temperature,
    TopP,
    TopK,
    MinP,
    FrequencyPenalty,
    PresencePenalty,
    Stop,
    ParallelToolCalls,
    ToolChoice,
    Strict,
    Format,
    Reasoning,
    User,
    ServiceTier,
    Metadata,
    CacheKey,
    CacheControl,
    Store,
    Modalities,
    ParticipantName,
    ImageDetail,
    Citations,
    Thinking,
    MaxOutput,
    /// As the client wrote it.
    Other(Box<str>),
}

impl Param {
    /// What clients of `dialect` call it.
    pub fn name(&self, dialect: Dialect) -> &str {
        let (openai, anthropic, gemini) = match self {
            Self::Other(name) => return name,
            Self::Choices => ("n", "n", "generationConfig.candidateCount"),
            Self::Logprobs => ("logprobs", "logprobs", "generationConfig.responseLogprobs"),
            Self::TopLogprobs => ("top_logprobs", "top_logprobs", "generationConfig.logprobs"),
            Self::Seed => ("seed", "seed", "generationConfig.seed"),
            Self::Temperature => ("temperature", "temperature", "generationConfig.temperature"),
            Self::TopP => ("top_p", "top_p", "generationConfig.topP"),
            Self::TopK => ("top_k", "top_k", "generationConfig.topK"),
            Self::MinP => ("min_p", "min_p", "generationConfig.minP"),
            Self::FrequencyPenalty => {
                ("frequency_penalty", "frequency_penalty", "generationConfig.frequencyPenalty")
            }
            Self::PresencePenalty => {
                ("presence_penalty", "presence_penalty", "generationConfig.presencePenalty")
            }
            Self::Stop => ("stop", "stop_sequences", "generationConfig.stopSequences"),
            Self::ParallelToolCalls => {
                ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use", "toolConfig")
            }
            Self::ToolChoice => ("tool_choice", "tool_choice", "toolConfig"),
            Self::Strict => ("strict", "strict", "strict"),
            Self::Format if dialect == Dialect::Responses => return "text.format",
            Self::Format => ("response_format", "output_config.format", "generationConfig.responseSchema"),
            Self::Reasoning if dialect == Dialect::Responses => return "reasoning",
            Self::Reasoning => ("reasoning_effort", "thinking", "generationConfig.thinkingConfig"),
            Self::User => ("user", "metadata.user_id", "labels"),
            Self::ServiceTier => ("service_tier", "service_tier", "serviceTier"),
            Self::Metadata => ("metadata", "metadata", "labels"),
            Self::CacheKey => ("prompt_cache_key", "prompt_cache_key", "cachedContent"),
            Self::CacheControl => ("cache_control", "cache_control", "cachedContent"),
            Self::Store => ("store", "store", "store"),
            Self::Modalities => ("modalities", "modalities", "generationConfig.responseModalities"),
            Self::ParticipantName => ("messages.name", "messages.name", "contents.name"),
            Self::ImageDetail => ("image_url.detail", "image.detail", "mediaResolution"),
            Self::Citations => ("citations", "citations", "citations"),
            Self::Thinking => ("reasoning_content", "thinking blocks", "thought parts"),
            Self::MaxOutput if dialect == Dialect::Responses => return "max_output_tokens",
            Self::MaxOutput => ("max_tokens", "max_tokens", "generationConfig.maxOutputTokens"),
        };
        match dialect {
            Dialect::Messages => anthropic,
            Dialect::GenerateContent => gemini,
            _ => openai,
        }
    }
}
