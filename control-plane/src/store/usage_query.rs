//! Queries over the rollups of [`super::usage_rollup`]. They never look at the request log. Called by
//! `admin/ops/usage.rs`.

use nemo_types::OrgId;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError, SystemTx, TenantTx,
    usage_rollup::{
        Measures,
        histogram::{BUCKETS, Histogram},
    },
};

/// How long one row covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Hour,
    Day,
    Month,
    /// The whole time, from the rollup that fits its ends.
    Whole {
        hourly: bool,
    },
}

impl Interval {
    fn table(self) -> &'static str {
        match self {
            Self::Hour | Self::Whole { hourly: true } => "usage_hourly",
            Self::Day | Self::Month | Self::Whole { hourly: false } => "usage_daily",
        }
    }
}

/// What rows can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    Org,
    Team,
    Key,
    Model,
    Provider,
    Endpoint,
}

impl Dimension {
    pub const ALL: [Self; 6] =
        [Self::Org, Self::Team, Self::Key, Self::Model, Self::Provider, Self::Endpoint];

    pub fn name(self) -> &'static str {
        match self {
            Self::Org => "org",
            Self::Team => "team",
            Self::Key => "key",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Endpoint => "endpoint",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Org => "org_id",
            Self::Team => "team_id",
            Self::Key => "key_id",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Endpoint => "endpoint",
        }
    }
}

/// Which rows come first; within the same rank by time and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Time,
    Cost,
    Requests,
    Tokens,
    Errors,
}

impl Order {
    pub const ALL: [Self; 5] = [Self::Time, Self::Cost, Self::Requests, Self::Tokens, Self::Errors];

    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Cost => "cost",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Errors => "errors",
        }
    }

    /// Smallest first, over the columns of the sums.
    fn rank(self) -> &'static str {
        match self {
            Self::Time => "0::numeric",
            Self::Cost => "-cost_nanos::numeric",
            Self::Requests => "-requests::numeric",
            Self::Tokens => "-(input_tokens::numeric + output_tokens)",
            Self::Errors => "-(errors::numeric + interrupted)",
        }
    }
}

/// A question. Times must fit the interval: see [`super::usage_rollup::hour`].
#[derive(Clone, Debug)]
pub struct Query {
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
    pub interval: Interval,
    pub group_by: Vec<Dimension>,
    pub order: Order,
    pub team: Option<Uuid>,
    pub key: Option<Uuid>,
    pub model: Option<String>,
    pub provider: Option<String>,
    pub endpoint: Option<String>,
    /// Where the page before ended.
    pub after: Option<Position>,
    pub limit: i64,
}

/// Where a page ended: the sort key of its last row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Decimal number.
    pub rank: String,
    /// Microseconds since 1970.
    pub start_us: i64,
    /// In the order of [`Dimension::ALL`].
    pub group: [String; 6],
}

/// One sum.
#[derive(Clone, Debug)]
pub struct UsageRow {
    pub start: OffsetDateTime,
    /// In the order of [`Dimension::ALL`]; empty where the query does not group.
    pub group: [String; 6],
    pub measures: Measures,
    pub total: Histogram,
    pub first_byte: Histogram,
    pub rank: String,
}

impl UsageRow {
    pub fn position(&self) -> Position {
        let start_us = i64::try_from(self.start.unix_timestamp_nanos() / 1000).unwrap_or_default();
        Position { rank: self.rank.clone(), start_us, group: self.group.clone() }
    }
}

impl<'r> FromRow<'r, PgRow> for UsageRow {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let mut group: [String; 6] = Default::default();
        for (text, dimension) in group.iter_mut().zip(Dimension::ALL) {
            *text = row.try_get(dimension.column())?;
        }
        let histogram = |column| row.try_get::<Vec<i64>, _>(column).map(|it| Histogram::from_counts(&it));
        Ok(Self {
            start: row.try_get("start")?,
            group,
            measures: Measures::from_row(row)?,
            total: histogram("total_histogram")?,
            first_byte: histogram("first_byte_histogram")?,
            rank: row.try_get("rank")?,
        })
    }
}

/// Usage of the transaction's organization.
pub async fn of_organization(tx: &mut TenantTx, query: &Query) -> Result<Vec<UsageRow>, StoreError> {
    let org = tx.org();
    run(tx.conn(), Some(org), query).await
}

/// Usage of all organizations.
pub async fn of_all(tx: &mut SystemTx, query: &Query) -> Result<Vec<UsageRow>, StoreError> {
    run(tx.conn(), None, query).await
}

async fn run(tx: &mut PgConnection, org: Option<OrgId>, query: &Query) -> Result<Vec<UsageRow>, StoreError> {
    Ok(build(org, query).build_query_as().fetch_all(tx).await?)
}

const HISTOGRAMS: [&str; 2] = ["total_histogram", "first_byte_histogram"];

/// Only fixed words become SQL; whatever a caller sent is a parameter.
pub(super) fn build(org: Option<OrgId>, query: &Query) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("SELECT *, ranked::text AS rank FROM (SELECT by_group.*, ");
    sql.push(query.order.rank()).push(" AS ranked FROM (");
    sums(&mut sql, org, query);
    sql.push(") AS by_group) AS by_rank");
    let columns: Vec<_> = Dimension::ALL.iter().map(|dimension| dimension.column()).collect();
    let columns = columns.join(", ");
    if let Some(after) = &query.after {
        let start = OffsetDateTime::from_unix_timestamp_nanos(i128::from(after.start_us) * 1000);
        sql.push(format_args!(" WHERE (ranked, start, {columns}) > ("));
        sql.push_bind(after.rank.clone()).push("::text::numeric, ");
        sql.push_bind(start.unwrap_or(OffsetDateTime::UNIX_EPOCH));
        for text in &after.group {
            sql.push(", ").push_bind(text.clone());
        }
        sql.push(")");
    }
    sql.push(format_args!(" ORDER BY ranked, start, {columns} LIMIT ")).push_bind(query.limit);
    sql
}

/// One row for each interval and group.
fn sums(sql: &mut QueryBuilder<Postgres>, org: Option<OrgId>, query: &Query) {
    let mut groups: Vec<&str> = match query.interval {
        Interval::Hour | Interval::Day => vec!["bucket"],
        Interval::Month => vec!["date_trunc('month', bucket, 'UTC')"],
        Interval::Whole { .. } => Vec::new(),
    };
    sql.push("SELECT ");
    match groups.first() {
        Some(bucket) => sql.push(*bucket),
        None => sql.push_bind(query.from).push("::timestamptz"),
    };
    sql.push(" AS start");
    for dimension in Dimension::ALL {
        let column = dimension.column();
        if query.group_by.contains(&dimension) {
            groups.push(column);
            sql.push(format_args!(", {column}::text COLLATE \"C\" AS {column}"));
        } else {
            sql.push(format_args!(", '' COLLATE \"C\" AS {column}"));
        }
    }
    for name in Measures::NAMES {
        sql.push(format_args!(", least(sum({name}), 9223372036854775807)::bigint AS {name}"));
    }
    for name in HISTOGRAMS {
        let sums: Vec<_> = (1..=BUCKETS).map(|at| format!("sum({name}[{at}])")).collect();
        sql.push(format_args!(", ARRAY[{}] AS {name}", sums.join(", ")));
    }
    sql.push(format_args!(" FROM {} WHERE bucket >= ", query.interval.table())).push_bind(query.from);
    sql.push(" AND bucket < ").push_bind(query.to);
    let ids = [("org_id", org.map(|org| org.0)), ("team_id", query.team), ("key_id", query.key)];
    for (column, id) in ids {
        if let Some(id) = id {
            sql.push(format_args!(" AND {column} = ")).push_bind(id);
        }
    }
    let texts = [("model", &query.model), ("provider", &query.provider), ("endpoint", &query.endpoint)];
    for (column, text) in texts {
        if let Some(text) = text {
            sql.push(format_args!(" AND {column} = ")).push_bind(text.clone());
        }
    }
    if !groups.is_empty() {
        sql.push(" GROUP BY ").push(groups.join(", "));
    }
    // Without groups there is a row even of nothing.
    sql.push(" HAVING count(*) > 0");
}

#[cfg(test)]
mod tests;
