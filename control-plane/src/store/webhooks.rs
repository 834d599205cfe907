//! Webhooks: endpoints of organizations, events that they are told of, and the deliveries of each.
//!
//! [`enqueue`] is called by whoever makes something happen that organizations want to know (thresholds of budgets,
//! credits), in the same transaction: the event is there exactly when what it tells is. Endpoints are managed by
//! `admin/ops/webhooks.rs`; [`deliveries`] are worked off by `webhooks/job.rs`.

pub mod deliveries;

use nemo_proto::Timestamp;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, TenantTx, WriteTx,
    page::{page_of, page_query},
    tx::Inside,
};

/// Tells every endpoint of the organization that wants events of this type, exactly once for each `dedupe_key` (at most
/// 200 bytes; the type is part of it by custom, such as `budget.threshold:<budget>:<window>:80`). `data` is what the
/// receiver finds under that name. False: there is such an event already, and nothing was added.
///
/// # Errors
/// When the database can't be written.
pub async fn enqueue<T: WriteTx>(
    tx: &mut T,
    org: Uuid,
    event_type: &str,
    dedupe_key: &str,
    data: &Value,
) -> Result<bool, StoreError> {
    enqueue_on(tx.connection(Inside(())), org, event_type, dedupe_key, data).await
}

/// [`enqueue`] for other modules of the store, which hold a connection.
pub(in crate::store) async fn enqueue_on(
    connection: &mut PgConnection,
    org: Uuid,
    event_type: &str,
    dedupe_key: &str,
    data: &Value,
) -> Result<bool, StoreError> {
    let Some(event) = add_event(connection, org, event_type, dedupe_key, data).await? else {
        return Ok(false);
    };
    // Ids of deliveries sort by time, like all others: made here, not by the database.
    let wanting: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM webhooks WHERE org_id = $1 AND NOT disabled \
         AND (event_types = '{}' OR $2 = ANY (event_types)) ORDER BY id",
    )
    .bind(org)
    .bind(event_type)
    .fetch_all(&mut *connection)
    .await?;
    deliveries::insert(connection, org, event, &wanting).await?;
    Ok(true)
}

/// The new event's id; `None` when there is one of this key.
async fn add_event(
    connection: &mut PgConnection,
    org: Uuid,
    event_type: &str,
    dedupe_key: &str,
    data: &Value,
) -> Result<Option<Uuid>, StoreError> {
    let micros = i128::from(nemo_runtime::clock::unix_us());
    let now = OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let body = json!({ "type": event_type, "timestamp": Timestamp::from(now), "data": data }).to_string();
    let sql = "INSERT INTO webhook_events (id, org_id, event_type, dedupe_key, body) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT ON CONSTRAINT webhook_events_once DO NOTHING RETURNING id";
    Ok(sqlx::query_scalar(sql)
        .bind(Uuid::now_v7())
        .bind(org)
        .bind(event_type)
        .bind(dedupe_key)
        .bind(body)
        .fetch_optional(connection)
        .await?)
}

macro_rules! columns {
    () => {
        "id, org_id, name, url, event_types, disabled, created_at, previous_until"
    };
}

/// An endpoint, without its secret.
#[derive(Clone, Debug, FromRow)]
pub struct WebhookRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub name: String,
    pub url: String,
    /// Empty: all.
    pub event_types: Vec<String>,
    pub disabled: bool,
    pub created_at: OffsetDateTime,
    /// Until then the secret before the last rotation is signed with as well.
    pub previous_until: Option<OffsetDateTime>,
}

pub struct NewWebhook<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub url: &'a str,
    pub event_types: &'a [String],
    pub sealed: &'a [u8],
}

/// What is `Some` changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebhookChange<'a> {
    pub name: Option<&'a str>,
    pub url: Option<&'a str>,
    pub event_types: Option<&'a [String]>,
    pub disabled: Option<bool>,
}

pub async fn insert(tx: &mut TenantTx, new: NewWebhook<'_>) -> Result<WebhookRow, StoreError> {
    let sql = concat!(
        "INSERT INTO webhooks (id, org_id, name, url, event_types, sealed) VALUES ($1, $2, $3, $4, $5, $6) RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(new.id)
        .bind(tx.org().0)
        .bind(new.name)
        .bind(new.url)
        .bind(new.event_types)
        .bind(new.sealed)
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<WebhookRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM webhooks WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// How many endpoints the organization has.
pub async fn count(tx: &mut TenantTx) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM webhooks").fetch_one(tx.conn()).await?)
}

pub async fn list(
    tx: &mut TenantTx,
    disabled: Option<bool>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<WebhookRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks",
        page_of!("", "name", "($7::boolean IS NULL OR disabled = $7)")
    );
    let rows = page_query(sql, page, filter).bind(disabled).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &WebhookRow| row.id))
}

pub async fn update(
    tx: &mut TenantTx,
    id: Uuid,
    change: WebhookChange<'_>,
) -> Result<Option<WebhookRow>, StoreError> {
    let sql = concat!(
        "UPDATE webhooks SET name = coalesce($2, name), url = coalesce($3, url), \
         event_types = coalesce($4, event_types), disabled = coalesce($5, disabled) WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(change.name)
        .bind(change.url)
        .bind(change.event_types)
        .bind(change.disabled)
        .fetch_optional(tx.conn())
        .await?)
}

/// Another secret; with `previous_until` the present one goes on until then.
pub async fn rotate(
    tx: &mut TenantTx,
    id: Uuid,
    sealed: &[u8],
    previous_until: Option<OffsetDateTime>,
) -> Result<Option<WebhookRow>, StoreError> {
    let sql = concat!(
        "UPDATE webhooks SET previous_sealed = CASE WHEN $3::timestamptz IS NULL THEN NULL ELSE sealed END, \
         previous_until = $3, sealed = $2 WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(id).bind(sealed).bind(previous_until).fetch_optional(tx.conn()).await?)
}

/// With its deliveries. False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM webhooks WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}

/// An event for one endpoint alone, whatever types it wants: how a receiver is tried out.
pub async fn enqueue_for(
    tx: &mut TenantTx,
    webhook: Uuid,
    event_type: &str,
    dedupe_key: &str,
    data: &Value,
) -> Result<Uuid, StoreError> {
    let org = tx.org().0;
    let event = add_event(tx.conn(), org, event_type, dedupe_key, data).await?;
    let event = event.ok_or_else(|| StoreError::Conflict { constraint: "webhook_events_once".to_owned() })?;
    let ids = deliveries::insert(tx.conn(), org, event, &[webhook]).await?;
    Ok(ids.first().copied().unwrap_or_default())
}
