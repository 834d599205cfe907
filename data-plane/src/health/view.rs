//! What routing reads of the health of deployments. When nobody is in trouble it costs two relaxed loads for all of them
//! and no look at the clock; see [`HealthBoard::view`].

use nemo_snapshot::Deployment;
use nemo_types::OrgId;

use super::{
    HealthBoard,
    breaker::{self, Admission, FailureClass, Millis},
    stats::Reading,
};
use crate::{
    config::Live,
    routing::{Cause, Gate, Health, HealthView},
};

/// The health of a snapshot's deployments at one time, for one organization.
#[derive(Clone, Copy, Debug)]
pub struct LiveView<'a> {
    /// `None`: no deployment is in trouble with anybody.
    board: Option<&'a HealthBoard>,
    live: &'a Live,
    org: OrgId,
    now: Millis,
}

impl<'a> LiveView<'a> {
    pub(super) fn new(board: &'a HealthBoard, live: &'a Live, org: OrgId) -> Self {
        let board_in_trouble = (!board.is_quiet()).then_some(board);
        let now = if board_in_trouble.is_some() { board.now() } else { board.about_now() };
        Self { board: board_in_trouble, live, org, now }
    }

    fn gate(&self, deployment: &Deployment) -> Gate {
        let Some(board) = self.board else { return Gate::Ready };
        match board.admission(&(self.org, deployment.id), self.now) {
            Admission::Ready => Gate::Ready,
            Admission::Probe => Gate::Probe,
            Admission::Cooling { remaining_ms, cause } => Gate::Cooling {
                remaining_ms: u32::try_from(remaining_ms).unwrap_or(u32::MAX),
                cause: cause.into(),
            },
        }
    }
}

impl HealthView for LiveView<'_> {
    fn of(&self, deployment: &Deployment) -> Health {
        let gate = self.gate(deployment);
        let Some(upstream) = self.live.upstreams.get(deployment.slot) else {
            return Health { gate, ..Health::QUIET };
        };
        let Reading { in_flight, ttft_us, per_token_us, rpm_used, tpm_used, success_permille } =
            upstream.stats.read(self.now);
        Health { gate, in_flight, ttft_us, per_token_us, rpm_used, tpm_used, success_permille }
    }
}

impl From<breaker::Cause> for Cause {
    fn from(cause: breaker::Cause) -> Self {
        match cause {
            breaker::Cause::Manual => Self::Manual,
            breaker::Cause::Failure(FailureClass::RateLimited) => Self::RateLimited,
            breaker::Cause::Failure(FailureClass::Timeout) => Self::Timeout,
            breaker::Cause::Failure(FailureClass::Server) => Self::Server,
            breaker::Cause::Failure(FailureClass::Connect) => Self::Connect,
            breaker::Cause::Failure(FailureClass::Credential) => Self::Credential,
            breaker::Cause::Failure(FailureClass::Interrupted) => Self::Interrupted,
        }
    }
}
