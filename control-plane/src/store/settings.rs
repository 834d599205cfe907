//! Settings of an organization, or of the installation. Values are JSON.

use sqlx::FromRow;
use uuid::Uuid;

use super::{OwnerTx, StoreError};

macro_rules! columns {
    () => {
        "org_id, key, value::text AS value"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct SettingRow {
    /// `None`: the installation's.
    pub org_id: Option<Uuid>,
    pub key: String,
    /// JSON text.
    pub value: String,
}

/// Creates or replaces; `id` is used when it is new. `value` must be JSON.
pub async fn put(tx: &mut OwnerTx, id: Uuid, key: &str, value: &str) -> Result<SettingRow, StoreError> {
    let sql = concat!(
        "INSERT INTO settings (id, org_id, key, value) VALUES ($1, $2, $3, $4::jsonb) \
         ON CONFLICT ON CONSTRAINT settings_key_taken DO UPDATE SET value = EXCLUDED.value RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(id).bind(tx.org_id()).bind(key).bind(value).fetch_one(tx.conn()).await?)
}

pub async fn get(tx: &mut OwnerTx, key: &str) -> Result<Option<SettingRow>, StoreError> {
    let owner = tx.owner();
    let sql = concat!("SELECT ", columns!(), " FROM settings WHERE key = $1 AND owner = $2");
    Ok(sqlx::query_as(sql).bind(key).bind(owner).fetch_optional(tx.conn()).await?)
}

pub async fn list(tx: &mut OwnerTx) -> Result<Vec<SettingRow>, StoreError> {
    let owner = tx.owner();
    let sql = concat!("SELECT ", columns!(), " FROM settings WHERE owner = $1 ORDER BY key");
    Ok(sqlx::query_as(sql).bind(owner).fetch_all(tx.conn()).await?)
}

/// False: there was none.
pub async fn delete(tx: &mut OwnerTx, key: &str) -> Result<bool, StoreError> {
    let owner = tx.owner();
    let sql = "DELETE FROM settings WHERE key = $1 AND owner = $2";
    Ok(sqlx::query(sql).bind(key).bind(owner).execute(tx.conn()).await?.rows_affected() > 0)
}
