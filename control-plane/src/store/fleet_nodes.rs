//! The leases of the nodes, of all replicas of the control plane together. Called by `fleet/` and the admin API.

use sqlx::FromRow;
use time::OffsetDateTime;

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
    /// How long the lease lasts from now on, and how long ago the node was heard of.
    pub remaining_ms: u64,
    pub silent_ms: u64,
    pub version: String,
    pub zone: String,
    pub connected_at: OffsetDateTime,
    pub apply_micros: u64,
    pub usage_dropped_total: u64,
}

/// A node of the installation, of whatever replica.
#[derive(Clone, Debug, FromRow)]
pub struct FleetNode {
    pub node_id: String,
    pub epoch: i64,
    pub session: i64,
    pub revision: i64,
    pub refusal: String,
    /// Its lease lasts.
    pub live: bool,
    pub version: String,
    pub zone: String,
    pub connected_at: OffsetDateTime,
    pub seen_at: OffsetDateTime,
    pub apply_micros: i64,
    pub usage_dropped_total: i64,
}

/// Most nodes that are listed.
const MAX_LISTED: i64 = 10_000;

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

/// Writes leases. A later subscription of the same node is left as it is while it lasts.
///
/// # Errors
/// When the database can't be reached.
pub async fn renew(store: &Store, leases: &[NodeLease]) -> Result<(), StoreError> {
    let column = |of: fn(&NodeLease) -> u64| leases.iter().map(|it| signed(of(it))).collect::<Vec<i64>>();
    let text = |of: fn(&NodeLease) -> &String| leases.iter().map(|it| of(it).clone()).collect::<Vec<_>>();
    let mut tx = store.system().await?;
    sqlx::query(
        "INSERT INTO fleet_nodes (node_id, epoch, session, revision, refused_revision, refusal, version, zone, \
                                  connected_at, apply_micros, usage_dropped_total, lease_until, seen_at) \
         SELECT node_id, epoch, session, revision, refused_revision, refusal, version, zone, connected_at, \
                apply_micros, usage_dropped_total, clock_timestamp() + remaining_ms * interval '1 millisecond', \
                clock_timestamp() - silent_ms * interval '1 millisecond' \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], \
                     $8::bigint[], $9::text[], $10::text[], $11::timestamptz[], $12::bigint[], $13::bigint[]) \
              AS new (node_id, epoch, session, revision, refused_revision, refusal, remaining_ms, silent_ms, \
                      version, zone, connected_at, apply_micros, usage_dropped_total) \
         ORDER BY node_id \
         ON CONFLICT (node_id) DO UPDATE SET epoch = excluded.epoch, session = excluded.session, \
             revision = excluded.revision, refused_revision = excluded.refused_revision, \
             refusal = excluded.refusal, lease_until = excluded.lease_until, seen_at = excluded.seen_at, \
             version = excluded.version, zone = excluded.zone, connected_at = excluded.connected_at, \
             apply_micros = excluded.apply_micros, usage_dropped_total = excluded.usage_dropped_total \
         WHERE (fleet_nodes.epoch, fleet_nodes.session) <= (excluded.epoch, excluded.session) \
             OR fleet_nodes.lease_until <= clock_timestamp()",
    )
    .bind(text(|it| &it.node_id))
    .bind(column(|it| it.epoch))
    .bind(column(|it| it.session))
    .bind(column(|it| it.revision))
    .bind(column(|it| it.refused_revision))
    .bind(text(|it| &it.refusal))
    .bind(column(|it| it.remaining_ms))
    .bind(column(|it| it.silent_ms))
    .bind(text(|it| &it.version))
    .bind(text(|it| &it.zone))
    .bind(leases.iter().map(|it| it.connected_at).collect::<Vec<_>>())
    .bind(column(|it| it.apply_micros))
    .bind(column(|it| it.usage_dropped_total))
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// The node stops: its lease ends now, and it is listed as gone.
///
/// # Errors
/// When the database can't be reached.
pub async fn leave(store: &Store, node_id: &str, epoch: u64, session: u64) -> Result<(), StoreError> {
    let mut tx = store.system().await?;
    sqlx::query(
        "UPDATE fleet_nodes SET lease_until = clock_timestamp(), seen_at = clock_timestamp() \
         WHERE node_id = $1 AND (epoch, session) <= ($2, $3)",
    )
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

/// Every node that is not forgotten, by id.
///
/// # Errors
/// When the database can't be reached.
pub async fn all(store: &Store) -> Result<Vec<FleetNode>, StoreError> {
    let mut tx = store.system().await?;
    let sql = "SELECT node_id, epoch, session, revision, refusal, lease_until > clock_timestamp() AS live, version, \
                      zone, connected_at, seen_at, apply_micros, usage_dropped_total \
               FROM fleet_nodes ORDER BY node_id LIMIT $1";
    Ok(sqlx::query_as(sql).bind(MAX_LISTED).fetch_all(tx.conn()).await?)
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

#[cfg(test)]
pub(crate) fn lease(node_id: &str, revision: u64) -> NodeLease {
    NodeLease {
        node_id: node_id.into(),
        epoch: 1,
        session: 1,
        revision,
        refused_revision: 0,
        refusal: String::new(),
        remaining_ms: 60_000,
        silent_ms: 0,
        version: "0.0.0".into(),
        zone: "here".into(),
        connected_at: OffsetDateTime::UNIX_EPOCH,
        apply_micros: 7,
        usage_dropped_total: 0,
    }
}
