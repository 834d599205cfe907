//! `ConfigService`: brings a node from what it holds to what is published, and keeps it there; and tells it what must
//! stop at once, on a stream of its own.
//!
//! The response stream drives itself: it is polled while the node reads, so there is no task and no queue per node, and
//! nothing is locked across an await. What to send is decided by [`Cursor`]; this file moves messages.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use nemo_proto::config::{
    Ack, Hello, Push, Revocations as RevocationsMessage, SubscribeRequest, SubscribeRevocationsRequest,
    config_service_server, subscribe_request::Message,
};
use nemo_runtime::drain::DrainWatcher;
use tokio::{sync::watch, time::Instant};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    fleet::{
        Connection, Registry,
        registry::{check_node_id, describe_rejections},
    },
    publish::{
        Published, Publisher, Revocations, Update,
        cursor::{Cursor, Messages, Outcome},
    },
};

/// How long a node may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node may take to apply a push, from the last chunk on.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct ConfigService {
    publisher: Arc<Publisher>,
    revocations: Revocations,
    registry: Registry,
    drain: DrainWatcher,
}

impl ConfigService {
    pub fn new(
        publisher: Arc<Publisher>,
        revocations: Revocations,
        registry: Registry,
        drain: DrainWatcher,
    ) -> Self {
        Self { publisher, revocations, registry, drain }
    }
}

type PushStream = Pin<Box<dyn Stream<Item = Result<Push, Status>> + Send>>;
type RevocationStream = Pin<Box<dyn Stream<Item = Result<RevocationsMessage, Status>> + Send>>;

#[tonic::async_trait]
impl config_service_server::ConfigService for ConfigService {
    type SubscribeStream = PushStream;
    type SubscribeRevocationsStream = RevocationStream;

    async fn subscribe_revocations(
        &self,
        request: Request<SubscribeRevocationsRequest>,
    ) -> Result<Response<RevocationStream>, Status> {
        let info = request.into_inner().info.unwrap_or_default();
        check_node_id(&info.node_id).map_err(refused)?;
        let reading = (self.revocations.subscribe(), self.drain.clone());
        let messages = stream::unfold(Some(reading), |reading| async {
            let (mut subscription, drain) = reading?;
            tokio::select! {
                () = drain.signaled() => Some((Err(draining()), None)),
                message = subscription.next() => Some((Ok(message?), Some((subscription, drain)))),
            }
        });
        Ok(Response::new(Box::pin(messages)))
    }

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
        let connection =
            self.registry.connect_session(&info, hello.held_revision, hello.session).map_err(refused)?;
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
            queue: Messages::default(),
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
    queue: Messages,
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
            if let Some(push) = self.queue.next() {
                self.ack_due = Instant::now() + ACK_TIMEOUT;
                return Ok(Some(push));
            }
            let waiting = self.cursor.is_waiting_for_ack();
            tokio::select! {
                () = self.drain.signaled() => return Err(draining()),
                request = self.inbound.message() => match request {
                    Ok(Some(SubscribeRequest { message: Some(message) })) => self.told(message)?,
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
        self.queue = self.cursor.plan(update);
        Ok(())
    }

    fn told(&mut self, message: Message) -> Result<(), Status> {
        match message {
            Message::Ack(ack) => self.acknowledged(&ack),
            Message::Heartbeat(_) => self.connection.heard(),
            Message::Leave(_) => {
                tracing::info!(node = self.connection.node_id(), "the node stops");
                self.connection.left();
            }
            Message::Hello(_) => return Err(Status::invalid_argument("expected an ack; hello comes once")),
        }
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
