use futures_util::FutureExt as _;
use nemo_proto::config::{Organization, Team, resource};
use nemo_snapshot::{Resource, ResourceKey};

use super::*;

fn organization(id: u8) -> Resource {
    let it = Organization { id: vec![id; 16].into(), name: "org".into(), disabled: false };
    Resource { kind: Some(resource::Kind::Organization(it)) }
}

/// Of an organization that does not exist.
fn orphan_team() -> Resource {
    let it = Team { id: vec![9; 16].into(), org_id: vec![8; 16].into(), name: "t".into(), disabled: false };
    Resource { kind: Some(resource::Kind::Team(it)) }
}

fn build(base_revision: u64, revision: u64, upserts: &[Resource], removals: &[Resource]) -> Build {
    let mut delta = Delta::default();
    upserts.iter().for_each(|resource| delta.upsert(resource.clone()).unwrap());
    removals.iter().for_each(|resource| delta.remove(ResourceKey::of(resource).unwrap()));
    Build { revision, base_revision, delta }
}

fn publisher() -> (Publisher, PublishMetrics) {
    let metrics = PublishMetrics::default();
    (Publisher::new(metrics.clone()), metrics)
}

#[tokio::test]
async fn subscribers_see_each_published_revision() {
    let (publisher, _) = publisher();
    let mut published = publisher.subscribe();
    assert_eq!(published.borrow_and_update().revision, 0);
    publisher.publish(build(0, 4, &[organization(1)], &[])).await.unwrap();
    assert!(published.has_changed().unwrap());
    let published = published.borrow_and_update();
    assert_eq!((published.revision, published.set.len()), (4, 1));
}

#[tokio::test]
async fn i5_a_revision_that_does_not_compile_is_not_published() {
    let (publisher, metrics) = publisher();
    publisher.publish(build(0, 1, &[organization(1)], &[])).await.unwrap();
    let error = publisher.publish(build(1, 2, &[orphan_team()], &[])).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Unpublishable { revision: 2, rejections } if !rejections.is_empty())
    );
    assert!(error.to_string().contains("team"), "{error}");
    assert_eq!(publisher.subscribe().borrow().revision, 1);
    assert!(metrics.is_unpublishable());
    let held_back = publisher.unpublishable().borrow().clone().unwrap();
    assert_eq!([1, 2, 3].map(|revision| held_back.holds_back(revision)), [false, true, false]);
    assert!(held_back.reason.contains("team"), "{held_back:?}");

    // The next change builds on what is published, so it brings the refused rows along.
    publisher.publish(build(1, 3, &[organization(8), orphan_team()], &[])).await.unwrap();
    assert_eq!((publisher.subscribe().borrow().revision, publisher.subscribe().borrow().set.len()), (3, 3));
    assert!(!metrics.is_unpublishable() && publisher.unpublishable().borrow().is_none());
    let held = Some(publisher.subscribe().borrow().checksum);
    assert!(matches!(publisher.update(3, held), Update::Current));
}

#[tokio::test]
async fn what_is_published_by_deltas_equals_what_is_published_whole() {
    let (stepwise, _) = publisher();
    stepwise.publish(build(0, 1, &[organization(1), organization(2)], &[])).await.unwrap();
    stepwise.publish(build(1, 2, &[organization(3)], &[organization(1)])).await.unwrap();
    let (whole, _) = publisher();
    whole.publish(build(0, 2, &[organization(3), organization(2)], &[])).await.unwrap();
    assert_eq!(stepwise.subscribe().borrow().checksum, whole.subscribe().borrow().checksum);
}

#[tokio::test]
async fn a_full_load_replaces_what_was_published_and_forgets_the_deltas() {
    let (publisher, _) = publisher();
    publisher.publish(build(0, 5, &[organization(1)], &[])).await.unwrap();
    let held = publisher.subscribe().borrow().checksum;
    publisher.publish(build(5, 6, &[organization(2)], &[])).await.unwrap();
    publisher.publish(build(0, 3, &[organization(3)], &[])).await.unwrap();
    assert_eq!(publisher.subscribe().borrow().set.len(), 1);
    assert!(matches!(publisher.update(5, Some(held)), Update::Ahead));
}

#[tokio::test]
async fn a_wait_to_catch_up_lasts_until_a_read_that_began_later() {
    let (publisher, _) = publisher();
    let wait = publisher.caught_up();
    tokio::pin!(wait);
    assert!((&mut wait).now_or_never().is_none());
    publisher.served.send_replace(0);
    assert!((&mut wait).now_or_never().is_none());
    publisher.served.send_replace(publisher.wanted.load(Ordering::Acquire));
    assert!((&mut wait).now_or_never().is_some());
}
