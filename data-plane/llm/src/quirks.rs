//! Where services depart from OpenAI in what a chat request may say, as data. Looked at by the writer of chat requests
//! ([`crate::providers::openai`]) when a request was translated; what a client wrote in this dialect itself goes on as it is.

use crate::ir::Param;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChatQuirks {
    /// Knows the role `developer`; elsewhere such instructions go as `system`.
    pub developer: bool,
    /// Knows `response_format` of the type `json_schema`; elsewhere the model is told the schema and held to JSON.
    pub schemas: bool,
    /// Takes `cache_control` on parts of messages.
    pub cache_marks: bool,
    pub reasoning: ReasoningStyle,
    /// What the model thought earlier goes back as this.
    pub thoughts: Thoughts,
    /// What `seed` is called.
    pub seed: &'static str,
    pub call_ids: CallIds,
    /// Parameters that it answers with an error, or does not know.
    pub refuses: &'static [Param],
}

/// How one says how much the model is to think.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReasoningStyle {
    /// Not at all.
    None,
    /// `reasoning_effort`
    Effort,
    /// OpenRouter's `reasoning`, which knows tokens as well.
    Object,
    /// `thinking: {"type": "enabled" | "disabled"}`
    Switch,
    /// `enable_thinking` and `thinking_budget`
    Budget,
}

/// How thoughts get back to the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Thoughts {
    /// They are not wanted.
    Dropped,
    /// `reasoning_content`
    Text,
    /// OpenRouter's `reasoning_details`
    Details,
}

/// What ids of tool calls look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallIds {
    /// At most 40 bytes.
    Any,
    /// Nine letters and digits.
    Nine,
}

impl ChatQuirks {
    /// OpenAI itself.
    pub const OPENAI: Self = Self {
        developer: true,
        schemas: true,
        cache_marks: false,
        reasoning: ReasoningStyle::Effort,
        thoughts: Thoughts::Dropped,
        seed: "seed",
        call_ids: CallIds::Any,
        refuses: &[Param::TopK, Param::MinP],
    };

    /// Other services know what has been there from the beginning, and the common samplers of open models.
    pub const COMPATIBLE: Self = Self {
        developer: false,
        refuses: &[Param::Store, Param::Metadata, Param::CacheKey, Param::ServiceTier],
        ..Self::OPENAI
    };

    /// Services that answer 400 or 422 to members that OpenAI does not have.
    pub const STRICT: Self = Self {
        refuses: &[
            Param::Store,
            Param::Metadata,
            Param::CacheKey,
            Param::ServiceTier,
            Param::TopK,
            Param::MinP,
        ],
        ..Self::COMPATIBLE
    };
}
