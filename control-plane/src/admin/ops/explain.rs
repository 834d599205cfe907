//! A decision as it was logged, in words: the record with the names that deployments had then. Called by
//! `get_request`.

use std::collections::HashMap;

use nemo_proto::{
    admin as pb,
    config::{Deployment, Resource, resource},
    usage::{CoolingCause, Decision, DecisionElimination, DecisionHealth, EliminationReason, PriceCeiling},
};
use nemo_types::DeploymentId;
use prost::Message as _;
use time::{Duration, OffsetDateTime};

use crate::{
    admin::{Admin, AdminError},
    store::{config_history, request_log::RequestRow},
};

/// The only version there is so far.
const VERSION: u32 = 1;
/// More is not shown of one list.
const SHOWN: usize = 1000;

impl Admin {
    /// The decision about a request that the caller may read.
    pub(super) async fn explain(
        &self,
        row: &RequestRow,
        record: &[u8],
    ) -> Result<pb::RoutingDecision, AdminError> {
        let decision = match Decision::decode(record) {
            Ok(decision) if decision.version == VERSION => decision,
            Ok(decision) => {
                return Ok(unreadable(format!(
                    "version {} of the record is not known here",
                    decision.version
                )));
            }
            Err(error) => return Ok(unreadable(format!("the record is damaged: {error}"))),
        };
        let ids: Vec<DeploymentId> = ids(&decision);
        let revision = u64::try_from(row.config_revision).unwrap_or_default();
        let mut tx = self.store.system().await?;
        let known = config_history::deployments(&mut tx, &ids, revision).await?;
        let known = known.iter().filter_map(|bytes| match Resource::decode(&**bytes).ok()?.kind? {
            resource::Kind::Deployment(it) => Some((DeploymentId::from_bytes(&it.id)?, it)),
            _ => None,
        });
        let names = Names { ids, known: known.collect(), decided_at: row.started_at };
        Ok(explained(&decision, &names))
    }
}

fn unreadable(why: String) -> pb::RoutingDecision {
    pb::RoutingDecision { unreadable: why, ..pb::RoutingDecision::default() }
}

fn ids(decision: &Decision) -> Vec<DeploymentId> {
    decision.deployments.chunks_exact(16).filter_map(DeploymentId::from_bytes).collect()
}

/// What the positions in a record stand for.
struct Names {
    ids: Vec<DeploymentId>,
    known: HashMap<DeploymentId, Deployment>,
    decided_at: OffsetDateTime,
}

/// A deployment as it is named in answers.
struct Named {
    deployment_id: String,
    deployment: String,
    provider: String,
    model: String,
}

impl Names {
    fn of(&self, position: u32) -> Named {
        let id = usize::try_from(position).ok().and_then(|at| self.ids.get(at));
        let known = id.and_then(|id| self.known.get(id));
        Named {
            deployment_id: id.map(ToString::to_string).unwrap_or_default(),
            deployment: known.map(|it| it.name.clone()).unwrap_or_default(),
            provider: known.map(|it| it.provider.clone()).unwrap_or_default(),
            model: known.map(|it| it.model.clone()).unwrap_or_default(),
        }
    }
}

fn explained(decision: &Decision, names: &Names) -> pb::RoutingDecision {
    let seen: HashMap<u32, &DecisionHealth> = decision.seen.iter().map(|it| (it.deployment, it)).collect();
    let candidates = (0..).zip(decision.picks.iter().take(SHOWN)).map(|(position, link)| {
        let Named { deployment_id, deployment, provider, model } = names.of(position);
        let health = seen.get(&position).map(|it| health(it));
        pb::RoutingCandidate { deployment_id, deployment, provider, model, link: *link, health }
    });
    let attempts = decision.attempts.iter().take(SHOWN).map(|it| {
        let Named { deployment_id, deployment, provider, model } = names.of(it.deployment);
        pb::RoutingAttempt {
            deployment_id,
            deployment,
            provider,
            model,
            link: it.link,
            status: it.status,
            error: it.error.clone(),
            started_us: it.started_us,
            took_us: it.took_us,
            waited_us: it.waited_us,
        }
    });
    let retries = decision.attempts.len().saturating_sub(1);
    pb::RoutingDecision {
        strategy: word(decision.strategy().as_str_name(), "ROUTING_STRATEGY_").replace('_', "-"),
        strategy_from: if decision.strategy_asked { "request" } else { "policy" }.to_owned(),
        seed: decision.seed.to_string(),
        names: decision.names.clone(),
        chain: word(decision.chain().as_str_name(), "DECISION_CHAIN_"),
        tags: decision.tags.clone(),
        implied_tags: decision.implied.clone(),
        input_tokens: decision.input_tokens,
        output_tokens: decision.output_tokens,
        first_link_only: decision.first_link_only,
        preferences: preferences(decision),
        max_cost_nanos: decision.max_cost_nanos,
        candidates: candidates.collect(),
        eliminated: decision.eliminated.iter().take(SHOWN).map(|it| elimination(it, names)).collect(),
        attempts: attempts.collect(),
        refusal: decision
            .refusal
            .as_ref()
            .map(|it| word(it.reason().as_str_name(), "REFUSAL_REASON_"))
            .unwrap_or_default(),
        eliminated_more: decision.eliminated_more,
        retries: u32::try_from(retries).unwrap_or(u32::MAX),
        cut: decision.cut,
        unreadable: String::new(),
    }
}

/// `FAMILY_SOME_NAME` is `some_name`.
fn word(name: &str, family: &str) -> String {
    name.trim_start_matches(family).to_ascii_lowercase()
}

fn elimination(it: &DecisionElimination, names: &Names) -> pb::RoutingElimination {
    let Named { deployment_id, deployment, provider, model } = names.of(it.deployment);
    let reason = it.reason();
    let cooling = reason == EliminationReason::Cooling;
    let remaining = Duration::milliseconds(i64::try_from(it.value).unwrap_or_default());
    let until = names.decided_at.checked_add(remaining).filter(|_| cooling);
    pb::RoutingElimination {
        deployment_id,
        deployment,
        provider,
        model,
        link: it.link,
        reason: word(reason.as_str_name(), "ELIMINATION_REASON_"),
        tags: it.tags.clone(),
        context_window: (reason == EliminationReason::ContextTooSmall).then_some(it.value),
        until: until.map(Into::into),
        cause: if cooling { cause(it.cause()) } else { String::new() },
        ceiling: match it.ceiling() {
            PriceCeiling::Unspecified => String::new(),
            ceiling => word(ceiling.as_str_name(), "PRICE_CEILING_"),
        },
    }
}

fn cause(cause: CoolingCause) -> String {
    match cause {
        CoolingCause::Unspecified => String::new(),
        cause => word(cause.as_str_name(), "COOLING_CAUSE_"),
    }
}

fn health(it: &DecisionHealth) -> pb::RoutingHealth {
    pb::RoutingHealth {
        gate: match it.gate {
            0 => "ready",
            1 => "probe",
            _ => "cooling",
        }
        .to_owned(),
        in_flight: it.in_flight,
        ttft_us: Some(it.ttft_us).filter(|it| *it > 0),
        per_token_us: Some(it.per_token_us).filter(|it| *it > 0),
        rpm_used: it.rpm_used,
        tpm_used: it.tpm_used,
        success_permille: 1000 - it.failed_permille.min(1000),
    }
}

/// JSON of what the request preferred; empty for nothing.
fn preferences(decision: &Decision) -> String {
    let Some(it) = &decision.preferences else { return String::new() };
    let mut members = serde_json::Map::new();
    for (name, list) in [("order", &it.order), ("only", &it.only), ("ignore", &it.ignore)] {
        if !list.is_empty() {
            members.insert(name.to_owned(), list.clone().into());
        }
    }
    if let Some(allow) = it.allow_fallbacks {
        members.insert("allow_fallbacks".to_owned(), allow.into());
    }
    if !it.sort.is_empty() {
        members.insert("sort".to_owned(), it.sort.clone().into());
    }
    if it.require_parameters {
        members.insert("require_parameters".to_owned(), true.into());
    }
    for (name, nanos) in [
        ("max_price_prompt_nanos", it.max_prompt),
        ("max_price_completion_nanos", it.max_completion),
        ("max_price_request_nanos", it.max_request),
        ("max_price_image_nanos", it.max_image),
    ] {
        if let Some(nanos) = nanos {
            members.insert(name.to_owned(), nanos.into());
        }
    }
    serde_json::Value::Object(members).to_string()
}

#[cfg(test)]
mod tests {
    use nemo_proto::usage::RoutingStrategy;

    use super::*;

    fn names() -> Names {
        let id = DeploymentId::generate();
        let deployment =
            Deployment { name: "east".into(), provider: "openai".into(), ..Deployment::default() };
        let decided_at = OffsetDateTime::UNIX_EPOCH;
        Names { ids: vec![id], known: HashMap::from([(id, deployment)]), decided_at }
    }

    /// R004-28: strategy, candidates in order, who was passed over, why and until when.
    #[test]
    fn a_record_reads_as_names_and_reasons() {
        let decision = Decision {
            strategy: RoutingStrategy::LeastBusy.into(),
            picks: vec![1, 0],
            eliminated: vec![DecisionElimination {
                reason: EliminationReason::Cooling.into(),
                value: 1500,
                cause: CoolingCause::RateLimited.into(),
                ..DecisionElimination::default()
            }],
            seen: vec![DecisionHealth { gate: 1, in_flight: 3, ..DecisionHealth::default() }],
            ..Decision::default()
        };
        let shown = explained(&decision, &names());
        assert_eq!((&*shown.strategy, &*shown.strategy_from), ("least-busy", "policy"));
        let [east, unknown] = &shown.candidates[..] else { panic!("{shown:?}") };
        assert_eq!((&*east.deployment, east.link), ("east", 1));
        assert_eq!(east.health.as_ref().map(|it| (&*it.gate, it.in_flight)), Some(("probe", 3)));
        // A position beyond the table shows as what it is: unknown.
        assert_eq!((&*unknown.deployment, &*unknown.deployment_id), ("", ""));
        let [passed] = &shown.eliminated[..] else { panic!("{shown:?}") };
        assert_eq!((&*passed.reason, &*passed.cause), ("cooling", "rate_limited"));
        let until = passed.until.unwrap();
        assert_eq!((until.seconds, until.nanos), (1, 500_000_000));
    }
}
