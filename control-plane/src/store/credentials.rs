//! Provider credentials, sealed (see [`crate::sealing`]): the store never sees a secret in clear.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, OwnerTx, Page, StoreError,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, org_id, name, provider, hint, created_at, updated_at"
    };
}

/// A credential as the admin API shows it: the sealed secret stays in the database.
#[derive(Clone, Debug, FromRow)]
pub struct CredentialRow {
    pub id: Uuid,
    /// `None`: the operator's.
    pub org_id: Option<Uuid>,
    pub name: String,
    pub provider: String,
    pub hint: String,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

pub struct NewCredential<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub provider: &'a str,
    pub sealed: &'a [u8],
    pub hint: &'a str,
}

/// What to change; `None` leaves it. `secret` is the sealed form and its hint.
#[derive(Default)]
pub struct CredentialChange<'a> {
    pub name: Option<&'a str>,
    pub secret: Option<(&'a [u8], &'a str)>,
}

pub async fn insert(tx: &mut OwnerTx, new: NewCredential<'_>) -> Result<CredentialRow, StoreError> {
    let sql = concat!(
        "INSERT INTO credentials (id, org_id, name, provider, sealed, hint) VALUES ($1, $2, $3, $4, $5, $6) \
         RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql)
        .bind(new.id)
        .bind(tx.org_id())
        .bind(new.name)
        .bind(new.provider)
        .bind(new.sealed)
        .bind(new.hint)
        .fetch_one(tx.conn())
        .await?)
}

pub async fn get(tx: &mut OwnerTx, id: Uuid) -> Result<Option<CredentialRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM credentials WHERE id = $1 AND owner = $2");
    let owner = tx.owner();
    Ok(sqlx::query_as(sql).bind(id).bind(owner).fetch_optional(tx.conn()).await?)
}

pub async fn list(
    tx: &mut OwnerTx,
    provider: Option<&str>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<CredentialRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM credentials",
        page_of!("", "name", "owner = $7 AND ($8::text IS NULL OR provider = $8)")
    );
    let owner = tx.owner();
    let rows = page_query(sql, page, filter).bind(owner).bind(provider).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &CredentialRow| row.id))
}

pub async fn update(
    tx: &mut OwnerTx,
    id: Uuid,
    change: CredentialChange<'_>,
) -> Result<Option<CredentialRow>, StoreError> {
    let sql = concat!(
        "UPDATE credentials SET name = coalesce($3, name), sealed = coalesce($4, sealed), \
         hint = coalesce($5, hint), updated_at = now() WHERE id = $1 AND owner = $2 RETURNING ",
        columns!()
    );
    let owner = tx.owner();
    let (sealed, hint) = change.secret.unzip();
    Ok(sqlx::query_as(sql)
        .bind(id)
        .bind(owner)
        .bind(change.name)
        .bind(sealed)
        .bind(hint)
        .fetch_optional(tx.conn())
        .await?)
}

/// False: there was none.
///
/// # Errors
/// [`StoreError::Reference`] while a deployment uses it.
pub async fn delete(tx: &mut OwnerTx, id: Uuid) -> Result<bool, StoreError> {
    let owner = tx.owner();
    let sql = "DELETE FROM credentials WHERE id = $1 AND owner = $2";
    Ok(sqlx::query(sql).bind(id).bind(owner).execute(tx.conn()).await?.rows_affected() > 0)
}
