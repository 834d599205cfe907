//! Which thresholds of budgets the spend of a window has crossed, each told once. Called by the job in
//! `crate::thresholds`.
//!
//! A row in `budget_crossings` is written in the transaction that queues the event, so two replicas at it tell nothing
//! twice. It is forgotten, so that crossing again is news, when the spend is below the threshold again: money aged out of
//! a rolling window or was given back, or the limit was raised.

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, SystemTx, budgets};

/// How long a window is looked at after its end: events of its last requests still come.
const LATE: Duration = Duration::HOUR;
/// How long what was told of a window is kept after its end.
const KEPT: Duration = Duration::days(2);

/// One threshold that was crossed just now.
#[derive(Clone, Debug, FromRow)]
pub struct Crossed {
    pub budget_id: Uuid,
    pub org_id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: String,
    /// `limit` or `credit`.
    pub kind: String,
    pub window_kind: String,
    pub window_start: OffsetDateTime,
    pub window_end: Option<OffsetDateTime>,
    /// Of the limit; 0: nothing is left.
    pub percent: i32,
    pub limit_nanos: i64,
    pub spent_nanos: i64,
    pub crossed_at: OffsetDateTime,
}

/// Spend, as a number that can't overflow.
macro_rules! spent {
    () => {
        "(w.settled_nanos::numeric + w.overrun_nanos)"
    };
}

/// As [`budgets::WindowRow::is_exhausted`]; a limit of nothing is exhausted when somebody asks. `$1` is the time since
/// which a node that went away empty-handed counts.
macro_rules! exhausted {
    () => {
        concat!(
            "((w.limit_nanos > 0 AND ",
            spent!(),
            " >= w.limit_nanos) OR (w.starved_at > $1 AND w.outstanding_nanos = 0))"
        )
    };
}

/// Notes what was crossed since the last call, at most `most` at a time, lowest first. The caller tells it in the same
/// transaction.
///
/// # Errors
/// When the database can't be written.
pub async fn cross(tx: &mut SystemTx, now: OffsetDateTime, most: i64) -> Result<Vec<Crossed>, StoreError> {
    let sql = concat!(
        "WITH crossed AS ( \
             INSERT INTO budget_crossings (budget_id, org_id, window_start, window_end, percent, limit_nanos, spent_nanos) \
             SELECT w.budget_id, w.org_id, w.window_start, w.window_end, due.percent, w.limit_nanos, \
                    least(",
        spent!(),
        ", 9223372036854775807)::bigint \
             FROM budget_windows w JOIN budgets b ON b.id = w.budget_id \
             CROSS JOIN LATERAL ( \
                 SELECT t AS percent FROM unnest(b.thresholds) t \
                     WHERE w.limit_nanos > 0 AND ",
        spent!(),
        " * 100 >= w.limit_nanos::numeric * t \
                 UNION ALL SELECT 0 WHERE ",
        exhausted!(),
        ") due \
             WHERE NOT b.disabled AND (w.window_end IS NULL OR w.window_end > $2) \
                 AND NOT EXISTS (SELECT FROM budget_crossings c WHERE c.budget_id = w.budget_id \
                     AND c.window_start = w.window_start AND c.percent = due.percent) \
             ORDER BY w.budget_id, w.window_start, due.percent LIMIT $3 \
             ON CONFLICT DO NOTHING RETURNING * ) \
         SELECT c.budget_id, c.org_id, b.team_id, b.key_id, b.name, b.kind, b.window_kind, c.window_start, \
                c.window_end, c.percent, c.limit_nanos, c.spent_nanos, c.crossed_at \
         FROM crossed c JOIN budgets b ON b.id = c.budget_id \
         ORDER BY c.budget_id, c.window_start, CASE c.percent WHEN 0 THEN 2147483647 ELSE c.percent END"
    );
    let query = sqlx::query_as(sql).bind(now - budgets::STARVED).bind(now - LATE).bind(most);
    Ok(query.fetch_all(tx.conn()).await?)
}

/// Forgets what does not hold any more, and what is of windows long over. Returns how many can be crossed again.
///
/// # Errors
/// When the database can't be written.
pub async fn rearm(tx: &mut SystemTx, now: OffsetDateTime) -> Result<u64, StoreError> {
    // Of what a limit was exhausted by a request that was too large for the rest, only more money tells that it is over.
    let sql = concat!(
        "DELETE FROM budget_crossings c USING budget_windows w \
         WHERE w.budget_id = c.budget_id AND w.window_start = c.window_start \
             AND (c.window_end IS NULL OR c.window_end > $2) \
             AND (",
        spent!(),
        " < c.spent_nanos OR w.limit_nanos > c.limit_nanos) \
             AND CASE WHEN c.percent = 0 THEN NOT coalesce(",
        exhausted!(),
        ", false) ELSE ",
        spent!(),
        " * 100 < w.limit_nanos::numeric * c.percent END"
    );
    let query = sqlx::query(sql).bind(now - budgets::STARVED).bind(now);
    let rearmed = query.execute(tx.conn()).await?.rows_affected();
    let over = "DELETE FROM budget_crossings WHERE window_end < $1";
    sqlx::query(over).bind(now - KEPT).execute(tx.conn()).await?;
    Ok(rearmed)
}
