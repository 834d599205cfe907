//! Teams of an organization.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, TenantTx,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, org_id, name, disabled, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct TeamRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub name: String,
    pub disabled: bool,
    pub created_at: OffsetDateTime,
}

pub async fn insert(tx: &mut TenantTx, id: Uuid, name: &str) -> Result<TeamRow, StoreError> {
    let sql = concat!("INSERT INTO teams (id, org_id, name) VALUES ($1, $2, $3) RETURNING ", columns!());
    Ok(sqlx::query_as(sql).bind(id).bind(tx.org().0).bind(name).fetch_one(tx.conn()).await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<TeamRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM teams WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

pub async fn list(
    tx: &mut TenantTx,
    disabled: Option<bool>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<TeamRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM teams",
        page_of!("", "name", "org_id = $7 AND ($8::boolean IS NULL OR disabled = $8)")
    );
    let org = tx.org().0;
    let rows = page_query(sql, page, filter).bind(org).bind(disabled).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &TeamRow| row.id))
}

/// Changes what is `Some`.
pub async fn update(
    tx: &mut TenantTx,
    id: Uuid,
    name: Option<&str>,
    disabled: Option<bool>,
) -> Result<Option<TeamRow>, StoreError> {
    let sql = concat!(
        "UPDATE teams SET name = coalesce($2, name), disabled = coalesce($3, disabled) WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(id).bind(name).bind(disabled).fetch_optional(tx.conn()).await?)
}

/// Deletes the team and its keys. False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM teams WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}
