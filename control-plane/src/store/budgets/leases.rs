//! What nodes hold of a budget, for operators to see. Leases are made and changed by `quota/`.

use nemo_types::LeaseId;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Listed, Page, StoreError, SystemTx, TenantTx};

macro_rules! columns {
    () => {
        "lease_id, org_id, budget_id, node_id, epoch, window_start, state, granted_nanos, returned_nanos, spent_nanos, \
         overrun_nanos, forfeited_nanos, reserved_nanos"
    };
}

/// Amounts are cumulative over the life of the lease.
#[derive(Clone, Debug, FromRow)]
pub struct LeaseRow {
    pub lease_id: Uuid,
    pub org_id: Uuid,
    pub budget_id: Uuid,
    pub node_id: String,
    pub epoch: i64,
    pub window_start: OffsetDateTime,
    pub state: String,
    pub granted_nanos: i64,
    pub returned_nanos: i64,
    pub spent_nanos: i64,
    pub overrun_nanos: i64,
    pub forfeited_nanos: i64,
    /// As the node last said.
    pub reserved_nanos: i64,
}

/// Of one budget: in one state, or all that are not closed.
pub async fn list(
    tx: &mut TenantTx,
    budget: Uuid,
    state: Option<&str>,
    page: Page,
) -> Result<Listed<LeaseRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM budget_leases WHERE budget_id = $3 AND ($1::uuid IS NULL OR lease_id > $1) \
         AND CASE WHEN $4::text IS NULL THEN state <> 'closed' ELSE state = $4 END ORDER BY lease_id LIMIT $2"
    );
    let query = sqlx::query_as(sql).bind(page.after).bind(page.limit()).bind(budget).bind(state);
    Ok(Listed::new(query.fetch_all(tx.conn()).await?, page, |row: &LeaseRow| row.lease_id))
}

/// A lease of a budget of the organization.
pub async fn get(
    tx: &mut SystemTx,
    org: Uuid,
    budget: Uuid,
    lease: Uuid,
) -> Result<Option<LeaseRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM budget_leases WHERE lease_id = $1 AND budget_id = $2 AND org_id = $3"
    );
    Ok(sqlx::query_as(sql).bind(lease).bind(budget).bind(org).fetch_optional(tx.conn()).await?)
}

/// Gives back what a lost lease holds or was charged for, and books it.
pub async fn release(tx: &mut SystemTx, lease: Uuid) -> Result<(), StoreError> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let now: i64 = sqlx::query_scalar(sql).fetch_one(tx.conn()).await?;
    crate::store::leases::release(tx.conn(), LeaseId(lease), now).await?;
    Ok(())
}

/// What requests in flight hold of each window of these budgets.
pub async fn reserved(
    tx: &mut TenantTx,
    budgets: &[Uuid],
) -> Result<Vec<(Uuid, OffsetDateTime, i64)>, StoreError> {
    let sql = "SELECT budget_id, window_start, least(sum(reserved_nanos), 9223372036854775807)::bigint \
               FROM budget_leases WHERE budget_id = ANY ($1) AND state = 'active' GROUP BY 1, 2";
    Ok(sqlx::query_as(sql).bind(budgets).fetch_all(tx.conn()).await?)
}
