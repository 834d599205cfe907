//! `least-busy`: of two deployments drawn at random, the one with fewer requests of this node in flight (B10, R004-3).
//! Two choices are nearly as good as looking for the idlest of all, and several nodes that see the same numbers don't
//! all run to the same deployment.

use crate::routing::{candidates::Candidate, draw::Draw};

pub(super) fn order(pool: &mut [Candidate<'_>], draw: &mut Draw) {
    for place in 0..pool.len().saturating_sub(1) {
        let rest = &mut pool[place..];
        let one = draw.index(rest.len());
        let mut other = draw.index(rest.len() - 1);
        other += usize::from(other >= one);
        let idler = if rest[other].health.in_flight < rest[one].health.in_flight { other } else { one };
        rest.swap(0, idler);
    }
}
