//! What every coordinator promises, run against each of them: the one in this process, and a real etcd.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nemo_runtime::{TaskGroup, drain, tls::Identity};
use nemo_tests::etcd::Etcd;
use nemo_types::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::time::{Instant, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

async fn put(it: &dyn Coordinator, key: &str, value: &'static str, expect: Expect) -> Put {
    it.put(key, Bytes::from_static(value.as_bytes()), None, expect).await.unwrap()
}

fn revision(put: &Put) -> u64 {
    match put {
        Put::Done { revision } => *revision,
        Put::Conflict(found) => panic!("not written: {found:?}"),
    }
}

async fn events(watch: &mut Box<dyn Watch>, count: usize) -> Vec<Event> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(timeout(PATIENCE, watch.next()).await.expect("an event").unwrap());
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

async fn values(it: &dyn Coordinator, prefix: &str) -> Vec<(String, String)> {
    let text = |value: &Bytes| String::from_utf8(value.to_vec()).unwrap();
    let listing = it.list(prefix).await.unwrap();
    listing.entries.iter().map(|entry| (entry.key.clone(), text(&entry.value))).collect()
}

/// Only what is expected is overwritten or deleted, and a conflict shows what is there.
async fn compare_and_swap(it: &dyn Coordinator) {
    let first = revision(&put(it, "/cas/a", "1", Expect::Absent).await);
    let Put::Conflict(Some(found)) = put(it, "/cas/a", "2", Expect::Absent).await else {
        panic!("written twice");
    };
    assert_eq!((found.revision, &*found.value, found.ttl_left), (first, &b"1"[..], None));
    let second = revision(&put(it, "/cas/a", "2", Expect::Revision(first)).await);
    assert!(second > first);
    assert!(matches!(put(it, "/cas/a", "3", Expect::Revision(first)).await, Put::Conflict(Some(_))));
    assert_eq!(put(it, "/cas/b", "3", Expect::Revision(first)).await, Put::Conflict(None));
    assert!(!it.delete("/cas/a", Expect::Revision(first)).await.unwrap());
    assert!(!it.delete("/cas/b", Expect::Anything).await.unwrap());
    assert_eq!(values(it, "/cas/").await, [("/cas/a".to_owned(), "2".to_owned())]);
    revision(&put(it, "/cas/a", "4", Expect::Anything).await);
    assert!(it.delete("/cas/a", Expect::Anything).await.unwrap());
    assert!(values(it, "/cas/").await.is_empty());
}

/// A listing and the events after its revision are everything, in order and once.
async fn watch_follows_a_listing(it: &dyn Coordinator) {
    revision(&put(it, "/watch/a", "1", Expect::Anything).await);
    let listing = it.list("/watch/").await.unwrap();
    assert_eq!(listing.entries.len(), 1);
    let second = revision(&put(it, "/watch/a", "2", Expect::Anything).await);
    revision(&put(it, "/elsewhere", "x", Expect::Anything).await);
    let mut watch = it.watch("/watch/", listing.revision).await.unwrap();
    let third = revision(&put(it, "/watch/b", "3", Expect::Anything).await);
    it.delete("/watch/a", Expect::Anything).await.unwrap();
    let seen = events(&mut watch, 3).await;
    let put = |key: &str, value: &'static str, revision| {
        Event::Put(Entry { key: key.into(), value: value.into(), revision, ttl_left: None })
    };
    assert_eq!(seen[..2], [put("/watch/a", "2", second), put("/watch/b", "3", third)]);
    assert!(matches!(&seen[2], Event::Deleted { key, revision } if key == "/watch/a" && *revision > third));
    assert!(timeout(Duration::from_millis(200), watch.next()).await.is_err(), "nothing else happened");
    let many: Vec<_> = (0..200).map(|at| format!("/watch/many/{at}")).collect();
    for key in &many {
        revision(&it.put(key, Bytes::new(), None, Expect::Absent).await.unwrap());
    }
    let seen = events(&mut watch, many.len()).await;
    let keys: Vec<_> = seen
        .iter()
        .map(|event| match event {
            Event::Put(entry) => entry.key.clone(),
            Event::Deleted { .. } => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(keys, many);
}

/// What has a time to live goes by itself, and whoever watches is told. Writing it again makes it live longer.
async fn time_to_live(it: &dyn Coordinator) {
    let mut watch = it.watch("/ttl/", it.list("/ttl/").await.unwrap().revision).await.unwrap();
    // Other calls come between, and etcd may stand still.
    let ttl = Duration::from_secs(5);
    let started = Instant::now();
    for key in ["/ttl/a", "/ttl/b"] {
        revision(&it.put(key, Bytes::from_static(b"1"), Some(ttl), Expect::Absent).await.unwrap());
    }
    let long = Some(Duration::from_secs(600));
    revision(&it.put("/ttl/b", Bytes::from_static(b"2"), long, Expect::Anything).await.unwrap());
    let listing = it.list("/ttl/").await.unwrap();
    let left = |at: usize| listing.entries[at].ttl_left.unwrap();
    assert!(left(0) <= ttl && left(1) > Duration::from_secs(590), "{listing:?}");
    let seen = events(&mut watch, 4).await;
    assert!(matches!(&seen[3], Event::Deleted { key, .. } if key == "/ttl/a"), "{seen:?}");
    assert!(started.elapsed() >= ttl, "not before its time");
    assert_eq!(values(it, "/ttl/").await, [("/ttl/b".to_owned(), "2".to_owned())]);
}

/// One holds, others are told that somebody does; who lets go makes room at once.
async fn holding(it: &dyn Coordinator) {
    let ttl = Duration::from_secs(3);
    let value = || Bytes::from_static(b"me");
    let hold = it.hold("/hold/a", value(), ttl).await.unwrap().expect("nobody has it");
    assert!(it.hold("/hold/a", value(), ttl).await.unwrap().is_none());
    tokio::time::sleep(ttl + Duration::from_secs(1)).await;
    assert!(!hold.is_lost());
    assert_eq!(values(it, "/hold/").await.len(), 1, "kept alive");
    let mut watch = it.watch("/hold/", it.list("/hold/").await.unwrap().revision).await.unwrap();
    drop(hold);
    assert!(matches!(events(&mut watch, 1).await[..], [Event::Deleted { .. }]));
    assert!(it.hold("/hold/a", value(), ttl).await.unwrap().is_some());
}

/// At most one leads, and when it is gone another does.
async fn campaigning(it: Arc<dyn Coordinator>) {
    let first = it.campaign("job", "one").await.unwrap();
    let other = it.clone();
    let mut second = std::pin::pin!(async move { other.campaign("job", "two").await.unwrap() });
    let early = timeout(Duration::from_millis(500), &mut second).await;
    assert!(early.is_err(), "two leaders");
    assert_eq!(values(&*it, &leader_key("job")).await[0].1, "one");
    drop(first);
    let _second = timeout(PATIENCE, second).await.expect("another leader");
    assert_eq!(values(&*it, &leader_key("job")).await[0].1, "two");
    let _other_job = timeout(PATIENCE, it.campaign("jobs", "one")).await.expect("another job").unwrap();
}

/// A job's election, from the outside.
async fn election(it: Arc<dyn Coordinator>, tasks: &TaskGroup) {
    let stand = |name: &str| {
        let (trigger, watcher) = drain::channel();
        (Election::stand(it.clone(), ("elected", name.to_owned()), tasks, watcher), trigger)
    };
    let (mut first, stop) = stand("one");
    timeout(PATIENCE, first.mine()).await.expect("a leader");
    let (mut second, _stop_second) = stand("two");
    assert!(timeout(Duration::from_millis(500), second.mine()).await.is_err());
    assert_eq!((first.role(), second.role()), (Role::Leader, Role::Follower));
    stop.start();
    timeout(PATIENCE, second.mine()).await.expect("the other follows");
    assert_eq!(second.role(), Role::Leader);
}

async fn contract(it: Arc<dyn Coordinator>, tasks: &TaskGroup) {
    compare_and_swap(&*it).await;
    watch_follows_a_listing(&*it).await;
    time_to_live(&*it).await;
    holding(&*it).await;
    campaigning(it.clone()).await;
    election(it, tasks).await;
}

#[tokio::test]
async fn the_coordinator_in_this_process_keeps_the_contract() {
    contract(Arc::new(LocalCoordinator::default()), &TaskGroup::new()).await;
}

fn connect(etcd: &Etcd, tasks: &TaskGroup) -> EtcdCoordinator {
    let settings = EtcdSettings { endpoints: vec![etcd.endpoint()], ..EtcdSettings::default() };
    EtcdCoordinator::new(&settings, tasks.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_the_contract() {
    let (etcd, tasks) = (Etcd::start().await.unwrap(), TaskGroup::new());
    contract(Arc::new(connect(&etcd, &tasks)), &tasks).await;
}

/// Events that are forgotten are not left out: the watch says so.
#[tokio::test]
async fn a_gap_in_the_events_is_told() {
    let it = LocalCoordinator::default();
    for _ in 0..5_000 {
        revision(&put(&it, "/a", "1", Expect::Anything).await);
    }
    let mut watch = it.watch("/", 1).await.unwrap();
    assert_eq!(watch.next().await, Err(Ended::Compacted));

    let (etcd, tasks) = (Etcd::start().await.unwrap(), TaskGroup::new());
    let it = connect(&etcd, &tasks);
    let mut last = 0;
    for _ in 0..5 {
        last = revision(&put(&it, "/a", "1", Expect::Anything).await);
    }
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    client.compact(i64::try_from(last).unwrap(), None).await.unwrap();
    let mut watch = it.watch("/", 1).await.unwrap();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), Err(Ended::Compacted));
}

/// Without etcd every call ends with an error, soon; with it again they work, and what was held is lost and free.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_may_go_and_come_back() {
    let (mut etcd, tasks) = (Etcd::start().await.unwrap(), TaskGroup::new());
    let it = connect(&etcd, &tasks);
    revision(&put(&it, "/a", "1", Expect::Anything).await);
    let mut watch = it.watch("/", 0).await.unwrap();
    events(&mut watch, 1).await;
    let mut hold = it.hold("/held", Bytes::new(), Duration::from_secs(3)).await.unwrap().unwrap();
    events(&mut watch, 1).await;
    etcd.kill().await.unwrap();
    let ended = timeout(PATIENCE, watch.next()).await.expect("the watch ends");
    assert!(matches!(ended, Err(Ended::Unavailable(_))), "{ended:?}");
    let started = Instant::now();
    assert!(it.list("/").await.is_err());
    assert!(started.elapsed() < Duration::from_secs(5));
    timeout(PATIENCE, hold.lost()).await.expect("the hold is lost");
    etcd.restart().await.unwrap();
    let again = async {
        while it.list("/a").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("it is found again");
    assert_eq!(values(&it, "/a").await, [("/a".to_owned(), "1".to_owned())]);
    // A frozen one does not hold up anybody either.
    let mut watch = it.watch("/", it.list("/").await.unwrap().revision).await.unwrap();
    etcd.freeze().unwrap();
    let started = Instant::now();
    assert!(it.list("/").await.is_err());
    let ended = timeout(PATIENCE, watch.next()).await.expect("the watch ends");
    assert!(ended.is_err() && started.elapsed() < Duration::from_secs(15), "{ended:?}");
    etcd.thaw().unwrap();
}

/// An etcd with TLS, client certificates and passwords: with everything right it works, with anything wrong it does not.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_may_ask_for_certificates_and_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let ca = authority();
    std::fs::write(file("ca.pem"), ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    std::fs::write(file("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
    let tls = nemo_tests::etcd::Tls { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem") };
    let (etcd, tasks) = (Etcd::start_with(tls).await.unwrap(), TaskGroup::new());
    let good = EtcdSettings {
        endpoints: vec![etcd.endpoint()],
        user: None,
        ca: Some(file("ca.pem")),
        identity: Identity { cert: file("cert.pem"), key: file("key.pem") },
    };
    let reached = async |settings: &EtcdSettings| {
        let it = EtcdCoordinator::new(settings, tasks.clone()).unwrap();
        it.put("/a", Bytes::new(), None, Expect::Anything).await
    };
    reached(&good).await.unwrap();
    assert!(reached(&EtcdSettings { identity: Identity::default(), ..good.clone() }).await.is_err());
    std::fs::write(file("other.pem"), authority().pem()).unwrap();
    assert!(reached(&EtcdSettings { ca: Some(file("other.pem")), ..good.clone() }).await.is_err());
    let missing = EtcdSettings { ca: Some(file("missing.pem")), ..good.clone() };
    let error = format!("{:#}", EtcdCoordinator::new(&missing, tasks.clone()).unwrap_err());
    assert!(error.contains("missing.pem"), "{error}");

    // With passwords from here on.
    let it = EtcdCoordinator::new(&good, tasks.clone()).unwrap();
    let mut client = it.client().await.unwrap();
    client.user_add("root", "right", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    let with = |password: &str| EtcdSettings {
        user: Some(("root".to_owned(), Secret::new(password))),
        ..good.clone()
    };
    assert!(reached(&good).await.is_err(), "no password");
    assert!(reached(&with("wrong")).await.is_err());
    reached(&with("right")).await.unwrap();
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// etcd hangs up on clients that ping too often (by default more than every five seconds, the third time).
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_watch_is_not_hung_up_on() {
    let (etcd, tasks) = (Etcd::start().await.unwrap(), TaskGroup::new());
    let it = connect(&etcd, &tasks);
    let mut watch = it.watch("/", 0).await.unwrap();
    let ended = timeout(Duration::from_secs(15), watch.next()).await;
    assert!(ended.is_err(), "{ended:?}");
}
