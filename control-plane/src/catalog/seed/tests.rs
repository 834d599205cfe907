use super::*;
use crate::{catalog::bundled, publish::builder, store::testing};

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

async fn seed_it(store: &Store, catalog: &Catalog) -> Seeded {
    seed(store, catalog, now()).await.unwrap()
}

async fn revision(store: &Store) -> u64 {
    store.config_snapshot().await.unwrap().revision().await.unwrap()
}

#[tokio::test]
async fn the_bundled_catalog_is_written_once_and_can_be_published() {
    let (store, catalog) = (testing::store().await, bundled().unwrap());
    assert_eq!(seed_it(&store, &catalog).await, Seeded::Written(catalog.models.len() as u64));
    let seeded = revision(&store).await;
    assert_eq!(seed_it(&store, &catalog).await, Seeded::UpToDate { edition: catalog.generated.clone() });
    assert_eq!(revision(&store).await, seeded);
    let publisher = crate::publish::Publisher::new(crate::publish::metrics::PublishMetrics::default());
    publisher.refresh(&store).await.unwrap();
    // The models and the edition.
    assert_eq!(publisher.subscribe().borrow().set.len(), catalog.models.len() + 1);
}

#[tokio::test]
async fn a_newer_edition_writes_what_differs_and_prices_it_anew() {
    let (store, mut catalog) = (testing::store().await, bundled().unwrap());
    seed_it(&store, &catalog).await;
    let before = revision(&store).await;
    catalog.generated = "2999-01-01".into();
    let model = catalog.models.iter_mut().find(|model| model.id == "gpt-4o-mini").unwrap();
    model.offerings[0].price.input = Some(1);
    let provider = model.offerings[0].provider.clone();
    assert_eq!(seed_it(&store, &catalog).await, Seeded::Written(1));
    let build = builder::build(&store, before).await.unwrap();
    let key = nemo_snapshot::ResourceKey::model("gpt-4o-mini").unwrap();
    let Some(nemo_proto::config::resource::Kind::Model(model)) = build.delta.upserts[&key].decode().kind
    else {
        panic!()
    };
    let price =
        model.offerings.iter().find(|offering| offering.provider == provider).unwrap().price.clone().unwrap();
    assert_eq!((price.id, price.input), (format!("{provider}/gpt-4o-mini@2999-01-01"), Some(1)));
}

#[tokio::test]
async fn an_older_edition_changes_nothing() {
    let (store, mut catalog) = (testing::store().await, bundled().unwrap());
    seed_it(&store, &catalog).await;
    let before = revision(&store).await;
    catalog.generated = "2000-01-01".into();
    catalog.models[0].tags.clear();
    assert!(matches!(seed_it(&store, &catalog).await, Seeded::UpToDate { .. }));
    assert_eq!(revision(&store).await, before);
}

#[tokio::test]
async fn what_an_operator_wrote_stays() {
    let (store, catalog) = (testing::store().await, bundled().unwrap());
    let mut own = new_model(&catalog.models[0], "own");
    own.row.display_name = "Ours".into();
    let mut tx = store.system().await.unwrap();
    rows::put(&mut tx, vec![own], Source::Custom, now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(seed_it(&store, &catalog).await, Seeded::Written(catalog.models.len() as u64 - 1));
    let mut tx = store.system().await.unwrap();
    assert_eq!(rows::get(&mut tx, &catalog.models[0].id).await.unwrap().unwrap().row.display_name, "Ours");
}

#[tokio::test]
async fn replicas_that_start_together_seed_once() {
    let (store, catalog) = (testing::store().await, bundled().unwrap());
    let (one, two) = tokio::join!(seed_it(&store, &catalog), seed_it(&store, &catalog));
    let written = [one, two].iter().filter(|seeded| matches!(seeded, Seeded::Written(_))).count();
    assert_eq!(written, 1);
}

/// The other one may take long on a slow machine: longer than a request would wait for a lock.
#[tokio::test]
async fn a_replica_waits_for_the_one_that_seeds() {
    let (store, catalog) = (testing::store().await, bundled().unwrap());
    let mut other = store.owner(None).await.unwrap();
    other.serialize_config().await.unwrap();
    let slow = async {
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        other.commit().await.unwrap();
    };
    let (seeded, ()) = tokio::join!(seed_it(&store, &catalog), slow);
    assert!(matches!(seeded, Seeded::Written(_)));
}
