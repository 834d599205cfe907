//! Against a control plane in memory that records the batches and acknowledges what it is told to.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use nemo_proto::usage::{
    GetRequestRequest, GetRequestResponse, UsageBatch,
    usage_service_server::{UsageService, UsageServiceServer},
};
use nemo_runtime::{
    TaskGroup, drain,
    grpc::{self, NodeToken},
    inproc,
};
use nemo_tests::eventually::{eventually, patience, yes};
use tokio::sync::Mutex;
use tonic::{Response, service::interceptor::InterceptedService};

use super::*;
use crate::usage::{
    Event,
    journal::{Limits, SEGMENT, Writer, model::Disk},
};

/// How long nothing is shipped that is no full batch.
const FLUSH_MS: u32 = 3_600_000;

/// First sequence and length of each batch.
type Batches = Arc<Mutex<mpsc::Receiver<(u64, usize)>>>;

struct Recorder {
    seen: mpsc::Sender<(u64, usize)>,
    /// Of the first batch only this many events are acknowledged.
    first_ack: usize,
}

#[tonic::async_trait]
impl UsageService for Recorder {
    type IngestStream = Pin<Box<dyn Stream<Item = Result<UsageAck, Status>> + Send>>;

    async fn ingest(
        &self,
        request: Request<Streaming<UsageBatch>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let (seen, first_ack) = (self.seen.clone(), self.first_ack);
        let acks = stream::unfold(request.into_inner(), move |mut inbound| {
            let seen = seen.clone();
            async move {
                let batch = inbound.message().await.ok()??;
                seen.send((batch.first_seq, batch.events.len())).await.ok()?;
                let taken = if batch.first_seq == 1 { first_ack } else { usize::MAX };
                let through_seq = batch.first_seq + batch.events.len().min(taken) as u64 - 1;
                Some((Ok(UsageAck { through_seq, duplicates: 0 }), inbound))
            }
        });
        Ok(Response::new(acks.boxed()))
    }

    async fn get_request(
        &self,
        _: Request<GetRequestRequest>,
    ) -> Result<Response<GetRequestResponse>, Status> {
        Err(Status::not_found("no such request"))
    }
}

/// The node's side of one session after the other.
struct Sessions {
    stream: UsageStream,
    channel: NodeChannel,
    welcome: RegisterResponse,
    drain: DrainWatcher,
}

impl Sessions {
    async fn run(&mut self) -> Result<(), Status> {
        self.stream.run(&self.channel, &self.welcome, &self.drain).await
    }
}

struct World {
    journal: Journal,
    batches: Batches,
    drain: drain::DrainTrigger,
    shipper: tokio::task::JoinSet<Result<(), Status>>,
    server: TaskGroup,
}

impl World {
    fn start(first_ack: usize) -> Self {
        let (mut world, mut sessions) = Self::idle(first_ack, crate::testing::journal());
        world.shipper.spawn(async move { sessions.run().await });
        world
    }

    /// Nothing is shipped yet.
    fn idle(first_ack: usize, journal: Journal) -> (Self, Sessions) {
        let (seen, batches) = mpsc::channel(64);
        let (connector, incoming) = inproc::channel();
        let (trigger, drain) = drain::channel();
        let server = TaskGroup::new();
        let service = UsageServiceServer::new(Recorder { seen, first_ack });
        server.spawn("server", async move {
            grpc::server().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        let channel = InterceptedService::new(grpc::in_process_channel(connector), NodeToken::none());
        let metrics = nemo_runtime::metrics::Registry::new().register(ControlMetrics::register);
        let stream = UsageStream::new(NodeInfo::default(), journal.clone(), metrics);
        let welcome = RegisterResponse {
            max_usage_batch: u32::try_from(WAKE_AT).unwrap(),
            usage_flush_ms: FLUSH_MS,
            ..RegisterResponse::default()
        };
        let (batches, shipper) = (Arc::new(Mutex::new(batches)), tokio::task::JoinSet::new());
        let world = Self { journal, batches, drain: trigger, shipper, server };
        (world, Sessions { stream, channel, welcome, drain })
    }

    fn push(&self, count: usize) {
        (0..count).for_each(|_| self.journal.closed(None, &Event::blank(1)));
    }

    async fn batch(&self) -> (u64, usize) {
        let mut batches = self.batches.lock().await;
        tokio::time::timeout(patience(), batches.recv()).await.unwrap().unwrap()
    }

    async fn acknowledged(&self) {
        let all = async || yes(self.journal.stats().waiting == 0);
        eventually("all is acknowledged", all).await.unwrap();
    }

    async fn none(&self) {
        let mut batches = self.batches.lock().await;
        let more = tokio::time::timeout(Duration::from_millis(100), batches.recv()).await;
        assert!(more.is_err(), "{more:?}");
    }

    async fn end(mut self) {
        self.shipper.join_next().await.unwrap().unwrap().unwrap();
        drop(self.shipper);
        self.server.join(Duration::ZERO).await;
    }
}

/// A message costs more than an event: under load batches go out full and at once, what is left waits for company.
#[tokio::test]
async fn full_batches_go_out_at_once_and_the_rest_waits() {
    let world = World::start(usize::MAX);
    world.push(2 * WAKE_AT + 34);
    assert_eq!(world.batch().await, (1, WAKE_AT));
    assert_eq!(world.batch().await, (1 + WAKE_AT as u64, WAKE_AT));
    world.none().await;
    // One short of a batch, then the one that fills it.
    world.push(WAKE_AT - 35);
    world.none().await;
    world.push(1);
    assert_eq!(world.batch().await, (1 + 2 * WAKE_AT as u64, WAKE_AT));
    world.push(5);
    world.none().await;
    // Who stops does not wait.
    world.drain.start();
    assert_eq!(world.batch().await, (1 + 3 * WAKE_AT as u64, 5));
    world.end().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_and_nothing_else() {
    let world = World::start(200);
    world.push(WAKE_AT);
    assert_eq!(world.batch().await, (1, WAKE_AT));
    assert_eq!(world.batch().await, (201, WAKE_AT - 200));
    world.none().await;
    world.drain.start();
    world.end().await;
}

/// Else it would be given out and never sent, and the acknowledgements of what follows would be taken for its own.
#[test]
fn a_batch_that_is_being_read_when_a_session_ends_goes_out_in_the_next() {
    // The disk takes its time: the only thread that may block is busy.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(async {
        let limits = Limits { segment: SEGMENT, max: 1 << 30, memory: 0 };
        let writer = Writer { epoch: 1, boot_id: "boot".into() };
        let journal = Journal::open(Arc::new(Disk::new()), limits, writer).unwrap().0;
        let (mut world, mut sessions) = World::idle(usize::MAX, journal);
        world.push(2 * WAKE_AT);
        let (free, busy) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || busy.recv().is_err());
        while sessions.stream.taking.is_none() {
            let ended = tokio::time::timeout(Duration::from_millis(20), sessions.run()).await;
            assert!(ended.is_err(), "{ended:?}");
        }
        drop(free);
        assert!(busy.await.unwrap());
        world.shipper.spawn(async move { sessions.run().await });
        assert_eq!(world.batch().await, (1, WAKE_AT));
        assert_eq!(world.batch().await, (1 + WAKE_AT as u64, WAKE_AT));
        world.acknowledged().await;
        world.none().await;
        world.drain.start();
        world.end().await;
    });
}
