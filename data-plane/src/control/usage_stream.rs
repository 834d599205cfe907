//! Ships usage events in batches, at least once. A batch is kept until it is acknowledged and sent again in the
//! next session otherwise; the control plane drops what it already has. Called by [`super`].

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use nemo_proto::{common::NodeInfo, fleet::RegisterResponse, usage::UsageAck};
use nemo_runtime::drain::DrainWatcher;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;

use super::{NodeChannel, metrics::ControlMetrics};
use crate::usage::{EncodedBatch, UsageBuffer, WAKE_AT};

/// When the control plane does not say.
const DEFAULT_FLUSH: Duration = Duration::from_millis(200);
const DEFAULT_BATCH: usize = 500;
const MAX_BATCH: usize = 1000;
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// The node's side of `UsageService.Ingest`, over all sessions.
pub struct UsageStream {
    info: NodeInfo,
    buffer: UsageBuffer,
    metrics: ControlMetrics,
    /// Taken from the buffer, not yet acknowledged.
    unacked: Vec<Bytes>,
    /// Sequence of the first unacknowledged event.
    next_seq: u64,
}

impl UsageStream {
    pub fn new(info: NodeInfo, buffer: UsageBuffer, metrics: ControlMetrics) -> Self {
        Self { info, buffer, metrics, unacked: Vec::new(), next_seq: 1 }
    }

    /// Events that are not acknowledged.
    pub fn waiting(&self) -> usize {
        self.unacked.len() + self.buffer.len()
    }

    /// One session. Ends with `Ok` when draining and everything is acknowledged, or when the server ends it.
    ///
    /// # Errors
    /// When the stream breaks or an acknowledgement does not come.
    pub async fn run(
        &mut self,
        channel: &NodeChannel,
        welcome: &RegisterResponse,
        drain: &DrainWatcher,
    ) -> Result<(), Status> {
        let flush = Some(welcome.usage_flush_ms).filter(|ms| *ms > 0);
        let flush = flush.map_or(DEFAULT_FLUSH, |ms| Duration::from_millis(ms.into()));
        let batch = Some(welcome.max_usage_batch as usize).filter(|max| *max > 0).unwrap_or(DEFAULT_BATCH);
        let (batches, outgoing) = mpsc::channel(1);
        let mut acks = ingest(channel.clone(), ReceiverStream::new(outgoing)).await?;
        loop {
            self.observe();
            // A message costs both planes more than an event: what is not yet worth one waits for company, but not long.
            if self.unacked.is_empty() && self.buffer.len() < WAKE_AT && !drain.is_draining() {
                tokio::select! {
                    () = tokio::time::sleep(flush) => {}
                    () = full_batch(&self.buffer) => {}
                    () = drain.signaled() => {}
                    // Nothing is owed: only the end of the stream can come.
                    ack = acks.message() => if ack?.is_none() { return Ok(()) },
                }
            }
            if self.unacked.is_empty() {
                self.unacked = self.buffer.take(batch.min(MAX_BATCH));
            }
            if self.unacked.is_empty() {
                if drain.is_draining() {
                    return Ok(());
                }
                continue;
            }
            batches.send(self.batch()).await.map_err(|_| Status::unavailable("the stream has ended"))?;
            let ack = tokio::time::timeout(ACK_TIMEOUT, acks.message());
            match ack.await.map_err(|_| Status::deadline_exceeded("no acknowledgement"))?? {
                Some(ack) => self.acknowledged(&ack),
                None => return Ok(()),
            }
        }
    }

    fn batch(&self) -> EncodedBatch {
        EncodedBatch {
            node_id: self.info.node_id.clone(),
            epoch: self.info.epoch,
            first_seq: self.next_seq,
            events: self.unacked.clone(),
            dropped_total: self.buffer.dropped(),
        }
    }

    fn acknowledged(&mut self, ack: &UsageAck) {
        let through = (ack.through_seq + 1).saturating_sub(self.next_seq);
        let count = usize::try_from(through).unwrap_or(usize::MAX).min(self.unacked.len());
        self.unacked.drain(..count);
        self.next_seq += count as u64;
        self.metrics.events_shipped.inc_by(count as u64);
    }

    fn observe(&self) {
        self.metrics.events_waiting.set(i64::try_from(self.waiting()).unwrap_or(i64::MAX));
        self.metrics.events_dropped.set(self.buffer.dropped());
    }
}

/// The wake-up of a batch that was taken meanwhile is none.
async fn full_batch(buffer: &UsageBuffer) {
    loop {
        buffer.full_batch().await;
        if buffer.len() >= WAKE_AT {
            return;
        }
    }
}

/// `UsageService.Ingest`, as the generated client would call it but for the type of the batch.
async fn ingest(
    channel: NodeChannel,
    batches: ReceiverStream<EncodedBatch>,
) -> Result<Streaming<UsageAck>, Status> {
    const INGEST: &str = "/nemo.usage.v1.UsageService/Ingest";
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<EncodedBatch, UsageAck>::default();
    let answer = client.streaming(Request::new(batches), PathAndQuery::from_static(INGEST), codec).await?;
    Ok(answer.into_inner())
}

#[cfg(test)]
mod tests;
