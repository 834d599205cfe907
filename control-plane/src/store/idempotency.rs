//! Answers of creates with an idempotency key. What is stored is sealed by the caller.
//!
//! Called by the write path of the admin operations, which holds the configuration lock: two requests with one key
//! come after each other. [`purge`] is called by a task of `app.rs`.

use nemo_runtime::drain::DrainWatcher;
use std::time::Duration;
use time::OffsetDateTime;

use super::{
    Store, StoreError,
    tx::{Inside, WriteTx},
};
use crate::coordination::Election;

/// Expired rows go this often.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// Rows per statement, so that no statement is long.
const PURGE_BATCH: i64 = 1000;

/// The record of an earlier request, sealed.
pub async fn find<T: WriteTx>(tx: &mut T, actor: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let owner = tx.owner_column();
    let sql = "SELECT sealed FROM idempotency_keys WHERE owner = $1 AND actor = $2 AND key = $3 AND expires_at > now()";
    Ok(sqlx::query_scalar(sql)
        .bind(owner)
        .bind(actor)
        .bind(key)
        .fetch_optional(tx.connection(Inside(())))
        .await?)
}

/// Keeps a record until then.
///
/// # Errors
/// [`StoreError::Conflict`] when another request with this key was faster.
pub async fn put<T: WriteTx>(
    tx: &mut T,
    actor: &str,
    key: &str,
    sealed: &[u8],
    expires_at: OffsetDateTime,
) -> Result<(), StoreError> {
    let (owner, org_id) = (tx.owner_column(), tx.org_column());
    let connection = tx.connection(Inside(()));
    let expired =
        "DELETE FROM idempotency_keys WHERE owner = $1 AND actor = $2 AND key = $3 AND expires_at <= now()";
    sqlx::query(expired).bind(owner).bind(actor).bind(key).execute(&mut *connection).await?;
    let sql =
        "INSERT INTO idempotency_keys (org_id, actor, key, sealed, expires_at) VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(sql)
        .bind(org_id)
        .bind(actor)
        .bind(key)
        .bind(sealed)
        .bind(expires_at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes what has expired; returns how many records that were.
///
/// # Errors
/// When the database can't be reached.
pub async fn purge(store: &Store) -> Result<u64, StoreError> {
    let mut purged = 0;
    loop {
        let mut tx = store.system().await?;
        let sql = "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY( \
                   SELECT ctid FROM idempotency_keys WHERE expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED))";
        let rows = sqlx::query(sql).bind(PURGE_BATCH).execute(tx.conn()).await?.rows_affected();
        tx.commit().await?;
        purged += rows;
        if rows < PURGE_BATCH.unsigned_abs() {
            return Ok(purged);
        }
    }
}

/// Purges until drain, while this replica leads the job. Should two do it, they skip each other's rows.
pub async fn purge_regularly(store: Store, election: Election, drain: DrainWatcher) {
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(PURGE_EVERY) => {}
        }
        if !election.is_mine() {
            continue;
        }
        match purge(&store).await {
            Ok(0) => {}
            Ok(records) => tracing::debug!(records, "removed expired idempotency records"),
            Err(error) => tracing::warn!(%error, "expired idempotency records stay until the next try"),
        }
    }
}
