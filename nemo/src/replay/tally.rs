//! What another policy would change, summed up over decisions. Costs are what was recorded where the first choice stays,
//! and the recorded usage at the other deployment's price where it does not.

use std::collections::BTreeMap;

use nemo_data_plane::routing::{
    Why,
    replay::{Outcome, Policy},
};
use nemo_proto::admin::{LoggedDecision, RequestUnit};
use nemo_types::{DeploymentId, Measure, Nanos, Unit, Usage};
use serde::Serialize;

/// Requests that are shown one by one.
const EXAMPLES: usize = 10;

/// How often something was the first choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    pub deployment: String,
    pub provider: String,
    pub model: String,
    pub before: u64,
    pub after: u64,
}

/// A request that would go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    pub request_id: String,
    pub model: String,
    pub before: String,
    pub after: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// Decisions that could be made with the other policy too.
    pub compared: u64,
    /// Those that could not, because their revision lacked what the file names.
    pub not_compared: u64,
    /// Why, of the first.
    pub not_compared_because: String,
    /// Another first choice, or a refusal instead of one, or one instead of a refusal.
    pub changed: u64,
    /// The same first choice, but others behind it.
    pub chain_changed: u64,
    #[serde(serialize_with = "shares")]
    pub shares: BTreeMap<DeploymentId, Share>,
    pub refused_before: u64,
    pub refused_after: u64,
    /// Because no deployment has the tags.
    pub tag_refusals_before: u64,
    pub tag_refusals_after: u64,
    /// Requests whose cost is known both ways.
    pub priced: u64,
    /// Requests with a known cost that have none with the other policy: refused, or of unknown price.
    pub unpriced: u64,
    /// Nano-USD, of the requests that are known both ways.
    pub cost_nanos_before: i128,
    pub cost_nanos_after: i128,
    pub examples: Vec<Example>,
}

fn shares<S: serde::Serializer>(
    shares: &BTreeMap<DeploymentId, Share>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(shares.values())
}

/// What came of a decision, as far as a comparison goes.
fn first(outcome: &Outcome) -> Option<DeploymentId> {
    outcome.as_ref().ok()?.first().map(|pick| pick.deployment.id)
}

fn is_tag_refusal(outcome: &Outcome) -> bool {
    outcome.as_ref().err().is_some_and(|none| none.why == Why::Tags)
}

impl Tally {
    /// One decision: as it was, and as it would be. `before` is the policy of its revision.
    pub(super) fn add(
        &mut self,
        logged: &LoggedDecision,
        before: &Policy,
        after: Option<&Policy>,
        was: &Outcome,
        would_be: Result<&Outcome, &String>,
    ) {
        let (would_be, after) = match (would_be, after) {
            (Ok(outcome), Some(policy)) => (outcome, policy),
            (would_be, _) => {
                if self.not_compared == 0 {
                    self.not_compared_because = would_be.err().cloned().unwrap_or_default();
                }
                self.not_compared += 1;
                return;
            }
        };
        self.compared += 1;
        let (old, new) = (first(was), first(would_be));
        self.share(old, before, |share| share.before += 1);
        self.share(new, after, |share| share.after += 1);
        self.refused_before += u64::from(was.is_err());
        self.refused_after += u64::from(would_be.is_err());
        self.tag_refusals_before += u64::from(is_tag_refusal(was));
        self.tag_refusals_after += u64::from(is_tag_refusal(would_be));
        self.cost(logged, after, old, new);
        if old != new {
            self.changed += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(Example {
                    request_id: logged.request_id.clone(),
                    model: logged.requested_model.clone(),
                    before: choice(was, before),
                    after: choice(would_be, after),
                });
            }
        } else if picks(was) != picks(would_be) {
            self.chain_changed += 1;
        }
    }

    fn share(&mut self, id: Option<DeploymentId>, policy: &Policy, count: impl FnOnce(&mut Share)) {
        let Some(id) = id else { return };
        let share = self.shares.entry(id).or_default();
        if let Some(known) = policy.deployment(id) {
            share.deployment = known.name.to_string();
            share.provider = known.provider.to_string();
            share.model = known.model.id.to_string();
        }
        count(share);
    }

    fn cost(
        &mut self,
        logged: &LoggedDecision,
        after: &Policy,
        old: Option<DeploymentId>,
        new: Option<DeploymentId>,
    ) {
        let Some(before) = logged.cost_nanos else { return };
        let priced = if new.is_some() && old == new { Some(before) } else { repriced(logged, after, new) };
        match priced {
            Some(nanos) => {
                self.priced += 1;
                self.cost_nanos_before += i128::from(before);
                self.cost_nanos_after += i128::from(nanos);
            }
            None => self.unpriced += 1,
        }
    }
}

fn repriced(logged: &LoggedDecision, policy: &Policy, id: Option<DeploymentId>) -> Option<i64> {
    let price = policy.deployment(id?)?.price.as_ref()?;
    let usage = Usage {
        input: logged.input_tokens,
        output: logged.output_tokens,
        cache_read: logged.cache_read_tokens,
        cache_write: logged.cache_write_tokens,
        ..Usage::default()
    };
    let units: Vec<Measure> = logged.units.iter().filter_map(measure).collect();
    let usage = Some(usage).filter(|usage| *usage != Usage::default());
    price.cost_of(usage.as_ref(), &units).map(|Nanos(nanos)| nanos)
}

fn measure(unit: &RequestUnit) -> Option<Measure> {
    Some(Measure {
        unit: Unit::from_name(&unit.unit)?,
        quantity: unit.quantity,
        quality: unit.quality.as_str().into(),
        size: unit.size.as_str().into(),
    })
}

fn picks(outcome: &Outcome) -> Vec<DeploymentId> {
    outcome.iter().flat_map(|decision| &decision.picks).map(|pick| pick.deployment.id).collect()
}

/// In words.
fn choice(outcome: &Outcome, policy: &Policy) -> String {
    match outcome {
        Ok(_) => {
            let known = first(outcome).and_then(|id| policy.deployment(id));
            known.map_or_else(String::new, |it| it.name.to_string())
        }
        Err(none) => format!("refused: {}", refusal(none.why)),
    }
}

fn refusal(why: Why) -> &'static str {
    match why {
        Why::Off => "all switched off",
        Why::Endpoint => "none serves the endpoint",
        Why::Tags => "none has the tags",
        Why::Context { .. } => "too long for every context window",
        Why::Excluded => "the request's preferences leave none",
        Why::TooExpensive(_) => "all too expensive",
        Why::Cooling { .. } => "all cooling down",
    }
}

#[cfg(test)]
mod tests;
