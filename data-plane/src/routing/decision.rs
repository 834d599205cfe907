//! The recorded outcome of routing: what is tried in which order, what was passed over and why, and the health that
//! was seen. [`super::decide`] makes it; headers, error bodies, the request log and replays read it.

use std::sync::Arc;

use nemo_snapshot::{Deployment, Strategy, TagSet};
use nemo_types::DeploymentId;
use smallvec::SmallVec;

use super::{Cause, Health, HealthView, Packed};

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The one that ordered the picks: the asked one, unless the request's preferences name another.
    pub strategy: Strategy,
    pub seed: u64,
    /// In the order in which they are tried, over all links; no deployment twice, at most [`Self::MAX_PICKS`].
    pub picks: SmallVec<[Pick; 4]>,
    /// The first [`Self::MAX_ELIMINATED`] that were passed over.
    pub eliminated: SmallVec<[Elimination; 2]>,
    /// How many more were passed over.
    pub eliminated_more: u32,
    /// The health of every candidate that was looked at and is not quiet.
    pub seen: SmallVec<[Seen; 4]>,
    /// There were too many cooling ones to list: those that `seen` does not name were not looked at, or were cooling.
    pub rest_cooling: bool,
}

impl Decision {
    pub const MAX_PICKS: usize = 16;
    pub const MAX_ELIMINATED: usize = 32;

    pub(super) fn empty(strategy: Strategy, seed: u64) -> Self {
        Self {
            strategy,
            seed,
            picks: SmallVec::new(),
            eliminated: SmallVec::new(),
            eliminated_more: 0,
            seen: SmallVec::new(),
            rest_cooling: false,
        }
    }

    /// The one that is tried first.
    pub fn first(&self) -> Option<&Pick> {
        self.picks.first()
    }

    /// The health that this decision was made by.
    pub fn recorded(&self) -> Recorded<'_> {
        Recorded { seen: &self.seen, rest_cooling: self.rest_cooling }
    }
}

/// A deployment that may be tried.
#[derive(Clone, Debug)]
pub struct Pick {
    pub deployment: Arc<Deployment>,
    /// Index of its link in the chain; 0 is the primary pool.
    pub link: u8,
}

impl PartialEq for Pick {
    fn eq(&self, other: &Self) -> bool {
        (self.deployment.id, self.link) == (other.deployment.id, other.link)
    }
}

/// A deployment that was looked at and passed over.
#[derive(Clone, Debug)]
pub struct Elimination {
    pub deployment: Arc<Deployment>,
    pub link: u8,
    pub reason: Reason,
}

impl PartialEq for Elimination {
    fn eq(&self, other: &Self) -> bool {
        (self.deployment.id, self.link, self.reason) == (other.deployment.id, other.link, other.reason)
    }
}

/// How a candidate looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub deployment: DeploymentId,
    pub health: Packed,
}

/// Why a deployment was not a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is switched off, or has no weight.
    Disabled,
    /// The model or its provider has no such endpoint.
    EndpointNotServed,
    /// The model lacks these of the required tags.
    TagsMissing(TagSet),
    /// Tokens that the prompt has at the least, and the model's window.
    ContextTooSmall {
        needed: u64,
        window: u64,
    },
    /// The request's preferences name others, or leave this one out.
    Excluded,
    /// The price is above what the request allows.
    TooExpensive(Ceiling),
    /// The request has a ceiling of price, and nobody knows what this one costs.
    PriceUnknown(Ceiling),
    Cooling {
        remaining_ms: u32,
        cause: Cause,
    },
}

impl Reason {
    /// For error bodies and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::EndpointNotServed => "endpoint_not_served",
            Self::TagsMissing(_) => "tags_missing",
            Self::ContextTooSmall { .. } => "context_too_small",
            Self::Excluded => "excluded",
            Self::TooExpensive(_) => "too_expensive",
            Self::PriceUnknown(_) => "price_unknown",
            Self::Cooling { .. } => "cooling",
        }
    }
}

/// A limit of price that a request can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ceiling {
    /// `provider.max_price.prompt`
    Prompt,
    /// `provider.max_price.completion`
    Completion,
    /// `provider.max_price.request`
    Request,
    /// `provider.max_price.image`
    Image,
    /// `nemo_max_cost`, or the setting
    Cost,
}

impl Ceiling {
    pub const ALL: [Self; 5] = [Self::Prompt, Self::Completion, Self::Request, Self::Image, Self::Cost];

    /// The member of the request that sets it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Prompt => "provider.max_price.prompt",
            Self::Completion => "provider.max_price.completion",
            Self::Request => "provider.max_price.request",
            Self::Image => "provider.max_price.image",
            Self::Cost => "nemo_max_cost",
        }
    }
}

/// Nothing could be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct NoCandidate {
    pub why: Why,
    /// With the reason for each, and without picks.
    pub decision: Decision,
}

/// Why nothing could be chosen: what stopped the candidate that came furthest. In the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Every deployment is switched off, or there is none.
    Off,
    /// None serves the endpoint.
    Endpoint,
    /// None of those that serve the endpoint has all tags.
    Tags,
    /// The request is too long for the largest window of those that have the tags.
    Context { needed: u64, largest: u64 },
    /// The request's preferences leave none.
    Excluded,
    /// All are above this ceiling, or have no known price.
    TooExpensive(Ceiling),
    /// All that fit are cooling down; the first is back after this many milliseconds.
    Cooling { soonest_ms: u32 },
}

impl Why {
    /// Its place among the checks.
    pub(super) fn stage(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Endpoint => 1,
            Self::Tags => 2,
            Self::Context { .. } => 3,
            Self::Excluded => 4,
            Self::TooExpensive(_) => 5,
            Self::Cooling { .. } => 6,
        }
    }
}

/// The health in the record of a decision, for a replay.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub seen: &'a [Seen],
    /// [`Decision::rest_cooling`].
    pub rest_cooling: bool,
}

impl HealthView for Recorded<'_> {
    fn of(&self, deployment: &Deployment) -> Health {
        let seen = self.seen.iter().find(|seen| seen.deployment == deployment.id);
        match seen {
            Some(seen) => seen.health.unpack(),
            None if self.rest_cooling => {
                let gate = super::Gate::Cooling { remaining_ms: u32::MAX, cause: Cause::Server };
                Health { gate, ..Health::QUIET }
            }
            None => Health::QUIET,
        }
    }
}
