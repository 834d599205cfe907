//! Webhooks: organizations are told of events at endpoints of theirs, signed as in Standard Webhooks and repeated until
//! they are taken or a day is over. What happens is written with [`crate::store::webhooks::enqueue`], in the transaction
//! in which it happens; here it is brought there.
//!
//! - [`event_types`]: what can be told
//! - [`signature`]: secrets of endpoints and what they sign. Pure
//! - [`address`]: where may be sent: https, and no private network (SSRF). Pure
//! - [`client`]: one request
//! - [`job`]: what is due, again and again
//!
//! Called by `app.rs` and `admin/ops/webhooks.rs`.

pub mod address;
pub mod client;
pub mod job;
pub mod signature;

/// Types of events.
pub mod event_types {
    /// A threshold of a budget was crossed.
    pub const BUDGET_THRESHOLD: &str = "budget.threshold";
    /// Nothing is left of a budget.
    pub const BUDGET_EXHAUSTED: &str = "budget.exhausted";
    /// The balance fell below what the organization set.
    pub const CREDITS_LOW: &str = "credits.low";
    pub const CREDITS_PURCHASED: &str = "credits.purchased";
    pub const CREDITS_GRANTED: &str = "credits.granted";
    pub const CREDITS_REFUNDED: &str = "credits.refunded";
    /// Somebody tries an endpoint out.
    pub const TEST: &str = "webhook.test";

    pub const ALL: &[&str] = &[
        BUDGET_THRESHOLD,
        BUDGET_EXHAUSTED,
        CREDITS_LOW,
        CREDITS_PURCHASED,
        CREDITS_GRANTED,
        CREDITS_REFUNDED,
        TEST,
    ];
}

/// What a secret of an endpoint is sealed for.
pub fn seal_context(webhook: uuid::Uuid) -> Vec<u8> {
    format!("webhook\0{webhook}").into_bytes()
}
