//! The breaker of one deployment for one organization: closed, open, half-open. Pure: time and chance are arguments.
//! Held by [`super::pairs`].
//!
//! - Client faults never get here: whoever calls has judged that the upstream failed.
//! - A refusal that says when to come back, and a connection that can't be made, open it at once; other failures when
//!   so many of them come in a row as the organization's policy says.
//! - How long: the upstream's hint, else the policy's window, doubled with each opening that follows a failed probe, up
//!   to the policy's longest. Chance only adds, so that nobody comes back before the upstream asked for it.
//! - Afterwards one probe is let through: its success closes the breaker, its failure opens it for longer.

use nemo_snapshot::RoutingPolicy;

/// Milliseconds since the board was made.
pub type Millis = u64;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// 429, or another answer that means "too much".
    RateLimited,
    /// No head, or no first byte, in time.
    Timeout,
    /// 408, 5xx, or no HTTP.
    Server,
    /// No connection.
    Connect,
    /// Our credential or account was refused: 401, 402, 403.
    Credential,
    /// The answer broke off after its first byte.
    Interrupted,
}

impl FailureClass {
    pub const ALL: [Self; 6] =
        [Self::RateLimited, Self::Timeout, Self::Server, Self::Connect, Self::Credential, Self::Interrupted];

    /// For logs and the decision log.
    pub fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Server => "server_error",
            Self::Connect => "connect",
            Self::Credential => "credential",
            Self::Interrupted => "interrupted",
        }
    }

    /// One such failure is evidence enough.
    fn opens_at_once(self) -> bool {
        matches!(self, Self::RateLimited | Self::Connect)
    }
}

/// Why a deployment is cooling down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Failure(FailureClass),
    /// An administrator said so.
    Manual,
}

impl Cause {
    /// For error bodies and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Failure(class) => class.label(),
            Self::Manual => "manual",
        }
    }
}

/// An organization's numbers for its breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it; at least 1.
    pub threshold: u32,
    /// The first cooldown.
    pub window_ms: u32,
    /// The longest.
    pub max_ms: u32,
}

impl BreakerPolicy {
    pub fn of(policy: &RoutingPolicy) -> Self {
        Self {
            threshold: policy.failure_threshold,
            window_ms: policy.cooldown_ms,
            max_ms: policy.cooldown_max_ms,
        }
    }
}

/// What an attempt was begun as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Openings before it began: what began earlier says nothing new about a breaker that has opened since.
    pub generation: u32,
    /// It is the one probe of a half-open breaker.
    pub probe: bool,
}

/// Whether an attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Ready,
    /// The cooldown is over, and nobody has tried since.
    Probe,
    Cooling {
        remaining_ms: u64,
        cause: Cause,
    },
}

/// A probe whose outcome is not heard of for so long does not hold up the next one.
const PROBE_PATIENCE_MS: Millis = 120_000;
/// What is said to remain while somebody else's probe is under way.
const PROBE_WAIT_MS: u64 = 1_000;
/// Largest part that chance adds, as 1/n of the cooldown.
const JITTER_PART: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Millis, cause: Cause },
    HalfOpen { since: Millis, cause: Cause },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    /// Failures in a row while closed.
    failures: u32,
    /// Openings since it was last closed.
    level: u8,
    generation: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, level: 0, generation: 0 }
    }
}

impl Breaker {
    /// A closed one, as attempts with tickets of that generation know it.
    pub fn of_generation(generation: u32) -> Self {
        Self { generation, ..Self::default() }
    }

    pub fn admission(&self, now: Millis) -> Admission {
        match self.state {
            State::Closed => Admission::Ready,
            State::Open { until, cause } if now < until => {
                Admission::Cooling { remaining_ms: until - now, cause }
            }
            State::Open { .. } => Admission::Probe,
            State::HalfOpen { since, .. } if now.saturating_sub(since) >= PROBE_PATIENCE_MS => {
                Admission::Probe
            }
            State::HalfOpen { cause, .. } => Admission::Cooling { remaining_ms: PROBE_WAIT_MS, cause },
        }
    }

    /// Begins an attempt; takes the probe when that is what there is.
    ///
    /// # Errors
    /// What remains of the cooldown, and its cause, when no attempt may be made.
    pub fn begin(&mut self, now: Millis) -> Result<Ticket, (u64, Cause)> {
        match self.admission(now) {
            Admission::Ready => Ok(self.ticket(false)),
            Admission::Cooling { remaining_ms, cause } => Err((remaining_ms, cause)),
            Admission::Probe => {
                let (State::Open { cause, .. } | State::HalfOpen { cause, .. }) = self.state else {
                    return Ok(self.ticket(false));
                };
                self.state = State::HalfOpen { since: now, cause };
                // The attempts of a probe that was given up no longer decide.
                self.generation = self.generation.wrapping_add(1);
                Ok(self.ticket(true))
            }
        }
    }

    fn ticket(&self, probe: bool) -> Ticket {
        Ticket { generation: self.generation, probe }
    }

    /// The attempt went well. What began before the last opening does not count.
    pub fn succeeded(&mut self, ticket: Ticket) {
        if ticket.generation == self.generation && (ticket.probe || self.state == State::Closed) {
            *self = Self { generation: self.generation, ..Self::default() };
        }
    }

    /// The upstream failed. True when this opened the breaker. `jitter` is any random number.
    pub fn failed(
        &mut self,
        (ticket, class, hint_ms): (Ticket, FailureClass, Option<u64>),
        policy: BreakerPolicy,
        now: Millis,
        jitter: u64,
    ) -> bool {
        let current = ticket.generation == self.generation;
        match self.state {
            // Begun before it opened: it may lengthen the cooldown by its hint, and is no second opening.
            State::Open { until, cause } => {
                if let Some(hint) = hint_ms {
                    let hint = now + cooldown_ms(Some(hint), 0, policy, jitter);
                    self.state = State::Open { until: until.max(hint), cause };
                }
                false
            }
            State::HalfOpen { .. } if !(current && ticket.probe) => false,
            State::HalfOpen { .. } => self.open(class, hint_ms, policy, now, jitter),
            State::Closed if !current => false,
            State::Closed => {
                self.failures = self.failures.saturating_add(1);
                let enough = class.opens_at_once() || self.failures >= policy.threshold.max(1);
                enough && self.open(class, hint_ms, policy, now, jitter)
            }
        }
    }

    fn open(
        &mut self,
        class: FailureClass,
        hint_ms: Option<u64>,
        policy: BreakerPolicy,
        now: Millis,
        jitter: u64,
    ) -> bool {
        let until = now + cooldown_ms(hint_ms, self.level, policy, jitter);
        self.state = State::Open { until, cause: Cause::Failure(class) };
        self.failures = 0;
        self.level = self.level.saturating_add(1);
        self.generation = self.generation.wrapping_add(1);
        true
    }

    /// The probe ended without a verdict, for example because its client left: the next attempt is the probe.
    pub fn released(&mut self, ticket: Ticket, now: Millis) {
        if let State::HalfOpen { cause, .. } = self.state
            && ticket.probe
            && ticket.generation == self.generation
        {
            self.state = State::Open { until: now, cause };
        }
    }

    /// The fleet says that it cools down until then: what is longer wins.
    pub fn cool(&mut self, until: Millis, cause: Cause) {
        match &mut self.state {
            State::Open { until: held, .. } if *held >= until => {}
            State::Open { until: held, .. } => *held = until,
            State::Closed | State::HalfOpen { .. } => {
                self.state = State::Open { until, cause };
                self.failures = 0;
                self.level = self.level.max(1);
                self.generation = self.generation.wrapping_add(1);
            }
        }
    }

    /// An administrator lifted it: as if nothing had been.
    pub fn reset(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::default() };
    }

    pub fn is_open(&self, now: Millis) -> bool {
        matches!(self.admission(now), Admission::Cooling { .. })
    }

    /// What is left of the cooldown; `None` when there is none.
    pub fn remaining_ms(&self, now: Millis) -> Option<u64> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until - now),
            _ => None,
        }
    }

    /// Nothing to remember: closed, and no failure counts.
    pub fn is_pristine(&self) -> bool {
        self.state == State::Closed && self.failures == 0
    }

    /// A breaker whose cooldown ended so long ago that doubling it again would punish for the past.
    pub fn is_forgettable(&self, now: Millis, after: Millis) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, .. } => now >= until.saturating_add(after),
            State::HalfOpen { since, .. } => now >= since.saturating_add(PROBE_PATIENCE_MS + after),
        }
    }
}

/// The cooldown of an opening: hint or doubled window, capped, and what `jitter` adds to it.
fn cooldown_ms(hint_ms: Option<u64>, level: u8, policy: BreakerPolicy, jitter: u64) -> u64 {
    let longest = u64::from(policy.max_ms).max(1);
    let doubled = u64::from(policy.window_ms).saturating_mul(1 << u32::from(level.min(32)));
    let base = hint_ms.unwrap_or(doubled).clamp(1, longest);
    let added = jitter % (base / JITTER_PART + 1);
    (base + added).min(longest)
}

#[cfg(test)]
mod tests;
