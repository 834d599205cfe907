//! Request members that belong to a gateway and not to the OpenAI dialect: our own `nemo_*` and those that
//! clients of other gateways send. Where one has a meaning here it is read; all of them are stripped before the
//! body goes upstream (requirements F and E), except where the upstream itself is the one that defined them.

/// A member that a gateway defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum ExtraField {
    /// Any member whose name starts with `nemo_`.
    Nemo,
    // OpenRouter
    Models,
    Provider,
    Plugins,
    Transforms,
    Route,
    Usage,
    // LLM Gateway
    Routing,
    FreeModelsOnly,
    NoReasoning,
    // LiteLLM
    Fallbacks,
    NumRetries,
    DisableFallbacks,
    Guardrails,
    Cache,
}

impl ExtraField {
    /// The field of this name, if it is an extra.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "models" => Self::Models,
            "provider" => Self::Provider,
            "plugins" => Self::Plugins,
            "transforms" => Self::Transforms,
            "route" => Self::Route,
            "usage" => Self::Usage,
            "routing" => Self::Routing,
            "free_models_only" => Self::FreeModelsOnly,
            "no_reasoning" => Self::NoReasoning,
            "fallbacks" => Self::Fallbacks,
            "num_retries" => Self::NumRetries,
            "disable_fallbacks" => Self::DisableFallbacks,
            "guardrails" => Self::Guardrails,
            "cache" => Self::Cache,
            _ if name.starts_with("nemo_") => Self::Nemo,
            _ => return None,
        })
    }
}

/// What the extras of a request ask for. `None`: not said.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Extras<'a> {
    /// `nemo_metadata`: the text of a JSON object, at most [`Extras::MAX_METADATA`] bytes, kept in the log.
    pub metadata: Option<&'a str>,
    /// `nemo_no_fallback`, or its aliases `disable_fallbacks` and (negated) `provider.allow_fallbacks`.
    pub no_fallback: Option<bool>,
    /// `nemo_timeout_ms`: total deadline in milliseconds, at least 1.
    pub timeout_ms: Option<u64>,
}

impl Extras<'_> {
    /// Largest `nemo_metadata`, in bytes as sent.
    pub const MAX_METADATA: usize = 4096;
}
