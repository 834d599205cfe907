//! Usage events become rows of the request log, part of the rollups and entries of the ledger, at most once each (I6).
//! Called by `grpc/usage_service.rs`.
//!
//! A batch is one transaction: how far the node's journal is in, `INSERT .. SELECT FROM UNNEST .. ON CONFLICT DO NOTHING
//! RETURNING`, the sums of what was really inserted, and the settlement of its charges ([`settlement`]). An event that
//! can't be stored is skipped and counted; it never holds up the ones behind it, and its money is settled all the same.

mod event;
mod settlement;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Mutex,
};

use nemo_proto::usage::UsageEvent;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

pub use event::{Malformed, Row};
pub use settlement::{Settled, Unlogged};

use super::{Store, StoreError, usage_rollup};

/// Most events of one statement.
pub const MAX_BATCH: usize = 1000;

/// Whose journal events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    pub node_id: String,
    pub epoch: u64,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    pub inserted: u64,
    /// Already there, from an earlier attempt.
    pub duplicates: u64,
    /// Of a day that retention has dropped: not stored, or an event that was sent twice would count twice.
    pub expired: u64,
    /// Of a day that is yet to come, by a node whose clock is wrong: not stored.
    pub ahead: u64,
    /// Refused by the database one by one; logged there.
    pub refused: u64,
    /// The money of all of them that were new.
    pub settled: Settled,
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

            /// Ids of the rows that were not there before.
            async fn insert(self, tx: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
                // What is kept is looked up by the same statement: dropping a day waits for it, or it for that.
                const INSERT: &str = concat!(
                    "INSERT INTO request_log (", stringify!($first), $(", ", stringify!($name),)*
                    ") SELECT * FROM UNNEST ($1::", $first_pg, "[]", $(", $", $number, "::", $pg, "[]",)*
                    ") AS new (", stringify!($first), $(", ", stringify!($name),)*
                    ") WHERE event_day >= coalesce((SELECT request_log_from FROM usage_retention), '-infinity') \
                     ON CONFLICT DO NOTHING RETURNING request_id"
                );
                sqlx::query_scalar(INSERT).bind(self.$first)$(.bind(self.$name))*.fetch_all(tx).await
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
    41 units: Option<String> = "text";
    42 decision: Option<Vec<u8>> = "bytea";
    43 charges: Option<String> = "text";
    44 service_tier: String = "text";
    45 cache_write_1h_tokens: Option<i64> = "bigint";
}

impl Row {
    /// Checks one event that `node_id` sent.
    ///
    /// # Errors
    /// [`Malformed`] when it can't be a row; everything else is made to fit.
    pub fn new(event: UsageEvent, node_id: &str, now: OffsetDateTime) -> Result<Self, Malformed> {
        event::row(event, node_id, now)
    }

    fn is_ahead(&self) -> bool {
        self.unlogged == Some(Unlogged::Ahead)
    }
}

impl Store {
    /// Writes rows, at most [`MAX_BATCH`], settles what they are charged, and returns after the commit. Rows that are
    /// there already stay as they are.
    ///
    /// # Errors
    /// When the database can't be written now. Nothing is lost by trying again.
    pub async fn ingest_usage(
        &self,
        journal: &Journal,
        mut rows: Vec<Row>,
        known: &KnownDays,
    ) -> Result<Ingested, StoreError> {
        // In one order everywhere: two batches with the same events can't wait for each other.
        rows.sort_by_key(|row| (row.event_day, row.request_id));
        let days = rows.iter().filter(|row| row.unlogged.is_none()).map(|row| row.event_day).collect();
        self.ensure_days(days, known).await?;
        match self.insert_usage(journal, &rows).await {
            Err(error) if is_about_data(&error) => self.insert_one_by_one(journal, rows).await,
            ingested => ingested,
        }
    }

    async fn insert_usage(&self, journal: &Journal, rows: &[Row]) -> Result<Ingested, StoreError> {
        let mut columns = Columns::default();
        let mut once: Vec<&Row> = rows.iter().collect();
        // The sort before was stable: the first of two is the one that counts.
        once.dedup_by_key(|row| (row.event_day, row.request_id));
        once.iter().filter(|row| row.unlogged.is_none()).for_each(|row| columns.push(row));
        let mut tx = self.system().await?;
        let seen = settlement::advance(tx.conn(), journal, rows).await?;
        let inserted: HashSet<Uuid> = columns.insert(tx.conn()).await?.into_iter().collect();
        let new = || once.iter().copied().filter(|row| inserted.contains(&row.request_id));
        usage_rollup::add(tx.conn(), new()).await?;
        let dayless: Vec<&Row> =
            if inserted.len() < rows.len() { dayless(tx.conn(), rows, &inserted).await? } else { Vec::new() };
        let mut due = settlement::due(tx.conn(), new(), seen).await?;
        due.extend(settlement::dayless(tx.conn(), &dayless, seen).await?);
        let settled = settlement::settle(tx.conn(), &due).await?;
        tx.commit().await?;
        let ahead = dayless.iter().filter(|row| row.is_ahead()).count() as u64;
        let (inserted, expired) = (inserted.len() as u64, dayless.len() as u64 - ahead);
        let duplicates = rows.len() as u64 - inserted - expired - ahead;
        Ok(Ingested { inserted, expired, ahead, duplicates, refused: 0, settled })
    }

    /// One bad row must not keep the others out for ever, nor its money.
    async fn insert_one_by_one(&self, journal: &Journal, mut rows: Vec<Row>) -> Result<Ingested, StoreError> {
        // In the order of the journal: each moves the cursor, and what is behind that counts as ingested.
        rows.sort_by_key(|row| row.seq);
        let mut ingested = Ingested::default();
        for row in &rows {
            match self.insert_usage(journal, std::slice::from_ref(row)).await {
                Ok(one) => ingested.add(&one),
                Err(error) if is_about_data(&error) => {
                    tracing::error!(%error, request_id = %row.request_id, node = row.node_id,
                        "the database refuses a usage event; it is skipped");
                    ingested.refused += 1;
                    ingested.settled.add(&self.settle_unlogged(journal, row).await?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ingested)
    }

    /// Settles the charges of a row that the log does not take. When the bank refuses them too, they are kept for
    /// people to see.
    async fn settle_unlogged(&self, journal: &Journal, row: &Row) -> Result<Settled, StoreError> {
        match self.settle_one(journal, row, Unlogged::Refused).await {
            Err(error) if is_about_data(&error) => {
                tracing::error!(%error, request_id = %row.request_id, node = row.node_id, charges = ?row.charges,
                    "charges can't be settled; they are kept in usage_unlogged");
                self.settle_one(journal, row, Unlogged::Unsettled).await
            }
            settled => settled,
        }
    }

    async fn settle_one(
        &self,
        journal: &Journal,
        row: &Row,
        reason: Unlogged,
    ) -> Result<Settled, StoreError> {
        let mut tx = self.system().await?;
        settlement::advance(tx.conn(), journal, std::slice::from_ref(row)).await?;
        let new = settlement::unlogged(tx.conn(), &[row], reason).await?;
        let settled = match reason {
            Unlogged::Unsettled => Settled::refused(&new),
            Unlogged::Refused | Unlogged::Expired | Unlogged::Ahead => {
                settlement::settle(tx.conn(), &new).await?
            }
        };
        tx.commit().await?;
        Ok(settled)
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

/// Those of the rows that were not inserted because they are older than what is kept, or yet to come.
async fn dayless<'a>(
    tx: &mut PgConnection,
    rows: &'a [Row],
    inserted: &HashSet<Uuid>,
) -> Result<Vec<&'a Row>, sqlx::Error> {
    let from: Option<Date> =
        sqlx::query_scalar("SELECT request_log_from FROM usage_retention").fetch_optional(tx).await?;
    let from = from.unwrap_or(Date::MIN);
    let dayless =
        |row: &&Row| (row.unlogged.is_some() || row.event_day < from) && !inserted.contains(&row.request_id);
    Ok(rows.iter().filter(dayless).collect())
}

impl Ingested {
    /// Adds what became of another part of the batch.
    pub fn add(&mut self, part: &Self) {
        self.inserted += part.inserted;
        self.duplicates += part.duplicates;
        self.expired += part.expired;
        self.ahead += part.ahead;
        self.refused += part.refused;
        self.settled.add(&part.settled);
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
