//! Identifiers. Each kind of entity has its own type; all are UUIDv7 and so sort by creation time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later than every id made before it in this process.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// From the 16 bytes that travel in resources and events; `None` for another length.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )*};
}

ids! {
    /// An organization: the tenant.
    OrgId,
    /// A team of an organization.
    TeamId,
    /// A virtual key.
    KeyId,
    /// A person in an organization.
    MemberId,
    /// A token for the admin API.
    AdminTokenId,
    /// A sealed provider credential.
    CredentialId,
    /// A limit of money, or a prepaid balance.
    BudgetId,
    /// A node's slice of one window of a budget.
    LeaseId,
    /// A limit of requests, tokens or concurrency.
    RateLimitId,
    /// One concrete upstream.
    DeploymentId,
    /// A named group of deployments.
    ModelGroupId,
    /// A setting of an organization or of the installation.
    SettingId,
    /// One request. Its timestamp decides the partition that it is logged in.
    RequestId,
}

impl RequestId {
    /// A new id with this creation time, for callers that have read the clock already.
    pub fn at(unix_us: i64) -> Self {
        let micros = u64::try_from(unix_us).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1000;
        Self(Uuid::new_v7(Timestamp::from_unix(NoContext, micros / 1_000_000, nanos)))
    }

    /// Creation time in milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        let mut bytes = [0_u8; 8];
        bytes[2..].copy_from_slice(&self.as_bytes()[..6]);
        u64::from_be_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_bytes_and_text() {
        let id = OrgId::generate();
        assert_eq!(OrgId::from_bytes(id.as_bytes()), Some(id));
        assert_eq!(id.to_string().parse::<OrgId>().unwrap(), id);
        assert_eq!(OrgId::from_bytes(&[1, 2, 3]), None);
    }

    #[test]
    fn request_ids_carry_their_time_and_sort_by_it() {
        let (first, second) = (RequestId::generate(), RequestId::generate());
        assert!(first < second);
        // 2020-01-01 < now < 2100-01-01
        assert!((1_577_836_800_000..4_102_444_800_000).contains(&first.unix_ms()));
        let at = RequestId::at(1_763_700_000_123_456);
        assert_eq!(at.unix_ms(), 1_763_700_000_123);
        assert_ne!(at, RequestId::at(1_763_700_000_123_456));
    }
}
