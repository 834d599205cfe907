//! Routing is a pure function of the configuration, the request's demands, the health that is seen, and a seed: the same
//! give the same [`Decision`], so that a decision can be logged and replayed. No clock, no chance beyond the seed, and
//! no heap but for the record. Called by `pipeline::route` and by `nemo replay`.
//!
//! - [`ask`]: what a request demands, and the pools that it may use
//! - [`health`]: what is known of a deployment, in eight bytes
//! - [`demands`]: who meets them; [`candidates`]: who of them can be asked now, and why the others can't
//! - [`strategy`]: in which order they are tried, one file each
//! - [`decision`]: the outcome with its reasons
//! - [`record`]: the outcome as it is logged; [`replay`]: decided again from the log

mod ask;
mod candidates;
mod decision;
mod demands;
mod draw;
mod health;
mod price;
pub mod record;
pub mod replay;
pub mod served;
mod strategy;
#[cfg(test)]
mod tests;
mod weights;

use nemo_llm::Preferences;

pub use ask::{Ask, Chain};
pub use decision::{Ceiling, Decision, Elimination, NoCandidate, Pick, Reason, Recorded, Seen, Why};
pub use health::{Cause, Gate, Health, HealthView, Packed, Quiet};
pub use served::{Served, serves};

use ask::Pool;
use candidates::{Candidate, Candidates, Extent, Scan};
use draw::Draw;
use price::Shape;
use strategy::Order;

/// Orders the deployments that can serve a request now: pool after pool, in each by the strategy.
///
/// # Errors
/// [`NoCandidate`] when there are none, with the reason for each.
pub fn decide(
    served: &Served,
    ask: &Ask<'_>,
    health: &impl HealthView,
    seed: u64,
) -> Result<Decision, Box<NoCandidate>> {
    let mut outcome = look(served, ask, health, seed, false);
    if outcome.overflows {
        // Rare: so many are cooling that the record has to list the others instead.
        outcome = look(served, ask, health, seed, true);
    }
    let Outcome { decision, why, .. } = outcome;
    if decision.picks.is_empty() { Err(Box::new(NoCandidate { why, decision })) } else { Ok(decision) }
}

struct Outcome {
    decision: Decision,
    /// What stopped the one that came furthest of those that were passed over.
    why: Why,
    /// More were cooling than a record lists.
    overflows: bool,
}

fn look(served: &Served, ask: &Ask<'_>, health: &impl HealthView, seed: u64, list_all: bool) -> Outcome {
    let order = Order::of(ask);
    let mut decision = Decision::empty(order.strategy, seed);
    let extent = Extent::of(ask);
    decision.picks.reserve_exact(extent.candidates.min(Decision::MAX_PICKS));
    let mut scan = Scan::new(ask, served, health, extent, list_all);
    let mut shape = None;
    let mut candidates = Candidates::new();
    let mut later = extent.pools;
    for pool in ask.pools() {
        later -= 1;
        candidates.clear();
        let mut draw = Draw::new(seed, pool.number);
        let ordered = scan.pool(&pool, &mut draw, &mut decision, &mut candidates);
        if candidates.len() > 1 {
            if !ordered {
                let shape = shape.get_or_insert_with(|| Shape::expected(ask));
                strategy::order(order, &mut candidates, shape, &mut draw);
            }
            probes_behind(&mut candidates);
            if let Some(preferences) = ask.preferences.filter(|it| !it.order.is_empty()) {
                preferred_first(&mut candidates, preferences);
            }
        }
        pick(&pool, &candidates, later, &mut decision);
    }
    let overflows = scan.overflows();
    if list_all && !overflows {
        decision.seen.retain(|seen| !seen.health.is_quiet());
    }
    decision.rest_cooling = overflows;
    Outcome { decision, why: scan.furthest(), overflows }
}

/// Most of one pool that are tried before the next pool's turn: a request does not wait for a whole provider to fail, one
/// deployment after the other.
const TRIES_BEFORE_NEXT_POOL: usize = 4;

/// As many as there is room for, with one place for each pool that is still to come.
fn pick(pool: &Pool<'_>, candidates: &[Candidate<'_>], later: usize, decision: &mut Decision) {
    let left = Decision::MAX_PICKS.saturating_sub(decision.picks.len());
    let most = if later > 0 { TRIES_BEFORE_NEXT_POOL } else { left };
    let room = left.saturating_sub(later).max(left.min(1)).min(most);
    decision.picks.extend(
        candidates
            .iter()
            .take(room)
            .map(|candidate| Pick { deployment: candidate.member.deployment.clone(), link: pool.number }),
    );
}

/// A request tries at most one deployment early of which nobody knows whether it works again: if chance or the strategy
/// put one first, it stays there, since it would never come back otherwise. All others wait behind the healthy ones.
fn probes_behind(candidates: &mut [Candidate<'_>]) {
    let is_probe = |candidate: &Candidate<'_>| candidate.health.gate == Gate::Probe;
    let Some((first, others)) = candidates.split_first_mut() else { return };
    if !others.iter().any(is_probe) && !is_probe(first) {
        return;
    }
    let whole = if is_probe(first) { others } else { candidates };
    strategy::sort_by(whole, |candidate| u64::from(is_probe(candidate)));
}

/// The providers that the request names come first, in its order.
fn preferred_first(candidates: &mut [Candidate<'_>], preferences: &Preferences) {
    strategy::sort_by(candidates, |candidate| demands::rank(preferences, candidate.deployment()) as u64);
}
