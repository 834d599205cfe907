//! The protocol over a real tonic transport in memory, into a real database.

use std::time::Duration;

use nemo_proto::{
    common::NodeInfo,
    usage::{Outcome, usage_service_client::UsageServiceClient, usage_service_server::UsageServiceServer},
};
use nemo_runtime::{TaskGroup, drain, grpc, inproc};
use nemo_types::TeamId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{
    publish::Published,
    store::testing::{self, TestStore},
};

struct Fixture {
    store: TestStore,
    registry: Registry,
    batches: mpsc::Sender<UsageBatch>,
    acks: Streaming<UsageAck>,
    trigger: drain::DrainTrigger,
    _published: watch::Sender<Arc<Published>>,
    _tasks: TaskGroup,
}

async fn start() -> Fixture {
    let store = testing::store().await;
    let (published, receiver) = watch::channel(Arc::default());
    let registry = Registry::new(receiver);
    let (trigger, drain) = drain::channel();
    let service = UsageService::new(store.store.clone(), registry.clone(), UsageMetrics::default(), drain);
    let (connector, incoming) = inproc::channel();
    let tasks = TaskGroup::new();
    tasks.spawn("server", async move {
        let service = UsageServiceServer::new(service).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES);
        grpc::server().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    let (batches, stream) = mpsc::channel(4);
    let mut client = UsageServiceClient::new(grpc::in_process_channel(connector));
    let acks = client.ingest(ReceiverStream::new(stream)).await.unwrap().into_inner();
    Fixture { store, registry, batches, acks, trigger, _published: published, _tasks: tasks }
}

impl Fixture {
    async fn send(&mut self, first_seq: u64, events: Vec<UsageEvent>) -> UsageAck {
        let batch = UsageBatch { node_id: "node-1".into(), epoch: 1, first_seq, events, dropped_total: 5 };
        self.batches.send(batch).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.acks.message()).await.unwrap().unwrap().unwrap()
    }

    async fn rows(&self) -> i64 {
        let mut superuser = self.store.superuser().await;
        sqlx::query_scalar("SELECT count(*) FROM request_log").fetch_one(&mut superuser).await.unwrap()
    }
}

fn event() -> UsageEvent {
    UsageEvent {
        request_id: RequestId::generate().as_bytes().to_vec().into(),
        org_id: OrgId::generate().as_bytes().to_vec().into(),
        team_id: TeamId::generate().as_bytes().to_vec().into(),
        key_id: KeyId::generate().as_bytes().to_vec().into(),
        outcome: Outcome::Ok.into(),
        ..UsageEvent::default()
    }
}

#[tokio::test]
async fn batches_are_acknowledged_after_they_are_committed_and_once_only() {
    let mut fixture = start().await;
    let events: Vec<_> = (0..3).map(|_| event()).collect();
    assert_eq!(fixture.send(10, events.clone()).await, UsageAck { through_seq: 12, duplicates: 0 });
    assert_eq!(fixture.rows().await, 3);
    let again = [events, vec![event()]].concat();
    assert_eq!(fixture.send(10, again).await, UsageAck { through_seq: 13, duplicates: 3 });
    assert_eq!(fixture.rows().await, 4);
}

#[tokio::test]
async fn malformed_events_are_skipped_and_acknowledged_with_the_rest() {
    let mut fixture = start().await;
    let bad = UsageEvent { org_id: "x".into(), ..event() };
    let old = UsageEvent {
        request_id: [&[0; 6], &RequestId::generate().as_bytes()[6..]].concat().into(),
        ..event()
    };
    let ack = fixture.send(1, vec![event(), bad, old, event()]).await;
    assert_eq!((ack.through_seq, fixture.rows().await), (4, 2));
    assert_eq!(fixture.send(5, Vec::new()).await.through_seq, 4);
}

#[tokio::test]
async fn a_batch_above_the_bound_is_written_in_parts() {
    let mut fixture = start().await;
    let events: Vec<_> = (0..MAX_BATCH + 1).map(|_| event()).collect();
    assert_eq!(fixture.send(1, events).await.through_seq, 1001);
    assert_eq!(fixture.rows().await, 1001);
}

#[tokio::test]
async fn the_registry_learns_what_a_node_has_dropped() {
    let mut fixture = start().await;
    let info = NodeInfo { node_id: "node-1".into(), epoch: 1, ..NodeInfo::default() };
    let _connection = fixture.registry.connect(&info, 0).unwrap();
    fixture.send(1, vec![event()]).await;
    assert_eq!(fixture.registry.nodes()[0].usage_dropped_total, 5);
}

#[tokio::test]
async fn while_the_database_is_away_nothing_is_acknowledged() {
    let mut fixture = start().await;
    fixture.store.store.close().await;
    fixture
        .batches
        .send(UsageBatch { node_id: "n".into(), events: vec![event()], ..UsageBatch::default() })
        .await
        .unwrap();
    let status = fixture.acks.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn drain_ends_the_stream() {
    let mut fixture = start().await;
    fixture.trigger.start();
    let status = fixture.acks.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}
