//! Organizations. Created, listed and deleted by the operator; read and renamed by their own administrators.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, SystemTx, TenantTx,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, name, disabled, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct OrganizationRow {
    pub id: Uuid,
    pub name: String,
    pub disabled: bool,
    pub created_at: OffsetDateTime,
}

pub async fn insert(tx: &mut SystemTx, id: Uuid, name: &str) -> Result<OrganizationRow, StoreError> {
    let sql = concat!("INSERT INTO organizations (id, name) VALUES ($1, $2) RETURNING ", columns!());
    Ok(sqlx::query_as(sql).bind(id).bind(name).fetch_one(tx.conn()).await?)
}

/// The organization of the transaction, if it exists.
pub async fn get(tx: &mut TenantTx) -> Result<Option<OrganizationRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM organizations WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(tx.org().0).fetch_optional(tx.conn()).await?)
}

/// The same from outside of it.
pub async fn find(tx: &mut SystemTx, id: Uuid) -> Result<Option<OrganizationRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM organizations WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// All of them, or those of `only`.
pub async fn list(
    tx: &mut SystemTx,
    only: Option<&[Uuid]>,
    disabled: Option<bool>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<OrganizationRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM organizations",
        page_of!(
            "",
            "name",
            "($7::uuid[] IS NULL OR id = ANY ($7)) AND ($8::boolean IS NULL OR disabled = $8)"
        )
    );
    let rows = page_query(sql, page, filter).bind(only).bind(disabled).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &OrganizationRow| row.id))
}

/// Changes what is `Some`.
pub async fn update(
    tx: &mut TenantTx,
    name: Option<&str>,
    disabled: Option<bool>,
) -> Result<Option<OrganizationRow>, StoreError> {
    let sql = concat!(
        "UPDATE organizations SET name = coalesce($2, name), disabled = coalesce($3, disabled) WHERE id = $1 \
         RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(tx.org().0).bind(name).bind(disabled).fetch_optional(tx.conn()).await?)
}

/// Deletes the organization and everything that it owns, except its request log. False: there was none.
pub async fn delete(tx: &mut SystemTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM organizations WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}

/// Which of these exist, and whether they are switched off.
pub async fn disabled(tx: &mut SystemTx, ids: &[Uuid]) -> Result<Vec<(Uuid, bool)>, StoreError> {
    let sql = "SELECT id, disabled FROM organizations WHERE id = ANY ($1)";
    Ok(sqlx::query_as(sql).bind(ids).fetch_all(tx.conn()).await?)
}
