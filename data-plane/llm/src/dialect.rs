//! The wire formats of conversations with models, and which shape of errors their clients understand. Decided once per
//! request: by the path that the client called, and by whom it is sent to.

/// How a conversation with a model is written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Dialect {
    /// OpenAI's Chat Completions, which most services speak as well.
    Chat,
    /// OpenAI's legacy Completions. Only read, never written to an upstream of another dialect.
    Completions,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Google's `generateContent`.
    GenerateContent,
    /// Bedrock's Converse. Only of upstreams.
    Converse,
    /// Cohere's v2 chat. Only of upstreams.
    Cohere,
}

impl Dialect {
    pub const ALL: [Self; 7] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::GenerateContent,
        Self::Converse,
        Self::Cohere,
    ];

    /// For logs, metrics and decisions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::GenerateContent => "generate_content",
            Self::Converse => "converse",
            Self::Cohere => "cohere",
        }
    }

    /// How errors name the place of a part of a message, as the client sent it.
    pub fn place(self, message: u16, part: Option<u16>) -> String {
        let (messages, parts) = match self {
            Self::Responses => ("input", "content"),
            Self::GenerateContent => ("contents", "parts"),
            _ => ("messages", "content"),
        };
        match part {
            Some(part) => format!("{messages}[{message}].{parts}[{part}]"),
            None => format!("{messages}[{message}]"),
        }
    }
}

/// The shape of error bodies: families of clients read `error.code` as different JSON types, or look elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorDialect {
    /// `{"error":{"message","type","param","code"}}`, `code` a string or null.
    OpenAi,
    /// `{"error":{"code","message","metadata"}}`, `code` the status as a number.
    OpenRouter,
    /// `{"type":"error","error":{"type","message"},"request_id"}`
    Anthropic,
    /// `{"error":{"code","message","status","details"}}`, `code` the HTTP status, `status` a name of `google.rpc.Code`.
    Google,
}

impl ErrorDialect {
    /// Anthropic's shape below `/v1/messages`, Google's below `/v1beta` and for its calls below `/v1`, OpenRouter's below `/api/v1`, OpenAI's
    /// everywhere else.
    pub fn from_path(path: &str) -> Self {
        let below = |mount: &str| {
            path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if below("/v1/messages") {
            Self::Anthropic
        } else if below("/v1beta") || crate::endpoint::google_call(path).is_some() {
            Self::Google
        } else if below("/api/v1") {
            Self::OpenRouter
        } else {
            Self::OpenAi
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mount_has_its_own_errors() {
        assert_eq!(ErrorDialect::from_path("/api/v1/chat/completions"), ErrorDialect::OpenRouter);
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            assert_eq!(ErrorDialect::from_path(path), ErrorDialect::Anthropic, "{path}");
        }
        for path in ["/v1beta/models/a:generateContent", "/v1/models/a:generateContent", "/v1beta/models"] {
            assert_eq!(ErrorDialect::from_path(path), ErrorDialect::Google, "{path}");
        }
        for path in
            ["/v1/chat/completions", "/api/v10/x", "/api/public/models", "/", "/v1/messages2", "/v1beta2"]
        {
            assert_eq!(ErrorDialect::from_path(path), ErrorDialect::OpenAi, "{path}");
        }
    }

    #[test]
    fn places_are_in_the_clients_words() {
        assert_eq!(Dialect::Chat.place(3, Some(0)), "messages[3].content[0]");
        assert_eq!(Dialect::GenerateContent.place(1, None), "contents[1]");
    }
}
