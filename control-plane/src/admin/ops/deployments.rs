//! Deployments: concrete upstreams. The operator's serve every organization, an organization's own only itself.

use std::collections::HashSet;

use nemo_proto::admin::{
    CreateDeploymentRequest, DeleteDeploymentRequest, DeleteDeploymentResponse, Deployment,
    GetDeploymentRequest, ListDeploymentsRequest, ListDeploymentsResponse, Price, Timeouts,
    UpdateDeploymentRequest,
};
use nemo_types::{CredentialId, DeploymentId};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{in_use, list_filter};
use crate::{
    admin::{Action, Admin, AdminError, Call, Written, page_token, validate},
    store::{
        OwnerTx, catalog, credentials,
        deployments::{self, DeploymentChange, Load, NewDeployment, NewDeploymentPrice, Only},
    },
};

/// A day: whoever waits longer for an upstream has made a typing error.
const MAX_TIMEOUT_MS: i32 = 24 * 60 * 60 * 1000;
/// Of requests or tokens: more than anybody sells.
const MAX_PER_MINUTE: i32 = 2_000_000_000;

impl Admin {
    pub async fn create_deployment(
        &self,
        call: &Call,
        request: CreateDeploymentRequest,
    ) -> Result<Written<Deployment>, AdminError> {
        validate::slug("provider", &request.provider)?;
        validate::model_name("model", &request.model)?;
        if !request.name.is_empty() {
            validate::name("name", &request.name)?;
        }
        let base_url = base_url(&request.base_url, &request.provider)?;
        let weight = validate::weight("weight", request.weight.unwrap_or(1))?;
        let timeouts = request.timeouts.map(|it| timeouts(&it)).transpose()?;
        let load = Load { rpm: per_minute("rpm", request.rpm)?, tpm: per_minute("tpm", request.tpm)? };
        if !request.upstream_model.is_empty() {
            upstream_model("upstream_model", &request.upstream_model)?;
        }

        let id = DeploymentId::generate();
        // Nobody else can take the name or delete the credential that is found here.
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "deployment.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let tx = &mut write.tx;
        let upstream = upstream_name(tx, &request.upstream_model, &request.model, &request.provider).await?;
        let credential_id = credential(tx, &request.credential_id, &request.provider).await?;
        let name = match request.name {
            name if name.is_empty() => free_name(tx, &request.provider, &request.model).await?,
            name => name,
        };
        let price_id = put_price(tx, id, (request.price, request.confirm_unusual_price)).await?.flatten();
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
            timeouts: timeouts.unwrap_or_default(),
            load,
        };
        deployments::insert(tx, new).await?;
        let after = written(tx, id).await?;
        write.done(after).await
    }

    pub async fn get_deployment(
        &self,
        call: &Call,
        request: GetDeploymentRequest,
    ) -> Result<Deployment, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let row = deployments::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("deployment", id))
    }

    pub async fn list_deployments(
        &self,
        call: &Call,
        request: ListDeploymentsRequest,
    ) -> Result<ListDeploymentsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        let only = Only {
            model: validate::filter("model", request.model)?,
            provider: validate::filter("provider", request.provider)?,
            credential: match request.credential_id.as_str() {
                "" => None,
                text => Some(validate::id::<CredentialId>("credential_id", text)?.0),
            },
            disabled: request.disabled,
        };
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let listed = deployments::list(&mut tx, &only, page, &filter).await?;
        Ok(ListDeploymentsResponse {
            deployments: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    /// Changes what is present. An empty `credential_id` removes the credential, an empty `price` the own price; an
    /// empty `base_url` or `upstream_model` goes back to what a new deployment would get; an `rpm` or `tpm` of 0 is
    /// not known any more.
    pub async fn update_deployment(
        &self,
        call: &Call,
        request: UpdateDeploymentRequest,
    ) -> Result<Written<Deployment>, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        if let Some(model) = request.upstream_model.as_ref().filter(|model| !model.is_empty()) {
            upstream_model("upstream_model", model)?;
        }
        let weight = request.weight.map(|weight| validate::weight("weight", weight)).transpose()?;
        let timeouts = request.timeouts.map(|it| timeouts(&it)).transpose()?;
        let (rpm, tpm) = (changed_load("rpm", request.rpm)?, changed_load("tpm", request.tpm)?);

        let mut write = self.write_owner(call, Action::Write, &request.org_id, "deployment.update").await?;
        let row = deployments::get(&mut write.tx, id.0).await?;
        let old: Deployment = write.found(row, id)?;
        let tx = &mut write.tx;
        let credential_id = match &request.credential_id {
            Some(text) => Some(credential(tx, text, &old.provider).await?),
            None => None,
        };
        let base_url = request.base_url.as_deref().map(|url| base_url(url, &old.provider)).transpose()?;
        let upstream = match &request.upstream_model {
            Some(given) => Some(upstream_name(tx, given, &old.model, &old.provider).await?),
            None => None,
        };
        let price_id = put_price(tx, id, (request.price, request.confirm_unusual_price)).await?;
        let change = DeploymentChange {
            name: request.name.as_deref(),
            base_url: base_url.as_deref(),
            credential_id,
            upstream_model: upstream.as_deref(),
            weight,
            disabled: request.disabled,
            price_id: price_id.as_ref().map(Option::as_deref),
            timeouts,
            rpm,
            tpm,
        };
        deployments::update(tx, id.0, change).await?;
        let after = written(tx, id).await?;
        write.done(after).await
    }

    pub async fn delete_deployment(
        &self,
        call: &Call,
        request: DeleteDeploymentRequest,
    ) -> Result<Written<DeleteDeploymentResponse>, AdminError> {
        let id: DeploymentId = validate::id("id", &request.id)?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "deployment.delete").await?;
        let before = deployments::get(&mut write.tx, id.0).await?;
        write.found::<Deployment>(before, id)?;
        deployments::delete(&mut write.tx, id.0).await.map_err(|error| {
            in_use(error, "model groups still use this deployment: take it out of them first")
        })?;
        write.deleted().await
    }
}

async fn written(tx: &mut OwnerTx, id: DeploymentId) -> Result<Deployment, AdminError> {
    let row = deployments::get(tx, id.0).await?;
    row.map(Into::into).ok_or_else(|| AdminError::not_found("deployment", id))
}

fn timeouts(given: &Timeouts) -> Result<deployments::Timeouts, AdminError> {
    let millis = |field: &str, value: Option<u32>| {
        let Some(value) = value else { return Ok(None) };
        match i32::try_from(value) {
            Ok(millis) if (1..=MAX_TIMEOUT_MS).contains(&millis) => Ok(Some(millis)),
            _ => Err(AdminError::invalid(
                format!("timeouts.{field}"),
                format!("{value} is no timeout"),
                format!("1 to {MAX_TIMEOUT_MS} milliseconds, or absent"),
            )),
        }
    };
    Ok(deployments::Timeouts {
        connect_ms: millis("connect_ms", given.connect_ms)?,
        first_byte_ms: millis("first_byte_ms", given.first_byte_ms)?,
        idle_ms: millis("idle_ms", given.idle_ms)?,
        total_ms: millis("total_ms", given.total_ms)?,
    })
}

/// Requests or tokens per minute that a deployment is said to be good for.
fn per_minute(field: &str, value: Option<u32>) -> Result<Option<i32>, AdminError> {
    let Some(value) = value else { return Ok(None) };
    match i32::try_from(value) {
        Ok(count) if (1..=MAX_PER_MINUTE).contains(&count) => Ok(Some(count)),
        _ => {
            let expected = format!("1 to {MAX_PER_MINUTE} per minute, or absent");
            Err(AdminError::invalid(field, format!("{value} is no load"), expected))
        }
    }
}

/// `None`: unchanged; `Some(None)`: not known any more.
#[expect(clippy::option_option, reason = "what is to change, and to what; as the store takes it")]
fn changed_load(field: &str, value: Option<u32>) -> Result<Option<Option<i32>>, AdminError> {
    match value {
        Some(0) => Ok(Some(None)),
        value => Ok(per_minute(field, value)?.map(Some)),
    }
}

/// What the upstream calls a model: its own affair, but it has to survive logs and URLs.
fn upstream_model(field: &str, text: &str) -> Result<(), AdminError> {
    if (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(AdminError::invalid(field, "has another form", "1 to 256 visible ASCII characters"))
}

/// The URL that was given, else the provider's own.
fn base_url(given: &str, provider: &str) -> Result<String, AdminError> {
    if !given.is_empty() {
        return match provider {
            "azure" => validate::azure_base_url("base_url", given),
            _ => validate::base_url("base_url", given),
        };
    }
    nemo_types::base_url(provider).map(str::to_owned).ok_or_else(|| {
        let message = format!("missing, and no base URL is known for provider {provider:?}");
        AdminError::invalid("base_url", message, "http(s)://host[:port][/path]")
    })
}

/// The given name, else the catalog's at that provider, else the model's own.
async fn upstream_name(
    tx: &mut OwnerTx,
    given: &str,
    model: &str,
    provider: &str,
) -> Result<String, AdminError> {
    let Some(offered) = catalog::upstream_name(tx, model, provider).await? else {
        let message = format!("the catalog has no model {model:?}");
        return Err(AdminError::invalid(
            "model",
            message,
            "the id of a model of the catalog (GET /admin/v1/models)",
        ));
    };
    Ok(match given {
        "" => offered.unwrap_or_else(|| model.to_owned()),
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
    (price, confirmed): (Option<Price>, bool),
) -> Result<Option<Option<String>>, AdminError> {
    let Some(price) = price else { return Ok(None) };
    let amounts = validate::price("price", &price, confirmed)?;
    if amounts.is_unknown() {
        return Ok(Some(None));
    }
    let at = validate::now().format(&Rfc3339).unwrap_or_default();
    let price_id = format!("deployment/{id}@{at}");
    let new = NewDeploymentPrice { id: &price_id, deployment_id: id.0, amounts: &amounts };
    deployments::insert_price(tx, new).await?;
    Ok(Some(Some(price_id)))
}
