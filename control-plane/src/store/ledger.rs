//! The ledger's table: booking and listing. Called by the usage ingest, the quota bank, credits and re-rating (booking),
//! and by `admin/ops/ledger.rs` (listing).
//!
//! Whoever books moves the total in the same transaction; the ledger is what the totals are checked against.

pub mod verify;

use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, SystemTx, TenantTx};
use crate::ledger::{Entry, Kind};

/// Adds entries in one statement and tells how many were new. What this source has booked before, for the same kind,
/// window and lease, stays as it is: a caller whose entries can come twice must see to its total only when they were
/// new. Entries of zero are not booked.
///
/// # Errors
/// When the database can't be written.
pub async fn book(tx: &mut PgConnection, source: &str, entries: &[Entry]) -> Result<u64, StoreError> {
    let entries: Vec<&Entry> = entries.iter().filter(|entry| entry.nanos.0 != 0).collect();
    if entries.is_empty() {
        return Ok(0);
    }
    // Arrays of one type each: `UNNEST` makes the rows.
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.name()).collect();
    let orgs: Vec<Uuid> = entries.iter().map(|entry| entry.org_id.0).collect();
    let budgets: Vec<Option<Uuid>> = entries.iter().map(|entry| entry.budget_id.map(|id| id.0)).collect();
    let windows: Vec<Option<OffsetDateTime>> = entries.iter().map(|entry| entry.window_start).collect();
    let leases: Vec<Option<Uuid>> = entries.iter().map(|entry| entry.lease_id.map(|id| id.0)).collect();
    let nanos: Vec<i64> = entries.iter().map(|entry| entry.nanos.0).collect();
    let details: Vec<Option<String>> =
        entries.iter().map(|entry| entry.details.as_ref().map(ToString::to_string)).collect();
    let sql = "INSERT INTO ledger_entries (kind, org_id, budget_id, window_start, lease_id, nanos, source, details) \
               SELECT kind, org_id, budget_id, window_start, lease_id, nanos, $8, details::jsonb \
               FROM UNNEST ($1::text[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::uuid[], $6::bigint[], \
                            $7::text[]) \
               AS new (kind, org_id, budget_id, window_start, lease_id, nanos, details) \
               ON CONFLICT ON CONSTRAINT ledger_entries_once DO NOTHING";
    let done = sqlx::query(sql)
        .bind(kinds)
        .bind(orgs)
        .bind(budgets)
        .bind(windows)
        .bind(leases)
        .bind(nanos)
        .bind(details)
        .bind(source)
        .execute(tx)
        .await?;
    Ok(done.rows_affected())
}

/// An entry as it was booked.
#[derive(Clone, Debug, FromRow)]
pub struct EntryRow {
    pub id: i64,
    pub at: OffsetDateTime,
    pub kind: String,
    pub org_id: Uuid,
    pub budget_id: Option<Uuid>,
    pub window_start: Option<OffsetDateTime>,
    pub lease_id: Option<Uuid>,
    pub nanos: i64,
    pub source: String,
    /// JSON.
    pub details: Option<String>,
}

/// Which entries; `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub kind: Option<Kind>,
    pub budget: Option<Uuid>,
    pub lease: Option<Uuid>,
    pub source: Option<String>,
    /// Booked then or later.
    pub after: Option<OffsetDateTime>,
    /// Booked earlier than then.
    pub before: Option<OffsetDateTime>,
}

/// Entries of the transaction's organization, newest first, at most `limit` with an id below `position`.
///
/// # Errors
/// When the database can't be read.
pub async fn of_organization(
    tx: &mut TenantTx,
    filter: &Filter,
    position: Option<i64>,
    limit: i64,
) -> Result<Vec<EntryRow>, StoreError> {
    let org = tx.org().0;
    Ok(search(Some(org), filter, position, limit).build_query_as().fetch_all(tx.conn()).await?)
}

/// Entries of all organizations, newest first, at most `limit` with an id below `position`.
///
/// # Errors
/// When the database can't be read.
pub async fn of_all(
    tx: &mut SystemTx,
    filter: &Filter,
    position: Option<i64>,
    limit: i64,
) -> Result<Vec<EntryRow>, StoreError> {
    Ok(search(None, filter, position, limit).build_query_as().fetch_all(tx.conn()).await?)
}

/// Only fixed words become SQL; whatever a caller sent is a parameter.
fn search(org: Option<Uuid>, filter: &Filter, position: Option<i64>, limit: i64) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "SELECT id, at, kind, org_id, budget_id, window_start, lease_id, nanos, source, details::text AS details \
         FROM ledger_entries WHERE true",
    );
    for (column, id) in [("org_id", org), ("budget_id", filter.budget), ("lease_id", filter.lease)] {
        if let Some(id) = id {
            sql.push(format_args!(" AND {column} = ")).push_bind(id);
        }
    }
    if let Some(kind) = filter.kind {
        sql.push(" AND kind = ").push_bind(kind.name());
    }
    if let Some(source) = &filter.source {
        sql.push(" AND source = ").push_bind(source.clone());
    }
    if let Some(at) = filter.after {
        sql.push(" AND at >= ").push_bind(at);
    }
    if let Some(at) = filter.before {
        sql.push(" AND at < ").push_bind(at);
    }
    if let Some(position) = position {
        sql.push(" AND id < ").push_bind(position);
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    sql
}
