//! `nemo deployments …`

use clap::{Args, Subcommand};
use nemo_proto::admin::{
    CreateDeploymentRequest, DeleteDeploymentRequest, Deployment, ListDeploymentsRequest, Price,
    UpdateDeploymentRequest,
};

use super::{
    credentials,
    output::Entity,
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Owner, Target, Write},
    providers::file::nanos_per_million,
};

#[derive(Debug, Subcommand)]
pub enum Deployments {
    /// Serve a model at a provider
    #[command(after_help = "\
Examples:
  nemo deployments create --provider openai --model gpt-5-mini --credential main
  nemo deployments create --name gpu --provider custom --base-url http://gpu:8000/v1 --model qwen3-32b
  nemo deployments create --provider openai --model gpt-5-mini --credential main --price-input 0.25 --price-output 2")]
    Create {
        /// [default: provider/model]
        #[arg(long)]
        name: Option<String>,
        /// Id of a provider: `nemo providers` lists them
        #[arg(long)]
        provider: String,
        /// Model of the catalog
        #[arg(long)]
        model: String,
        #[command(flatten)]
        fields: Box<Fields>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// List deployments
    #[command(
        after_help = "Examples:\n  nemo deployments list\n  nemo deployments list --model gpt-5-mini --json"
    )]
    List {
        /// Of this model only
        #[arg(long)]
        model: Option<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Show one deployment
    #[command(after_help = "Examples:\n  nemo deployments get openai/gpt-5-mini")]
    Get {
        /// Name or id
        deployment: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Change a deployment; model and provider are fixed
    #[command(after_help = "\
Examples:
  nemo deployments update gpu --weight 3 --rpm 600
  nemo deployments update gpu --disabled true   it gets no requests until it is enabled again")]
    Update {
        /// Name or id
        deployment: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Whether it is switched off
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        #[command(flatten)]
        fields: Box<Fields>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a deployment that no model group has
    #[command(after_help = "Examples:\n  nemo deployments delete gpu\n  nemo deployments delete gpu --yes")]
    Delete {
        /// Name or id
        deployment: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        options: Delete,
    },
}

/// What can be said at creation and changed later.
#[derive(Clone, Debug, Args)]
pub struct Fields {
    /// Address of the server, with /v1 [default: the provider's]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Credential by name or id
    #[arg(long)]
    credential: Option<String>,
    /// The provider's name for the model [default: the catalog's]
    #[arg(long, value_name = "NAME")]
    upstream_model: Option<String>,
    /// Share of the requests with the strategy `weighted`; 0 takes it out [default: 1]
    #[arg(long)]
    weight: Option<u32>,
    /// Requests per minute that it is good for, for strategies; 0 forgets it
    #[arg(long, value_name = "COUNT")]
    rpm: Option<u32>,
    /// Tokens per minute that it is good for, for strategies; 0 forgets it
    #[arg(long, value_name = "COUNT")]
    tpm: Option<u32>,
    #[command(flatten)]
    price: Prices,
}

/// USD per million tokens, as decimal text.
#[derive(Clone, Debug, Args)]
pub struct Prices {
    /// USD per million input tokens, as in 0.25 [default: the catalog's]
    #[arg(long, value_name = "USD", value_parser = price)]
    price_input: Option<i64>,
    /// USD per million output tokens
    #[arg(long, value_name = "USD", value_parser = price)]
    price_output: Option<i64>,
    /// USD per million tokens read from the provider's cache
    #[arg(long, value_name = "USD", value_parser = price)]
    price_cache_read: Option<i64>,
    /// USD per million tokens written to the provider's cache
    #[arg(long, value_name = "USD", value_parser = price)]
    price_cache_write: Option<i64>,
    /// The same for what is kept for an hour [default: as the other]
    #[arg(long, value_name = "USD", value_parser = price)]
    price_cache_write_1h: Option<i64>,
    /// USD per million tokens of reasoning [default: as output]
    #[arg(long, value_name = "USD", value_parser = price)]
    price_reasoning: Option<i64>,
    /// Take a price that is far from every known one
    #[arg(long)]
    pub(super) confirm_unusual_price: bool,
}

impl Prices {
    /// What was said laid over what was; `None` when nothing was said.
    pub(super) fn over(&self, before: Option<Price>) -> Option<Price> {
        let mut price = before.unwrap_or_default();
        let mut said = false;
        for (given, field) in [
            (self.price_input, &mut price.input),
            (self.price_output, &mut price.output),
            (self.price_cache_read, &mut price.cache_read),
            (self.price_cache_write, &mut price.cache_write),
            (self.price_cache_write_1h, &mut price.cache_write_1h),
            (self.price_reasoning, &mut price.reasoning),
        ] {
            if given.is_some() {
                *field = given;
                said = true;
            }
        }
        said.then_some(price)
    }
}

fn price(text: &str) -> Result<i64, String> {
    nanos_per_million(text)
        .ok_or_else(|| format!("{text:?} is no price; expected USD per million tokens, as in 2.50"))
}

impl Entity for Deployment {
    const KIND: &'static str = "deployment";
    const NOUN: &'static str = "deployments";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("MODEL"),
        Column::text("PROVIDER"),
        Column::text("BASE URL"),
        Column::number("WEIGHT"),
        Column::text("STATE"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            self.model.as_str().into(),
            self.provider.as_str().into(),
            self.base_url.as_str().into(),
            self.weight.to_string().into(),
            Cell::enabled(self.disabled),
        ]
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Deployments) -> anyhow::Result<()> {
    match command {
        Deployments::Create { name, provider, model, fields, owner, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let credential_id = credential_id(&session.client, &org_id, &fields).await?;
            let request = CreateDeploymentRequest {
                org_id,
                name: name.unwrap_or_default(),
                provider,
                model,
                credential_id: credential_id.unwrap_or_default(),
                base_url: fields.base_url.unwrap_or_default(),
                upstream_model: fields.upstream_model.unwrap_or_default(),
                weight: fields.weight,
                rpm: fields.rpm.filter(|count| *count > 0),
                tpm: fields.tpm.filter(|count| *count > 0),
                price: fields.price.over(None),
                confirm_unusual_price: fields.price.confirm_unusual_price,
                ..Default::default()
            };
            let mut client = session.client.providers();
            session.put("created", client.create_deployment(session.write(request))).await
        }
        Deployments::List { model, owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            session.out.list(&all(&session.client, &org_id, &model.unwrap_or_default()).await?)
        }
        Deployments::Get { deployment, owner, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &owner, &deployment).await?)
        }
        Deployments::Update { deployment, name, disabled, fields, owner, write } => {
            let session = Session::writing(&write)?;
            let found = find_in(&session, &owner, &deployment).await?;
            let credential_id = credential_id(&session.client, &found.org_id, &fields).await?;
            let request = UpdateDeploymentRequest {
                org_id: found.org_id,
                id: found.id,
                name,
                disabled,
                credential_id,
                base_url: fields.base_url,
                upstream_model: fields.upstream_model,
                weight: fields.weight,
                rpm: fields.rpm,
                tpm: fields.tpm,
                price: fields.price.over(found.price),
                confirm_unusual_price: fields.price.confirm_unusual_price,
                ..Default::default()
            };
            let mut client = session.client.providers();
            session.put("updated", client.update_deployment(session.write(request))).await
        }
        Deployments::Delete { deployment, owner, options } => {
            let session = Session::writing(&options.write)?;
            let deployment = find_in(&session, &owner, &deployment).await?;
            confirm(&deployment, &options)?;
            let (org_id, id) = (deployment.org_id.clone(), deployment.id.clone());
            let request = DeleteDeploymentRequest { org_id, id, ..Default::default() };
            let mut client = session.client.providers();
            session.delete(&deployment, client.delete_deployment(session.write(request))).await
        }
    }
}

async fn credential_id(
    client: &AdminClient,
    org_id: &str,
    fields: &Fields,
) -> anyhow::Result<Option<String>> {
    match &fields.credential {
        Some(wanted) => Ok(Some(credentials::find(client, org_id, wanted).await?.id)),
        None => Ok(None),
    }
}

/// Every deployment of an owner, or those of one model.
pub(super) async fn all(client: &AdminClient, org_id: &str, model: &str) -> anyhow::Result<Vec<Deployment>> {
    list!(client.providers().list_deployments -> deployments, ListDeploymentsRequest { org_id, model })
}

pub(super) async fn find_in(session: &Session, owner: &Owner, wanted: &str) -> anyhow::Result<Deployment> {
    let org_id = session.client.owner(owner.org.as_deref()).await?;
    choose(all(&session.client, &org_id, "").await?, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_laid_over_those_that_are_there() {
        let said = |price_input| Prices {
            price_input,
            price_output: None,
            price_cache_read: None,
            price_cache_write: None,
            price_cache_write_1h: None,
            price_reasoning: None,
            confirm_unusual_price: false,
        };
        let before = Price { input: Some(1), output: Some(2), ..Price::default() };
        assert_eq!(said(None).over(Some(before.clone())), None);
        let changed = said(Some(5)).over(Some(before)).unwrap();
        assert_eq!((changed.input, changed.output), (Some(5), Some(2)));
        assert_eq!(price("0.25"), Ok(250_000_000));
        assert!(price("1e3").unwrap_err().contains("as in 2.50"));
    }
}
