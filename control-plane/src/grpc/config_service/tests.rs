//! The protocol over a real tonic transport in memory; the publisher is fed by hand instead of from a database.

use std::future::Future;

use nemo_proto::{
    common::NodeInfo,
    config::{
        Organization, config_service_client::ConfigServiceClient, config_service_server::ConfigServiceServer,
        resource,
    },
};
use nemo_runtime::{TaskGroup, drain, grpc, inproc};
use nemo_snapshot::{Checksum, Delta, Resource, ResourceKey, ResourceSet};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::publish::{builder::Build, metrics::PublishMetrics};

fn delta(ids: &[u8], name: &str) -> Delta {
    let mut delta = Delta::default();
    for id in ids {
        let it = Organization { id: vec![*id; 16].into(), name: name.to_owned(), disabled: false };
        delta.upsert(Resource { kind: Some(resource::Kind::Organization(it)) }).unwrap();
    }
    delta
}

struct Fixture {
    publisher: Arc<Publisher>,
    revocations: Revocations,
    registry: Registry,
    client: ConfigServiceClient<tonic::transport::Channel>,
    trigger: drain::DrainTrigger,
    _tasks: TaskGroup,
}

impl Fixture {
    fn start() -> Self {
        let publisher = Arc::new(Publisher::new(PublishMetrics::default()));
        let registry = Registry::new(publisher.subscribe());
        let (trigger, drain) = drain::channel();
        let revocations = Revocations::default();
        let service =
            ConfigService::new(publisher.clone(), revocations.clone(), registry.clone(), drain.clone());
        let (connector, incoming) = inproc::channel();
        let tasks = TaskGroup::new();
        tasks.spawn("server", async move {
            let server = grpc::server().add_service(ConfigServiceServer::new(service));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let client = ConfigServiceClient::new(grpc::in_process_channel(connector));
        Self { publisher, revocations, registry, client, trigger, _tasks: tasks }
    }

    async fn publish(&self, base_revision: u64, revision: u64, delta: Delta) {
        self.publisher.publish(Build { revision, base_revision, delta }).await.unwrap();
    }

    async fn subscribe(&self, held_revision: u64, held_checksum: Vec<u8>) -> Node {
        let (requests, stream) = mpsc::channel(4);
        let info = NodeInfo { node_id: "node-1".into(), epoch: 1, ..NodeInfo::default() };
        let hello =
            Hello { info: Some(info), held_revision, held_checksum: held_checksum.into(), session: 1 };
        requests.send(SubscribeRequest { message: Some(Message::Hello(hello)) }).await.unwrap();
        let pushes = self.client.clone().subscribe(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Node { requests, pushes, set: ResourceSet::default() }
    }

    fn revision(&self) -> u64 {
        self.registry.nodes()[0].revision
    }
}

struct Node {
    requests: mpsc::Sender<SubscribeRequest>,
    pushes: Streaming<Push>,
    set: ResourceSet,
}

impl Node {
    async fn push(&mut self) -> Push {
        within(self.pushes.message()).await.unwrap().expect("the stream goes on")
    }

    /// Receives and applies one whole push; returns its last message.
    async fn apply(&mut self) -> Push {
        let mut delta = Delta::default();
        loop {
            let push = self.push().await;
            push.upserts.iter().for_each(|resource| delta.upsert(resource.clone()).unwrap());
            push.removals.iter().for_each(|name| delta.remove(ResourceKey::from_name(name).unwrap()));
            if !push.more {
                if push.base_revision == 0 {
                    self.set = ResourceSet::default();
                }
                self.set.apply(&delta);
                assert_eq!(Checksum::from_bytes(&push.checksum), Some(self.set.checksum()));
                return push;
            }
        }
    }

    async fn ack(&self, push: &Push) {
        self.answer(push, push.revision, true).await;
    }

    async fn answer(&self, push: &Push, revision: u64, applied: bool) {
        let ack = Ack { nonce: push.nonce, revision, applied, ..Ack::default() };
        self.requests.send(SubscribeRequest { message: Some(Message::Ack(ack)) }).await.unwrap();
    }

    /// Nothing arrives while other tasks run.
    async fn assert_silent(&mut self) {
        let push = tokio::time::timeout(Duration::from_millis(100), self.pushes.message()).await;
        assert!(push.is_err(), "unexpected {push:?}");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("an answer within 10 s")
}

#[tokio::test]
async fn a_new_node_gets_the_full_set_and_then_deltas() {
    let fixture = Fixture::start();
    fixture.publish(0, 3, delta(&[1, 2], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let push = node.apply().await;
    assert_eq!((push.base_revision, push.revision, push.upserts.len()), (0, 3, 2));
    node.ack(&push).await;
    fixture.publish(3, 4, delta(&[2], "b")).await;
    let push = node.apply().await;
    assert_eq!((push.base_revision, push.revision, push.upserts.len()), (3, 4, 1));
    node.ack(&push).await;
    nemo_tests::eventually("the ack", async || nemo_tests::eventually::yes(fixture.revision() == 4))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_that_comes_back_gets_only_what_it_lacks() {
    let fixture = Fixture::start();
    fixture.publish(0, 3, delta(&[1, 2], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let push = node.apply().await;
    node.ack(&push).await;
    let (set, checksum) = (node.set.clone(), node.set.checksum().to_bytes().to_vec());
    drop(node);
    fixture.publish(3, 4, delta(&[3], "a")).await;
    let mut node = Node { set, ..fixture.subscribe(3, checksum.clone()).await };
    let push = node.apply().await;
    assert_eq!((push.base_revision, push.upserts.len()), (3, 1));
    // The same revision with another content is not trusted.
    let mut node = fixture.subscribe(3, vec![7; 16]).await;
    assert_eq!(node.apply().await.base_revision, 0);
}

#[tokio::test]
async fn a_node_that_holds_the_newest_revision_is_sent_nothing() {
    let fixture = Fixture::start();
    fixture.publish(0, 3, delta(&[1], "a")).await;
    let held = fixture.publisher.subscribe().borrow().checksum;
    let mut node = fixture.subscribe(3, held.to_bytes().to_vec()).await;
    node.assert_silent().await;
    assert_eq!((fixture.revision(), fixture.registry.nodes()[0].lag), (3, 0));
}

#[tokio::test]
async fn one_push_is_in_flight_and_the_next_one_skips_what_lies_between() {
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let first = node.apply().await;
    for revision in 2..6 {
        fixture.publish(revision - 1, revision, delta(&[2], &revision.to_string())).await;
    }
    node.assert_silent().await;
    node.ack(&first).await;
    let second = node.apply().await;
    assert_eq!((second.base_revision, second.revision, second.nonce), (1, 5, first.nonce + 1));
}

#[tokio::test]
async fn a_refused_revision_is_not_sent_again_and_not_taken_as_held() {
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let push = node.push().await;
    node.answer(&push, 0, false).await;
    node.assert_silent().await;
    let seen = &fixture.registry.nodes()[0];
    assert_eq!((seen.revision, seen.last_rejection.as_str()), (0, "revision 1"));
    fixture.publish(1, 2, delta(&[2], "b")).await;
    let push = node.apply().await;
    assert_eq!((push.base_revision, push.revision, push.upserts.len()), (0, 2, 2));
    node.ack(&push).await;
    nemo_tests::eventually("the ack", async || nemo_tests::eventually::yes(fixture.revision() == 2))
        .await
        .unwrap();
    assert_eq!(fixture.registry.nodes()[0].last_rejection, "");
}

#[tokio::test]
async fn sets_above_the_message_limit_arrive_in_chunks() {
    let fixture = Fixture::start();
    let ids: Vec<u8> = (0..100).collect();
    fixture.publish(0, 1, delta(&ids, &"x".repeat(100 << 10))).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let first = node.push().await;
    assert!(first.more && first.upserts.len() < 100);
    let mut upserts = first.upserts.len();
    loop {
        let push = node.push().await;
        upserts += push.upserts.len();
        assert_eq!(push.nonce, first.nonce);
        if !push.more {
            break;
        }
    }
    assert_eq!(upserts, 100);
}

#[tokio::test]
async fn drain_ends_the_stream_and_the_node_is_gone() {
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let push = node.apply().await;
    node.ack(&push).await;
    fixture.trigger.start();
    let status = within(node.pushes.message()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let gone = async || nemo_tests::eventually::yes(!fixture.registry.nodes()[0].connected);
    nemo_tests::eventually("the node to be gone", gone).await.unwrap();
}

#[tokio::test]
async fn a_node_that_leaves_is_gone_from_the_registry() {
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    let node = fixture.subscribe(0, Vec::new()).await;
    assert!(fixture.registry.nodes()[0].connected);
    drop(node);
    let gone = async || nemo_tests::eventually::yes(!fixture.registry.nodes()[0].connected);
    nemo_tests::eventually("the node to be gone", gone).await.unwrap();
}

#[tokio::test]
async fn the_first_message_must_be_a_hello_with_an_id() {
    let fixture = Fixture::start();
    for message in [Message::Ack(Ack::default()), Message::Hello(Hello::default())] {
        let requests = tokio_stream::once(SubscribeRequest { message: Some(message) });
        let status = fixture.client.clone().subscribe(requests).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    }
}

#[tokio::test]
async fn a_node_ahead_of_this_replica_is_sent_nothing_until_the_replica_has_caught_up() {
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    // Nobody reads the database here, so the look that would tell is never over.
    let mut node = fixture.subscribe(5, vec![7; 16]).await;
    node.assert_silent().await;
}

#[tokio::test]
async fn heartbeats_and_a_goodbye_are_heard() {
    use nemo_proto::config::{Heartbeat, Leave};
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let push = node.apply().await;
    for message in [Message::Heartbeat(Heartbeat {}), Message::Leave(Leave {})] {
        node.requests.send(SubscribeRequest { message: Some(message) }).await.unwrap();
    }
    let gone = async || nemo_tests::eventually::yes(!fixture.registry.nodes()[0].connected);
    nemo_tests::eventually("the node has left", gone).await.unwrap();
    // It may still answer what is in flight.
    node.ack(&push).await;
    node.assert_silent().await;
}

#[tokio::test]
async fn revocations_reach_a_node_while_its_push_is_unanswered() {
    use nemo_proto::config::{Revocation, SubscribeRevocationsRequest, revocation::Target};
    let fixture = Fixture::start();
    fixture.publish(0, 1, delta(&[1], "a")).await;
    let mut node = fixture.subscribe(0, Vec::new()).await;
    let _unanswered = node.push().await;
    let info = NodeInfo { node_id: "node-1".into(), epoch: 1, ..NodeInfo::default() };
    let request = SubscribeRevocationsRequest { info: Some(info) };
    let mut stream =
        fixture.client.clone().subscribe_revocations(request.clone()).await.unwrap().into_inner();
    let revocation = Revocation { revision: 2, target: Some(Target::PublicId("a".into())) };
    fixture.revocations.tell(revocation.clone());
    assert_eq!(within(stream.message()).await.unwrap().unwrap().revocations, [revocation]);
    fixture.trigger.start();
    let status = within(stream.message()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let nobody = SubscribeRevocationsRequest::default();
    let status = fixture.client.clone().subscribe_revocations(nobody).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
