//! `latency-based`: the soonest expected answer first, by the decaying time to the first token and per output token
//! (R004-5). Those within an eighth of the best share the load, or all requests would run to whoever was fastest by
//! chance.
//!
//! What is not measured can't become fast again, so a small part of the requests goes elsewhere first: one in
//! [`EXPLORE_ONE_IN`] to any candidate, and one in [`TRY_UNKNOWN_ONE_IN`] to one of which nothing is known.

use super::{Latency, sort_by, to_front};
use crate::routing::{candidates::Candidate, draw::Draw, price::Shape};

const EXPLORE_ONE_IN: u64 = 32;
const TRY_UNKNOWN_ONE_IN: u64 = 4;
/// As good as the best is who is at most 1/n slower.
const MARGIN: u64 = 8;

pub(super) fn order(pool: &mut [Candidate<'_>], latency: Latency, shape: &Shape, draw: &mut Draw) {
    draw.shuffle(pool);
    let per_token = average(pool.iter().map(|candidate| candidate.health.per_token_us));
    let expected = |candidate: &Candidate<'_>| expected_us(candidate, latency, per_token, shape.output());
    let Some(best) = pool.iter().filter_map(expected).min() else { return };
    // Those of which nothing is known are behind those as good as the best, and before the others.
    let good = best.saturating_add(best / MARGIN);
    sort_by(pool, |candidate| match expected(candidate) {
        Some(us) if us <= good => good,
        Some(us) => us,
        None => good.saturating_add(1),
    });
    let unknown = pool.iter().filter(|candidate| expected(candidate).is_none()).count();
    if unknown > 0 && draw.below(TRY_UNKNOWN_ONE_IN) == 0 {
        if let Some(at) = pool.iter().position(|candidate| expected(candidate).is_none()) {
            to_front(pool, at);
        }
    } else if draw.below(EXPLORE_ONE_IN) == 0 {
        to_front(pool, draw.index(pool.len()));
    }
}

/// `None`: it was not measured.
fn expected_us(candidate: &Candidate<'_>, latency: Latency, per_token: u64, output: u64) -> Option<u64> {
    let known = |us: u32| (us > 0).then_some(u64::from(us));
    let first = known(candidate.health.ttft_us);
    let each = known(candidate.health.per_token_us);
    match latency {
        Latency::FirstToken => first,
        Latency::PerToken => each,
        Latency::Whole => Some(first?.saturating_add(each.unwrap_or(per_token).saturating_mul(output))),
    }
}

/// Of those that are known; 0 when none is.
fn average(values: impl Iterator<Item = u32>) -> u64 {
    let known = values.filter(|value| *value > 0);
    let (sum, count) = known.fold((0_u64, 0_u64), |(sum, count), value| (sum + u64::from(value), count + 1));
    sum.checked_div(count).unwrap_or(0)
}
