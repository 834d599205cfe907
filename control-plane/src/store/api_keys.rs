//! Virtual keys. Only hashes of their secrets are stored (I10).

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, TenantTx,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, org_id, team_id, name, public_id, disabled, expires_at, allowed_models, created_at, rotated_at, \
         allowed_endpoints, allowed_cidrs, default_tags, metadata, previous_valid_until"
    };
}

/// A key as the admin API shows it: the hashes stay in the database.
#[derive(Clone, Debug, FromRow)]
pub struct ApiKeyRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub team_id: Uuid,
    pub name: String,
    pub public_id: String,
    pub disabled: bool,
    pub expires_at: Option<OffsetDateTime>,
    /// Empty: every model of the organization.
    pub allowed_models: Vec<String>,
    pub created_at: OffsetDateTime,
    pub rotated_at: Option<OffsetDateTime>,
    /// Empty: all.
    pub allowed_endpoints: Vec<String>,
    /// Empty: everywhere.
    pub allowed_cidrs: Vec<String>,
    pub default_tags: Vec<String>,
    /// A JSON object; empty: none.
    pub metadata: String,
    /// How long the secret before the last rotation works.
    pub previous_valid_until: Option<OffsetDateTime>,
}

pub struct NewApiKey<'a> {
    pub id: Uuid,
    pub team_id: Uuid,
    pub name: &'a str,
    pub public_id: &'a str,
    /// SHA-256 of the whole key.
    pub secret_hash: &'a [u8],
    pub expires_at: Option<OffsetDateTime>,
    pub allowed_models: &'a [String],
    pub allowed_endpoints: &'a [String],
    pub allowed_cidrs: &'a [String],
    pub default_tags: &'a [String],
    pub metadata: &'a str,
}

/// What to change; `None` leaves it.
#[derive(Default)]
pub struct ApiKeyChange<'a> {
    pub name: Option<&'a str>,
    pub disabled: Option<bool>,
    /// `Some(None)` removes the expiry.
    pub expires_at: Option<Option<OffsetDateTime>>,
    pub allowed_models: Option<&'a [String]>,
    pub allowed_endpoints: Option<&'a [String]>,
    pub allowed_cidrs: Option<&'a [String]>,
    pub default_tags: Option<&'a [String]>,
    pub metadata: Option<&'a str>,
}

pub async fn insert(tx: &mut TenantTx, new: NewApiKey<'_>) -> Result<ApiKeyRow, StoreError> {
    let sql = concat!(
        "INSERT INTO api_keys (id, org_id, team_id, name, public_id, secret_hash, expires_at, allowed_models, \
                               allowed_endpoints, allowed_cidrs, default_tags, metadata) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(new.id)
        .bind(tx.org().0)
        .bind(new.team_id)
        .bind(new.name)
        .bind(new.public_id)
        .bind(new.secret_hash)
        .bind(new.expires_at)
        .bind(new.allowed_models)
        .bind(new.allowed_endpoints)
        .bind(new.allowed_cidrs)
        .bind(new.default_tags)
        .bind(new.metadata)
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<ApiKeyRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Of one team, or of the whole organization; in one state at `now`, or in any.
pub async fn list(
    tx: &mut TenantTx,
    team: Option<Uuid>,
    state: Option<&str>,
    now: OffsetDateTime,
    page: Page,
    filter: &Filter,
) -> Result<Listed<ApiKeyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys",
        page_of!(
            "",
            "name",
            "org_id = $7 AND ($8::uuid IS NULL OR team_id = $8) AND ($9::text IS NULL OR $9 = CASE \
             WHEN disabled THEN 'disabled' WHEN expires_at <= $10 THEN 'expired' ELSE 'active' END)"
        )
    );
    let org = tx.org().0;
    let query = page_query(sql, page, filter).bind(org).bind(team).bind(state).bind(now);
    Ok(Listed::new(query.fetch_all(tx.conn()).await?, page, |row: &ApiKeyRow| row.id))
}

pub async fn update(
    tx: &mut TenantTx,
    id: Uuid,
    change: ApiKeyChange<'_>,
) -> Result<Option<ApiKeyRow>, StoreError> {
    let sql = concat!(
        "UPDATE api_keys SET name = coalesce($2, name), disabled = coalesce($3, disabled), \
         expires_at = CASE WHEN $4 THEN $5 ELSE expires_at END, allowed_models = coalesce($6, allowed_models), \
         allowed_endpoints = coalesce($7, allowed_endpoints), allowed_cidrs = coalesce($8, allowed_cidrs), \
         default_tags = coalesce($9, default_tags), metadata = coalesce($10, metadata) \
         WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(change.name)
        .bind(change.disabled)
        .bind(change.expires_at.is_some())
        .bind(change.expires_at.flatten())
        .bind(change.allowed_models)
        .bind(change.allowed_endpoints)
        .bind(change.allowed_cidrs)
        .bind(change.default_tags)
        .bind(change.metadata)
        .fetch_optional(tx.conn())
        .await?)
}

/// Puts a new secret; the one before works until `previous_valid_until`, or no longer (`None`).
pub async fn rotate(
    tx: &mut TenantTx,
    id: Uuid,
    secret_hash: &[u8],
    previous_valid_until: Option<OffsetDateTime>,
) -> Result<Option<ApiKeyRow>, StoreError> {
    let sql = concat!(
        "UPDATE api_keys SET \
         previous_secret_hash = CASE WHEN $3::timestamptz IS NULL THEN NULL ELSE secret_hash END, \
         previous_valid_until = $3, secret_hash = $2, rotated_at = now() WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(secret_hash)
        .bind(previous_valid_until)
        .fetch_optional(tx.conn())
        .await?)
}

/// False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM api_keys WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}
