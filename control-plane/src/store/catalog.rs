//! The model catalog: models, who offers them, and immutable prices. Belongs to the installation.

use std::collections::HashMap;

use sqlx::FromRow;
use time::OffsetDateTime;

pub use super::prices::Amounts;
use super::{
    OwnerTx, StoreError, SystemTx, TenantTx,
    prices::{self, NewPrice, amounts},
};

macro_rules! columns {
    () => {
        "id, display_name, owned_by, created_unix, context_window, max_output_tokens, tags, aliases, \
         input_modalities, output_modalities, endpoints, source"
    };
}

/// Where an entry comes from. What an operator wrote is never replaced by another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Bundled,
    /// A source of the catalog sync: what it says of a model that is there already does not make it the model's source.
    Discovered,
    Custom,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundled => "bundled",
            Self::Discovered => "discovered",
            Self::Custom => "custom",
        }
    }
}

/// A model without its offerings.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct ModelRow {
    pub id: String,
    pub display_name: String,
    pub owned_by: String,
    pub created_unix: i64,
    pub context_window: i64,
    pub max_output_tokens: i64,
    pub tags: Vec<String>,
    pub aliases: Vec<String>,
    pub input_modalities: Vec<String>,
    pub output_modalities: Vec<String>,
    pub endpoints: Vec<String>,
    pub source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct OfferingRow {
    pub model_id: String,
    pub provider: String,
    pub upstream_model: String,
    pub price_id: Option<String>,
    /// An operator has set it: an edition of the bundled catalog leaves it alone.
    pub price_is_custom: bool,
    #[sqlx(flatten)]
    pub amounts: Amounts,
}

impl OfferingRow {
    fn keeps_price(&self, source: Source) -> bool {
        self.price_is_custom && source != Source::Custom
    }
}

#[derive(Clone, Debug)]
pub struct StoredModel {
    pub row: ModelRow,
    pub offerings: Vec<OfferingRow>,
}

/// A model as it is to be.
#[derive(Clone, Debug, Default)]
pub struct NewModel {
    /// `source` is set by [`put`].
    pub row: ModelRow,
    /// At most one per provider.
    pub offerings: Vec<NewOffering>,
}

#[derive(Clone, Debug, Default)]
pub struct NewOffering {
    pub provider: String,
    pub upstream_model: String,
    pub amounts: Amounts,
    /// Identity of the price, should these amounts be new; `None`: `<provider>/<model>@<now>`.
    pub price_id: Option<String>,
}

impl NewOffering {
    fn price<'a>(&'a self, model_id: &'a str, now: OffsetDateTime) -> NewPrice<'a> {
        NewPrice {
            provider: &self.provider,
            model_id,
            amounts: &self.amounts,
            effective_from: now,
            id: self.price_id.as_deref(),
        }
    }
}

pub async fn get(tx: &mut SystemTx, id: &str) -> Result<Option<StoredModel>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM models WHERE id = $1");
    let rows = sqlx::query_as(sql).bind(id).fetch_all(tx.conn()).await?;
    Ok(with_offerings(tx, rows).await?.pop())
}

/// At most `limit` models whose id is greater than `after`, in the order of their ids.
pub async fn list(
    tx: &mut SystemTx,
    provider: Option<&str>,
    tag: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<StoredModel>, StoreError> {
    // "C": the order of a page must not depend on the database's locale.
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM models m WHERE m.id COLLATE \"C\" > $1 AND ($2::text IS NULL OR $2 = ANY (m.tags)) \
         AND ($3::text IS NULL OR EXISTS (SELECT FROM model_offerings o WHERE o.model_id = m.id AND o.provider = $3)) \
         ORDER BY m.id COLLATE \"C\" LIMIT $4"
    );
    let rows =
        sqlx::query_as(sql).bind(after).bind(tag).bind(provider).bind(limit).fetch_all(tx.conn()).await?;
    with_offerings(tx, rows).await
}

async fn with_offerings(tx: &mut SystemTx, rows: Vec<ModelRow>) -> Result<Vec<StoredModel>, StoreError> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let sql = concat!(
        "SELECT o.model_id, o.provider, o.upstream_model, o.price_id, o.price_is_custom, ",
        amounts!(),
        " FROM model_offerings o LEFT JOIN model_prices p ON p.id = o.price_id \
         WHERE o.model_id = ANY ($1) ORDER BY o.position"
    );
    let offerings: Vec<OfferingRow> = sqlx::query_as(sql).bind(ids).fetch_all(tx.conn()).await?;
    let mut by_model: HashMap<String, Vec<OfferingRow>> = HashMap::new();
    for offering in offerings {
        by_model.entry(offering.model_id.clone()).or_default().push(offering);
    }
    let models = rows
        .into_iter()
        .map(|row| StoredModel { offerings: by_model.remove(&row.id).unwrap_or_default(), row });
    Ok(models.collect())
}

/// Creates or replaces models, writing only what differs; amounts that differ become new price rows. Entries of
/// another source than [`Source::Custom`] leave custom ones alone. Returns the number of models written.
pub async fn put(
    tx: &mut SystemTx,
    models: Vec<NewModel>,
    source: Source,
    now: OffsetDateTime,
) -> Result<u64, StoreError> {
    // Decides on what it has read, so nobody else may write meanwhile.
    tx.serialize_config().await?;
    let ids: Vec<&str> = models.iter().map(|model| model.row.id.as_str()).collect();
    let sql = concat!("SELECT ", columns!(), " FROM models WHERE id = ANY ($1)");
    let rows = sqlx::query_as(sql).bind(ids).fetch_all(tx.conn()).await?;
    let mut stored: HashMap<String, StoredModel> =
        with_offerings(tx, rows).await?.into_iter().map(|model| (model.row.id.clone(), model)).collect();

    let mut written = 0;
    for mut model in models {
        source.as_str().clone_into(&mut model.row.source);
        let old = stored.remove(&model.row.id);
        let is_custom = old.as_ref().is_some_and(|old| old.row.source == Source::Custom.as_str());
        if let (Source::Discovered, Some(old)) = (source, &old) {
            model.row.source.clone_from(&old.row.source);
        }
        if (is_custom && source != Source::Custom)
            || old.as_ref().is_some_and(|old| is_same(old, &model, source))
        {
            continue;
        }
        write(tx, &model, source, old.map(|old| old.offerings).unwrap_or_default(), now).await?;
        written += 1;
    }
    Ok(written)
}

/// Price ids do not count: they are made from the amounts.
fn is_same(old: &StoredModel, new: &NewModel, source: Source) -> bool {
    old.row == new.row
        && old.offerings.len() == new.offerings.len()
        && old.offerings.iter().zip(&new.offerings).all(|(old, new)| {
            old.provider == new.provider
                && old.upstream_model == new.upstream_model
                && (old.keeps_price(source) || old.amounts == new.amounts)
        })
}

async fn write(
    tx: &mut SystemTx,
    model: &NewModel,
    source: Source,
    old: Vec<OfferingRow>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let row = &model.row;
    let sql = "INSERT INTO models (id, display_name, owned_by, created_unix, context_window, max_output_tokens, \
               tags, aliases, input_modalities, output_modalities, endpoints, source) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
               ON CONFLICT (id) DO UPDATE SET display_name = EXCLUDED.display_name, owned_by = EXCLUDED.owned_by, \
               created_unix = EXCLUDED.created_unix, context_window = EXCLUDED.context_window, \
               max_output_tokens = EXCLUDED.max_output_tokens, tags = EXCLUDED.tags, aliases = EXCLUDED.aliases, \
               input_modalities = EXCLUDED.input_modalities, output_modalities = EXCLUDED.output_modalities, \
               endpoints = EXCLUDED.endpoints, source = EXCLUDED.source";
    sqlx::query(sql)
        .bind(&row.id)
        .bind(&row.display_name)
        .bind(&row.owned_by)
        .bind(row.created_unix)
        .bind(row.context_window)
        .bind(row.max_output_tokens)
        .bind(&row.tags)
        .bind(&row.aliases)
        .bind(&row.input_modalities)
        .bind(&row.output_modalities)
        .bind(&row.endpoints)
        .bind(&row.source)
        .execute(tx.conn())
        .await?;

    let providers: Vec<&str> = model.offerings.iter().map(|offering| offering.provider.as_str()).collect();
    sqlx::query("DELETE FROM model_offerings WHERE model_id = $1 AND provider <> ALL ($2)")
        .bind(&row.id)
        .bind(providers)
        .execute(tx.conn())
        .await?;
    for (position, offering) in (0_i32..).zip(&model.offerings) {
        let old = old.iter().find(|old| old.provider == offering.provider);
        let old = old.filter(|old| old.keeps_price(source) || old.amounts == offering.amounts);
        let price_id = match old {
            Some(old) => old.price_id.clone(),
            None if offering.amounts.is_unknown() => None,
            None => Some(prices::insert(tx, offering.price(&row.id, now)).await?),
        };
        let is_custom = old.is_some_and(|old| old.price_is_custom);
        let sql = "INSERT INTO model_offerings (model_id, provider, position, upstream_model, price_id, \
                   price_is_custom) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (model_id, provider) DO UPDATE SET \
                   position = EXCLUDED.position, upstream_model = EXCLUDED.upstream_model, \
                   price_id = EXCLUDED.price_id, price_is_custom = EXCLUDED.price_is_custom";
        sqlx::query(sql)
            .bind(&row.id)
            .bind(&offering.provider)
            .bind(position)
            .bind(&offering.upstream_model)
            .bind(price_id)
            .bind(is_custom)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// False: there was none. Its prices stay.
///
/// # Errors
/// [`StoreError::Reference`] while a deployment serves it.
pub async fn delete(tx: &mut SystemTx, id: &str) -> Result<bool, StoreError> {
    Ok(sqlx::query("DELETE FROM models WHERE id = $1").bind(id).execute(tx.conn()).await?.rows_affected() > 0)
}

/// Every tag that some model has, in order.
pub async fn tags(tx: &mut TenantTx) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT tag FROM (SELECT DISTINCT unnest(tags) AS tag FROM models) AS every ORDER BY tag COLLATE \"C\"";
    Ok(sqlx::query_scalar(sql).fetch_all(tx.conn()).await?)
}

/// For a deployment: `None` when there is no such model, else what that provider calls it, if the catalog says.
pub async fn upstream_name(
    tx: &mut OwnerTx,
    model: &str,
    provider: &str,
) -> Result<Option<Option<String>>, StoreError> {
    let sql = "SELECT o.upstream_model FROM models m \
               LEFT JOIN model_offerings o ON o.model_id = m.id AND o.provider = $2 WHERE m.id = $1";
    Ok(sqlx::query_scalar(sql).bind(model).bind(provider).fetch_optional(tx.conn()).await?)
}

/// Another model that has one of these names as its id or alias.
pub async fn name_taken(
    tx: &mut SystemTx,
    id: &str,
    aliases: &[String],
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT id FROM models WHERE id <> $1 AND (id = ANY ($2) OR aliases && $2 OR $1 = ANY (aliases)) \
               ORDER BY id LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(id).bind(aliases).fetch_optional(tx.conn()).await?)
}
