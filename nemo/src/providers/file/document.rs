//! `nemo.toml` as it is written: what serde checks by itself. Called by [`super::reader`].

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use toml::Spanned;

use super::limits::{BudgetEntry, LimitEntry};

/// Settings of one family, by the last part of their key. Which there are, the reader knows.
pub(super) type SettingsTable = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    pub(super) providers: Vec<ProviderEntry>,
    pub(super) deployments: Vec<DeploymentEntry>,
    pub(super) model_groups: Vec<GroupEntry>,
    pub(super) organizations: Vec<OrganizationEntry>,
    pub(super) teams: Vec<TeamEntry>,
    pub(super) keys: Vec<KeyEntry>,
    pub(super) budgets: Vec<BudgetEntry>,
    pub(super) limits: Vec<LimitEntry>,
    /// Of the installation, as is the next.
    pub(super) routing: SettingsTable,
    pub(super) cooldown: SettingsTable,
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
    pub(super) rpm: Option<u32>,
    pub(super) tpm: Option<u32>,
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
    pub(super) strategy: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) required_tags: Vec<String>,
    pub(super) links: Vec<Pool>,
}

/// A link: a list of members, or a table that has one (`[[model_groups.links]]`).
#[derive(Debug)]
pub(super) struct Pool(pub(super) Vec<Spanned<Member>>);

impl<'de> Deserialize<'de> for Pool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PoolVisitor)
    }
}

/// By hand, since serde's untagged enums lose the lines of what is inside of them.
struct PoolVisitor;

impl<'de> Visitor<'de> for PoolVisitor {
    type Value = Pool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of deployments, or a table with `deployments`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Pool, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Pool)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pool, A::Error> {
        let mut pool = None;
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "deployments" => pool = Some(map.next_value()?),
                _ => return Err(A::Error::unknown_field(&field, &["deployments"])),
            }
        }
        pool.map(Pool).ok_or_else(|| A::Error::missing_field("deployments"))
    }
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
    #[serde(default)]
    pub(super) routing: SettingsTable,
    #[serde(default)]
    pub(super) cooldown: SettingsTable,
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
