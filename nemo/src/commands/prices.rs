//! `nemo prices …`: the price book: what models cost, since when and from when on.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use nemo_proto::{
    Timestamp,
    admin::{
        CreatePriceRequest, DeletePriceRequest, DeploymentPrice, GetModelRequest, GetPriceRequest,
        ListDeploymentPricesRequest, ListPricesRequest, ModelPrice, Price,
    },
};
use nemo_types::Nanos;

use super::{
    deployments::{self, Prices as Amounts},
    output::{Entity, rfc3339},
    session::{Session, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::explain,
    cli::{Delete, Owner, Target, Write, moment},
};

#[derive(Debug, Subcommand)]
pub enum Prices {
    /// Set what a model costs at a provider, from now on or from another time on
    #[command(after_help = "\
Examples:
  nemo prices set gpt-5-mini --provider openai --price-input 0.25 --price-output 2
  nemo prices set gpt-5-mini --provider openai --price-input 0.20 --from 2026-12-01
  nemo prices set claude-sonnet-4.5 --provider anthropic --file price.json   with steps and units

What is not said stays as the catalog has it now. A price never changes: this adds one to the history. With a time that
has passed it corrects what was in effect since then, and `nemo rerate` shows what that makes of requests that were
billed meanwhile. Prices that are far from every known one are refused: mostly they are per token, or per thousand.")]
    Set {
        /// The catalog's name of it
        model: String,
        /// Who offers it
        #[arg(long)]
        provider: String,
        /// When it takes effect: 2026-12-01, 2026-12-01T08:00:00Z, 2h (ago) [default: now]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<Timestamp>,
        /// The whole price as JSON, as `nemo prices list --json` prints it in `price`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        amounts: Amounts,
        #[command(flatten)]
        write: Write,
    },
    /// Show what was and will be in effect, what was entered last first
    #[command(
        visible_alias = "history",
        after_help = "\
Examples:
  nemo prices list gpt-5-mini
  nemo prices list gpt-5-mini --provider openai --json
  nemo prices list --deployment my-vllm --org acme"
    )]
    List {
        /// The catalog's name of a model [default: all]
        model: Option<String>,
        /// At this provider only
        #[arg(long)]
        provider: Option<String>,
        /// The prices that this deployment had of its own: name or id
        #[arg(long, value_name = "DEPLOYMENT", conflicts_with_all = ["model", "provider"])]
        deployment: Option<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Call off a price that has not taken effect
    #[command(after_help = "Examples:\n  nemo prices cancel openai/gpt-5-mini@2026-12-01T00:00:00Z")]
    Cancel {
        /// Its id
        price: String,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for ModelPrice {
    const KIND: &'static str = "price";
    const NOUN: &'static str = "prices";
    const COLUMNS: &'static [Column] = &[
        Column::text("PRICE"),
        Column::whole("FROM"),
        Column::whole("STATE"),
        Column::number("INPUT $/M"),
        Column::number("OUTPUT $/M"),
        Column::number("CACHED $/M"),
        Column::text("BESIDE"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<Cell> {
        let state = Cell::from(self.state.as_str());
        cells(&self.id, self.effective_from, state, self.price.as_ref())
    }
}

impl Entity for DeploymentPrice {
    const KIND: &'static str = "price";
    const NOUN: &'static str = "prices";
    const COLUMNS: &'static [Column] = ModelPrice::COLUMNS;

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<Cell> {
        let state = Cell::from(if self.current { "current" } else { "past" });
        cells(&self.id, self.effective_from, state, self.price.as_ref())
    }
}

fn cells(id: &str, from: Option<Timestamp>, state: Cell, price: Option<&Price>) -> Vec<Cell> {
    let none = Price::default();
    let price = price.unwrap_or(&none);
    vec![
        id.into(),
        rfc3339(from).into(),
        state,
        Cell::count(price.input.map(Nanos)),
        Cell::count(price.output.map(Nanos)),
        Cell::count(price.cache_read.map(Nanos)),
        beside(price).into(),
    ]
}

/// What a price holds that has no column.
fn beside(price: &Price) -> String {
    let steps = price.steps.iter().map(|step| match (step.above_input_tokens, step.service_tier.as_str()) {
        (0, tier) => tier.to_owned(),
        (above, "") => format!(">{above}"),
        (above, tier) => format!("{tier}>{above}"),
    });
    let units = price.units.iter().map(|unit| unit.unit.clone());
    steps.chain(units).collect::<Vec<_>>().join(",")
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Prices) -> anyhow::Result<()> {
    match command {
        Prices::Set { model, provider, from, file, amounts, write } => {
            let session = Session::writing(&write)?;
            let known = match &file {
                Some(path) => {
                    let text = std::fs::read_to_string(path);
                    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
                    let read: Price = serde_json::from_str(&text)
                        .with_context(|| format!("{} is no price", path.display()))?;
                    Some(read)
                }
                None => offered(&session, &model, &provider).await?,
            };
            let price = amounts.over(known.clone()).or(known);
            let request = CreatePriceRequest {
                model,
                provider,
                price,
                effective_from: from,
                confirm_unusual_price: amounts.confirm_unusual_price,
                ..Default::default()
            };
            let mut client = session.client.catalog();
            session.put("set", client.create_price(session.write(request))).await
        }
        Prices::List { deployment: Some(deployment), owner, target, .. } => {
            let session = Session::reading(&target)?;
            let found = deployments::find_in(&session, &owner, &deployment).await?;
            let request =
                ListDeploymentPricesRequest { org_id: found.org_id, id: found.id, ..Default::default() };
            let answer = session.client.catalog().list_deployment_prices(request).await.map_err(explain)?;
            session.out.list(&answer.into_inner().prices)
        }
        Prices::List { model, provider, target, .. } => {
            let session = Session::reading(&target)?;
            let (client, model) = (&session.client, model.unwrap_or_default());
            let provider = provider.unwrap_or_default();
            let (model, provider) = (model.as_str(), provider.as_str());
            let prices: Vec<ModelPrice> =
                list!(client.catalog().list_prices -> prices, ListPricesRequest { model, provider })?;
            session.out.list(&prices)
        }
        Prices::Cancel { price, options } => {
            let session = Session::writing(&options.write)?;
            let mut client = session.client.catalog();
            let request = GetPriceRequest { id: price, ..Default::default() };
            let found = client.get_price(request).await.map_err(explain)?.into_inner();
            confirm(&found, &options)?;
            let request = DeletePriceRequest { id: found.id.clone(), ..Default::default() };
            session.delete(&found, client.delete_price(session.write(request))).await
        }
    }
}

/// What the provider asks now, as far as the catalog knows.
async fn offered(session: &Session, model: &str, provider: &str) -> anyhow::Result<Option<Price>> {
    let request = GetModelRequest { id: model.to_owned(), ..Default::default() };
    let model = session.client.catalog().get_model(request).await.map_err(explain)?.into_inner();
    Ok(model.offerings.into_iter().find(|offering| offering.provider == provider).and_then(|it| it.price))
}

#[cfg(test)]
mod tests {
    use nemo_proto::admin::{PriceStep, UnitPrice};

    use super::*;

    #[test]
    fn steps_and_units_are_named() {
        let step = |above_input_tokens, tier: &str| PriceStep {
            above_input_tokens,
            service_tier: tier.into(),
            ..PriceStep::default()
        };
        let price = Price {
            steps: vec![step(0, "flex"), step(200_000, ""), step(200_000, "priority")],
            units: vec![UnitPrice { unit: "web_searches".into(), ..UnitPrice::default() }],
            ..Price::default()
        };
        assert_eq!(beside(&price), "flex,>200000,priority>200000,web_searches");
    }
}
