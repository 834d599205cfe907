//! Usage events become rows of the request log, at most once each. Called by `grpc/usage_service.rs`.
//!
//! A batch is one statement: `INSERT .. SELECT FROM UNNEST .. ON CONFLICT DO NOTHING`. An event that can't be stored is
//! skipped and counted; it never holds up the ones behind it.

mod event;

use std::{collections::BTreeSet, sync::Mutex};

use nemo_proto::usage::UsageEvent;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

pub use event::{Malformed, Row};

use super::{Store, StoreError};

/// Most events of one statement.
pub const MAX_BATCH: usize = 1000;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    pub inserted: u64,
    /// Already there, from an earlier attempt.
    pub duplicates: u64,
    /// Refused by the database one by one; logged there.
    pub refused: u64,
}

/// Days whose partition this process has made sure of. Bounded: at most the 32 days that events may have.
#[derive(Debug, Default)]
pub struct KnownDays(Mutex<BTreeSet<Date>>);

macro_rules! columns {
    ($first:ident: $first_ty:ty = $first_pg:literal; $($number:literal $name:ident: $ty:ty = $pg:literal;)*) => {
        /// A batch, column by column.
        #[derive(Default)]
        struct Columns {
            $first: Vec<$first_ty>,
            $($name: Vec<$ty>,)*
        }

        impl Columns {
            fn push(&mut self, row: &Row) {
                self.$first.push(row.$first.clone());
                $(self.$name.push(row.$name.clone());)*
            }

            async fn insert(self, tx: &mut PgConnection) -> Result<u64, sqlx::Error> {
                const INSERT: &str = concat!(
                    "INSERT INTO request_log (", stringify!($first), $(", ", stringify!($name),)*
                    ") SELECT * FROM UNNEST ($1::", $first_pg, "[]", $(", $", $number, "::", $pg, "[]",)*
                    ") ON CONFLICT DO NOTHING"
                );
                let query = sqlx::query(INSERT).bind(self.$first)$(.bind(self.$name))*;
                Ok(query.execute(tx).await?.rows_affected())
            }
        }
    };
}

columns! {
    event_day: Date = "date";
    2 request_id: Uuid = "uuid";
    3 org_id: Uuid = "uuid";
    4 team_id: Uuid = "uuid";
    5 key_id: Uuid = "uuid";
    6 deployment_id: Option<Uuid> = "uuid";
    7 started_at: OffsetDateTime = "timestamptz";
    8 endpoint: String = "text";
    9 requested_model: String = "text";
    10 model: String = "text";
    11 provider: String = "text";
    12 upstream_model: String = "text";
    13 stream: bool = "bool";
    14 outcome: &'static str = "text";
    15 http_status: i32 = "int";
    16 error_code: String = "text";
    17 finish_reason: String = "text";
    18 input_tokens: Option<i64> = "bigint";
    19 output_tokens: Option<i64> = "bigint";
    20 cache_read_tokens: Option<i64> = "bigint";
    21 cache_write_tokens: Option<i64> = "bigint";
    22 reasoning_tokens: Option<i64> = "bigint";
    23 audio_input_tokens: Option<i64> = "bigint";
    24 audio_output_tokens: Option<i64> = "bigint";
    25 usage_estimated: bool = "bool";
    26 cost_nanos: Option<i64> = "bigint";
    27 cost_source: &'static str = "text";
    28 price_id: String = "text";
    29 attempts: i32 = "int";
    30 strategy: String = "text";
    31 config_revision: i64 = "bigint";
    32 total_us: i64 = "bigint";
    33 upstream_us: i64 = "bigint";
    34 first_byte_us: Option<i64> = "bigint";
    35 overhead_us: i64 = "bigint";
    36 request_bytes: i64 = "bigint";
    37 response_bytes: i64 = "bigint";
    38 client_request_id: String = "text";
    39 metadata: String = "text";
    40 node_id: String = "text";
}

impl Row {
    /// Checks one event that `node_id` sent.
    ///
    /// # Errors
    /// [`Malformed`] when it can't be a row; everything else is made to fit.
    pub fn new(event: UsageEvent, node_id: &str, now: OffsetDateTime) -> Result<Self, Malformed> {
        event::row(event, node_id, now)
    }
}

impl Store {
    /// Writes rows, at most [`MAX_BATCH`], and returns after the commit. Rows that are there already stay as they are.
    ///
    /// # Errors
    /// When the database can't be written now. Nothing is lost by trying again.
    pub async fn ingest_usage(&self, mut rows: Vec<Row>, known: &KnownDays) -> Result<Ingested, StoreError> {
        // In one order everywhere: two batches with the same events can't wait for each other.
        rows.sort_by_key(|row| (row.event_day, row.request_id));
        self.ensure_days(rows.iter().map(|row| row.event_day).collect(), known).await?;
        let total = rows.len() as u64;
        match self.insert_usage(&rows).await {
            Ok(inserted) => Ok(Ingested { inserted, duplicates: total - inserted, refused: 0 }),
            Err(error) if is_about_data(&error) => self.insert_one_by_one(&rows).await,
            Err(error) => Err(error),
        }
    }

    async fn insert_usage(&self, rows: &[Row]) -> Result<u64, StoreError> {
        let mut columns = Columns::default();
        rows.iter().for_each(|row| columns.push(row));
        let mut tx = self.system().await?;
        let inserted = columns.insert(tx.conn()).await?;
        tx.commit().await?;
        Ok(inserted)
    }

    /// One bad row must not keep the others out for ever.
    async fn insert_one_by_one(&self, rows: &[Row]) -> Result<Ingested, StoreError> {
        let mut ingested = Ingested::default();
        for row in rows {
            match self.insert_usage(std::slice::from_ref(row)).await {
                Ok(0) => ingested.duplicates += 1,
                Ok(_) => ingested.inserted += 1,
                Err(error) if is_about_data(&error) => {
                    tracing::error!(%error, request_id = %row.request_id, node = row.node_id,
                        "the database refuses a usage event; it is skipped");
                    ingested.refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ingested)
    }

    /// Makes the partitions before the rows, in a transaction of its own: attaching one locks the parent table, which
    /// must not last as long as an insert.
    async fn ensure_days(&self, days: BTreeSet<Date>, known: &KnownDays) -> Result<(), StoreError> {
        let new: Vec<Date> = known.unknown(days);
        if new.is_empty() {
            return Ok(());
        }
        let mut tx = self.system().await?;
        for day in &new {
            sqlx::query("SELECT nemo_ensure_request_log_day($1)").bind(day).execute(tx.conn()).await?;
        }
        tx.commit().await?;
        known.remember(new);
        Ok(())
    }
}

impl KnownDays {
    fn unknown(&self, days: BTreeSet<Date>) -> Vec<Date> {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        days.into_iter().filter(|day| !known.contains(day)).collect()
    }

    fn remember(&self, days: Vec<Date>) {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(days);
        while known.len() > event::MAX_DAYS {
            known.pop_first();
        }
    }
}

/// Data exceptions and violated constraints: the same statement would fail again.
fn is_about_data(error: &StoreError) -> bool {
    match error {
        StoreError::Conflict { .. }
        | StoreError::Reference { .. }
        | StoreError::Internal(sqlx::Error::Encode(_)) => true,
        StoreError::Internal(error) => {
            let code = error.as_database_error().and_then(|error| error.code());
            code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        StoreError::Unavailable(_) | StoreError::Migrate(_) => false,
    }
}

#[cfg(test)]
mod tests;
