//! Writes the bundled catalog into the database: at start, once per edition, only what differs.
//!
//! What an operator wrote stays. An older release that starts beside a newer one (a rolling upgrade) leaves the newer
//! edition alone, and a bundled model that was deleted stays deleted until the next edition.

use nemo_proto::admin as pb;
use serde_json::Value;
use time::OffsetDateTime;

use super::{Catalog, CatalogModel, CatalogPriceStep, CatalogUnitPrice, price_id};
use crate::store::{
    OwnerTx, Store, StoreError,
    catalog::{self as rows, Amounts, ModelRow, NewModel, NewOffering, Source},
    settings, units,
};

/// Installation setting that holds the day of the edition in the database.
pub const EDITION_SETTING: &str = "catalog.edition";

/// What [`seed`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// Models written, new or changed.
    Written(u64),
    /// The database has this edition or a newer one.
    UpToDate { edition: String },
}

/// Brings the database to the edition of `catalog`.
///
/// # Errors
/// When the database can't be written.
pub async fn seed(store: &Store, catalog: &Catalog, now: OffsetDateTime) -> Result<Seeded, StoreError> {
    let mut tx = store.owner(None).await?;
    // Two replicas that start together: the second waits here and then finds the edition.
    tx.wait_long().await?;
    tx.serialize_config().await?;
    if let Some(edition) = edition(&settings::list(&mut tx).await?)
        && edition >= catalog.generated
    {
        return Ok(Seeded::UpToDate { edition });
    }
    let models = catalog.models.iter().map(|model| new_model(model, &catalog.generated)).collect();
    let written = match &mut tx {
        OwnerTx::Operator(system) => rows::put(system, models, Source::Bundled, now).await?,
        // `owner(None)` is the operator by definition.
        OwnerTx::Tenant(_) => 0,
    };
    let value = Value::from(catalog.generated.as_str()).to_string();
    settings::put(&mut tx, nemo_types::SettingId::generate().0, EDITION_SETTING, &value).await?;
    tx.commit().await?;
    Ok(Seeded::Written(written))
}

fn edition(settings: &[settings::SettingRow]) -> Option<String> {
    let setting = settings.iter().find(|setting| setting.key == EDITION_SETTING)?;
    serde_json::from_str::<Value>(&setting.value).ok()?.as_str().map(str::to_owned)
}

fn new_model(model: &CatalogModel, generated: &str) -> NewModel {
    let row = ModelRow {
        id: model.id.clone(),
        display_name: model.display_name.clone(),
        owned_by: model.owned_by.clone(),
        created_unix: model.created_unix,
        context_window: tokens(model.context_window),
        max_output_tokens: tokens(model.max_output_tokens.unwrap_or_default()),
        tags: model.tags.clone(),
        aliases: model.aliases.clone(),
        input_modalities: model.input_modalities.clone(),
        output_modalities: model.output_modalities.clone(),
        endpoints: model.endpoints.clone(),
        source: String::new(),
    };
    let offerings = model.offerings.iter().map(|offering| NewOffering {
        provider: offering.provider.clone(),
        upstream_model: offering.upstream_model.clone(),
        amounts: Amounts {
            input: offering.price.input,
            output: offering.price.output,
            cache_read: offering.price.cache_read,
            cache_write: offering.price.cache_write,
            cache_write_1h: offering.price.cache_write_1h,
            reasoning: offering.price.reasoning,
            units: units::prices_to_column(&offering.price.units.iter().map(unit_price).collect::<Vec<_>>()),
            steps: units::steps_to_column(&offering.price.steps.iter().map(price_step).collect::<Vec<_>>()),
        },
        price_id: Some(price_id(generated, &offering.provider, &model.id)),
    });
    NewModel { row, offerings: offerings.collect() }
}

fn unit_price(price: &CatalogUnitPrice) -> pb::UnitPrice {
    let CatalogUnitPrice { unit, quality, size, price } = price.clone();
    pb::UnitPrice { unit, quality, size, price }
}

fn price_step(step: &CatalogPriceStep) -> pb::PriceStep {
    let CatalogPriceStep {
        above_input_tokens,
        service_tier,
        input,
        output,
        cache_read,
        cache_write,
        cache_write_1h,
        reasoning,
    } = step.clone();
    pb::PriceStep {
        above_input_tokens,
        service_tier,
        input,
        output,
        cache_read,
        cache_write,
        cache_write_1h,
        reasoning,
    }
}

fn tokens(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
