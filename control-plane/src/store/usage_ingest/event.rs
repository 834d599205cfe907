//! One usage event as a row: checked where it must be, made to fit where it can be. Pure.

use nemo_proto::usage::{CostSource, Outcome, UsageEvent};
use nemo_types::{DeploymentId, KeyId, OrgId, RequestId, TeamId};
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use super::Unlogged;
use crate::{
    ledger::{Charge, charge},
    store::units,
};

/// Older events are not logged: their partition may be gone. Their money is settled all the same.
const MAX_AGE: Duration = Duration::days(30);
/// How far a node's clock may be ahead. Events that are further are not logged, but settled.
const MAX_AHEAD: Duration = Duration::days(1);
/// Days that an accepted event can have.
pub(super) const MAX_DAYS: usize = 33;

const MAX_NAME: usize = 64;
const MAX_MODEL: usize = 256;
const MAX_METADATA: usize = 4096;
/// Nodes keep theirs far below.
const MAX_DECISION: usize = 64 * 1024;

/// Why an event can't be a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    #[error("request_id is no UUIDv7")]
    RequestId,
    #[error("{0} is no id")]
    Id(&'static str),
}

/// A row of the request log.
#[derive(Clone, Debug)]
pub struct Row {
    pub event_day: Date,
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
    pub outcome: &'static str,
    pub http_status: i32,
    pub error_code: String,
    pub finish_reason: String,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cache_read_tokens: Option<i64>,
    pub cache_write_tokens: Option<i64>,
    pub reasoning_tokens: Option<i64>,
    pub audio_input_tokens: Option<i64>,
    pub audio_output_tokens: Option<i64>,
    pub usage_estimated: bool,
    pub cost_nanos: Option<i64>,
    pub cost_source: &'static str,
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
    pub units: Option<String>,
    /// As the node encoded it; `None`: refused before it was routed.
    pub decision: Option<Vec<u8>>,
    /// The column of `charged`.
    pub charges: Option<String>,
    pub service_tier: String,
    pub cache_write_1h_tokens: Option<i64>,
    /// What is to be settled once the row is in.
    pub charged: Vec<Charge>,
    /// Charges that no node sends; they are settled nowhere.
    pub malformed_charges: usize,
    /// Why it is never logged, if it isn't.
    pub unlogged: Option<Unlogged>,
    /// Place in the node's journal; zero: not known.
    pub seq: u64,
}

pub(super) fn row(event: UsageEvent, node_id: &str, now: OffsetDateTime) -> Result<Row, Malformed> {
    let (outcome, cost_source) = (event.outcome(), event.cost_source());
    let (request_id, created_at, unlogged) = request_id(&event.request_id, now)?;
    let deployment_id = match event.deployment_id.is_empty() {
        true => None,
        false => {
            Some(DeploymentId::from_bytes(&event.deployment_id).ok_or(Malformed::Id("deployment_id"))?.0)
        }
    };
    let usage = event.usage.unwrap_or_default();
    let charged: Vec<Charge> = event.charges.iter().filter_map(Charge::from_event).collect();
    // Unknown stays unknown; a negative cost is no cost.
    let cost_nanos = event.cost_nanos.filter(|cost| *cost >= 0);
    Ok(Row {
        event_day: created_at.date(),
        request_id,
        org_id: OrgId::from_bytes(&event.org_id).ok_or(Malformed::Id("org_id"))?.0,
        team_id: TeamId::from_bytes(&event.team_id).ok_or(Malformed::Id("team_id"))?.0,
        key_id: KeyId::from_bytes(&event.key_id).ok_or(Malformed::Id("key_id"))?.0,
        deployment_id,
        started_at: started_at(event.started_unix_us, created_at),
        endpoint: text(event.endpoint, MAX_NAME),
        requested_model: text(event.requested_model, MAX_MODEL),
        model: text(event.model, MAX_MODEL),
        provider: text(event.provider, MAX_NAME),
        upstream_model: text(event.upstream_model, MAX_MODEL),
        stream: event.stream,
        outcome: outcome_name(outcome),
        http_status: i32::try_from(event.http_status).unwrap_or(i32::MAX),
        error_code: text(event.error_code, MAX_NAME),
        finish_reason: text(event.finish_reason, MAX_NAME),
        input_tokens: usage.input_tokens.map(count),
        output_tokens: usage.output_tokens.map(count),
        cache_read_tokens: usage.cache_read_tokens.map(count),
        cache_write_tokens: usage.cache_write_tokens.map(count),
        reasoning_tokens: usage.reasoning_tokens.map(count),
        audio_input_tokens: usage.audio_input_tokens.map(count),
        audio_output_tokens: usage.audio_output_tokens.map(count),
        usage_estimated: event.usage_estimated,
        cost_nanos,
        cost_source: cost_nanos.map_or("", |_| cost_source_name(cost_source)),
        price_id: text(event.price_id, MAX_MODEL),
        attempts: i32::try_from(event.attempts).unwrap_or(i32::MAX),
        strategy: text(event.strategy, MAX_NAME),
        config_revision: count(event.config_revision),
        total_us: count(event.total_us),
        upstream_us: count(event.upstream_us),
        first_byte_us: event.first_byte_us.map(count),
        overhead_us: count(event.overhead_us),
        request_bytes: count(event.request_bytes),
        response_bytes: count(event.response_bytes),
        client_request_id: text(event.client_request_id, MAX_MODEL),
        metadata: metadata(event.metadata),
        node_id: node_id.to_owned(),
        units: units::measures_to_column(event.units),
        decision: Some(event.decision.into())
            .filter(|it: &Vec<u8>| !it.is_empty() && it.len() <= MAX_DECISION),
        charges: charge::to_column(&charged),
        service_tier: text(event.service_tier, MAX_NAME),
        cache_write_1h_tokens: usage.cache_write_1h_tokens.map(count),
        malformed_charges: event.charges.len() - charged.len(),
        charged,
        unlogged,
        seq: 0,
    })
}

/// The id, the time it was made, and why its request is not logged, if that is known by its time.
fn request_id(
    bytes: &[u8],
    now: OffsetDateTime,
) -> Result<(Uuid, OffsetDateTime, Option<Unlogged>), Malformed> {
    let id =
        RequestId::from_bytes(bytes).filter(|id| id.0.get_version_num() == 7).ok_or(Malformed::RequestId)?;
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(id.unix_ms()) * 1_000_000);
    Ok(match created_at {
        Ok(at) if at < now - MAX_AGE => (id.0, at, Some(Unlogged::Expired)),
        Ok(at) if at <= now + MAX_AHEAD => (id.0, at, None),
        // Also after the year 9999. The node's clock is wrong, so what it spent it spent lately.
        Ok(_) | Err(_) => (id.0, now, Some(Unlogged::Ahead)),
    })
}

/// The node's own start time, unless it contradicts the request id, which was made at the same moment.
fn started_at(unix_us: i64, created_at: OffsetDateTime) -> OffsetDateTime {
    let told = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1000);
    told.ok().filter(|told| (*told - created_at).abs() < Duration::DAY).unwrap_or(created_at)
}

/// Without NUL, which Postgres can't store in text, and within `max` bytes.
fn text(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Empty unless it is a JSON object within its bound.
fn metadata(metadata: String) -> String {
    let is_object = metadata.len() <= MAX_METADATA
        && metadata.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(&metadata).is_ok();
    if is_object { metadata } else { String::new() }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        // One that this build does not know is surely no success.
        Outcome::Error | Outcome::Unspecified => "error",
        Outcome::Cancelled => "cancelled",
        Outcome::Interrupted => "interrupted",
        Outcome::Lost => "lost",
    }
}

fn cost_source_name(source: CostSource) -> &'static str {
    match source {
        CostSource::Unspecified => "",
        CostSource::Provider => "provider",
        CostSource::Priced => "priced",
        CostSource::Estimated => "estimated",
    }
}

#[cfg(test)]
mod tests;
