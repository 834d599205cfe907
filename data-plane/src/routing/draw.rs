//! The chance in a decision: SplitMix64, here in full, so that a seed in a record means the same draws in every version
//! of this program and on every machine.

/// A sequence of numbers that the seed decides.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draw {
    /// `stream` tells sequences of the same seed apart.
    pub(super) fn new(seed: u64, stream: u8) -> Self {
        Self(seed.wrapping_add(u64::from(stream).wrapping_mul(0xd1b5_4a32_d192_ed03)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform below `bound`; 0 for 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// Uniform below `bound`; 0 for 0.
    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// Every order is as likely as every other.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// All of `0..count` once, from somewhere, in steps that the draw decides; without memory for it.
pub(super) fn scattered(draw: &mut Draw, count: usize) -> impl Iterator<Item = usize> + use<> {
    let mut at = draw.index(count);
    let mut step = 1 + draw.index(count.saturating_sub(1));
    // The average distance between numbers that share no divisor with `count` is small.
    while gcd(step, count) > 1 {
        step = step % count + 1;
    }
    (0..count).map(move |_| {
        let this = at;
        at += step;
        if at >= count {
            at -= count;
        }
        this
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of years ago are replayed by it.
    #[test]
    fn a_seed_means_these_numbers_for_ever() {
        let mut draw = Draw::new(0, 0);
        assert_eq!(
            [draw.next(), draw.next(), draw.next()],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
        assert_ne!(Draw::new(7, 0).next(), Draw::new(7, 1).next());
    }

    #[test]
    fn scattered_visits_everything_once() {
        for count in [1, 2, 3, 12, 33, 100, 1000, 1024] {
            for seed in 0..50 {
                let mut seen = vec![0_u32; count];
                scattered(&mut Draw::new(seed, 0), count).for_each(|at| seen[at] += 1);
                assert!(seen.iter().all(|times| *times == 1), "{count} {seed}");
            }
        }
        assert_eq!(scattered(&mut Draw::new(1, 0), 0).count(), 0);
    }

    #[test]
    fn bounds_hold_and_nothing_is_left_out() {
        let mut draw = Draw::new(3, 0);
        let mut seen = [0_u32; 7];
        (0..7_000).for_each(|_| seen[draw.index(7)] += 1);
        assert!(seen.iter().all(|times| (850..1150).contains(times)), "{seen:?}");
        assert_eq!(draw.below(0), 0);
    }
}
