//! An organization's prepaid balance: the one window of its budget of kind `credit`, whose limit is moved here and
//! nowhere else. Every movement is booked once for its source, in one transaction with its ledger entry, its row for
//! people, and the event that tells of it.
//!
//! Called by `admin/ops/credits.rs`, by the payments ([`crate::credits::payments`]) and by `credits/job.rs`.

use nemo_types::{BudgetId, Nanos, OrgId};
use serde_json::json;
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Listed, Page, StoreError, SystemTx, TenantTx, ledger, webhooks};
use crate::{
    ledger::{Entry, Kind},
    webhooks::event_types,
};

/// Windows without beginning start in 1970: `quota/window.rs`.
const WINDOW_START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// Where a balance stands. All zero before anything was booked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Balance {
    /// `None`: the organization is not prepaid.
    pub budget_id: Option<Uuid>,
    pub limit_nanos: i64,
    pub settled_nanos: i64,
    /// Held by nodes.
    pub outstanding_nanos: i64,
    pub overrun_nanos: i64,
}

impl Balance {
    /// What is not spent, whoever holds it. Saturates, far beyond what can be booked.
    pub fn balance(&self) -> Nanos {
        Nanos(self.limit_nanos.saturating_sub(self.settled_nanos).saturating_sub(self.overrun_nanos))
    }

    /// What neither is spent nor held by nodes: what can be refunded.
    pub fn available(&self) -> Nanos {
        Nanos(self.balance().0.saturating_sub(self.outstanding_nanos).max(0))
    }
}

/// What a movement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    Purchase,
    Grant,
    /// Of what is available, or nothing.
    Refund,
    /// The payment was paid back already, spent or not: the balance may go below zero.
    ForcedRefund,
}

impl Movement {
    fn ledger(self) -> Kind {
        match self {
            Self::Purchase => Kind::Purchase,
            Self::Grant => Kind::Grant,
            Self::Refund | Self::ForcedRefund => Kind::Refund,
        }
    }

    fn is_refund(self) -> bool {
        self.ledger() == Kind::Refund
    }
}

/// What is to be booked.
#[derive(Clone, Copy, Debug)]
pub struct NewMovement<'a> {
    pub org: OrgId,
    pub movement: Movement,
    /// More than zero, also of a refund.
    pub amount: Nanos,
    /// Paid on top, or given back with it. Not negative.
    pub fee: Nanos,
    pub tier: &'a str,
    /// At most 200 bytes.
    pub source: &'a str,
    pub reason: &'a str,
    pub payment_id: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct MovementRow {
    pub id: Uuid,
    pub org_id: Uuid,
    /// purchase, grant, refund.
    pub kind: String,
    /// Negative: a refund.
    pub nanos: i64,
    pub fee_nanos: i64,
    pub tier: String,
    pub source: String,
    pub reason: String,
    pub payment_id: String,
    pub created_at: OffsetDateTime,
}

macro_rules! columns {
    () => {
        "id, org_id, kind, nanos, fee_nanos, tier, source, reason, payment_id, created_at"
    };
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    New(MovementRow),
    /// The source was booked before, as this. Nothing was changed.
    Before(MovementRow),
    /// A refund of more than is available. Nothing was changed.
    Short {
        available: Nanos,
    },
    /// The sum would be more than an amount can be. Nothing was changed.
    TooMuch,
}

/// Books a movement. The organization must exist.
///
/// # Errors
/// When the database can't be written; then nothing may be committed.
pub async fn apply(tx: &mut SystemTx, new: &NewMovement<'_>) -> Result<Applied, StoreError> {
    // Configuration before windows, as everywhere; else the empty balance could be taken back ([`require`]) at the moment in
    // which it is paid into, with what was paid.
    tx.serialize_config().await?;
    let conn = tx.conn();
    let org = new.org.0;
    let budget = match (budget_of(conn, org).await?, new.movement.is_refund()) {
        (Some(budget), _) => budget,
        (None, true) => return Ok(Applied::Short { available: Nanos::ZERO }),
        (None, false) => open(conn, org).await?,
    };
    // From here on all movements of this balance come after each other, and nothing is granted from it.
    let balance = lock(conn, org, budget).await?;
    if let Some(before) = of_source(conn, org, new.source).await? {
        return Ok(Applied::Before(before));
    }
    let change = if new.movement.is_refund() { -new.amount.0 } else { new.amount.0 };
    if new.movement == Movement::Refund && new.amount > balance.available() {
        return Ok(Applied::Short { available: balance.available() });
    }
    if balance.limit_nanos.checked_add(change).is_none_or(|limit| limit > i64::MAX / 2) {
        return Ok(Applied::TooMuch);
    }
    let sql = "UPDATE budget_windows SET limit_nanos = limit_nanos + $3, active_at = now() \
               WHERE budget_id = $1 AND window_start = $2";
    sqlx::query(sql).bind(budget).bind(WINDOW_START).bind(change).execute(&mut *conn).await?;
    let row = insert(conn, new, change).await?;
    ledger::book(conn, &ledger_source(&row), &entries(new, &row, budget)).await?;
    tell(conn, &row, Nanos(balance.balance().0 + change)).await?;
    Ok(Applied::New(row))
}

/// The credit budget, made if there is none: from then on the organization is served from its balance only. Whoever calls
/// holds the configuration.
pub(in crate::store) async fn open(conn: &mut PgConnection, org: Uuid) -> Result<Uuid, StoreError> {
    // A budget of the organization's own may have the name already.
    let sql = "INSERT INTO budgets (id, org_id, name, kind, limit_nanos, window_kind) \
               SELECT $1, $2, CASE WHEN EXISTS (SELECT FROM budgets WHERE org_id = $2 AND name = 'credit') \
                   THEN 'credit ' || $1::text ELSE 'credit' END, 'credit', 0, 'total' \
               ON CONFLICT (org_id) WHERE kind = 'credit' DO NOTHING";
    sqlx::query(sql).bind(BudgetId::generate().0).bind(org).execute(&mut *conn).await?;
    let made = budget_of(conn, org).await?;
    made.ok_or_else(|| StoreError::Internal(sqlx::Error::RowNotFound))
}

async fn budget_of(conn: &mut PgConnection, org: Uuid) -> Result<Option<Uuid>, StoreError> {
    let sql = "SELECT id FROM budgets WHERE org_id = $1 AND kind = 'credit'";
    Ok(sqlx::query_scalar(sql).bind(org).fetch_optional(conn).await?)
}

/// The balance, held until the transaction ends. The quota bank may not have made the window yet.
async fn lock(conn: &mut PgConnection, org: Uuid, budget: Uuid) -> Result<Balance, StoreError> {
    let make = "INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos) VALUES ($1, $2, $3, 0) \
                ON CONFLICT DO NOTHING";
    sqlx::query(make).bind(budget).bind(org).bind(WINDOW_START).execute(&mut *conn).await?;
    let sql = "SELECT budget_id, limit_nanos, settled_nanos, outstanding_nanos, overrun_nanos FROM budget_windows \
               WHERE budget_id = $1 AND window_start = $2 FOR UPDATE";
    Ok(sqlx::query_as(sql).bind(budget).bind(WINDOW_START).fetch_one(conn).await?)
}

async fn of_source(
    conn: &mut PgConnection,
    org: Uuid,
    source: &str,
) -> Result<Option<MovementRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM credit_movements WHERE org_id = $1 AND source = $2");
    Ok(sqlx::query_as(sql).bind(org).bind(source).fetch_optional(conn).await?)
}

async fn insert(
    conn: &mut PgConnection,
    new: &NewMovement<'_>,
    change: i64,
) -> Result<MovementRow, StoreError> {
    let sql = concat!(
        "INSERT INTO credit_movements (id, org_id, kind, nanos, fee_nanos, tier, source, reason, payment_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ",
        columns!()
    );
    let fee = if new.movement.is_refund() { -new.fee.0 } else { new.fee.0 };
    Ok(sqlx::query_as(sql)
        .bind(Uuid::now_v7())
        .bind(new.org.0)
        .bind(new.movement.ledger().name())
        .bind(change)
        .bind(fee)
        .bind(new.tier)
        .bind(new.source)
        .bind(new.reason)
        .bind(new.payment_id)
        .fetch_one(conn)
        .await?)
}

/// Sources of the ledger are unique over all organizations; those of movements within one.
fn ledger_source(row: &MovementRow) -> String {
    format!("credit:{}", row.id)
}

/// The fee is part of no total, so it names no window.
fn entries(new: &NewMovement<'_>, row: &MovementRow, budget: Uuid) -> Vec<Entry> {
    let details = json!({ "source": row.source, "reason": row.reason, "payment_id": row.payment_id });
    let kind = new.movement.ledger();
    let of_window = Entry::of_window(kind, new.org, (BudgetId(budget), WINDOW_START), None, Nanos(row.nanos));
    let fee = Entry {
        kind: Kind::Fee,
        budget_id: None,
        window_start: None,
        nanos: Nanos(row.fee_nanos),
        details: Some(details.clone()),
        ..of_window.clone()
    };
    // The ledger leaves out entries of zero.
    vec![Entry { details: Some(details), ..of_window }, fee]
}

async fn tell(conn: &mut PgConnection, row: &MovementRow, balance: Nanos) -> Result<(), StoreError> {
    let event_type = match row.kind.as_str() {
        "purchase" => event_types::CREDITS_PURCHASED,
        "grant" => event_types::CREDITS_GRANTED,
        _ => event_types::CREDITS_REFUNDED,
    };
    let data = json!({
        "org_id": row.org_id, "movement_id": row.id, "amount_usd": Nanos(row.nanos).to_string(),
        "fee_usd": Nanos(row.fee_nanos).to_string(), "balance_usd": balance.to_string(),
        "source": row.source, "payment_id": row.payment_id,
    });
    let key = format!("{event_type}:{}", row.id);
    webhooks::enqueue_on(conn, row.org_id, event_type, &key, &data).await.map(drop)
}

/// The balance of the transaction's organization.
pub async fn balance(tx: &mut TenantTx) -> Result<Balance, StoreError> {
    let sql = "SELECT b.id AS budget_id, coalesce(w.limit_nanos, 0) AS limit_nanos, \
               coalesce(w.settled_nanos, 0) AS settled_nanos, coalesce(w.outstanding_nanos, 0) AS outstanding_nanos, \
               coalesce(w.overrun_nanos, 0) AS overrun_nanos \
               FROM budgets b LEFT JOIN budget_windows w ON w.budget_id = b.id AND w.window_start = $2 \
               WHERE b.org_id = $1 AND b.kind = 'credit'";
    let org = tx.org().0;
    let found: Option<Balance> =
        sqlx::query_as(sql).bind(org).bind(WINDOW_START).fetch_optional(tx.conn()).await?;
    Ok(found.unwrap_or_default())
}

/// One movement of the transaction's organization.
pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<MovementRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM credit_movements WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Newest first. `page.after` is the id of the last of the page before.
pub async fn list(
    tx: &mut TenantTx,
    kind: Option<&str>,
    page: Page,
) -> Result<Listed<MovementRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM credit_movements WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2) \
         AND ($4::text IS NULL OR kind = $4) ORDER BY id DESC LIMIT $3"
    );
    let org = tx.org().0;
    let rows = sqlx::query_as(sql)
        .bind(org)
        .bind(page.after)
        .bind(page.limit())
        .bind(kind)
        .fetch_all(tx.conn())
        .await?;
    Ok(Listed::new(rows, page, |row: &MovementRow| row.id))
}

/// Organizations `o`, and whether the setting asks for credit: their own wins over the installation's.
macro_rules! requirements {
    () => {
        "SELECT o.id, coalesce(own.value, everybody.value, 'false'::jsonb) = 'true'::jsonb AS required \
         FROM organizations o \
         LEFT JOIN settings own ON own.org_id = o.id AND own.key = 'credits.required' \
         LEFT JOIN settings everybody ON everybody.org_id IS NULL AND everybody.key = 'credits.required' \
         WHERE ($1::uuid IS NULL OR o.id = $1)"
    };
}

/// Makes `org`, or everybody with `None`, served from credit only where the setting says so, and takes that back where
/// it doesn't any more and nothing was ever booked.
pub async fn require(tx: &mut SystemTx, org: Option<Uuid>) -> Result<(), StoreError> {
    tx.serialize_config().await?;
    let missing = concat!(
        "SELECT r.id FROM (",
        requirements!(),
        ") r WHERE r.required AND NOT EXISTS (SELECT FROM budgets b WHERE b.org_id = r.id AND b.kind = 'credit')"
    );
    let missing: Vec<Uuid> = sqlx::query_scalar(missing).bind(org).fetch_all(tx.conn()).await?;
    for org in missing {
        open(tx.conn(), org).await?;
    }
    let gone = concat!(
        "DELETE FROM budgets b USING (",
        requirements!(),
        ") r WHERE b.org_id = r.id AND b.kind = 'credit' AND NOT r.required \
         AND NOT EXISTS (SELECT FROM credit_movements m WHERE m.org_id = r.id)"
    );
    sqlx::query(gone).bind(org).execute(tx.conn()).await?;
    Ok(())
}

/// Organizations whose balance went below what they set, or above it again, since that was last looked at. At most
/// `most`.
pub async fn crossings(tx: &mut SystemTx, most: i64) -> Result<Vec<Crossing>, StoreError> {
    let sql = "SELECT * FROM ( \
                   SELECT b.org_id, w.limit_nanos - w.settled_nanos - w.overrun_nanos AS balance_nanos, t.below, \
                          coalesce(a.low, false) AS was_low, coalesce(a.falls, 0) AS falls \
                   FROM budgets b JOIN budget_windows w ON w.budget_id = b.id AND w.window_start = $1 \
                   LEFT JOIN settings own ON own.org_id = b.org_id AND own.key = 'credits.low_balance' \
                   LEFT JOIN settings everybody ON everybody.org_id IS NULL AND everybody.key = 'credits.low_balance' \
                   LEFT JOIN credit_alerts a ON a.org_id = b.org_id, \
                   LATERAL (SELECT ((coalesce(own.value, everybody.value) #>> '{}')::numeric * 1000000000)::bigint AS below) t \
                   WHERE b.kind = 'credit' \
               ) seen WHERE (coalesce(balance_nanos < below, false)) <> was_low LIMIT $2";
    Ok(sqlx::query_as(sql).bind(WINDOW_START).bind(most).fetch_all(tx.conn()).await?)
}

/// A balance that crossed what it should not be below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Crossing {
    pub org_id: Uuid,
    pub balance_nanos: i64,
    /// `None`: nothing is set any more.
    pub below: Option<i64>,
    pub was_low: bool,
    /// How often it fell below before.
    pub falls: i64,
}

/// Notes a crossing and, of a fall, tells the organization. False: another replica did so.
pub async fn cross(tx: &mut SystemTx, crossing: &Crossing) -> Result<bool, StoreError> {
    let falls = crossing.falls + i64::from(!crossing.was_low);
    let sql = "INSERT INTO credit_alerts (org_id, low, falls) VALUES ($1, $2, $3) \
               ON CONFLICT (org_id) DO UPDATE SET low = EXCLUDED.low, falls = EXCLUDED.falls \
               WHERE credit_alerts.low <> EXCLUDED.low";
    let org = crossing.org_id;
    let done = sqlx::query(sql).bind(org).bind(!crossing.was_low).bind(falls).execute(tx.conn()).await?;
    if done.rows_affected() == 0 || crossing.was_low {
        return Ok(done.rows_affected() > 0);
    }
    let data = json!({
        "org_id": org, "balance_usd": Nanos(crossing.balance_nanos).to_string(),
        "below_usd": Nanos(crossing.below.unwrap_or_default()).to_string(),
    });
    let event_type = event_types::CREDITS_LOW;
    webhooks::enqueue(tx, org, event_type, &format!("{event_type}:{falls}"), &data).await
}

#[cfg(test)]
mod tests;
