//! The leases of the nodes, of all replicas of the control plane together. Called by `fleet/`.

use sqlx::FromRow;

use super::{Store, StoreError};

/// What a replica knows of a node that is connected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLease {
    pub node_id: String,
    pub epoch: u64,
    pub session: u64,
    /// Acknowledged.
    pub revision: u64,
    /// Zero: the last push was applied.
    pub refused_revision: u64,
    pub refusal: String,
    /// How long the lease lasts from now on.
    pub remaining_ms: u64,
}

/// A node whose lease lasts.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LiveNode {
    pub node_id: String,
    pub revision: i64,
    pub refused_revision: i64,
    pub refusal: String,
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes leases. A later subscription of the same node is left as it is.
///
/// # Errors
/// When the database can't be reached.
pub async fn renew(store: &Store, leases: &[NodeLease]) -> Result<(), StoreError> {
    let column = |of: fn(&NodeLease) -> u64| leases.iter().map(|it| signed(of(it))).collect::<Vec<i64>>();
    let text = |of: fn(&NodeLease) -> &String| leases.iter().map(|it| of(it).clone()).collect::<Vec<_>>();
    let mut tx = store.system().await?;
    sqlx::query(
        "INSERT INTO fleet_nodes (node_id, epoch, session, revision, refused_revision, refusal, lease_until) \
         SELECT node_id, epoch, session, revision, refused_revision, refusal, \
                clock_timestamp() + remaining_ms * interval '1 millisecond' \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[]) \
              AS new (node_id, epoch, session, revision, refused_revision, refusal, remaining_ms) \
         ORDER BY node_id \
         ON CONFLICT (node_id) DO UPDATE SET epoch = excluded.epoch, session = excluded.session, \
             revision = excluded.revision, refused_revision = excluded.refused_revision, \
             refusal = excluded.refusal, lease_until = excluded.lease_until \
         WHERE (fleet_nodes.epoch, fleet_nodes.session) <= (excluded.epoch, excluded.session)",
    )
    .bind(text(|it| &it.node_id))
    .bind(column(|it| it.epoch))
    .bind(column(|it| it.session))
    .bind(column(|it| it.revision))
    .bind(column(|it| it.refused_revision))
    .bind(text(|it| &it.refusal))
    .bind(column(|it| it.remaining_ms))
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// The node stops: it is not waited for until its lease runs out.
///
/// # Errors
/// When the database can't be reached.
pub async fn leave(store: &Store, node_id: &str, epoch: u64, session: u64) -> Result<(), StoreError> {
    let mut tx = store.system().await?;
    sqlx::query("DELETE FROM fleet_nodes WHERE node_id = $1 AND (epoch, session) <= ($2, $3)")
        .bind(node_id)
        .bind(signed(epoch))
        .bind(signed(session))
        .execute(tx.conn())
        .await?;
    tx.commit().await
}

/// Forgets nodes that have not been seen for a day.
///
/// # Errors
/// When the database can't be reached.
pub async fn forget_gone(store: &Store) -> Result<u64, StoreError> {
    let mut tx = store.system().await?;
    let sql = "DELETE FROM fleet_nodes WHERE lease_until < clock_timestamp() - interval '1 day'";
    let gone = sqlx::query(sql).execute(tx.conn()).await?.rows_affected();
    tx.commit().await?;
    Ok(gone)
}

/// Every node whose lease lasts, by id.
///
/// # Errors
/// When the database can't be reached.
pub async fn live(store: &Store) -> Result<Vec<LiveNode>, StoreError> {
    let mut tx = store.system().await?;
    let sql = "SELECT node_id, revision, refused_revision, refusal FROM fleet_nodes \
               WHERE lease_until > clock_timestamp() ORDER BY node_id";
    Ok(sqlx::query_as(sql).fetch_all(tx.conn()).await?)
}
