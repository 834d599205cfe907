//! The names of members that the gateway reads or removes, per endpoint.

use super::{EnvelopeError, EnvelopeErrorKind};
use crate::{Endpoint, extras::ExtraField};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    Model,
    /// `messages`, `prompt` or `input`.
    Content,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    N,
    NemoMetadata,
    NemoNoFallback,
    NemoTimeoutMs,
    /// Removed, and perhaps looked into.
    Extra(ExtraField),
}

impl Field {
    /// For fields that may stand in a body only once: a bit of their own, and the name for the error.
    pub(super) fn unique(self, endpoint: Endpoint) -> Option<(u32, &'static str)> {
        let (position, name) = match self {
            Self::Model => (0, "model"),
            Self::Content => (1, content(endpoint).0),
            Self::Stream => (2, "stream"),
            Self::StreamOptions => (3, "stream_options"),
            Self::MaxTokens => (4, "max_tokens"),
            Self::MaxCompletionTokens => (5, "max_completion_tokens"),
            Self::N => (6, "n"),
            Self::NemoMetadata => (7, "nemo_metadata"),
            Self::NemoNoFallback => (8, "nemo_no_fallback"),
            Self::NemoTimeoutMs => (9, "nemo_timeout_ms"),
            Self::Extra(ExtraField::Usage) => (10, "usage"),
            Self::Extra(ExtraField::Provider) => (11, "provider"),
            Self::Extra(ExtraField::DisableFallbacks) => (12, "disable_fallbacks"),
            Self::Extra(_) => return None,
        };
        Some((1 << position, name))
    }
}

/// The field that an endpoint cannot do without, and what it holds.
pub(super) fn content(endpoint: Endpoint) -> (&'static str, &'static str) {
    match endpoint {
        Endpoint::ChatCompletions => ("messages", "an array of messages"),
        Endpoint::Completions => ("prompt", "a string or an array"),
        Endpoint::Embeddings => ("input", "a string or an array"),
    }
}

/// Which field `name` is, if it is one that matters.
///
/// # Errors
/// For a name that differs from one that is read in letter case alone: some upstreams ignore case, and would
/// take this member for the other.
pub(super) fn classify(endpoint: Endpoint, name: &str) -> Result<Option<Field>, EnvelopeError> {
    let field = exact(endpoint, name);
    let longest = "max_completion_tokens".len() + "\u{212a}\u{17f}".len();
    if field.is_some()
        || name.len() > longest
        || !name.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii())
    {
        return Ok(field);
    }
    match exact(endpoint, &fold(name)).and_then(|field| field.unique(endpoint)) {
        None => Ok(None),
        Some((_, meant)) => {
            let message = format!(
                "`{name}` is no field of this endpoint; field names are case-sensitive, send `{meant}`."
            );
            Err(EnvelopeError { kind: EnvelopeErrorKind::DuplicateField, param: Some(meant), message })
        }
    }
}

fn exact(endpoint: Endpoint, name: &str) -> Option<Field> {
    let streams = endpoint.streams();
    Some(match name {
        "model" => Field::Model,
        "stream" if streams => Field::Stream,
        "stream_options" if streams => Field::StreamOptions,
        "max_tokens" if streams => Field::MaxTokens,
        "max_completion_tokens" if streams => Field::MaxCompletionTokens,
        "n" if streams => Field::N,
        "nemo_metadata" => Field::NemoMetadata,
        "nemo_no_fallback" => Field::NemoNoFallback,
        "nemo_timeout_ms" => Field::NemoTimeoutMs,
        _ if name == content(endpoint).0 => Field::Content,
        _ => return ExtraField::from_name(name).map(Field::Extra),
    })
}

/// Lower case as case-insensitive JSON decoders fold it: ASCII, and the two other letters whose simple case
/// folding is ASCII.
fn fold(name: &str) -> String {
    let folded = name.chars().map(|c| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        c => c.to_ascii_lowercase(),
    });
    folded.collect()
}
