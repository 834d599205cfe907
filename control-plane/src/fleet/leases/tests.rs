//! Over a real database; nodes are leases written by hand.

use super::*;
use crate::store::{
    fleet_nodes::{NodeLease, lease},
    testing,
};

/// With everything published.
async fn applied(store: &Store, config_version: u64, patience: Duration) -> Result<Applied, NotApplied> {
    applied_everywhere(store, &watch::channel(None).1, config_version, patience).await
}

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn the_fleet_has_applied_a_version_when_every_live_node_has() {
    let store = testing::store().await;
    let store = &store.store;
    assert_eq!(applied(store, 5, SOON).await.unwrap(), Applied { config_version: 5, nodes: 0 });
    fleet_nodes::renew(store, &[lease("a", 5), lease("b", 4)]).await.unwrap();
    let error = applied(store, 5, SOON).await.unwrap_err();
    assert!(matches!(&error, NotApplied::StillWaiting { nodes } if *nodes == ["b"]), "{error}");
    let later = async {
        tokio::time::sleep(SOON).await;
        fleet_nodes::renew(store, &[lease("b", 6)]).await.unwrap();
    };
    let (everywhere, ()) = tokio::join!(applied(store, 5, Duration::from_secs(30)), later);
    assert_eq!(everywhere.unwrap().nodes, 2);
}

#[tokio::test]
async fn a_dead_node_is_fenced_when_its_lease_runs_out() {
    let store = testing::store().await;
    let store = &store.store;
    fleet_nodes::renew(store, &[lease("dead", 1), lease("a", 9)]).await.unwrap();
    let error = applied(store, 9, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("node dead"), "{error}");
    fleet_nodes::renew(store, &[NodeLease { remaining_ms: 100, ..lease("dead", 1) }]).await.unwrap();
    let reached = applied(store, 9, Duration::from_secs(30)).await.unwrap();
    assert_eq!(reached.nodes, 1);
}

#[tokio::test]
async fn a_refusal_ends_the_wait_at_once_with_its_reason() {
    let store = testing::store().await;
    let store = &store.store;
    let refusing = NodeLease { refused_revision: 9, refusal: "revision 9: no key".into(), ..lease("b", 8) };
    fleet_nodes::renew(store, &[lease("a", 9), refusing]).await.unwrap();
    let error = applied(store, 9, Duration::from_secs(600)).await.unwrap_err();
    assert_eq!(error.to_string(), "refused by node b: revision 9: no key");
    // What it refused was an earlier one: it may still take this.
    assert!(matches!(applied(store, 10, SOON).await, Err(NotApplied::StillWaiting { .. })));
}

#[tokio::test]
async fn a_former_subscription_changes_nothing_any_more() {
    let store = testing::store().await;
    let store = &store.store;
    fleet_nodes::renew(store, &[NodeLease { epoch: 2, session: 3, ..lease("a", 9) }]).await.unwrap();
    for (epoch, session) in [(1, 99), (2, 2)] {
        fleet_nodes::renew(store, &[NodeLease { epoch, session, ..lease("a", 1) }]).await.unwrap();
        fleet_nodes::leave(store, "a", epoch, session).await.unwrap();
        assert_eq!(fleet_nodes::live(store).await.unwrap()[0].revision, 9);
    }
    fleet_nodes::leave(store, "a", 2, 3).await.unwrap();
    assert!(fleet_nodes::live(store).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_version_that_cannot_be_published_ends_the_wait_at_once_with_the_reason() {
    let store = testing::store().await;
    let store = &store.store;
    fleet_nodes::renew(store, &[lease("a", 5)]).await.unwrap();
    let (sender, unpublishable) = watch::channel(None);
    let held_back =
        Unpublishable { published: 5, revision: 7, reason: "deployment x: base_url: not a URL".into() };
    let patience = Duration::from_secs(600);
    let later = async {
        tokio::time::sleep(SOON).await;
        sender.send_replace(Some(held_back));
    };
    let (waited, ()) = tokio::join!(applied_everywhere(store, &unpublishable, 6, patience), later);
    assert_eq!(
        waited.unwrap_err().to_string(),
        "revision 7 can't be served: deployment x: base_url: not a URL"
    );
    // A later write may mend it.
    assert!(matches!(
        applied_everywhere(store, &unpublishable, 8, SOON).await,
        Err(NotApplied::StillWaiting { .. })
    ));
}
