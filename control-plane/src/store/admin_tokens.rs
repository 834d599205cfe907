//! Tokens for the admin API: the operator's (no organization) and those of organizations.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, OwnerTx, Page, StoreError, SystemTx,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, org_id, name, role, public_id, created_at, expires_at, last_used_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct AdminTokenRow {
    pub id: Uuid,
    /// `None`: the operator's.
    pub org_id: Option<Uuid>,
    pub name: String,
    pub role: String,
    pub public_id: String,
    pub created_at: OffsetDateTime,
    pub expires_at: Option<OffsetDateTime>,
    /// To some minutes.
    pub last_used_at: Option<OffsetDateTime>,
}

pub struct NewAdminToken<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub role: &'a str,
    pub public_id: &'a str,
    pub secret_hash: &'a [u8],
    pub expires_at: Option<OffsetDateTime>,
}

/// What is needed to verify a presented token.
#[derive(Clone, Debug, FromRow)]
pub struct StoredToken {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub name: String,
    pub role: String,
    pub secret_hash: Vec<u8>,
    pub expires_at: Option<OffsetDateTime>,
    pub last_used_at: Option<OffsetDateTime>,
    pub org_disabled: bool,
}

pub async fn insert(tx: &mut OwnerTx, new: NewAdminToken<'_>) -> Result<AdminTokenRow, StoreError> {
    let sql = concat!(
        "INSERT INTO admin_tokens (id, org_id, name, role, public_id, secret_hash, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(new.id)
        .bind(tx.org_id())
        .bind(new.name)
        .bind(new.role)
        .bind(new.public_id)
        .bind(new.secret_hash)
        .bind(new.expires_at)
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut OwnerTx, id: Uuid) -> Result<Option<AdminTokenRow>, StoreError> {
    let owner = tx.org_id();
    let sql =
        concat!("SELECT ", columns!(), " FROM admin_tokens WHERE id = $1 AND org_id IS NOT DISTINCT FROM $2");
    Ok(sqlx::query_as(sql).bind(id).bind(owner).fetch_optional(tx.conn()).await?)
}

pub async fn list(
    tx: &mut OwnerTx,
    role: Option<&str>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<AdminTokenRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM admin_tokens",
        page_of!("", "name", "org_id IS NOT DISTINCT FROM $7 AND ($8::text IS NULL OR role = $8)")
    );
    let owner = tx.org_id();
    let rows = page_query(sql, page, filter).bind(owner).bind(role).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &AdminTokenRow| row.id))
}

pub async fn rename(tx: &mut OwnerTx, id: Uuid, name: &str) -> Result<Option<AdminTokenRow>, StoreError> {
    let owner = tx.org_id();
    let sql = concat!(
        "UPDATE admin_tokens SET name = $3 WHERE id = $1 AND org_id IS NOT DISTINCT FROM $2 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(id).bind(owner).bind(name).fetch_optional(tx.conn()).await?)
}

/// False: there was none.
pub async fn delete(tx: &mut OwnerTx, id: Uuid) -> Result<bool, StoreError> {
    let owner = tx.org_id();
    let sql = "DELETE FROM admin_tokens WHERE id = $1 AND org_id IS NOT DISTINCT FROM $2";
    Ok(sqlx::query(sql).bind(id).bind(owner).execute(tx.conn()).await?.rows_affected() > 0)
}

/// By the part of the token that is no secret; the caller compares the hash.
pub async fn find(tx: &mut SystemTx, public_id: &str) -> Result<Option<StoredToken>, StoreError> {
    let sql = "SELECT t.id, t.org_id, t.name, t.role, t.secret_hash, t.expires_at, t.last_used_at, \
               coalesce(o.disabled, false) AS org_disabled \
               FROM admin_tokens t LEFT JOIN organizations o ON o.id = t.org_id WHERE t.public_id = $1";
    Ok(sqlx::query_as(sql).bind(public_id).fetch_optional(tx.conn()).await?)
}

/// Notes that the token was used, unless another replica just did.
pub async fn touch(
    tx: &mut SystemTx,
    id: Uuid,
    now: OffsetDateTime,
    unless_after: OffsetDateTime,
) -> Result<(), StoreError> {
    let sql = "UPDATE admin_tokens SET last_used_at = $2 \
               WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $3)";
    sqlx::query(sql).bind(id).bind(now).bind(unless_after).execute(tx.conn()).await?;
    Ok(())
}
