//! Node processes: when each last reported, and what it is given unasked. Also reads the terms of budgets.

use nemo_types::{BudgetId, OrgId};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::rows;
use crate::{
    quota::{
        Settings,
        bank::{ACTIVE_MS, AHEAD_MS, MAX_STANDBY, NodeEpoch},
        books::{LeaseRow, LostLease, Millis, WindowKey, WindowRow},
        desk::{RECALL_MS, Terms},
        window::Window,
    },
    store::StoreError,
};

/// A budget whose transaction took longer to commit than this is not given out unasked.
const SLOW_COMMIT_MS: Millis = 30_000;
/// Nodes take the next window's slices one after the other, spread over so long.
const SPREAD_MS: Millis = AHEAD_MS * 8 / 10;

/// A process that reports.
#[derive(Debug, FromRow)]
struct SessionColumns {
    session_id: i64,
    now_ms: i64,
    newest: Option<i64>,
    nodes: i64,
    standby_ms: Option<i64>,
    ahead_ms: Option<i64>,
    previous_seq: i64,
    horizon: String,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: i64,
    pub(super) now: Millis,
    /// Largest epoch of this node.
    pub(super) newest: u64,
    /// That live, this one included.
    pub(super) nodes: u32,
    /// The report is a leftover of a former stream: it neither renews nor asks.
    pub(super) stale: bool,
    /// As they were before this report.
    standby_until: Option<Millis>,
    ahead_until: Option<Millis>,
    /// Every transaction before this one is over.
    pub(super) horizon: String,
}

/// When a node takes what is of the next window.
fn lead(node: &NodeEpoch) -> Millis {
    let hash = crc(&node.node_id) % u64::try_from(SPREAD_MS).unwrap_or(1);
    AHEAD_MS - i64::try_from(hash).unwrap_or(0)
}

fn crc(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Renews all leases of the process in one row. `seq` 0: of a report that is not numbered.
pub(super) async fn renew(
    tx: &mut PgConnection,
    node: &NodeEpoch,
    seq: u64,
    now: Option<Millis>,
    settings: &Settings,
) -> Result<Session, StoreError> {
    let row: SessionColumns = sqlx::query_as(
        "WITH t AS (SELECT coalesce(to_timestamp($3::bigint / 1000.0), clock_timestamp()) AS now), \
              old AS (SELECT standby_until, ahead_until FROM quota_sessions WHERE node_id = $1 AND epoch = $2), \
              others AS (SELECT max(epoch) FILTER (WHERE node_id = $1) AS newest, \
                                count(*) FILTER (WHERE renewed_at > (SELECT now FROM t) - $4 * interval '1 millisecond' \
                                                 AND (node_id, epoch) <> ($1, $2)) AS live FROM quota_sessions) \
         INSERT INTO quota_sessions AS s (node_id, epoch, renewed_at, standby_until, ahead_until, seq) \
         SELECT $1, $2, now, now, now + $5 * interval '1 millisecond', $6 FROM t \
         ON CONFLICT (node_id, epoch) DO UPDATE SET previous_seq = s.seq, seq = greatest(s.seq, excluded.seq), \
             renewed_at = CASE WHEN excluded.seq > s.seq OR excluded.seq = 0 \
                 THEN greatest(s.renewed_at, excluded.renewed_at) ELSE s.renewed_at END, \
             standby_until = CASE WHEN excluded.seq > s.seq OR excluded.seq = 0 \
                 THEN excluded.standby_until ELSE s.standby_until END, \
             ahead_until = CASE WHEN excluded.seq > s.seq OR excluded.seq = 0 \
                 THEN excluded.ahead_until ELSE s.ahead_until END \
         RETURNING session_id, previous_seq, pg_snapshot_xmin(pg_current_snapshot())::xid::text AS horizon, (extract(epoch FROM (SELECT now FROM t)) * 1000)::bigint AS now_ms, \
             (SELECT newest FROM others) AS newest, (SELECT live FROM others) + 1 AS nodes, \
             (SELECT (extract(epoch FROM standby_until) * 1000)::bigint FROM old) AS standby_ms, \
             (SELECT (extract(epoch FROM ahead_until) * 1000)::bigint FROM old) AS ahead_ms",
    )
    .bind(&*node.node_id)
    .bind(node.epoch.cast_signed())
    .bind(now)
    .bind(f64::from(settings.report_ms) * 5.0)
    .bind(lead(node) as f64)
    .bind(seq.cast_signed())
    .fetch_one(tx)
    .await?;
    Ok(Session {
        id: row.session_id,
        now: row.now_ms,
        newest: row.newest.map_or(0, i64::cast_unsigned),
        nodes: u32::try_from(row.nodes).unwrap_or(1),
        stale: seq != 0 && seq <= row.previous_seq.cast_unsigned(),
        standby_until: row.standby_ms,
        ahead_until: row.ahead_ms,
        horizon: row.horizon,
    })
}

/// The session of a process that has reported.
pub(super) async fn find(tx: &mut PgConnection, node: &NodeEpoch) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT session_id FROM quota_sessions WHERE node_id = $1 AND epoch = $2";
    Ok(sqlx::query_scalar(sql).bind(&*node.node_id).bind(node.epoch.cast_signed()).fetch_optional(tx).await?)
}

#[derive(FromRow)]
struct TermsColumns {
    id: Uuid,
    org_id: Uuid,
    limit_nanos: i64,
    window_kind: String,
    window_hours: Option<i32>,
    time_zone: String,
    lost_lease: String,
    disabled: bool,
}

impl TermsColumns {
    /// `None`: a window that can't be, which the admin operations let nobody set.
    fn terms(self) -> Option<Terms> {
        let hours = self.window_hours.map(i64::from);
        let window = Window::parse(&self.window_kind, hours, &self.time_zone);
        let window = window
            .inspect_err(|error| tracing::error!(budget = %self.id, %error, "a budget without a window is passed over"))
            .ok()?;
        Some(Terms {
            budget: BudgetId(self.id),
            org: OrgId(self.org_id),
            window,
            limit: self.limit_nanos,
            lost: if self.lost_lease == "release" { LostLease::Release } else { LostLease::Charge },
            disabled: self.disabled,
        })
    }
}

/// What budgets are; those that are gone are left out.
pub(in crate::store) async fn terms(
    tx: &mut PgConnection,
    ids: &[BudgetId],
) -> Result<Vec<Terms>, StoreError> {
    let sql = "SELECT id, org_id, limit_nanos, window_kind, window_hours, time_zone, lost_lease, disabled \
               FROM budgets WHERE id = ANY ($1)";
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found: Vec<TermsColumns> = sqlx::query_as(sql).bind(ids).fetch_all(tx).await?;
    Ok(found.into_iter().filter_map(TermsColumns::terms).collect())
}

/// Budgets that the process should have a slice of although it did not ask, each with a moment of the window. New ones are
/// those that are not of a transaction before `looked`, if that is known.
pub(super) async fn unasked(
    tx: &mut PgConnection,
    session: &Session,
    node: &NodeEpoch,
    full: bool,
    looked: Option<&str>,
) -> Result<Vec<(Terms, Millis)>, StoreError> {
    let now = session.now;
    let limit = i64::try_from(MAX_STANDBY).unwrap_or(i64::MAX);
    let columns = |found: Vec<TermsColumns>| found.into_iter().filter_map(TermsColumns::terms);
    let mut unasked = Vec::new();
    if full {
        let sql = "SELECT id, org_id, limit_nanos, window_kind, window_hours, time_zone, lost_lease, disabled \
                   FROM budgets WHERE NOT disabled AND id IN ( \
                       SELECT budget_id FROM budget_windows WHERE active_at > to_timestamp($1::bigint / 1000.0) \
                           AND (window_end IS NULL OR window_end > to_timestamp($1::bigint / 1000.0))) LIMIT $2";
        let active: Vec<TermsColumns> =
            sqlx::query_as(sql).bind(now - ACTIVE_MS).bind(limit).fetch_all(&mut *tx).await?;
        unasked.extend(columns(active).map(|terms| (terms, now)));
    }
    // A budget is looked at more than once, since commits come late; what it was given once, it is not given again.
    let since = session.standby_until.map_or(now - ACTIVE_MS, |at| at - SLOW_COMMIT_MS);
    let sql = "SELECT id, org_id, limit_nanos, window_kind, window_hours, time_zone, lost_lease, disabled \
               FROM budgets b WHERE NOT disabled AND created_at > to_timestamp($1::bigint / 1000.0) \
                   AND ($5::text IS NULL OR age(b.xmin) <= age($5::text::xid)) \
                   AND ($3 OR NOT EXISTS (SELECT FROM budget_leases l \
                                          WHERE l.budget_id = b.id AND l.session_id = $4)) LIMIT $2";
    let new: Vec<TermsColumns> = sqlx::query_as(sql)
        .bind(since)
        .bind(limit)
        .bind(session.standby_until.is_none())
        .bind(session.id)
        .bind(looked)
        .fetch_all(&mut *tx)
        .await?;
    unasked.extend(columns(new).map(|terms| (terms, now)));
    let (from, to) = (session.ahead_until.map_or(now, |at| at.max(now)), now + lead(node));
    if from < to {
        let sql = "SELECT b.id, b.org_id, b.limit_nanos, window_kind, window_hours, time_zone, lost_lease, disabled, \
                          (extract(epoch FROM w.window_end) * 1000)::bigint AS ends \
                   FROM budget_windows w JOIN budgets b ON b.id = w.budget_id \
                   WHERE w.window_end > to_timestamp($1::bigint / 1000.0) AND NOT b.disabled \
                       AND w.window_end <= to_timestamp($2::bigint / 1000.0) \
                       AND w.active_at > to_timestamp($3::bigint / 1000.0) LIMIT $4";
        let ending: Vec<EndingColumns> =
            sqlx::query_as(sql).bind(from).bind(to).bind(now - ACTIVE_MS).bind(limit).fetch_all(tx).await?;
        unasked.extend(ending.into_iter().filter_map(|it| Some((it.terms.terms()?, it.ends))));
    }
    unasked.truncate(MAX_STANDBY);
    Ok(unasked)
}

#[derive(FromRow)]
struct EndingColumns {
    #[sqlx(flatten)]
    terms: TermsColumns,
    ends: i64,
}

/// Leases of the process in windows that others starve for.
pub(super) async fn starving(
    tx: &mut PgConnection,
    session: i64,
    now: Millis,
) -> Result<Vec<(WindowRow, LeaseRow)>, StoreError> {
    // Nearly always there are none. Two statements, so that no plan begins with the leases of the session.
    let sql = "SELECT budget_id, extract(epoch FROM window_start)::bigint FROM budget_windows \
               WHERE starved_at > to_timestamp($1::bigint / 1000.0) LIMIT 1000";
    let starved: Vec<(Uuid, i64)> = sqlx::query_as(sql).bind(now - RECALL_MS).fetch_all(&mut *tx).await?;
    if starved.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<WindowKey> =
        starved.into_iter().map(|(id, start)| WindowKey { budget: BudgetId(id), start }).collect();
    let windows = rows::windows(&mut *tx, &keys).await?;
    let leases = rows::leases_for(tx, &[], session, &keys).await?;
    let both = |lease: LeaseRow| Some((windows.get(&lease.key)?.clone(), lease));
    Ok(leases.into_iter().filter_map(both).collect())
}
