//! Ships usage events in batches, at least once: those of former epochs first, then this process's own. A batch is kept
//! until it is acknowledged and sent again in the next session otherwise, and what it was made of stays in the journal,
//! for a later process; the control plane drops what it already has. Called by [`super`].

use std::time::Duration;

use http::uri::PathAndQuery;
use nemo_proto::{common::NodeInfo, fleet::RegisterResponse, usage::UsageAck};
use nemo_runtime::drain::DrainWatcher;
use prost::Message as _;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;

use super::{NodeChannel, metrics::ControlMetrics};
use crate::usage::{EncodedBatch, Journal, WAKE_AT, journal::Batch};

/// When the control plane does not say.
const DEFAULT_FLUSH: Duration = Duration::from_millis(200);
const DEFAULT_BATCH: usize = 500;
const MAX_BATCH: usize = 1000;
const ACK_TIMEOUT: Duration = Duration::from_secs(30);

/// The node's side of `UsageService.Ingest`, over all sessions.
pub struct UsageStream {
    info: NodeInfo,
    journal: Journal,
    metrics: ControlMetrics,
    /// Taken from the journal, not yet acknowledged; never without an event.
    unacked: Option<Batch>,
    /// One that is being read from the disk. A session may end meanwhile; what was taken is owed by the next one.
    taking: Option<JoinHandle<Option<Batch>>>,
}

impl UsageStream {
    pub fn new(info: NodeInfo, journal: Journal, metrics: ControlMetrics) -> Self {
        Self { info, journal, metrics, unacked: None, taking: None }
    }

    /// Events that are not acknowledged.
    pub fn waiting(&self) -> usize {
        usize::try_from(self.journal.stats().waiting).unwrap_or(usize::MAX)
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
            let idle = self.unacked.is_none() && self.taking.is_none();
            if idle && self.journal.untaken() < WAKE_AT && !drain.is_draining() {
                tokio::select! {
                    () = tokio::time::sleep(flush) => {}
                    () = full_batch(&self.journal) => {}
                    () = drain.signaled() => {}
                    // Nothing is owed: only the end of the stream can come.
                    ack = acks.message() => if ack?.is_none() { return Ok(()) },
                }
            }
            if self.unacked.is_none() {
                self.unacked = self.take(batch.min(MAX_BATCH)).await;
            }
            let Some(unacked) = &self.unacked else {
                if drain.is_draining() {
                    return Ok(());
                }
                continue;
            };
            batches
                .send(self.batch(unacked))
                .await
                .map_err(|_| Status::unavailable("the stream has ended"))?;
            let ack = tokio::time::timeout(ACK_TIMEOUT, acks.message());
            match ack.await.map_err(|_| Status::deadline_exceeded("no acknowledgement"))?? {
                Some(ack) => self.acknowledged(&ack),
                None => return Ok(()),
            }
        }
    }

    /// What is behind comes from the disk, which may take its time. When the caller is dropped meanwhile, the next call
    /// returns what this one would have.
    async fn take(&mut self, max: usize) -> Option<Batch> {
        if self.taking.is_none() && !self.journal.has_backlog() {
            return self.journal.take(max);
        }
        let journal = self.journal.clone();
        let taking =
            self.taking.get_or_insert_with(|| tokio::task::spawn_blocking(move || journal.take(max)));
        let taken = taking.await;
        self.taking = None;
        taken.ok()?
    }

    fn batch(&self, unacked: &Batch) -> EncodedBatch {
        EncodedBatch {
            node_id: self.info.node_id.clone(),
            epoch: unacked.epoch,
            first_seq: unacked.first_seq,
            events: unacked.events.clone(),
            dropped_total: self.journal.stats().dropped,
        }
    }

    fn acknowledged(&mut self, ack: &UsageAck) {
        let Some(batch) = &mut self.unacked else { return };
        let through = (ack.through_seq + 1).saturating_sub(batch.first_seq);
        let count = usize::try_from(through).unwrap_or(usize::MAX).min(batch.events.len());
        batch.events.drop_first(count);
        batch.first_seq += count as u64;
        if batch.events.is_empty() {
            self.unacked = None;
        }
        self.journal.acknowledged(count);
        self.metrics.events_shipped.inc_by(count as u64);
    }

    fn observe(&self) {
        let stats = self.journal.stats();
        self.metrics.events_waiting.set(i64::try_from(stats.waiting).unwrap_or(i64::MAX));
        self.metrics.events_dropped.set(stats.dropped);
        self.metrics.journal_bytes.set(stats.bytes);
        self.metrics.journal_full.set(stats.full.into());
    }
}

/// The wake-up of a batch that was taken meanwhile is none.
async fn full_batch(journal: &Journal) {
    loop {
        journal.full_batch().await;
        if journal.untaken() >= WAKE_AT {
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
    let answer =
        client.streaming(Request::new(batches), PathAndQuery::from_static(INGEST), BatchCodec).await?;
    Ok(answer.into_inner())
}

/// As `ProstCodec`, but that room for a batch is made at once: it is hundreds of KiB long.
#[derive(Default)]
struct BatchCodec;

impl Codec for BatchCodec {
    type Encode = EncodedBatch;
    type Decode = UsageAck;
    type Encoder = Self;
    type Decoder = ProstDecoder<UsageAck>;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for BatchCodec {
    type Item = EncodedBatch;
    type Error = Status;

    fn encode(&mut self, batch: EncodedBatch, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(batch.encoded_len());
        batch.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
