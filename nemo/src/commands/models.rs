//! `nemo models …`: the catalog, and what is served of it.

use std::{collections::HashMap, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nemo_proto::admin::{
    DeleteModelRequest, Deployment, GetModelRequest, ListModelsRequest, Model, Offering, Price,
    PutModelRequest,
};
use nemo_types::Nanos;
use tonic::Code;

use super::{
    deployments::{self, Prices},
    output::{Entity, json},
    session::{Session, confirm, list},
    table::{Cell, Column, Table},
};
use crate::{
    admin_client::{AdminClient, explain},
    cli::{Delete, Org, Target, Write},
    console,
};

#[derive(Debug, Subcommand)]
pub enum Models {
    /// List the models that have a deployment
    #[command(after_help = "\
Examples:
  nemo models list
  nemo models list --provider groq
  nemo models list --all --tag vision   of the whole catalog")]
    List {
        /// The whole catalog, also what no deployment serves
        #[arg(long)]
        all: bool,
        /// Of this provider only
        #[arg(long)]
        provider: Option<String>,
        /// With this tag only
        #[arg(long)]
        tag: Option<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show one model of the catalog
    #[command(
        after_help = "Examples:\n  nemo models get gpt-5-mini\n  nemo models get gpt-5-mini --json > model.json"
    )]
    Get {
        /// Its id
        model: String,
        #[command(flatten)]
        target: Target,
    },
    /// Put a model into the catalog, or change one
    #[command(after_help = "\
Examples:
  nemo models put qwen3-32b --owned-by qwen --context-window 131072 --endpoints chat.completions
  nemo models put gpt-5-mini --provider openai --price-input 0.25 --price-output 2
  nemo models put gpt-5-mini --file model.json   replaces it by what the file says

Without --file, what is not said stays as it is.")]
    Put {
        /// Its id: what clients send as `model`
        model: String,
        #[command(flatten)]
        fields: Box<Fields>,
        #[command(flatten)]
        write: Write,
    },
    /// Take a model that nothing serves out of the catalog
    #[command(after_help = "Examples:\n  nemo models delete qwen3-32b\n  nemo models delete qwen3-32b --yes")]
    Delete {
        /// Its id
        model: String,
        #[command(flatten)]
        options: Delete,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Fields {
    /// The whole model as JSON, as `nemo models get --json` prints it
    #[arg(long, value_name = "FILE", exclusive = false)]
    file: Option<PathBuf>,
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    /// Who made it
    #[arg(long)]
    owned_by: Option<String>,
    /// Tokens of a request and its answer together
    #[arg(long, value_name = "TOKENS")]
    context_window: Option<u64>,
    /// Tokens of an answer
    #[arg(long, value_name = "TOKENS")]
    max_output_tokens: Option<u64>,
    /// Labels such as vision or function-calling
    #[arg(long, value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Other names that it answers to
    #[arg(long, value_delimiter = ',')]
    aliases: Option<Vec<String>>,
    /// Endpoints that it serves: chat.completions, completions, embeddings, …
    #[arg(long, value_delimiter = ',')]
    endpoints: Option<Vec<String>>,
    /// Provider that offers it; with a name and prices there
    #[arg(long)]
    provider: Option<String>,
    /// The provider's name for it [default: the id]
    #[arg(long, value_name = "NAME", requires = "provider")]
    upstream_model: Option<String>,
    #[command(flatten)]
    price: Prices,
}

impl Entity for Model {
    const KIND: &'static str = "model";
    const NOUN: &'static str = "models";
    const COLUMNS: &'static [Column] = &[
        Column::text("MODEL"),
        Column::text("PROVIDERS"),
        Column::number("CONTEXT"),
        Column::number("INPUT $/M"),
        Column::number("OUTPUT $/M"),
        Column::text("TAGS"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.display_name
    }

    fn cells(&self) -> Vec<Cell> {
        row(self, &[])
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Models) -> anyhow::Result<()> {
    match command {
        Models::List { all, provider, tag, org, target } => {
            let provider = provider.unwrap_or_default();
            show_list(all, &provider, &tag.unwrap_or_default(), &org, &target).await
        }
        Models::Get { model, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&get(&session.client, &model).await?.with_context(|| unknown(&model))?)
        }
        Models::Put { model, fields, write } => {
            let session = Session::writing(&write)?;
            let model = match &fields.file {
                Some(path) => {
                    let text = std::fs::read_to_string(path);
                    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
                    let read: Model = serde_json::from_str(&text)
                        .with_context(|| format!("{} is no model", path.display()))?;
                    Model { id: model, ..read }
                }
                None => {
                    let known = get(&session.client, &model).await?;
                    fields.over(known.unwrap_or_else(|| Model { id: model, ..Default::default() }))
                }
            };
            let confirm_unusual_price = fields.price.confirm_unusual_price;
            let request = PutModelRequest { model: Some(model), confirm_unusual_price, ..Default::default() };
            let mut client = session.client.catalog();
            session.put("put", client.put_model(session.write(request))).await
        }
        Models::Delete { model, options } => {
            let session = Session::writing(&options.write)?;
            let model = get(&session.client, &model).await?.with_context(|| unknown(&model))?;
            confirm(&model, &options)?;
            let request = DeleteModelRequest { id: model.id.clone(), ..Default::default() };
            let mut client = session.client.catalog();
            session.delete(&model, client.delete_model(session.write(request))).await
        }
    }
}

impl Fields {
    fn over(&self, mut model: Model) -> Model {
        fn set<T: Clone>(field: &mut T, given: Option<&T>) {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        set(&mut model.display_name, self.display_name.as_ref());
        set(&mut model.owned_by, self.owned_by.as_ref());
        set(&mut model.context_window, self.context_window.as_ref());
        set(&mut model.max_output_tokens, self.max_output_tokens.as_ref());
        set(&mut model.tags, self.tags.as_ref());
        set(&mut model.aliases, self.aliases.as_ref());
        set(&mut model.endpoints, self.endpoints.as_ref());
        if let Some(provider) = &self.provider {
            let at = model.offerings.iter().position(|offering| offering.provider == *provider);
            let at = at.unwrap_or_else(|| {
                let (provider, upstream_model) = (provider.clone(), model.id.clone());
                model.offerings.push(Offering { provider, upstream_model, ..Default::default() });
                model.offerings.len() - 1
            });
            let offering = &mut model.offerings[at];
            set(&mut offering.upstream_model, self.upstream_model.as_ref());
            if let Some(price) = self.price.over(offering.price.clone()) {
                offering.price = Some(price);
            }
        }
        model
    }
}

fn unknown(model: &str) -> String {
    format!("the catalog has no model {model:?}; `nemo models list --all` shows them")
}

async fn get(client: &AdminClient, id: &str) -> anyhow::Result<Option<Model>> {
    let request = GetModelRequest { id: id.to_owned(), ..Default::default() };
    match client.catalog().get_model(request).await {
        Ok(model) => Ok(Some(model.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(explain(status)),
    }
}

async fn show_list(all: bool, provider: &str, tag: &str, org: &Org, target: &Target) -> anyhow::Result<()> {
    let session = Session::reading(target)?;
    let client = &session.client;
    let models: Vec<Model> =
        list!(client.catalog().list_models -> models, ListModelsRequest { provider, tag })?;
    // The operator's deployments and those of the organization.
    let org_id = client.organization(org.org.as_deref()).await?;
    let mut deployments = deployments::all(client, &org_id, "").await?;
    deployments.extend(deployments::all(client, "", "").await.unwrap_or_default());
    let mut served: HashMap<&str, Vec<&Deployment>> = HashMap::new();
    for deployment in deployments.iter().filter(|deployment| !deployment.disabled) {
        if provider.is_empty() || deployment.provider == provider {
            served.entry(&deployment.model).or_default().push(deployment);
        }
    }
    let shown: Vec<&Model> =
        models.iter().filter(|model| all || served.contains_key(model.id.as_str())).collect();
    if session.out.json {
        return json(&shown);
    }
    if session.out.quiet {
        shown.iter().for_each(|model| console::result(&model.id));
        return Ok(());
    }
    let mut table = Table::new(Model::COLUMNS);
    for model in shown {
        table.row(row(model, served.get(model.id.as_str()).map(Vec::as_slice).unwrap_or_default()));
    }
    table.print();
    Ok(())
}

fn row(model: &Model, deployments: &[&Deployment]) -> Vec<Cell> {
    let price = price(model, deployments);
    vec![
        model.id.as_str().into(),
        providers(model, deployments).into(),
        Cell::count(Some(model.context_window).filter(|window| *window > 0)),
        Cell::count(price.input.map(Nanos)),
        Cell::count(price.output.map(Nanos)),
        model.tags.join(",").into(),
    ]
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
            .and_then(|offering| offering.price.clone())
    };
    let deployed = deployments
        .iter()
        .find_map(|deployment| deployment.price.clone().or_else(|| of_provider(&deployment.provider)));
    let offered = || model.offerings.iter().find_map(|offering| offering.price.clone());
    deployed.or_else(offered).unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
