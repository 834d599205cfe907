//! People of an organization and their roles. Not published to the nodes.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Listed, Page, StoreError, TenantTx};

macro_rules! columns {
    () => {
        "id, org_id, email, role, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct MemberRow {
    pub id: Uuid,
    pub org_id: Uuid,
    /// Lower case.
    pub email: String,
    pub role: String,
    pub created_at: OffsetDateTime,
}

pub async fn insert(tx: &mut TenantTx, id: Uuid, email: &str, role: &str) -> Result<MemberRow, StoreError> {
    let sql = concat!(
        "INSERT INTO members (id, org_id, email, role) VALUES ($1, $2, $3, $4) RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(id).bind(tx.org().0).bind(email).bind(role).fetch_one(tx.conn()).await?)
}

pub async fn list(tx: &mut TenantTx, page: Page) -> Result<Listed<MemberRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM members WHERE org_id = $3 AND ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2"
    );
    let org = tx.org().0;
    let rows = sqlx::query_as(sql).bind(page.after).bind(page.limit()).bind(org).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &MemberRow| row.id))
}

pub async fn set_role(tx: &mut TenantTx, id: Uuid, role: &str) -> Result<Option<MemberRow>, StoreError> {
    let sql = concat!("UPDATE members SET role = $2 WHERE id = $1 RETURNING ", columns!());
    Ok(sqlx::query_as(sql).bind(id).bind(role).fetch_optional(tx.conn()).await?)
}

/// False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM members WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}
