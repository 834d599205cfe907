//! Virtual keys. Only hashes of their secrets are stored (I10).

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Listed, Page, StoreError, TenantTx};

macro_rules! columns {
    () => {
        "id, org_id, team_id, name, public_id, disabled, expires_at, allowed_models, created_at, rotated_at"
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
}

/// What to change; `None` leaves it.
#[derive(Default)]
pub struct ApiKeyChange<'a> {
    pub name: Option<&'a str>,
    pub disabled: Option<bool>,
    /// `Some(None)` removes the expiry.
    pub expires_at: Option<Option<OffsetDateTime>>,
    pub allowed_models: Option<&'a [String]>,
}

pub async fn insert(tx: &mut TenantTx, new: NewApiKey<'_>) -> Result<ApiKeyRow, StoreError> {
    let sql = concat!(
        "INSERT INTO api_keys (id, org_id, team_id, name, public_id, secret_hash, expires_at, allowed_models) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ",
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
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<ApiKeyRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// Of one team, or of the whole organization.
pub async fn list(
    tx: &mut TenantTx,
    team: Option<Uuid>,
    page: Page,
) -> Result<Listed<ApiKeyRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM api_keys WHERE org_id = $4 AND ($3::uuid IS NULL OR team_id = $3) \
         AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2"
    );
    let org = tx.org().0;
    let rows = sqlx::query_as(sql)
        .bind(page.after)
        .bind(page.limit())
        .bind(team)
        .bind(org)
        .fetch_all(tx.conn())
        .await?;
    Ok(Listed::new(rows, page, |row: &ApiKeyRow| row.id))
}

pub async fn update(
    tx: &mut TenantTx,
    id: Uuid,
    change: ApiKeyChange<'_>,
) -> Result<Option<ApiKeyRow>, StoreError> {
    let sql = concat!(
        "UPDATE api_keys SET name = coalesce($2, name), disabled = coalesce($3, disabled), \
         expires_at = CASE WHEN $4 THEN $5 ELSE expires_at END, allowed_models = coalesce($6, allowed_models) \
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
