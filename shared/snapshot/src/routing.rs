//! What a name that a client sends leads to: model groups, their links and deployments.
//!
//! Every catalog model is a model group by itself, under its root id (`gpt-5.2`), its aliases, and its prefixed
//! forms (`openai/gpt-5.2`: that provider's deployments first). Organizations and the operator can define groups
//! of their own, which win over catalog names.

use std::{borrow::Cow, collections::HashMap, num::NonZeroU32, sync::Arc};

use nemo_types::{CredentialId, DeploymentId, ModelGroupId, OrgId, PriceSheet, Sealed};

use crate::{
    RoutingPolicy, Strategy, TagNames, TagSet, UnknownTag,
    routing_policy::{AboveCeiling, Overrides},
};

/// A catalog entry.
#[derive(Debug, PartialEq)]
pub struct Model {
    pub id: Arc<str>,
    pub display_name: Box<str>,
    pub owned_by: Box<str>,
    pub created_unix: i64,
    /// Tokens; 0: unknown.
    pub context_window: u64,
    /// Tokens; 0: unknown.
    pub max_output_tokens: u64,
    pub tags: Vec<Box<str>>,
    /// `tags` again, as bits of [`Routing::tags`].
    pub tag_set: TagSet,
    pub aliases: Vec<Box<str>>,
    pub input_modalities: Vec<Box<str>>,
    pub output_modalities: Vec<Box<str>>,
    /// `chat.completions`, `completions`, `embeddings`; empty: unknown, so everything is tried.
    pub endpoints: Vec<Box<str>>,
    pub offerings: Vec<Offering>,
}

/// A provider that serves a model, and for how much.
#[derive(Debug, PartialEq)]
pub struct Offering {
    pub provider: Box<str>,
    pub upstream_model: Box<str>,
    pub price: Option<Arc<PriceSheet>>,
}

/// A provider secret, still sealed; its id is the context that it was sealed in.
#[derive(Debug)]
pub struct Credential {
    pub id: CredentialId,
    pub provider: Box<str>,
    pub sealed: Sealed,
}

/// One concrete upstream.
#[derive(Debug)]
pub struct Deployment {
    /// Dense index into [`Routing::deployments`], for side tables that a node keeps per snapshot.
    pub slot: usize,
    pub id: DeploymentId,
    /// `None`: the operator's, usable by every organization.
    pub org_id: Option<OrgId>,
    pub name: Arc<str>,
    pub provider: Arc<str>,
    /// Without trailing slash.
    pub base_url: Box<str>,
    pub credential: Option<Arc<Credential>>,
    pub model: Arc<Model>,
    pub upstream_model: Arc<str>,
    /// The deployment's own, else the catalog's; `None`: unknown.
    pub price: Option<Arc<PriceSheet>>,
    pub weight: u32,
    pub disabled: bool,
    pub timeouts: Timeouts,
    /// Requests per minute that it is good for; `None`: not known. Nothing is refused because of it: strategies use
    /// it to share out the load.
    pub rpm: Option<NonZeroU32>,
    /// Tokens per minute, likewise.
    pub tpm: Option<NonZeroU32>,
}

/// How long the waits of a request may be; `None`: whatever is less specific says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub connect_ms: Option<NonZeroU32>,
    pub first_byte_ms: Option<NonZeroU32>,
    pub idle_ms: Option<NonZeroU32>,
    pub total_ms: Option<NonZeroU32>,
}

impl Timeouts {
    /// The keys of the settings that hold them.
    pub const SETTINGS: [&str; 4] =
        ["timeouts.connect_ms", "timeouts.first_byte_ms", "timeouts.idle_ms", "timeouts.total_ms"];

    /// By the key of a setting; `None` for other keys.
    pub(crate) fn by_setting(&mut self, key: &str) -> Option<&mut Option<NonZeroU32>> {
        let [connect, first_byte, idle, total] = Self::SETTINGS;
        match key {
            _ if key == connect => Some(&mut self.connect_ms),
            _ if key == first_byte => Some(&mut self.first_byte_ms),
            _ if key == idle => Some(&mut self.idle_ms),
            _ if key == total => Some(&mut self.total_ms),
            _ => None,
        }
    }
}

impl From<&nemo_proto::config::Timeouts> for Timeouts {
    fn from(wire: &nemo_proto::config::Timeouts) -> Self {
        Self {
            connect_ms: wire.connect_ms.and_then(NonZeroU32::new),
            first_byte_ms: wire.first_byte_ms.and_then(NonZeroU32::new),
            idle_ms: wire.idle_ms.and_then(NonZeroU32::new),
            total_ms: wire.total_ms.and_then(NonZeroU32::new),
        }
    }
}

/// A deployment as a member of a link.
#[derive(Clone, Debug)]
pub struct LinkMember {
    pub deployment: Arc<Deployment>,
    /// Never 0.
    pub weight: u32,
}

/// A pool of deployments. Never empty.
#[derive(Clone, Debug)]
pub struct Link {
    pub members: Vec<LinkMember>,
}

/// What a name resolves to. The first link is the primary pool, the others the fallback chain; never empty.
#[derive(Debug)]
pub struct ModelGroup {
    pub name: Arc<str>,
    /// `None` for a catalog model that is a group by itself.
    pub id: Option<ModelGroupId>,
    /// `None`: the organization's.
    pub strategy: Option<Strategy>,
    /// What every deployment that serves the group must have, whatever the request asks for.
    pub required_tags: TagSet,
    pub links: Vec<Link>,
    /// The catalog model that this group is, unless somebody defined it.
    pub model: Option<Arc<Model>>,
}

impl ModelGroup {
    /// The catalog model that describes the group: its own, else that of its first deployment.
    pub fn described_by(&self) -> Option<&Arc<Model>> {
        let first = || self.links.first().and_then(|link| link.members.first());
        self.model.as_ref().or_else(|| first().map(|member| &member.deployment.model))
    }
}

pub(crate) type Names = HashMap<Box<str>, Arc<ModelGroup>, ahash::RandomState>;

/// Names of one scope: an organization's own, or everybody's.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) names: Names,
    /// Groups by their own name, without aliases and prefixed forms, in name order.
    pub(crate) roots: Vec<Arc<ModelGroup>>,
    pub(crate) overrides: Overrides,
    /// Merged of the installation's settings and these.
    pub(crate) policy: RoutingPolicy,
    pub(crate) timeouts: Timeouts,
}

/// The section of a snapshot that routing reads.
#[derive(Debug, Default)]
pub struct Routing {
    /// Every tag that the catalog or a model group names.
    pub tags: TagNames,
    pub(crate) shared: Scope,
    pub(crate) orgs: HashMap<OrgId, Scope, ahash::RandomState>,
    pub(crate) deployments: Vec<Arc<Deployment>>,
    pub(crate) models: HashMap<Box<str>, Arc<Model>, ahash::RandomState>,
}

/// Other spellings of provider prefixes (requirements B12).
const PREFIX_ALIASES: &[(&str, &str)] = &[
    ("gemini", "google-ai-studio"),
    ("google", "google-ai-studio"),
    ("vertex", "google-vertex"),
    ("aws-bedrock", "bedrock"),
];

impl Routing {
    /// Every deployment; [`Deployment::slot`] is its index.
    pub fn deployments(&self) -> &[Arc<Deployment>] {
        &self.deployments
    }

    /// What `name` means to this organization.
    pub fn resolve(&self, org: OrgId, name: &str) -> Option<&Arc<ModelGroup>> {
        let own = self.orgs.get(&org);
        let find =
            |name: &str| own.and_then(|own| own.names.get(name)).or_else(|| self.shared.names.get(name));
        find(name).or_else(|| match canonical_prefix(name) {
            Cow::Borrowed(_) => None,
            Cow::Owned(name) => find(&name),
        })
    }

    /// How this organization's requests are routed and retried.
    pub fn policy(&self, org: OrgId) -> &RoutingPolicy {
        self.orgs.get(&org).map_or(&self.shared.policy, |own| &own.policy)
    }

    /// Whether the setting of this owner (`None`: the installation) is within the one that bounds it.
    ///
    /// # Errors
    /// When it is above.
    pub fn check_ceiling(&self, owner: Option<OrgId>, key: &str) -> Result<(), AboveCeiling> {
        let own = owner.and_then(|org| self.orgs.get(&org)).map(|own| &own.overrides);
        Overrides::check(key, &self.shared.overrides, own)
    }

    /// The strategy of groups that name none.
    pub fn strategy(&self, org: OrgId) -> Strategy {
        self.policy(org).strategy
    }

    /// The bits of these tags.
    ///
    /// # Errors
    /// The first that nothing in this snapshot has.
    pub fn tag_set<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<TagSet, UnknownTag> {
        self.tags.set(names)
    }

    /// The installation's timeouts, and the organization's own.
    pub fn timeouts(&self, org: OrgId) -> (&Timeouts, Option<&Timeouts>) {
        (&self.shared.timeouts, self.orgs.get(&org).map(|own| &own.timeouts))
    }

    /// The groups that this organization can name, by their own names, in order; `None`: those without a tenant.
    pub fn visible(&self, org: Option<OrgId>) -> Vec<&Arc<ModelGroup>> {
        let own = org.and_then(|org| self.orgs.get(&org));
        let mut groups: Vec<_> = own.iter().flat_map(|own| &own.roots).collect();
        let hidden =
            |name: &str| own.is_some_and(|own| own.names.get(name).is_some_and(|group| *group.name == *name));
        groups.extend(self.shared.roots.iter().filter(|group| !hidden(&group.name)));
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }

    /// The catalog model of that id, whether or not a deployment serves it.
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.get(id)
    }

    /// Names near to one that did not resolve, nearest first, at most `limit`.
    pub fn nearest(&self, org: OrgId, name: &str, limit: usize) -> Vec<Arc<str>> {
        let wanted = name.rsplit('/').next().unwrap_or(name);
        let longest = wanted.len().max(1);
        let mut ranked: Vec<(usize, &Arc<ModelGroup>)> = self
            .visible(Some(org))
            .into_iter()
            .filter_map(|group| {
                let distance = edit_distance(wanted, &group.name);
                let related = group.name.contains(wanted) || wanted.contains(&*group.name);
                (distance * 2 <= longest || related).then_some((distance, group))
            })
            .collect();
        ranked.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        ranked.into_iter().take(limit).map(|(_, group)| group.name.clone()).collect()
    }
}

/// Borrowed when there is nothing to replace.
fn canonical_prefix(name: &str) -> Cow<'_, str> {
    let alias = name.split_once('/').and_then(|(prefix, rest)| {
        PREFIX_ALIASES.iter().find(|(alias, _)| *alias == prefix).map(|(_, id)| format!("{id}/{rest}"))
    });
    alias.map_or(Cow::Borrowed(name), Cow::Owned)
}

/// Levenshtein distance over bytes, of at most the first 64 of each: names are ASCII, and a client chooses one.
fn edit_distance(a: &str, b: &str) -> usize {
    let clip = |text: &str| text.bytes().take(64).collect::<Vec<_>>();
    let (a, b) = (clip(a), clip(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_single_edits() {
        for (a, b, distance) in
            [("", "", 0), ("gpt-4o", "gpt-4o", 0), ("gtp-4o", "gpt-4o", 2), ("gpt", "gpt-4", 2)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn prefix_aliases_become_provider_ids() {
        assert_eq!(canonical_prefix("gemini/gemini-3-flash"), "google-ai-studio/gemini-3-flash");
        assert_eq!(canonical_prefix("aws-bedrock/claude"), "bedrock/claude");
        assert_eq!(canonical_prefix("openai/gpt-5.2"), "openai/gpt-5.2");
        assert_eq!(canonical_prefix("gemini"), "gemini");
    }
}
