//! The change feed: one revision per transaction, in the order of commits.

use std::collections::BTreeSet;

use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, postgres::PgListener};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::fill;
use crate::store::{Store, organizations, teams, testing};

/// Changes as (revision, kind, id in hexadecimal, op).
async fn changes(connection: &mut PgConnection) -> Vec<(i64, i16, String, String)> {
    let sql = "SELECT revision, kind, encode(id, 'hex'), op FROM config_changes ORDER BY revision, kind, id";
    sqlx::query_as(sql).fetch_all(connection).await.unwrap()
}

async fn revision(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT revision FROM config_revision").fetch_one(connection).await.unwrap()
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Writes `count` transactions of one or two changes each.
async fn write(store: Store, org: OrgId, count: usize) {
    for number in 0..count {
        let mut tx = store.tenant(org).await.unwrap();
        let id = Uuid::now_v7();
        teams::insert(&mut tx, id, &format!("team {id}")).await.unwrap();
        if number % 2 == 0 {
            // Between the revision's lock and the commit others pile up behind us.
            tokio::task::yield_now().await;
            organizations::update(&mut tx, Some(&format!("name {id}")), None).await.unwrap();
        }
        if number % 5 == 4 {
            drop(tx);
        } else {
            tx.commit().await.unwrap();
        }
    }
}

#[tokio::test]
async fn revision_order_is_commit_order_and_no_gap_ever_shows() {
    let store = testing::store().await;
    let orgs = [store.org().await, store.org().await, store.org().await, store.org().await];
    let mut reader = store.superuser().await;
    let start = revision(&mut reader).await;
    let mut writers = JoinSet::new();
    for org in orgs {
        writers.spawn(write(store.store.clone(), org, 40));
    }
    let mut seen = BTreeSet::new();
    loop {
        let done = writers.is_empty();
        // One statement, one snapshot: what is committed at this moment.
        let sql = "SELECT array_agg(DISTINCT c.revision ORDER BY c.revision), max(r.revision) \
                   FROM config_revision r LEFT JOIN config_changes c ON c.revision > $1";
        let (visible, newest): (Vec<Option<i64>>, i64) =
            sqlx::query_as(sql).bind(start).fetch_one(&mut reader).await.unwrap();
        let visible: BTreeSet<i64> = visible.into_iter().flatten().collect();
        let complete: BTreeSet<i64> = (start + 1..=newest).collect();
        assert_eq!(visible, complete, "a revision below the newest is not there yet");
        assert!(seen.is_subset(&visible));
        seen = visible;
        if done {
            break;
        }
        while writers.try_join_next().map(Result::unwrap).is_some() {}
        tokio::task::yield_now().await;
    }
    // 4 writers, 40 transactions each, every fifth rolled back.
    assert_eq!(seen.len(), 4 * 32);
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_names_each_resource_once() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    let before = revision(&mut superuser).await;
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let mut tx = store.tenant(org).await.unwrap();
    teams::insert(&mut tx, one, "one").await.unwrap();
    teams::insert(&mut tx, two, "two").await.unwrap();
    teams::update(&mut tx, one, Some("eins"), None).await.unwrap();
    teams::delete(&mut tx, two).await.unwrap();
    tx.commit().await.unwrap();
    let made: Vec<_> = changes(&mut superuser).await.into_iter().filter(|change| change.0 > before).collect();
    let expected = [(one, "upsert"), (two, "delete")].map(|(id, op)| (before + 1, 2, hex(id), op.to_owned()));
    assert_eq!(made, expected);
}

#[tokio::test]
async fn writing_what_is_there_already_or_rolling_back_makes_no_revision() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    let before = revision(&mut superuser).await;
    let mut tx = store.tenant(org).await.unwrap();
    organizations::update(&mut tx, Some("Test"), Some(false)).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.tenant(org).await.unwrap();
    organizations::update(&mut tx, Some("Other"), None).await.unwrap();
    drop(tx);
    assert_eq!(revision(&mut superuser).await, before);
}

#[tokio::test]
async fn parts_count_as_changes_of_what_they_belong_to() {
    let store = testing::store().await;
    let mut superuser = store.superuser().await;
    let org = OrgId::generate();
    fill(&mut superuser, Some(org), 1).await;
    let group = "00000000-0000-7000-8000-000000001007";
    for (sql, kind, id) in [
        ("UPDATE link_deployments SET weight = 7".to_owned(), 7, group.replace('-', "")),
        (
            format!("INSERT INTO group_links (group_id, position, org_id) VALUES ('{group}', 1, '{org}')"),
            7,
            group.replace('-', ""),
        ),
        ("DELETE FROM link_deployments".to_owned(), 7, group.replace('-', "")),
        (
            "INSERT INTO model_prices (id, provider, model_id) VALUES ('p', 'x', 'm'); \
             INSERT INTO model_offerings (model_id, provider, position, upstream_model, price_id) \
             VALUES ('m', 'x', 0, 'm', 'p')"
                .to_owned(),
            6,
            "6d".to_owned(),
        ),
    ] {
        let before = revision(&mut superuser).await;
        superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await.unwrap();
        let made: Vec<_> =
            changes(&mut superuser).await.into_iter().filter(|change| change.0 > before).collect();
        assert_eq!(made, [(before + 1, kind, id, "upsert".to_owned())], "{sql}");
    }
}

#[tokio::test]
async fn deleting_an_organization_deletes_everything_it_owns_in_one_revision() {
    let store = testing::store().await;
    let mut superuser = store.superuser().await;
    let org = OrgId::generate();
    fill(&mut superuser, Some(org), 1).await;
    fill(&mut superuser, None, 3).await;
    let before = revision(&mut superuser).await;
    let mut tx = store.system().await.unwrap();
    assert!(organizations::delete(&mut tx, org.0).await.unwrap());
    tx.commit().await.unwrap();

    let made: Vec<_> = changes(&mut superuser).await.into_iter().filter(|change| change.0 > before).collect();
    let own = |kind: u8| format!("0000000000007000800000000000{}{kind:03}", 1);
    let mut expected = vec![
        (1, hex(org.0)),
        (2, own(1)),
        (3, own(4)),
        (4, own(5)),
        (5, own(6)),
        (7, own(7)),
        (8, own(8)),
        (9, own(9)),
        (10, own(9)),
    ];
    expected.sort();
    let expected: Vec<_> =
        expected.into_iter().map(|(kind, id)| (before + 1, kind, id, "delete".to_owned())).collect();
    assert_eq!(made, expected);
    let logged: i64 =
        sqlx::query_scalar("SELECT count(*) FROM request_log").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(logged, 1, "the request log outlives the organization");
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM deployments").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(left, 1, "the operator's stays");
}

#[tokio::test]
async fn a_commit_notifies_with_its_revision() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut listener = PgListener::connect(store.database.url()).await.unwrap();
    listener.listen("nemo_config").await.unwrap();
    store.team(org).await;
    let told =
        tokio::time::timeout(nemo_tests::eventually::patience(), listener.recv()).await.unwrap().unwrap();
    assert_eq!(told.payload(), revision(&mut store.superuser().await).await.to_string());
}

#[tokio::test]
async fn the_feed_keeps_the_newest_ten_thousand_revisions() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    superuser.execute("UPDATE config_revision SET revision = 10001").await.unwrap();
    store.team(org).await;
    let revisions: Vec<i64> = changes(&mut superuser).await.into_iter().map(|change| change.0).collect();
    assert_eq!(revisions, [10_002], "revision 1 is out of reach");
}
