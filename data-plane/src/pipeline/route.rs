//! Model group → decision, through the pure [`crate::routing`]. No await (I1). Called by [`super::handle`].

use std::sync::Arc;

use nemo_llm::Endpoint;
use nemo_snapshot::{KeyRecord, ModelGroup, Strategy};
use serde_json::json;

use super::error::{GatewayError, Kind};
use crate::{
    config::Live,
    routing::{Decision, Features, NoCandidate, decide},
};

/// Picks a deployment. `wanted` is the strategy that the request asks for.
///
/// # Errors
/// 400 when no deployment of the group serves this endpoint, 503 when all are switched off.
pub fn run(
    live: &Live,
    key: &KeyRecord,
    group: &Arc<ModelGroup>,
    endpoint: Endpoint,
    wanted: Option<Strategy>,
) -> Result<Decision, GatewayError> {
    let strategy = wanted.or(group.strategy).unwrap_or_else(|| live.snapshot.routing.strategy(key.org_id));
    let seed = fastrand::u64(..);
    decide(group, &live.upstreams, Features { endpoint }, strategy, seed)
        .map_err(|none| refused(live, group, endpoint, &none))
}

fn refused(live: &Live, group: &ModelGroup, endpoint: Endpoint, none: &NoCandidate) -> GatewayError {
    if none.eliminated.is_empty() {
        let message = format!("All deployments of `{}` are switched off.", group.name);
        return GatewayError::new(Kind::NoHealthyDeployment, message);
    }
    let reasons: Vec<_> = none
        .eliminated
        .iter()
        .map(|it| json!({ "deployment": &*it.deployment.name, "reason": it.reason.label() }))
        .collect();
    let served = served(live, group);
    let instead = match served.as_slice() {
        [] => String::new(),
        served => format!(" It serves {}.", served.join(", ")),
    };
    let message = format!("No deployment of `{}` serves {}.{instead}", group.name, endpoint.label());
    let error = GatewayError::new(Kind::NoCandidate, message).param("model");
    GatewayError { metadata: Some(Box::new(json!({ "eliminated": reasons, "endpoints": served }))), ..error }
}

/// The endpoints that some deployment of the group serves.
fn served(live: &Live, group: &ModelGroup) -> Vec<&'static str> {
    let members = || group.links.iter().flat_map(|link| &link.members);
    let serves = |endpoint: &Endpoint| {
        members().any(|member| {
            live.upstreams
                .get(member.deployment.slot)
                .is_some_and(|upstream| upstream.uri(*endpoint).is_some())
        })
    };
    Endpoint::ALL.into_iter().filter(serves).map(Endpoint::label).collect()
}
