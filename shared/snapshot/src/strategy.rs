//! The names of routing strategies: how one deployment is picked from a pool. What they do is in the data plane.

use std::{fmt, str::FromStr};

/// How one deployment is picked from a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Uniformly random over the healthy deployments.
    #[default]
    SimpleShuffle,
    /// Fewest requests in flight, of two chosen at random.
    LeastBusy,
    /// By what is left of the advertised requests and tokens per minute.
    UsageBased,
    /// By time to the first token and per output token.
    LatencyBased,
    /// Cheapest for this request first.
    CostBased,
    /// Random in proportion to the weights of the link's members.
    Weighted,
    /// By availability, speed, headroom and price together.
    Balanced,
}

impl Strategy {
    pub const ALL: [Self; 7] = [
        Self::SimpleShuffle,
        Self::LeastBusy,
        Self::UsageBased,
        Self::LatencyBased,
        Self::CostBased,
        Self::Weighted,
        Self::Balanced,
    ];

    /// As it is written in settings, model groups, headers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimpleShuffle => "simple-shuffle",
            Self::LeastBusy => "least-busy",
            Self::UsageBased => "usage-based",
            Self::LatencyBased => "latency-based",
            Self::CostBased => "cost-based",
            Self::Weighted => "weighted",
            Self::Balanced => "balanced",
        }
    }

    /// All names, for messages: `simple-shuffle, least-busy, ...`.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No strategy has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy {0:?}, expected one of: {all}", all = Strategy::names())]
pub struct UnknownStrategy(pub String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.name() == name)
            .ok_or_else(|| UnknownStrategy(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R004-1.
    #[test]
    fn the_seven_strategies_have_the_names_that_users_were_told() {
        let names = "simple-shuffle, least-busy, usage-based, latency-based, cost-based, weighted, balanced";
        assert_eq!(Strategy::names(), names);
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse(), Ok(strategy));
        }
        assert_eq!(Strategy::default(), Strategy::SimpleShuffle);
    }

    #[test]
    fn unknown_strategies_are_named_with_the_known_ones() {
        let error = "fastest".parse::<Strategy>().unwrap_err().to_string();
        assert!(error.contains("fastest") && error.contains(&Strategy::names()), "{error}");
    }
}
