//! Reading the request log. Written by [`super::usage_ingest`]; append-only.

use nemo_types::RequestId;
use sqlx::FromRow;
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, TenantTx};

macro_rules! columns {
    () => {
        "request_id, org_id, team_id, key_id, deployment_id, started_at, endpoint, requested_model, model, provider, \
         upstream_model, stream, outcome, http_status, error_code, finish_reason, input_tokens, output_tokens, \
         cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_estimated, cost_nanos, cost_source, price_id, \
         attempts, strategy, config_revision, total_us, upstream_us, first_byte_us, overhead_us, request_bytes, \
         response_bytes, client_request_id, metadata, node_id"
    };
}

/// One request, as it was billed and logged.
#[derive(Clone, Debug, FromRow)]
pub struct RequestRow {
    pub request_id: Uuid,
    pub org_id: Uuid,
    pub team_id: Uuid,
    pub key_id: Uuid,
    pub deployment_id: Option<Uuid>,
    pub started_at: OffsetDateTime,
    pub endpoint: String,
    pub requested_model: String,
    pub model: String,
    pub provider: String,
    pub upstream_model: String,
    pub stream: bool,
    pub outcome: String,
    pub http_status: i32,
    pub error_code: String,
    pub finish_reason: String,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cache_read_tokens: Option<i64>,
    pub cache_write_tokens: Option<i64>,
    pub reasoning_tokens: Option<i64>,
    pub usage_estimated: bool,
    pub cost_nanos: Option<i64>,
    pub cost_source: String,
    pub price_id: String,
    pub attempts: i32,
    pub strategy: String,
    pub config_revision: i64,
    pub total_us: i64,
    pub upstream_us: i64,
    pub first_byte_us: Option<i64>,
    pub overhead_us: i64,
    pub request_bytes: i64,
    pub response_bytes: i64,
    pub client_request_id: String,
    pub metadata: String,
    pub node_id: String,
}

/// Which requests of the organization; `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub key: Option<Uuid>,
    /// As it was asked for, or as it was resolved.
    pub model: Option<String>,
    pub outcome: Option<String>,
    /// Started then or later.
    pub after: Option<OffsetDateTime>,
    /// Started earlier than then.
    pub before: Option<OffsetDateTime>,
}

/// Where a page of the newest-first list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub started_at: OffsetDateTime,
    pub request_id: Uuid,
}

pub async fn get(tx: &mut TenantTx, id: RequestId) -> Result<Option<RequestRow>, StoreError> {
    let Some(day) = day_of(id) else { return Ok(None) };
    let sql = concat!("SELECT ", columns!(), " FROM request_log WHERE event_day = $1 AND request_id = $2");
    Ok(sqlx::query_as(sql).bind(day).bind(id.0).fetch_optional(tx.conn()).await?)
}

/// Newest first, at most `limit` rows after `position`.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    position: Option<Position>,
    limit: i64,
) -> Result<Vec<RequestRow>, StoreError> {
    // The day is that of the id, made a moment before or after the start; bounds on it spare whole partitions.
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM request_log WHERE org_id = $1 AND ($2::uuid IS NULL OR key_id = $2) \
         AND ($3::text IS NULL OR model = $3 OR requested_model = $3) AND ($4::text IS NULL OR outcome = $4) \
         AND ($5::timestamptz IS NULL OR started_at >= $5) AND ($6::timestamptz IS NULL OR started_at < $6) \
         AND event_day BETWEEN $7 AND $8 \
         AND ($9::timestamptz IS NULL OR (started_at, request_id) < ($9, $10)) \
         ORDER BY started_at DESC, request_id DESC LIMIT $11"
    );
    let before = [filter.before, position.map(|position| position.started_at)].into_iter().flatten().min();
    let first = filter.after.map_or(FIRST_DAY, |at| at.date().saturating_sub(Duration::DAY)).max(FIRST_DAY);
    let last = before.map_or(LAST_DAY, |at| at.date().saturating_add(Duration::DAY)).min(LAST_DAY);
    Ok(sqlx::query_as(sql)
        .bind(tx.org().0)
        .bind(filter.key)
        .bind(&filter.model)
        .bind(&filter.outcome)
        .bind(filter.after)
        .bind(filter.before)
        .bind(first)
        .bind(last)
        .bind(position.map(|position| position.started_at))
        .bind(position.map(|position| position.request_id))
        .bind(limit)
        .fetch_all(tx.conn())
        .await?)
}

/// Bounds that PostgreSQL and `time` both can express.
const FIRST_DAY: Date = time::macros::date!(1970 - 01 - 01);
const LAST_DAY: Date = time::macros::date!(9999 - 12 - 31);

/// The day whose partition holds the row of this request.
fn day_of(id: RequestId) -> Option<Date> {
    let nanos = i128::from(id.unix_ms()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().map(OffsetDateTime::date)
}
