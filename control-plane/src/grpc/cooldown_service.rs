//! `CooldownService`: takes what nodes report of upstreams, and tells them what the fleet keeps away from.
//!
//! The response stream drives itself, as those of `config_service.rs` do: it is polled while the node reads. Reports are
//! handed to the board and never waited for. A node that is too slow for the changes is sent the whole board again.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use nemo_proto::cooldown::{self as wire, CooldownUpdate, HealthReport, cooldown_service_server};
use nemo_runtime::drain::DrainWatcher;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    cooldown::{Board, Change, Cooling, Report, Scope, Subscription},
    fleet::registry::check_node_id,
};

/// How long a node may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Cooldowns in one message: well below the largest that is taken.
const CHUNK: usize = 2048;

#[derive(Clone)]
pub struct CooldownService {
    board: Board,
    drain: DrainWatcher,
}

impl CooldownService {
    pub fn new(board: Board, drain: DrainWatcher) -> Self {
        Self { board, drain }
    }
}

type UpdateStream = Pin<Box<dyn Stream<Item = Result<CooldownUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl cooldown_service_server::CooldownService for CooldownService {
    type WatchStream = UpdateStream;

    async fn watch(
        &self,
        request: Request<Streaming<HealthReport>>,
    ) -> Result<Response<UpdateStream>, Status> {
        let mut inbound = request.into_inner();
        let first = tokio::select! {
            () = self.drain.signaled() => return Err(draining()),
            first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()) => {
                first.map_err(|_| Status::deadline_exceeded("no report within 10 s"))??
            }
        };
        let first = first.ok_or_else(|| Status::invalid_argument("expected a report"))?;
        let info =
            first.info.ok_or_else(|| Status::invalid_argument("info: required in the first report"))?;
        check_node_id(&info.node_id).map_err(|error| Status::invalid_argument(format!("info.{error}")))?;
        let node: Arc<str> = info.node_id.into();
        let (board, drain) = (self.board.clone(), self.drain.clone());
        if !first.observations.is_empty() {
            board.report(Report { node: node.clone(), observations: first.observations });
        }
        let (queue, changes) = begin(board.subscribe());
        let session = Session { inbound, node, board, queue, changes, drain };
        let updates = stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(Some(update)) => Some((Ok(update), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

fn draining() -> Status {
    Status::unavailable("this control plane is stopping; connect again")
}

/// One node's stream.
struct Session {
    inbound: Streaming<HealthReport>,
    node: Arc<str>,
    board: Board,
    /// Parts of a whole board that are not sent yet.
    queue: VecDeque<CooldownUpdate>,
    changes: broadcast::Receiver<Arc<Change>>,
    drain: DrainWatcher,
}

impl Session {
    /// The next message for the node; `None` when it has left.
    async fn next(&mut self) -> Result<Option<CooldownUpdate>, Status> {
        loop {
            if let Some(update) = self.queue.pop_front() {
                return Ok(Some(update));
            }
            tokio::select! {
                () = self.drain.signaled() => return Err(draining()),
                report = self.inbound.message() => match report? {
                    Some(HealthReport { observations, .. }) => {
                        self.board.report(Report { node: self.node.clone(), observations });
                    }
                    None => return Ok(None),
                },
                change = self.changes.recv() => match change {
                    Ok(change) => return Ok(Some(update(&change))),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(node = &*self.node, missed, "a node is sent the whole board again");
                        (self.queue, self.changes) = begin(self.board.subscribe());
                    }
                    Err(RecvError::Closed) => return Ok(None),
                },
            }
        }
    }
}

/// The whole board in messages; at least one, since an empty board says something too.
fn begin(subscription: Subscription) -> (VecDeque<CooldownUpdate>, broadcast::Receiver<Arc<Change>>) {
    let Subscription { whole, revision, changes } = subscription;
    let now = Instant::now();
    let message = |part: &[Cooling]| CooldownUpdate {
        full: true,
        more: true,
        board_revision: revision,
        set: part.iter().map(|it| cooldown(it, now)).collect(),
        cleared: Vec::new(),
    };
    let mut queue: VecDeque<_> = whole.chunks(CHUNK).map(message).collect();
    match queue.back_mut() {
        Some(last) => last.more = false,
        None => queue.push_back(CooldownUpdate { more: false, ..message(&[]) }),
    }
    (queue, changes)
}

fn update(change: &Change) -> CooldownUpdate {
    let now = Instant::now();
    let cleared = |(scope, lifted): &(Scope, bool)| {
        let (org_id, deployment_id) = ids(*scope);
        wire::Cleared { org_id, deployment_id, lifted: *lifted }
    };
    CooldownUpdate {
        full: false,
        more: false,
        board_revision: change.revision,
        set: change.set.iter().map(|it| cooldown(it, now)).collect(),
        cleared: change.cleared.iter().map(cleared).collect(),
    }
}

fn cooldown(it: &Cooling, now: Instant) -> wire::Cooldown {
    let (org_id, deployment_id) = ids(it.scope);
    wire::Cooldown {
        org_id,
        deployment_id,
        remaining_ms: u32::try_from(it.remaining(now).as_millis()).unwrap_or(u32::MAX),
        failure_class: it.cause.class().into(),
    }
}

fn ids(scope: Scope) -> (Bytes, Bytes) {
    let org = scope.org.map(|org| Bytes::copy_from_slice(org.as_bytes())).unwrap_or_default();
    (org, Bytes::copy_from_slice(scope.deployment.as_bytes()))
}
