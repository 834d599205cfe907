//! The price book. Prices never change: a new one is added, in effect from a time on, and the history stays. Everybody
//! reads the catalog's, writing is the operator's.

use nemo_proto::admin::{
    CreatePriceRequest, DeletePriceRequest, DeletePriceResponse, DeploymentPrice, GetPriceRequest,
    ListDeploymentPricesRequest, ListDeploymentPricesResponse, ListPricesRequest, ListPricesResponse,
    ModelPrice,
};
use nemo_types::DeploymentId;
use time::{Duration, OffsetDateTime};

use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Written, page_token, validate},
    store::{
        deployments,
        prices::{self, DeploymentPriceRow, NewPrice, PriceRow},
    },
};

/// How far ahead a price can be set, and how far back one corrects.
const MOST: Duration = Duration::days(400);

impl Admin {
    pub async fn create_price(
        &self,
        call: &Call,
        request: CreatePriceRequest,
    ) -> Result<Written<ModelPrice>, AdminError> {
        validate::model_name("model", &request.model)?;
        validate::slug("provider", &request.provider)?;
        let price = request.price.as_ref();
        let price = price.ok_or_else(|| AdminError::invalid("price", "missing", "the whole price"))?;
        let amounts = validate::price("price", price, request.confirm_unusual_price)?;
        if amounts.is_unknown() {
            return Err(AdminError::invalid(
                "price",
                "holds no price",
                "input, output, units or another part",
            ));
        }
        let now = validate::now();
        let effective_from = effective_from(validate::time("effective_from", request.effective_from)?, now)?;
        let mut write = self.write_system(call, "price.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        if !prices::is_offered(&mut write.tx, &request.model, &request.provider).await? {
            let what = format!("{:?} at provider {:?}", request.model, request.provider);
            return Err(AdminError {
                expected: Some("a model of the catalog, and a provider that offers it".to_owned()),
                ..AdminError::not_found("offering", what).with_field("model")
            });
        }
        let new = NewPrice {
            provider: &request.provider,
            model_id: &request.model,
            amounts: &amounts,
            effective_from,
            id: None,
        };
        let id = prices::insert(&mut write.tx, new).await?;
        if effective_from > now {
            prices::schedule(&mut write.tx, &id, &new).await?;
        } else {
            prices::activate(&mut write.tx, &id, &new).await?;
        }
        let row = prices::get(&mut write.tx, &id).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("price", id))?.into()).await
    }

    pub async fn get_price(&self, _call: &Call, request: GetPriceRequest) -> Result<ModelPrice, AdminError> {
        check_id(&request.id)?;
        let mut tx = self.store.system().await?;
        let row = prices::get(&mut tx, &request.id).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("price", format!("{:?}", request.id)))
    }

    pub async fn list_prices(
        &self,
        _call: &Call,
        request: ListPricesRequest,
    ) -> Result<ListPricesResponse, AdminError> {
        let size = validate::page_size(request.page_size)?;
        let after = page_token::to_text(&request.page_token)?;
        let model = validate::filter("model", request.model)?;
        let provider = validate::filter("provider", request.provider)?;
        let mut tx = self.store.system().await?;
        let limit = i64::from(size) + 1;
        let mut rows = prices::list(&mut tx, model.as_deref(), provider.as_deref(), &after, limit).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| page_token::from_text(&row.id));
        Ok(ListPricesResponse {
            prices: rows.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// Calls off what has not taken effect. What has is corrected by another price.
    pub async fn delete_price(
        &self,
        call: &Call,
        request: DeletePriceRequest,
    ) -> Result<Written<DeletePriceResponse>, AdminError> {
        check_id(&request.id)?;
        let mut write = self.write_system(call, "price.delete").await?;
        let before = prices::get(&mut write.tx, &request.id).await?;
        let before: ModelPrice = write.found(before, format!("{:?}", request.id))?;
        if !prices::withdraw(&mut write.tx, &request.id).await? {
            let message = format!("the price is {}: prices never change", before.state);
            return Err(AdminError {
                field: Some("id".to_owned()),
                expected: Some("a price that is scheduled; set another one instead".to_owned()),
                ..AdminError::new(ErrorKind::InUse, message)
            });
        }
        write.deleted().await
    }

    pub async fn list_deployment_prices(
        &self,
        call: &Call,
        request: ListDeploymentPricesRequest,
    ) -> Result<ListDeploymentPricesResponse, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        if deployments::get(&mut tx, id.0).await?.is_none() {
            return Err(AdminError::not_found("deployment", id));
        }
        let rows = prices::of_deployment(&mut tx, id.0).await?;
        Ok(ListDeploymentPricesResponse { prices: rows.into_iter().map(Into::into).collect() })
    }
}

/// Ids are made of a provider, a model and a time.
fn check_id(id: &str) -> Result<(), AdminError> {
    if (1..=400).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(AdminError::invalid("id", "is no id of a price", "an id as the history of prices has them"))
}

fn effective_from(asked: Option<OffsetDateTime>, now: OffsetDateTime) -> Result<OffsetDateTime, AdminError> {
    let Some(at) = asked else { return Ok(now) };
    if (now - MOST..=now + MOST).contains(&at) {
        return Ok(at);
    }
    let message = if at > now { "too far ahead" } else { "too long ago" };
    Err(AdminError::invalid("effective_from", message, "a time within 400 days of now"))
}

impl From<PriceRow> for ModelPrice {
    fn from(row: PriceRow) -> Self {
        let state = match (row.current, row.scheduled, row.withdrawn) {
            (true, ..) => "current",
            (_, true, _) => "scheduled",
            (_, _, true) => "withdrawn",
            _ => "past",
        };
        Self {
            id: row.id,
            model: row.model_id,
            provider: row.provider,
            price: Some(row.amounts.into()),
            effective_from: Some(row.effective_from.into()),
            created_at: Some(row.created_at.into()),
            state: state.to_owned(),
        }
    }
}

impl From<DeploymentPriceRow> for DeploymentPrice {
    fn from(row: DeploymentPriceRow) -> Self {
        Self {
            id: row.id,
            price: Some(row.amounts.into()),
            effective_from: Some(row.effective_from.into()),
            current: row.current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_begins_within_about_a_year() {
        let now = validate::now();
        assert_eq!(effective_from(None, now).unwrap(), now);
        for days in [-400, -1, 0, 1, 400] {
            let at = now + Duration::days(days);
            assert_eq!(effective_from(Some(at), now).unwrap(), at);
        }
        for days in [-401, 401, 100_000] {
            let error = effective_from(Some(now + Duration::days(days)), now).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("effective_from"));
        }
    }

    #[test]
    fn only_what_can_be_an_id_is_looked_for() {
        assert!(check_id("openai/gpt-5.2@2026-11-21T08:00:00Z#2").is_ok());
        for id in ["", "a b", "ä", &"x".repeat(401)] {
            assert_eq!(check_id(id).unwrap_err().field.as_deref(), Some("id"));
        }
    }
}
