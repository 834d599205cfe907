//! The money of usage events: who is settled, and that it happens once. In the transaction that inserts the rows.
//!
//! A request whose row is new is settled; the row is what makes sure that it is not settled again. Without a row (its
//! day was dropped or is yet to come, or the database refuses it) `usage_unlogged` takes its place. Whether an event whose
//! day was dropped had a row before is told by its place in the node's journal: everything up to the cursor was ingested.

use std::collections::{BTreeMap, HashSet};

use nemo_types::{BudgetId, Nanos, OrgId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Journal, Row};
use crate::{
    ledger::{Entry, Kind},
    quota::SettledCharge,
    store::{StoreError, leases, ledger},
};

/// What became of the charges of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Charges of requests; each request has one per budget.
    pub charges: u64,
    pub nanos: i64,
    /// Beyond what was granted.
    pub overrun_nanos: i64,
    /// Entries of the ledger.
    pub entries: u64,
    /// Budgets of the batch that are gone: what was charged to them is booked, but part of no total.
    pub unknown: u64,
    /// Charges that make no sense, or that the bank refused.
    pub refused: u64,
}

/// Why a request has money but no row in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlogged {
    /// Its day is no longer kept.
    Expired,
    /// It is of a time that is yet to come: its node's clock is wrong.
    Ahead,
    /// The database refused its row.
    Refused,
    /// Nor could its charges be settled.
    Unsettled,
}

impl Unlogged {
    fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Ahead => "ahead",
            Self::Refused => "refused",
            Self::Unsettled => "unsettled",
        }
    }
}

impl Settled {
    /// Adds what became of another part of the batch.
    pub fn add(&mut self, part: &Self) {
        self.charges += part.charges;
        self.nanos = self.nanos.saturating_add(part.nanos);
        self.overrun_nanos = self.overrun_nanos.saturating_add(part.overrun_nanos);
        self.entries += part.entries;
        self.unknown += part.unknown;
        self.refused += part.refused;
    }

    /// None of the rows' charges could be settled.
    pub(super) fn refused(rows: &[&Row]) -> Self {
        let refused = rows.iter().map(|row| row.charged.len() + row.malformed_charges).sum::<usize>();
        Self { refused: refused as u64, ..Self::default() }
    }
}

/// Remembers how far the journal is ingested with these rows, and tells how far it was before. Two streams of one
/// journal, of which the node has given one up, wait for each other here.
pub(super) async fn advance(
    tx: &mut PgConnection,
    journal: &Journal,
    rows: &[Row],
) -> Result<Option<u64>, sqlx::Error> {
    let Some(last) = rows.iter().map(|row| row.seq).max().filter(|seq| *seq > 0) else { return Ok(None) };
    let sql = "INSERT INTO usage_cursors AS it (node_id, epoch, through_seq) VALUES ($1, $2, $3) \
               ON CONFLICT (node_id, epoch) DO UPDATE SET before_seq = it.through_seq, \
                   through_seq = greatest(it.through_seq, EXCLUDED.through_seq), at = now() \
               RETURNING before_seq";
    let before: Option<i64> = sqlx::query_scalar(sql)
        .bind(&journal.node_id)
        .bind(journal.epoch.cast_signed())
        .bind(last.cast_signed())
        .fetch_one(tx)
        .await?;
    Ok(before.map(i64::cast_unsigned))
}

/// Whether the journal was ingested beyond this row before.
fn came_before(row: &Row, seen: Option<u64>) -> bool {
    row.seq > 0 && seen.is_some_and(|through| row.seq <= through)
}

/// Those of the new rows whose charges are to be settled: all, but for those that were settled without a row when they
/// were refused, by the database or because their time was yet to come.
pub(super) async fn due<'a>(
    tx: &mut PgConnection,
    new: impl Iterator<Item = &'a Row>,
    seen: Option<u64>,
) -> Result<Vec<&'a Row>, sqlx::Error> {
    let mut due: Vec<&Row> = new.filter(|row| !row.charged.is_empty() || row.malformed_charges > 0).collect();
    let again: Vec<Uuid> =
        due.iter().filter(|row| came_before(row, seen)).map(|row| row.request_id).collect();
    if !again.is_empty() {
        let sql = "SELECT request_id FROM usage_unlogged WHERE request_id = ANY ($1)";
        let settled: HashSet<Uuid> =
            sqlx::query_scalar(sql).bind(again).fetch_all(tx).await?.into_iter().collect();
        due.retain(|row| !settled.contains(&row.request_id));
    }
    Ok(due)
}

/// Those of the rows of days that are not kept whose charges are to be settled.
pub(super) async fn dayless<'a>(
    tx: &mut PgConnection,
    rows: &[&'a Row],
    seen: Option<u64>,
) -> Result<Vec<&'a Row>, sqlx::Error> {
    let new = rows.iter().copied().filter(|row| !came_before(row, seen));
    let (ahead, expired): (Vec<&Row>, Vec<&Row>) = new.partition(|row| row.is_ahead());
    let mut due = unlogged(&mut *tx, &expired, Unlogged::Expired).await?;
    due.extend(unlogged(tx, &ahead, Unlogged::Ahead).await?);
    Ok(due)
}

/// Notes requests that have no row; those that were not noted before.
pub(super) async fn unlogged<'a>(
    tx: &mut PgConnection,
    rows: &[&'a Row],
    reason: Unlogged,
) -> Result<Vec<&'a Row>, sqlx::Error> {
    let rows: Vec<&Row> = rows.iter().copied().filter(|row| !row.charged.is_empty()).collect();
    if rows.is_empty() {
        return Ok(rows);
    }
    let sql = "INSERT INTO usage_unlogged (request_id, org_id, reason, cost_nanos, charges) \
               SELECT request_id, org_id, $5, cost_nanos, charges \
               FROM UNNEST ($1::uuid[], $2::uuid[], $3::bigint[], $4::text[]) \
               AS new (request_id, org_id, cost_nanos, charges) \
               ON CONFLICT DO NOTHING RETURNING request_id";
    let mut new: HashSet<Uuid> = sqlx::query_scalar(sql)
        .bind(rows.iter().map(|row| row.request_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.org_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.cost_nanos).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.charges.clone()).collect::<Vec<_>>())
        .bind(reason.name())
        .fetch_all(tx)
        .await?
        .into_iter()
        .collect();
    // The same request twice in a batch is one.
    Ok(rows.into_iter().filter(|row| new.remove(&row.request_id)).collect())
}

/// Settles the charges of these rows, all of them new, and books what became of them.
pub(super) async fn settle(tx: &mut PgConnection, rows: &[&Row]) -> Result<Settled, StoreError> {
    let mut settled = Settled::default();
    let mut charges = Vec::new();
    for row in rows {
        settled.refused += row.malformed_charges as u64;
        charges.extend(row.charged.iter().map(|charge| SettledCharge {
            budget_id: charge.budget_id,
            window_start: charge.window_start.unix_timestamp(),
            lease_id: charge.lease_id,
            nanos: charge.nanos.0,
            at: millis(row.started_at),
        }));
    }
    settled.charges = charges.len() as u64;
    let Some(first) = rows.iter().filter(|row| !row.charged.is_empty()).map(|row| row.request_id).min()
    else {
        return Ok(settled);
    };
    let mut entries = leases::settle(tx, &charges).await?;
    let unknown = unknown(rows, &entries);
    settled.unknown = unknown.len() as u64;
    entries.extend(unknown);
    for entry in entries.iter().filter(|entry| matches!(entry.kind, Kind::Settle | Kind::Overrun)) {
        settled.nanos = settled.nanos.saturating_add(entry.nanos.0);
        if entry.kind == Kind::Overrun {
            settled.overrun_nanos = settled.overrun_nanos.saturating_add(entry.nanos.0);
        }
    }
    // Each request is settled once, so no two batches have the same name.
    settled.entries = ledger::book(tx, &format!("usage:{first}"), &entries).await?;
    Ok(settled)
}

/// What was charged to budgets that are gone: there is no total that it could be part of, but it is booked.
fn unknown(rows: &[&Row], entries: &[Entry]) -> Vec<Entry> {
    let mut left: BTreeMap<BudgetId, (i128, OrgId, OffsetDateTime)> = BTreeMap::new();
    for row in rows {
        for charge in &row.charged {
            let left = left.entry(charge.budget_id).or_insert((0, OrgId(row.org_id), charge.window_start));
            left.0 += i128::from(charge.nanos.0);
        }
    }
    for entry in entries.iter().filter(|entry| matches!(entry.kind, Kind::Settle | Kind::Overrun)) {
        if let Some(left) = entry.budget_id.and_then(|budget| left.get_mut(&budget)) {
            left.0 -= i128::from(entry.nanos.0);
        }
    }
    let unknown = left.into_iter().filter(|(_, (nanos, ..))| *nanos > 0);
    unknown
        .map(|(budget, (nanos, org, window))| {
            let nanos = Nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
            let details = Some(serde_json::json!({ "unknown": "the budget was deleted" }));
            Entry { details, ..Entry::of_window(Kind::Settle, org, (budget, window), None, nanos) }
        })
        .collect()
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

#[cfg(test)]
mod tests;
