//! Sums of usage per hour and day. Added to by [`super::usage_ingest`] in the transaction that inserts the rows of the
//! request log, read by [`super::usage_query`].
//!
//! A batch is summed up in memory first, so it costs one upsert for each distinct key, not for each request. Upserts are
//! sorted by key, hours before days, after the rows of the log: two ingests that meet wait for each other in one order.

pub mod histogram;

use std::{collections::BTreeMap, sync::LazyLock};

use sqlx::PgConnection;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use self::histogram::{BUCKETS, Histogram};
use super::usage_ingest::Row;

macro_rules! measures {
    ($($name:ident,)*) => {
        /// What is summed up; the names are those of the columns.
        #[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
        pub struct Measures {
            $(pub $name: i64,)*
        }

        impl Measures {
            /// Names of the columns.
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];

            fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }

            fn values(&self) -> [i64; Self::NAMES.len()] {
                [$(self.$name,)*]
            }
        }
    };
}

measures! {
    requests,
    errors,
    cancelled,
    interrupted,
    streams,
    estimated,
    unpriced,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_input_tokens,
    audio_output_tokens,
    cost_nanos,
    request_bytes,
    response_bytes,
    total_us,
    first_byte_us,
    lost,
    cache_write_1h_tokens,
}

/// What a sum is for. The order of the members is the order of the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    org_id: Uuid,
    bucket: OffsetDateTime,
    key_id: Uuid,
    team_id: Uuid,
    model: &'a str,
    provider: &'a str,
    endpoint: &'a str,
}

#[derive(Default)]
struct Sum {
    measures: Measures,
    total: Histogram,
    first_byte: Histogram,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.measures.add(&other.measures);
        self.total.add(&other.total);
        self.first_byte.add(&other.first_byte);
    }

    fn record(&mut self, row: &Row) {
        let is = i64::from;
        let or_zero = |value: Option<i64>| value.unwrap_or_default();
        // A request that was refused costs nothing; one that was served and has no price is a gap in the sum.
        let served =
            matches!(row.outcome, "ok" | "lost") || row.input_tokens.is_some() || row.output_tokens.is_some();
        self.measures.add(&Measures {
            requests: 1,
            errors: is(row.outcome == "error"),
            cancelled: is(row.outcome == "cancelled"),
            interrupted: is(row.outcome == "interrupted"),
            streams: is(row.stream),
            estimated: is(row.usage_estimated),
            unpriced: is(served && row.cost_nanos.is_none()),
            input_tokens: or_zero(row.input_tokens),
            output_tokens: or_zero(row.output_tokens),
            cache_read_tokens: or_zero(row.cache_read_tokens),
            cache_write_tokens: or_zero(row.cache_write_tokens),
            reasoning_tokens: or_zero(row.reasoning_tokens),
            audio_input_tokens: or_zero(row.audio_input_tokens),
            audio_output_tokens: or_zero(row.audio_output_tokens),
            cost_nanos: or_zero(row.cost_nanos),
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
            total_us: row.total_us,
            first_byte_us: or_zero(row.first_byte_us),
            lost: is(row.outcome == "lost"),
            cache_write_1h_tokens: or_zero(row.cache_write_1h_tokens),
        });
        self.total.record(row.total_us);
        if let Some(micros) = row.first_byte_us {
            self.first_byte.record(micros);
        }
    }
}

type Sums<'a> = BTreeMap<Key<'a>, Sum>;

/// Adds rows to both rollups. They must have been inserted into the log by the same transaction.
pub(super) async fn add<'a>(
    tx: &mut PgConnection,
    rows: impl IntoIterator<Item = &'a Row>,
) -> Result<(), sqlx::Error> {
    let mut hours = Sums::new();
    for row in rows {
        let key = Key {
            org_id: row.org_id,
            bucket: hour(row.started_at),
            key_id: row.key_id,
            team_id: row.team_id,
            model: &row.model,
            provider: &row.provider,
            endpoint: &row.endpoint,
        };
        hours.entry(key).or_default().record(row);
    }
    if hours.is_empty() {
        return Ok(());
    }
    let mut days = Sums::new();
    for (key, sum) in &hours {
        days.entry(Key { bucket: day(key.bucket), ..*key }).or_default().add(sum);
    }
    upsert(tx, &HOURLY, hours).await?;
    upsert(tx, &DAILY, days).await
}

/// Begin of the hour (UTC).
pub fn hour(at: OffsetDateTime) -> OffsetDateTime {
    let at = at.to_offset(UtcOffset::UTC);
    at.replace_time(time::Time::MIDNIGHT) + time::Duration::hours(at.hour().into())
}

/// Begin of the day (UTC).
pub fn day(at: OffsetDateTime) -> OffsetDateTime {
    at.to_offset(UtcOffset::UTC).replace_time(time::Time::MIDNIGHT)
}

static HOURLY: LazyLock<String> = LazyLock::new(|| upsert_sql("usage_hourly"));
static DAILY: LazyLock<String> = LazyLock::new(|| upsert_sql("usage_daily"));

/// `$1` to `$7` are the columns of the key, then come the measures, then the histograms as array literals: PostgreSQL
/// would flatten an array of arrays.
fn upsert_sql(table: &str) -> String {
    let measures = Measures::NAMES;
    let columns = measures.join(", ");
    let parameters: Vec<_> = (0..measures.len()).map(|at| format!("${}::bigint[]", at + 8)).collect();
    let sums: Vec<_> =
        measures.iter().map(|name| format!("{name} = nemo_add(t.{name}, EXCLUDED.{name})")).collect();
    let (total, first_byte) = (measures.len() + 8, measures.len() + 9);
    format!(
        "INSERT INTO {table} AS t (org_id, bucket, key_id, team_id, model, provider, endpoint, {columns}, \
         total_histogram, first_byte_histogram) \
         SELECT org_id, bucket, key_id, team_id, model, provider, endpoint, {columns}, total::int[], first_byte::int[] \
         FROM UNNEST ($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], \
         {}, ${total}::text[], ${first_byte}::text[]) \
         AS new (org_id, bucket, key_id, team_id, model, provider, endpoint, {columns}, total, first_byte) \
         ON CONFLICT (org_id, bucket, key_id, team_id, model, provider, endpoint) DO UPDATE SET {}, \
         total_histogram = ARRAY[{}], first_byte_histogram = ARRAY[{}]",
        parameters.join(", "),
        sums.join(", "),
        added("total_histogram"),
        added("first_byte_histogram"),
    )
}

/// Element by element, and stopping at the largest value.
fn added(column: &str) -> String {
    let elements: Vec<_> = (1..=BUCKETS)
        .map(|at| format!("least(t.{column}[{at}]::bigint + EXCLUDED.{column}[{at}], 2147483647)::int"))
        .collect();
    elements.join(", ")
}

async fn upsert(tx: &mut PgConnection, sql: &'static str, sums: Sums<'_>) -> Result<(), sqlx::Error> {
    let (mut orgs, mut buckets, mut keys, mut teams) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut models, mut providers, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
    let mut measures = vec![Vec::with_capacity(sums.len()); Measures::NAMES.len()];
    let (mut totals, mut first_bytes) = (Vec::new(), Vec::new());
    for (key, sum) in sums {
        orgs.push(key.org_id);
        buckets.push(key.bucket);
        keys.push(key.key_id);
        teams.push(key.team_id);
        models.push(key.model);
        providers.push(key.provider);
        endpoints.push(key.endpoint);
        measures.iter_mut().zip(sum.measures.values()).for_each(|(column, value)| column.push(value));
        totals.push(literal(&sum.total));
        first_bytes.push(literal(&sum.first_byte));
    }
    let mut query = sqlx::query(sql)
        .bind(orgs)
        .bind(buckets)
        .bind(keys)
        .bind(teams)
        .bind(models)
        .bind(providers)
        .bind(endpoints);
    for column in measures {
        query = query.bind(column);
    }
    query.bind(totals).bind(first_bytes).execute(tx).await.map(drop)
}

/// The array as PostgreSQL reads it: `{0,3,…}`. Counts are of one batch, so they fit the column.
fn literal(histogram: &Histogram) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * BUCKETS + 16);
    for count in histogram.0 {
        text.push(if text.is_empty() { '{' } else { ',' });
        // Nearly all of them.
        if count == 0 {
            text.push('0');
        } else {
            let _ = write!(text, "{count}");
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests;
