//! `ConfigService.Subscribe`: brings a node from what it holds to what is published, and keeps it there.
//!
//! The response stream drives itself: it is polled while the node reads, so there is no task and no queue per node, and
//! nothing is locked across an await. What to send is decided by [`Cursor`]; this file moves messages.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use nemo_proto::config::{
    Ack, Hello, Push, SubscribeRequest, config_service_server, subscribe_request::Message,
};
use nemo_runtime::drain::DrainWatcher;
use tokio::{sync::watch, time::Instant};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    fleet::{Connection, Registry, registry::describe_rejections},
    publish::{
        Published, Publisher, Update,
        cursor::{Cursor, Outcome},
    },
};

/// How long a node may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node may take to apply a push, from the last chunk on.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct ConfigService {
    publisher: Arc<Publisher>,
    registry: Registry,
    drain: DrainWatcher,
}

impl ConfigService {
    pub fn new(publisher: Arc<Publisher>, registry: Registry, drain: DrainWatcher) -> Self {
        Self { publisher, registry, drain }
    }
}

type PushStream = Pin<Box<dyn Stream<Item = Result<Push, Status>> + Send>>;

#[tonic::async_trait]
impl config_service_server::ConfigService for ConfigService {
    type SubscribeStream = PushStream;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<PushStream>, Status> {
        let mut inbound = request.into_inner();
        let hello = tokio::select! {
            () = self.drain.signaled() => return Err(draining()),
            hello = tokio::time::timeout(HELLO_TIMEOUT, first_message(&mut inbound)) => {
                hello.map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??
            }
        };
        let info = hello.info.unwrap_or_default();
        let connection = self.registry.connect(&info, hello.held_revision).map_err(refused)?;
        tracing::info!(
            node = info.node_id,
            epoch = info.epoch,
            version = info.version,
            held_revision = hello.held_revision,
            "node subscribed"
        );
        let session = Session {
            inbound,
            cursor: Cursor::new(hello.held_revision, &hello.held_checksum),
            queue: VecDeque::new(),
            ack_due: Instant::now(),
            published: self.publisher.subscribe(),
            publisher: self.publisher.clone(),
            connection,
            drain: self.drain.clone(),
        };
        let pushes = stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(Some(push)) => Some((Ok(push), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(pushes)))
    }
}

async fn first_message(inbound: &mut Streaming<SubscribeRequest>) -> Result<Hello, Status> {
    match inbound.message().await?.and_then(|request| request.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("expected hello as the first message")),
    }
}

fn refused(error: crate::fleet::registry::Refused) -> Status {
    match error {
        crate::fleet::registry::Refused::MalformedNodeId => Status::invalid_argument(format!("info.{error}")),
        crate::fleet::registry::Refused::Full => Status::resource_exhausted(error.to_string()),
    }
}

fn draining() -> Status {
    Status::unavailable("this control plane is stopping; connect again")
}

/// One node's stream.
struct Session {
    inbound: Streaming<SubscribeRequest>,
    cursor: Cursor,
    /// Chunks of the push in flight that are not sent yet.
    queue: VecDeque<Push>,
    ack_due: Instant,
    published: watch::Receiver<Arc<Published>>,
    publisher: Arc<Publisher>,
    connection: Connection,
    drain: DrainWatcher,
}

impl Session {
    /// The next message for the node; `None` when the stream is over.
    async fn next(&mut self) -> Result<Option<Push>, Status> {
        loop {
            if self.queue.is_empty() && !self.cursor.is_waiting_for_ack() {
                self.plan().await?;
            }
            if let Some(push) = self.queue.pop_front() {
                self.ack_due = Instant::now() + ACK_TIMEOUT;
                return Ok(Some(push));
            }
            let waiting = self.cursor.is_waiting_for_ack();
            tokio::select! {
                () = self.drain.signaled() => return Err(draining()),
                request = self.inbound.message() => match request {
                    Ok(Some(SubscribeRequest { message: Some(Message::Ack(ack)) })) => self.acknowledged(&ack),
                    Ok(Some(_)) => return Err(Status::invalid_argument("expected an ack; hello comes once")),
                    // The node left; a broken connection is not worth an error either.
                    Ok(None) | Err(_) => return Ok(None),
                },
                // While a push is in flight, a newer revision waits for its answer.
                changed = self.published.changed(), if !waiting => {
                    changed.map_err(|_| draining())?;
                }
                () = tokio::time::sleep_until(self.ack_due), if waiting => {
                    return Err(Status::deadline_exceeded("no ack within 60 s of a push"));
                }
            }
        }
    }

    /// Fills the queue with what the node lacks, if it lacks anything.
    async fn plan(&mut self) -> Result<(), Status> {
        // Seen before it is read: a revision published in between shows as changed.
        self.published.mark_unchanged();
        let (revision, checksum) = self.cursor.held();
        let mut update = self.publisher.update(revision, checksum);
        if matches!(update, Update::Ahead) {
            // Another replica was faster, or the database has lost revisions (a restored backup). Only a fresh look
            // tells: nodes never go back as long as their revision exists.
            tokio::select! {
                () = self.drain.signaled() => return Err(draining()),
                () = self.publisher.caught_up() => {}
            }
            if self.publisher.database_revision() < revision {
                tracing::warn!(
                    node = self.connection.node_id(),
                    held_revision = revision,
                    database_revision = self.publisher.database_revision(),
                    "the node holds a revision that the database does not have; sending it the full set"
                );
                self.cursor.forget_held();
            }
            let (revision, checksum) = self.cursor.held();
            update = self.publisher.update(revision, checksum);
        }
        self.queue = self.cursor.plan(update).into();
        Ok(())
    }

    fn acknowledged(&mut self, ack: &Ack) {
        let node = self.connection.node_id();
        match self.cursor.acknowledge(ack) {
            Outcome::Applied(revision) => {
                tracing::debug!(node, revision, apply_micros = ack.apply_micros, "node applied the push");
                self.connection.applied(revision, ack.apply_micros);
            }
            Outcome::Refused(revision) => {
                let reason = describe_rejections(revision, &ack.rejections);
                tracing::error!(
                    node,
                    serving = ack.revision,
                    reason,
                    "node refused the push and keeps what it has"
                );
                self.connection.refused(revision, &ack.rejections);
            }
            Outcome::Stale => tracing::debug!(node, nonce = ack.nonce, "ack of a push that is not in flight"),
        }
    }
}

#[cfg(test)]
mod tests;
