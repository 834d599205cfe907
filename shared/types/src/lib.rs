//! Values of the domain, without IO, used by every other crate.
//!
//! - [`base_url`](mod@base_url): where the providers are
//! - [`endpoint`]: names of the proxied endpoints
//! - [`ids`]: newtypes over UUIDv7, so that a team's id can't be passed where a key's is meant
//! - [`money`]: integer nano-dollars with checked arithmetic
//! - [`usage`] and [`price`]: what a call consumed, and what that costs
//! - [`unit`]: what a call consumed that is not counted in text tokens
//! - [`token`]: virtual keys and admin tokens: minting, parsing, hashing
//! - [`secret`]: values that never reach logs, and sealing of provider credentials
//! - [`marker`]: proof that this installation has made something, and for whom

pub mod base_url;
pub mod endpoint;
pub mod ids;
pub mod marker;
pub mod money;
pub mod price;
pub mod secret;
pub mod token;
pub mod unit;
pub mod usage;

pub use base_url::base_url;
pub use ids::{
    AdminTokenId, BudgetId, CredentialId, DeploymentId, KeyId, LeaseId, MemberId, ModelGroupId, OrgId,
    RateLimitId, RequestId, SettingId, TeamId,
};
pub use marker::{MARK_LEN, Marker};
pub use money::Nanos;
pub use price::{NanosPerMillion, PriceSheet, PriceStep};
pub use secret::{Keyring, SealError, Sealed, Secret};
pub use token::{AdminToken, ApiKey, Presented, PublicId, TokenHash, Verified};
pub use unit::{Measure, Unit, UnitPrice};
pub use usage::Usage;
