//! Demand for rate limits, by node, as replicas tell each other. Called by [`crate::quota::reclaimer`].

use nemo_types::RateLimitId;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::quota::{rates::NodeDemand, shares::Demand};

#[derive(FromRow)]
struct Columns {
    limit_id: Uuid,
    node_id: String,
    requests: i64,
    tokens: i64,
    concurrent: i64,
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes what nodes of this replica want, and reads what all have wanted within the last seconds.
///
/// # Errors
/// When the database can't be reached.
pub async fn exchange(store: &Store, own: &[NodeDemand]) -> Result<Vec<NodeDemand>, StoreError> {
    let mut tx = store.system().await?;
    if !own.is_empty() {
        let column = |of: fn(&Demand) -> u64| own.iter().map(|it| signed(of(&it.demand))).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO rate_demand (limit_id, node_id, requests, tokens, concurrent, at) \
             SELECT limit_id, node_id, requests, tokens, concurrent, clock_timestamp() \
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) \
                  AS new (limit_id, node_id, requests, tokens, concurrent) ORDER BY limit_id, node_id \
             ON CONFLICT (limit_id, node_id) DO UPDATE SET requests = excluded.requests, tokens = excluded.tokens, \
                 concurrent = excluded.concurrent, at = excluded.at",
        )
        .bind(own.iter().map(|it| it.limit.0).collect::<Vec<_>>())
        .bind(own.iter().map(|it| it.node_id.clone()).collect::<Vec<_>>())
        .bind(column(|it| it.requests_per_minute))
        .bind(column(|it| it.tokens_per_minute))
        .bind(column(|it| it.concurrent))
        .execute(tx.conn())
        .await?;
    }
    let sql = "SELECT limit_id, node_id, requests, tokens, concurrent FROM rate_demand \
               WHERE at > clock_timestamp() - interval '15 seconds'";
    let found: Vec<Columns> = sqlx::query_as(sql).fetch_all(tx.conn()).await?;
    tx.commit().await?;
    let demand = |it: Columns| NodeDemand {
        limit: RateLimitId(it.limit_id),
        node_id: it.node_id,
        demand: Demand {
            requests_per_minute: it.requests.unsigned_abs(),
            tokens_per_minute: it.tokens.unsigned_abs(),
            concurrent: it.concurrent.unsigned_abs(),
        },
    };
    Ok(found.into_iter().map(demand).collect())
}
