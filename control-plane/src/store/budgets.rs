//! Budgets: limits of money on an organization, a team or a key. What is spent of them is in `budget_windows`, which the
//! quota service makes and settles; here it is read, and its limit follows the budget's.

pub mod leases;

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, TenantTx,
    page::{page_of, page_query},
};

/// For so long after a node went away empty-handed a budget counts as exhausted: whoever is refused asks again.
pub const STARVED: Duration = Duration::minutes(5);

macro_rules! columns {
    () => {
        "id, org_id, team_id, key_id, name, kind, limit_nanos, window_kind, window_hours, time_zone, over_budget, \
         no_lease, lost_lease, reservation, thresholds, disabled, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct BudgetRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: String,
    /// `limit` or `credit`.
    pub kind: String,
    pub limit_nanos: i64,
    pub window_kind: String,
    pub window_hours: Option<i32>,
    pub time_zone: String,
    pub over_budget: String,
    pub no_lease: String,
    pub lost_lease: String,
    pub reservation: String,
    pub thresholds: Vec<i32>,
    pub disabled: bool,
    pub created_at: OffsetDateTime,
}

pub struct NewBudget<'a> {
    pub id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: &'a str,
    pub limit_nanos: i64,
    pub window_kind: &'a str,
    pub window_hours: Option<i32>,
    pub time_zone: &'a str,
    pub over_budget: &'a str,
    pub no_lease: &'a str,
    pub lost_lease: &'a str,
    pub reservation: &'a str,
    pub thresholds: &'a [i32],
    pub disabled: bool,
}

/// What to change; `None` leaves it.
#[derive(Default)]
pub struct BudgetChange<'a> {
    pub name: Option<&'a str>,
    pub limit_nanos: Option<i64>,
    pub over_budget: Option<&'a str>,
    pub no_lease: Option<&'a str>,
    pub lost_lease: Option<&'a str>,
    pub reservation: Option<&'a str>,
    pub thresholds: Option<&'a [i32]>,
    pub disabled: Option<bool>,
}

/// One window, as the quota service keeps it.
#[derive(Clone, Debug, FromRow)]
pub struct WindowRow {
    pub budget_id: Uuid,
    pub window_start: OffsetDateTime,
    /// `None`: it never ends.
    pub window_end: Option<OffsetDateTime>,
    pub limit_nanos: i64,
    pub settled_nanos: i64,
    pub outstanding_nanos: i64,
    pub overrun_nanos: i64,
    pub starved_at: Option<OffsetDateTime>,
}

impl WindowRow {
    /// Settled, and beyond what was held for it.
    pub fn spent(&self) -> i128 {
        i128::from(self.settled_nanos) + i128::from(self.overrun_nanos)
    }

    /// Everything is spent, or a node lately asked for more than is left while nobody else holds anything.
    pub fn is_exhausted(&self, now: OffsetDateTime) -> bool {
        let starved = self.starved_at.is_some_and(|at| now - at < STARVED);
        self.spent() >= i128::from(self.limit_nanos) || (starved && self.outstanding_nanos == 0)
    }
}

/// A threshold that was crossed and told.
#[derive(Clone, Debug, FromRow)]
pub struct CrossingRow {
    pub budget_id: Uuid,
    pub window_start: OffsetDateTime,
    /// 0: nothing was left.
    pub percent: i32,
    pub limit_nanos: i64,
    pub spent_nanos: i64,
    pub crossed_at: OffsetDateTime,
}

pub async fn insert(tx: &mut TenantTx, new: NewBudget<'_>) -> Result<BudgetRow, StoreError> {
    let sql = concat!(
        "INSERT INTO budgets (id, org_id, team_id, key_id, name, limit_nanos, window_kind, window_hours, time_zone, \
                              over_budget, no_lease, lost_lease, reservation, thresholds, disabled) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(new.id)
        .bind(tx.org().0)
        .bind(new.team_id)
        .bind(new.key_id)
        .bind(new.name)
        .bind(new.limit_nanos)
        .bind(new.window_kind)
        .bind(new.window_hours)
        .bind(new.time_zone)
        .bind(new.over_budget)
        .bind(new.no_lease)
        .bind(new.lost_lease)
        .bind(new.reservation)
        .bind(new.thresholds)
        .bind(new.disabled)
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<BudgetRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM budgets WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Of one team or key, or of the whole organization with everything in it.
pub async fn list(
    tx: &mut TenantTx,
    team: Option<Uuid>,
    key: Option<Uuid>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<BudgetRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM budgets",
        page_of!(
            "",
            "name",
            "org_id = $7 AND ($8::uuid IS NULL OR team_id = $8) AND ($9::uuid IS NULL OR key_id = $9)"
        )
    );
    let org = tx.org().0;
    let rows = page_query(sql, page, filter).bind(org).bind(team).bind(key).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &BudgetRow| row.id))
}

/// How many there are on the same organization, team or key.
pub async fn beside(tx: &mut TenantTx, team: Option<Uuid>, key: Option<Uuid>) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM budgets \
               WHERE org_id = $1 AND team_id IS NOT DISTINCT FROM $2 AND key_id IS NOT DISTINCT FROM $3";
    Ok(sqlx::query_scalar(sql).bind(tx.org().0).bind(team).bind(key).fetch_one(tx.conn()).await?)
}

/// Changes what is `Some`. Whoever changes the limit holds the windows ([`lock_windows`]).
pub async fn update(
    tx: &mut TenantTx,
    id: Uuid,
    change: BudgetChange<'_>,
) -> Result<Option<BudgetRow>, StoreError> {
    let sql = concat!(
        "UPDATE budgets SET name = coalesce($2, name), limit_nanos = coalesce($3, limit_nanos), \
         over_budget = coalesce($4, over_budget), no_lease = coalesce($5, no_lease), \
         lost_lease = coalesce($6, lost_lease), reservation = coalesce($7, reservation), \
         thresholds = coalesce($8, thresholds), disabled = coalesce($9, disabled) WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(change.name)
        .bind(change.limit_nanos)
        .bind(change.over_budget)
        .bind(change.no_lease)
        .bind(change.lost_lease)
        .bind(change.reservation)
        .bind(change.thresholds)
        .bind(change.disabled)
        .fetch_optional(tx.conn())
        .await?)
}

/// False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM budgets WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}

/// The windows of a budget that have not ended at `now`, locked in the order in which everybody locks them: nothing is
/// granted from them or settled to them until this transaction ends.
pub async fn lock_windows(
    tx: &mut TenantTx,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<Vec<WindowRow>, StoreError> {
    let sql = "SELECT budget_id, window_start, window_end, limit_nanos, settled_nanos, outstanding_nanos, \
                      overrun_nanos, starved_at \
               FROM budget_windows WHERE budget_id = $1 AND (window_end IS NULL OR window_end > $2) \
               ORDER BY budget_id, window_start FOR UPDATE";
    Ok(sqlx::query_as(sql).bind(id).bind(now).fetch_all(tx.conn()).await?)
}

/// The limit of windows that have not ended at `now`. After [`update`], which waits for a window that is being made with the
/// limit of before.
pub async fn set_window_limits(
    tx: &mut TenantTx,
    id: Uuid,
    now: OffsetDateTime,
    limit_nanos: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE budget_windows SET limit_nanos = $3 \
               WHERE budget_id = $1 AND (window_end IS NULL OR window_end > $2) AND limit_nanos <> $3";
    sqlx::query(sql).bind(id).bind(now).bind(limit_nanos).execute(tx.conn()).await?;
    Ok(())
}

/// The windows of these budgets that `now` is in; there is none of a budget that nobody has used yet.
pub async fn windows(
    tx: &mut TenantTx,
    budgets: &[Uuid],
    now: OffsetDateTime,
) -> Result<Vec<WindowRow>, StoreError> {
    let sql = "SELECT DISTINCT ON (budget_id) budget_id, window_start, window_end, limit_nanos, settled_nanos, \
                      outstanding_nanos, overrun_nanos, starved_at \
               FROM budget_windows WHERE budget_id = ANY ($1) AND window_start <= $2 \
                    AND (window_end IS NULL OR window_end > $2) \
               ORDER BY budget_id, window_start DESC";
    Ok(sqlx::query_as(sql).bind(budgets).bind(now).fetch_all(tx.conn()).await?)
}

/// What was told about these budgets, by window and percent.
pub async fn crossings(tx: &mut TenantTx, budgets: &[Uuid]) -> Result<Vec<CrossingRow>, StoreError> {
    let sql = "SELECT budget_id, window_start, percent, limit_nanos, spent_nanos, crossed_at FROM budget_crossings \
               WHERE budget_id = ANY ($1) ORDER BY budget_id, window_start, percent";
    Ok(sqlx::query_as(sql).bind(budgets).fetch_all(tx.conn()).await?)
}
