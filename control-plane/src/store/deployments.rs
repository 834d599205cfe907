//! Deployments: concrete upstreams, an organization's own or the operator's.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, OwnerTx, Page, StoreError,
    page::{page_of, page_query},
    prices::Amounts,
};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.org_id, d.name, d.provider, d.base_url, d.credential_id, d.model_id, \
             d.upstream_model, d.weight, d.disabled, d.created_at, d.price_id, p.input, p.output, p.cache_read, \
             p.cache_write, p.cache_write_1h, p.reasoning, p.units, p.steps, d.timeout_connect_ms, d.timeout_first_byte_ms, d.timeout_idle_ms, \
             d.timeout_total_ms, d.rpm, d.tpm \
             FROM deployments d LEFT JOIN deployment_prices p ON p.owner = d.owner AND p.id = d.price_id ",
            $rest
        )
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct DeploymentRow {
    pub id: Uuid,
    /// `None`: the operator's.
    pub org_id: Option<Uuid>,
    pub name: String,
    pub provider: String,
    /// Empty: the provider's own.
    pub base_url: String,
    pub credential_id: Option<Uuid>,
    pub model_id: String,
    pub upstream_model: String,
    pub weight: i64,
    pub disabled: bool,
    pub created_at: OffsetDateTime,
    /// Set when this deployment has prices of its own, which are those below.
    pub price_id: Option<String>,
    #[sqlx(flatten)]
    pub amounts: Amounts,
    #[sqlx(flatten)]
    pub timeouts: Timeouts,
    #[sqlx(flatten)]
    pub load: Load,
}

/// What it is good for, per minute; positive. `None`: not known.
#[derive(Clone, Copy, Debug, Default, FromRow)]
pub struct Load {
    pub rpm: Option<i32>,
    pub tpm: Option<i32>,
}

/// Milliseconds, positive; `None`: as organization or node have it.
#[derive(Clone, Copy, Debug, Default, FromRow)]
pub struct Timeouts {
    #[sqlx(rename = "timeout_connect_ms")]
    pub connect_ms: Option<i32>,
    #[sqlx(rename = "timeout_first_byte_ms")]
    pub first_byte_ms: Option<i32>,
    #[sqlx(rename = "timeout_idle_ms")]
    pub idle_ms: Option<i32>,
    #[sqlx(rename = "timeout_total_ms")]
    pub total_ms: Option<i32>,
}

pub struct NewDeployment<'a> {
    pub id: Uuid,
    pub name: &'a str,
    pub provider: &'a str,
    pub base_url: &'a str,
    pub credential_id: Option<Uuid>,
    pub model_id: &'a str,
    pub upstream_model: &'a str,
    pub weight: i64,
    pub price_id: Option<&'a str>,
    pub timeouts: Timeouts,
    pub load: Load,
}

/// An immutable price row for one deployment.
pub struct NewDeploymentPrice<'a> {
    pub id: &'a str,
    pub deployment_id: Uuid,
    pub amounts: &'a Amounts,
}

/// What to change; `None` leaves it, `Some(None)` clears it.
#[derive(Default)]
pub struct DeploymentChange<'a> {
    pub name: Option<&'a str>,
    pub base_url: Option<&'a str>,
    pub credential_id: Option<Option<Uuid>>,
    pub upstream_model: Option<&'a str>,
    pub weight: Option<i64>,
    pub disabled: Option<bool>,
    pub price_id: Option<Option<&'a str>>,
    pub timeouts: Option<Timeouts>,
    pub rpm: Option<Option<i32>>,
    pub tpm: Option<Option<i32>>,
}

pub async fn insert(tx: &mut OwnerTx, new: NewDeployment<'_>) -> Result<(), StoreError> {
    let sql = "INSERT INTO deployments (id, org_id, name, provider, base_url, credential_id, model_id, \
               upstream_model, weight, price_id, timeout_connect_ms, timeout_first_byte_ms, timeout_idle_ms, \
               timeout_total_ms, rpm, tpm) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    sqlx::query(sql)
        .bind(new.id)
        .bind(tx.org_id())
        .bind(new.name)
        .bind(new.provider)
        .bind(new.base_url)
        .bind(new.credential_id)
        .bind(new.model_id)
        .bind(new.upstream_model)
        .bind(new.weight)
        .bind(new.price_id)
        .bind(new.timeouts.connect_ms)
        .bind(new.timeouts.first_byte_ms)
        .bind(new.timeouts.idle_ms)
        .bind(new.timeouts.total_ms)
        .bind(new.load.rpm)
        .bind(new.load.tpm)
        .execute(tx.conn())
        .await?;
    Ok(())
}

pub async fn insert_price(tx: &mut OwnerTx, new: NewDeploymentPrice<'_>) -> Result<(), StoreError> {
    let sql = "INSERT INTO deployment_prices (id, org_id, deployment_id, input, output, cache_read, cache_write, \
               cache_write_1h, reasoning, units, steps) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    sqlx::query(sql)
        .bind(new.id)
        .bind(tx.org_id())
        .bind(new.deployment_id)
        .bind(new.amounts.input)
        .bind(new.amounts.output)
        .bind(new.amounts.cache_read)
        .bind(new.amounts.cache_write)
        .bind(new.amounts.cache_write_1h)
        .bind(new.amounts.reasoning)
        .bind(&new.amounts.units)
        .bind(&new.amounts.steps)
        .execute(tx.conn())
        .await?;
    Ok(())
}

pub async fn get(tx: &mut OwnerTx, id: Uuid) -> Result<Option<DeploymentRow>, StoreError> {
    let owner = tx.owner();
    let sql = select!("WHERE d.id = $1 AND d.owner = $2");
    Ok(sqlx::query_as(sql).bind(id).bind(owner).fetch_optional(tx.conn()).await?)
}

/// What a list of deployments can be restricted to besides. `None`: not restricted.
#[derive(Clone, Debug, Default)]
pub struct Only {
    pub model: Option<String>,
    pub provider: Option<String>,
    pub credential: Option<Uuid>,
    pub disabled: Option<bool>,
}

pub async fn list(
    tx: &mut OwnerTx,
    only: &Only,
    page: Page,
    filter: &Filter,
) -> Result<Listed<DeploymentRow>, StoreError> {
    let sql = concat!(
        select!(""),
        page_of!(
            "d.",
            "name",
            "d.owner = $7 AND ($8::text IS NULL OR d.model_id = $8) AND ($9::text IS NULL OR d.provider = $9) \
             AND ($10::uuid IS NULL OR d.credential_id = $10) AND ($11::boolean IS NULL OR d.disabled = $11)"
        )
    );
    let owner = tx.owner();
    let rows = page_query(sql, page, filter)
        .bind(owner)
        .bind(only.model.as_deref())
        .bind(only.provider.as_deref())
        .bind(only.credential)
        .bind(only.disabled)
        .fetch_all(tx.conn())
        .await?;
    Ok(Listed::new(rows, page, |row: &DeploymentRow| row.id))
}

/// Names of this owner's deployments that start with `prefix`.
pub async fn names_like(tx: &mut OwnerTx, prefix: &str) -> Result<Vec<String>, StoreError> {
    let owner = tx.owner();
    let sql = "SELECT name FROM deployments WHERE owner = $1 AND starts_with(name, $2)";
    Ok(sqlx::query_scalar(sql).bind(owner).bind(prefix).fetch_all(tx.conn()).await?)
}

/// Which of `ids` this owner may put into a model group, each with the value of its `owner` column.
pub async fn usable(tx: &mut OwnerTx, ids: &[Uuid]) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
    let owner = tx.owner();
    let sql = "SELECT id, owner FROM deployments WHERE id = ANY ($1) AND owner = $2 \
               UNION SELECT shared, '00000000-0000-0000-0000-000000000000'::uuid \
               FROM nemo_operator_deployments($1) AS shared";
    Ok(sqlx::query_as(sql).bind(ids).bind(owner).fetch_all(tx.conn()).await?)
}

/// False: there is none.
pub async fn update(tx: &mut OwnerTx, id: Uuid, change: DeploymentChange<'_>) -> Result<bool, StoreError> {
    let sql = "UPDATE deployments SET name = coalesce($3, name), base_url = coalesce($4, base_url), \
               credential_id = CASE WHEN $5 THEN $6 ELSE credential_id END, \
               upstream_model = coalesce($7, upstream_model), weight = coalesce($8, weight), \
               disabled = coalesce($9, disabled), price_id = CASE WHEN $10 THEN $11 ELSE price_id END, \
               timeout_connect_ms = CASE WHEN $12 THEN $13 ELSE timeout_connect_ms END, \
               timeout_first_byte_ms = CASE WHEN $12 THEN $14 ELSE timeout_first_byte_ms END, \
               timeout_idle_ms = CASE WHEN $12 THEN $15 ELSE timeout_idle_ms END, \
               timeout_total_ms = CASE WHEN $12 THEN $16 ELSE timeout_total_ms END, \
               rpm = CASE WHEN $17 THEN $18 ELSE rpm END, tpm = CASE WHEN $19 THEN $20 ELSE tpm END \
               WHERE id = $1 AND owner = $2";
    let owner = tx.owner();
    let timeouts = change.timeouts.unwrap_or_default();
    let done = sqlx::query(sql)
        .bind(id)
        .bind(owner)
        .bind(change.name)
        .bind(change.base_url)
        .bind(change.credential_id.is_some())
        .bind(change.credential_id.flatten())
        .bind(change.upstream_model)
        .bind(change.weight)
        .bind(change.disabled)
        .bind(change.price_id.is_some())
        .bind(change.price_id.flatten())
        .bind(change.timeouts.is_some())
        .bind(timeouts.connect_ms)
        .bind(timeouts.first_byte_ms)
        .bind(timeouts.idle_ms)
        .bind(timeouts.total_ms)
        .bind(change.rpm.is_some())
        .bind(change.rpm.flatten())
        .bind(change.tpm.is_some())
        .bind(change.tpm.flatten())
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() > 0)
}

/// False: there was none.
///
/// # Errors
/// [`StoreError::Reference`] while a model group uses it.
pub async fn delete(tx: &mut OwnerTx, id: Uuid) -> Result<bool, StoreError> {
    let owner = tx.owner();
    let sql = "DELETE FROM deployments WHERE id = $1 AND owner = $2";
    Ok(sqlx::query(sql).bind(id).bind(owner).execute(tx.conn()).await?.rows_affected() > 0)
}
