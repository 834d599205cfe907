//! Request members that belong to a gateway and not to the OpenAI dialect: our own `nemo_*` and those that
//! clients of other gateways send. Where one has a meaning here it is read; all of them are stripped before the
//! body goes upstream (requirements F and E), except where the upstream itself is the one that defined them.

use nemo_types::Nanos;

use crate::{Preferences, Sort};

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

/// A value together with the field or header that the client sent it in, which is what an error about it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<T> {
    pub value: T,
    pub field: &'static str,
}

impl<T> Said<T> {
    pub fn new(field: &'static str, value: T) -> Self {
        Self { value, field }
    }
}

/// What the extras of a request ask for. `None`: not said.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Extras<'a> {
    /// `nemo_metadata`: the text of a JSON object, at most [`Extras::MAX_METADATA`] bytes, kept in the log.
    pub metadata: Option<&'a str>,
    /// `nemo_no_fallback`, or its aliases `disable_fallbacks` and (negated) `provider.allow_fallbacks`.
    pub no_fallback: Option<bool>,
    /// `nemo_timeout_ms`: total deadline in milliseconds, at least 1.
    pub timeout_ms: Option<u64>,
    /// `nemo_retries`, or LiteLLM's `num_retries`.
    pub retries: Option<Said<u64>>,
    /// Few requests have any.
    pub overrides: Option<Box<Overrides>>,
}

impl Extras<'_> {
    /// Largest `nemo_metadata`, in bytes as sent.
    pub const MAX_METADATA: usize = 4096;
}

/// How this request wants to be routed. `None`: as the key, the group and the organization say.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Overrides {
    /// `nemo_tags`: required tags, instead of the key's. An empty list requires none.
    pub tags: Option<Said<Vec<Box<str>>>>,
    pub strategy: Option<Said<Box<str>>>,
    /// The chain.
    pub chain: Option<Said<Chain>>,
    /// `nemo_max_cost`, in nano-USD.
    pub max_cost: Option<Said<Nanos>>,
    /// LLM Gateway's `routing`; `Some(None)` is its `auto`.
    pub routing: Option<Said<Option<Sort>>>,
    /// OpenRouter's `provider`.
    pub preferences: Option<Preferences>,
}

/// Models to go on with when the requested one can't serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chain {
    /// `nemo_fallbacks` and LiteLLM's `fallbacks`: behind the primary pool, instead of the group's own links.
    Instead(Vec<Box<str>>),
    /// OpenRouter's `models`: behind all links of the group.
    After(Vec<Box<str>>),
}

impl Chain {
    pub fn models(&self) -> &[Box<str>] {
        let (Self::Instead(models) | Self::After(models)) = self;
        models
    }

    pub fn into_models(self) -> Vec<Box<str>> {
        let (Self::Instead(models) | Self::After(models)) = self;
        models
    }
}

impl Overrides {
    /// Most names in one list: tags, models, providers.
    pub const MAX_LIST: usize = 16;
    /// Longest name in a list, in bytes.
    pub const MAX_NAME: usize = 256;
}
