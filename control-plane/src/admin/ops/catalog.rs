//! The model catalog. Everybody reads it; writing is the operator's. A new price is a new immutable row.

use std::collections::HashSet;

use nemo_proto::admin::{
    DeleteModelRequest, DeleteModelResponse, FieldSource, GetModelRequest, ListModelsRequest,
    ListModelsResponse, Model, Offering, PutModelRequest,
};

use super::in_use;
use crate::{
    admin::{Admin, AdminError, Call, ErrorKind, Written, page_token, validate},
    store::{
        catalog::{self, ModelRow, NewModel, NewOffering, Source},
        catalog_sync,
    },
};

const MAX_LIST: usize = 64;

impl Admin {
    pub async fn put_model(
        &self,
        call: &Call,
        request: PutModelRequest,
    ) -> Result<Written<Model>, AdminError> {
        let model = request.model.ok_or_else(|| {
            AdminError::invalid("model", "missing", "the model as it shall be, with its id")
        })?;
        let new = check(model, request.confirm_unusual_price)?;
        let mut write = self.write_system(call, "model.put").await?;
        let before = catalog::get(&mut write.tx, &new.row.id).await?;
        write.found_or_new::<Model>(before)?;
        if let Some(other) = catalog::name_taken(&mut write.tx, &new.row.id, &new.row.aliases).await? {
            let message = format!("the id or an alias is an alias or the id of model {other:?}");
            return Err(AdminError {
                field: Some("model.aliases".into()),
                ..AdminError::new(ErrorKind::AlreadyExists, message)
            });
        }
        let id = new.row.id.clone();
        catalog::put(&mut write.tx, vec![new], Source::Custom, validate::now()).await?;
        let stored = catalog::get(&mut write.tx, &id).await?;
        write.done(stored.ok_or_else(|| AdminError::not_found("model", id))?.into()).await
    }

    pub async fn get_model(&self, _call: &Call, request: GetModelRequest) -> Result<Model, AdminError> {
        validate::model_name("id", &request.id)?;
        let mut tx = self.store.system().await?;
        let stored = catalog::get(&mut tx, &request.id).await?;
        let stored = stored.ok_or_else(|| AdminError::not_found("model", format!("{:?}", request.id)))?;
        let provenance = catalog_sync::provenance(&mut tx, &request.id).await?.into_iter();
        let provenance = provenance.map(|(provider, field, source, at)| FieldSource {
            provider,
            field,
            source,
            at: Some(at.into()),
        });
        Ok(Model { provenance: provenance.collect(), ..stored.into() })
    }

    pub async fn list_models(
        &self,
        _call: &Call,
        request: ListModelsRequest,
    ) -> Result<ListModelsResponse, AdminError> {
        let size = validate::page_size(request.page_size)?;
        let after = page_token::to_text(&request.page_token)?;
        let provider = validate::filter("provider", request.provider)?;
        let tag = validate::filter("tag", request.tag)?;
        let mut tx = self.store.system().await?;
        // One more than asked for tells whether there is a next page.
        let limit = i64::from(size) + 1;
        let mut stored = catalog::list(&mut tx, provider.as_deref(), tag.as_deref(), &after, limit).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = stored.len() > size;
        stored.truncate(size);
        let next = stored.last().filter(|_| more).map(|model| page_token::from_text(&model.row.id));
        Ok(ListModelsResponse {
            models: stored.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// A model of the bundled catalog comes back with the next start of a control plane.
    pub async fn delete_model(
        &self,
        call: &Call,
        request: DeleteModelRequest,
    ) -> Result<Written<DeleteModelResponse>, AdminError> {
        validate::model_name("id", &request.id)?;
        let mut write = self.write_system(call, "model.delete").await?;
        let before = catalog::get(&mut write.tx, &request.id).await?;
        write.found::<Model>(before, format!("{:?}", request.id))?;
        catalog::delete(&mut write.tx, &request.id)
            .await
            .map_err(|error| in_use(error, "deployments still serve this model: delete them first"))?;
        write.deleted().await
    }
}

fn check(model: Model, confirmed: bool) -> Result<NewModel, AdminError> {
    let field = |name: &str| format!("model.{name}");
    validate::model_name(&field("id"), &model.id)?;
    let display_name = if model.display_name.is_empty() { model.id.clone() } else { model.display_name };
    validate::name(&field("display_name"), &display_name)?;
    if !model.owned_by.is_empty() {
        validate::slug(&field("owned_by"), &model.owned_by)?;
    }
    if model.created_unix < 0 {
        return Err(AdminError::invalid(field("created_unix"), "before 1970", "seconds since 1970, or 0"));
    }
    each(&field("aliases"), &model.aliases, validate::model_name)?;
    each(&field("tags"), &model.tags, validate::slug)?;
    each(&field("input_modalities"), &model.input_modalities, validate::slug)?;
    each(&field("output_modalities"), &model.output_modalities, validate::slug)?;
    each(&field("endpoints"), &model.endpoints, validate::slug)?;
    if model.aliases.contains(&model.id) {
        return Err(AdminError::invalid(field("aliases"), "contains the id", "other names"));
    }
    let row = ModelRow {
        context_window: count(&field("context_window"), model.context_window)?,
        max_output_tokens: count(&field("max_output_tokens"), model.max_output_tokens)?,
        display_name,
        owned_by: model.owned_by,
        created_unix: model.created_unix,
        tags: model.tags,
        aliases: model.aliases,
        input_modalities: model.input_modalities,
        output_modalities: model.output_modalities,
        endpoints: model.endpoints,
        source: String::new(),
        id: model.id,
    };
    let offerings = check_offerings(&field("offerings"), model.offerings, &row.id, confirmed)?;
    Ok(NewModel { row, offerings })
}

fn check_offerings(
    field: &str,
    offerings: Vec<Offering>,
    model_id: &str,
    confirmed: bool,
) -> Result<Vec<NewOffering>, AdminError> {
    validate::at_most(field, offerings.len(), MAX_LIST)?;
    let mut providers = HashSet::new();
    let mut checked = Vec::with_capacity(offerings.len());
    for (at, offering) in offerings.into_iter().enumerate() {
        let field = |name: &str| format!("{field}[{at}].{name}");
        validate::slug(&field("provider"), &offering.provider)?;
        if !providers.insert(offering.provider.clone()) {
            let message = format!("{:?} appears twice", offering.provider);
            return Err(AdminError::invalid(field("provider"), message, "one offering per provider"));
        }
        let upstream_model = match offering.upstream_model {
            name if name.is_empty() => model_id.to_owned(),
            name => name,
        };
        if upstream_model.len() > 256 || !upstream_model.bytes().all(|b| b.is_ascii_graphic()) {
            let expected = "at most 256 visible ASCII characters";
            return Err(AdminError::invalid(field("upstream_model"), "has another form", expected));
        }
        let amounts = validate::price(&field("price"), &offering.price.unwrap_or_default(), confirmed)?;
        checked.push(NewOffering { provider: offering.provider, upstream_model, amounts, price_id: None });
    }
    Ok(checked)
}

fn each(
    field: &str,
    texts: &[String],
    check: fn(&str, &str) -> Result<(), AdminError>,
) -> Result<(), AdminError> {
    validate::at_most(field, texts.len(), MAX_LIST)?;
    texts.iter().enumerate().try_for_each(|(at, text)| check(&format!("{field}[{at}]"), text))
}

fn count(field: &str, value: u64) -> Result<i64, AdminError> {
    i64::try_from(value).map_err(|_| AdminError::invalid(field, "too large", "a number of tokens"))
}
