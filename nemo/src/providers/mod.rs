//! Which providers, deployments, model groups and keys there shall be, and how they come to be.
//!
//! `nemo standalone` collects a [`Desired`] from the environment ([`environment`]) or from `nemo.toml` ([`file`]),
//! and [`apply`] brings the control plane to it through the admin operations, at every start and idempotently.
//! What was made here carries a name with a [`MANAGED`] prefix; everything else is left alone.

pub mod apply;
pub mod discover;
pub mod environment;
pub mod file;
pub mod limits;
#[cfg(test)]
mod tests;

use nemo_proto::admin::{Model, Offering, Price, UnitPrice};
use nemo_types::Secret;

/// Prefixes of the names of what is managed here: from the environment, from `nemo.toml`, the demo.
pub const MANAGED: [&str; 3] = ["env:", FILE, "demo:"];
/// Of what `nemo.toml` declares, whether a start or `nemo apply` read it.
pub const FILE: &str = "file:";

pub fn is_managed(name: &str) -> bool {
    MANAGED.iter().any(|prefix| name.starts_with(prefix))
}

/// What there shall be. All of it belongs to the operator, so that every organization can use it, but keys and limits.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub credentials: Vec<DesiredCredential>,
    /// Put into the catalog where it does not have them.
    pub models: Vec<Model>,
    pub deployments: Vec<DesiredDeployment>,
    pub model_groups: Vec<DesiredGroup>,
    /// Names.
    pub organizations: Vec<String>,
    pub teams: Vec<DesiredTeam>,
    pub keys: Vec<DesiredKey>,
    pub budgets: Vec<limits::DesiredBudget>,
    pub limits: Vec<limits::DesiredLimit>,
    pub settings: Vec<DesiredSetting>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

impl Desired {
    /// Adds a model, or another provider's offering of one that was added before.
    pub(crate) fn add_model(&mut self, model: Model) {
        match self.models.iter_mut().find(|known| known.id == model.id) {
            None => self.models.push(model),
            Some(known) => {
                let new =
                    |offering: &Offering| known.offerings.iter().all(|o| o.provider != offering.provider);
                let offerings: Vec<_> = model.offerings.into_iter().filter(new).collect();
                known.offerings.extend(offerings);
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct DesiredCredential {
    pub name: String,
    pub provider: String,
    pub secret: Secret,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredDeployment {
    pub name: String,
    pub provider: String,
    pub base_url: String,
    /// Name of a [`DesiredCredential`].
    pub credential: Option<String>,
    pub model: String,
    pub upstream_model: String,
    pub weight: u32,
    pub price: Option<Price>,
    /// Requests and tokens per minute; `None`: not known.
    pub rpm: Option<u32>,
    pub tpm: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredGroup {
    pub name: String,
    /// Empty: the organization's default.
    pub strategy: String,
    pub required_tags: Vec<String>,
    /// Names of deployments with their weights; the first link is the primary pool.
    pub links: Vec<Vec<(String, u32)>>,
}

/// A setting that is not named stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSetting {
    /// `None`: the installation's.
    pub organization: Option<String>,
    pub key: String,
    /// JSON.
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredTeam {
    /// Empty: the default one.
    pub organization: String,
    pub name: String,
}

/// What is `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredKey {
    pub name: String,
    /// Empty: the default one.
    pub organization: String,
    pub team: String,
    pub allowed_models: Option<Vec<String>>,
    pub allowed_endpoints: Option<Vec<String>>,
    pub allowed_cidrs: Option<Vec<String>>,
    pub default_tags: Option<Vec<String>>,
}

/// A model that the catalog need not know: what is certain about it is its name.
pub(crate) fn bare_model(id: &str, provider: &str, upstream_model: &str) -> Model {
    Model {
        id: id.to_owned(),
        owned_by: provider.to_owned(),
        input_modalities: vec!["text".to_owned()],
        output_modalities: vec!["text".to_owned()],
        endpoints: ["chat.completions", "completions", "embeddings", "responses"].map(str::to_owned).to_vec(),
        offerings: vec![Offering {
            provider: provider.to_owned(),
            upstream_model: upstream_model.to_owned(),
            price: None,
        }],
        ..Model::default()
    }
}

/// The demo provider as it is registered: a model for each kind of endpoint, one deployment each.
pub fn demo(base_url: &str) -> Desired {
    use crate::demo::{
        CHAT_MODEL, CONTEXT_WINDOW, EMBEDDING_MODEL, IMAGE_MODEL, MAX_OUTPUT_TOKENS, MODERATION_MODEL,
        PROVIDER, RERANK_MODEL, SPEECH_MODEL, TRANSCRIPTION_MODEL,
    };
    let chat = Model {
        display_name: "Demo chat".to_owned(),
        owned_by: "nemo".to_owned(),
        context_window: CONTEXT_WINDOW,
        max_output_tokens: MAX_OUTPUT_TOKENS,
        tags: vec!["function-calling".to_owned(), "json".to_owned()],
        endpoints: ["chat.completions", "completions", "responses"].map(str::to_owned).to_vec(),
        ..bare_model(CHAT_MODEL, PROVIDER, CHAT_MODEL)
    };
    let embedding = Model {
        display_name: "Demo embedding".to_owned(),
        owned_by: "nemo".to_owned(),
        context_window: CONTEXT_WINDOW,
        output_modalities: vec!["embedding".to_owned()],
        endpoints: vec!["embeddings".to_owned()],
        ..bare_model(EMBEDDING_MODEL, PROVIDER, EMBEDDING_MODEL)
    };
    let other = |id: &str, name: &str, output: &str, endpoints: &[&str]| Model {
        display_name: name.to_owned(),
        owned_by: "nemo".to_owned(),
        output_modalities: vec![output.to_owned()],
        endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
        ..bare_model(id, PROVIDER, id)
    };
    let images = ["images.generations", "images.edits", "images.variations"];
    let others = [
        other(IMAGE_MODEL, "Demo image", "image", &images),
        other(SPEECH_MODEL, "Demo speech", "audio", &["audio.speech"]),
        other(
            TRANSCRIPTION_MODEL,
            "Demo transcription",
            "text",
            &["audio.transcriptions", "audio.translations"],
        ),
        other(MODERATION_MODEL, "Demo moderation", "text", &["moderations"]),
        other(RERANK_MODEL, "Demo rerank", "text", &["rerank"]),
    ];
    let models: Vec<Model> = [chat, embedding].into_iter().chain(others).collect();
    let free = |unit: &str| UnitPrice { unit: unit.to_owned(), ..UnitPrice::default() };
    let units = ["images", "characters", "audio_milliseconds", "requests", "search_units"].map(free);
    let deployment = |model: &Model| DesiredDeployment {
        name: format!("demo:{}", model.id),
        provider: PROVIDER.to_owned(),
        base_url: base_url.to_owned(),
        credential: None,
        model: model.id.clone(),
        upstream_model: model.id.clone(),
        weight: 1,
        // Free, and known to be: the cost of a demo request is zero, not unknown.
        price: Some(Price { input: Some(0), output: Some(0), units: units.to_vec(), ..Price::default() }),
        rpm: None,
        tpm: None,
    };
    Desired { deployments: models.iter().map(deployment).collect(), models, ..Desired::default() }
}
