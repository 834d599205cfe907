//! Partitions of the request log, and reading it.

use nemo_types::{OrgId, RequestId};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use time::{Duration, OffsetDateTime};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::store::{
    request_log::{self, Filter, Position, Statuses},
    testing::{self, TestStore, now},
    usage_ingest::{KnownDays, Row},
};

/// Logs a request that started then; its id carries the time as a node's does.
async fn log(
    superuser: &mut PgConnection,
    org: OrgId,
    at: OffsetDateTime,
    model: &str,
    outcome: &str,
) -> RequestId {
    let id = testing::request_id(at);
    let (day, key) = (at.date(), Uuid::nil());
    let sql = format!(
        "INSERT INTO request_log
            (event_day, request_id, org_id, team_id, key_id, started_at, endpoint, requested_model, model, provider,
             upstream_model, stream, outcome, http_status, error_code, finish_reason, usage_estimated, cost_source,
             price_id, attempts, strategy, config_revision, total_us, upstream_us, overhead_us, request_bytes,
             response_bytes, client_request_id, metadata, node_id)
         VALUES ('{day}', '{id}', '{org}', '{key}', '{key}', '{at}', '', 'alias-{model}', '{model}', '', '', false,
                 '{outcome}', 200, '', '', false, '', '', 1, '', 1, 1, 1, 1, 1, 1, '', '', 'n')"
    );
    superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    RequestId(id)
}

async fn partitions(store: &TestStore) -> Vec<String> {
    let sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'request_log'::regclass ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut store.superuser().await).await.unwrap()
}

/// As the usage ingest does it.
async fn ensure(store: &TestStore, day: time::Date) {
    let mut tx = store.system().await.unwrap();
    sqlx::query("SELECT nemo_ensure_request_log_day($1)").bind(day).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_day_gets_one_partition_however_many_ask_for_it() {
    let store = testing::store().await;
    let day = now().date();
    let mut askers = JoinSet::new();
    for _ in 0..4 {
        let store = store.store.clone();
        askers.spawn(async move {
            let mut tx = store.system().await.unwrap();
            sqlx::query("SELECT nemo_ensure_request_log_day($1)").bind(day).execute(tx.conn()).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    askers.join_all().await;
    ensure(&store, day).await;
    let name = format!("request_log_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day());
    assert_eq!(partitions(&store).await, [name, "request_log_default".to_owned()]);
}

#[tokio::test]
async fn days_far_away_and_days_with_rows_stay_in_the_default_partition() {
    let store = testing::store().await;
    let (mut superuser, org) = (store.superuser().await, OrgId::generate());
    for days in [-32, 9, 4000] {
        ensure(&store, (now() + Duration::days(days)).date()).await;
    }
    // A row of yesterday came before its partition.
    let yesterday = now() - Duration::DAY;
    let id = log(&mut superuser, org, yesterday, "m", "ok").await;
    ensure(&store, yesterday.date()).await;
    assert_eq!(partitions(&store).await, ["request_log_default"]);
    let mut tx = store.tenant(org).await.unwrap();
    assert!(request_log::get(&mut tx, id).await.unwrap().is_some());
}

#[tokio::test]
async fn requests_are_listed_newest_first_page_by_page() {
    let store = testing::store().await;
    let (mut superuser, org) = (store.superuser().await, OrgId::generate());
    ensure(&store, now().date()).await;
    let mut ids = Vec::new();
    for hours in 0..7 {
        ids.push(log(&mut superuser, org, now() - Duration::hours(hours * 8), "m", "ok").await);
        log(&mut superuser, OrgId::generate(), now() - Duration::hours(hours * 8), "m", "ok").await;
    }
    let mut tx = store.tenant(org).await.unwrap();
    let (mut listed, mut position) = (Vec::new(), None);
    loop {
        let rows = request_log::list(&mut tx, &Filter::default(), position, 3).await.unwrap();
        position = rows.last().map(|row| Position { started_at: row.started_at, request_id: row.request_id });
        listed.extend(rows.iter().map(|row| RequestId(row.request_id)));
        if rows.len() < 3 {
            break;
        }
    }
    assert_eq!(listed, ids);
}

#[tokio::test]
async fn filters_restrict_by_time_model_and_outcome() {
    let store = testing::store().await;
    let (mut superuser, org) = (store.superuser().await, OrgId::generate());
    let at = |hours| now() - Duration::hours(hours);
    let (noon, old) = (at(30), at(60));
    let first = log(&mut superuser, org, old, "a", "ok").await;
    let second = log(&mut superuser, org, noon, "b", "error").await;
    let third = log(&mut superuser, org, at(1), "a", "ok").await;
    let list = async |filter: Filter| {
        let mut tx = store.tenant(org).await.unwrap();
        let rows = request_log::list(&mut tx, &filter, None, 10).await.unwrap();
        rows.into_iter().map(|row| RequestId(row.request_id)).collect::<Vec<_>>()
    };
    assert_eq!(list(Filter::default()).await, [third, second, first]);
    assert_eq!(list(Filter { after: Some(noon), ..Filter::default() }).await, [third, second]);
    assert_eq!(list(Filter { before: Some(noon), ..Filter::default() }).await, [first]);
    assert_eq!(list(Filter { model: Some("a".into()), ..Filter::default() }).await, [third, first]);
    assert_eq!(list(Filter { model: Some("alias-b".into()), ..Filter::default() }).await, [second]);
    assert_eq!(list(Filter { outcome: Some("error".into()), ..Filter::default() }).await, [second]);
    assert_eq!(list(Filter { key: Some(Uuid::now_v7()), ..Filter::default() }).await, []);
}

#[tokio::test]
async fn a_request_of_another_organization_is_not_found() {
    let store = testing::store().await;
    let (own, other) = (OrgId::generate(), OrgId::generate());
    let id = log(&mut store.superuser().await, other, now(), "m", "ok").await;
    assert!(request_log::get(&mut store.tenant(other).await.unwrap(), id).await.unwrap().is_some());
    assert!(request_log::get(&mut store.tenant(own).await.unwrap(), id).await.unwrap().is_none());
    let strange = RequestId(Uuid::max());
    assert!(request_log::get(&mut store.tenant(own).await.unwrap(), strange).await.unwrap().is_none());
}

/// Eight requests, each different from the others in one thing that can be searched for.
async fn searchable(store: &TestStore, org: OrgId) -> Vec<Row> {
    let mut rows: Vec<_> =
        (0..8).map(|minutes| testing::usage_row(org, now() - Duration::minutes(minutes))).collect();
    rows[0].team_id = Uuid::from_u128(7);
    rows[1].deployment_id = Some(Uuid::from_u128(8));
    (rows[2].outcome, rows[2].http_status, rows[2].error_code) = ("error", 429, "rate_limited".into());
    (rows[3].outcome, rows[3].http_status) = ("cancelled", 499);
    rows[4].client_request_id = "mine".into();
    rows[5].cost_nanos = Some(5000);
    rows[6].total_us = 9_000_000;
    (rows[7].provider, rows[7].endpoint) = ("custom".into(), "embeddings".into());
    let ingested =
        store.ingest_usage(&testing::journal(), rows.clone(), &KnownDays::default()).await.unwrap();
    assert_eq!(ingested.inserted, 8);
    rows
}

#[tokio::test]
async fn every_condition_of_a_search_restricts_it() {
    let store = testing::store().await;
    let org = OrgId::generate();
    let rows = searchable(&store, org).await;
    let any = Filter::default;
    let status = |first, last| Some(Statuses { first, last });
    for (filter, expected) in [
        (any(), vec![0, 1, 2, 3, 4, 5, 6, 7]),
        (Filter { id: Some(RequestId(rows[5].request_id)), ..any() }, vec![5]),
        (Filter { team: Some(rows[0].team_id), ..any() }, vec![0]),
        (Filter { deployment: rows[1].deployment_id, ..any() }, vec![1]),
        (Filter { status: status(429, 429), ..any() }, vec![2]),
        (Filter { status: status(400, 499), ..any() }, vec![2, 3]),
        (Filter { status: status(200, 200), ..any() }, vec![0, 1, 4, 5, 6, 7]),
        (Filter { error_code: Some("rate_limited".into()), ..any() }, vec![2]),
        (Filter { outcome: Some("cancelled".into()), ..any() }, vec![3]),
        (Filter { client_request_id: Some("mine".into()), ..any() }, vec![4]),
        (Filter { min_cost_nanos: Some(5000), ..any() }, vec![5]),
        (Filter { min_cost_nanos: Some(5001), ..any() }, vec![]),
        (Filter { min_total_us: Some(1_000_000), ..any() }, vec![6]),
        (Filter { provider: Some("custom".into()), ..any() }, vec![7]),
        (Filter { endpoint: Some("embeddings".into()), ..any() }, vec![7]),
        (Filter { model: Some("gpt-5.2".into()), status: status(400, 499), ..any() }, vec![2, 3]),
    ] {
        let mut tx = store.tenant(org).await.unwrap();
        let found = request_log::list(&mut tx, &filter, None, 100).await.unwrap();
        let found: Vec<_> = found.iter().map(|row| row.request_id).collect();
        let expected: Vec<_> = expected.iter().map(|at: &usize| rows[*at].request_id).collect();
        assert_eq!(found, expected, "{filter:?}");
        let mut tx = store.tenant(OrgId::generate()).await.unwrap();
        assert!(request_log::list(&mut tx, &filter, None, 100).await.unwrap().is_empty(), "{filter:?}");
    }
}

#[tokio::test]
async fn a_name_is_found_as_asked_for_and_as_resolved_page_by_page() {
    let store = testing::store().await;
    let org = OrgId::generate();
    let mut rows: Vec<_> =
        (0..6).map(|minutes| testing::usage_row(org, now() - Duration::minutes(minutes))).collect();
    // As asked for, as resolved, both, and neither.
    rows[1].model = "group".into();
    rows[3].requested_model = "alias".into();
    rows[4].requested_model = "other".into();
    rows[4].model = "other".into();
    store.ingest_usage(&testing::journal(), rows.clone(), &KnownDays::default()).await.unwrap();
    let filter = Filter { model: Some("gpt-5.2".into()), ..Filter::default() };
    let (mut found, mut position) = (Vec::new(), None);
    for _ in 0..5 {
        let mut tx = store.tenant(org).await.unwrap();
        let page = request_log::list(&mut tx, &filter, position, 1).await.unwrap();
        position = page.last().map(|row| Position { started_at: row.started_at, request_id: row.request_id });
        found.extend(page.iter().map(|row| row.request_id));
    }
    assert_eq!(found, [0, 1, 2, 3, 5].map(|at: usize| rows[at].request_id));
}

/// The plan of a search whatever its parameters are, with detours forbidden: what an index can serve is served by one.
async fn plan(superuser: &mut PgConnection, sql: &str) -> String {
    let parameters = (1..100).take_while(|at| sql.contains(&format!("${at}"))).count();
    let nulls = vec!["NULL"; parameters].join(", ");
    for statement in [
        "SET enable_seqscan = off".to_owned(),
        "SET enable_bitmapscan = off".to_owned(),
        "SET enable_sort = off".to_owned(),
        "SET plan_cache_mode = force_generic_plan".to_owned(),
        "DEALLOCATE ALL".to_owned(),
        format!("PREPARE search AS {sql}"),
    ] {
        superuser.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
    }
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN EXECUTE search ({nulls})")))
        .persistent(false)
        .fetch_all(superuser)
        .await
        .unwrap();
    lines.join("\n")
}

#[tokio::test]
async fn searches_have_an_index_that_fits() {
    let store = testing::store().await;
    let org = OrgId::generate();
    searchable(&store, org).await;
    let mut superuser = store.superuser().await;
    let any = Filter::default;
    let model = || Filter { model: Some("m".into()), ..any() };
    for (filter, index) in [
        (any(), "request_log_by_org"),
        (Filter { key: Some(Uuid::nil()), ..any() }, "request_log_by_key"),
        (model(), "request_log_by_model"),
        (model(), "request_log_by_requested_model"),
        (Filter { client_request_id: Some("x".into()), ..any() }, "request_log_by_client_request_id"),
        (Filter { status: Some(Statuses { first: 500, last: 599 }), ..any() }, "request_log_troubled"),
        (Filter { outcome: Some("error".into()), ..any() }, "request_log_troubled"),
    ] {
        let sql = request_log::search(org, &filter, None, 10).into_string();
        let plan = plan(&mut superuser, &sql).await;
        let parts: Vec<String> = sqlx::query_scalar(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::regclass",
        )
        .bind(index)
        .persistent(false)
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert!(parts.len() >= 2, "{parts:?}");
        for part in parts {
            assert!(plan.contains(&format!("using {part} on")), "{part} of {index} for {filter:?}\n{plan}");
        }
        assert!(!plan.contains("->  Sort"), "{plan}");
    }
}

#[tokio::test]
async fn one_request_is_looked_for_in_the_partition_of_its_id_only() {
    let store = testing::store().await;
    let org = OrgId::generate();
    for days in 0..4 {
        ensure(&store, (now() - Duration::days(days)).date()).await;
    }
    let day = (now() - Duration::days(2)).date();
    let sql = request_log::by_id().replace("$1", &format!("'{day}'")).replace("$2", "gen_random_uuid()");
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {sql}")))
        .fetch_all(&mut store.superuser().await)
        .await
        .unwrap();
    let plan = lines.join("\n");
    let part = format!("request_log_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day());
    assert!(plan.contains(&part), "{plan}");
    assert_eq!(plan.matches(" on request_log").count(), 1, "{plan}");
    // The same by the filter of the list.
    let id = RequestId(testing::request_id(now() - Duration::days(2)));
    let filter = Filter { id: Some(id), ..Filter::default() };
    let mut tx = store.tenant(org).await.unwrap();
    assert!(request_log::list(&mut tx, &filter, None, 1).await.unwrap().is_empty());
}
