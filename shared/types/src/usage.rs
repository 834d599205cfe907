//! What one call consumed, normalised over the conventions of the providers. Filled by `nemo-llm`, priced by
//! [`crate::price`].

/// Token counts of one call. `None` means that the upstream did not say, which is not zero.
///
/// Conventions: `input` holds all prompt tokens *including* those read from or written to a prompt cache, and
/// `output` all completion tokens *including* reasoning (as OpenAI counts; other dialects are converted).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// Part of `input` read from the provider's prompt cache.
    pub cache_read: Option<u64>,
    /// Part of `input` written to the provider's prompt cache.
    pub cache_write: Option<u64>,
    /// Part of `cache_write` that is kept for an hour; the rest is kept for five minutes.
    pub cache_write_1h: Option<u64>,
    /// Part of `output` spent on reasoning.
    pub reasoning: Option<u64>,
    /// Part of `input` that is audio.
    pub audio_input: Option<u64>,
    /// Part of `output` that is audio.
    pub audio_output: Option<u64>,
}

impl Usage {
    /// True when the upstream said nothing at all.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}
