//! Ships usage events in batches, at least once. A batch is kept until it is acknowledged and sent again in the
//! next session otherwise; the control plane drops what it already has. Called by [`super`].

use std::time::Duration;

use nemo_proto::{
    common::NodeInfo,
    fleet::RegisterResponse,
    usage::{UsageAck, UsageBatch, UsageEvent, usage_service_client::UsageServiceClient},
};
use nemo_runtime::drain::DrainWatcher;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{NodeChannel, metrics::ControlMetrics};
use crate::usage::UsageBuffer;

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
    unacked: Vec<UsageEvent>,
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
        let mut client = UsageServiceClient::new(channel.clone());
        let mut acks = client.ingest(ReceiverStream::new(outgoing)).await?.into_inner();
        loop {
            if self.unacked.is_empty() {
                self.unacked = self.buffer.take(batch.min(MAX_BATCH));
            }
            self.observe();
            if self.unacked.is_empty() {
                if drain.is_draining() {
                    return Ok(());
                }
                tokio::select! {
                    () = tokio::time::sleep(flush) => {}
                    () = self.buffer.full_batch() => {}
                    () = drain.signaled() => {}
                    // Nothing is owed: only the end of the stream can come.
                    ack = acks.message() => if ack?.is_none() { return Ok(()) },
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

    fn batch(&self) -> UsageBatch {
        UsageBatch {
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
