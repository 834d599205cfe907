//! How one deployment is picked from a pool. One function per strategy; called by [`super::decide`].

use nemo_snapshot::{LinkMember, Strategy};

/// `None` for an empty pool.
pub(super) fn pick<'a>(strategy: Strategy, pool: &[&'a LinkMember], seed: u64) -> Option<&'a LinkMember> {
    match strategy {
        Strategy::SimpleShuffle => simple_shuffle(pool, seed),
    }
}

/// Random in proportion to the weights (R004-2: uniform when they are equal).
fn simple_shuffle<'a>(pool: &[&'a LinkMember], seed: u64) -> Option<&'a LinkMember> {
    if let [only] = pool {
        return Some(only);
    }
    let total: u64 = pool.iter().map(|member| u64::from(member.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut point = fastrand::Rng::with_seed(seed).u64(..total);
    pool.iter().copied().find(|member| {
        let weight = u64::from(member.weight);
        let hit = point < weight;
        point = point.wrapping_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nemo_types::DeploymentId;

    use super::*;
    use crate::testing;

    fn pool(weights: &[u32]) -> Vec<LinkMember> {
        weights
            .iter()
            .map(|weight| LinkMember { deployment: testing::deployment("p", "m"), weight: *weight })
            .collect()
    }

    fn counts(members: &[LinkMember], draws: u64) -> Vec<u64> {
        let pool: Vec<_> = members.iter().collect();
        let mut counts = vec![0; members.len()];
        for seed in 0..draws {
            let picked: DeploymentId = simple_shuffle(&pool, seed).unwrap().deployment.id;
            counts[members.iter().position(|member| member.deployment.id == picked).unwrap()] += 1;
        }
        counts
    }

    /// R004-2: chi-squared over 10 000 picks, 3 degrees of freedom; 16.27 is the 0.1 % quantile. Seeds are fixed.
    #[test]
    fn simple_shuffle_is_uniform_over_equal_weights() {
        let counts = counts(&pool(&[1, 1, 1, 1]), 10_000);
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let chi: f64 = counts.iter().map(|count| (*count as f64 - 2500.0).powi(2) / 2500.0).sum();
        assert!(chi < 16.27, "{chi} {counts:?}");
    }

    #[test]
    fn simple_shuffle_follows_the_weights() {
        let counts = counts(&pool(&[3, 1]), 10_000);
        assert!((7300..7700).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn the_same_seed_picks_the_same_deployment() {
        let members = pool(&[1, 1, 1]);
        let pool: Vec<_> = members.iter().collect();
        for seed in 0..50 {
            let pick = || simple_shuffle(&pool, seed).unwrap();
            assert!(Arc::ptr_eq(&pick().deployment, &pick().deployment));
        }
        assert!(simple_shuffle(&[], 1).is_none());
    }
}
