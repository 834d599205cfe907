//! What the queries over the rollups answer, and that the request log has no part in it.

use nemo_types::{OrgId, RequestId};
use sqlx::{AssertSqlSafe, Executor as _};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::store::{
    request_log,
    testing::{self, TestStore, now},
    usage_ingest::{KnownDays, Row},
    usage_rollup::{day, hour},
};

/// Yesterday at noon: three hours around it are in one day.
fn noon() -> OffsetDateTime {
    day(now()) - Duration::hours(12)
}

fn query(interval: Interval, group_by: &[Dimension]) -> Query {
    Query {
        from: day(noon()),
        to: day(noon()) + Duration::DAY,
        interval,
        group_by: group_by.to_vec(),
        order: Order::Time,
        team: None,
        key: None,
        model: None,
        provider: None,
        endpoint: None,
        after: None,
        limit: 100,
    }
}

fn row(org: OrgId, hours: i64, key: u128, model: &str, cost: i64) -> Row {
    Row {
        key_id: Uuid::from_u128(key),
        model: model.into(),
        cost_nanos: Some(cost),
        input_tokens: Some(cost * 2),
        total_us: cost * 1000,
        ..testing::usage_row(org, noon() + Duration::hours(hours))
    }
}

/// Two keys, two models, three hours, and another organization.
async fn world() -> (TestStore, OrgId, OrgId) {
    let store = testing::store().await;
    let (org, other) = (OrgId::generate(), OrgId::generate());
    let rows = vec![
        row(org, 0, 1, "a", 1),
        row(org, 0, 1, "a", 10),
        row(org, 1, 1, "b", 100),
        row(org, 1, 2, "a", 1000),
        row(org, 2, 2, "b", 10_000),
        row(other, 2, 1, "a", 100_000),
        // Outside of the day that is asked for.
        row(org, 12, 1, "a", 1_000_000),
        row(org, -13, 1, "a", 1_000_000),
    ];
    store.ingest_usage(&testing::journal(), rows, &KnownDays::default()).await.unwrap();
    (store, org, other)
}

async fn ask(store: &TestStore, org: OrgId, query: &Query) -> Vec<UsageRow> {
    of_organization(&mut store.tenant(org).await.unwrap(), query).await.unwrap()
}

/// Hours after noon, group, requests and cost of every row.
fn told(rows: &[UsageRow]) -> Vec<(i64, String, i64, i64)> {
    rows.iter()
        .map(|row| {
            let group: Vec<_> = row.group.iter().filter(|text| !text.is_empty()).cloned().collect();
            let hours = (row.start - noon()).whole_hours();
            (hours, group.join(" "), row.measures.requests, row.measures.cost_nanos)
        })
        .collect()
}

fn key(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

#[tokio::test]
async fn sums_are_told_apart_by_time_and_group() {
    let (store, org, _) = world().await;
    let whole = Interval::Whole { hourly: true };
    let answer = told(&ask(&store, org, &query(whole, &[])).await);
    assert_eq!(answer, [(-12, String::new(), 5, 11_111)]);
    let answer = told(&ask(&store, org, &query(Interval::Day, &[])).await);
    assert_eq!(answer, [(-12, String::new(), 5, 11_111)]);
    let answer = told(&ask(&store, org, &query(Interval::Hour, &[])).await);
    assert_eq!(
        answer,
        [(0, String::new(), 2, 11), (1, String::new(), 2, 1100), (2, String::new(), 1, 10_000)]
    );
    let answer = told(&ask(&store, org, &query(Interval::Day, &[Dimension::Key])).await);
    assert_eq!(answer, [(-12, key(1), 3, 111), (-12, key(2), 2, 11_000)]);
    let both = [Dimension::Model, Dimension::Key];
    let answer = told(&ask(&store, org, &query(Interval::Whole { hourly: false }, &both)).await);
    let group = |number, model: &str| format!("{} {model}", key(number));
    assert_eq!(
        answer,
        [
            (-12, group(1, "a"), 2, 11),
            (-12, group(1, "b"), 1, 100),
            (-12, group(2, "a"), 1, 1000),
            (-12, group(2, "b"), 1, 10_000),
        ]
    );
}

#[tokio::test]
async fn months_are_summed_from_days() {
    let (store, org, _) = world().await;
    let month = |at: OffsetDateTime| day(at) - Duration::days(i64::from(at.day()) - 1);
    let first = month(noon() - Duration::hours(13));
    let query = Query { from: first, to: first + Duration::days(100), ..query(Interval::Month, &[]) };
    let rows = ask(&store, org, &query).await;
    let starts: Vec<_> = rows.iter().map(|row| row.start).collect();
    let mut expected = vec![first, month(noon()), month(noon() + Duration::hours(12))];
    expected.dedup();
    assert_eq!(starts, expected);
    assert_eq!(rows.iter().map(|row| row.measures.requests).sum::<i64>(), 7);
}

#[tokio::test]
async fn filters_restrict_and_nothing_is_no_row() {
    let (store, org, _) = world().await;
    let day = |change: fn(Query) -> Query| change(query(Interval::Day, &[]));
    for (query, cost) in [
        (day(|it| Query { key: Some(Uuid::from_u128(2)), ..it }), 11_000),
        (day(|it| Query { model: Some("b".into()), ..it }), 10_100),
        (day(|it| Query { provider: Some("openai".into()), ..it }), 11_111),
        (day(|it| Query { endpoint: Some("chat.completions".into()), ..it }), 11_111),
        (day(|it| Query { team: Some(Uuid::nil()), ..it }), 11_111),
    ] {
        assert_eq!(ask(&store, org, &query).await[0].measures.cost_nanos, cost, "{query:?}");
    }
    for query in [
        day(|it| Query { key: Some(Uuid::from_u128(9)), ..it }),
        day(|it| Query { model: Some("' OR true --".into()), ..it }),
        Query {
            interval: Interval::Whole { hourly: true },
            ..day(|it| Query { endpoint: Some("x".into()), ..it })
        },
    ] {
        assert!(ask(&store, org, &query).await.is_empty(), "{query:?}");
    }
}

#[tokio::test]
async fn i9_an_organization_sees_its_own_sums_and_the_operator_all() {
    let (store, org, other) = world().await;
    let by_org = query(Interval::Day, &[Dimension::Org]);
    let mut tx = store.system().await.unwrap();
    let mut all: Vec<_> = of_all(&mut tx, &by_org)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.group[0].clone(), row.measures.cost_nanos))
        .collect();
    all.sort_by_key(|(_, cost)| *cost);
    assert_eq!(all, [(org.to_string(), 11_111), (other.to_string(), 100_000)]);
    let own = ask(&store, other, &by_org).await;
    assert_eq!((own.len(), own[0].group[0].clone()), (1, other.to_string()));
    // Also when the condition on the organization were forgotten.
    let mut tx = store.tenant(other).await.unwrap();
    let rows = run(tx.conn(), None, &by_org).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn pages_in_any_order_are_the_whole_list() {
    let (store, org, _) = world().await;
    for (order, first) in
        [(Order::Time, 11), (Order::Cost, 10_000), (Order::Tokens, 10_000), (Order::Requests, 11)]
    {
        let mut query = Query { order, ..query(Interval::Hour, &[Dimension::Key, Dimension::Model]) };
        let whole = told(&ask(&store, org, &query).await);
        assert_eq!((whole.len(), whole[0].3), (4, first), "{order:?}");
        let mut paged = Vec::new();
        query.limit = 1;
        for _ in 0..5 {
            let page = ask(&store, org, &query).await;
            query.after = page.last().map(UsageRow::position).or(query.after);
            paged.extend(told(&page));
        }
        assert_eq!(paged, whole, "{order:?}");
    }
}

#[tokio::test]
async fn latency_percentiles_come_from_merged_histograms() {
    let store = testing::store().await;
    let org = OrgId::generate();
    // 1 to 100 ms, over two keys and two batches.
    for part in [1..=50, 51..=100] {
        let rows = part.map(|ms| row(org, 0, u128::try_from(ms % 2).unwrap(), "a", ms)).collect();
        store.ingest_usage(&testing::journal(), rows, &KnownDays::default()).await.unwrap();
    }
    let rows = ask(&store, org, &query(Interval::Day, &[])).await;
    assert_eq!(rows[0].total.count(), 100);
    assert_eq!(rows[0].first_byte.count(), 0);
    for (per_mille, exact) in [(500, 50_000), (950, 95_000), (990, 99_000)] {
        let told = rows[0].total.quantile(per_mille).unwrap();
        assert!(told.abs_diff(exact) * 5 <= exact, "{per_mille}: {told} for {exact}");
    }
}

/// Neither in the plan, nor when there is no log at all.
#[tokio::test]
async fn usage_is_never_read_from_the_request_log() {
    let (store, org, _) = world().await;
    let queries = [Interval::Hour, Interval::Day, Interval::Month, Interval::Whole { hourly: true }]
        .map(|interval| query(interval, &Dimension::ALL));
    let mut before = Vec::new();
    for query in &queries {
        let sql = build(Some(org), query).into_string();
        // Parameters by value, so that every server version can explain it.
        let sql = numbered(&sql, query, org);
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {sql}")))
            .fetch_all(&mut store.superuser().await)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(query.interval.table()) && !plan.contains("request_log"), "{plan}");
        before.push(told(&ask(&store, org, query).await));
    }
    assert!(!before[0].is_empty());
    store.superuser().await.execute("DROP TABLE request_log CASCADE").await.unwrap();
    for (query, before) in queries.iter().zip(before) {
        assert_eq!(told(&ask(&store, org, query).await), before);
    }
    let mut tx = store.tenant(org).await.unwrap();
    assert!(request_log::get(&mut tx, RequestId::generate()).await.is_err());
}

/// The statement of a query without filters, with its parameters written out.
fn numbered(sql: &str, query: &Query, org: OrgId) -> String {
    let whole = matches!(query.interval, Interval::Whole { .. });
    let mut values =
        vec![format!("'{}'", query.from), format!("'{}'", query.to), format!("'{org}'"), "100".into()];
    if whole {
        values.insert(0, format!("'{}'", query.from));
    }
    let mut sql = sql.to_owned();
    for (at, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", at + 1), value);
    }
    assert!(!sql.contains('$'), "{sql}");
    sql
}

#[test]
fn hours_of_these_tests_are_whole() {
    assert_eq!(noon(), hour(noon()));
}
