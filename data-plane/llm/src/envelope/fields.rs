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
    /// The limit of the Responses API.
    MaxOutputTokens,
    N,
    /// Completions that are made of each prompt, of which `n` are sent.
    BestOf,
    Quality,
    Size,
    /// `tools`, or `functions` before there were others.
    Tools,
    Functions,
    /// `response_format`, or `text` of the Responses API.
    AnswerFormat,
    Modalities,
    /// Google's `generationConfig`.
    GenerationConfig,
    /// `previous_response_id` and the like: input that is kept at the provider.
    KeptElsewhere,
    /// The provider searches, for a fee.
    WebSearch,
    /// The answer is made while nobody waits for it.
    Background,
    NemoMetadata,
    NemoNoFallback,
    NemoTimeoutMs,
    NemoTags,
    NemoStrategy,
    NemoFallbacks,
    NemoRetries,
    NemoMaxCost,
    NemoCache,
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
            Self::MaxOutputTokens => (13, "max_output_tokens"),
            Self::Quality => (14, "quality"),
            Self::Size => (15, "size"),
            Self::NemoTags => (16, "nemo_tags"),
            Self::NemoStrategy => (17, "nemo_strategy"),
            Self::NemoFallbacks => (18, "nemo_fallbacks"),
            Self::NemoRetries => (19, "nemo_retries"),
            Self::NemoMaxCost => (20, "nemo_max_cost"),
            Self::NemoCache => (21, "nemo_cache"),
            Self::Tools => (22, "tools"),
            Self::Functions => (23, "functions"),
            Self::AnswerFormat if endpoint == Endpoint::Responses => (24, "text"),
            Self::AnswerFormat if endpoint == Endpoint::Messages => (24, "output_config"),
            Self::AnswerFormat => (24, "response_format"),
            Self::Modalities => (25, "modalities"),
            Self::Extra(ExtraField::Models) => (26, "models"),
            Self::Extra(ExtraField::Fallbacks) => (27, "fallbacks"),
            Self::Extra(ExtraField::NumRetries) => (28, "num_retries"),
            Self::Extra(ExtraField::Routing) => (29, "routing"),
            Self::BestOf => (30, "best_of"),
            Self::GenerationConfig => (31, "generationConfig"),
            Self::Extra(_) | Self::KeptElsewhere | Self::WebSearch | Self::Background => return None,
        };
        Some((1 << position, name))
    }

    /// Whether it is one of ours, and so never goes upstream.
    pub(super) fn is_nemo(self) -> bool {
        matches!(
            self,
            Self::NemoMetadata
                | Self::NemoNoFallback
                | Self::NemoTimeoutMs
                | Self::NemoTags
                | Self::NemoStrategy
                | Self::NemoFallbacks
                | Self::NemoRetries
                | Self::NemoMaxCost
                | Self::NemoCache
        )
    }
}

/// Whether the field of [`content`] must be there. A response can go on with what is stored, or use a stored prompt; what
/// Google is to count may stand in a whole request.
pub(super) fn needs_content(endpoint: Endpoint) -> bool {
    !matches!(endpoint, Endpoint::Responses | Endpoint::GoogleCountTokens)
}

/// An endpoint's main field, and what it holds.
pub(super) fn content(endpoint: Endpoint) -> (&'static str, &'static str) {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Messages | Endpoint::CountTokens => {
            ("messages", "an array of messages")
        }
        Endpoint::GenerateContent | Endpoint::GoogleCountTokens => ("contents", "an array of contents"),
        Endpoint::Completions => ("prompt", "a string or an array"),
        Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Responses => {
            ("input", "a string or an array")
        }
        Endpoint::ImageGenerations | Endpoint::ImageEdits | Endpoint::Videos => ("prompt", "a string"),
        Endpoint::Speech => ("input", "a string"),
        Endpoint::Rerank => ("documents", "an array of documents"),
        // Sent as forms: as JSON they are refused by their content type.
        Endpoint::ImageVariations => ("image", "a file"),
        Endpoint::Transcriptions | Endpoint::Translations => ("file", "a file"),
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
    let (streams, choices, image) = (endpoint.streams(), endpoint.has_choices(), endpoint.is_image());
    let (chat, responses) = (endpoint == Endpoint::ChatCompletions, endpoint == Endpoint::Responses);
    let (messages, google) = (endpoint == Endpoint::Messages, endpoint == Endpoint::GenerateContent);
    Some(match name {
        // Google's path says both.
        "model" if !endpoint.is_named_in_path() => Field::Model,
        "stream" if streams && !google => Field::Stream,
        "stream_options" if choices => Field::StreamOptions,
        "generationConfig" | "generation_config" if google => Field::GenerationConfig,
        "cachedContent" | "cached_content" if google => Field::KeptElsewhere,
        "max_tokens" if choices || messages => Field::MaxTokens,
        "max_completion_tokens" if choices => Field::MaxCompletionTokens,
        "max_output_tokens" if responses => Field::MaxOutputTokens,
        "n" if choices || image => Field::N,
        "best_of" if endpoint == Endpoint::Completions => Field::BestOf,
        "previous_response_id" | "conversation" | "prompt" if responses => Field::KeptElsewhere,
        "background" if responses => Field::Background,
        "web_search_options" if chat => Field::WebSearch,
        "quality" if image => Field::Quality,
        "size" if image => Field::Size,
        "tools" if chat || responses || messages || google => Field::Tools,
        "functions" if chat => Field::Functions,
        "response_format" if chat => Field::AnswerFormat,
        "text" if responses => Field::AnswerFormat,
        "output_config" if messages => Field::AnswerFormat,
        "container" if messages => Field::KeptElsewhere,
        "modalities" if chat => Field::Modalities,
        _ if name == content(endpoint).0 => Field::Content,
        _ if name.starts_with("nemo_") => own(name),
        _ => return ExtraField::from_name(name).map(Field::Extra),
    })
}

/// Ours.
#[cold]
fn own(name: &str) -> Field {
    match name {
        "nemo_metadata" => Field::NemoMetadata,
        "nemo_no_fallback" => Field::NemoNoFallback,
        "nemo_timeout_ms" => Field::NemoTimeoutMs,
        "nemo_tags" => Field::NemoTags,
        "nemo_strategy" => Field::NemoStrategy,
        "nemo_fallbacks" => Field::NemoFallbacks,
        "nemo_retries" => Field::NemoRetries,
        "nemo_max_cost" => Field::NemoMaxCost,
        "nemo_cache" => Field::NemoCache,
        _ => Field::Extra(ExtraField::Nemo),
    }
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
