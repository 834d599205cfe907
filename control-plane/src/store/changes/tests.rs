use std::time::Instant;

use sqlx::Executor as _;

use super::*;
use crate::store::{teams, testing};

async fn changes_after(store: &Store, revision: u64) -> Changes {
    store.config_snapshot().await.unwrap().changes_after(revision).await.unwrap()
}

async fn revision(store: &Store) -> u64 {
    store.config_snapshot().await.unwrap().revision().await.unwrap()
}

#[tokio::test]
async fn every_touched_resource_is_named_once() {
    let store = testing::store().await;
    let org = store.org().await;
    let before = revision(&store).await;
    let team = store.team(org).await;
    let mut tx = store.tenant(org).await.unwrap();
    teams::update(&mut tx, team, Some("renamed"), None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(revision(&store).await, before + 2);
    let team = Change { kind: 2, id: team.as_bytes().to_vec() };
    assert_eq!(changes_after(&store, before).await, Changes::Some(vec![team]));
    assert_eq!(changes_after(&store, before + 2).await, Changes::Some(Vec::new()));
}

#[tokio::test]
async fn what_the_feed_can_not_tell_is_unknown() {
    let store = testing::store().await;
    let org = store.org().await;
    store.team(org).await;
    store.team(org).await;
    assert_eq!(changes_after(&store, 0).await, Changes::Unknown);
    assert_eq!(changes_after(&store, 99).await, Changes::Unknown);
    let mut superuser = store.superuser().await;
    superuser.execute("DELETE FROM config_changes WHERE revision <= 2").await.unwrap();
    assert_eq!(changes_after(&store, 1).await, Changes::Unknown);
    assert!(matches!(changes_after(&store, 2).await, Changes::Some(changes) if changes.len() == 1));
    superuser.execute("DELETE FROM config_changes").await.unwrap();
    assert_eq!(changes_after(&store, 2).await, Changes::Unknown);
    assert_eq!(changes_after(&store, 3).await, Changes::Some(Vec::new()));
}

#[tokio::test]
async fn a_snapshot_stays_as_it_was_when_it_was_first_read() {
    let store = testing::store().await;
    let mut snapshot = store.config_snapshot().await.unwrap();
    let before = snapshot.revision().await.unwrap();
    store.org().await;
    assert_eq!(snapshot.revision().await.unwrap(), before);
    assert_eq!(revision(&store).await, before + 1);
    let write =
        sqlx::query("DELETE FROM settings").execute(snapshot.connection(Inside(()))).await.unwrap_err();
    assert!(write.to_string().contains("read-only"), "{write}");
}

#[tokio::test]
async fn a_write_is_signaled_well_before_the_poll() {
    let store = testing::store().await;
    let mut watch = store.watch_config();
    // The connection itself is a signal: changes before it may have been missed.
    watch.changed().await;
    store.org().await;
    let start = Instant::now();
    watch.changed().await;
    assert!(start.elapsed() < POLL / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_lost_listener_comes_back_and_signals() {
    let store = testing::store().await;
    let mut watch = store.watch_config();
    watch.changed().await;
    let mut superuser = store.superuser().await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    assert_eq!(superuser.execute(kill).await.unwrap().rows_affected(), 1);
    let start = Instant::now();
    // Lost, and (unless the driver has done so itself) listening again.
    watch.changed().await;
    watch.changed().await;
    assert!(start.elapsed() < POLL + POLL / 2);
    store.org().await;
    let start = Instant::now();
    watch.changed().await;
    assert!(start.elapsed() < POLL / 2, "{:?}", start.elapsed());
}

/// I9: a tenant's write is proved against the configuration of all, and sees its own rows alone before and after.
#[tokio::test]
async fn a_tenants_write_sees_everything_only_while_it_is_proved() {
    let store = testing::store().await;
    let (org, _) = (store.org().await, store.org().await);
    let mut tx = store.tenant(org).await.unwrap();
    tx.lock_config().await.unwrap();
    teams::insert(&mut tx, uuid::Uuid::now_v7(), "uncommitted").await.unwrap();
    let seen = "SELECT (SELECT count(*) FROM organizations), (SELECT count(*) FROM teams)";
    let committed = revision(&store).await;

    let mut view = Uncommitted::begin(&mut tx).await.unwrap();
    let all: (i64, i64) = sqlx::query_as(seen).fetch_one(view.connection(Inside(()))).await.unwrap();
    assert_eq!((all, view.revision().await.unwrap()), ((2, 1), committed + 1));
    assert!(
        matches!(view.changes_after(committed).await.unwrap(), Changes::Some(changes) if changes.len() == 1)
    );
    view.end().await.unwrap();
    let own: (i64, i64) = sqlx::query_as(seen).fetch_one(tx.conn()).await.unwrap();
    assert_eq!(own, (1, 1));
    let role: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(tx.conn()).await.unwrap();
    assert_eq!(role, "nemo_app");

    // A view that is never ended goes with its transaction; the connection comes back as it was.
    let _ = Uncommitted::begin(&mut tx).await.unwrap();
    drop(tx);
    let mut tx = store.tenant(org).await.unwrap();
    let own: (i64, i64) = sqlx::query_as(seen).fetch_one(tx.conn()).await.unwrap();
    assert_eq!(own, (1, 0));
}
