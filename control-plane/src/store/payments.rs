//! Payments as the provider told of them: which were booked, how much of each was paid back, and every event with what
//! came of it. Called by [`crate::credits::payments`].

use nemo_types::{Nanos, OrgId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, SystemTx};

/// A payment that was booked.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct PaymentRow {
    pub id: String,
    pub org_id: Uuid,
    pub paid_nanos: i64,
    pub credit_nanos: i64,
    pub fee_nanos: i64,
    pub tier: String,
    /// Of what was paid.
    pub refunded_nanos: i64,
    pub refunded_credit_nanos: i64,
}

/// A payment, held until the transaction ends.
pub async fn lock(tx: &mut SystemTx, id: &str) -> Result<Option<PaymentRow>, StoreError> {
    let sql = "SELECT id, org_id, paid_nanos, credit_nanos, fee_nanos, tier, refunded_nanos, refunded_credit_nanos \
               FROM payments WHERE id = $1 FOR UPDATE";
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Adds one. False: it was booked before, if only just now by another replica.
pub async fn insert(
    tx: &mut SystemTx,
    id: &str,
    org: OrgId,
    (credit, fee): (Nanos, Nanos),
    tier: &str,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO payments (id, org_id, paid_nanos, credit_nanos, fee_nanos, tier) \
               VALUES ($1, $2, $3::bigint + $4::bigint, $3, $4, $5) ON CONFLICT (id) DO NOTHING";
    let done = sqlx::query(sql)
        .bind(id)
        .bind(org.0)
        .bind(credit.0)
        .bind(fee.0)
        .bind(tier)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() > 0)
}

/// How much of a locked payment was paid back in all.
pub async fn set_refunded(
    tx: &mut SystemTx,
    id: &str,
    refunded: Nanos,
    of_credit: Nanos,
) -> Result<(), StoreError> {
    let sql = "UPDATE payments SET refunded_nanos = $2, refunded_credit_nanos = $3 WHERE id = $1";
    sqlx::query(sql).bind(id).bind(refunded.0).bind(of_credit.0).execute(tx.conn()).await?;
    Ok(())
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Booked,
    Duplicate,
    Ignored,
    Refused,
}

impl Outcome {
    pub const NAMES: [&'static str; 4] = ["booked", "duplicate", "ignored", "refused"];

    pub fn name(self) -> &'static str {
        match self {
            Self::Booked => "booked",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }
}

/// An event, as far as it is written down.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    pub id: &'a str,
    pub org: Option<OrgId>,
    pub event_type: &'a str,
    pub payment_id: &'a str,
}

#[derive(Clone, Debug, FromRow)]
pub struct EventRow {
    pub id: String,
    pub org_id: Option<Uuid>,
    pub event_type: String,
    pub payment_id: String,
    pub outcome: String,
    pub reason: String,
    pub received: i32,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Writes down that an event came, and takes hold of it until the transaction ends. True: nothing is left to do about
/// it, it was dealt with before. What was refused is looked at again: its cause may have been mended.
pub async fn arrive(tx: &mut SystemTx, event: &NewEvent<'_>) -> Result<bool, StoreError> {
    let sql = "INSERT INTO payment_events (id, org_id, event_type, payment_id, outcome, reason) \
               VALUES ($1, $2, $3, $4, 'refused', '') \
               ON CONFLICT (id) DO UPDATE SET received = payment_events.received + 1, updated_at = now() \
               RETURNING outcome";
    let outcome: String = sqlx::query_scalar(sql)
        .bind(event.id)
        .bind(event.org.map(|org| org.0))
        .bind(event.event_type)
        .bind(event.payment_id)
        .fetch_one(tx.conn())
        .await?;
    Ok(outcome != Outcome::Refused.name())
}

/// What came of an event that [`arrive`]d.
pub async fn decide(
    tx: &mut SystemTx,
    id: &str,
    org: Option<OrgId>,
    outcome: Outcome,
    reason: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE payment_events SET org_id = $2, outcome = $3, reason = $4 WHERE id = $1";
    let org = org.map(|org| org.0);
    sqlx::query(sql).bind(id).bind(org).bind(outcome.name()).bind(reason).execute(tx.conn()).await?;
    Ok(())
}

/// Newest first, at most `limit` from before `before`.
pub async fn events(
    tx: &mut SystemTx,
    outcome: Option<&str>,
    payment: Option<&str>,
    before: Option<(OffsetDateTime, String)>,
    limit: i64,
) -> Result<Vec<EventRow>, StoreError> {
    let sql = "SELECT id, org_id, event_type, payment_id, outcome, reason, received, created_at, updated_at \
               FROM payment_events WHERE ($1::text IS NULL OR outcome = $1) \
               AND ($2::text IS NULL OR payment_id = $2) \
               AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4)) \
               ORDER BY created_at DESC, id DESC LIMIT $5";
    let (at, id) = before.unzip();
    Ok(sqlx::query_as(sql)
        .bind(outcome)
        .bind(payment)
        .bind(at)
        .bind(id)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?)
}

/// Removes events that were last heard of before `days`, at most `most`: providers repeat for a few days. Payments
/// stay: that each is booked once does not depend on events.
pub async fn purge(tx: &mut SystemTx, days: i32, most: i64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM payment_events WHERE id IN (SELECT id FROM payment_events \
               WHERE updated_at < now() - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)";
    Ok(sqlx::query(sql).bind(days).bind(most).execute(tx.conn()).await?.rows_affected())
}
