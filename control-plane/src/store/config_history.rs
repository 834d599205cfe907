//! What routing read at each revision (migration 0017): written by the publisher before a node can have the revision,
//! read by `admin/ops/decisions.rs`, pruned by the retention job.
//!
//! Recording is idempotent: replicas publish the same revisions, and a revision that is there is there whole.

use nemo_types::DeploymentId;
use sqlx::FromRow;
use time::OffsetDateTime;

use super::{Store, StoreError, SystemTx};

/// One resource from a revision on.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct HistoryRow {
    /// Number of `nemo.config.v1.Kind`.
    pub kind: i16,
    /// 16 UUID bytes, for a model its id in UTF-8.
    pub id: Vec<u8>,
    /// `nemo.config.v1.Resource` without secrets; `None`: gone.
    pub resource: Option<Vec<u8>>,
}

/// What a revision is recorded with.
#[derive(Clone, Debug)]
pub struct Recording {
    pub revision: u64,
    /// The rows are everything there is, not what changed.
    pub whole: bool,
    pub rows: Vec<HistoryRow>,
}

/// Between which revisions rows are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Not included; zero: from nothing.
    since: i64,
    /// The first whose rows count.
    first: i64,
    revision: i64,
}

impl Range {
    /// What the rows are relative to; zero: nothing.
    pub fn since(self) -> u64 {
        self.since.unsigned_abs()
    }
}

fn number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Store {
    /// Whether this revision can be rebuilt.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn is_recorded(&self, revision: u64) -> Result<bool, StoreError> {
        let mut tx = self.system().await?;
        let sql = "SELECT EXISTS (SELECT FROM config_history_revisions WHERE revision = $1)";
        Ok(sqlx::query_scalar(sql).bind(number(revision)).fetch_one(tx.conn()).await?)
    }

    /// Makes a revision one that can be rebuilt. One that is there already stays as it is.
    ///
    /// # Errors
    /// When the database can't be written. Nothing is recorded then.
    pub async fn record_config(&self, recording: Recording) -> Result<(), StoreError> {
        let Recording { revision, whole, rows } = recording;
        let revision = number(revision);
        let (mut kinds, mut ids, mut resources) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            kinds.push(row.kind);
            ids.push(row.id);
            resources.push(row.resource);
        }
        let mut tx = self.system().await?;
        sqlx::query(
            "INSERT INTO config_history (revision, kind, id, resource) \
             SELECT $1, kind, id, resource FROM unnest($2::smallint[], $3::bytea[], $4::bytea[]) AS new (kind, id, resource) \
             ON CONFLICT DO NOTHING",
        )
        .bind(revision)
        .bind(kinds)
        .bind(ids)
        .bind(resources)
        .execute(tx.conn())
        .await?;
        if whole {
            let sql = "INSERT INTO config_history_bases VALUES ($1) ON CONFLICT DO NOTHING";
            sqlx::query(sql).bind(revision).execute(tx.conn()).await?;
        }
        let sql = "INSERT INTO config_history_revisions VALUES ($1) ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(revision).execute(tx.conn()).await?;
        tx.commit().await
    }

    /// Forgets revisions that were replaced before that moment. Returns how many.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn prune_config_history(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let mut tx = self.system().await?;
        let gone: i64 = sqlx::query_scalar("SELECT nemo_prune_config_history($1)")
            .bind(before)
            .fetch_one(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(gone.unsigned_abs())
    }
}

/// Where the rows of a revision are; `None`: it can't be rebuilt. `since` is what the caller has already, zero for
/// nothing; where rows do not reach back to it, the range starts from nothing.
///
/// # Errors
/// When the database can't be read.
pub async fn range(tx: &mut SystemTx, revision: u64, since: u64) -> Result<Option<Range>, StoreError> {
    let (revision, since) = (number(revision), number(since));
    let base: Option<i64> = sqlx::query_scalar(
        "SELECT max(b.revision) FROM config_history_bases b \
         WHERE b.revision <= $1 AND EXISTS (SELECT FROM config_history_revisions WHERE revision = $1)",
    )
    .bind(revision)
    .fetch_one(tx.conn())
    .await?;
    let Some(base) = base else { return Ok(None) };
    let reaches = (base..=revision).contains(&since);
    Ok(Some(match reaches {
        true => Range { since, first: since + 1, revision },
        false => Range { since: 0, first: base, revision },
    }))
}

/// The newest row of each resource in the range, by kind and id, at most `limit` after `position`. Of a range from
/// nothing only what is there.
///
/// # Errors
/// When the database can't be read.
pub async fn rows(
    tx: &mut SystemTx,
    range: Range,
    position: Option<(i16, Vec<u8>)>,
    limit: i64,
) -> Result<Vec<HistoryRow>, StoreError> {
    let (kind, id) = position.unwrap_or_default();
    let rows = sqlx::query_as(
        "SELECT kind, id, resource FROM ( \
             SELECT DISTINCT ON (kind, id) kind, id, resource FROM config_history \
             WHERE revision BETWEEN $1 AND $2 AND (kind, id) > ($4, $5) ORDER BY kind, id, revision DESC \
         ) AS newest WHERE $3 OR resource IS NOT NULL ORDER BY kind, id LIMIT $6",
    )
    .bind(range.first)
    .bind(range.revision)
    .bind(range.since != 0)
    .bind(kind)
    .bind(id)
    .bind(limit)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// How deployments were at a revision, or as they were when they were last seen before it: `nemo.config.v1.Resource`.
///
/// # Errors
/// When the database can't be read.
pub async fn deployments(
    tx: &mut SystemTx,
    ids: &[DeploymentId],
    revision: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let ids: Vec<Vec<u8>> = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
    let rows = sqlx::query_scalar(
        "SELECT DISTINCT ON (id) resource FROM config_history \
         WHERE kind = 5 AND id = ANY ($1) AND revision <= $2 AND resource IS NOT NULL ORDER BY id, revision DESC",
    )
    .bind(ids)
    .bind(number(revision))
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}
