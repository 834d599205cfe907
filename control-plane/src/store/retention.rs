//! Partitions of the request log and of the rollups: made ahead of time, dropped when they have expired. Called by the
//! job in `crate::retention`.
//!
//! Every step is a transaction of its own with a short lock timeout: whatever waits for the lock of a parent table
//! makes all ingests wait behind it. A step that can't have its lock is tried again at the next run.

use time::{Date, OffsetDateTime};

use super::{Store, StoreError, SystemTx, TenantTx};

/// A table whose old partitions are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    RequestLog,
    UsageHourly,
    UsageDaily,
}

impl Kept {
    pub const ALL: [Self; 3] = [Self::RequestLog, Self::UsageHourly, Self::UsageDaily];

    /// Name of the table.
    pub fn table(self) -> &'static str {
        match self {
            Self::RequestLog => "request_log",
            Self::UsageHourly => "usage_hourly",
            Self::UsageDaily => "usage_daily",
        }
    }
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// This partition is gone; there may be more.
    Partition(String),
    /// Nothing expired is left.
    Nothing,
    /// Another replica is at it.
    Busy,
}

/// Begin of what the rollups still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct KeptFrom {
    hourly_from: Date,
    daily_from: Date,
}

impl KeptFrom {
    /// `None`: nothing was dropped so far.
    pub fn hourly(self) -> Option<OffsetDateTime> {
        begin(self.hourly_from)
    }

    /// `None`: nothing was dropped so far.
    pub fn daily(self) -> Option<OffsetDateTime> {
        begin(self.daily_from)
    }
}

/// The column's default stands for "everything".
fn begin(day: Date) -> Option<OffsetDateTime> {
    (day > time::macros::date!(1970 - 01 - 01)).then(|| day.midnight().assume_utc())
}

const KEPT_FROM: &str = "SELECT hourly_from, daily_from FROM usage_retention";

/// What an organization's query can find.
pub async fn kept_from(tx: &mut TenantTx) -> Result<KeptFrom, StoreError> {
    Ok(sqlx::query_as(KEPT_FROM).fetch_one(tx.conn()).await?)
}

/// What the operator's query can find.
pub async fn kept_from_for_all(tx: &mut SystemTx) -> Result<KeptFrom, StoreError> {
    Ok(sqlx::query_as(KEPT_FROM).fetch_one(tx.conn()).await?)
}

const SHORT_LOCK: &str = "SELECT set_config('lock_timeout', '2s', true)";
/// One replica at a time; the lock ends with the transaction.
const ALONE: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('nemo.retention', 0))";

impl Store {
    /// Makes the partitions that rows of this day need, unless they are there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database or the lock is not to be had.
    pub async fn ensure_partitions(&self, day: Date) -> Result<(), StoreError> {
        let mut tx = self.system().await?;
        sqlx::query(SHORT_LOCK).execute(tx.conn()).await?;
        sqlx::query("SELECT nemo_ensure_request_log_day($1)").bind(day).execute(tx.conn()).await?;
        tx.commit().await
    }

    /// Drops the oldest partition that has nothing from `before` (UTC) on or later.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database or the lock is not to be had; [`StoreError::Internal`] for a
    /// `before` in the future.
    pub async fn drop_expired(&self, kept: Kept, before: Date) -> Result<Dropped, StoreError> {
        let mut tx = self.system().await?;
        if !sqlx::query_scalar::<_, bool>(ALONE).fetch_one(tx.conn()).await? {
            return Ok(Dropped::Busy);
        }
        sqlx::query(SHORT_LOCK).execute(tx.conn()).await?;
        let name: Option<String> = sqlx::query_scalar("SELECT nemo_drop_expired($1, $2)")
            .bind(kept.table())
            .bind(before)
            .fetch_one(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(name.map_or(Dropped::Nothing, Dropped::Partition))
    }
}
