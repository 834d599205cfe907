//! In which order the candidates of a pool are tried: one file per strategy. Called by [`super::decide`] with at least
//! two candidates; whatever the order, none gets lost.

mod balanced;
mod cost_based;
mod latency_based;
mod least_busy;
mod simple_shuffle;
mod usage_based;
mod weighted;

use nemo_llm::preferences::Sort;
use nemo_snapshot::Strategy;

use super::{Ask, candidates::Candidate, draw::Draw, price::Shape};

/// What orders the candidates of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub strategy: Strategy,
    /// What latency means.
    latency: Latency,
}

/// Which part of the time of an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latency {
    /// Until the last token.
    Whole,
    FirstToken,
    PerToken,
}

impl Order {
    /// The request's preferences win over its strategy, as in the gateway that defined them.
    pub(super) fn of(ask: &Ask<'_>) -> Self {
        let (strategy, latency) = match ask.preferences.and_then(|it| it.sort) {
            None => (ask.strategy, Latency::Whole),
            Some(Sort::Price) => (Strategy::CostBased, Latency::Whole),
            Some(Sort::Latency) => (Strategy::LatencyBased, Latency::FirstToken),
            Some(Sort::Throughput) => (Strategy::LatencyBased, Latency::PerToken),
        };
        Self { strategy, latency }
    }
}

pub(super) fn order(order: Order, pool: &mut [Candidate<'_>], shape: &Shape, draw: &mut Draw) {
    match order.strategy {
        Strategy::SimpleShuffle => simple_shuffle::order(pool, draw),
        Strategy::LeastBusy => least_busy::order(pool, draw),
        Strategy::UsageBased => usage_based::order(pool, shape, draw),
        Strategy::LatencyBased => latency_based::order(pool, order.latency, shape, draw),
        Strategy::CostBased => cost_based::order(pool, shape, draw),
        Strategy::Weighted => weighted::order(pool, draw),
        Strategy::Balanced => balanced::order(pool, shape, draw),
    }
}

/// Smallest first; equal ones stay in the order that they are in. Without the heap that a stable sort takes.
pub(super) fn sort_by<'a>(pool: &mut [Candidate<'a>], key: impl Fn(&Candidate<'a>) -> u64) {
    for (at, candidate) in pool.iter_mut().enumerate() {
        candidate.score = key(candidate);
        candidate.tie = u8::try_from(at).unwrap_or(u8::MAX);
    }
    pool.sort_unstable_by_key(|candidate| (candidate.score, candidate.tie));
}

/// Each place goes to one of those that are left, in proportion to the scores; those with score 0 come last, in any
/// order.
fn proportional(pool: &mut [Candidate<'_>], draw: &mut Draw) {
    draw.shuffle(pool);
    let mut total: u64 = pool.iter().map(|candidate| candidate.score).fold(0, u64::saturating_add);
    for place in 0..pool.len() {
        if total == 0 {
            return;
        }
        let mut point = draw.below(total);
        let drawn = pool[place..].iter().position(|candidate| {
            let hit = point < candidate.score;
            point = point.wrapping_sub(candidate.score);
            hit
        });
        let drawn = place + drawn.unwrap_or(0);
        total -= pool[drawn].score.min(total);
        pool.swap(place, drawn);
    }
}

/// Moves one to the front; the others keep their order.
fn to_front(pool: &mut [Candidate<'_>], at: usize) {
    if let Some(upto) = pool.get_mut(..=at) {
        upto.rotate_right(1);
    }
}
