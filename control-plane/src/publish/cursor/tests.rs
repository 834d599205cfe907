use std::sync::Arc;

use nemo_proto::config::{Organization, resource};
use nemo_snapshot::{Delta, Resource, ResourceSet};

use super::*;

fn published(revision: u64, name_bytes: usize, count: u8) -> Arc<Published> {
    let mut delta = Delta::default();
    for id in 0..count {
        let name = "x".repeat(name_bytes);
        let it = Organization { id: vec![id; 16].into(), name, disabled: false };
        delta.upsert(Resource { kind: Some(resource::Kind::Organization(it)) }).unwrap();
    }
    let mut set = ResourceSet::default();
    set.apply(&delta);
    Arc::new(Published::new(revision, set))
}

fn full(revision: u64) -> Update {
    Update::Full { to: published(revision, 4, 1) }
}

fn delta(base_revision: u64, revision: u64) -> Update {
    Update::Delta { base_revision, delta: Delta::default(), to: published(revision, 4, 1) }
}

fn ack(nonce: u64, revision: u64, applied: bool) -> Ack {
    Ack { nonce, revision, applied, ..Ack::default() }
}

#[test]
fn one_push_is_in_flight_until_it_is_answered() {
    let mut cursor = Cursor::new(0, b"");
    let first: Vec<_> = cursor.plan(full(5)).collect();
    assert_eq!((first.len(), first[0].nonce, first[0].base_revision, first[0].revision), (1, 1, 0, 5));
    assert!(cursor.plan(full(6)).is_empty());
    assert_eq!(cursor.acknowledge(&ack(1, 5, true)), Outcome::Applied(5));
    assert_eq!(cursor.held(), (5, Some(published(5, 4, 1).checksum)));
    assert_eq!(cursor.plan(delta(5, 6)).next().unwrap().nonce, 2);
}

#[test]
fn a_refused_revision_is_neither_held_nor_sent_again() {
    let mut cursor = Cursor::new(5, &published(5, 4, 1).checksum.to_bytes());
    let push = cursor.plan(delta(5, 6)).next().unwrap();
    assert_eq!(cursor.acknowledge(&ack(push.nonce, 5, false)), Outcome::Refused(6));
    assert!(cursor.plan(full(6)).is_empty());
    assert_eq!(cursor.plan(full(7)).next().unwrap().revision, 7);
}

#[test]
fn after_a_refused_delta_the_full_set_is_sent_and_after_a_refused_full_set_a_delta() {
    let mut cursor = Cursor::new(5, &published(5, 4, 1).checksum.to_bytes());
    let push = cursor.plan(delta(5, 6)).next().unwrap();
    cursor.acknowledge(&ack(push.nonce, 5, false));
    assert_eq!(cursor.held().0, 0);
    let push = cursor.plan(full(7)).next().unwrap();
    cursor.acknowledge(&ack(push.nonce, 5, false));
    assert_eq!(cursor.held().0, 5);
    // The node says that it holds something else than what we know.
    let push = cursor.plan(full(8)).next().unwrap();
    cursor.acknowledge(&ack(push.nonce, 4, false));
    assert_eq!(cursor.held().0, 0);
}

#[test]
fn answers_to_another_nonce_change_nothing() {
    let mut cursor = Cursor::new(0, b"");
    assert_eq!(cursor.acknowledge(&ack(0, 0, true)), Outcome::Stale);
    drop(cursor.plan(full(5)));
    assert_eq!(cursor.acknowledge(&ack(7, 5, true)), Outcome::Stale);
    assert!(cursor.is_waiting_for_ack());
    assert_eq!(cursor.held().0, 0);
}

#[test]
fn large_sets_are_cut_below_the_message_limit_and_only_the_last_chunk_ends_the_push() {
    use prost::Message as _;
    let to = published(9, 100 << 10, 100);
    let pushes: Vec<_> = Cursor::new(0, b"").plan(Update::Full { to: to.clone() }).collect();
    assert!(pushes.len() >= 3, "{}", pushes.len());
    assert!(pushes.iter().all(|push| push.encoded_len() < 4 << 20));
    let (last, others) = pushes.split_last().unwrap();
    assert!(!last.more && others.iter().all(|push| push.more));
    assert!(pushes.iter().all(|push| push.nonce == 1 && push.checksum[..] == to.checksum.to_bytes()));
    assert_eq!(pushes.iter().map(|push| push.upserts.len()).sum::<usize>(), 100);
}

#[test]
fn nothing_is_sent_before_the_first_revision_exists() {
    assert!(Cursor::new(0, b"").plan(full(0)).is_empty());
}

#[test]
fn a_forgotten_node_asks_for_the_full_set() {
    let mut cursor = Cursor::new(9, b"0123456789abcdef");
    assert_eq!(cursor.held().0, 9);
    cursor.forget_held();
    assert_eq!(cursor.held(), (0, None));
}

/// A node that does not know limits of money must not serve as if there were none.
#[test]
fn a_set_with_limits_asks_for_a_schema_that_knows_them() {
    let plain = Cursor::new(0, b"").plan(full(5)).next().unwrap();
    assert_eq!(plain.min_schema_version, MIN_SCHEMA_VERSION);
    let mut delta = Delta::default();
    let id = bytes::Bytes::from(vec![1; 16]);
    let budget = nemo_proto::config::Budget { id: id.clone(), org_id: id, ..Default::default() };
    delta.upsert(Resource { kind: Some(resource::Kind::Budget(budget)) }).unwrap();
    let mut set = ResourceSet::default();
    set.apply(&delta);
    let to = Arc::new(Published::new(6, set));
    let limited = Cursor::new(0, b"").plan(Update::Full { to: to.clone() }).next().unwrap();
    let changed = Cursor::new(5, b"").plan(Update::Delta { base_revision: 5, delta, to }).next().unwrap();
    for push in [limited, changed] {
        assert_eq!(push.min_schema_version, LIMITS_SCHEMA_VERSION);
        assert!(push.min_schema_version <= nemo_proto::SCHEMA_VERSION);
    }
}
