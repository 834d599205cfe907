//! One request of a key, for the client that made it. Called by `grpc/usage_service.rs`.
//!
//! The answer is the usage event again, as the node had sent it: what the client may see of it is the node's to say.

use nemo_proto::{
    common::{Measure, Usage},
    usage::{CostSource, Outcome, UsageEvent},
};
use nemo_types::{KeyId, RequestId};
use sqlx::FromRow;
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, TenantTx, units};
use crate::ledger::{Charge, charge};

macro_rules! columns {
    () => {
        "SELECT request_id, org_id, team_id, key_id, deployment_id, started_at, endpoint, requested_model, model, \
         provider, upstream_model, stream, outcome, http_status, error_code, finish_reason, input_tokens, \
         output_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens, reasoning_tokens, \
         audio_input_tokens, audio_output_tokens, usage_estimated, cost_nanos, cost_source, price_id, attempts, \
         strategy, config_revision, total_us, upstream_us, first_byte_us, overhead_us, request_bytes, \
         response_bytes, client_request_id, metadata, units, decision, charges, service_tier FROM request_log "
    };
}

#[derive(FromRow)]
struct LoggedRow {
    request_id: Uuid,
    org_id: Uuid,
    team_id: Uuid,
    key_id: Uuid,
    deployment_id: Option<Uuid>,
    started_at: OffsetDateTime,
    endpoint: String,
    requested_model: String,
    model: String,
    provider: String,
    upstream_model: String,
    stream: bool,
    outcome: String,
    http_status: i32,
    error_code: String,
    finish_reason: String,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_tokens: Option<i64>,
    cache_write_tokens: Option<i64>,
    cache_write_1h_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    audio_input_tokens: Option<i64>,
    audio_output_tokens: Option<i64>,
    usage_estimated: bool,
    cost_nanos: Option<i64>,
    cost_source: String,
    price_id: String,
    attempts: i32,
    strategy: String,
    config_revision: i64,
    total_us: i64,
    upstream_us: i64,
    first_byte_us: Option<i64>,
    overhead_us: i64,
    request_bytes: i64,
    response_bytes: i64,
    client_request_id: String,
    metadata: String,
    units: Option<String>,
    decision: Option<Vec<u8>>,
    charges: Option<String>,
    service_tier: String,
}

/// Partitions that a search by the client's own id looks into: it is asked for what was just done.
const CLIENT_ID_DAYS: Duration = Duration::days(7);

/// The request of the key with this id; without one the newest with this id from the client, of the last week.
///
/// # Errors
/// When the database can't be read.
pub async fn of_key(
    tx: &mut TenantTx,
    key: KeyId,
    request: Option<RequestId>,
    client_request_id: &str,
    now: OffsetDateTime,
) -> Result<Option<UsageEvent>, StoreError> {
    if let Some((request, day)) = request.and_then(|id| Some((id, day_of(id)?))) {
        let sql = concat!(columns!(), "WHERE event_day = $1 AND request_id = $2 AND key_id = $3");
        let row: Option<LoggedRow> =
            sqlx::query_as(sql).bind(day).bind(request.0).bind(key.0).fetch_optional(tx.conn()).await?;
        if row.is_some() {
            return Ok(row.map(Into::into));
        }
    }
    if client_request_id.is_empty() {
        return Ok(None);
    }
    let org = tx.org();
    let sql = concat!(
        columns!(),
        "WHERE org_id = $1 AND client_request_id <> '' AND client_request_id = $2 AND key_id = $3 AND event_day >= $4 \
         ORDER BY started_at DESC, request_id DESC LIMIT 1"
    );
    let row: Option<LoggedRow> = sqlx::query_as(sql)
        .bind(org.0)
        .bind(client_request_id)
        .bind(key.0)
        .bind((now - CLIENT_ID_DAYS).date())
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.map(Into::into))
}

fn day_of(id: RequestId) -> Option<Date> {
    let nanos = i128::from(id.unix_ms()) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    (id.0.get_version_num() == 7).then(|| at.date())
}

impl From<LoggedRow> for UsageEvent {
    fn from(row: LoggedRow) -> Self {
        let id = |id: Uuid| id.as_bytes().to_vec().into();
        let usage = row.usage();
        let (outcome, cost_source) = (outcome(&row.outcome), cost_source(&row.cost_source));
        Self {
            request_id: id(row.request_id),
            org_id: id(row.org_id),
            team_id: id(row.team_id),
            key_id: id(row.key_id),
            deployment_id: row.deployment_id.map(id).unwrap_or_default(),
            endpoint: row.endpoint,
            requested_model: row.requested_model,
            model: row.model,
            provider: row.provider,
            upstream_model: row.upstream_model,
            stream: row.stream,
            outcome: outcome.into(),
            http_status: row.http_status.max(0).unsigned_abs(),
            error_code: row.error_code,
            finish_reason: row.finish_reason,
            usage: Some(usage).filter(|usage| *usage != Usage::default()),
            usage_estimated: row.usage_estimated,
            cost_nanos: row.cost_nanos,
            cost_source: cost_source.into(),
            price_id: row.price_id,
            attempts: row.attempts.max(0).unsigned_abs(),
            strategy: row.strategy,
            config_revision: count(row.config_revision),
            started_unix_us: i64::try_from(row.started_at.unix_timestamp_nanos() / 1000).unwrap_or_default(),
            total_us: count(row.total_us),
            upstream_us: count(row.upstream_us),
            first_byte_us: row.first_byte_us.map(count),
            overhead_us: count(row.overhead_us),
            request_bytes: count(row.request_bytes),
            response_bytes: count(row.response_bytes),
            client_request_id: row.client_request_id,
            metadata: row.metadata,
            units: units::measures(row.units.as_deref())
                .into_iter()
                .map(|it| Measure {
                    unit: it.unit,
                    quantity: it.quantity,
                    quality: it.quality,
                    size: it.size,
                })
                .collect(),
            decision: row.decision.unwrap_or_default().into(),
            charges: charge::from_column(row.charges.as_deref()).into_iter().map(Charge::to_event).collect(),
            service_tier: row.service_tier,
        }
    }
}

impl LoggedRow {
    fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens.map(count),
            output_tokens: self.output_tokens.map(count),
            cache_read_tokens: self.cache_read_tokens.map(count),
            cache_write_tokens: self.cache_write_tokens.map(count),
            reasoning_tokens: self.reasoning_tokens.map(count),
            audio_input_tokens: self.audio_input_tokens.map(count),
            audio_output_tokens: self.audio_output_tokens.map(count),
            cache_write_1h_tokens: self.cache_write_1h_tokens.map(count),
        }
    }
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn outcome(name: &str) -> Outcome {
    match name {
        "ok" => Outcome::Ok,
        "cancelled" => Outcome::Cancelled,
        "interrupted" => Outcome::Interrupted,
        "lost" => Outcome::Lost,
        _ => Outcome::Error,
    }
}

fn cost_source(name: &str) -> CostSource {
    match name {
        "provider" => CostSource::Provider,
        "priced" => CostSource::Priced,
        "estimated" => CostSource::Estimated,
        _ => CostSource::Unspecified,
    }
}
