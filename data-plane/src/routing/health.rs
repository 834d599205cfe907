//! What a decision knows of a deployment's health: a few numbers in logarithmic steps, eight bytes in all.
//!
//! [`super::decide`] sees nothing finer than this, so the eight bytes in the decision record are all that a replay
//! needs to come to the same decision.

use nemo_snapshot::Deployment;

/// Where the health of deployments comes from: the node's own board, or the record of a decision.
pub trait HealthView {
    fn of(&self, deployment: &Deployment) -> Health;
}

/// Everything is fine and nothing is known: a fleet that has just started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl HealthView for Quiet {
    fn of(&self, _: &Deployment) -> Health {
        Health::QUIET
    }
}

impl<F: Fn(&Deployment) -> Health> HealthView for F {
    fn of(&self, deployment: &Deployment) -> Health {
        self(deployment)
    }
}

/// Whether requests may be sent to a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Ready,
    /// Its cooldown is over and one request may find out whether it works again.
    Probe,
    Cooling {
        remaining_ms: u32,
        cause: Cause,
    },
}

/// Why a deployment cools down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    RateLimited,
    Timeout,
    Server,
    Connect,
    Credential,
    Interrupted,
    /// Somebody said so.
    Manual,
}

impl Cause {
    pub const ALL: [Self; 7] = [
        Self::RateLimited,
        Self::Timeout,
        Self::Server,
        Self::Connect,
        Self::Credential,
        Self::Interrupted,
        Self::Manual,
    ];

    /// For error bodies, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Server => "server_error",
            Self::Connect => "connect",
            Self::Credential => "credential",
            Self::Interrupted => "interrupted",
            Self::Manual => "manual",
        }
    }

    /// By its position in [`Self::ALL`], which records hold.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How a deployment does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub gate: Gate,
    /// Requests of this node that are under way.
    pub in_flight: u32,
    /// Microseconds until the first token; 0: unknown.
    pub ttft_us: u32,
    /// Microseconds per output token; 0: unknown.
    pub per_token_us: u32,
    /// Requests of the last minute.
    pub rpm_used: u32,
    /// Tokens of the last minute.
    pub tpm_used: u32,
    /// Share of attempts that went well; 1000 also when there were none.
    pub success_permille: u16,
}

impl Default for Health {
    fn default() -> Self {
        Self::QUIET
    }
}

impl Health {
    pub const QUIET: Self = Self {
        gate: Gate::Ready,
        in_flight: 0,
        ttft_us: 0,
        per_token_us: 0,
        rpm_used: 0,
        tpm_used: 0,
        success_permille: 1000,
    };

    /// In the steps that decisions are made in.
    pub fn pack(&self) -> Packed {
        let (gate, remaining) = match self.gate {
            Gate::Ready => (0, 0),
            Gate::Probe => (1, 0),
            Gate::Cooling { remaining_ms, cause } => (2 + cause as u8, step_up(remaining_ms)),
        };
        let failed = 1000 - self.success_permille.min(1000);
        Packed(u64::from_le_bytes([
            gate,
            remaining,
            step(self.in_flight),
            step(self.ttft_us),
            step(self.per_token_us),
            step(self.rpm_used),
            step(self.tpm_used),
            u8::try_from(failed.div_ceil(FAILED_STEP)).unwrap_or(u8::MAX),
        ]))
    }
}

/// Failed attempts are counted in steps of this many thousandths.
const FAILED_STEP: u16 = 4;

/// A [`Health`] in eight bytes. 0 is [`Health::QUIET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packed(pub u64);

impl Packed {
    /// Whether there is nothing to tell.
    pub fn is_quiet(self) -> bool {
        self.0 == 0
    }

    /// Packing the result gives the same eight bytes. Eight bytes that nobody packed give some health too.
    pub fn unpack(self) -> Health {
        let [gate, remaining, in_flight, ttft, per_token, rpm, tpm, failed] = self.0.to_le_bytes();
        let gate = match gate {
            0 => Gate::Ready,
            1 => Gate::Probe,
            code => Gate::Cooling {
                remaining_ms: unstep(remaining),
                cause: Cause::from_code(code - 2).unwrap_or(Cause::Server),
            },
        };
        Health {
            gate,
            in_flight: unstep(in_flight),
            ttft_us: unstep(ttft),
            per_token_us: unstep(per_token),
            rpm_used: unstep(rpm),
            tpm_used: unstep(tpm),
            success_permille: 1000 - (u16::from(failed) * FAILED_STEP).min(1000),
        }
    }
}

/// Counts up to 15 are exact, greater ones rounded down to one of eight steps per doubling (at most an eighth off).
fn step(value: u32) -> u8 {
    if value < 16 {
        return value.to_le_bytes()[0];
    }
    let doublings = value.ilog2();
    let eighth = (value >> (doublings - 3)) & 7;
    (16 + (doublings - 4) * 8 + eighth).to_le_bytes()[0]
}

/// Rounded up: who comes back after it does not come too early.
fn step_up(value: u32) -> u8 {
    let below = step(value);
    if unstep(below) == value { below } else { below.saturating_add(1).min(LAST_STEP) }
}

/// That of [`u32::MAX`].
const LAST_STEP: u8 = 16 + 27 * 8 + 7;

fn unstep(step: u8) -> u32 {
    match step.min(LAST_STEP) {
        exact @ 0..16 => u32::from(exact),
        step => {
            let (doublings, eighth) = ((step - 16) / 8 + 4, (step - 16) % 8);
            u32::from(8 + eighth) << (doublings - 3)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any gate.
    fn gates() -> impl Strategy<Value = Gate> {
        prop_oneof![
            Just(Gate::Ready),
            Just(Gate::Probe),
            (any::<u32>(), 0..Cause::ALL.len())
                .prop_map(|(remaining_ms, cause)| Gate::Cooling { remaining_ms, cause: Cause::ALL[cause] }),
        ]
    }

    proptest! {
        #[test]
        fn steps_are_within_an_eighth_and_in_order(value in any::<u32>(), more in 0_u32..1000) {
            let (down, up) = (unstep(step(value)), unstep(step_up(value)));
            prop_assert!(down <= value && value - down <= value / 8);
            prop_assert!(up >= value || step_up(value) == LAST_STEP);
            prop_assert!(step(value.saturating_add(more)) >= step(value));
        }

        #[test]
        fn packing_what_was_unpacked_changes_nothing(
            gate in gates(),
            (in_flight, ttft_us, per_token_us) in any::<(u32, u32, u32)>(),
            (rpm_used, tpm_used, success_permille) in (any::<u32>(), any::<u32>(), 0_u16..=1000),
        ) {
            let health =
                Health { gate, in_flight, ttft_us, per_token_us, rpm_used, tpm_used, success_permille };
            let packed = health.pack();
            prop_assert_eq!(packed.unpack().pack(), packed);
            prop_assert_eq!(packed.is_quiet(), health.pack() == Health::QUIET.pack());
        }

        #[test]
        fn eight_bytes_from_anywhere_are_some_health(bits in any::<u64>()) {
            let once = Packed(bits).unpack();
            prop_assert_eq!(once.pack().unpack(), once);
        }
    }

    #[test]
    fn quiet_is_zero_and_small_counts_are_exact() {
        assert_eq!(Health::QUIET.pack(), Packed(0));
        assert_eq!(Packed(0).unpack(), Health::QUIET);
        for value in 0..=16 {
            assert_eq!(unstep(step(value)), value);
        }
        assert_eq!((step(u32::MAX), unstep(LAST_STEP)), (LAST_STEP, 15 << 28));
        // 1 failure in 1000 is seen.
        let health = Health { success_permille: 999, ..Health::QUIET };
        assert_eq!(health.pack().unpack().success_permille, 996);
    }
}
