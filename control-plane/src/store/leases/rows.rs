//! Rows of windows and leases: loading, locking, writing. Arrays of one type each go to the server, so that a report of
//! ten thousand budgets is a handful of statements.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use nemo_types::{BudgetId, LeaseId, OrgId};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::{
    quota::{
        books::{LeaseRow, LeaseState, Millis, WindowKey, WindowRow},
        desk::Rows,
        window::Span,
    },
    store::StoreError,
};

macro_rules! window_columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " w.budget_id, w.org_id, extract(epoch FROM w.window_start)::bigint AS window_start, \
              extract(epoch FROM w.window_end)::bigint AS window_end, w.rolling_hours, w.limit_nanos, \
              w.settled_nanos, w.outstanding_nanos, w.overrun_nanos, w.aged_nanos, w.aged_overrun_nanos, w.users, \
              (extract(epoch FROM w.starved_at) * 1000)::bigint AS starved_ms, \
              (extract(epoch FROM w.active_at) * 1000)::bigint AS active_ms ",
            $after
        )
    };
}

macro_rules! lease_columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " l.lease_id, l.budget_id, l.org_id, extract(epoch FROM l.window_start)::bigint AS window_start, \
              l.node_id, l.epoch, l.granted_nanos, l.returned_nanos, l.spent_nanos, \
              l.overrun_nanos AS lease_overrun, l.forfeited_nanos, l.reserved_nanos, l.state, l.asked, l.ttl_ms, \
              (extract(epoch FROM l.held_at) * 1000)::bigint AS held_ms, \
              (extract(epoch FROM l.closed_at) * 1000)::bigint AS closed_ms ",
            $after
        )
    };
}
pub(super) use lease_columns;

#[derive(FromRow)]
pub(super) struct WindowColumns {
    budget_id: Uuid,
    org_id: Uuid,
    window_start: i64,
    window_end: Option<i64>,
    rolling_hours: Option<i32>,
    limit_nanos: i64,
    settled_nanos: i64,
    outstanding_nanos: i64,
    overrun_nanos: i64,
    aged_nanos: i64,
    aged_overrun_nanos: i64,
    users: i32,
    starved_ms: Option<i64>,
    active_ms: i64,
}

impl From<WindowColumns> for WindowRow {
    fn from(row: WindowColumns) -> Self {
        let key = WindowKey { budget: BudgetId(row.budget_id), start: row.window_start };
        Self {
            key,
            org: OrgId(row.org_id),
            end: row.window_end,
            rolling_hours: row.rolling_hours.and_then(|hours| u16::try_from(hours).ok()),
            limit: row.limit_nanos,
            settled: row.settled_nanos,
            outstanding: row.outstanding_nanos,
            overrun: row.overrun_nanos,
            aged: row.aged_nanos,
            aged_overrun: row.aged_overrun_nanos,
            users: row.users,
            starved_at: row.starved_ms,
            active_at: row.active_ms,
            slots: BTreeMap::new(),
        }
    }
}

#[derive(FromRow)]
pub(super) struct LeaseColumns {
    lease_id: Uuid,
    budget_id: Uuid,
    org_id: Uuid,
    window_start: i64,
    node_id: String,
    epoch: i64,
    granted_nanos: i64,
    returned_nanos: i64,
    spent_nanos: i64,
    lease_overrun: i64,
    forfeited_nanos: i64,
    reserved_nanos: i64,
    state: String,
    asked: bool,
    ttl_ms: i32,
    held_ms: Option<i64>,
    closed_ms: Option<i64>,
}

impl From<LeaseColumns> for LeaseRow {
    fn from(row: LeaseColumns) -> Self {
        Self {
            id: LeaseId(row.lease_id),
            key: WindowKey { budget: BudgetId(row.budget_id), start: row.window_start },
            org: OrgId(row.org_id),
            node_id: row.node_id.into(),
            epoch: row.epoch.cast_unsigned(),
            granted: row.granted_nanos,
            returned: row.returned_nanos,
            spent: row.spent_nanos,
            overrun: row.lease_overrun,
            forfeited: row.forfeited_nanos,
            reserved: row.reserved_nanos,
            // The column allows no other.
            state: LeaseState::parse(&row.state).unwrap_or(LeaseState::Closed),
            asked: row.asked,
            ttl_ms: row.ttl_ms.unsigned_abs(),
            held_at: row.held_ms,
            closed_at: row.closed_ms,
        }
    }
}

fn columns(keys: &[WindowKey]) -> (Vec<Uuid>, Vec<i64>) {
    let once: BTreeSet<WindowKey> = keys.iter().copied().collect();
    once.into_iter().map(|key| (key.budget.0, key.start)).unzip()
}

fn by_key(found: Vec<WindowColumns>) -> BTreeMap<WindowKey, WindowRow> {
    found.into_iter().map(WindowRow::from).map(|window| (window.key, window)).collect()
}

/// Windows, without locking them.
pub(super) async fn windows(
    tx: &mut PgConnection,
    keys: &[WindowKey],
) -> Result<BTreeMap<WindowKey, WindowRow>, StoreError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (budgets, starts) = columns(keys);
    let sql = window_columns!(
        "SELECT",
        "FROM budget_windows w JOIN unnest($1::uuid[], $2::bigint[]) AS k (budget_id, start) \
         ON w.budget_id = k.budget_id AND w.window_start = to_timestamp(k.start)"
    );
    Ok(by_key(sqlx::query_as(sql).bind(budgets).bind(starts).fetch_all(tx).await?))
}

/// Locks windows until the end of the transaction, in the order of their keys. Those that have no row are left out.
pub(super) async fn lock(
    tx: &mut PgConnection,
    keys: &[WindowKey],
) -> Result<BTreeMap<WindowKey, WindowRow>, StoreError> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (budgets, starts) = columns(keys);
    let sql = window_columns!(
        "SELECT",
        "FROM budget_windows w JOIN unnest($1::uuid[], $2::bigint[]) AS k (budget_id, start) \
         ON w.budget_id = k.budget_id AND w.window_start = to_timestamp(k.start) \
         ORDER BY w.budget_id, w.window_start FOR NO KEY UPDATE OF w"
    );
    Ok(by_key(sqlx::query_as(sql).bind(budgets).bind(starts).fetch_all(tx).await?))
}

/// Makes rows of windows, in order, with the limits that their budgets have: a change of a limit waits, or is waited for.
pub(super) async fn make(
    tx: &mut PgConnection,
    spans: &[(BudgetId, Span)],
    now: Option<Millis>,
) -> Result<(), StoreError> {
    let budgets: Vec<Uuid> = spans.iter().map(|(id, _)| id.0).collect();
    let starts: Vec<i64> = spans.iter().map(|(_, span)| span.start).collect();
    let ends: Vec<Option<i64>> = spans.iter().map(|(_, span)| span.end).collect();
    sqlx::query(
        "WITH new AS ( \
             SELECT b.id, b.org_id, k.start, k.\"end\", b.window_kind, b.window_hours, b.limit_nanos \
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS k (budget_id, start, \"end\") \
             JOIN budgets b ON b.id = k.budget_id \
             WHERE NOT EXISTS (SELECT FROM budget_windows w WHERE w.budget_id = k.budget_id \
                               AND w.window_start = to_timestamp(k.start)) \
             ORDER BY b.id, k.start FOR SHARE OF b) \
         INSERT INTO budget_windows (budget_id, org_id, window_start, window_end, rolling_hours, limit_nanos, active_at) \
         SELECT id, org_id, to_timestamp(start), to_timestamp(\"end\"), \
                CASE WHEN window_kind = 'rolling' THEN window_hours END, limit_nanos, \
                coalesce(to_timestamp($4::bigint / 1000.0), now()) \
         FROM new ORDER BY id, start ON CONFLICT DO NOTHING",
    )
    .bind(budgets)
    .bind(starts)
    .bind(ends)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(())
}

/// Leases by id.
pub(super) async fn leases(tx: &mut PgConnection, ids: &[LeaseId]) -> Result<Vec<LeaseRow>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = lease_columns!("SELECT", "FROM budget_leases l WHERE l.lease_id = ANY ($1)");
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found: Vec<LeaseColumns> = sqlx::query_as(sql).bind(ids).fetch_all(tx).await?;
    Ok(found.into_iter().map(LeaseRow::from).collect())
}

/// Leases by id, and those of a session that more can be granted to in some windows.
pub(super) async fn leases_for(
    tx: &mut PgConnection,
    ids: &[LeaseId],
    session: i64,
    keys: &[WindowKey],
) -> Result<Vec<LeaseRow>, StoreError> {
    let mut found = leases(&mut *tx, ids).await?;
    if keys.is_empty() {
        return Ok(found);
    }
    let (budgets, starts) = columns(keys);
    let sql = lease_columns!(
        "SELECT",
        "FROM unnest($2::uuid[], $3::bigint[]) AS k (budget_id, start) JOIN budget_leases l \
         ON l.session_id = $1 AND l.budget_id = k.budget_id AND l.window_start = to_timestamp(k.start) \
         AND l.state = 'active'"
    );
    let open: Vec<LeaseColumns> =
        sqlx::query_as(sql).bind(session).bind(budgets).bind(starts).fetch_all(tx).await?;
    let known: HashSet<LeaseId> = found.iter().map(|lease| lease.id).collect();
    found.extend(open.into_iter().map(LeaseRow::from).filter(|lease| !known.contains(&lease.id)));
    Ok(found)
}

/// Which of these leases are of that session, and can be granted to.
pub(super) async fn active_of_session(
    tx: &mut PgConnection,
    session: i64,
    ids: &[LeaseId],
) -> Result<HashSet<LeaseId>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let sql = "SELECT lease_id FROM budget_leases WHERE lease_id = ANY ($1) AND session_id = $2 AND state = 'active'";
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let found: Vec<Uuid> = sqlx::query_scalar(sql).bind(ids).bind(session).fetch_all(tx).await?;
    Ok(found.into_iter().map(LeaseId).collect())
}

/// The leases of a session that more can be granted to.
pub(super) async fn leases_of_session(
    tx: &mut PgConnection,
    session: i64,
) -> Result<Vec<LeaseRow>, StoreError> {
    let sql = lease_columns!("SELECT", "FROM budget_leases l WHERE l.session_id = $1 AND l.state = 'active'");
    let found: Vec<LeaseColumns> = sqlx::query_as(sql).bind(session).fetch_all(tx).await?;
    Ok(found.into_iter().map(LeaseRow::from).collect())
}

/// The leases of a process that are not closed.
pub(super) async fn open_of_epoch(
    tx: &mut PgConnection,
    node_id: &str,
    epoch: u64,
) -> Result<Vec<LeaseRow>, StoreError> {
    // Two lists: each has an index of its own.
    let sql = lease_columns!(
        "WITH s AS (SELECT session_id FROM quota_sessions WHERE node_id = $1 AND epoch = $2) SELECT",
        "FROM budget_leases l WHERE l.session_id IN (SELECT session_id FROM s) AND l.state = 'active'"
    );
    let active: Vec<LeaseColumns> =
        sqlx::query_as(sql).bind(node_id).bind(epoch.cast_signed()).fetch_all(&mut *tx).await?;
    let sql = lease_columns!(
        "WITH s AS (SELECT session_id FROM quota_sessions WHERE node_id = $1 AND epoch = $2) SELECT",
        "FROM budget_leases l WHERE l.session_id IN (SELECT session_id FROM s) AND l.state IN ('done', 'held')"
    );
    let waiting: Vec<LeaseColumns> =
        sqlx::query_as(sql).bind(node_id).bind(epoch.cast_signed()).fetch_all(tx).await?;
    Ok(active.into_iter().chain(waiting).map(LeaseRow::from).collect())
}

/// Writes what became of locked windows and of their leases: `before` is how they were loaded.
///
/// # Errors
/// When the database can't be written, or when a grant would pass a limit (I3): then nothing was written that may be
/// committed.
pub(super) async fn save(
    tx: &mut PgConnection,
    (windows, leases): (&BTreeMap<WindowKey, WindowRow>, &HashMap<LeaseId, LeaseRow>),
    rows: &Rows,
    session: i64,
) -> Result<(), StoreError> {
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for lease in rows.leases.values() {
        match leases.get(&lease.id) {
            Some(before) if before == lease => {}
            Some(_) => changed.push(lease),
            None => new.push(lease),
        }
    }
    save_windows(&mut *tx, windows, rows, &granted(rows, leases)).await?;
    save_slots(&mut *tx, rows).await?;
    // First those that are not open any more: there is one open lease of a window at a time.
    update_leases(&mut *tx, &changed).await?;
    insert_leases(tx, &new, session).await
}

/// What was granted of each window since `before`.
pub(super) fn granted(rows: &Rows, before: &HashMap<LeaseId, LeaseRow>) -> HashMap<WindowKey, i64> {
    let mut granted: HashMap<WindowKey, i64> = HashMap::new();
    for lease in rows.leases.values() {
        let before = before.get(&lease.id).map_or(0, |before| before.granted);
        *granted.entry(lease.key).or_default() += lease.granted - before;
    }
    granted
}

/// The guard of I3: of all that is granted, nothing is written unless it fits.
pub(super) async fn save_windows(
    tx: &mut PgConnection,
    before: &BTreeMap<WindowKey, WindowRow>,
    rows: &Rows,
    granted: &HashMap<WindowKey, i64>,
) -> Result<(), StoreError> {
    let changed: Vec<(&WindowRow, &WindowRow)> = rows
        .windows
        .iter()
        .filter_map(|(key, after)| Some((before.get(key)?, after)))
        .filter(|(before, after)| before != after)
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let delta = |of: fn(&WindowRow) -> i64| -> Vec<i64> {
        changed.iter().map(|(before, after)| of(after).saturating_sub(of(before))).collect()
    };
    let done = sqlx::query(
        "UPDATE budget_windows w SET outstanding_nanos = w.outstanding_nanos + d.outstanding, \
             settled_nanos = w.settled_nanos + d.settled, overrun_nanos = w.overrun_nanos + d.overrun, \
             aged_nanos = w.aged_nanos + d.aged, aged_overrun_nanos = w.aged_overrun_nanos + d.aged_overrun, \
             users = d.users, starved_at = to_timestamp(d.starved / 1000.0), active_at = to_timestamp(d.active / 1000.0) \
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
                     $8::bigint[], $9::int[], $10::bigint[], $11::bigint[]) \
              AS d (budget_id, start, granted, outstanding, settled, overrun, aged, aged_overrun, users, starved, active) \
         WHERE w.budget_id = d.budget_id AND w.window_start = to_timestamp(d.start) \
             AND (d.granted = 0 OR w.settled_nanos + d.settled + w.outstanding_nanos + d.outstanding \
                                 + w.overrun_nanos + d.overrun <= w.limit_nanos)",
    )
    .bind(changed.iter().map(|(_, it)| it.key.budget.0).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, it)| it.key.start).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, it)| granted.get(&it.key).copied().unwrap_or(0)).collect::<Vec<_>>())
    .bind(delta(|it| it.outstanding))
    .bind(delta(|it| it.settled))
    .bind(delta(|it| it.overrun))
    .bind(delta(|it| it.aged))
    .bind(delta(|it| it.aged_overrun))
    .bind(changed.iter().map(|(_, it)| it.users).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, it)| it.starved_at).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, it)| it.active_at).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    if done.rows_affected() != changed.len() as u64 {
        // Never committed: the caller gives the transaction up.
        let guard = format!("{} of {} windows fit", done.rows_affected(), changed.len());
        return Err(StoreError::Internal(sqlx::Error::Protocol(format!(
            "I3: a grant passes its limit: {guard}"
        ))));
    }
    Ok(())
}

async fn save_slots(tx: &mut PgConnection, rows: &Rows) -> Result<(), StoreError> {
    let (mut budgets, mut orgs, mut hours) = (Vec::new(), Vec::new(), Vec::new());
    let (mut settled, mut overrun) = (Vec::new(), Vec::new());
    for window in rows.windows.values() {
        for (hour, slot) in &window.slots {
            budgets.push(window.key.budget.0);
            orgs.push(window.org.0);
            hours.push(*hour);
            settled.push(slot.settled);
            overrun.push(slot.overrun);
        }
    }
    if budgets.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO budget_slots AS s (budget_id, org_id, hour, settled_nanos, overrun_nanos) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) \
         ON CONFLICT (budget_id, hour) DO UPDATE SET settled_nanos = s.settled_nanos + excluded.settled_nanos, \
             overrun_nanos = s.overrun_nanos + excluded.overrun_nanos",
    )
    .bind(budgets)
    .bind(orgs)
    .bind(hours)
    .bind(settled)
    .bind(overrun)
    .execute(tx)
    .await?;
    Ok(())
}

fn column<T>(leases: &[&LeaseRow], of: impl Fn(&LeaseRow) -> T) -> Vec<T> {
    leases.iter().map(|lease| of(lease)).collect()
}

fn ttl(lease: &LeaseRow) -> i32 {
    i32::try_from(lease.ttl_ms).unwrap_or(i32::MAX)
}

async fn insert_leases(tx: &mut PgConnection, leases: &[&LeaseRow], session: i64) -> Result<(), StoreError> {
    let Some(first) = leases.first() else { return Ok(()) };
    // All are of one node's report.
    sqlx::query(
        "INSERT INTO budget_leases (lease_id, budget_id, org_id, window_start, granted_nanos, asked, ttl_ms, \
                                    session_id, node_id, epoch) \
         SELECT lease_id, budget_id, org_id, to_timestamp(start), granted, asked, ttl_ms, $8, $9, $10 \
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bool[], $7::int[]) \
              AS new (lease_id, budget_id, org_id, start, granted, asked, ttl_ms)",
    )
    .bind(column(leases, |it| it.id.0))
    .bind(column(leases, |it| it.key.budget.0))
    .bind(column(leases, |it| it.org.0))
    .bind(column(leases, |it| it.key.start))
    .bind(column(leases, |it| it.granted))
    .bind(column(leases, |it| it.asked))
    .bind(column(leases, ttl))
    .bind(session)
    .bind(&*first.node_id)
    .bind(first.epoch.cast_signed())
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes new leases of several sessions, and says of which: a session that has one of the window that is open keeps that.
/// The windows are locked.
pub(super) async fn insert_unless_open(
    tx: &mut PgConnection,
    rows: &Rows,
    new: &[(LeaseId, i64)],
) -> Result<HashSet<LeaseId>, StoreError> {
    let of = |(id, session): &(LeaseId, i64)| Some((rows.leases.get(id)?, *session));
    let (leases, sessions): (Vec<&LeaseRow>, Vec<i64>) = new.iter().filter_map(of).unzip();
    if leases.is_empty() {
        return Ok(HashSet::new());
    }
    let inserted: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO budget_leases (lease_id, budget_id, org_id, window_start, granted_nanos, asked, ttl_ms, \
                                    session_id, node_id, epoch) \
         SELECT lease_id, budget_id, org_id, to_timestamp(start), granted, false, ttl_ms, session_id, s.node_id, s.epoch \
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::int[], $7::bigint[]) \
              AS new (lease_id, budget_id, org_id, start, granted, ttl_ms, session_id) \
         JOIN quota_sessions s USING (session_id) \
         ON CONFLICT (session_id, budget_id, window_start) WHERE state = 'active' DO NOTHING RETURNING lease_id",
    )
    .bind(column(&leases, |it| it.id.0))
    .bind(column(&leases, |it| it.key.budget.0))
    .bind(column(&leases, |it| it.org.0))
    .bind(column(&leases, |it| it.key.start))
    .bind(column(&leases, |it| it.granted))
    .bind(column(&leases, ttl))
    .bind(sessions)
    .fetch_all(tx)
    .await?;
    Ok(inserted.into_iter().map(LeaseId).collect())
}

async fn update_leases(tx: &mut PgConnection, leases: &[&LeaseRow]) -> Result<(), StoreError> {
    if leases.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE budget_leases l SET granted_nanos = d.granted, returned_nanos = d.returned, spent_nanos = d.spent, \
             overrun_nanos = d.overrun, forfeited_nanos = d.forfeited, reserved_nanos = d.reserved, \
             state = d.state, asked = d.asked, ttl_ms = d.ttl_ms, held_at = to_timestamp(d.held / 1000.0), \
             closed_at = to_timestamp(d.closed / 1000.0) \
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
                     $8::text[], $9::bool[], $10::int[], $11::bigint[], $12::bigint[]) \
              AS d (lease_id, granted, returned, spent, overrun, forfeited, reserved, state, asked, ttl_ms, held, closed) \
         WHERE l.lease_id = d.lease_id",
    )
    .bind(column(leases, |it| it.id.0))
    .bind(column(leases, |it| it.granted))
    .bind(column(leases, |it| it.returned))
    .bind(column(leases, |it| it.spent))
    .bind(column(leases, |it| it.overrun))
    .bind(column(leases, |it| it.forfeited))
    .bind(column(leases, |it| it.reserved))
    .bind(column(leases, |it| it.state.name()))
    .bind(column(leases, |it| it.asked))
    .bind(column(leases, ttl))
    .bind(column(leases, |it| it.held_at))
    .bind(column(leases, |it| it.closed_at))
    .execute(tx)
    .await?;
    Ok(())
}
