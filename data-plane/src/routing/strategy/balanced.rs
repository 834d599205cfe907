//! `balanced`: a live score of uptime, throughput, latency and price (B13, R003-11). Each candidate is compared with the
//! best of the pool in each respect; load is shared in proportion to the score, so that nobody is starved of the
//! requests that show whether it got better.

use super::{proportional, usage_based};
use crate::routing::{candidates::Candidate, draw::Draw, price::Shape};

/// As good as the best.
const PAR: u64 = 256;
/// Nobody counts as more than so many times worse.
const WORST: u64 = 64 * PAR;
/// How much each respect counts; together [`PARTS`].
const PRICE_PARTS: u64 = 4;
const FIRST_TOKEN_PARTS: u64 = 3;
const PER_TOKEN_PARTS: u64 = 3;
const PARTS: u64 = PRICE_PARTS + FIRST_TOKEN_PARTS + PER_TOKEN_PARTS;
/// An uptime below this many thousandths counts as this: the way back must stay open.
const LEAST_UPTIME: u64 = 50;
/// What is left of the score of one that is near its advertised limits, and of one that has reached them.
const SHORT_DIVISOR: u64 = 8;
const EXHAUSTED_DIVISOR: u64 = 64;

/// The best of a pool; 0: nobody knows.
struct Best {
    cost: u64,
    ttft_us: u64,
    per_token_us: u64,
}

pub(super) fn order(pool: &mut [Candidate<'_>], shape: &Shape, draw: &mut Draw) {
    let least = |value: &dyn Fn(&Candidate<'_>) -> u64| {
        pool.iter().map(value).filter(|value| *value > 0).min().unwrap_or(0)
    };
    let best = Best {
        cost: least(&|candidate| cost(candidate, shape).unwrap_or(0)),
        ttft_us: least(&|candidate| u64::from(candidate.health.ttft_us)),
        per_token_us: least(&|candidate| u64::from(candidate.health.per_token_us)),
    };
    for candidate in &mut *pool {
        candidate.score = score(candidate, &best, shape);
    }
    proportional(pool, draw);
}

fn score(candidate: &Candidate<'_>, best: &Best, shape: &Shape) -> u64 {
    let health = &candidate.health;
    // Who was not measured is worth a try, who has no known price may cost anything.
    let price = match cost(candidate, shape) {
        Some(cost) => times_worse(cost, best.cost),
        None if best.cost > 0 => 4 * PAR,
        None => PAR,
    };
    let first = times_worse(u64::from(health.ttft_us), best.ttft_us);
    let each = times_worse(u64::from(health.per_token_us), best.per_token_us);
    let worse = (PRICE_PARTS * price + FIRST_TOKEN_PARTS * first + PER_TOKEN_PARTS * each) / PARTS;
    // At most 10^12: a tenth of the attempts failing costs a third of the load.
    let uptime = u64::from(health.success_permille).max(LEAST_UPTIME).pow(4);
    let divisor = shortage(candidate, shape.tokens());
    (uptime / (worse * worse) / divisor).max(1)
}

/// In [`PAR`]s; who is free, or was not measured, is on a par with the best.
fn times_worse(value: u64, best: u64) -> u64 {
    match best {
        0 => PAR,
        best => (value.saturating_mul(PAR) / best).clamp(PAR, WORST),
    }
}

/// `None`: nobody knows.
fn cost(candidate: &Candidate<'_>, shape: &Shape) -> Option<u64> {
    shape.cost(candidate.deployment()).map(|cost| u64::try_from(cost.0).unwrap_or(0))
}

/// What the score is divided by, for what is left of advertised limits.
fn shortage(candidate: &Candidate<'_>, tokens: u64) -> u64 {
    let (left, limit) = (usage_based::headroom(candidate, tokens), usage_based::limit(candidate, tokens));
    match left.zip(limit) {
        Some((0, _)) => EXHAUSTED_DIVISOR,
        Some((left, limit)) if left < limit / 10 => SHORT_DIVISOR,
        _ => 1,
    }
}
