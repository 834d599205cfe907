//! `nemo usage …`: what was used and what it cost, summed up.

use std::collections::{BTreeSet, HashMap};

use clap::{Args, Subcommand, ValueEnum};
use nemo_proto::{
    Timestamp,
    admin::{Latency, QueryUsageRequest, QueryUsageResponse, UsageRow},
};

use super::{
    keys,
    output::{json, rfc3339},
    session::Session,
    table::{Cell, Column, Table},
    teams,
};
use crate::{
    admin_client::{AdminClient, PAGE, explain, is_id},
    cli::{Target, moment},
    console,
};

/// Rows whose keys are shown by name.
const MOST_NAMES: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Usage {
    /// What it cost
    #[command(after_help = "\
Examples:
  nemo usage spend                              of 30 days, by model
  nemo usage spend --by key,model --since 7d
  nemo usage spend --by org --interval month --since 2026-01-01")]
    Spend {
        #[command(flatten)]
        query: Box<Query>,
    },
    /// How many tokens went in and out
    #[command(
        after_help = "Examples:\n  nemo usage tokens --by team --org acme\n  nemo usage tokens --interval day --by none"
    )]
    Tokens {
        #[command(flatten)]
        query: Box<Query>,
    },
    /// How many requests there were
    #[command(
        after_help = "Examples:\n  nemo usage requests --by provider\n  nemo usage requests --interval hour --since 1d --by none"
    )]
    Requests {
        #[command(flatten)]
        query: Box<Query>,
    },
    /// How many requests failed, and how
    #[command(
        after_help = "Examples:\n  nemo usage errors --by provider --since 1d\n  nemo usage errors --by key --model gpt-5-mini"
    )]
    Errors {
        #[command(flatten)]
        query: Box<Query>,
    },
    /// How long requests took
    #[command(
        after_help = "Examples:\n  nemo usage latency --by model,provider --since 1d\n  nemo usage latency --interval hour --since 1d --by none"
    )]
    Latency {
        #[command(flatten)]
        query: Box<Query>,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Query {
    /// Sums by these, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "model")]
    by: Vec<By>,
    /// One row for each hour, day or month (UTC)
    #[arg(long)]
    interval: Option<Interval>,
    /// From this moment on: 7d (ago), 2026-11-21 [default: 30 days ago; a day for hours, a year for months]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Until this moment [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Of this organization only (name or id); absent: of all, for the operator
    #[arg(long, value_name = "ORG", env = "NEMO_ORG")]
    org: Option<String>,
    /// Of this team only (name or id)
    #[arg(long, requires = "org")]
    team: Option<String>,
    /// Of this key only (name, id, or the first characters of its secret)
    #[arg(long, requires = "org")]
    key: Option<String>,
    /// Of this model only
    #[arg(long)]
    model: Option<String>,
    /// Of this provider only
    #[arg(long)]
    provider: Option<String>,
    /// Of this endpoint only: chat.completions, embeddings, …
    #[arg(long)]
    endpoint: Option<String>,
    /// At most so many rows
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Org,
    Team,
    Key,
    Model,
    Provider,
    Endpoint,
    /// One sum over everything
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Interval {
    Hour,
    Day,
    Month,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Org => "org",
            Self::Team => "team",
            Self::Key => "key",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Endpoint => "endpoint",
            Self::None => "",
        }
    }

    fn column(self) -> Column {
        match self {
            Self::Org => Column::text("ORG"),
            Self::Team => Column::text("TEAM"),
            Self::Key => Column::text("KEY"),
            Self::Model => Column::text("MODEL"),
            Self::Provider => Column::text("PROVIDER"),
            Self::Endpoint => Column::text("ENDPOINT"),
            Self::None => Column::text(""),
        }
    }

    fn of(self, row: &UsageRow) -> &str {
        match self {
            Self::Org => &row.org_id,
            Self::Team => &row.team_id,
            Self::Key => &row.key_id,
            Self::Model => &row.model,
            Self::Provider => &row.provider,
            Self::Endpoint => &row.endpoint,
            Self::None => "",
        }
    }
}

/// What a command shows of a row.
struct View {
    order_by: &'static str,
    columns: &'static [Column],
    cells: fn(&UsageRow) -> Vec<Cell>,
}

const SPEND: View = View {
    order_by: "cost",
    columns: &[Column::number("USD"), Column::number("REQUESTS"), Column::number("UNPRICED")],
    cells: |row| {
        vec![row.cost_usd.as_str().into(), row.requests.to_string().into(), row.unpriced.to_string().into()]
    },
};
const TOKENS: View = View {
    order_by: "tokens",
    columns: &[
        Column::number("INPUT"),
        Column::number("CACHE READ"),
        Column::number("CACHE WRITE"),
        Column::number("OUTPUT"),
        Column::number("REASONING"),
        Column::number("ESTIMATED"),
    ],
    cells: |row| {
        let counts = [
            row.input_tokens,
            row.cache_read_tokens,
            row.cache_write_tokens,
            row.output_tokens,
            row.reasoning_tokens,
            row.estimated,
        ];
        counts.iter().map(|count| count.to_string().into()).collect()
    },
};
const REQUESTS: View = View {
    order_by: "requests",
    columns: &[
        Column::number("REQUESTS"),
        Column::number("STREAMS"),
        Column::number("BYTES IN"),
        Column::number("BYTES OUT"),
    ],
    cells: |row| {
        let counts = [row.requests, row.streams, row.request_bytes, row.response_bytes];
        counts.iter().map(|count| count.to_string().into()).collect()
    },
};
const ERRORS: View = View {
    order_by: "errors",
    columns: &[
        Column::number("REQUESTS"),
        Column::number("ERRORS"),
        Column::number("%"),
        Column::number("CANCELLED"),
        Column::number("INTERRUPTED"),
    ],
    cells: |row| {
        vec![
            row.requests.to_string().into(),
            row.errors.to_string().into(),
            percent(row.errors, row.requests).into(),
            row.cancelled.to_string().into(),
            row.interrupted.to_string().into(),
        ]
    },
};
const LATENCY: View = View {
    order_by: "requests",
    columns: &[
        Column::number("REQUESTS"),
        Column::number("P50 MS"),
        Column::number("P95 MS"),
        Column::number("P99 MS"),
        Column::number("FIRST P50"),
        Column::number("FIRST P95"),
        Column::number("FIRST P99"),
    ],
    cells: |row| {
        let percentiles = |latency: Option<&Latency>| {
            let of = |us: fn(&Latency) -> u64| Cell::count(latency.map(|latency| milliseconds(us(latency))));
            [of(|latency| latency.p50_us), of(|latency| latency.p95_us), of(|latency| latency.p99_us)]
        };
        let mut cells = vec![row.requests.to_string().into()];
        cells.extend(percentiles(row.total.as_ref()));
        cells.extend(percentiles(row.first_byte.as_ref()));
        cells
    },
};

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Usage) -> anyhow::Result<()> {
    let (query, view) = match command {
        Usage::Spend { query } => (query, SPEND),
        Usage::Tokens { query } => (query, TOKENS),
        Usage::Requests { query } => (query, REQUESTS),
        Usage::Errors { query } => (query, ERRORS),
        Usage::Latency { query } => (query, LATENCY),
    };
    let session = Session::reading(&query.target)?;
    let request = request(&session.client, &query, view.order_by).await?;
    let limit = usize::try_from(query.limit)?;
    let answer = console::step("Summing up", Box::pin(rows(&session.client, request, limit))).await?;
    if session.out.json {
        return json(&answer);
    }
    let names = names(&session.client, &query, &answer.rows).await;
    show(&query, &view, &answer, &names);
    Ok(())
}

async fn request(client: &AdminClient, query: &Query, order_by: &str) -> anyhow::Result<QueryUsageRequest> {
    let org_id = client.owner(query.org.as_deref()).await?;
    let team_id = match &query.team {
        Some(team) => teams::find(client, &org_id, team).await?.id,
        None => String::new(),
    };
    let key_id = match &query.key {
        Some(key) => keys::find(client, &org_id, key).await?.id,
        None => String::new(),
    };
    let group_by: Vec<_> = query.by.iter().map(|by| by.name()).filter(|name| !name.is_empty()).collect();
    let interval = match query.interval {
        Some(Interval::Hour) => "hour",
        Some(Interval::Day) => "day",
        Some(Interval::Month) => "month",
        None => "",
    };
    Ok(QueryUsageRequest {
        org_id,
        from: query.since,
        to: query.until,
        interval: interval.to_owned(),
        group_by: group_by.join(","),
        team_id,
        key_id,
        model: query.model.clone().unwrap_or_default(),
        provider: query.provider.clone().unwrap_or_default(),
        endpoint: query.endpoint.clone().unwrap_or_default(),
        // Over time, time is the order.
        order_by: if query.interval.is_none() { order_by.to_owned() } else { String::new() },
        ..Default::default()
    })
}

/// All pages as one answer, at most `limit` rows.
async fn rows(
    client: &AdminClient,
    mut request: QueryUsageRequest,
    limit: usize,
) -> anyhow::Result<QueryUsageResponse> {
    let mut all: Option<QueryUsageResponse> = None;
    loop {
        let have = all.as_ref().map_or(0, |answer| answer.rows.len());
        request.page_size = PAGE.min(u32::try_from(limit - have)?);
        let page = client.usage().query_usage(request.clone()).await.map_err(explain)?.into_inner();
        let next = page.next_page_token.clone();
        let answer = match all.take() {
            Some(mut answer) => {
                answer.rows.extend(page.rows);
                answer.next_page_token.clone_from(&next);
                answer
            }
            None => page,
        };
        if answer.rows.len() >= limit || next.is_empty() {
            return Ok(answer);
        }
        all = Some(answer);
        request.page_token = next;
    }
}

/// Names for the ids of organizations, teams and keys in the rows. What cannot be looked up keeps its id: it may have
/// been deleted since.
async fn names(client: &AdminClient, query: &Query, rows: &[UsageRow]) -> HashMap<String, String> {
    let mut names = HashMap::new();
    if query.by.contains(&By::Org) {
        let organizations = client.organizations().await.unwrap_or_default();
        names.extend(organizations.into_iter().map(|org| (org.id, org.name)));
    }
    let Ok(org_id) = client.owner(query.org.as_deref()).await else { return names };
    if org_id.is_empty() {
        return names;
    }
    if query.by.contains(&By::Team) {
        let teams = teams::all(client, &org_id).await.unwrap_or_default();
        names.extend(teams.into_iter().map(|team| (team.id, team.name)));
    }
    if query.by.contains(&By::Key) {
        // There may be very many keys: those of the rows are looked up, as far as a person reads.
        let ids: BTreeSet<&String> = rows.iter().take(MOST_NAMES).map(|row| &row.key_id).collect();
        for id in ids.into_iter().filter(|id| is_id(id)) {
            if let Ok(key) = keys::find(client, &org_id, id).await {
                names.insert(key.id, key.name);
            }
        }
    }
    names
}

fn show(query: &Query, view: &View, answer: &QueryUsageResponse, names: &HashMap<String, String>) {
    let by: Vec<By> = query.by.iter().copied().filter(|by| *by != By::None).collect();
    let mut columns = Vec::new();
    if query.interval.is_some() {
        columns.push(Column::whole("FROM"));
    }
    columns.extend(by.iter().map(|by| by.column()));
    columns.extend(view.columns);
    let mut table = Table::new(&columns);
    for row in &answer.rows {
        let mut cells: Vec<Cell> = Vec::with_capacity(columns.len());
        if query.interval.is_some() {
            cells.push(rfc3339(row.start).into());
        }
        cells.extend(by.iter().map(|by| match by.of(row) {
            "" => Cell::styled("–", console::Style::Dim),
            id => names.get(id).map_or(id, String::as_str).into(),
        }));
        cells.extend((view.cells)(row));
        table.row(cells);
    }
    table.print();
    if query.target.quiet {
        return;
    }
    let more = if answer.next_page_token.is_empty() { "" } else { "; there are more rows, see --limit" };
    console::note(format_args!("{} to {}{more}", rfc3339(answer.from), rfc3339(answer.to)));
    if answer.kept_since.is_some_and(|kept| answer.from.is_some_and(|from| from < kept)) {
        console::note(format_args!("sums from before {} are no longer kept", rfc3339(answer.kept_since)));
    }
}

/// With one digit behind the point, rounded down.
fn percent(part: u64, whole: u64) -> String {
    let tenths = (part.saturating_mul(1000)).checked_div(whole).unwrap_or(0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn milliseconds(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_are_exact_to_one_digit() {
        assert_eq!(
            (percent(1, 3), percent(0, 0), percent(3, 3)),
            ("33.3".into(), "0.0".into(), "100.0".into())
        );
        assert_eq!(milliseconds(12_345), "12.3");
    }

    #[test]
    fn every_view_has_a_cell_for_each_column() {
        for view in [SPEND, TOKENS, REQUESTS, ERRORS, LATENCY] {
            assert_eq!((view.cells)(&UsageRow::default()).len(), view.columns.len(), "{}", view.order_by);
        }
    }
}
