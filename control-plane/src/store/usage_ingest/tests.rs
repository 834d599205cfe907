use nemo_proto::usage::Outcome;
use nemo_types::{KeyId, OrgId, RequestId, TeamId};
use sqlx::Row as _;

use super::*;
use crate::store::testing::{self, TestStore};

/// A row of an organization that need not exist.
fn row(request_id: RequestId) -> Row {
    let event = UsageEvent {
        request_id: request_id.as_bytes().to_vec().into(),
        org_id: OrgId::generate().as_bytes().to_vec().into(),
        team_id: TeamId::generate().as_bytes().to_vec().into(),
        key_id: KeyId::generate().as_bytes().to_vec().into(),
        outcome: Outcome::Ok.into(),
        cost_nanos: Some(7),
        requested_model: "gpt-5.2".into(),
        first_byte_us: Some(12),
        ..UsageEvent::default()
    };
    Row::new(event, "node-1", now()).unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nemo_runtime::clock::unix_us()) * 1000).unwrap()
}

async fn count(store: &TestStore) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM request_log")
        .fetch_one(&mut store.superuser().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_counted_and_changes_nothing() {
    let (store, known) = (testing::store().await, KnownDays::default());
    let rows: Vec<_> = (0..3).map(|_| row(RequestId::generate())).collect();
    let first = store.ingest_usage(&testing::journal(), rows[..2].to_vec(), &known).await.unwrap();
    assert_eq!(first, Ingested { inserted: 2, ..Ingested::default() });
    let mut again = rows.clone();
    again[0].requested_model = "changed".into();
    let second = store.ingest_usage(&testing::journal(), again, &known).await.unwrap();
    assert_eq!(second, Ingested { inserted: 1, duplicates: 2, ..Ingested::default() });
    assert_eq!(count(&store).await, 3);
    let changed: i64 =
        sqlx::query_scalar("SELECT count(*) FROM request_log WHERE requested_model = 'changed'")
            .fetch_one(&mut store.superuser().await)
            .await
            .unwrap();
    assert_eq!(changed, 0);
}

#[tokio::test]
async fn the_same_event_twice_in_a_batch_is_one_row() {
    let (store, known) = (testing::store().await, KnownDays::default());
    let row = row(RequestId::generate());
    let ingested = store.ingest_usage(&testing::journal(), vec![row.clone(), row], &known).await.unwrap();
    assert_eq!((ingested.inserted, ingested.duplicates, count(&store).await), (1, 1, 1));
}

#[tokio::test]
async fn each_day_has_its_partition() {
    let (store, known) = (testing::store().await, KnownDays::default());
    let mut yesterday = row(RequestId::generate());
    yesterday.event_day = yesterday.event_day.previous_day().unwrap();
    let today = row(RequestId::generate());
    let days = [yesterday.event_day, today.event_day];
    store.ingest_usage(&testing::journal(), vec![today, yesterday], &known).await.unwrap();
    let sql = "SELECT tableoid::regclass::text AS part, event_day FROM request_log ORDER BY event_day";
    let rows = sqlx::query(sql).fetch_all(&mut store.superuser().await).await.unwrap();
    let parts: Vec<String> = rows.iter().map(|row| row.get("part")).collect();
    let expected =
        days.map(|day| format!("request_log_{}{:02}{:02}", day.year(), u8::from(day.month()), day.day()));
    assert_eq!(parts, expected);
}

#[tokio::test]
async fn a_row_that_the_database_refuses_does_not_hold_up_the_others() {
    let (store, known) = (testing::store().await, KnownDays::default());
    let mut bad = row(RequestId::generate());
    bad.outcome = "nonsense";
    let rows = vec![row(RequestId::generate()), bad, row(RequestId::generate())];
    let ingested = store.ingest_usage(&testing::journal(), rows, &known).await.unwrap();
    assert_eq!(ingested, Ingested { inserted: 2, refused: 1, ..Ingested::default() });
    assert_eq!(count(&store).await, 2);
}

#[tokio::test]
async fn a_full_batch_is_one_statement() {
    let (store, known) = (testing::store().await, KnownDays::default());
    let rows: Vec<_> = (0..MAX_BATCH).map(|_| row(RequestId::generate())).collect();
    assert_eq!(store.ingest_usage(&testing::journal(), rows, &known).await.unwrap().inserted, 1000);
}

#[test]
fn remembered_days_are_bounded() {
    let known = KnownDays::default();
    let mut day = now().date();
    for _ in 0..100 {
        known.remember(vec![day]);
        day = day.next_day().unwrap();
    }
    assert_eq!(known.0.lock().unwrap().len(), event::MAX_DAYS);
    assert!(known.unknown(BTreeSet::from([day.previous_day().unwrap()])).is_empty());
}
