//! Which deployment serves which endpoint: a bit per endpoint, by the provider table and the catalog alone, so that a
//! replay without credentials knows it too. Made with each snapshot by `config::live`.

use std::sync::Arc;

use nemo_llm::{Counter, Dialect, Endpoint, Plan, Provider};
use nemo_snapshot::{Deployment, Routing};

/// Indexed by [`Deployment::slot`].
#[derive(Clone, Debug, Default)]
pub struct Served(Box<[u32]>);

const _: () = assert!(Endpoint::ALL.len() <= 32);

impl Served {
    pub fn new(routing: &Routing) -> Self {
        Self::of(routing.deployments())
    }

    /// In the order of their slots.
    pub fn of(deployments: &[Arc<Deployment>]) -> Self {
        Self(deployments.iter().map(|deployment| endpoints(deployment)).collect())
    }

    pub fn serves(&self, deployment: &Deployment, endpoint: Endpoint) -> bool {
        self.0.get(deployment.slot).is_some_and(|bits| bits & bit(endpoint) != 0)
    }
}

fn bit(endpoint: Endpoint) -> u32 {
    1 << endpoint as u32
}

/// Who serves this deployment.
pub fn provider(deployment: &Deployment) -> &'static Provider {
    nemo_llm::provider(&deployment.provider).unwrap_or(&nemo_llm::compatible::COMPATIBLE)
}

/// How this deployment is called for this endpoint; `None`: its model or its provider does not have it. A model that names
/// no endpoints is tried with all of its provider's.
///
/// A model that is good for one kind of conversation is good for every kind: where it, or its provider, does not have the
/// client's, the request is translated.
pub fn plan(deployment: &Deployment, endpoint: Endpoint) -> Option<Plan> {
    let (provider, model) = (provider(deployment), &*deployment.upstream_model);
    let listed = &deployment.model.endpoints;
    let lists = |endpoint: Endpoint| listed.iter().any(|name| **name == *endpoint.label());
    if listed.is_empty() || lists(endpoint) {
        return nemo_llm::plan(endpoint, provider, model);
    }
    let conversations = || Endpoint::ALL.into_iter().filter(|it| it.dialect().is_some() && lists(*it));
    if endpoint.counts().is_some() && conversations().next().is_some() {
        return nemo_llm::plan(endpoint, provider, model);
    }
    let from = endpoint.dialect()?;
    // What both the model and the provider have is the way to go; old completions have no place for a conversation.
    let own = provider.speaks.filter(|dialect| *dialect != Dialect::Chat);
    if own == Some(from) && provider.speaks_natively(endpoint, model) && conversations().next().is_some() {
        return Some(Plan::Splice);
    }
    let native = conversations()
        .filter(|it| *it != Endpoint::Completions && provider.speaks_natively(*it, model))
        .find_map(Endpoint::dialect);
    match native {
        Some(to) => Some(Plan::Transcode { from, to }),
        None if conversations().next().is_some() => nemo_llm::plan(endpoint, provider, model),
        None => None,
    }
}

/// Whether this deployment can be called for this endpoint.
pub fn serves(deployment: &Deployment, endpoint: Endpoint) -> bool {
    plan(deployment, endpoint)
        .is_some_and(|plan| is_own(plan) || url(deployment, endpoint, plan, false).is_some())
}

/// Whether the gateway answers by itself, and nobody is called.
pub fn is_own(plan: Plan) -> bool {
    matches!(plan, Plan::Count { by: Counter::Estimate, .. })
}

/// Where that call goes.
pub fn url(deployment: &Deployment, endpoint: Endpoint, plan: Plan, stream: bool) -> Option<String> {
    let (base, model) = (&deployment.base_url, &deployment.upstream_model);
    nemo_llm::address::url(provider(deployment), base, endpoint, plan, model, stream)
}

fn endpoints(deployment: &Deployment) -> u32 {
    let served = Endpoint::ALL.into_iter().filter(|endpoint| serves(deployment, *endpoint));
    served.fold(0, |bits, endpoint| bits | bit(endpoint))
}
