//! What a request asks of routing. Built by `pipeline::route`, kept in the decision record, given to
//! [`super::decide`].

use std::sync::Arc;

use nemo_llm::{Endpoint, Preferences};
use nemo_snapshot::{Link, LinkMember, ModelGroup, Strategy, TagSet};
use nemo_types::Nanos;

/// All that a decision depends on beside configuration, health and seed.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub endpoint: Endpoint,
    pub links: Chain<'a>,
    pub strategy: Strategy,
    /// Given by the request, else the key's defaults. Those that a group requires come on top. Strict: a model that lacks
    /// one is none, also when nobody described it.
    pub tags: TagSet,
    /// What the request implies by its shape (images, functions, JSON). Asked only of models that have tags at all: of
    /// one that nobody described nothing is known, and it is not refused for that.
    pub implied: TagSet,
    /// Likely, for the cost: `nemo_llm::likely_input_tokens`.
    pub input_tokens: u64,
    /// For certain, for the context window: `nemo_llm::least_input_tokens`. The asked-for output is not added to it:
    /// some upstreams refuse what exceeds their window together with the prompt, others just answer shorter.
    pub least_input_tokens: u64,
    /// The most that the request lets the model answer; `None`: not said. For the cost.
    pub output_tokens: Option<u64>,
    /// False: the first link only.
    pub fallbacks: bool,
    pub preferences: Option<&'a Preferences>,
    /// Of one attempt.
    pub max_cost: Option<Nanos>,
}

/// Where the links come from.
#[derive(Clone, Copy, Debug)]
pub enum Chain<'a> {
    /// Those of one group.
    Group(&'a ModelGroup),
    /// Those of several, one group after the other (`models`).
    Models(&'a [Arc<ModelGroup>]),
    /// The primary pool of a group, and then others instead of its own fallbacks (`nemo_fallbacks`).
    Instead { primary: &'a ModelGroup, fallbacks: &'a [Arc<ModelGroup>] },
}

/// Deployments that are ordered together: a link, or several of one catalog model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool<'a> {
    pub links: &'a [Link],
    /// The first link's place in the chain.
    pub number: u8,
    pub required: TagSet,
}

impl<'a> Pool<'a> {
    pub(super) fn members(&self) -> impl Iterator<Item = &'a LinkMember> + use<'a> {
        self.links.iter().flat_map(|link| &link.members)
    }

    /// Of all [`Self::members`] the one at that place.
    pub(super) fn member(&self, mut at: usize) -> Option<&'a LinkMember> {
        for link in self.links {
            match link.members.get(at) {
                Some(member) => return Some(member),
                None => at -= link.members.len(),
            }
        }
        None
    }

    pub(super) fn size(&self) -> usize {
        self.links.iter().map(|link| link.members.len()).sum()
    }
}

/// Longest chain that is looked at: there are no more picks than this.
const MAX_LINKS: usize = super::Decision::MAX_PICKS;

impl<'a> Ask<'a> {
    /// In the order in which they are tried, at most [`MAX_LINKS`].
    pub(super) fn pools(&self) -> impl Iterator<Item = Pool<'a>> {
        let (first, own, others): (_, _, &'a [Arc<ModelGroup>]) = match self.links {
            Chain::Group(group) => (Some(group), usize::MAX, &[]),
            Chain::Models([first, others @ ..]) => (Some(&**first), usize::MAX, others),
            Chain::Models([]) => (None, 0, &[]),
            Chain::Instead { primary, fallbacks } => (Some(primary), 1, fallbacks),
        };
        let others = if self.fallbacks { others } else { &[] };
        let groups = first.map(|group| (group, own)).into_iter();
        let groups = groups.chain(others.iter().map(|group| (&**group, usize::MAX)));
        let united = self.unites();
        let tags = self.tags;
        let mut number = 0_u8;
        let pools = groups.flat_map(move |(group, most)| {
            let links = &group.links[..group.links.len().min(most)];
            // All links of a catalog model are that model: which of its providers comes first is then the request's to say.
            let size = if united && group.model.is_some() { links.len().max(1) } else { 1 };
            links.chunks(size).map(move |links| (links, group.required_tags))
        });
        let most = if self.fallbacks { MAX_LINKS } else { 1 };
        pools.take(most).map(move |(links, required)| {
            let pool = Pool { links, number, required: tags.union(required) };
            number = number.saturating_add(u8::try_from(links.len()).unwrap_or(u8::MAX));
            pool
        })
    }

    /// Whether the request has its own mind about providers.
    fn unites(&self) -> bool {
        self.preferences.is_some_and(|it| !it.order.is_empty() || !it.only.is_empty() || it.sort.is_some())
    }
}
