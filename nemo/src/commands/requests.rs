//! `nemo requests …`: the request log.

use clap::{Args, Subcommand};
use nemo_proto::Timestamp;
use nemo_proto::admin::{GetRequestRequest, ListRequestsRequest, RequestRecord};

use super::{
    explanation, keys,
    output::{Entity, rfc3339},
    session::Session,
    table::{Cell, Column},
    tail, teams,
};
use crate::{
    admin_client::{AdminClient, PAGE, explain},
    cli::{Org, Seconds, Target, duration, moment},
    console,
    providers::file::nanos_per_million,
};

#[derive(Debug, Subcommand)]
pub enum Requests {
    /// List requests, the newest first
    #[command(after_help = "\
Examples:
  nemo requests list
  nemo requests list --outcome error --since 2h --limit 50
  nemo requests list --key ci --status 5xx --min-time 10s
  nemo requests list --client-request-id my-trace-17 --json")]
    List {
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// Started at this moment or later: 2h (ago), 2026-11-21, 2026-11-21T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Timestamp>,
        /// Started before this moment
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<Timestamp>,
        #[command(flatten)]
        filter: Box<Filter>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show all that is known about one request, and why it went where it went
    #[command(
        visible_alias = "show",
        after_help = "Examples:\n  nemo requests get 0198f3c2-…   the id is in the header x-request-id"
    )]
    Get {
        /// Its id
        id: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show requests as they end, until Ctrl-C
    #[command(after_help = "\
Examples:
  nemo requests tail
  nemo requests tail --outcome error --key ci
  nemo requests tail --json | jq -r .model   one JSON object a line")]
    Tail {
        /// How many of those that ended before are shown first
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
        lines: u32,
        #[command(flatten)]
        filter: Box<Filter>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
}

/// Which requests.
#[derive(Clone, Debug, Args)]
pub struct Filter {
    /// Of this model only
    #[arg(long)]
    model: Option<String>,
    /// Of this key only: name, id, or the first characters of its secret
    #[arg(long)]
    key: Option<String>,
    /// ok, error, cancelled, interrupted or lost
    #[arg(long)]
    outcome: Option<String>,
    /// Status as 429, or a class as 4xx
    #[arg(long)]
    status: Option<String>,
    /// Error code, as upstream_timeout
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// Of this team only: name or id
    #[arg(long)]
    team: Option<String>,
    /// Of this provider only
    #[arg(long)]
    provider: Option<String>,
    /// Of this endpoint only: chat.completions, embeddings, …
    #[arg(long)]
    endpoint: Option<String>,
    /// With this x-request-id from the client
    #[arg(long, value_name = "ID")]
    client_request_id: Option<String>,
    /// That cost at least so much: USD, as 0.05
    #[arg(long, value_name = "USD", value_parser = nanos)]
    min_cost: Option<i64>,
    /// That took at least so long: 5s, 2m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    min_time: Option<Seconds>,
}

/// One USD is a billion nano-USD, as one USD per million tokens is.
fn nanos(text: &str) -> Result<i64, String> {
    nanos_per_million(text).ok_or_else(|| format!("{text:?} is no amount; expected USD, as in 0.05"))
}

impl Filter {
    /// The request for a first page.
    pub(super) async fn request(
        &self,
        client: &AdminClient,
        org: &Org,
    ) -> anyhow::Result<ListRequestsRequest> {
        let org_id = client.organization(org.org.as_deref()).await?;
        let key_id = match &self.key {
            Some(key) => keys::find(client, &org_id, key).await?.id,
            None => String::new(),
        };
        let team_id = match &self.team {
            Some(team) => teams::find(client, &org_id, team).await?.id,
            None => String::new(),
        };
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        Ok(ListRequestsRequest {
            team_id,
            status: text(&self.status),
            error_code: text(&self.error),
            provider: text(&self.provider),
            endpoint: text(&self.endpoint),
            client_request_id: text(&self.client_request_id),
            min_cost_nanos: self.min_cost.unwrap_or_default(),
            min_total_us: self.min_time.map_or(0, |Seconds(seconds)| u64::from(seconds) * 1_000_000),
            org_id,
            key_id,
            model: text(&self.model),
            outcome: text(&self.outcome),
            ..Default::default()
        })
    }
}

impl Entity for RequestRecord {
    const KIND: &'static str = "request";
    const NOUN: &'static str = "requests";
    const COLUMNS: &'static [Column] = &[
        Column::whole("STARTED"),
        Column::whole("ID"),
        Column::text("MODEL"),
        Column::text("PROVIDER"),
        Column::text("OUTCOME"),
        Column::number("STATUS"),
        Column::number("IN"),
        Column::number("OUT"),
        Column::number("USD"),
        Column::number("MS"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<Cell> {
        let model = if self.model.is_empty() { &self.requested_model } else { &self.model };
        vec![
            rfc3339(self.started_at).into(),
            self.id.as_str().into(),
            model.as_str().into(),
            self.provider.as_str().into(),
            Cell::state(&self.outcome),
            self.http_status.to_string().into(),
            Cell::count(self.input_tokens),
            Cell::count(self.output_tokens),
            Cell::count(Some(&self.cost_usd).filter(|cost| !cost.is_empty())),
            (self.total_us / 1000).to_string().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Requests) -> anyhow::Result<()> {
    match command {
        Requests::List { limit, since, until, filter, org, target } => {
            let session = Session::reading(&target)?;
            let request = filter.request(&session.client, &org).await?;
            let request = ListRequestsRequest { after: since, before: until, ..request };
            session.out.list(&newest(&session.client, request, limit).await?)
        }
        Requests::Get { id, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let request = GetRequestRequest { org_id, id, ..Default::default() };
            let record = session.client.requests().get_request(request).await.map_err(explain)?;
            let mut record = record.into_inner();
            if session.out.json || session.out.quiet {
                return session.out.one(&record);
            }
            let explained = explanation::lines(&record);
            record.decision = None;
            session.out.one(&record)?;
            explained.into_iter().for_each(console::result);
            Ok(())
        }
        Requests::Tail { lines, filter, org, target } => {
            let session = Session::reading(&target)?;
            let request = filter.request(&session.client, &org).await?;
            tail::run(&session, request, lines).await
        }
    }
}

/// The newest `limit` rows.
async fn newest(
    client: &AdminClient,
    mut request: ListRequestsRequest,
    limit: u32,
) -> anyhow::Result<Vec<RequestRecord>> {
    let limit = usize::try_from(limit)?;
    let mut rows: Vec<RequestRecord> = Vec::new();
    loop {
        request.page_size = PAGE.min(u32::try_from(limit - rows.len())?);
        let page = client.requests().list_requests(request.clone()).await.map_err(explain)?.into_inner();
        rows.extend(page.requests);
        if rows.len() >= limit || page.next_page_token.is_empty() {
            rows.truncate(limit);
            return Ok(rows);
        }
        request.page_token = page.next_page_token;
    }
}
