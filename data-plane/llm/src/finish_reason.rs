//! Why a completion ended, as the upstream said.

/// `finish_reason` of a choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
    FunctionCall,
    Error,
    /// Another word, at most [`FinishReason::MAX_OTHER`] bytes of it.
    Other(Box<str>),
}

impl FinishReason {
    /// Longest word that is kept: it goes into the request log.
    pub const MAX_OTHER: usize = 64;

    pub fn new(text: &str) -> Self {
        match text {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            "function_call" => Self::FunctionCall,
            "error" => Self::Error,
            other => Self::Other(other[..other.floor_char_boundary(Self::MAX_OTHER)].into()),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::FunctionCall => "function_call",
            Self::Error => "error",
            Self::Other(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_and_are_bounded() {
        for word in ["stop", "length", "tool_calls", "content_filter", "function_call", "error", "eos", ""] {
            assert_eq!(FinishReason::new(word).as_str(), word);
        }
        assert_eq!(FinishReason::new(&"é".repeat(100)).as_str().len(), 64);
    }
}
