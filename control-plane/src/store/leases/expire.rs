//! What time does to leases: nodes are lost, windows end, hours of rolling windows pass. Run by the reclaimer; each run
//! does a bounded part and says what.

use std::{collections::HashMap, sync::atomic::Ordering};

use nemo_types::{BudgetId, LeaseId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    SqlBank, close_all,
    rows::{self, LeaseColumns, lease_columns},
};
use crate::{
    ledger::Kind,
    quota::{
        bank::{Expired, FORGET_MS},
        books::{self, LeaseRow, Millis, Slot, WindowKey, hour_of},
        desk::Rows,
    },
    store::StoreError,
};

/// Leases, or hours, of one transaction.
const BATCH: i64 = 500;
/// How far back ended windows are looked at after a start.
const LOOK_BACK_MS: Millis = 40 * 24 * 3_600_000;
/// Of the shortest time to live that a lease may have.
const SHORTEST_TTL_MS: Millis = 10_000;

pub(super) async fn run(bank: &SqlBank) -> Result<Expired, StoreError> {
    let mut expired = Expired { held: hold_silent(bank).await?, ..Expired::default() };
    expired.held += hold_over(bank).await?;
    close_waiting(bank, &mut expired).await?;
    expired.aged = age(bank).await?;
    expired.forgotten = forget(bank).await?;
    Ok(expired)
}

/// Finds leases of nodes that have been silent for longer than the lease lasts.
async fn hold_silent(bank: &SqlBank) -> Result<u64, StoreError> {
    let mut tx = bank.store.system().await?;
    let now = bank.now(tx.conn()).await?;
    let margin = bank.settings.margin_ms();
    let sql = lease_columns!(
        "SELECT",
        "FROM quota_sessions s JOIN budget_leases l ON l.session_id = s.session_id AND l.state = 'active' \
         WHERE s.renewed_at < to_timestamp(($1::bigint - $2::bigint - $3::bigint) / 1000.0) \
             AND s.renewed_at + l.ttl_ms * interval '1 millisecond' < to_timestamp(($1::bigint - $2::bigint) / 1000.0) \
         LIMIT $4"
    );
    let silent: Vec<LeaseColumns> = sqlx::query_as(sql)
        .bind(now)
        .bind(margin)
        .bind(SHORTEST_TTL_MS)
        .bind(BATCH)
        .fetch_all(tx.conn())
        .await?;
    let silent: Vec<LeaseRow> = silent.into_iter().map(LeaseRow::from).collect();
    // Renewed in the meantime: it is looked at again under the lock of the session.
    let ids: Vec<Uuid> = silent.iter().map(|lease| lease.id.0).collect();
    let held = hold(tx.conn(), &silent, now).await?;
    let revived: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM quota_sessions s JOIN budget_leases l ON l.session_id = s.session_id \
         WHERE l.lease_id = ANY ($1) \
             AND s.renewed_at + l.ttl_ms * interval '1 millisecond' >= to_timestamp(($2::bigint - $3::bigint) / 1000.0)",
    )
    .bind(ids)
    .bind(now)
    .bind(margin)
    .fetch_one(tx.conn())
    .await?;
    if revived > 0 {
        // Rolled back; the next run finds only those that are silent still.
        return Ok(0);
    }
    tx.commit().await?;
    Ok(held)
}

/// Finds leases of windows that ended so long ago that all events should have come.
async fn hold_over(bank: &SqlBank) -> Result<u64, StoreError> {
    let mut tx = bank.store.system().await?;
    let now = bank.now(tx.conn()).await?;
    let to = now - bank.settings.margin_ms() - bank.settings.hold_ms();
    let from = bank.memory.over_until.load(Ordering::Relaxed).max(now - LOOK_BACK_MS);
    let sql = lease_columns!(
        "SELECT",
        "FROM budget_windows w JOIN budget_leases l ON l.budget_id = w.budget_id AND l.window_start = w.window_start \
         WHERE w.window_end > to_timestamp($1::bigint / 1000.0) AND w.window_end <= to_timestamp($2::bigint / 1000.0) \
             AND l.state = 'active' LIMIT $3"
    );
    let over: Vec<LeaseColumns> =
        sqlx::query_as(sql).bind(from).bind(to).bind(BATCH).fetch_all(tx.conn()).await?;
    let over: Vec<LeaseRow> = over.into_iter().map(LeaseRow::from).collect();
    let held = hold(tx.conn(), &over, now).await?;
    tx.commit().await?;
    if over.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
        bank.memory.over_until.store(to, Ordering::Relaxed);
    }
    Ok(held)
}

async fn hold(tx: &mut PgConnection, found: &[LeaseRow], now: Millis) -> Result<u64, StoreError> {
    if found.is_empty() {
        return Ok(0);
    }
    let keys: Vec<WindowKey> = found.iter().map(|lease| lease.key).collect();
    let ids: Vec<LeaseId> = found.iter().map(|lease| lease.id).collect();
    let before = rows::lock(tx, &keys).await?;
    let mut rows = Rows::of(before.clone());
    let leases = rows::leases(tx, &ids).await?;
    let old: HashMap<LeaseId, LeaseRow> = leases.iter().map(|it| (it.id, it.clone())).collect();
    leases.into_iter().for_each(|lease| rows.insert(lease));
    for id in ids {
        if let Some((window, lease)) = rows.both(id) {
            books::hold(window, lease, now);
        }
    }
    rows::save(tx, (&before, &old), &rows, 0).await?;
    Ok(found.len() as u64)
}

/// Closes leases that have waited for events long enough.
async fn close_waiting(bank: &SqlBank, expired: &mut Expired) -> Result<(), StoreError> {
    let mut tx = bank.store.system().await?;
    let now = bank.now(tx.conn()).await?;
    let sql = lease_columns!(
        "SELECT",
        "FROM budget_leases l WHERE l.state IN ('done', 'held') AND l.held_at < to_timestamp($1::bigint / 1000.0) \
         ORDER BY l.held_at LIMIT $2"
    );
    let before = now - bank.settings.hold_ms();
    let waiting: Vec<LeaseColumns> =
        sqlx::query_as(sql).bind(before).bind(BATCH).fetch_all(tx.conn()).await?;
    let waiting: Vec<LeaseRow> = waiting.into_iter().map(LeaseRow::from).collect();
    let entries = close_all(tx.conn(), &waiting, now, |_, lost| lost).await?;
    tx.commit().await?;
    expired.closed += waiting.len() as u64;
    let forfeits = entries.iter().filter(|entry| entry.kind == Kind::Forfeit);
    expired.forfeited = expired.forfeited.saturating_add(forfeits.map(|entry| entry.nanos.0).sum());
    Ok(())
}

/// Takes hours that are over out of rolling windows: those before the [oldest](books::WindowRow::oldest_hour) that counts.
async fn age(bank: &SqlBank) -> Result<u64, StoreError> {
    let mut tx = bank.store.system().await?;
    let now = bank.now(tx.conn()).await?;
    let sql = "SELECT s.budget_id, s.hour FROM budget_slots s JOIN budget_windows w ON w.budget_id = s.budget_id \
                   AND w.window_start = to_timestamp(0) \
               WHERE s.hour < $1 - w.rolling_hours LIMIT $2";
    let old: Vec<(Uuid, i64)> =
        sqlx::query_as(sql).bind(hour_of(now)).bind(BATCH).fetch_all(tx.conn()).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let key = |budget: Uuid| WindowKey { budget: BudgetId(budget), start: crate::quota::window::EVER };
    let keys: Vec<WindowKey> = old.iter().map(|(budget, _)| key(*budget)).collect();
    let before = rows::lock(tx.conn(), &keys).await?;
    // Under the lock of the window: what is deleted is what was taken out.
    let (budgets, hours): (Vec<Uuid>, Vec<i64>) = old.into_iter().unzip();
    let gone: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "DELETE FROM budget_slots s USING unnest($1::uuid[], $2::bigint[]) AS o (budget_id, hour) \
         WHERE s.budget_id = o.budget_id AND s.hour = o.hour \
         RETURNING s.budget_id, s.settled_nanos, s.overrun_nanos",
    )
    .bind(budgets)
    .bind(hours)
    .fetch_all(tx.conn())
    .await?;
    let mut rows = Rows::of(before.clone());
    for (budget, settled, overrun) in &gone {
        if let Some(window) = rows.windows.get_mut(&key(*budget)) {
            books::age_out(window, Slot { settled: *settled, overrun: *overrun });
        }
    }
    rows::save(tx.conn(), (&before, &HashMap::new()), &rows, 0).await?;
    tx.commit().await?;
    Ok(gone.len() as u64)
}

/// Deletes what no event can come for any more.
async fn forget(bank: &SqlBank) -> Result<u64, StoreError> {
    let mut tx = bank.store.system().await?;
    let before = bank.now(tx.conn()).await? - FORGET_MS;
    let sql = "DELETE FROM budget_leases WHERE lease_id IN (SELECT lease_id FROM budget_leases \
               WHERE state = 'closed' AND closed_at < to_timestamp($1::bigint / 1000.0) LIMIT $2)";
    let leases = sqlx::query(sql).bind(before).bind(BATCH).execute(tx.conn()).await?.rows_affected();
    // The newest epoch of each node stays, so that an older one stays fenced.
    let sql = "DELETE FROM quota_sessions s WHERE renewed_at < to_timestamp($1::bigint / 1000.0) \
               AND epoch < (SELECT max(epoch) FROM quota_sessions o WHERE o.node_id = s.node_id) \
               AND NOT EXISTS (SELECT FROM budget_leases l WHERE l.session_id = s.session_id AND l.state = 'active')";
    let sessions = sqlx::query(sql).bind(before).execute(tx.conn()).await?.rows_affected();
    sqlx::query("DELETE FROM rate_demand WHERE at < to_timestamp($1::bigint / 1000.0)")
        .bind(before)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(leases + sessions)
}
