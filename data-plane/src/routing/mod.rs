//! Routing is a pure function: the same group, features and seed give the same [`Decision`], so that a decision
//! can be logged and replayed. Called by `pipeline::route`.

mod candidates;
mod decision;
mod strategy;

use std::sync::Arc;

use nemo_llm::Endpoint;
use nemo_snapshot::{ModelGroup, Strategy};
use smallvec::SmallVec;

pub use decision::{Decision, Elimination, NoCandidate, Reason};

use crate::config::live::Upstream;

/// What a request needs from a deployment.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub endpoint: Endpoint,
}

/// Picks one deployment: the first link with an eligible member is the pool, the strategy picks in it.
///
/// # Errors
/// [`NoCandidate`] with the reason for every member when no link has an eligible one.
pub fn decide(
    group: &Arc<ModelGroup>,
    upstreams: &[Upstream],
    features: Features,
    strategy: Strategy,
    seed: u64,
) -> Result<Decision, NoCandidate> {
    let mut eliminated = SmallVec::new();
    for (position, link) in group.links.iter().enumerate() {
        let eligible = candidates::eligible(link, upstreams, features, &mut eliminated);
        if let Some(picked) = strategy::pick(strategy, &eligible, seed) {
            return Ok(Decision {
                deployment: picked.deployment.clone(),
                link: position,
                strategy,
                seed,
                eliminated,
            });
        }
    }
    Err(NoCandidate { eliminated })
}
