//! The catalog: only what differs is written, prices never change.

use time::{Duration, OffsetDateTime, macros::datetime};

use crate::store::{
    StoreError,
    catalog::{self, Amounts, ModelRow, NewModel, NewOffering, Source},
    testing::{self, TestStore},
};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00:00.5 UTC);

fn model(id: &str, input: Option<i64>) -> NewModel {
    let amounts = Amounts { input, ..Amounts::default() };
    let offering =
        NewOffering { provider: "openai".into(), upstream_model: id.into(), amounts, price_id: None };
    let row =
        ModelRow { id: id.into(), display_name: id.into(), owned_by: "openai".into(), ..ModelRow::default() };
    NewModel { row, offerings: vec![offering] }
}

async fn put(store: &TestStore, models: Vec<NewModel>, source: Source, at: OffsetDateTime) -> u64 {
    let mut tx = store.system().await.unwrap();
    let written = catalog::put(&mut tx, models, source, at).await.unwrap();
    tx.commit().await.unwrap();
    written
}

/// Price id and amount of the model's only offering.
async fn price(store: &TestStore, id: &str) -> (Option<String>, Option<i64>) {
    let mut tx = store.system().await.unwrap();
    let stored = catalog::get(&mut tx, id).await.unwrap().unwrap();
    (stored.offerings[0].price_id.clone(), stored.offerings[0].amounts.input)
}

async fn revision(store: &TestStore) -> i64 {
    let mut superuser = store.superuser().await;
    sqlx::query_scalar("SELECT revision FROM config_revision").fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test]
async fn only_models_that_differ_are_written() {
    let store = testing::store().await;
    let both = || vec![model("a", Some(1)), model("b", Some(1))];
    assert_eq!(put(&store, both(), Source::Bundled, NOW).await, 2);
    let before = revision(&store).await;
    assert_eq!(put(&store, both(), Source::Bundled, NOW + Duration::HOUR).await, 0);
    assert_eq!(revision(&store).await, before);
    let changed = vec![model("a", Some(1)), model("b", Some(2))];
    assert_eq!(put(&store, changed, Source::Bundled, NOW + Duration::HOUR).await, 1);
    assert_eq!(revision(&store).await, before + 1);
}

#[tokio::test]
async fn a_changed_price_is_a_new_row_and_the_old_one_stays() {
    let store = testing::store().await;
    put(&store, vec![model("m", Some(1))], Source::Bundled, NOW).await;
    let first = price(&store, "m").await;
    assert_eq!(first, (Some("openai/m@2026-11-21T12:00:00Z".into()), Some(1)));
    // Twice in one second: the id has to differ all the same.
    put(&store, vec![model("m", Some(2))], Source::Bundled, NOW).await;
    assert_eq!(price(&store, "m").await, (Some("openai/m@2026-11-21T12:00:00Z#2".into()), Some(2)));
    // Back again: a row of its own, so that the history tells what was in effect last.
    put(&store, vec![model("m", Some(1))], Source::Bundled, NOW).await;
    assert_eq!(price(&store, "m").await, (Some("openai/m@2026-11-21T12:00:00Z#3".into()), Some(1)));
    let mut superuser = store.superuser().await;
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT id, input FROM model_prices ORDER BY id")
        .fetch_all(&mut superuser)
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [1, 2, 1]);
}

#[tokio::test]
async fn an_unknown_price_has_no_row() {
    let store = testing::store().await;
    put(&store, vec![model("m", None)], Source::Bundled, NOW).await;
    assert_eq!(price(&store, "m").await, (None, None));
    put(&store, vec![model("m", Some(0))], Source::Bundled, NOW).await;
    assert_eq!(price(&store, "m").await.1, Some(0), "free is a price");
}

#[tokio::test]
async fn the_bundled_catalog_leaves_custom_entries_alone() {
    let store = testing::store().await;
    put(&store, vec![model("m", Some(1))], Source::Bundled, NOW).await;
    assert_eq!(put(&store, vec![model("m", Some(5))], Source::Custom, NOW).await, 1);
    assert_eq!(put(&store, vec![model("m", Some(7))], Source::Bundled, NOW).await, 0);
    assert_eq!(price(&store, "m").await.1, Some(5));
}

#[tokio::test]
async fn offerings_that_are_not_named_go() {
    let store = testing::store().await;
    let mut two = model("m", Some(1));
    two.offerings.push(NewOffering { provider: "azure".into(), ..two.offerings[0].clone() });
    put(&store, vec![two.clone()], Source::Custom, NOW).await;
    two.offerings.remove(0);
    put(&store, vec![two], Source::Custom, NOW).await;
    let mut tx = store.system().await.unwrap();
    let stored = catalog::get(&mut tx, "m").await.unwrap().unwrap();
    assert_eq!(stored.offerings.iter().map(|it| it.provider.as_str()).collect::<Vec<_>>(), ["azure"]);
}

#[tokio::test]
async fn a_model_that_is_served_can_not_be_deleted() {
    let store = testing::store().await;
    super::fill(&mut store.superuser().await, None, 3).await;
    let mut tx = store.system().await.unwrap();
    assert!(matches!(catalog::delete(&mut tx, "m").await, Err(StoreError::Reference { .. })));
}
