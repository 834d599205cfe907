//! `weighted`: random in proportion to the weights of the link's members. Pools that are too large to be looked at in
//! whole are drawn from by weight in [`crate::routing::candidates`].

use super::proportional;
use crate::routing::{candidates::Candidate, draw::Draw};

pub(super) fn order(pool: &mut [Candidate<'_>], draw: &mut Draw) {
    for candidate in &mut *pool {
        candidate.score = u64::from(candidate.member.weight);
    }
    proportional(pool, draw);
}
