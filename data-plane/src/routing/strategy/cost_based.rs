//! `cost-based`: cheapest for this request first, by the catalog's price and what the request is expected to consume
//! (R004-5). Equally cheap ones share the load; those of which nobody knows the price come last.

use super::sort_by;
use crate::routing::{candidates::Candidate, draw::Draw, price::Shape};

pub(super) fn order(pool: &mut [Candidate<'_>], shape: &Shape, draw: &mut Draw) {
    draw.shuffle(pool);
    sort_by(pool, |candidate| match shape.cost(candidate.deployment()) {
        Some(cost) => u64::try_from(cost.0).unwrap_or(0),
        None => u64::MAX,
    });
}
