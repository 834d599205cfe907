//! Deployments: concrete upstreams. The operator's serve every organization, an organization's own only itself.

use std::collections::HashSet;

use nemo_proto::admin::{
    CreateDeploymentRequest, DeleteDeploymentRequest, DeleteDeploymentResponse, Deployment,
    GetDeploymentRequest, ListDeploymentsRequest, ListDeploymentsResponse, Price, UpdateDeploymentRequest,
};
use nemo_types::{CredentialId, DeploymentId};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{deleted, in_use};
use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::{
        OwnerTx, catalog, credentials,
        deployments::{self, DeploymentChange, NewDeployment, NewDeploymentPrice},
    },
};

impl Admin {
    pub async fn create_deployment(
        &self,
        caller: &Caller,
        request: CreateDeploymentRequest,
    ) -> Result<Deployment, AdminError> {
        validate::slug("provider", &request.provider)?;
        validate::model_name("model", &request.model)?;
        if !request.name.is_empty() {
            validate::name("name", &request.name)?;
        }
        let base_url = Self::base_url(&request)?;
        let weight = validate::weight("weight", request.weight.unwrap_or(1))?;
        if !request.upstream_model.is_empty() {
            upstream_model("upstream_model", &request.upstream_model)?;
        }

        let id = DeploymentId::generate();
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        // Nobody else may take the name or delete the credential that is found here.
        tx.serialize_config().await?;
        let upstream = upstream_name(&mut tx, &request).await?;
        let credential_id = credential(&mut tx, &request.credential_id, &request.provider).await?;
        let name = match request.name {
            name if name.is_empty() => free_name(&mut tx, &request.provider, &request.model).await?,
            name => name,
        };
        let price_id = put_price(&mut tx, id, request.price).await?.flatten();
        let new = NewDeployment {
            id: id.0,
            name: &name,
            provider: &request.provider,
            base_url: &base_url,
            credential_id,
            model_id: &request.model,
            upstream_model: &upstream,
            weight,
            price_id: price_id.as_deref(),
        };
        deployments::insert(&mut tx, new).await?;
        finish(tx, id).await
    }

    /// The URL that was given, else the provider's own.
    fn base_url(request: &CreateDeploymentRequest) -> Result<String, AdminError> {
        if !request.base_url.is_empty() {
            return validate::base_url("base_url", &request.base_url);
        }
        let known = nemo_types::base_url(&request.provider);
        known.map(str::to_owned).ok_or_else(|| {
            let message = format!("missing, and no base URL is known for provider {:?}", request.provider);
            AdminError::invalid("base_url", message, "http(s)://host[:port][/path]")
        })
    }

    pub async fn get_deployment(
        &self,
        caller: &Caller,
        request: GetDeploymentRequest,
    ) -> Result<Deployment, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        let mut tx = self.owner(caller, Action::Read, &request.org_id).await?;
        let row = deployments::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("deployment", id))
    }

    pub async fn list_deployments(
        &self,
        caller: &Caller,
        request: ListDeploymentsRequest,
    ) -> Result<ListDeploymentsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let model = validate::filter("model", request.model)?;
        let mut tx = self.owner(caller, Action::Read, &request.org_id).await?;
        let listed = deployments::list(&mut tx, model.as_deref(), page).await?;
        Ok(ListDeploymentsResponse {
            deployments: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    /// Changes what is present. An empty `credential_id` removes the credential, an empty `price` the own price.
    pub async fn update_deployment(
        &self,
        caller: &Caller,
        request: UpdateDeploymentRequest,
    ) -> Result<Deployment, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        if let Some(model) = &request.upstream_model {
            upstream_model("upstream_model", model)?;
        }
        let base_url =
            request.base_url.as_deref().map(|url| validate::base_url("base_url", url)).transpose()?;
        let weight = request.weight.map(|weight| validate::weight("weight", weight)).transpose()?;

        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        tx.serialize_config().await?;
        let old = deployments::get(&mut tx, id.0).await?;
        let old = old.ok_or_else(|| AdminError::not_found("deployment", id))?;
        let credential_id = match &request.credential_id {
            Some(text) => Some(credential(&mut tx, text, &old.provider).await?),
            None => None,
        };
        let price_id = put_price(&mut tx, id, request.price).await?;
        let change = DeploymentChange {
            name: request.name.as_deref(),
            base_url: base_url.as_deref(),
            credential_id,
            upstream_model: request.upstream_model.as_deref(),
            weight,
            disabled: request.disabled,
            price_id: price_id.as_ref().map(Option::as_deref),
        };
        deployments::update(&mut tx, id.0, change).await?;
        finish(tx, id).await
    }

    pub async fn delete_deployment(
        &self,
        caller: &Caller,
        request: DeleteDeploymentRequest,
    ) -> Result<DeleteDeploymentResponse, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        let found = deployments::delete(&mut tx, id.0).await.map_err(|error| {
            in_use(error, "model groups still use this deployment: take it out of them first")
        })?;
        tx.commit().await?;
        deleted(found, "deployment", id)?;
        Ok(DeleteDeploymentResponse {})
    }
}

async fn finish(mut tx: OwnerTx, id: DeploymentId) -> Result<Deployment, AdminError> {
    let row = deployments::get(&mut tx, id.0).await?;
    tx.commit().await?;
    row.map(Into::into).ok_or_else(|| AdminError::not_found("deployment", id))
}

/// What the upstream calls a model: its own affair, but it has to survive logs and URLs.
fn upstream_model(field: &str, text: &str) -> Result<(), AdminError> {
    if (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(AdminError::invalid(field, "has another form", "1 to 256 visible ASCII characters"))
}

/// The given name, else the catalog's at that provider, else the model's own.
async fn upstream_name(tx: &mut OwnerTx, request: &CreateDeploymentRequest) -> Result<String, AdminError> {
    let found = catalog::upstream_name(tx, &request.model, &request.provider).await?;
    let Some(offered) = found else {
        let message = format!("the catalog has no model {:?}", request.model);
        return Err(AdminError::invalid(
            "model",
            message,
            "the id of a model of the catalog (GET /admin/v1/models)",
        ));
    };
    Ok(match request.upstream_model.as_str() {
        "" => offered.unwrap_or_else(|| request.model.clone()),
        given => given.to_owned(),
    })
}

/// A credential of the same owner and provider: an organization must not be able to send the operator's secret, or a
/// secret to another provider than the one it is for.
async fn credential(tx: &mut OwnerTx, text: &str, provider: &str) -> Result<Option<Uuid>, AdminError> {
    if text.is_empty() {
        return Ok(None);
    }
    let id: CredentialId = validate::id("credential_id", text)?;
    let row = credentials::get(tx, id.0).await?;
    let row = row.ok_or_else(|| AdminError::not_found("credential", id).with_field("credential_id"))?;
    if row.provider != provider {
        let message = format!("is a credential of provider {:?}", row.provider);
        return Err(AdminError::invalid("credential_id", message, format!("one of provider {provider:?}")));
    }
    Ok(Some(id.0))
}

/// `<provider>/<model>`, with a number when that is taken.
async fn free_name(tx: &mut OwnerTx, provider: &str, model: &str) -> Result<String, AdminError> {
    let base: String = format!("{provider}/{model}").chars().take(120).collect();
    let taken: HashSet<String> = deployments::names_like(tx, &base).await?.into_iter().collect();
    // One candidate more than there are names.
    let numbered = (2..=taken.len() + 1).map(|number| format!("{base}#{number}"));
    let mut candidates = std::iter::once(base.clone()).chain(numbered);
    Ok(candidates.find(|name| !taken.contains(name)).unwrap_or(base))
}

/// `None`: unchanged; `Some(None)`: the catalog's; otherwise the id of a new price row.
async fn put_price(
    tx: &mut OwnerTx,
    id: DeploymentId,
    price: Option<Price>,
) -> Result<Option<Option<String>>, AdminError> {
    let Some(price) = price else { return Ok(None) };
    let amounts = validate::price("price", &price)?;
    if amounts.is_unknown() {
        return Ok(Some(None));
    }
    let at = validate::now().format(&Rfc3339).unwrap_or_default();
    let price_id = format!("deployment/{id}@{at}");
    let new = NewDeploymentPrice {
        id: &price_id,
        deployment_id: id.0,
        input: amounts.input,
        output: amounts.output,
        cache_read: amounts.cache_read,
        cache_write: amounts.cache_write,
    };
    deployments::insert_price(tx, new).await?;
    Ok(Some(Some(price_id)))
}
