//! Subscribes to the configuration, applies pushes, answers each with an ACK or a NACK, and says now and then that this
//! node lives: its lease, by which whoever waits for the whole fleet counts. Called by [`super`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use nemo_proto::{
    common::NodeInfo,
    config::{
        Ack, Heartbeat, Hello, Leave, Push, SubscribeRequest, config_service_client::ConfigServiceClient,
        subscribe_request::Message,
    },
    fleet::RegisterResponse,
};
use nemo_runtime::{drain::DrainWatcher, grpc::MAX_MESSAGE_BYTES};
use nemo_snapshot::{Rejection, ResourceSet};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{NodeChannel, metrics::ControlMetrics, saver::Saver};
use crate::config::apply::Applier;

/// One push is in flight at a time, so one answer is; heartbeats come between.
const ANSWERS: usize = 4;

/// The node's side of `ConfigService.Subscribe`, over all sessions.
pub struct ConfigStream {
    info: NodeInfo,
    /// Locked by threads that may block alone. A session that breaks off leaves a push that is being applied to its
    /// end, and the next one waits for that.
    applier: Arc<Mutex<Applier>>,
    saver: Saver,
    metrics: ControlMetrics,
    /// Number of the newest subscription.
    session: u64,
}

/// What came of a message.
struct Handled {
    outcome: Result<bool, Vec<Rejection>>,
    revision: u64,
    set: Arc<ResourceSet>,
}

impl ConfigStream {
    pub fn new(info: NodeInfo, applier: Applier, saver: Saver, metrics: ControlMetrics) -> Self {
        metrics.revision.set(applier.held().0);
        Self { info, applier: Arc::new(Mutex::new(applier)), saver, metrics, session: 0 }
    }

    /// One session. Ends with `Ok` when the server ends the stream, which it does when nothing is left to say: after the
    /// goodbye and `shipped`.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(
        &mut self,
        channel: &NodeChannel,
        welcome: &RegisterResponse,
        drain: &DrainWatcher,
        shipped: &CancellationToken,
    ) -> Result<(), Status> {
        let (answers, outgoing) = mpsc::channel(ANSWERS);
        send(&answers, Message::Hello(self.hello().await?)).await?;
        let mut client =
            ConfigServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut pushes = client.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        let (mut beat, mut left) = (heartbeat(welcome), false);
        loop {
            let push = tokio::select! {
                push = pushes.message() => push?,
                () = tick(&mut beat) => {
                    send(&answers, Message::Heartbeat(Heartbeat {})).await?;
                    continue;
                }
                // The usage stream decides when a draining session is over.
                () = drain.signaled(), if !left => {
                    left = true;
                    send(&answers, Message::Leave(Leave {})).await?;
                    continue;
                }
                () = shipped.cancelled(), if left => {
                    drop(answers);
                    while pushes.message().await?.is_some() {}
                    return Ok(());
                }
            };
            let Some(push) = push else { return Ok(()) };
            let applying = self.apply(push);
            tokio::pin!(applying);
            let ack = loop {
                tokio::select! {
                    ack = &mut applying => break ack?,
                    () = tick(&mut beat) => send(&answers, Message::Heartbeat(Heartbeat {})).await?,
                }
            };
            if let Some(ack) = ack {
                send(&answers, Message::Ack(ack)).await?;
            }
        }
    }

    async fn hello(&mut self) -> Result<Hello, Status> {
        self.session += 1;
        let (held_revision, checksum) = self
            .blocking(|applier| {
                applier.reset();
                applier.held()
            })
            .await?;
        let held_checksum = Bytes::copy_from_slice(&checksum.to_bytes());
        Ok(Hello { info: Some(self.info.clone()), held_revision, held_checksum, session: self.session })
    }

    /// Compiling takes milliseconds: never on a thread that serves requests.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Applier) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let applier = self.applier.clone();
        let done = tokio::task::spawn_blocking(move || {
            // After a panic it holds what it held before: the swap is the last step.
            work(&mut applier.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(|error| Status::internal(error.to_string()))
    }

    async fn apply(&self, push: Push) -> Result<Option<Ack>, Status> {
        let (nonce, offered) = (push.nonce, push.revision);
        let started = Instant::now();
        let handled = self.blocking(move |applier| {
            let outcome = applier.push(push);
            Handled { outcome, revision: applier.held().0, set: applier.set() }
        });
        let Handled { outcome, revision, set } = handled.await?;
        let apply_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let ack = Ack { nonce, revision, applied: true, rejections: Vec::new(), apply_micros };
        match outcome {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.metrics.pushes_applied.inc();
                self.metrics.revision.set(revision);
                self.saver.applied(set, revision);
                tracing::info!(revision, apply_micros, "configuration applied");
                Ok(Some(ack))
            }
            Err(rejections) => {
                self.metrics.pushes_rejected.inc();
                let reason = rejections.first().map(ToString::to_string);
                tracing::error!(
                    offered,
                    held = revision,
                    reason,
                    "configuration refused, serving the held one"
                );
                let rejections = rejections.iter().map(Into::into).collect();
                Ok(Some(Ack { applied: false, rejections, ..ack }))
            }
        }
    }
}

/// As often as the control plane wants it.
fn heartbeat(welcome: &RegisterResponse) -> Option<Interval> {
    let period = Some(welcome.heartbeat_ms).filter(|ms| *ms > 0)?;
    let mut beat = tokio::time::interval(Duration::from_millis(period.into()));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(beat)
}

async fn tick(beat: &mut Option<Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

async fn send(answers: &mpsc::Sender<SubscribeRequest>, message: Message) -> Result<(), Status> {
    let request = SubscribeRequest { message: Some(message) };
    answers.send(request).await.map_err(|_| Status::unavailable("the stream has ended"))
}
