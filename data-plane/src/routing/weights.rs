//! Draws from pools that are too large to be looked at in whole, in proportion to the weights of their members. Called by
//! [`super::candidates`].

use nemo_snapshot::LinkMember;
use smallvec::SmallVec;

use super::{ask::Pool, draw::Draw};

/// The members of a pool to be drawn by weight. Sums over stretches of it spare a draw most of the members.
pub(super) struct Weights<'a> {
    pool: Pool<'a>,
    stretch: usize,
    sums: SmallVec<[u64; STRETCHES]>,
    total: u64,
}

const STRETCHES: usize = 64;

impl<'a> Weights<'a> {
    pub(super) fn of(pool: &Pool<'a>) -> Self {
        let stretch = pool.size().div_ceil(STRETCHES).max(1);
        let mut sums = SmallVec::new();
        for (at, member) in pool.members().enumerate() {
            if at % stretch == 0 {
                sums.push(0);
            }
            if let Some(sum) = sums.last_mut() {
                *sum += u64::from(member.weight);
            }
        }
        Self { pool: *pool, stretch, total: sums.iter().sum(), sums }
    }

    pub(super) fn draw(&self, draw: &mut Draw) -> Option<&'a LinkMember> {
        let mut point = draw.below(self.total);
        let mut hit = |weight: u64| {
            let hit = point < weight;
            point = if hit { point } else { point - weight };
            hit
        };
        let start = self.sums.iter().position(|sum| hit(*sum))? * self.stretch;
        (start..start + self.stretch)
            .filter_map(|at| self.pool.member(at))
            .find(|member| hit(u64::from(member.weight)))
    }
}
