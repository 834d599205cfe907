//! Credits: the prepaid balance of an organization, and how money gets into it.
//!
//! The balance is the window of the organization's budget of kind `credit`; its limit is moved by purchases, grants and
//! refunds ([`crate::store::credits`]), what requests cost by the quota bank like that of any budget. The platform fee
//! is paid on top of a purchase and never touches the balance [R000-13, R001-8].
//!
//! - [`tier`]: tiers, their fees and what they guarantee; quotes. Pure
//! - [`settings`]: the settings of billing, and what they may be
//! - [`payments`]: events of a payment provider
//! - [`job`]: tells organizations that their balance is low, and forgets old events of payments
//!
//! Called by `admin/ops/credits.rs`, `admin/ops/settings.rs` and `app.rs`.

pub mod job;
mod options;
pub mod payments;
pub mod settings;
pub mod tier;

pub use options::BillingOptions;
pub use settings::BillingSetting;
pub use tier::{FeeRate, Quote, Tier, Tiers};
