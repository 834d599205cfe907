//! Covers C 21, C 22: limits are divided, and parts of all nodes never add up to more than the limit.

use nemo_proto::config::{RateLimit, Resource};
use nemo_snapshot::{Delta, ResourceSet};

use super::*;

fn world(id: RateLimitId) -> Rates {
    let limit = RateLimit {
        id: Bytes::copy_from_slice(id.as_bytes()),
        requests_per_minute: Some(1000),
        tokens_per_minute: Some(100_000),
        concurrent: Some(10),
        ..RateLimit::default()
    };
    let resource = Resource { kind: Some(resource::Kind::RateLimit(limit)) };
    let (mut set, mut delta) = (ResourceSet::new(), Delta::default());
    delta.upsert(resource).unwrap();
    set.apply(&delta);
    Rates::new(watch::channel(Arc::new(Published::new(1, set))).1)
}

fn demand(id: RateLimitId, per_minute: u64, concurrent: u32) -> RateReport {
    RateReport {
        limit_id: Bytes::copy_from_slice(id.as_bytes()),
        requests_per_minute: per_minute,
        tokens_per_minute: per_minute * 100,
        concurrent,
        refused: 0,
    }
}

#[test]
fn demand_is_divided_and_told_when_it_changes() {
    let id = RateLimitId::generate();
    let rates = world(id);
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let first = rates.report(&a, &[demand(id, 100, 1)], 2, true);
    assert_eq!(first.len(), 1);
    assert!(rates.report(&a, &[demand(id, 100, 1)], 2, false).is_empty(), "nothing new");
    let busy = rates.report(&b, &[demand(id, 5000, 20)], 2, true);
    let quiet = rates.report(&a, &[demand(id, 100, 1)], 2, false);
    let sum = |of: fn(&RateAssignment) -> u32| of(&busy[0]) + of(&quiet[0]);
    assert_eq!(sum(|it| it.requests_ppm), 1_000_000);
    assert_eq!(sum(|it| it.tokens_ppm), 1_000_000);
    assert_eq!(sum(|it| it.concurrent), 10);
    assert!(busy[0].requests_ppm > 800_000, "{busy:?}");
    assert_eq!(rates.report(&a, &[demand(id, 100, 1)], 2, true).len(), 1, "a new stream may have missed it");
    assert!(rates.report(&a, &[demand(RateLimitId::generate(), 1, 1)], 2, true).is_empty(), "no such limit");
}

#[test]
fn replicas_divide_by_the_same_demands() {
    let id = RateLimitId::generate();
    let (here, there) = (world(id), world(id));
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    here.report(&a, &[demand(id, 400, 5)], 2, true);
    there.report(&b, &[demand(id, 2000, 5)], 2, true);
    let (from_here, from_there) = (here.take_changed(false), there.take_changed(false));
    assert_eq!((from_here.len(), from_there.len()), (1, 1));
    assert!(here.take_changed(false).is_empty() && here.take_changed(true).len() == 1);
    there.heard(from_here.clone());
    here.heard([from_there, from_here].concat());
    let a_part = here.report(&a, &[demand(id, 400, 5)], 2, true);
    let b_part = there.report(&b, &[demand(id, 2000, 5)], 2, true);
    assert_eq!(a_part[0].requests_ppm + b_part[0].requests_ppm, 1_000_000);
    assert_eq!(a_part[0].requests_ppm, 400_000);
    there.sweep_at(Instant::now() + LASTS + Duration::from_secs(1));
    let alone = there.report(&b, &[demand(id, 2000, 5)], 1, true);
    assert_eq!(alone[0].requests_ppm, 1_000_000, "what is not repeated is forgotten");
}
