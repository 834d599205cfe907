//! Which shape of error body a client understands. Decided once, by the path that it called.

/// The shape of error bodies: the two families of clients read `error.code` as different JSON types.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorDialect {
    /// `{"error":{"message","type","param","code"}}`, `code` a string or null.
    OpenAi,
    /// `{"error":{"code","message","metadata"}}`, `code` the status as a number.
    OpenRouter,
}

impl ErrorDialect {
    /// OpenRouter's shape under `/api/v1`, OpenAI's everywhere else.
    pub fn from_path(path: &str) -> Self {
        match path.strip_prefix("/api/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Self::OpenRouter,
            _ => Self::OpenAi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_openrouter_mount_speaks_openrouter_errors() {
        assert_eq!(ErrorDialect::from_path("/api/v1/chat/completions"), ErrorDialect::OpenRouter);
        for path in ["/v1/chat/completions", "/api/v10/x", "/api/public/models", "/"] {
            assert_eq!(ErrorDialect::from_path(path), ErrorDialect::OpenAi, "{path}");
        }
    }
}
