//! Reading and searching the request log. Written by [`super::usage_ingest`]; append-only. Called by
//! `admin/ops/requests.rs`.
//!
//! Newest first, by keyset, so the last page is as fast as the first. Time, key, model (as resolved and as asked for),
//! client's id and everything that did not go well have an index; other conditions only filter what those find.

use nemo_types::{OrgId, RequestId};
use sqlx::{FromRow, Postgres, QueryBuilder};
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, TenantTx};

macro_rules! columns {
    () => {
        "request_id, org_id, team_id, key_id, deployment_id, started_at, endpoint, requested_model, model, provider, \
         upstream_model, stream, outcome, http_status, error_code, finish_reason, input_tokens, output_tokens, \
         cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_estimated, cost_nanos, cost_source, price_id, \
         attempts, strategy, config_revision, total_us, upstream_us, first_byte_us, overhead_us, request_bytes, \
         response_bytes, client_request_id, metadata, node_id, units, charges, service_tier, cache_write_1h_tokens"
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
    /// As [`super::units`] writes them.
    pub units: Option<String>,
    /// As [`crate::ledger::charge`] writes them.
    pub charges: Option<String>,
    pub service_tier: String,
    pub cache_write_1h_tokens: Option<i64>,
}

/// Statuses that a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    pub first: i32,
    /// Included.
    pub last: i32,
}

/// Which requests of the organization; `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub id: Option<RequestId>,
    pub team: Option<Uuid>,
    pub key: Option<Uuid>,
    pub deployment: Option<Uuid>,
    /// As it was asked for, or as it was resolved.
    pub model: Option<String>,
    pub provider: Option<String>,
    pub endpoint: Option<String>,
    pub outcome: Option<String>,
    pub error_code: Option<String>,
    pub client_request_id: Option<String>,
    pub status: Option<Statuses>,
    /// At least; requests of unknown cost are not found.
    pub min_cost_nanos: Option<i64>,
    /// At least.
    pub min_total_us: Option<i64>,
    /// Started then or later.
    pub after: Option<OffsetDateTime>,
    /// Started earlier than then.
    pub before: Option<OffsetDateTime>,
}

impl Filter {
    /// Whether only requests can be found that did not go well; those have an index of their own.
    fn only_troubled(&self) -> bool {
        self.status.is_some_and(|status| status.first >= 400)
            || self.outcome.as_ref().is_some_and(|outcome| outcome != "ok")
    }
}

/// Where a page of the newest-first list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub started_at: OffsetDateTime,
    pub request_id: Uuid,
}

pub async fn get(tx: &mut TenantTx, id: RequestId) -> Result<Option<RequestRow>, StoreError> {
    let Some(day) = day_of(id) else { return Ok(None) };
    let sql = by_id();
    Ok(sqlx::query_as(sql).bind(day).bind(id.0).fetch_optional(tx.conn()).await?)
}

/// What was decided about a request, as the node encoded it. Lists do without: it is the larger part of a row.
pub async fn decision(tx: &mut TenantTx, id: RequestId) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(day) = day_of(id) else { return Ok(None) };
    let sql = "SELECT decision FROM request_log WHERE event_day = $1 AND request_id = $2";
    Ok(sqlx::query_scalar(sql).bind(day).bind(id.0).fetch_optional(tx.conn()).await?.flatten())
}

/// Only the partition of the id's day is looked at.
pub(super) const fn by_id() -> &'static str {
    concat!("SELECT ", columns!(), " FROM request_log WHERE event_day = $1 AND request_id = $2")
}

/// Newest first, at most `limit` rows after `position`.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    position: Option<Position>,
    limit: i64,
) -> Result<Vec<RequestRow>, StoreError> {
    Ok(search(tx.org(), filter, position, limit).build_query_as().fetch_all(tx.conn()).await?)
}

/// Only fixed words become SQL; whatever a caller sent is a parameter.
pub(super) fn search(
    org: OrgId,
    filter: &Filter,
    position: Option<Position>,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("");
    let branch = |sql: &mut QueryBuilder<Postgres>, model: Option<&str>| {
        sql.push(concat!("(SELECT ", columns!(), " FROM request_log WHERE org_id = ")).push_bind(org.0);
        if let (Some(condition), Some(name)) = (model, &filter.model) {
            sql.push(condition).push_bind(name.clone());
        }
        restrict(sql, filter, position);
        sql.push(" ORDER BY started_at DESC, request_id DESC LIMIT ").push_bind(limit).push(")");
    };
    if filter.model.is_some() {
        // Two searches by an index each; no request is in both.
        branch(&mut sql, Some(" AND model = "));
        sql.push(" UNION ALL ");
        branch(&mut sql, Some(" AND requested_model <> model AND requested_model = "));
        sql.push(" ORDER BY started_at DESC, request_id DESC LIMIT ").push_bind(limit);
    } else {
        branch(&mut sql, None);
    }
    sql
}

fn restrict(sql: &mut QueryBuilder<Postgres>, filter: &Filter, position: Option<Position>) {
    // The day is that of the id, made a moment before or after the start; bounds on it spare whole partitions.
    let before = [filter.before, position.map(|position| position.started_at)].into_iter().flatten().min();
    if let Some(id) = filter.id {
        sql.push(" AND request_id = ").push_bind(id.0);
        sql.push(" AND event_day = ").push_bind(day_of(id).unwrap_or(LAST_DAY));
    }
    if let Some(at) = filter.after {
        sql.push(" AND started_at >= ").push_bind(at);
        sql.push(" AND event_day >= ").push_bind(at.date().saturating_sub(Duration::DAY).max(FIRST_DAY));
    }
    if let Some(at) = filter.before {
        sql.push(" AND started_at < ").push_bind(at);
    }
    if let Some(at) = before {
        sql.push(" AND event_day <= ").push_bind(at.date().saturating_add(Duration::DAY).min(LAST_DAY));
    }
    if let Some(Position { started_at, request_id }) = position {
        sql.push(" AND (started_at, request_id) < (").push_bind(started_at);
        sql.push(", ").push_bind(request_id).push(")");
    }
    let ids = [("team_id", filter.team), ("key_id", filter.key), ("deployment_id", filter.deployment)];
    for (column, id) in ids {
        if let Some(id) = id {
            sql.push(format_args!(" AND {column} = ")).push_bind(id);
        }
    }
    for (column, text) in [
        ("provider", &filter.provider),
        ("endpoint", &filter.endpoint),
        ("outcome", &filter.outcome),
        ("error_code", &filter.error_code),
    ] {
        if let Some(text) = text {
            sql.push(format_args!(" AND {column} = ")).push_bind(text.clone());
        }
    }
    if let Some(id) = &filter.client_request_id {
        sql.push(" AND client_request_id <> '' AND client_request_id = ").push_bind(id.clone());
    }
    if let Some(Statuses { first, last }) = filter.status {
        sql.push(" AND http_status BETWEEN ").push_bind(first).push(" AND ").push_bind(last);
    }
    if filter.only_troubled() {
        // As the index says it, or the planner does not see that it fits.
        sql.push(" AND (http_status >= 400 OR outcome <> 'ok')");
    }
    for (column, least) in [("cost_nanos", filter.min_cost_nanos), ("total_us", filter.min_total_us)] {
        if let Some(least) = least {
            sql.push(format_args!(" AND {column} >= ")).push_bind(least);
        }
    }
}

/// Bounds that PostgreSQL and `time` both can express.
const FIRST_DAY: Date = time::macros::date!(1970 - 01 - 01);
const LAST_DAY: Date = time::macros::date!(9999 - 12 - 31);

/// The day whose partition holds the row of this request.
fn day_of(id: RequestId) -> Option<Date> {
    let nanos = i128::from(id.unix_ms()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().map(OffsetDateTime::date)
}
