use nemo_proto::config::{Organization, resource};
use nemo_snapshot::Resource;

use super::*;

fn organization(id: u8, name: &str) -> Resource {
    let it = Organization { id: vec![id; 16].into(), name: name.to_owned(), disabled: false };
    Resource { kind: Some(resource::Kind::Organization(it)) }
}

/// Publishes one revision per entry, starting at revision 1 with a full load; returns all of them, revision 0 first.
fn publish(history: &mut History, revisions: &[(u8, &str)]) -> Vec<Arc<Published>> {
    let mut all = vec![history.published().clone()];
    for (at, (id, name)) in revisions.iter().enumerate() {
        let mut delta = Delta::default();
        delta.upsert(organization(*id, name)).unwrap();
        let mut set = history.published().set.clone();
        set.apply(&delta);
        let next = Arc::new(Published::new(at as u64 + 1, set));
        all.push(next.clone());
        if at == 0 {
            history.restart(next);
        } else {
            history.advance(next, delta);
        }
    }
    all
}

fn names(count: usize) -> Vec<(u8, &'static str)> {
    (0..count).map(|at| (u8::try_from(at % 7).unwrap(), ["a", "b", "c"][at % 3])).collect()
}

#[test]
fn every_revision_of_the_ring_is_brought_to_the_newest_by_its_delta() {
    let mut history = History::default();
    let all = publish(&mut history, &names(30));
    for held in &all[1..30] {
        let Update::Delta { base_revision, delta, to } = history.update(held.revision, Some(held.checksum))
        else {
            panic!("revision {} got no delta", held.revision);
        };
        let mut set = held.set.clone();
        set.apply(&delta);
        assert_eq!((base_revision, set.checksum()), (held.revision, to.checksum));
        assert_eq!(to.revision, 30);
    }
}

#[test]
fn the_newest_revision_needs_nothing() {
    let mut history = History::default();
    let all = publish(&mut history, &names(3));
    assert!(matches!(history.update(3, Some(all[3].checksum)), Update::Current));
}

#[test]
fn a_node_without_revision_or_with_another_content_gets_the_full_set() {
    let mut history = History::default();
    let all = publish(&mut history, &names(5));
    for (revision, checksum) in
        [(0, None), (5, None), (5, Some(all[4].checksum)), (3, Some(all[2].checksum)), (3, None)]
    {
        assert!(matches!(history.update(revision, checksum), Update::Full { .. }), "{revision} {checksum:?}");
    }
}

#[test]
fn the_ring_is_bounded_by_steps_and_what_fell_out_gets_the_full_set() {
    let mut history = History::with_bounds(4, usize::MAX);
    let all = publish(&mut history, &names(10));
    assert_eq!(history.ring.len(), 4);
    assert!(matches!(history.update(6, Some(all[6].checksum)), Update::Delta { .. }));
    assert!(matches!(history.update(5, Some(all[5].checksum)), Update::Full { .. }));
}

#[test]
fn the_ring_is_bounded_by_bytes() {
    let mut history = History::with_bounds(1024, 200);
    publish(&mut history, &names(50));
    assert!(history.ring_bytes <= 200 && !history.ring.is_empty(), "{} bytes", history.ring_bytes);
    assert_eq!(history.ring_bytes, history.ring.iter().map(|step| step.bytes).sum::<usize>());
}

#[test]
fn a_revision_that_was_never_published_gets_the_full_set() {
    let mut history = History::default();
    let all = publish(&mut history, &names(2));
    // Revisions 3 and 4 were coalesced into 5.
    let next = Arc::new(Published::new(5, all[2].set.clone()));
    history.advance(next, Delta::default());
    assert!(matches!(history.update(4, Some(all[2].checksum)), Update::Full { .. }));
}

#[test]
fn a_node_ahead_of_this_replica_is_recognised() {
    let mut history = History::default();
    let all = publish(&mut history, &names(2));
    assert!(matches!(history.update(3, Some(all[2].checksum)), Update::Ahead));
}

#[test]
fn a_restart_forgets_the_deltas() {
    let mut history = History::default();
    let all = publish(&mut history, &names(5));
    history.restart(all[3].clone());
    assert!(matches!(history.update(2, Some(all[2].checksum)), Update::Full { .. }));
    assert!(matches!(history.update(5, Some(all[5].checksum)), Update::Ahead));
}
