//! What a request demands of every deployment that it may go to, and whether one meets it. Called by
//! [`super::candidates`]; nothing here depends on health.

use nemo_llm::{Endpoint, Preferences};
use nemo_snapshot::{Deployment, LinkMember, TagSet};

use super::{Ask, Reason, Served, price::Ceilings};

/// See the module.
#[derive(Debug)]
pub(super) struct Demands<'a> {
    endpoint: Endpoint,
    implied: TagSet,
    /// Tokens that the prompt has for certain.
    needed: u64,
    preferences: Option<&'a Preferences>,
    ceilings: Option<Ceilings>,
}

impl<'a> Demands<'a> {
    pub(super) fn of(ask: &Ask<'a>) -> Self {
        Self {
            endpoint: ask.endpoint,
            implied: ask.implied,
            needed: ask.least_input_tokens,
            preferences: ask.preferences,
            ceilings: Ceilings::of(ask),
        }
    }

    /// # Errors
    /// The first of the demands that it does not meet, in the order of [`super::Why`].
    pub(super) fn check(&self, member: &LinkMember, served: &Served, required: TagSet) -> Result<(), Reason> {
        let deployment = &*member.deployment;
        if deployment.disabled || member.weight == 0 {
            return Err(Reason::Disabled);
        }
        if !served.serves(deployment, self.endpoint) {
            return Err(Reason::EndpointNotServed);
        }
        let tags = deployment.model.tag_set;
        // Nothing can be concluded from what a model lacks that nobody described.
        let implied = if tags.is_empty() { TagSet::EMPTY } else { self.implied };
        let missing = required.union(implied).minus(tags);
        if !missing.is_empty() {
            return Err(Reason::TagsMissing(missing));
        }
        let window = deployment.model.context_window;
        if window > 0 && self.needed > window {
            return Err(Reason::ContextTooSmall { needed: self.needed, window });
        }
        if self.preferences.is_some_and(|preferences| excluded(preferences, deployment)) {
            return Err(Reason::Excluded);
        }
        self.ceilings.as_ref().map_or(Ok(()), |ceilings| ceilings.check(deployment))
    }
}

fn excluded(preferences: &Preferences, deployment: &Deployment) -> bool {
    let names = |list: &[Box<str>]| list.iter().any(|name| is_named(name, deployment));
    let Preferences { order, only, ignore, allow_fallbacks, .. } = preferences;
    names(ignore)
        || (!only.is_empty() && !names(only))
        || (*allow_fallbacks == Some(false) && !order.is_empty() && !names(order))
}

/// Whether a client means this deployment: by its provider's id or alias, with or without a variant behind a slash, or
/// by its own name.
fn is_named(name: &str, deployment: &Deployment) -> bool {
    let provider = &*deployment.provider;
    let is_provider = |name: &str| {
        name.eq_ignore_ascii_case(provider) || nemo_llm::provider(name).is_some_and(|it| it.id == provider)
    };
    is_provider(name)
        || name.eq_ignore_ascii_case(&deployment.name)
        || name.split_once('/').is_some_and(|(name, _)| is_provider(name))
}

/// Place in the request's own order of providers; those that it does not name come last.
pub(super) fn rank(preferences: &Preferences, deployment: &Deployment) -> usize {
    let at = preferences.order.iter().position(|name| is_named(name, deployment));
    at.unwrap_or(preferences.order.len())
}
