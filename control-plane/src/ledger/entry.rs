//! One entry of the ledger. Pure. Made by the quota bank (settlement, closed leases), the credits and re-rating; booked
//! by [`crate::store::ledger::book`]; added up again by the verification.
//!
//! Amounts are signed changes, so a total is always a plain sum over its kinds:
//!
//! | total | kinds |
//! |---|---|
//! | `budget_windows.settled` | settle, forfeit, release (negative), adjust (either) |
//! | `budget_windows.overrun` | overrun |
//! | `budget_windows.limit` of a credit | purchase, grant, refund (negative) |
//! | `budget_leases.spent` | settle |
//! | `budget_leases.forfeited` | forfeit, adjust and release of that lease |
//! | `budget_leases.overrun` | overrun |
//!
//! A charge of a request always becomes settle + overrun of exactly its amount, whatever else happens. A charge to a
//! lease that was forfeited adds an `adjust` of the other sign to the settle, as far as the forfeited part reaches.

use std::{fmt, str::FromStr};

use nemo_types::{BudgetId, LeaseId, Nanos, OrgId};
use time::OffsetDateTime;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is stored and shown.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl FromStr for Kind {
            type Err = UnknownKind;

            fn from_str(text: &str) -> Result<Self, UnknownKind> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err(UnknownKind),
                }
            }
        }
    };
}

kinds! {
    /// Requests were charged, within what was granted (or without a lease, where the budget allows that). Not negative.
    Settle = "settle",
    /// Requests were charged beyond what was granted: the upstream billed more than it was allowed to. Not negative.
    Overrun = "overrun",
    /// What was left of a lost lease counts as spent. Not negative.
    Forfeit = "forfeit",
    /// What had been forfeited was given back by an operator. Not positive.
    Release = "release",
    /// A correction: a late charge that was forfeited already (negative), a price that was wrong (either).
    Adjust = "adjust",
    /// Credit was bought. Not negative.
    Purchase = "purchase",
    /// Credit was given. Not negative.
    Grant = "grant",
    /// Credit was taken back. Not positive.
    Refund = "refund",
    /// What was paid for a purchase on top of the credit; part of no total.
    Fee = "fee",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no kind of ledger entry")]
pub struct UnknownKind;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One change. Without its source: that is given when it is booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub org_id: OrgId,
    pub budget_id: Option<BudgetId>,
    /// Always with a budget. Whole seconds, as charges name it.
    pub window_start: Option<OffsetDateTime>,
    pub lease_id: Option<LeaseId>,
    /// Change of the total.
    pub nanos: Nanos,
    /// For people; `None`: nothing to say.
    pub details: Option<serde_json::Value>,
}

impl Entry {
    /// An entry about one window of a budget.
    pub fn of_window(
        kind: Kind,
        org_id: OrgId,
        (budget_id, window_start): (BudgetId, OffsetDateTime),
        lease_id: Option<LeaseId>,
        nanos: Nanos,
    ) -> Self {
        Self {
            kind,
            org_id,
            budget_id: Some(budget_id),
            window_start: Some(window_start),
            lease_id,
            nanos,
            details: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip_through_their_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        assert_eq!("gift".parse::<Kind>(), Err(UnknownKind));
    }
}
