//! `nemo limits …`: rate limits.

use clap::Subcommand;
use nemo_proto::admin::{
    CreateRateLimitRequest, DeleteRateLimitRequest, ListRateLimitsRequest, RateLimit, UpdateRateLimitRequest,
};

use super::{
    output::Entity,
    session::{Session, choose, confirm, list},
    subject::Subject,
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Org, Target, Write},
    console::Style,
};

#[derive(Debug, Subcommand)]
pub enum Limits {
    /// Make a rate limit: of the whole fleet, divided among the nodes by demand
    #[command(after_help = "\
Examples:
  nemo limits create ci --key ci --requests 60 --tokens 100000
  nemo limits create big-models --team build --model 'openai/gpt-5*' --concurrent 4

At least one of --requests, --tokens and --concurrent. Without --team and --key it is on the whole organization. A
key's requests pass the limits of the key, of its team and of its organization.")]
    Create {
        /// Name of the limit
        name: String,
        #[command(flatten)]
        rates: Rates,
        /// Only for this model or group; * stands for any characters
        #[arg(long)]
        model: Option<String>,
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// List rate limits
    #[command(after_help = "Examples:\n  nemo limits list\n  nemo limits list --key ci --json")]
    List {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show one rate limit
    #[command(visible_alias = "show", after_help = "Examples:\n  nemo limits get ci")]
    Get {
        /// Name or id
        limit: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Change a rate limit
    #[command(after_help = "\
Examples:
  nemo limits update ci --requests 120
  nemo limits update ci --tokens 0   tokens are not limited any more")]
    Update {
        /// Name or id
        limit: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        rates: Rates,
        /// Only for this model or group; an empty one for all together
        #[arg(long)]
        model: Option<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a rate limit
    #[command(after_help = "Examples:\n  nemo limits delete ci\n  nemo limits delete ci --yes")]
    Delete {
        /// Name or id
        limit: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Delete,
    },
}

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Rates {
    /// Requests per minute
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Tokens per minute, of prompts and answers
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Requests in flight at the same time
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,
}

impl Entity for RateLimit {
    const KIND: &'static str = "rate limit";
    const NOUN: &'static str = "limits";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("ON"),
        Column::text("MODEL"),
        Column::number("REQUESTS/MIN"),
        Column::number("TOKENS/MIN"),
        Column::number("CONCURRENT"),
        Column::whole("ID"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        let on = match (self.team_id.as_str(), self.key_id.as_str()) {
            ("", "") if self.from_tier => "organization (tier)",
            ("", "") => "organization",
            ("", _) => "key",
            _ => "team",
        };
        let rate = |rate: Option<u64>| match rate {
            Some(rate) => rate.to_string().into(),
            None => Cell::styled("-", Style::Dim),
        };
        let model = match self.model.as_str() {
            "" => Cell::styled("all", Style::Dim),
            model => model.into(),
        };
        vec![
            self.name.as_str().into(),
            on.into(),
            model,
            rate(self.requests_per_minute),
            rate(self.tokens_per_minute),
            rate(self.concurrent.map(u64::from)),
            self.id.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Limits) -> anyhow::Result<()> {
    match command {
        Limits::Create { name, rates, model, subject, org, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let (team_id, key_id) = subject.ids(&session.client, &org_id).await?;
            let request = CreateRateLimitRequest {
                org_id,
                team_id,
                key_id,
                name,
                model: model.unwrap_or_default(),
                requests_per_minute: rates.requests,
                tokens_per_minute: rates.tokens,
                concurrent: rates.concurrent,
                ..Default::default()
            };
            let mut client = session.client.rate_limits();
            session.put("created", client.create_rate_limit(session.write(request))).await
        }
        Limits::List { subject, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let (team_id, key_id) = subject.ids(&session.client, &org_id).await?;
            session.out.list(&all(&session.client, &org_id, &team_id, &key_id).await?)
        }
        Limits::Get { limit, org, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find(&session, &org, &limit).await?)
        }
        Limits::Update { limit, name, rates, model, org, write } => {
            let session = Session::writing(&write)?;
            let RateLimit { id, org_id, .. } = find(&session, &org, &limit).await?;
            let request = UpdateRateLimitRequest {
                org_id,
                id,
                name,
                model,
                requests_per_minute: rates.requests,
                tokens_per_minute: rates.tokens,
                concurrent: rates.concurrent,
                ..Default::default()
            };
            let mut client = session.client.rate_limits();
            session.put("updated", client.update_rate_limit(session.write(request))).await
        }
        Limits::Delete { limit, org, options } => {
            let session = Session::writing(&options.write)?;
            let limit = find(&session, &org, &limit).await?;
            confirm(&limit, &options)?;
            let (org_id, id) = (limit.org_id.clone(), limit.id.clone());
            let request = DeleteRateLimitRequest { org_id, id, ..Default::default() };
            let mut client = session.client.rate_limits();
            session.delete(&limit, client.delete_rate_limit(session.write(request))).await
        }
    }
}

async fn all(
    client: &AdminClient,
    org_id: &str,
    team_id: &str,
    key_id: &str,
) -> anyhow::Result<Vec<RateLimit>> {
    list!(client.rate_limits().list_rate_limits -> rate_limits, ListRateLimitsRequest { org_id, team_id, key_id })
}

async fn find(session: &Session, org: &Org, wanted: &str) -> anyhow::Result<RateLimit> {
    let org_id = session.client.organization(org.org.as_deref()).await?;
    choose(all(&session.client, &org_id, "", "").await?, wanted)
}
