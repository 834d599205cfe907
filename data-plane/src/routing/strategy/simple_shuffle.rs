//! `simple-shuffle`: uniformly random over the healthy deployments (R004-2).

use crate::routing::{candidates::Candidate, draw::Draw};

pub(super) fn order(pool: &mut [Candidate<'_>], draw: &mut Draw) {
    draw.shuffle(pool);
}
