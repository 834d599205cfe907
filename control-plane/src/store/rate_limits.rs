//! Rate limits: requests, tokens and concurrency of an organization, a team or a key.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, TenantTx,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, org_id, team_id, key_id, name, model, requests_per_minute, tokens_per_minute, concurrent, \
         from_tier, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct RateLimitRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: String,
    /// Empty: for all models together.
    pub model: String,
    #[sqlx(flatten)]
    pub rates: Rates,
    /// Guaranteed by the organization's tier, and changed with it.
    pub from_tier: bool,
    pub created_at: OffsetDateTime,
}

/// `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Rates {
    pub requests_per_minute: Option<i64>,
    pub tokens_per_minute: Option<i64>,
    pub concurrent: Option<i32>,
}

pub struct NewRateLimit<'a> {
    pub id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: &'a str,
    pub model: &'a str,
    pub rates: Rates,
}

pub async fn insert(tx: &mut TenantTx, new: NewRateLimit<'_>) -> Result<RateLimitRow, StoreError> {
    let sql = concat!(
        "INSERT INTO rate_limits (id, org_id, team_id, key_id, name, model, requests_per_minute, tokens_per_minute, \
                                  concurrent) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(new.id)
        .bind(tx.org().0)
        .bind(new.team_id)
        .bind(new.key_id)
        .bind(new.name)
        .bind(new.model)
        .bind(new.rates.requests_per_minute)
        .bind(new.rates.tokens_per_minute)
        .bind(new.rates.concurrent)
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<RateLimitRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM rate_limits WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Of one team or key, or of the whole organization with everything in it.
pub async fn list(
    tx: &mut TenantTx,
    team: Option<Uuid>,
    key: Option<Uuid>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<RateLimitRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM rate_limits",
        page_of!(
            "",
            "name",
            "org_id = $7 AND ($8::uuid IS NULL OR team_id = $8) AND ($9::uuid IS NULL OR key_id = $9)"
        )
    );
    let org = tx.org().0;
    let rows = page_query(sql, page, filter).bind(org).bind(team).bind(key).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &RateLimitRow| row.id))
}

/// How many there are on the same organization, team or key.
pub async fn beside(tx: &mut TenantTx, team: Option<Uuid>, key: Option<Uuid>) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM rate_limits \
               WHERE org_id = $1 AND team_id IS NOT DISTINCT FROM $2 AND key_id IS NOT DISTINCT FROM $3";
    Ok(sqlx::query_scalar(sql).bind(tx.org().0).bind(team).bind(key).fetch_one(tx.conn()).await?)
}

/// Changes the name and the model when they are `Some`, and puts all rates anew.
pub async fn update(
    tx: &mut TenantTx,
    id: Uuid,
    name: Option<&str>,
    model: Option<&str>,
    rates: Rates,
) -> Result<Option<RateLimitRow>, StoreError> {
    let sql = concat!(
        "UPDATE rate_limits SET name = coalesce($2, name), model = coalesce($3, model), requests_per_minute = $4, \
         tokens_per_minute = $5, concurrent = $6 WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(name)
        .bind(model)
        .bind(rates.requests_per_minute)
        .bind(rates.tokens_per_minute)
        .bind(rates.concurrent)
        .fetch_optional(tx.conn())
        .await?)
}

/// False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM rate_limits WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}
