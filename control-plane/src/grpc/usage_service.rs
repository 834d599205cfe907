//! `UsageService.Ingest`: batches in, acknowledgements out, in order. A batch is acknowledged after its commit.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use nemo_proto::usage::{
    GetRequestRequest, GetRequestResponse, UsageAck, UsageBatch, UsageEvent, usage_service_server,
};
use nemo_runtime::drain::DrainWatcher;
use nemo_types::{KeyId, OrgId, RequestId};
use time::OffsetDateTime;
use tonic::{Request, Response, Status, Streaming};

use super::metrics::UsageMetrics;
use crate::{
    fleet::{Registry, registry::check_node_id},
    store::{
        Store, StoreError, request_lookup,
        usage_ingest::{Ingested, Journal, KnownDays, MAX_BATCH, Row},
    },
};

/// Malformed events of one batch that are logged; all are counted.
const LOGGED_PER_BATCH: usize = 3;

#[derive(Clone)]
pub struct UsageService {
    store: Store,
    registry: Registry,
    known_days: Arc<KnownDays>,
    metrics: UsageMetrics,
    drain: DrainWatcher,
}

type AckStream = Pin<Box<dyn Stream<Item = Result<UsageAck, Status>> + Send>>;

impl UsageService {
    pub fn new(store: Store, registry: Registry, metrics: UsageMetrics, drain: DrainWatcher) -> Self {
        Self { store, registry, known_days: Arc::default(), metrics, drain }
    }

    /// The acknowledgement of the next batch; `None` when the node has no more.
    async fn next(&self, inbound: &mut Streaming<UsageBatch>) -> Result<Option<UsageAck>, Status> {
        tokio::select! {
            biased;
            // A node sends again, to another replica, what was not acknowledged.
            () = self.drain.signaled() => Err(Status::unavailable("this control plane is stopping; connect again")),
            batch = inbound.message() => match batch {
                Ok(Some(batch)) => self.ingest(batch).await.map(Some),
                Ok(None) | Err(_) => Ok(None),
            },
        }
    }

    async fn ingest(&self, batch: UsageBatch) -> Result<UsageAck, Status> {
        let UsageBatch { node_id, epoch, first_seq, events, dropped_total } = batch;
        check_node_id(&node_id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.registry.usage_dropped(&node_id, epoch, dropped_total);
        let through_seq = (first_seq + events.len() as u64).saturating_sub(1);
        let now = now();
        let mut rows = Vec::with_capacity(events.len());
        let mut malformed = 0_usize;
        for (event, seq) in events.into_iter().zip(first_seq..) {
            match Row::new(event, &node_id, now) {
                Ok(row) => rows.push(Row { seq, ..row }),
                Err(reason) => {
                    malformed += 1;
                    self.metrics.malformed();
                    if malformed <= LOGGED_PER_BATCH {
                        tracing::error!(node = node_id, %reason, "skipped a usage event");
                    }
                }
            }
        }
        let journal = Journal { node_id, epoch };
        let ingested = self.write(rows, &journal).await?;
        let node_id = &journal.node_id;
        self.metrics.ingested(&ingested);
        tell(node_id, &ingested);
        Ok(UsageAck { through_seq, duplicates: u32::try_from(ingested.duplicates).unwrap_or(u32::MAX) })
    }

    /// A request of the key, and of no other.
    async fn find(&self, request: &GetRequestRequest) -> Result<Option<UsageEvent>, Status> {
        let malformed = |what: &str| Status::invalid_argument(format!("{what} is no id"));
        let org = OrgId::from_bytes(&request.org_id).ok_or_else(|| malformed("org_id"))?;
        let key = KeyId::from_bytes(&request.key_id).ok_or_else(|| malformed("key_id"))?;
        let id = match request.request_id.is_empty() {
            true => None,
            false => Some(RequestId::from_bytes(&request.request_id).ok_or_else(|| malformed("request_id"))?),
        };
        // Text with NUL is in no row, and an error of the database.
        if request.client_request_id.contains('\0') {
            return Ok(None);
        }
        let found = async {
            let mut tx = self.store.tenant(org).await?;
            request_lookup::of_key(&mut tx, key, id, &request.client_request_id, now()).await
        };
        found.await.map_err(|error: StoreError| {
            tracing::warn!(%error, "a request could not be looked up");
            Status::unavailable("the request log can't be read now")
        })
    }

    async fn write(&self, mut rows: Vec<Row>, journal: &Journal) -> Result<Ingested, Status> {
        let mut sum = Ingested::default();
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(MAX_BATCH));
            let part = self.store.ingest_usage(journal, rows, &self.known_days).await.map_err(|error| {
                tracing::warn!(node = journal.node_id, %error, "usage events wait for the database");
                self.metrics.failed();
                // The node keeps them and sends them again.
                Status::unavailable("the request log can't be written now")
            })?;
            sum.add(&part);
            rows = rest;
        }
        Ok(sum)
    }
}

/// Tells operators what of a batch should not have been.
fn tell(node: &str, ingested: &Ingested) {
    if ingested.expired > 0 {
        let events = ingested.expired;
        tracing::error!(
            node,
            events,
            "usage events are older than what retention keeps; their money is settled, they are not logged"
        );
    }
    if ingested.ahead > 0 {
        let events = ingested.ahead;
        tracing::error!(
            node,
            events,
            "usage events are of a time more than a day ahead: the node's clock is wrong; their money is settled, they \
             are not logged"
        );
    }
    let settled = &ingested.settled;
    if settled.overrun_nanos > 0 {
        let nanos = settled.overrun_nanos;
        tracing::warn!(node, nanos, "requests cost more than was granted for them");
    }
    if settled.unknown > 0 {
        let budgets = settled.unknown;
        tracing::warn!(node, budgets, "requests were charged to budgets that are gone");
    }
    if settled.refused > 0 {
        let charges = settled.refused;
        tracing::error!(node, charges, "charges could not be settled");
    }
}

fn now() -> OffsetDateTime {
    let micros = i128::from(nemo_runtime::clock::unix_us());
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[tonic::async_trait]
impl usage_service_server::UsageService for UsageService {
    type IngestStream = AckStream;

    async fn ingest(&self, request: Request<Streaming<UsageBatch>>) -> Result<Response<AckStream>, Status> {
        let state = Some((self.clone(), request.into_inner()));
        let acks = stream::unfold(state, |state| async {
            let (service, mut inbound) = state?;
            match service.next(&mut inbound).await {
                Ok(Some(ack)) => Some((Ok(ack), Some((service, inbound)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(acks)))
    }

    async fn get_request(
        &self,
        request: Request<GetRequestRequest>,
    ) -> Result<Response<GetRequestResponse>, Status> {
        let event = self.find(&request.into_inner()).await?;
        let event = event.ok_or_else(|| Status::not_found("the key has no such request"))?;
        Ok(Response::new(GetRequestResponse { event: Some(event) }))
    }
}

#[cfg(test)]
mod tests;
