use nemo_proto::config::{Kind, ResourceName};

use super::*;

fn registry(published: u64) -> (watch::Sender<Arc<Published>>, Registry) {
    let (sender, receiver) =
        watch::channel(Arc::new(Published { revision: published, ..Published::default() }));
    (sender, Registry::new(receiver))
}

fn info(node_id: &str, epoch: u64) -> NodeInfo {
    NodeInfo { node_id: node_id.to_owned(), epoch, version: "0.1.0".to_owned(), ..NodeInfo::default() }
}

#[test]
fn acknowledgements_move_the_revision_and_the_lag() {
    let (sender, registry) = registry(7);
    let connection = registry.connect(&info("a", 1), 5).unwrap();
    assert_eq!((registry.nodes()[0].revision, registry.nodes()[0].lag), (5, 2));
    connection.applied(7, 1234);
    let node = registry.nodes().remove(0);
    assert_eq!((node.revision, node.lag, node.apply_micros, node.connected), (7, 0, 1234, true));
    sender.send_modify(|published| *published = Arc::new(Published { revision: 9, ..Published::default() }));
    assert_eq!(registry.summary(), Summary { connected: 1, refusing: 0, max_lag: 2, usage_dropped: 0 });
}

#[test]
fn a_refusal_is_kept_until_a_push_is_applied() {
    let (_sender, registry) = registry(7);
    let connection = registry.connect(&info("a", 1), 5).unwrap();
    let name = ResourceName { kind: Kind::Model.into(), id: "gpt-5.2".into() };
    let rejection = Rejection { resource: Some(name), field: "tags".into(), message: "too many".into() };
    connection.refused(6, &[rejection]);
    let node = registry.nodes().remove(0);
    assert_eq!(node.last_rejection, "revision 6: model gpt-5.2: tags: too many");
    assert_eq!((node.revision, registry.summary().refusing), (5, 1));
    connection.applied(7, 1);
    assert_eq!(registry.nodes()[0].last_rejection, "");
}

#[test]
fn long_refusals_are_cut() {
    let rejection = Rejection { message: "é".repeat(1000), ..Rejection::default() };
    let text = describe_rejections(1, &vec![rejection; 20]);
    assert!(text.len() <= MAX_REJECTION_TEXT + '…'.len_utf8(), "{}", text.len());
    let rejection = Rejection { message: "no".into(), ..Rejection::default() };
    assert!(describe_rejections(1, &vec![rejection; 20]).ends_with("and 12 more"));
}

#[test]
fn a_node_is_gone_when_its_last_connection_is_dropped() {
    let (_sender, registry) = registry(1);
    let former = registry.connect(&info("a", 1), 0).unwrap();
    let current = registry.connect(&info("a", 1), 0).unwrap();
    // The former stream of a node that has reconnected says nothing about it any more.
    former.applied(99, 1);
    drop(former);
    assert_eq!((registry.nodes()[0].connected, registry.nodes()[0].revision), (true, 0));
    drop(current);
    assert!(!registry.nodes()[0].connected);
    assert_eq!(registry.summary(), Summary::default());
}

#[test]
fn dropped_events_count_for_the_process_that_dropped_them() {
    let (_sender, registry) = registry(1);
    let _connection = registry.connect(&info("a", 2), 0).unwrap();
    registry.usage_dropped("a", 1, 50);
    registry.usage_dropped("unknown", 1, 50);
    assert_eq!(registry.nodes()[0].usage_dropped_total, 0);
    registry.usage_dropped("a", 2, 3);
    assert_eq!((registry.nodes()[0].usage_dropped_total, registry.summary().usage_dropped), (3, 3));
    let _restarted = registry.connect(&info("a", 3), 0).unwrap();
    assert_eq!(registry.nodes()[0].usage_dropped_total, 0);
}

#[test]
fn nodes_are_bounded_and_the_longest_gone_makes_room() {
    let (_sender, mut registry) = registry(1);
    registry.max_nodes = 3;
    drop(registry.connect(&info("gone-first", 1), 0).unwrap());
    drop(registry.connect(&info("gone-second", 1), 0).unwrap());
    let _one = registry.connect(&info("one", 1), 0).unwrap();
    let _two = registry.connect(&info("two", 1), 0).unwrap();
    let ids: Vec<_> = registry.nodes().into_iter().map(|node| node.node_id).collect();
    assert_eq!(ids, ["gone-second", "one", "two"]);
    let _three = registry.connect(&info("three", 1), 0).unwrap();
    assert_eq!(registry.connect(&info("four", 1), 0).err(), Some(Refused::Full));
    // A known node may always come back.
    assert!(registry.connect(&info("three", 1), 0).is_ok());
}

#[test]
fn nodes_long_gone_are_forgotten() {
    let now = now();
    let (_sender, registry) = registry(1);
    drop(registry.connect(&info("old", 1), 0).unwrap());
    registry.lock().nodes.get_mut("old").unwrap().last_seen_at = now - FORGET_AFTER - Duration::SECOND;
    let _new = registry.connect(&info("new", 1), 0).unwrap();
    assert_eq!(registry.nodes().len(), 1);
}

#[test]
fn malformed_node_ids_are_refused() {
    let (_sender, registry) = registry(1);
    for id in ["", "has space", "line\nbreak", &"x".repeat(129)] {
        assert_eq!(registry.connect(&info(id, 1), 0).err(), Some(Refused::MalformedNodeId), "{id:?}");
    }
}

#[test]
fn a_node_has_a_lease_while_it_is_heard_of() {
    let seconds = std::time::Duration::from_secs;
    let (_sender, registry) = registry(7);
    let silent = registry.connect_session(&info("old", 1), 5, 1).unwrap();
    let connection = registry.connect_session(&info("a", 3), 6, 2).unwrap();
    connection.heard();
    connection.refused(7, &[]);
    let later = |by| {
        let mut leases = registry.leases(seconds(10), Instant::now() + seconds(by));
        leases.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        leases
    };
    let leases = later(4);
    let expected = NodeLease {
        node_id: "a".into(),
        epoch: 3,
        session: 2,
        revision: 6,
        refused_revision: 7,
        refusal: "revision 7".into(),
        remaining_ms: leases[0].remaining_ms,
        silent_ms: leases[0].silent_ms,
        version: "0.1.0".into(),
        zone: String::new(),
        connected_at: leases[0].connected_at,
        apply_micros: 0,
        usage_dropped_total: 0,
    };
    assert_eq!(leases[0], expected);
    assert!((5000..=6000).contains(&leases[0].remaining_ms), "{leases:?}");
    assert_eq!(
        leases[1].remaining_ms, 10_000,
        "a release without heartbeats lives as long as its connection"
    );
    assert_eq!(later(11).len(), 1, "silent for longer than its lease");
    connection.applied(7, 1);
    let back = &later(0)[0];
    assert_eq!((back.node_id.as_str(), back.revision, back.refused_revision), ("a", 7, 0));
    drop(silent);
    assert_eq!(later(0).len(), 1, "a node that is gone keeps what was written, and no more");
}

#[test]
fn a_node_that_says_goodbye_is_not_waited_for() {
    let (_sender, registry) = registry(7);
    let former = registry.connect_session(&info("a", 1), 5, 1).unwrap();
    let connection = registry.connect_session(&info("a", 1), 5, 2).unwrap();
    former.left();
    assert!(registry.take_left().is_empty(), "of its former stream");
    connection.left();
    assert_eq!(registry.take_left(), [("a".to_owned(), 1, 2)]);
    assert!(
        registry.leases(std::time::Duration::from_secs(10), Instant::now()).is_empty()
            && registry.take_left().is_empty()
    );
}

/// Each replica knows its own nodes best, and a node that went to another one from what that wrote.
#[test]
fn the_fleet_is_listed_as_whoever_knows_each_node_best_has_it() {
    let (_sender, registry) = registry(9);
    let row = |node_id: &str, session: i64, live: bool| FleetNode {
        node_id: node_id.into(),
        epoch: 1,
        session,
        revision: 5,
        refusal: String::new(),
        live,
        version: "0.2.0".into(),
        zone: "there".into(),
        connected_at: OffsetDateTime::UNIX_EPOCH,
        seen_at: OffsetDateTime::UNIX_EPOCH,
        apply_micros: 7,
        usage_dropped_total: 0,
    };
    let own = registry.connect_session(&info("own", 1), 9, 2).unwrap();
    let moved = registry.connect_session(&info("moved", 1), 9, 1).unwrap();
    let gone = registry.connect_session(&info("gone", 1), 9, 3).unwrap();
    drop((moved, gone));
    let rows = vec![
        row("gone", 3, true),
        row("moved", 2, true),
        row("own", 1, true),
        row("theirs", 1, true),
        row("theirs, gone", 1, false),
    ];
    let listed = registry.fleet(rows);
    let shown: Vec<_> = listed
        .iter()
        .map(|node| (node.node_id.as_str(), node.connected, node.lag, node.zone.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("gone", false, 0, ""),
            ("moved", true, 4, "there"),
            ("own", true, 0, ""),
            ("theirs", true, 4, "there"),
            ("theirs, gone", false, 4, "there"),
        ]
    );
    drop(own);
}
