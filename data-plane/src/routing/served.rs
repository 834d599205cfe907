//! Which deployment serves which endpoint: a bit per endpoint, by the provider table and the catalog alone, so that a
//! replay without credentials knows it too. Made with each snapshot by `config::live`.

use std::sync::Arc;

use nemo_llm::Endpoint;
use nemo_snapshot::{Deployment, Routing};

/// Indexed by [`Deployment::slot`].
#[derive(Clone, Debug, Default)]
pub struct Served(Box<[u16]>);

const _: () = assert!(Endpoint::ALL.len() <= 16);

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

fn bit(endpoint: Endpoint) -> u16 {
    1 << endpoint as u16
}

/// Whether its model and its provider have this endpoint. A model that names none, and a provider that is not in the
/// table, are tried with all.
pub fn serves(deployment: &Deployment, endpoint: Endpoint) -> bool {
    let listed = &deployment.model.endpoints;
    let by_model = listed.is_empty() || listed.iter().any(|name| **name == *endpoint.label());
    by_model && nemo_llm::provider(&deployment.provider).is_none_or(|provider| provider.serves(endpoint))
}

fn endpoints(deployment: &Deployment) -> u16 {
    let served = Endpoint::ALL.into_iter().filter(|endpoint| serves(deployment, *endpoint));
    served.fold(0, |bits, endpoint| bits | bit(endpoint))
}
