//! Deliveries of events to endpoints: made with the event, claimed by whoever delivers, ended or put off.
//!
//! A claim is a lease: the attempt counts and the next one is put off before anything is sent, so two replicas don't send
//! the same delivery at the same time, and one whose process died comes again. So a receiver may see an event more than
//! once, always with the same `webhook-id`.

use sqlx::{FromRow, PgConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::super::{Listed, Page, StoreError, SystemTx, TenantTx};

/// At most so many of one endpoint are claimed at once: a slow one must not take the places of all others.
const PER_WEBHOOK: i64 = 4;

macro_rules! columns {
    () => {
        "d.id, d.org_id, d.webhook_id, d.event_id, e.event_type, d.state, d.attempts, d.next_attempt_at, \
         d.last_status, d.last_error, d.created_at, d.ended_at, e.body"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct DeliveryRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub webhook_id: Uuid,
    pub event_id: Uuid,
    pub event_type: String,
    /// pending, delivered, failed.
    pub state: String,
    pub attempts: i32,
    /// Of a pending one.
    pub next_attempt_at: OffsetDateTime,
    pub last_status: Option<i32>,
    pub last_error: String,
    pub created_at: OffsetDateTime,
    pub ended_at: Option<OffsetDateTime>,
    /// Empty when it is no longer kept.
    pub body: String,
}

/// What is to be sent now.
#[derive(Clone, Debug, FromRow)]
pub struct Claimed {
    pub id: Uuid,
    pub org_id: Uuid,
    pub webhook_id: Uuid,
    pub event_id: Uuid,
    /// This one included.
    pub attempts: i32,
    /// Until when nobody else takes it; also tells this claim from any other.
    pub next_attempt_at: OffsetDateTime,
    pub give_up_at: OffsetDateTime,
    pub url: String,
    pub sealed: Vec<u8>,
    /// While it is still signed with.
    pub previous_sealed: Option<Vec<u8>>,
    pub body: String,
}

/// Ids in the order of `webhooks`.
pub(in crate::store) async fn insert(
    connection: &mut PgConnection,
    org: Uuid,
    event: Uuid,
    webhooks: &[Uuid],
) -> Result<Vec<Uuid>, StoreError> {
    if webhooks.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = webhooks.iter().map(|_| Uuid::now_v7()).collect();
    let sql = "INSERT INTO webhook_deliveries (id, org_id, webhook_id, event_id) \
               SELECT id, $3, webhook, $4 FROM UNNEST ($1::uuid[], $2::uuid[]) AS new (id, webhook)";
    sqlx::query(sql).bind(&ids).bind(webhooks).bind(org).bind(event).execute(connection).await?;
    Ok(ids)
}

/// Takes what is due, at most `most`, and puts its next attempt off for `lease`.
pub async fn claim(tx: &mut SystemTx, most: i64, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
    // Those of switched-off endpoints wait: they are neither lost nor sent.
    let sql = "WITH due AS MATERIALIZED ( \
                   SELECT d.id, row_number() OVER (PARTITION BY d.webhook_id ORDER BY d.next_attempt_at) AS place, \
                          d.next_attempt_at \
                   FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id \
                   WHERE d.state = 'pending' AND d.next_attempt_at <= now() AND NOT w.disabled \
               ), taken AS MATERIALIZED ( \
                   SELECT d.id FROM webhook_deliveries d \
                   WHERE d.id IN (SELECT id FROM due WHERE place <= $3 ORDER BY next_attempt_at LIMIT $1) \
                   AND d.state = 'pending' AND d.next_attempt_at <= now() FOR UPDATE SKIP LOCKED \
               ) UPDATE webhook_deliveries d SET attempts = attempts + 1, next_attempt_at = now() + $2 \
               FROM taken, webhooks w, webhook_events e \
               WHERE d.id = taken.id AND w.id = d.webhook_id AND e.id = d.event_id \
               RETURNING d.id, d.org_id, d.webhook_id, d.event_id, d.attempts, d.next_attempt_at, d.give_up_at, w.url, w.sealed, \
                         CASE WHEN w.previous_until > now() THEN w.previous_sealed END AS previous_sealed, e.body";
    let lease = std::time::Duration::try_from(lease).unwrap_or_default();
    Ok(sqlx::query_as(sql).bind(most).bind(lease).bind(PER_WEBHOOK).fetch_all(tx.conn()).await?)
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    pub status: Option<u16>,
    /// Empty after a success.
    pub error: &'a str,
    /// When to try again; `None`: it is over.
    pub again_in: Option<std::time::Duration>,
}

/// Writes down how an attempt went. Has no effect on what was ended or redelivered meanwhile.
pub async fn finish(tx: &mut SystemTx, claimed: &Claimed, attempt: &Attempt<'_>) -> Result<(), StoreError> {
    let state = match (attempt.error, attempt.again_in) {
        ("", _) => "delivered",
        (_, Some(_)) => "pending",
        (_, None) => "failed",
    };
    let sql = "UPDATE webhook_deliveries SET state = $3, last_status = $4, last_error = $5, \
               next_attempt_at = now() + coalesce($6, interval '0'), \
               ended_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END \
               WHERE id = $1 AND next_attempt_at = $2 AND state = 'pending'";
    sqlx::query(sql)
        .bind(claimed.id)
        .bind(claimed.next_attempt_at)
        .bind(state)
        .bind(attempt.status.map(i32::from))
        .bind(attempt.error)
        .bind(attempt.again_in)
        .execute(tx.conn())
        .await?;
    Ok(())
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM webhook_deliveries d JOIN webhook_events e ON e.id = d.event_id WHERE d.id = $1"
    );
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Newest first. `page.after` is the id of the last of the page before.
pub async fn list(
    tx: &mut TenantTx,
    webhook: Option<Uuid>,
    state: Option<&str>,
    event_type: Option<&str>,
    page: Page,
) -> Result<Listed<DeliveryRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM webhook_deliveries d JOIN webhook_events e ON e.id = d.event_id \
         WHERE d.org_id = $1 AND ($2::uuid IS NULL OR d.id < $2) AND ($4::uuid IS NULL OR d.webhook_id = $4) \
         AND ($5::text IS NULL OR d.state = $5) AND ($6::text IS NULL OR e.event_type = $6) \
         ORDER BY d.id DESC LIMIT $3"
    );
    let org = tx.org().0;
    let rows = sqlx::query_as(sql)
        .bind(org)
        .bind(page.after)
        .bind(page.limit())
        .bind(webhook)
        .bind(state)
        .bind(event_type)
        .fetch_all(tx.conn())
        .await?;
    Ok(Listed::new(rows, page, |row: &DeliveryRow| row.id))
}

/// Begins again, whatever it came to: at once, and for another 24 hours.
pub async fn redeliver(tx: &mut TenantTx, id: Uuid) -> Result<Option<DeliveryRow>, StoreError> {
    let sql = "UPDATE webhook_deliveries SET state = 'pending', next_attempt_at = now(), ended_at = NULL, \
               attempts = 0, give_up_at = now() + interval '24 hours' WHERE id = $1";
    if sqlx::query(sql).bind(id).execute(tx.conn()).await?.rows_affected() == 0 {
        return Ok(None);
    }
    get(tx, id).await
}

/// Removes deliveries that ended before `days` and the bodies of events as old, at most `most` of each. Events
/// themselves stay for `dedupe_days`: their keys say what was told already. Returns how many rows that were.
pub async fn purge(tx: &mut SystemTx, days: i32, dedupe_days: i32, most: i64) -> Result<u64, StoreError> {
    // Of endpoints that are switched off, which are not claimed.
    let overdue = "UPDATE webhook_deliveries SET state = 'failed', ended_at = now(), \
                   last_error = 'not delivered within 24 hours' WHERE id IN (SELECT id FROM webhook_deliveries \
                   WHERE state = 'pending' AND give_up_at < now() - interval '1 hour' \
                   LIMIT $1 FOR UPDATE SKIP LOCKED)";
    let mut removed = sqlx::query(overdue).bind(most).execute(tx.conn()).await?.rows_affected();
    let ended = "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries \
                 WHERE ended_at < now() - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let bodies = "UPDATE webhook_events SET body = '' WHERE id IN (SELECT id FROM webhook_events e \
                  WHERE created_at < now() - make_interval(days => $1) AND body <> '' \
                  AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.event_id = e.id) \
                  LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let events = "DELETE FROM webhook_events WHERE id IN (SELECT id FROM webhook_events e \
                  WHERE created_at < now() - make_interval(days => $1) \
                  AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.event_id = e.id) \
                  LIMIT $2 FOR UPDATE SKIP LOCKED)";
    for (sql, days) in [(ended, days), (bodies, days), (events, dedupe_days)] {
        removed += sqlx::query(sql).bind(days).bind(most).execute(tx.conn()).await?.rows_affected();
    }
    Ok(removed)
}
