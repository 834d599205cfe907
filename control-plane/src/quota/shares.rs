//! How a rate limit is divided among nodes. Pure.
//!
//! Max-min fair by demand: who wants less than an even part gets what it wants, and the others divide the rest. Every
//! node has a floor, so that one that was idle can begin; and what nobody wants is divided evenly, as room to grow. The
//! parts never add up to more than the limit.

/// A whole limit.
pub const WHOLE: u64 = 1_000_000;
/// Of a limit, what is divided evenly whatever the demand.
const FLOOR: u64 = WHOLE / 10;

/// What a node has seen of a rate limit lately, admitted and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub requests_per_minute: u64,
    pub tokens_per_minute: u64,
    pub concurrent: u64,
}

/// The limit itself; `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    pub concurrent: Option<u32>,
}

/// A node's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Millionths.
    pub requests_ppm: u32,
    pub tokens_ppm: u32,
    /// Slots.
    pub concurrent: u32,
}

/// Divides `limit` among nodes with these demands, in their order.
pub fn divide(limit: Limit, demands: &[Demand]) -> Vec<Share> {
    let ppm = |limit: Option<u64>, of: fn(&Demand) -> u64| -> Vec<u32> {
        let demands: Vec<u64> = demands.iter().map(|it| millionths(of(it), limit)).collect();
        parts(WHOLE, FLOOR / (demands.len().max(1) as u64), &demands)
    };
    let requests = ppm(limit.requests_per_minute, |it| it.requests_per_minute);
    let tokens = ppm(limit.tokens_per_minute, |it| it.tokens_per_minute);
    let slots = slots(limit.concurrent.unwrap_or(0), demands);
    let shares = requests.into_iter().zip(tokens).zip(slots);
    shares
        .map(|((requests_ppm, tokens_ppm), concurrent)| Share { requests_ppm, tokens_ppm, concurrent })
        .collect()
}

/// A demand as a part of the limit, at most the whole of it.
fn millionths(demand: u64, limit: Option<u64>) -> u64 {
    let limit = u128::from(limit.unwrap_or(1).max(1));
    let part = (u128::from(demand) * u128::from(WHOLE)).div_ceil(limit);
    u64::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

/// Whole slots. When there are fewer than nodes, those that want one come first.
fn slots(limit: u32, demands: &[Demand]) -> Vec<u32> {
    let (limit, nodes) = (u64::from(limit), demands.len() as u64);
    let wants: Vec<u64> = demands.iter().map(|it| it.concurrent.min(limit)).collect();
    if limit >= nodes {
        return parts(limit, 1, &wants);
    }
    let mut order: Vec<usize> = (0..demands.len()).collect();
    // Stable: nodes that want the same keep their order.
    order.sort_by_key(|at| std::cmp::Reverse(wants[*at]));
    let mut slots = vec![0; demands.len()];
    order.into_iter().take(usize::try_from(limit).unwrap_or(0)).for_each(|at| slots[at] = 1);
    slots
}

/// Divides `whole`: `floor` for each, then what is wanted beyond it, max-min fair, then what is left evenly. What can't be
/// divided evenly goes to the first.
fn parts(whole: u64, floor: u64, wants: &[u64]) -> Vec<u32> {
    let mut parts: Vec<u64> = vec![floor; wants.len()];
    let mut left = whole.saturating_sub(floor * wants.len() as u64);
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|at| wants[*at]);
    for (served, at) in order.iter().enumerate() {
        let even = left / (wants.len() - served) as u64;
        let more = wants[*at].saturating_sub(floor).min(even);
        parts[*at] += more;
        left -= more;
    }
    let nodes = (wants.len() as u64).max(1);
    let (each, over) = (left / nodes, left % nodes);
    for (at, part) in parts.iter_mut().enumerate() {
        *part += each + u64::from((at as u64) < over);
    }
    parts.into_iter().map(|part| u32::try_from(part).unwrap_or(u32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(per_minute: u64, slots: u32) -> Limit {
        Limit {
            requests_per_minute: Some(per_minute),
            tokens_per_minute: Some(per_minute),
            concurrent: Some(slots),
        }
    }

    fn demand(units: u64) -> Demand {
        Demand { requests_per_minute: units, tokens_per_minute: units, concurrent: units }
    }

    #[test]
    fn who_wants_little_gets_it_and_the_others_divide_the_rest() {
        let shares = divide(limit(1000, 100), &[demand(100), demand(5000), demand(5000), demand(0)]);
        assert_eq!(shares[0].requests_ppm, 100_000);
        assert_eq!(shares[1], shares[2]);
        assert_eq!(shares[1].requests_ppm, (1_000_000 - 100_000 - 25_000) / 2);
        assert_eq!(shares[3].requests_ppm, 25_000, "one that was idle can begin");
        assert_eq!(shares.iter().map(|it| it.concurrent).sum::<u32>(), 100);
        assert_eq!(shares[3].concurrent, 1);
    }

    #[test]
    fn without_demand_all_have_the_same() {
        let shares = divide(limit(1000, 6), &[demand(0); 4]);
        assert!(shares.iter().all(|it| it.requests_ppm == 250_000), "{shares:?}");
        assert_eq!(shares.iter().map(|it| it.concurrent).collect::<Vec<_>>(), [2, 2, 1, 1]);
    }

    #[test]
    fn scarce_slots_go_to_those_who_want_them() {
        let shares = divide(limit(1, 2), &[demand(0), demand(3), demand(0), demand(1)]);
        assert_eq!(shares.iter().map(|it| it.concurrent).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn parts_never_add_up_to_more_than_the_limit(
            per_minute in 1_u64..u64::MAX, slots in 1_u32..1000,
            demands in prop::collection::vec(prop_oneof![0_u64..2000, any::<u64>()], 1..60),
        ) {
            let demands: Vec<Demand> = demands.into_iter().map(demand).collect();
            let shares = divide(limit(per_minute, slots), &demands);
            let sum = |of: fn(&Share) -> u32| shares.iter().map(|it| u64::from(of(it))).sum::<u64>();
            prop_assert!(sum(|it| it.requests_ppm) <= WHOLE && sum(|it| it.tokens_ppm) <= WHOLE);
            prop_assert_eq!(sum(|it| it.concurrent), u64::from(slots));
            let floor = FLOOR / demands.len() as u64;
            prop_assert!(shares.iter().all(|it| u64::from(it.requests_ppm) >= floor));
        }
    }
}
