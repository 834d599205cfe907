//! Subscribes to the configuration, applies pushes, answers each with an ACK or a NACK. Called by [`super`].

use bytes::Bytes;
use nemo_proto::{
    common::NodeInfo,
    config::{
        Ack, Hello, Push, SubscribeRequest, config_service_client::ConfigServiceClient,
        subscribe_request::Message,
    },
};
use nemo_runtime::{drain::DrainWatcher, grpc::MAX_MESSAGE_BYTES};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{NodeChannel, metrics::ControlMetrics, saver::Saver};
use crate::config::apply::Applier;

/// One push is in flight at a time, so one answer is.
const ANSWERS: usize = 4;

/// The node's side of `ConfigService.Subscribe`, over all sessions.
pub struct ConfigStream {
    info: NodeInfo,
    /// `None` only while a push is being applied on another thread.
    applier: Option<Applier>,
    saver: Saver,
    metrics: ControlMetrics,
}

impl ConfigStream {
    pub fn new(info: NodeInfo, applier: Applier, saver: Saver, metrics: ControlMetrics) -> Self {
        metrics.revision.set(applier.held().0);
        Self { info, applier: Some(applier), saver, metrics }
    }

    /// One session. Ends with `Ok` on drain or when the server ends the stream.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(&mut self, channel: &NodeChannel, drain: &DrainWatcher) -> Result<(), Status> {
        let (answers, outgoing) = mpsc::channel(ANSWERS);
        send(&answers, Message::Hello(self.hello()?)).await?;
        let mut client =
            ConfigServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut pushes = client.subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        loop {
            let push = tokio::select! {
                push = pushes.message() => push?,
                // The usage stream decides when a draining session is over.
                () = drain.signaled() => std::future::pending().await,
            };
            let Some(push) = push else { return Ok(()) };
            if let Some(ack) = self.apply(push).await? {
                send(&answers, Message::Ack(ack)).await?;
            }
        }
    }

    fn hello(&mut self) -> Result<Hello, Status> {
        let applier = self.applier.as_mut().ok_or_else(lost)?;
        applier.reset();
        let (held_revision, checksum) = applier.held();
        let held_checksum = Bytes::copy_from_slice(&checksum.to_bytes());
        Ok(Hello { info: Some(self.info.clone()), held_revision, held_checksum })
    }

    /// Compiling takes milliseconds: never on a thread that serves requests.
    async fn apply(&mut self, push: Push) -> Result<Option<Ack>, Status> {
        let mut applier = self.applier.take().ok_or_else(lost)?;
        let (nonce, offered) = (push.nonce, push.revision);
        let started = Instant::now();
        let applied = tokio::task::spawn_blocking(move || {
            let outcome = applier.push(push);
            (applier, outcome)
        });
        let (applier, outcome) = applied.await.map_err(|error| Status::internal(error.to_string()))?;
        let (revision, _) = applier.held();
        let set = applier.set();
        self.applier = Some(applier);
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

fn lost() -> Status {
    Status::internal("the configuration was lost by a panic; restart this node")
}

async fn send(answers: &mpsc::Sender<SubscribeRequest>, message: Message) -> Result<(), Status> {
    let request = SubscribeRequest { message: Some(message) };
    answers.send(request).await.map_err(|_| Status::unavailable("the stream has ended"))
}
