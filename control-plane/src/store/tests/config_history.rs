//! The history of the configuration: what was recorded can be rebuilt, whoever recorded it and in whichever order, and
//! what nobody can need goes.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::store::{
    Store,
    config_history::{HistoryRow, Recording, range, rows},
    testing::{self, now},
};

/// A setting's row of that number; an empty value: gone.
fn row(id: u8, value: &str) -> HistoryRow {
    let resource = (!value.is_empty()).then(|| value.as_bytes().to_vec());
    HistoryRow { kind: 8, id: vec![id; 16], resource }
}

async fn record(store: &Store, revision: u64, whole: bool, rows: &[HistoryRow]) {
    store.record_config(Recording { revision, whole, rows: rows.to_vec() }).await.unwrap();
}

/// What a revision was, in pages of two; `None`: it can't be rebuilt.
async fn rebuilt(store: &Store, revision: u64) -> Option<BTreeMap<u8, String>> {
    let mut tx = store.system().await.unwrap();
    let range = range(&mut tx, revision, 0).await.unwrap()?;
    let (mut found, mut position) = (BTreeMap::new(), None);
    loop {
        let page = rows(&mut tx, range, position, 2).await.unwrap();
        let Some(last) = page.last() else { return Some(found) };
        position = Some((last.kind, last.id.clone()));
        found.extend(
            page.into_iter().map(|row| (row.id[0], String::from_utf8(row.resource.unwrap()).unwrap())),
        );
    }
}

/// What leads from one revision to another, and what it is relative to.
async fn changes(store: &Store, revision: u64, since: u64) -> (u64, Vec<HistoryRow>) {
    let mut tx = store.system().await.unwrap();
    let range = range(&mut tx, revision, since).await.unwrap().unwrap();
    (range.since(), rows(&mut tx, range, None, 100).await.unwrap())
}

fn config(pairs: &[(u8, &str)]) -> Option<BTreeMap<u8, String>> {
    Some(pairs.iter().map(|(id, value)| (*id, (*value).to_owned())).collect())
}

/// One replica publishes 3, 5 and 9, the other 4 and 9, each what changed for it; the slower one writes last.
#[tokio::test]
async fn every_recorded_revision_is_rebuilt_as_it_was_whichever_replica_recorded_it() {
    let store = testing::store().await;
    assert!(!store.is_recorded(3).await.unwrap());
    record(&store, 3, true, &[row(1, "a"), row(2, "b"), row(3, "c")]).await;
    record(&store, 5, false, &[row(1, ""), row(2, "b5")]).await;
    record(&store, 9, false, &[row(1, "back"), row(3, "")]).await;
    // At 4 the first one was gone already, the second one not yet changed.
    record(&store, 4, false, &[row(1, "")]).await;
    record(&store, 9, false, &[row(1, "back"), row(2, "b5"), row(3, "")]).await;
    assert_eq!(rebuilt(&store, 3).await, config(&[(1, "a"), (2, "b"), (3, "c")]));
    assert_eq!(rebuilt(&store, 4).await, config(&[(2, "b"), (3, "c")]));
    assert_eq!(rebuilt(&store, 5).await, config(&[(2, "b5"), (3, "c")]));
    assert_eq!(rebuilt(&store, 9).await, config(&[(1, "back"), (2, "b5")]));
    // Nobody published these, so no request can name them.
    for revision in [0, 2, 6, 10] {
        assert_eq!(rebuilt(&store, revision).await, None, "{revision}");
    }
    assert!(store.is_recorded(9).await.unwrap());
    assert_eq!(changes(&store, 5, 3).await, (3, vec![row(1, ""), row(2, "b5")]));
    assert_eq!(changes(&store, 5, 5).await, (5, Vec::new()));
    // What lies behind the revision is no ground to stand on.
    assert_eq!(changes(&store, 4, 9).await.0, 0);
}

/// After a gap a revision is recorded whole: what came before does not show through.
#[tokio::test]
async fn a_base_hides_what_came_before_it() {
    let store = testing::store().await;
    record(&store, 3, true, &[row(1, "a"), row(2, "b")]).await;
    record(&store, 8, true, &[row(2, "b8")]).await;
    record(&store, 9, false, &[row(3, "c")]).await;
    assert_eq!(rebuilt(&store, 9).await, config(&[(2, "b8"), (3, "c")]));
    assert_eq!(changes(&store, 9, 8).await, (8, vec![row(3, "c")]));
    assert_eq!(changes(&store, 9, 3).await.0, 0, "rows do not reach back over a base");
}

#[tokio::test]
async fn pruning_keeps_what_requests_can_name_and_makes_a_base_of_the_last_one_before() {
    let store = testing::store().await;
    record(&store, 3, true, &[row(1, "a"), row(2, "b")]).await;
    record(&store, 4, false, &[row(1, "a4"), row(3, "c")]).await;
    record(&store, 5, false, &[row(2, "")]).await;
    record(&store, 6, false, &[row(3, "c6")]).await;
    let aged = |revision: i64, days: i64| {
        sqlx::query("UPDATE config_history_revisions SET recorded_at = $2 WHERE revision = $1")
            .bind(revision)
            .bind(now() - time::Duration::days(days))
    };
    let mut superuser = store.superuser().await;
    for (revision, days) in [(3, 90), (4, 80), (5, 70), (6, 10)] {
        aged(revision, days).execute(&mut superuser).await.unwrap();
    }
    let before = |days: i64| -> OffsetDateTime { now() - time::Duration::days(days) };
    assert_eq!(store.prune_config_history(before(100)).await.unwrap(), 0);
    // 5 was in force on that day.
    assert_eq!(store.prune_config_history(before(60)).await.unwrap(), 2);
    assert_eq!(rebuilt(&store, 4).await, None);
    assert_eq!(rebuilt(&store, 5).await, config(&[(1, "a4"), (3, "c")]));
    assert_eq!(rebuilt(&store, 6).await, config(&[(1, "a4"), (3, "c6")]));
    assert_eq!(store.prune_config_history(before(60)).await.unwrap(), 0);
    // However long nothing changes: what is in force stays.
    assert_eq!(store.prune_config_history(before(1)).await.unwrap(), 1);
    assert_eq!(rebuilt(&store, 6).await, config(&[(1, "a4"), (3, "c6")]));
    let rows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM config_history").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(rows, 2);
    assert!(store.prune_config_history(now() + time::Duration::days(1)).await.is_err());
}

#[tokio::test]
async fn the_history_is_append_only() {
    let store = testing::store().await;
    record(&store, 3, true, &[row(1, "a")]).await;
    for sql in [
        "UPDATE config_history SET resource = NULL",
        "DELETE FROM config_history",
        "DELETE FROM config_history_revisions",
        "DELETE FROM config_history_bases",
    ] {
        for pool in [&store.store.app, &store.store.system] {
            let error = sqlx::query(sql).execute(pool).await.unwrap_err();
            assert_eq!(error.as_database_error().and_then(|it| it.code()).as_deref(), Some("42501"), "{sql}");
        }
    }
}
