//! Usage events on their way to the control plane: a bounded buffer that counts what it drops. Events are encoded
//! when they are made, one behind the other into large chunks of memory: they are sent from the same bytes, as often
//! as it takes.
//!
//! Filled by `pipeline::context` at the end of every request, emptied by `control::usage_stream`. Pushing takes a
//! short lock and wakes nobody unless a batch is full: shipping is paced by a timer.

mod batch;
mod event;

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

pub use self::{batch::EncodedBatch, event::Event};

/// Events kept while the control plane is away: about 20 MB.
pub const CAPACITY: usize = 65_536;
/// A waiting shipper is woken when so many events wait.
pub const WAKE_AT: usize = 500;

/// Events of one thread share chunks of this size.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static PRESS: RefCell<Press> = RefCell::default();
}

/// Encodes events without an allocation for each.
#[derive(Default)]
struct Press {
    line: Vec<u8>,
    chunk: BytesMut,
}

impl Press {
    fn encode(&mut self, event: &Event<'_>) -> Bytes {
        self.line.clear();
        event.encode(&mut self.line);
        if self.chunk.capacity() < self.line.len() {
            self.chunk = BytesMut::with_capacity(CHUNK.max(self.line.len()));
        }
        self.chunk.extend_from_slice(&self.line);
        self.chunk.split().freeze()
    }
}

/// Clones share the buffer.
#[derive(Clone)]
pub struct UsageBuffer {
    shared: Arc<Shared>,
}

struct Shared {
    events: Mutex<VecDeque<Bytes>>,
    capacity: usize,
    dropped: AtomicU64,
    full_batch: Notify,
}

impl UsageBuffer {
    pub fn new(capacity: usize) -> Self {
        let shared = Shared {
            events: Mutex::default(),
            capacity,
            dropped: AtomicU64::new(0),
            full_batch: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds an event; when the buffer is full, the oldest one is dropped and counted.
    pub fn push(&self, event: &Event<'_>) {
        let event = PRESS.with_borrow_mut(|press| press.encode(event));
        let waiting = {
            let mut events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() == self.shared.capacity {
                events.pop_front();
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
            events.push_back(event);
            events.len()
        };
        if waiting == WAKE_AT {
            self.shared.full_batch.notify_one();
        }
    }

    /// The oldest events, encoded, at most `max`.
    pub fn take(&self, max: usize) -> Vec<Bytes> {
        let mut events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        let count = events.len().min(max);
        events.drain(..count).collect()
    }

    pub fn len(&self) -> usize {
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since the start of this process.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Resolves when a batch has filled up.
    pub async fn full_batch(&self) {
        self.shared.full_batch.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use nemo_proto::usage::UsageEvent;
    use prost::Message as _;

    use super::*;

    /// I12: bounded, and what is lost is counted.
    #[test]
    fn i12_a_full_buffer_drops_the_oldest_and_counts_it() {
        let buffer = UsageBuffer::new(3);
        (0..5).for_each(|at| buffer.push(&Event::blank(at)));
        assert_eq!((buffer.len(), buffer.dropped()), (3, 2));
        let decode = |event: &Bytes| UsageEvent::decode(event.clone()).unwrap().attempts;
        let kept: Vec<_> = buffer.take(2).iter().map(decode).collect();
        assert_eq!(kept, [2, 3]);
        assert_eq!(buffer.take(9).len(), 1);
        assert!(buffer.is_empty());
    }

    #[test]
    fn events_of_all_sizes_share_chunks_and_stay_whole() {
        let buffer = UsageBuffer::new(CAPACITY);
        let metadata = "m".repeat(CHUNK + 1);
        let sizes = [0, 1, 5000, CHUNK - 100, CHUNK + 1, 3, 4096, 60_000, 0];
        sizes.iter().for_each(|size| buffer.push(&Event { metadata: &metadata[..*size], ..Event::blank(1) }));
        let events = buffer.take(usize::MAX);
        let decoded = events.iter().map(|event| UsageEvent::decode(event.clone()).unwrap().metadata.len());
        assert_eq!(decoded.collect::<Vec<_>>(), sizes);
    }

    #[tokio::test]
    async fn the_shipper_is_woken_by_a_full_batch_only() {
        use futures_util::FutureExt as _;
        let buffer = UsageBuffer::new(CAPACITY);
        (1..WAKE_AT).for_each(|_| buffer.push(&Event::blank(0)));
        assert!(buffer.full_batch().now_or_never().is_none());
        buffer.push(&Event::blank(0));
        buffer.full_batch().await;
    }
}
