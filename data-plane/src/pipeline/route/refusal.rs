//! What the client is told when no deployment can be tried: the reason of the whole, and that of each deployment at
//! `error.metadata` (requirements B11, R004-22).

use std::time::Duration;

use nemo_llm::Endpoint;
use nemo_snapshot::{Routing, TagSet};
use serde_json::{Value, json};

use super::Demand;
use crate::{
    config::Live,
    pipeline::error::{GatewayError, Kind},
    routing::{Ceiling, Elimination, NoCandidate, Reason, Why},
};

pub(super) const TAGS: &str = "no_candidate_for_tags";
const CONTEXT: &str = "context_length_exceeded";
const PREFERENCES: &str = "no_candidate_for_preferences";
const PRICE: &str = "no_candidate_for_price";
pub(in crate::pipeline) const COOLING: &str = "all_deployments_cooling_down";

#[cold]
pub(super) fn of(live: &Live, demand: &Demand<'_>, none: &NoCandidate) -> GatewayError {
    let routing = &live.snapshot.routing;
    let error = match none.why {
        Why::Off => {
            let message = format!("All deployments of {} are switched off.", names(demand));
            return GatewayError::new(Kind::NoHealthyDeployment, message);
        }
        Why::Cooling { soonest_ms } => cooling(demand, soonest_ms),
        Why::Endpoint => return endpoint(live, demand, none),
        Why::Tags => tags(routing, demand),
        Why::Context { needed, largest } => {
            let message = format!(
                "The prompt has at least {needed} tokens, more than the {largest} that the largest context window of {} takes.",
                names(demand)
            );
            let responses = demand.shape.endpoint == Endpoint::Responses;
            client_fault(CONTEXT, message).param(if responses { "input" } else { "messages" })
        }
        Why::Excluded => {
            let message = format!("The request's preferences leave no deployment of {}.", names(demand));
            client_fault(PREFERENCES, message).param("provider")
        }
        Why::TooExpensive(ceiling) => {
            let field = match (ceiling, demand.max_cost_field) {
                (Ceiling::Cost, Some(field)) => field,
                _ => ceiling.field(),
            };
            let message = format!(
                "Every deployment of {} that fits is more expensive than `{field}` allows, or has no known price.",
                names(demand)
            );
            client_fault(PRICE, message).param(field)
        }
    };
    let eliminated = reasons(routing, none);
    GatewayError { metadata: Some(Box::new(json!({ "eliminated": eliminated }))), ..error }
}

fn client_fault(code: &'static str, message: String) -> GatewayError {
    GatewayError { code: Some(code), ..GatewayError::new(Kind::NoCandidate, message) }
}

/// The models that were asked for.
fn names(demand: &Demand<'_>) -> String {
    let mut all = vec![&*demand.group.name];
    if demand.fallbacks {
        let others = demand.others.iter().map(|group| &*group.name);
        all.extend(others.filter(|name| *name != &*demand.group.name));
    }
    all.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn cooling(demand: &Demand<'_>, soonest_ms: u32) -> GatewayError {
    let soonest = Duration::from_millis(soonest_ms.into());
    // Rounded up, or the client would come back too early.
    let seconds = soonest.as_millis().div_ceil(1000).max(1);
    let message = format!(
        "Every deployment of {} that fits is cooling down after failures; the first is back in {seconds} s.",
        names(demand)
    );
    GatewayError {
        code: Some(COOLING),
        retry_after_secs: u64::try_from(seconds).ok(),
        ..GatewayError::new(Kind::NoHealthyDeployment, message)
    }
}

fn tags(routing: &Routing, demand: &Demand<'_>) -> GatewayError {
    let field = demand.tags_field;
    let all = |set: TagSet| routing.tags.names(set).collect::<Vec<_>>().join(", ");
    let required = demand.tags.union(demand.group.required_tags);
    let implied = demand.implied.minus(required);
    let mut needs = Vec::new();
    if !required.is_empty() {
        let whose = match field {
            Some(field) => format!("`{field}`"),
            None if demand.tags.is_empty() => "its model group".to_owned(),
            None => "its key".to_owned(),
        };
        needs.push(format!("{} (by {whose})", all(required)));
    }
    if !implied.is_empty() {
        needs.push(format!("{} (by its content)", all(implied)));
    }
    let message = format!(
        "No deployment of {} has all the tags that this request needs: {}.",
        names(demand),
        needs.join(", ")
    );
    client_fault(TAGS, message).param(field.unwrap_or("model"))
}

fn endpoint(live: &Live, demand: &Demand<'_>, none: &NoCandidate) -> GatewayError {
    let served = served(live, demand);
    let instead = match served.as_slice() {
        [] => String::new(),
        served => format!(" It serves {}.", served.join(", ")),
    };
    let endpoint = demand.shape.endpoint.label();
    let message = format!("No deployment of {} serves {endpoint}.{instead}", names(demand));
    let metadata = json!({ "eliminated": reasons(&live.snapshot.routing, none), "endpoints": served });
    let error = GatewayError::new(Kind::NoCandidate, message).param("model");
    GatewayError { metadata: Some(Box::new(metadata)), ..error }
}

/// The endpoints that some deployment of the groups serves.
fn served(live: &Live, demand: &Demand<'_>) -> Vec<&'static str> {
    let groups = || std::iter::once(demand.group).chain(&demand.others);
    let members = || groups().flat_map(|group| &group.links).flat_map(|link| &link.members);
    let serves = |endpoint: &Endpoint| members().any(|it| live.served.serves(&it.deployment, *endpoint));
    Endpoint::ALL.into_iter().filter(serves).map(Endpoint::label).collect()
}

/// One line per deployment that was passed over, as far as the decision lists them.
fn reasons(routing: &Routing, none: &NoCandidate) -> Vec<Value> {
    let mut lines: Vec<_> = none.decision.eliminated.iter().map(|it| reason(routing, it)).collect();
    if none.decision.eliminated_more > 0 {
        lines.push(json!({ "more": none.decision.eliminated_more }));
    }
    lines
}

fn reason(routing: &Routing, eliminated: &Elimination) -> Value {
    let Elimination { deployment, link, reason } = eliminated;
    let mut line = json!({ "deployment": &*deployment.name, "link": link, "reason": reason.label() });
    match *reason {
        Reason::TagsMissing(missing) => {
            line["missing"] = routing.tags.names(missing).collect::<Vec<_>>().into();
        }
        Reason::ContextTooSmall { needed, window } => {
            line["needed_tokens"] = needed.into();
            line["context_window"] = window.into();
        }
        Reason::Cooling { remaining_ms, cause } => {
            line["remaining_ms"] = remaining_ms.into();
            line["cause"] = cause.label().into();
        }
        Reason::TooExpensive(ceiling) | Reason::PriceUnknown(ceiling) => {
            line["limit"] = ceiling.field().into()
        }
        Reason::Disabled | Reason::EndpointNotServed | Reason::Excluded => {}
    }
    line
}
