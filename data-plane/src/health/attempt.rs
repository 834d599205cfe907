//! One attempt under way: counts in flight from its beginning to its end, and tells its outcome. Made by
//! [`HealthBoard::begin`], held by the request context as long as the answer.

use std::{sync::Arc, time::Duration};

use super::{
    BreakerPolicy, DeploymentStats, FailureClass, HealthBoard,
    breaker::Ticket,
    pairs::{Failure, PairKey},
};

/// See the module. Dropped without a verdict it is neutral: the client left, or the fault was its own.
#[derive(Debug)]
pub struct Attempt {
    pub(super) board: HealthBoard,
    pub(super) stats: Arc<DeploymentStats>,
    pub(super) pair: PairKey,
    pub(super) ticket: Ticket,
    pub(super) policy: BreakerPolicy,
    pub(super) first_byte_us: Option<u32>,
    pub(super) judged: bool,
}

impl Attempt {
    /// True for the one attempt that decides whether a cooldown is over.
    pub fn is_probe(&self) -> bool {
        self.ticket.probe
    }

    /// `after`: since the attempt began.
    pub fn first_byte(&mut self, after: Duration) {
        let after = u32::try_from(after.as_micros()).unwrap_or(u32::MAX);
        self.first_byte_us = Some(after);
        self.stats.first_byte(after, self.board.about_now());
    }

    /// The answer is complete. `tokens`: of input and output, `output_tokens` of them set the pace; `took`: since the
    /// attempt began.
    pub fn succeeded(&mut self, tokens: u64, output_tokens: u64, took: Duration) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        let now = self.board.about_now();
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let streamed = took.saturating_sub(self.first_byte_us.map_or(took, u64::from));
        self.stats.succeeded(output_tokens, streamed, now);
        self.stats.used(tokens.saturating_sub(output_tokens), now);
        self.board.succeeded(&self.pair, self.ticket);
    }

    /// The upstream failed; may open the breaker. `hint`: when it says to come back. Only the first verdict counts.
    pub fn failed(&mut self, class: FailureClass, hint: Option<Duration>) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        self.stats.failed();
        let hint_ms = hint.map(|hint| u64::try_from(hint.as_millis()).unwrap_or(u64::MAX));
        let (pair, ticket, policy) = (self.pair, self.ticket, self.policy);
        self.board.failed(Failure { pair, ticket, class, hint_ms, policy });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.stats.ended();
        if self.ticket.probe && !self.judged {
            self.board.released(&self.pair, self.ticket);
        }
    }
}
