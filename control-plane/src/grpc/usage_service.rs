//! `UsageService.Ingest`: batches in, acknowledgements out, in order. A batch is acknowledged after its commit.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use nemo_proto::usage::{UsageAck, UsageBatch, usage_service_server};
use nemo_runtime::drain::DrainWatcher;
use time::OffsetDateTime;
use tonic::{Request, Response, Status, Streaming};

use super::metrics::UsageMetrics;
use crate::{
    fleet::{Registry, registry::check_node_id},
    store::{
        Store,
        usage_ingest::{Ingested, KnownDays, MAX_BATCH, Row},
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
        for event in events {
            match Row::new(event, &node_id, now) {
                Ok(row) => rows.push(row),
                Err(reason) => {
                    malformed += 1;
                    self.metrics.malformed(reason);
                    if malformed <= LOGGED_PER_BATCH {
                        tracing::error!(node = node_id, %reason, "skipped a usage event");
                    }
                }
            }
        }
        let ingested = self.write(rows, &node_id).await?;
        self.metrics.ingested(&ingested);
        if ingested.expired > 0 {
            let events = ingested.expired;
            tracing::error!(
                node = node_id,
                events,
                "usage events are older than what retention keeps; skipped"
            );
        }
        Ok(UsageAck { through_seq, duplicates: u32::try_from(ingested.duplicates).unwrap_or(u32::MAX) })
    }

    async fn write(&self, mut rows: Vec<Row>, node_id: &str) -> Result<Ingested, Status> {
        let mut sum = Ingested::default();
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(MAX_BATCH));
            let part = self.store.ingest_usage(rows, &self.known_days).await.map_err(|error| {
                tracing::warn!(node = node_id, %error, "usage events wait for the database");
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
}

#[cfg(test)]
mod tests;
