//! Reading the request log for a replay: oldest first, with the record of each decision. Called by
//! `admin/ops/decisions.rs`.
//!
//! By day and request id, which is how the rows are filed: request ids are made in the order of time.

use nemo_types::OrgId;
use sqlx::FromRow;
use time::{Date, OffsetDateTime};
use uuid::{NoContext, Timestamp, Uuid};

use super::{StoreError, SystemTx};

/// What is counted for a progress bar, at most.
const COUNTED: i64 = 1_000_000;

/// A request with what a replay needs.
#[derive(Clone, Debug, FromRow)]
pub struct DecisionRow {
    pub event_day: Date,
    pub request_id: Uuid,
    pub org_id: Uuid,
    pub deployment_id: Option<Uuid>,
    pub started_at: OffsetDateTime,
    pub endpoint: String,
    pub requested_model: String,
    pub outcome: String,
    pub http_status: i32,
    pub error_code: String,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cache_read_tokens: Option<i64>,
    pub cache_write_tokens: Option<i64>,
    pub cost_nanos: Option<i64>,
    pub cost_source: String,
    pub config_revision: i64,
    pub units: Option<String>,
    pub decision: Option<Vec<u8>>,
}

/// From when to when, and of whom.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// `None`: of all organizations.
    pub org: Option<OrgId>,
    pub after: Option<OffsetDateTime>,
    pub before: Option<OffsetDateTime>,
}

impl Span {
    /// The smallest ids that are in it and beyond it.
    fn ids(self) -> (Uuid, Uuid) {
        (self.after.map_or(Uuid::nil(), first_id), self.before.map_or(Uuid::max(), first_id))
    }

    fn days(self) -> (Date, Date) {
        let first = self.after.map_or(time::macros::date!(1970 - 01 - 01), OffsetDateTime::date);
        (first, self.before.map_or(time::macros::date!(9999 - 12 - 31), OffsetDateTime::date))
    }
}

/// The smallest request id of that millisecond.
fn first_id(at: OffsetDateTime) -> Uuid {
    let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let nanos = u32::try_from(millis % 1000 * 1_000_000).unwrap_or_default();
    let mut bytes = *Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, nanos)).as_bytes();
    bytes[6..].fill(0);
    Uuid::from_bytes(bytes)
}

macro_rules! in_span {
    () => {
        "request_log WHERE event_day BETWEEN $1 AND $2 AND request_id >= $3 AND request_id < $4 \
         AND ($5::uuid IS NULL OR org_id = $5)"
    };
}

/// Oldest first, at most `limit` rows after `position`.
///
/// # Errors
/// When the database can't be read.
pub async fn list(
    tx: &mut SystemTx,
    span: Span,
    position: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DecisionRow>, StoreError> {
    let ((from, to), (first, end)) = (span.days(), span.ids());
    // The day of a row is that of its id.
    let from = position.map_or(from, |id| from.max(day(id)));
    let sql = concat!(
        "SELECT event_day, request_id, org_id, deployment_id, started_at, endpoint, requested_model, outcome, \
                http_status, error_code, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, \
                cost_nanos, cost_source, config_revision, units, decision \
         FROM ",
        in_span!(),
        " AND ($6::uuid IS NULL OR request_id > $6) ORDER BY event_day, request_id LIMIT $7"
    );
    let rows = sqlx::query_as(sql)
        .bind(from)
        .bind(to)
        .bind(first)
        .bind(end)
        .bind(span.org.map(|org| org.0))
        .bind(position)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows)
}

/// How many there are, at most a million.
///
/// # Errors
/// When the database can't be read.
pub async fn count(tx: &mut SystemTx, span: Span) -> Result<u64, StoreError> {
    let ((from, to), (first, end)) = (span.days(), span.ids());
    let sql = concat!("SELECT count(*) FROM (SELECT FROM ", in_span!(), " LIMIT $6) AS counted");
    let count: i64 = sqlx::query_scalar(sql)
        .bind(from)
        .bind(to)
        .bind(first)
        .bind(end)
        .bind(span.org.map(|org| org.0))
        .bind(COUNTED)
        .fetch_one(tx.conn())
        .await?;
    Ok(count.unsigned_abs())
}

fn day(id: Uuid) -> Date {
    let nanos = i128::from(nemo_types::RequestId(id).unix_ms()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .map_or(time::macros::date!(1970 - 01 - 01), OffsetDateTime::date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_moment_is_below_every_id_made_in_it() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_123_456_789).unwrap();
        let first = first_id(at);
        let made = nemo_types::RequestId::at(1_790_000_000_123_000).0;
        let before = nemo_types::RequestId::at(1_790_000_000_122_999).0;
        assert!(before < first && first <= made, "{before} {first} {made}");
        assert_eq!(day(first), at.date());
    }
}
