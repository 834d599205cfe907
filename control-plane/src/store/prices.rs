//! The price book: immutable prices of models at providers, each in effect from a time on. Called by
//! [`super::catalog`], the admin operations of prices, the price clock, and re-rating.
//!
//! What was in effect at a time: of the rows that had begun by then the one that began last, and of those the one that
//! was written last. A row that was entered for the past takes the place of those that were in effect since then; what
//! is scheduled for later still comes.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{OwnerTx, StoreError, SystemTx};

/// The columns of [`Amounts`], of the table or alias `p`.
macro_rules! amounts {
    () => {
        "p.input, p.output, p.cache_read, p.cache_write, p.cache_write_1h, p.reasoning, p.units, p.steps"
    };
}
pub(super) use amounts;

/// Nano-USD per million tokens; `None` is unknown, which is not free.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    pub input: Option<i64>,
    pub output: Option<i64>,
    pub cache_read: Option<i64>,
    pub cache_write: Option<i64>,
    pub cache_write_1h: Option<i64>,
    pub reasoning: Option<i64>,
    /// As [`super::units`] writes them.
    pub units: Option<String>,
    /// Likewise.
    pub steps: Option<String>,
}

impl Amounts {
    /// True when no price is known at all: then there is no price row either.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// A price to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewPrice<'a> {
    pub provider: &'a str,
    pub model_id: &'a str,
    pub amounts: &'a Amounts,
    pub effective_from: OffsetDateTime,
    /// `None`: `<provider>/<model>@<effective_from>`.
    pub id: Option<&'a str>,
}

/// One price of the book.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct PriceRow {
    pub id: String,
    pub provider: String,
    pub model_id: String,
    pub effective_from: OffsetDateTime,
    pub created_at: OffsetDateTime,
    #[sqlx(flatten)]
    pub amounts: Amounts,
    /// The offering has it now.
    pub current: bool,
    pub scheduled: bool,
    pub withdrawn: bool,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.provider, p.model_id, p.effective_from, p.created_at, ",
            amounts!(),
            ", EXISTS (SELECT FROM model_offerings o WHERE o.model_id = p.model_id AND o.provider = p.provider \
               AND o.price_id = p.id) AS current, \
             EXISTS (SELECT FROM scheduled_prices s WHERE s.price_id = p.id) AS scheduled, \
             EXISTS (SELECT FROM withdrawn_prices w WHERE w.price_id = p.id) AS withdrawn \
             FROM model_prices p ",
            $rest
        )
    };
}

/// Makes the immutable row and returns its id. An id that is taken by the very same price is used again; one that is
/// taken by another price gets a number after it.
pub async fn insert(tx: &mut SystemTx, new: NewPrice<'_>) -> Result<String, StoreError> {
    let base = new.id.map_or_else(
        || {
            let at = new.effective_from;
            let at = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
            format!("{}/{}@{at}", new.provider, new.model_id)
        },
        str::to_owned,
    );
    let sql = "INSERT INTO model_prices (id, provider, model_id, effective_from, input, output, cache_read, \
               cache_write, cache_write_1h, reasoning, units, steps) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING";
    let amounts = new.amounts;
    let mut id = base.clone();
    for number in 2..100 {
        let inserted = sqlx::query(sql)
            .bind(&id)
            .bind(new.provider)
            .bind(new.model_id)
            .bind(new.effective_from)
            .bind(amounts.input)
            .bind(amounts.output)
            .bind(amounts.cache_read)
            .bind(amounts.cache_write)
            .bind(amounts.cache_write_1h)
            .bind(amounts.reasoning)
            .bind(&amounts.units)
            .bind(&amounts.steps)
            .execute(tx.conn())
            .await?
            .rows_affected();
        if inserted == 1 || is_same(tx, &id, &new).await? {
            return Ok(id);
        }
        id = format!("{base}#{number}");
    }
    Err(StoreError::Conflict { constraint: "model_prices_pkey".to_owned() })
}

async fn is_same(tx: &mut SystemTx, id: &str, new: &NewPrice<'_>) -> Result<bool, StoreError> {
    let sql = concat!(
        "SELECT ",
        amounts!(),
        " FROM model_prices p WHERE p.id = $1 AND p.provider = $2 AND p.model_id = $3 \
         AND NOT EXISTS (SELECT FROM withdrawn_prices w WHERE w.price_id = p.id) \
         AND ($4 OR NOT EXISTS (SELECT FROM model_prices y WHERE y.provider = p.provider \
              AND y.model_id = p.model_id AND y.created_at > p.created_at))"
    );
    let found: Option<Amounts> = sqlx::query_as(sql)
        .bind(id)
        .bind(new.provider)
        .bind(new.model_id)
        // One that was corrected meanwhile comes back as a new row: which was written last decides.
        .bind(new.id.is_some())
        .fetch_optional(tx.conn())
        .await?;
    Ok(found.as_ref() == Some(new.amounts))
}

/// Lets it wait for its time.
pub async fn schedule(tx: &mut SystemTx, id: &str, new: &NewPrice<'_>) -> Result<(), StoreError> {
    let sql = "INSERT INTO scheduled_prices (price_id, provider, model_id, effective_from) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (price_id) DO NOTHING";
    sqlx::query(sql)
        .bind(id)
        .bind(new.provider)
        .bind(new.model_id)
        .bind(new.effective_from)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Puts it into effect now. False: the provider does not offer the model.
pub async fn activate(tx: &mut SystemTx, id: &str, new: &NewPrice<'_>) -> Result<bool, StoreError> {
    let sql = "UPDATE model_offerings SET price_id = $1, price_is_custom = true WHERE model_id = $2 AND provider = $3";
    let done = sqlx::query(sql).bind(id).bind(new.model_id).bind(new.provider).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}

/// Whether that provider offers the model.
pub async fn is_offered(tx: &mut SystemTx, model_id: &str, provider: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM model_offerings WHERE model_id = $1 AND provider = $2)";
    Ok(sqlx::query_scalar(sql).bind(model_id).bind(provider).fetch_one(tx.conn()).await?)
}

/// Calls off a price that waits for its time. False: it does not.
pub async fn withdraw(tx: &mut SystemTx, id: &str) -> Result<bool, StoreError> {
    let gone =
        sqlx::query("DELETE FROM scheduled_prices WHERE price_id = $1").bind(id).execute(tx.conn()).await?;
    if gone.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query("INSERT INTO withdrawn_prices (price_id) VALUES ($1)").bind(id).execute(tx.conn()).await?;
    Ok(true)
}

/// Whether a price is due. Without a lock, for a look every second.
pub async fn is_due(tx: &mut SystemTx) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM scheduled_prices WHERE effective_from <= clock_timestamp())";
    Ok(sqlx::query_scalar(sql).fetch_one(tx.conn()).await?)
}

/// Puts all prices that are due into effect; returns their ids. Of several of one offering the last counts.
pub async fn apply_due(tx: &mut SystemTx) -> Result<Vec<String>, StoreError> {
    // Writes configuration.
    tx.serialize_config().await?;
    let sql = "WITH due AS (DELETE FROM scheduled_prices WHERE effective_from <= clock_timestamp() \
                 RETURNING price_id, provider, model_id, effective_from), \
               last AS (SELECT DISTINCT ON (d.provider, d.model_id) d.price_id, d.provider, d.model_id \
                 FROM due d JOIN model_prices p ON p.id = d.price_id \
                 ORDER BY d.provider, d.model_id, d.effective_from DESC, p.created_at DESC) \
               UPDATE model_offerings o SET price_id = last.price_id, price_is_custom = true FROM last \
               WHERE o.provider = last.provider AND o.model_id = last.model_id RETURNING o.price_id";
    Ok(sqlx::query_scalar(sql).fetch_all(tx.conn()).await?)
}

pub async fn get(tx: &mut SystemTx, id: &str) -> Result<Option<PriceRow>, StoreError> {
    Ok(sqlx::query_as(select!("WHERE p.id = $1")).bind(id).fetch_optional(tx.conn()).await?)
}

/// At most `limit` prices that were written before the one with the id `after`, the newest first.
pub async fn list(
    tx: &mut SystemTx,
    model_id: Option<&str>,
    provider: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<PriceRow>, StoreError> {
    let sql = select!(
        "WHERE ($1::text IS NULL OR p.model_id = $1) AND ($2::text IS NULL OR p.provider = $2) \
         AND ($3 = '' OR (p.created_at, p.id COLLATE \"C\") < \
           (SELECT a.created_at, a.id COLLATE \"C\" FROM model_prices a WHERE a.id = $3)) \
         ORDER BY p.created_at DESC, p.id COLLATE \"C\" DESC LIMIT $4"
    );
    Ok(sqlx::query_as(sql).bind(model_id).bind(provider).bind(after).bind(limit).fetch_all(tx.conn()).await?)
}

/// A price that a deployment has, or had, of its own.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct DeploymentPriceRow {
    pub id: String,
    pub effective_from: OffsetDateTime,
    #[sqlx(flatten)]
    pub amounts: Amounts,
    pub current: bool,
}

/// Most prices of one deployment that are listed.
pub const MAX_OF_DEPLOYMENT: i64 = 1000;

/// The newest first.
pub async fn of_deployment(
    tx: &mut OwnerTx,
    deployment: uuid::Uuid,
) -> Result<Vec<DeploymentPriceRow>, StoreError> {
    let sql = concat!(
        "SELECT p.id, p.effective_from, ",
        amounts!(),
        ", d.price_id IS NOT DISTINCT FROM p.id AS current FROM deployment_prices p \
         LEFT JOIN deployments d ON d.owner = p.owner AND d.id = p.deployment_id \
         WHERE p.deployment_id = $1 AND p.owner = $2 ORDER BY p.effective_from DESC, p.created_at DESC LIMIT $3"
    );
    let owner = tx.owner();
    Ok(sqlx::query_as(sql).bind(deployment).bind(owner).bind(MAX_OF_DEPLOYMENT).fetch_all(tx.conn()).await?)
}
