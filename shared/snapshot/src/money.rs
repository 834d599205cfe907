//! What limits a key's requests: budgets and rate limits of its organization, its team and itself. Compiled into
//! [`crate::Tenancy`], read by the data plane's `throttle` and `reserve`.

use std::{num::NonZeroU64, sync::Arc};

use nemo_types::{BudgetId, KeyId, OrgId, RateLimitId, TeamId};

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Organization,
    Team(TeamId),
    Key(KeyId),
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Team(_) => "team",
            Self::Key(_) => "key",
        }
    }

    /// Id of the organization, team or key.
    pub(crate) fn subject(self, org: OrgId) -> [u8; 16] {
        match self {
            Self::Organization => *org.as_bytes(),
            Self::Team(id) => *id.as_bytes(),
            Self::Key(id) => *id.as_bytes(),
        }
    }
}

/// What a budget is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetKind {
    /// Money that may be spent within a window.
    Limit,
    /// The organization's prepaid balance.
    Credit,
}

/// What happens to a request whose upper bound is above what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverBudget {
    /// Its output is capped to what can be paid.
    Cap,
    Reject,
}

/// What happens while a node has no lease and can't get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLease {
    Deny,
    /// Served and charged all the same.
    Allow,
}

/// How much is held for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationBound {
    /// What it can cost at most.
    Strict,
    /// What it is likely to cost.
    Estimated,
}

/// A limit of money, as a node knows it: how much is left is in its leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub id: BudgetId,
    pub name: Arc<str>,
    pub scope: Scope,
    pub kind: BudgetKind,
    pub over_budget: OverBudget,
    pub no_lease: NoLease,
    pub bound: ReservationBound,
}

/// A limit of requests, tokens or concurrency over the whole fleet. `None`: not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub id: RateLimitId,
    pub name: Arc<str>,
    pub scope: Scope,
    /// Only for model groups with such a name; `*` stands for any characters. Empty: for all together.
    pub model: Box<str>,
    pub requests_per_minute: Option<NonZeroU64>,
    pub tokens_per_minute: Option<NonZeroU64>,
    pub concurrent: Option<u32>,
}

impl RateLimit {
    /// Whether requests for this model group count.
    pub fn applies_to(&self, group: &str) -> bool {
        self.model.is_empty() || crate::policy::glob(&self.model, group)
    }
}

/// What one organization, team or key is limited by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In the order of their ids.
    pub budgets: Vec<Arc<Budget>>,
    /// In the order of their ids.
    pub rates: Vec<Arc<RateLimit>>,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.rates.is_empty()
    }
}

/// Everything that limits one key. At most three: organization, team, key.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub organization: Option<&'a Arc<Limits>>,
    pub team: Option<&'a Arc<Limits>>,
    pub key: Option<&'a Arc<Limits>>,
}

impl<'a> Bounds<'a> {
    fn all(self) -> impl Iterator<Item = &'a Arc<Limits>> {
        [self.organization, self.team, self.key].into_iter().flatten()
    }

    pub fn budgets(self) -> impl Iterator<Item = &'a Arc<Budget>> {
        self.all().flat_map(|limits| &limits.budgets)
    }

    pub fn rates(self) -> impl Iterator<Item = &'a Arc<RateLimit>> {
        self.all().flat_map(|limits| &limits.rates)
    }
}
