//! `nemo models …`

use std::collections::HashMap;

use nemo_proto::admin::{Deployment, ListDeploymentsRequest, ListModelsRequest, Model, Price};
use nemo_types::Nanos;

use super::{json, table::Table};
use crate::{
    admin_client::{AdminClient, explain},
    cli::{Models, Target},
};

const PAGE: u32 = 1000;

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Models) -> anyhow::Result<()> {
    let Models::List { all, provider, tag, target } = command;
    let client = AdminClient::open(&target)?;
    let models = catalog(&client, provider.as_deref(), tag.as_deref()).await?;
    let deployments = deployments(&client, &target).await?;
    let mut served: HashMap<&str, Vec<&Deployment>> = HashMap::new();
    for deployment in deployments.iter().filter(|deployment| !deployment.disabled) {
        if provider.as_ref().is_none_or(|provider| deployment.provider == *provider) {
            served.entry(&deployment.model).or_default().push(deployment);
        }
    }
    let shown: Vec<&Model> =
        models.iter().filter(|model| all || served.contains_key(model.id.as_str())).collect();
    if target.json {
        return json(&shown);
    }
    let mut table = Table::new(["MODEL", "PROVIDERS", "CONTEXT", "INPUT $/M", "OUTPUT $/M", "TAGS"]);
    for model in shown {
        let of_model = served.get(model.id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let price = price(model, of_model);
        let dollars =
            |amount: Option<i64>| amount.map_or_else(|| "?".to_owned(), |nanos| Nanos(nanos).to_string());
        let context =
            if model.context_window == 0 { "?".to_owned() } else { model.context_window.to_string() };
        table.row([
            model.id.clone(),
            providers(model, of_model),
            context,
            dollars(price.input),
            dollars(price.output),
            model.tags.join(","),
        ]);
    }
    table.print();
    Ok(())
}

/// Who serves a model, or, when nobody does, who offers it.
fn providers(model: &Model, deployments: &[&Deployment]) -> String {
    let mut names: Vec<&str> = deployments.iter().map(|deployment| deployment.provider.as_str()).collect();
    if names.is_empty() {
        names = model.offerings.iter().map(|offering| offering.provider.as_str()).collect();
    }
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

/// The price of the first deployment that has one, else the first known offering's.
fn price(model: &Model, deployments: &[&Deployment]) -> Price {
    let of_provider = |provider: &str| {
        model
            .offerings
            .iter()
            .find(|offering| offering.provider == provider)
            .and_then(|offering| offering.price)
    };
    let deployed = deployments
        .iter()
        .find_map(|deployment| deployment.price.or_else(|| of_provider(&deployment.provider)));
    let offered = || model.offerings.iter().find_map(|offering| offering.price);
    deployed.or_else(offered).unwrap_or_default()
}

async fn catalog(
    client: &AdminClient,
    provider: Option<&str>,
    tag: Option<&str>,
) -> anyhow::Result<Vec<Model>> {
    let (mut models, mut page_token) = (Vec::new(), String::new());
    loop {
        let (provider, tag) = (provider.unwrap_or_default().to_owned(), tag.unwrap_or_default().to_owned());
        let request = ListModelsRequest { provider, tag, page_size: PAGE, page_token };
        let page = client.catalog().list_models(request).await.map_err(explain)?.into_inner();
        models.extend(page.models);
        if page.next_page_token.is_empty() {
            return Ok(models);
        }
        page_token = page.next_page_token;
    }
}

/// The operator's deployments and those of the organization.
async fn deployments(client: &AdminClient, target: &Target) -> anyhow::Result<Vec<Deployment>> {
    let mut deployments = Vec::new();
    for org_id in [String::new(), client.organization(target.org.as_deref()).await?] {
        let mut page_token = String::new();
        loop {
            let request = ListDeploymentsRequest {
                org_id: org_id.clone(),
                page_size: PAGE,
                page_token,
                ..Default::default()
            };
            let page = client.providers().list_deployments(request).await.map_err(explain)?.into_inner();
            deployments.extend(page.deployments);
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
    }
    Ok(deployments)
}

#[cfg(test)]
mod tests {
    use nemo_proto::admin::Offering;

    use super::*;

    #[test]
    fn the_price_of_a_deployment_wins_over_that_of_its_offering() {
        let offering = |provider: &str, input| Offering {
            provider: provider.into(),
            price: Some(Price { input: Some(input), ..Price::default() }),
            ..Offering::default()
        };
        let model = Model { offerings: vec![offering("a", 1), offering("b", 2)], ..Model::default() };
        let deployment =
            |provider: &str, price| Deployment { provider: provider.into(), price, ..Deployment::default() };
        let own = deployment("b", Some(Price { input: Some(3), ..Price::default() }));
        assert_eq!(price(&model, &[&own]).input, Some(3));
        assert_eq!(price(&model, &[&deployment("b", None)]).input, Some(2));
        assert_eq!(price(&model, &[]).input, Some(1));
        assert_eq!(providers(&model, &[]), "a,b");
        assert_eq!(providers(&model, &[&own]), "b");
    }
}
