//! `nemo.toml` as it is written: what serde checks by itself. Called by [`super::reader`].

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) providers: Vec<ProviderEntry>,
    pub(super) deployments: Vec<DeploymentEntry>,
    pub(super) model_groups: Vec<GroupEntry>,
    pub(super) organizations: Vec<OrganizationEntry>,
    pub(super) teams: Vec<TeamEntry>,
    pub(super) keys: Vec<KeyEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderEntry {
    pub(super) id: Spanned<String>,
    pub(super) provider: Option<Spanned<String>>,
    pub(super) base_url: Option<String>,
    pub(super) api_key: Option<Spanned<String>>,
    pub(super) models: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeploymentEntry {
    pub(super) name: Spanned<String>,
    pub(super) provider: Spanned<String>,
    pub(super) model: String,
    pub(super) upstream_model: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) price: Option<PriceEntry>,
}

/// USD per million tokens as text: money is no float.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceEntry {
    pub(super) input: Option<Spanned<String>>,
    pub(super) output: Option<Spanned<String>>,
    pub(super) cache_read: Option<Spanned<String>>,
    pub(super) cache_write: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) strategy: String,
    pub(super) links: Vec<Vec<Spanned<Member>>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the name of a deployment, or { deployment = \"…\", weight = 2 }")]
pub(super) enum Member {
    Name(String),
    Weighted(Weighted),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Weighted {
    pub(super) deployment: String,
    pub(super) weight: u32,
}

impl Member {
    pub(super) fn parts(&self) -> (&str, u32) {
        match self {
            Self::Name(name) => (name, 1),
            Self::Weighted(Weighted { deployment, weight }) => (deployment, *weight),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrganizationEntry {
    pub(super) name: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TeamEntry {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) organization: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyEntry {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) organization: String,
    #[serde(default = "default_team")]
    pub(super) team: String,
    pub(super) models: Option<Vec<String>>,
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) cidrs: Option<Vec<String>>,
    pub(super) tags: Option<Vec<String>>,
}

fn default_team() -> String {
    "default".to_owned()
}
