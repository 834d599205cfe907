//! What the catalog sync remembers: its runs, what it changed or holds, what sources listed, and which field is from
//! which source. Called by `catalog::sync::job` and the admin operations. It belongs to the installation.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, SystemTx};
use crate::catalog::sync::diff::Listing;

/// Runs that are kept, with their changes: decided ones go with them.
const KEPT_RUNS: i64 = 200;

/// One run.
#[derive(Clone, Debug, FromRow)]
pub struct RunRow {
    pub id: Uuid,
    pub started_at: OffsetDateTime,
    /// JSON.
    pub sources: String,
    pub applied: i64,
    pub held: i64,
}

/// A change that was made, or waits.
#[derive(Clone, Debug, FromRow)]
pub struct ChangeRow {
    pub id: Uuid,
    pub run_id: Uuid,
    pub model_id: String,
    pub provider: String,
    pub kind: String,
    /// JSON of `catalog::sync::Change`.
    pub change: String,
    pub source: String,
    pub reason: String,
    pub state: String,
    pub created_at: OffsetDateTime,
    pub decided_at: Option<OffsetDateTime>,
    pub decided_by: Option<String>,
}

pub struct NewChange<'a> {
    pub run_id: Uuid,
    pub model_id: &'a str,
    pub provider: &'a str,
    pub kind: &'a str,
    pub change: &'a str,
    pub source: &'a str,
    /// Empty: it was made.
    pub reason: &'a str,
}

macro_rules! columns {
    () => {
        "id, run_id, model_id, provider, kind, change, source, reason, state, created_at, decided_at, decided_by"
    };
}

pub async fn listings(tx: &mut SystemTx) -> Result<Vec<Listing>, StoreError> {
    let sql = "SELECT source, provider, upstream_model, model_id FROM catalog_listings \
               ORDER BY source, provider, upstream_model";
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(sql).fetch_all(tx.conn()).await?;
    let listing =
        |(source, provider, upstream_model, model)| Listing { source, provider, upstream_model, model };
    Ok(rows.into_iter().map(listing).collect())
}

/// Replaces what these sources listed. An offering that a source no longer lists stays known while the question what
/// becomes of it is open: it is asked again, not forgotten.
pub async fn put_listings(tx: &mut SystemTx, sources: &[String], now: &[Listing]) -> Result<(), StoreError> {
    let delete = "DELETE FROM catalog_listings l WHERE l.source = ANY ($1) AND NOT EXISTS (SELECT FROM catalog_changes c \
                  WHERE c.state = 'held' AND c.kind = 'offering_vanished' AND c.model_id = l.model_id \
                  AND c.provider = l.provider)";
    sqlx::query(delete).bind(sources).execute(tx.conn()).await?;
    let column = |of: fn(&Listing) -> &String| now.iter().map(|it| of(it).as_str()).collect::<Vec<_>>();
    let insert = "INSERT INTO catalog_listings (source, provider, upstream_model, model_id) \
                  SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) \
                  ON CONFLICT (source, provider, upstream_model) DO UPDATE SET model_id = EXCLUDED.model_id, seen_at = now()";
    sqlx::query(insert)
        .bind(column(|it| &it.source))
        .bind(column(|it| &it.provider))
        .bind(column(|it| &it.upstream_model))
        .bind(column(|it| &it.model))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Forgets that a source listed an offering: it was taken out of the catalog, or an operator wants it to stay.
pub async fn forget_listing(tx: &mut SystemTx, model: &str, provider: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM catalog_listings WHERE model_id = $1 AND provider = $2";
    sqlx::query(sql).bind(model).bind(provider).execute(tx.conn()).await?;
    Ok(())
}

pub async fn put_provenance(
    tx: &mut SystemTx,
    fields: &[(String, String, &'static str, String)],
) -> Result<(), StoreError> {
    let models: Vec<&str> = fields.iter().map(|it| it.0.as_str()).collect();
    let providers: Vec<&str> = fields.iter().map(|it| it.1.as_str()).collect();
    let names: Vec<&str> = fields.iter().map(|it| it.2).collect();
    let sources: Vec<&str> = fields.iter().map(|it| it.3.as_str()).collect();
    let sql = "INSERT INTO catalog_provenance (model_id, provider, field, source) \
               SELECT DISTINCT ON (m, p, f) m, p, f, s FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) \
                 AS said (m, p, f, s) WHERE EXISTS (SELECT FROM models WHERE id = m) \
               ON CONFLICT (model_id, provider, field) DO UPDATE SET source = EXCLUDED.source, at = now() \
               WHERE catalog_provenance.source <> EXCLUDED.source";
    sqlx::query(sql).bind(models).bind(providers).bind(names).bind(sources).execute(tx.conn()).await?;
    Ok(())
}

/// Of a model: provider (empty: its own), field, source.
pub async fn provenance(
    tx: &mut SystemTx,
    model: &str,
) -> Result<Vec<(String, String, String, OffsetDateTime)>, StoreError> {
    let sql = "SELECT provider, field, source, at FROM catalog_provenance WHERE model_id = $1 ORDER BY provider, field";
    Ok(sqlx::query_as(sql).bind(model).fetch_all(tx.conn()).await?)
}

/// Whether an operator has said no to this very change.
pub async fn is_rejected(tx: &mut SystemTx, new: &NewChange<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM catalog_changes WHERE state = 'rejected' AND model_id = $1 AND provider = $2 \
               AND kind = $3 AND change = $4)";
    let found = sqlx::query_scalar(sql).bind(new.model_id).bind(new.provider).bind(new.kind).bind(new.change);
    Ok(found.fetch_one(tx.conn()).await?)
}

/// Notes a change that was made; what was held about the same thing has been overtaken by it.
pub async fn insert_applied(tx: &mut SystemTx, new: &NewChange<'_>) -> Result<(), StoreError> {
    supersede(tx, new).await?;
    insert(tx, new, "applied").await
}

/// Holds a change. True: it is another one than was held before.
pub async fn hold(tx: &mut SystemTx, new: &NewChange<'_>) -> Result<bool, StoreError> {
    let same = "SELECT EXISTS (SELECT FROM catalog_changes WHERE state = 'held' AND model_id = $1 AND provider = $2 \
                AND kind = $3 AND change = $4)";
    let query =
        sqlx::query_scalar(same).bind(new.model_id).bind(new.provider).bind(new.kind).bind(new.change);
    if query.fetch_one(tx.conn()).await? {
        return Ok(false);
    }
    supersede(tx, new).await?;
    insert(tx, new, "held").await?;
    Ok(true)
}

async fn supersede(tx: &mut SystemTx, new: &NewChange<'_>) -> Result<(), StoreError> {
    let sql = "UPDATE catalog_changes SET state = 'superseded', decided_at = now() \
               WHERE state = 'held' AND model_id = $1 AND provider = $2 AND kind = $3";
    sqlx::query(sql).bind(new.model_id).bind(new.provider).bind(new.kind).execute(tx.conn()).await?;
    Ok(())
}

async fn insert(tx: &mut SystemTx, new: &NewChange<'_>, state: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO catalog_changes (id, run_id, model_id, provider, kind, change, source, reason, state) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    sqlx::query(sql)
        .bind(Uuid::now_v7())
        .bind(new.run_id)
        .bind(new.model_id)
        .bind(new.provider)
        .bind(new.kind)
        .bind(new.change)
        .bind(new.source)
        .bind(new.reason)
        .bind(state)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Held changes about what is as the source says again: nothing is to be decided any more.
pub async fn settle(tx: &mut SystemTx, still: &[(String, String, &'static str)]) -> Result<u64, StoreError> {
    let models: Vec<&str> = still.iter().map(|it| it.0.as_str()).collect();
    let providers: Vec<&str> = still.iter().map(|it| it.1.as_str()).collect();
    let kinds: Vec<&str> = still.iter().map(|it| it.2).collect();
    let sql = "UPDATE catalog_changes SET state = 'superseded', decided_at = now() WHERE state = 'held' \
               AND (model_id, provider, kind) NOT IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))";
    let done = sqlx::query(sql).bind(models).bind(providers).bind(kinds).execute(tx.conn()).await?;
    Ok(done.rows_affected())
}

/// The held change with this id, locked.
pub async fn held(tx: &mut SystemTx, id: Uuid) -> Result<Option<ChangeRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM catalog_changes WHERE id = $1 FOR UPDATE");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

/// `state`: `approved` or `rejected`.
pub async fn decide(tx: &mut SystemTx, id: Uuid, state: &str, by: &str) -> Result<ChangeRow, StoreError> {
    let sql = concat!(
        "UPDATE catalog_changes SET state = $2, decided_at = now(), decided_by = $3 WHERE id = $1 RETURNING ",
        columns!()
    );
    Ok(sqlx::query_as(sql).bind(id).bind(state).bind(by).fetch_one(tx.conn()).await?)
}

/// At most `limit` changes that came before the one with the id `after`, the newest first.
pub async fn changes(
    tx: &mut SystemTx,
    state: Option<&str>,
    model: Option<&str>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ChangeRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM catalog_changes WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR model_id = $2) \
         AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4"
    );
    Ok(sqlx::query_as(sql).bind(state).bind(model).bind(after).bind(limit).fetch_all(tx.conn()).await?)
}

pub async fn insert_run(tx: &mut SystemTx, run: &RunRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO catalog_runs (id, started_at, sources, applied, held) VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(sql)
        .bind(run.id)
        .bind(run.started_at)
        .bind(&run.sources)
        .bind(run.applied)
        .bind(run.held)
        .execute(tx.conn())
        .await?;
    let old = "DELETE FROM catalog_runs WHERE id IN (SELECT id FROM catalog_runs ORDER BY started_at DESC OFFSET $1)";
    sqlx::query(old).bind(KEPT_RUNS).execute(tx.conn()).await?;
    // What was rejected is kept: it must not be proposed again.
    let forgotten = "DELETE FROM catalog_changes c WHERE c.state IN ('applied', 'approved', 'superseded') \
                     AND NOT EXISTS (SELECT FROM catalog_runs r WHERE r.id = c.run_id)";
    sqlx::query(forgotten).execute(tx.conn()).await?;
    Ok(())
}

/// The newest first.
pub async fn runs(tx: &mut SystemTx, limit: i64) -> Result<Vec<RunRow>, StoreError> {
    let sql = "SELECT id, started_at, sources, applied, held FROM catalog_runs \
               ORDER BY started_at DESC LIMIT $1";
    Ok(sqlx::query_as(sql).bind(limit).fetch_all(tx.conn()).await?)
}

/// How the operator calls a provider: what new deployments there are made like.
#[derive(Clone, Debug, FromRow)]
pub struct Account {
    pub provider: String,
    pub base_url: String,
    pub credential_id: Uuid,
    pub credential_name: String,
    pub sealed: Vec<u8>,
}

/// One for each provider that the operator has deployments of with a credential: the one with the most.
pub async fn accounts(tx: &mut SystemTx) -> Result<Vec<Account>, StoreError> {
    let sql = "SELECT DISTINCT ON (d.provider) d.provider, d.base_url, c.id AS credential_id, c.name AS credential_name, \
                 c.sealed FROM deployments d JOIN credentials c ON c.owner = d.owner AND c.id = d.credential_id \
               WHERE d.org_id IS NULL AND NOT d.disabled \
               GROUP BY d.provider, d.base_url, c.id, c.name, c.sealed \
               ORDER BY d.provider, count(*) DESC, c.name";
    Ok(sqlx::query_as(sql).fetch_all(tx.conn()).await?)
}

/// Whether the operator has a deployment of this model at this provider.
pub async fn is_deployed(tx: &mut SystemTx, model: &str, provider: &str) -> Result<bool, StoreError> {
    let sql =
        "SELECT EXISTS (SELECT FROM deployments WHERE org_id IS NULL AND model_id = $1 AND provider = $2)";
    Ok(sqlx::query_scalar(sql).bind(model).bind(provider).fetch_one(tx.conn()).await?)
}

/// Takes an offering out of the catalog, and with the last one the model, if nothing serves it.
pub async fn remove_offering(tx: &mut SystemTx, model: &str, provider: &str) -> Result<(), StoreError> {
    let offering = "DELETE FROM model_offerings WHERE model_id = $1 AND provider = $2";
    sqlx::query(offering).bind(model).bind(provider).execute(tx.conn()).await?;
    let model_sql = "DELETE FROM models m WHERE m.id = $1 \
                     AND NOT EXISTS (SELECT FROM model_offerings o WHERE o.model_id = m.id) \
                     AND NOT EXISTS (SELECT FROM deployments d WHERE d.model_id = m.id)";
    sqlx::query(model_sql).bind(model).execute(tx.conn()).await?;
    Ok(())
}

/// A deployment of the operator's, made like the provider's others.
pub async fn deploy(
    tx: &mut SystemTx,
    like: &Account,
    name: &str,
    model: &str,
    upstream_model: &str,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO deployments (id, org_id, name, provider, base_url, credential_id, model_id, upstream_model, weight) \
               VALUES ($1, NULL, $2, $3, $4, $5, $6, $7, 1) ON CONFLICT DO NOTHING";
    sqlx::query(sql)
        .bind(nemo_types::DeploymentId::generate().0)
        .bind(name)
        .bind(&like.provider)
        .bind(&like.base_url)
        .bind(like.credential_id)
        .bind(model)
        .bind(upstream_model)
        .execute(tx.conn())
        .await?;
    Ok(())
}
