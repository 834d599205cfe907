//! The recorded outcome of routing, with the reasons why others were not chosen.

use std::sync::Arc;

use nemo_snapshot::{Deployment, Strategy};
use smallvec::SmallVec;

/// Why a deployment was not a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model or its provider has no such endpoint.
    EndpointNotServed,
}

impl Reason {
    /// For the error body and the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::EndpointNotServed => "endpoint_not_served",
        }
    }
}

/// A deployment that was looked at and passed over.
#[derive(Clone, Debug)]
pub struct Elimination {
    pub deployment: Arc<Deployment>,
    pub reason: Reason,
}

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Decision {
    pub deployment: Arc<Deployment>,
    /// Index of the link that it came from; 0 is the primary pool.
    pub link: usize,
    pub strategy: Strategy,
    pub seed: u64,
    pub eliminated: SmallVec<[Elimination; 2]>,
}

/// Nothing could be chosen.
#[derive(Clone, Debug)]
pub struct NoCandidate {
    /// Empty: the group's deployments are all switched off.
    pub eliminated: SmallVec<[Elimination; 2]>,
}
