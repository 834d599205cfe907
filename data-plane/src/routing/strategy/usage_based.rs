//! `usage-based`: in proportion to what is left of the requests and tokens per minute that a deployment advertises
//! (R004-4), counted in requests like this one. What it is measured against is this node's own use of the last minute.
//!
//! A deployment that advertises nothing is taken to allow as much as the others do on average; where none does, twice
//! what the busiest gets, which evens out the use. One that has nothing left comes last, and is not left out: limits are
//! advertised, and the upstream itself knows better.

use std::num::NonZeroU32;

use super::proportional;
use crate::routing::{candidates::Candidate, draw::Draw, price::Shape};

/// Part of a request that still counts.
const SCALE: u64 = 64;
/// What a deployment is given at least where none advertises a limit.
const LEAST_LIMIT: u64 = 16;

pub(super) fn order(pool: &mut [Candidate<'_>], shape: &Shape, draw: &mut Draw) {
    let tokens = shape.tokens();
    let limits = pool.iter().filter_map(|candidate| limit(candidate, tokens));
    let (sum, known) =
        limits.fold((0_u64, 0_u64), |(sum, known), limit| (sum.saturating_add(limit), known + 1));
    let usual = match sum.checked_div(known) {
        Some(average) => average,
        None => {
            let busiest = pool.iter().map(|candidate| used(candidate, tokens)).max().unwrap_or(0);
            (busiest.saturating_mul(2)).max(LEAST_LIMIT * SCALE)
        }
    };
    for candidate in &mut *pool {
        candidate.score =
            headroom(candidate, tokens).unwrap_or_else(|| usual.saturating_sub(used(candidate, tokens)));
    }
    proportional(pool, draw);
}

/// What is left of both limits, in parts of a request; `None`: it advertises none.
pub(super) fn headroom(candidate: &Candidate<'_>, tokens: u64) -> Option<u64> {
    let deployment = candidate.deployment();
    let left = |limit: Option<NonZeroU32>, used: u32| {
        Some(u64::from(limit?.get()).saturating_sub(u64::from(used)) * SCALE)
    };
    let requests = left(deployment.rpm, candidate.health.rpm_used);
    let by_tokens = left(deployment.tpm, candidate.health.tpm_used).map(|left| left / tokens);
    smaller(requests, by_tokens)
}

/// Both limits together, in parts of a request.
pub(super) fn limit(candidate: &Candidate<'_>, tokens: u64) -> Option<u64> {
    let deployment = candidate.deployment();
    let scaled = |limit: Option<NonZeroU32>| Some(u64::from(limit?.get()) * SCALE);
    smaller(scaled(deployment.rpm), scaled(deployment.tpm).map(|limit| limit / tokens))
}

fn used(candidate: &Candidate<'_>, tokens: u64) -> u64 {
    let requests = u64::from(candidate.health.rpm_used) * SCALE;
    requests.max(u64::from(candidate.health.tpm_used) * SCALE / tokens)
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
