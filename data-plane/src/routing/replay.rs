//! A logged decision made again: the same question, the same health and the same seed, against the configuration of its
//! revision or another policy. Called by `nemo replay`; no request comes here.

use std::{collections::HashMap, sync::Arc};

use nemo_llm::Endpoint;
use nemo_snapshot::{Deployment, ModelGroup, Routing, Snapshot, TagSet};
use nemo_types::{DeploymentId, OrgId};

use super::{
    Ask, Chain, Decision, NoCandidate, Recorded, Served, decide,
    record::{ChainKind, Record},
};

/// What decisions are made by: one revision, or one as it would be with another policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub revision: u64,
    routing: Arc<Routing>,
    served: Arc<Served>,
    by_id: Arc<HashMap<DeploymentId, Arc<Deployment>>>,
}

/// What a logged decision is made again for.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    pub org: OrgId,
    pub endpoint: Endpoint,
    pub record: &'a Record,
}

/// Whose choice of strategy and ceiling counts, where the request made none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choices {
    /// That of the record: the decision must come out as it was.
    Recorded,
    /// That of the policy, as it would be if the request came now.
    Policy,
}

/// Why a decision can't be made with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("there is no model {0:?}")]
    Model(String),
    #[error("{0}")]
    Tag(#[from] nemo_snapshot::UnknownTag),
}

/// What was decided, or why nothing could be.
pub type Outcome = Result<Decision, Box<NoCandidate>>;

impl Policy {
    pub fn new(snapshot: &Snapshot) -> Self {
        let deployments = snapshot.routing.deployments().iter();
        Self {
            revision: snapshot.revision,
            routing: snapshot.routing.clone(),
            served: Arc::new(Served::new(&snapshot.routing)),
            by_id: Arc::new(deployments.map(|it| (it.id, it.clone())).collect()),
        }
    }

    pub fn deployment(&self, id: DeploymentId) -> Option<&Arc<Deployment>> {
        self.by_id.get(&id)
    }

    /// Decides again.
    ///
    /// # Errors
    /// When the policy does not know what the request named: then the request would be a 400 or a 404.
    pub fn decide(&self, logged: &Logged<'_>, choices: Choices) -> Result<Outcome, Unresolved> {
        let record = logged.record;
        let groups = self.groups(logged)?;
        let Some(first) = groups.first() else { return Err(Unresolved::Model(String::new())) };
        let links = match record.chain {
            ChainKind::Group => Chain::Group(first),
            ChainKind::Models => Chain::Models(&groups),
            ChainKind::Instead => Chain::Instead { primary: first, fallbacks: &groups[1..] },
        };
        let (mut strategy, mut max_cost) = (record.asked_strategy, record.max_cost);
        if choices == Choices::Policy {
            let policy = self.routing.policy(logged.org);
            if !record.strategy_asked {
                strategy = first.strategy.unwrap_or(policy.strategy);
            }
            max_cost = match (max_cost.filter(|_| record.max_cost_asked), policy.max_cost) {
                (Some(asked), Some(most)) => Some(asked.min(most)),
                (asked, most) => asked.or(most),
            };
        }
        let ask = Ask {
            endpoint: logged.endpoint,
            links,
            strategy,
            tags: self.routing.tag_set(record.tags.iter().map(String::as_str))?,
            // What a request implies and nobody has is not required.
            implied: record
                .implied
                .iter()
                .filter_map(|tag| self.routing.tags.get(tag))
                .fold(TagSet::EMPTY, TagSet::union),
            input_tokens: record.input_tokens,
            least_input_tokens: record.least_input_tokens,
            output_tokens: record.output_tokens,
            fallbacks: record.fallbacks,
            preferences: record.preferences.as_ref(),
            max_cost,
        };
        let health = Recorded { seen: &record.seen, rest_cooling: record.rest_cooling };
        Ok(decide(&self.served, &ask, &health, record.seed))
    }

    fn groups(&self, logged: &Logged<'_>) -> Result<Vec<Arc<ModelGroup>>, Unresolved> {
        let mut groups: Vec<Arc<ModelGroup>> = Vec::new();
        for (at, name) in logged.record.names.iter().enumerate() {
            let found = self.routing.resolve(logged.org, name);
            let group = found.ok_or_else(|| Unresolved::Model(name.clone()))?;
            // As the request's chain was read: twice the same is once. The first name is no part of the chain when the
            // others take the place of its fallbacks.
            let before = if logged.record.chain == ChainKind::Instead {
                1..groups.len().max(1)
            } else {
                0..groups.len()
            };
            if at == 0 || !groups[before].iter().any(|other| Arc::ptr_eq(other, group)) {
                groups.push(group.clone());
            }
        }
        Ok(groups)
    }
}

/// How a decision differs from its record; `None`: it is the same, to the last detail that the record has.
pub fn difference(record: &Record, outcome: &Outcome) -> Option<String> {
    let (decision, why) = match outcome {
        Ok(decision) => (decision, None),
        Err(none) => (&none.decision, Some(none.why)),
    };
    let picks: Vec<_> = decision.picks.iter().map(|pick| (pick.deployment.id, pick.link)).collect();
    if picks != record.picks {
        return Some(format!("picks were {:?} and are now {picks:?}", record.picks));
    }
    if why != record.why {
        return Some(format!("the refusal was {:?} and is now {why:?}", record.why));
    }
    if decision.strategy != record.strategy {
        return Some(format!("the strategy was {} and is now {}", record.strategy, decision.strategy));
    }
    // A record that became too large lists fewer of them.
    let listed = if record.cut { record.eliminated.len() } else { decision.eliminated.len() };
    let eliminated = decision.eliminated.iter().take(listed).map(|it| (it.deployment.id, it.reason.label()));
    let recorded = record.eliminated.iter().map(|it| (it.deployment, it.reason));
    if !eliminated.eq(recorded) {
        return Some("others are passed over, or for other reasons".to_owned());
    }
    None
}

#[cfg(test)]
mod tests;
