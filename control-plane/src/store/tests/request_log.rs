//! Partitions of the request log, and reading it.

use nemo_types::{OrgId, RequestId};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use time::{Duration, OffsetDateTime};
use tokio::task::JoinSet;
use uuid::{NoContext, Timestamp, Uuid};

use crate::store::{
    request_log::{self, Filter, Position},
    testing::{self, TestStore},
};

fn now() -> OffsetDateTime {
    let micros = i128::from(nemo_runtime::clock::unix_us());
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap()
}

/// Logs a request that started then; its id carries the time as a node's does.
async fn log(
    superuser: &mut PgConnection,
    org: OrgId,
    at: OffsetDateTime,
    model: &str,
    outcome: &str,
) -> RequestId {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond()));
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
    for days in [-32, 3, 4000] {
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
