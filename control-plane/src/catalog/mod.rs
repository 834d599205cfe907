//! The model catalog as data: which models exist, who offers them under which name, and for how much.
//!
//! [`bundled()`] is the catalog that ships with this version; `tools/catalog/build.py` makes it from public data.
//! [`seed`] turns that into rows of the database, [`sync`] keeps them current from public sources and the providers' own
//! lists, and [`price_clock`] puts scheduled prices into effect.

mod bundled;
pub mod price_clock;
pub mod seed;
pub mod sync;

use serde::Deserialize;

pub use bundled::bundled;

/// A catalog of models, as of one day.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// The day it was made, `YYYY-MM-DD`; it changes whenever anything else here does.
    pub generated: String,
    pub sources: Vec<CatalogSource>,
    /// Sorted by id. No name (id or alias) belongs to two models.
    pub models: Vec<CatalogModel>,
}

/// A public package that facts were taken from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogSource {
    pub package: String,
    pub version: String,
    pub registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogModel {
    /// Root id without a provider's prefix, such as `gpt-5.2`.
    pub id: String,
    pub display_name: String,
    /// Who made it; need not be a provider.
    pub owned_by: String,
    /// Midnight UTC of the day it was released, or else first listed anywhere.
    pub created_unix: i64,
    /// Tokens of input and output together; 0 for what has no such limit (images, speech).
    pub context_window: u64,
    /// Tokens; `None` for what has no output tokens (embeddings).
    pub max_output_tokens: Option<u64>,
    pub tags: Vec<String>,
    /// Other names that resolve to this model. Some contain a slash: `meta-llama/llama-4-scout`.
    pub aliases: Vec<String>,
    pub input_modalities: Vec<String>,
    pub output_modalities: Vec<String>,
    /// `chat.completions`, `embeddings`, `images.generations`, `audio.transcriptions`, ...
    pub endpoints: Vec<String>,
    /// The maker's own first, where the maker offers it.
    pub offerings: Vec<CatalogOffering>,
}

/// A provider that serves a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogOffering {
    /// Id in the provider table, such as `google-ai-studio`.
    pub provider: String,
    /// What the provider calls the model. Where it pins snapshots by date, the dated name.
    pub upstream_model: String,
    #[serde(default)]
    pub price: CatalogPrice,
}

/// List prices in nano-USD per million tokens (2.50 USD per million is 2 500 000 000). `None` means unknown, never free.
///
/// Without what depends on the time of day, and batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogPrice {
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub cache_read: Option<i64>,
    /// Where caches of several lifetimes are sold, the shortest one.
    pub cache_write: Option<i64>,
    /// What is kept for an hour.
    pub cache_write_1h: Option<i64>,
    /// Where it differs from the rest of the output.
    pub reasoning: Option<i64>,
    /// Of long prompts and of service tiers, in the order of threshold and tier.
    #[serde(default)]
    pub steps: Vec<CatalogPriceStep>,
    /// What is billed by another unit than text tokens, in the order of unit, quality and size.
    #[serde(default)]
    pub units: Vec<CatalogUnitPrice>,
}

/// Prices under a condition; what is `None` is as in the price itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogPriceStep {
    /// For prompts of more tokens; 0: of any length.
    #[serde(default)]
    pub above_input_tokens: u64,
    /// Empty: any.
    #[serde(default)]
    pub service_tier: String,
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub cache_read: Option<i64>,
    pub cache_write: Option<i64>,
    pub cache_write_1h: Option<i64>,
    pub reasoning: Option<i64>,
}

/// The price of one unit, in nano-USD per million units (0.04 USD per image is 40 000 000 000 000).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogUnitPrice {
    /// The name of a `nemo_types::Unit`.
    pub unit: String,
    /// Empty: for any.
    #[serde(default)]
    pub quality: String,
    /// Empty: for any.
    #[serde(default)]
    pub size: String,
    pub price: i64,
}

impl CatalogModel {
    /// Every name that resolves to this model, its id first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.id).chain(&self.aliases).map(String::as_str)
    }
}

/// The identity of one offering's price: `openai/gpt-5.2@2026-11-21`. The same as long as the catalog is, so that what
/// was billed at it can be looked up again.
pub fn price_id(generated: &str, provider: &str, model: &str) -> String {
    format!("{provider}/{model}@{generated}")
}
