//! The usage journal: a write-ahead log of what requests cost, so that each one that was sent is charged exactly once,
//! also across `kill -9`. Called by `pipeline` (before the first attempt is sent, and at the end of every request), by
//! `control::usage_stream` (which ships events and tells of acknowledgements) and by `control::quota_stream` (which ends
//! former epochs).
//!
//! What always holds:
//!
//! 1. A request that got a [`Ticket`] becomes exactly one event: the one that closes it, or, when the process dies
//!    before, the one that was written when it was opened, with the charges that it was last extended to.
//! 2. What a call has written survives the process when the call returns, and the machine after the next sync (50 ms).
//! 3. An event is given out again, by this process or a later one, until it is acknowledged, and never after its segment
//!    is gone. The receiver knows an event by its request's id: twice is once.
//! 4. Segments are deleted whole, oldest first, when all their events are acknowledged and no open request needs them;
//!    requests that stay open for long are written again at the end.
//! 5. All files together are at most `max_bytes`. Before that is reached [`Journal::opened`] refuses; events still
//!    come through, and the oldest ones that were not acknowledged make room, counted and logged.
//!
//! What it costs (2 cores, ext4): storing a record of 350 bytes into mapped memory takes 0.11 to 0.14 µs of CPU with its
//! page faults, `pwrite` into the same allocated file 0.28 µs, into one that grows 0.5 µs. What is written costs the kernel
//! as much again, for page faults and for syncing it, so little is written: what events have in common once in a segment,
//! see [`shapes`]; and what is sent is not read back, see [`fresh`]. `cargo bench -p nemo-data-plane --bench journal` tells
//! what a request takes in all.

mod fresh;
mod keeper;
mod log;
mod marker;
#[cfg(test)]
pub mod model;
mod reader;
mod record;
mod recovery;
mod shapes;
mod storage;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool},
    thread::Thread,
};

use nemo_proto::usage::{Charge, UsageEvent};
use nemo_types::Nanos;
use prost::Message as _;
use tokio::sync::Notify;

use self::{
    log::{Chain, Log},
    marker::Marker,
    shapes::Draft,
};
pub use self::{
    log::{Full, Limits, Ticket},
    reader::Batch,
    recovery::Recovered,
    storage::{Directory, SegmentFile, Storage},
};
use super::{Event, WAKE_AT};

/// Of a segment, in bytes.
pub const SEGMENT: usize = 16 << 20;
/// Of events that are kept in memory, in bytes.
pub const MEMORY: usize = 16 << 20;
/// Smallest bound that a journal works with.
pub const MIN_SEGMENTS: u64 = 4;

thread_local! {
    static DRAFT: RefCell<Draft> = RefCell::default();
}

/// Who writes.
#[derive(Clone, Debug)]
pub struct Writer {
    pub epoch: u64,
    /// Of the machine's kernel; empty: unknown.
    pub boot_id: String,
}

/// For metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// What the files take.
    pub bytes: u64,
    /// Requests on hard budgets are refused.
    pub full: bool,
    /// Events that are not acknowledged.
    pub waiting: u64,
    /// Since the start of this process.
    pub dropped: u64,
}

/// Clones share the journal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    /// Never taken by a request.
    removing: Mutex<()>,
    storage: Arc<dyn Storage>,
    limits: Limits,
    /// A batch has filled up.
    full_batch: Notify,
    /// Something was written since the last sync.
    dirty: AtomicBool,
    keeper: OnceLock<Thread>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Begins the epoch of this process, and takes over what former ones have left.
    ///
    /// # Errors
    /// When the disk refuses, or `limits` are too small.
    pub fn open(
        storage: Arc<dyn Storage>,
        limits: Limits,
        writer: Writer,
    ) -> io::Result<(Self, Vec<Recovered>)> {
        let least = MIN_SEGMENTS * limits.segment as u64;
        if limits.max < least || limits.segment > record::MAX_PAYLOAD + 1 {
            let message = format!("journal.max_bytes: expected at least {least}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut next_id = 1;
        let former = recovery::recover(&*storage, &writer.boot_id, writer.epoch, &mut next_id)?;
        let marker = Marker { boot_id: writer.boot_id.clone(), exact: true, clean: false };
        marker.write(&*storage, writer.epoch);
        let mut log = Log::new(storage.clone(), limits, writer.boot_id, Chain::new(writer.epoch, true));
        log.next_id = next_id;
        let mut reports = Vec::new();
        for (chain, report) in former {
            log.bytes += chain.segments.iter().map(|it| it.size).sum::<u64>();
            log.untaken += report.events + report.lost;
            log.former.push_back(chain);
            reports.push(report);
        }
        log.unacked = log.untaken;
        log.end_former();
        let shared = Shared {
            log: Mutex::new(log),
            removing: Mutex::new(()),
            storage,
            limits,
            full_batch: Notify::new(),
            dirty: AtomicBool::new(false),
            keeper: OnceLock::new(),
        };
        Ok((Self { shared: Arc::new(shared) }, reports))
    }

    /// Writes down that a request is about to be sent, with the event that it becomes if nothing else is heard of it.
    ///
    /// # Errors
    /// [`Full`]: if it cannot be billed, it must not be sent.
    pub fn opened(&self, event: &Event<'_>) -> Result<Ticket, Full> {
        DRAFT.with_borrow_mut(|draft| {
            draft.event(event);
            let ticket = self.shared.log().open(draft);
            // Also when it is full: the keeper tries whether there is room again.
            self.shared.wake_keeper();
            ticket
        })
    }

    /// Replaces the charges and the cost that an open request would be charged with.
    pub fn extended(&self, ticket: &Ticket, charges: &[Charge], cost: Nanos) {
        let change =
            UsageEvent { cost_nanos: Some(cost.0), charges: charges.to_vec(), ..UsageEvent::default() };
        DRAFT.with_borrow_mut(|draft| {
            draft.message(|text| change.encode_raw(text));
            self.shared.log().extend(draft, ticket);
        });
        self.shared.wake_keeper();
    }

    /// Writes down what became of a request. One that was never sent may have no ticket.
    pub fn closed(&self, ticket: Option<Ticket>, event: &Event<'_>) {
        let waiting = DRAFT.with_borrow_mut(|draft| {
            draft.event(event);
            let mut log = self.shared.log();
            log.close(draft, ticket).then_some(log.untaken)
        });
        self.shared.wake_keeper();
        if waiting == Some(WAKE_AT as u64) {
            self.shared.full_batch.notify_one();
        }
    }

    /// The oldest events that were not taken yet, at most `max`, all of one epoch. They are the caller's to send until
    /// they are acknowledged. Reads files: a long backlog is better taken where blocking is allowed.
    pub fn take(&self, max: usize) -> Option<Batch> {
        let mut batch = self.shared.log().begin_batch(max)?;
        while reader::has_room(&batch, max) {
            let Some(place) = self.shared.log().place(batch.epoch) else { break };
            let (count, bytes) = (batch.events.len(), batch.events.bytes());
            let found = reader::look(&place, max - count, bytes);
            if !self.shared.log().found(&place, found, &mut batch) {
                break;
            }
        }
        Some(batch).filter(|batch| !batch.events.is_empty())
    }

    /// The first `count` events of those that were taken need not be kept any more.
    pub fn acknowledged(&self, count: usize) {
        self.shared.log().acknowledge(count as u64);
        self.shared.wake_keeper();
    }

    /// Events that were not taken.
    pub fn untaken(&self) -> usize {
        usize::try_from(self.shared.log().untaken).unwrap_or(usize::MAX)
    }

    /// Whether events are to be taken that have to come from the disk.
    pub fn has_backlog(&self) -> bool {
        let log = self.shared.log();
        !log.former.is_empty() || !log.fresh.is_complete()
    }

    /// Resolves when a batch has filled up.
    pub async fn full_batch(&self) {
        self.shared.full_batch.notified().await;
    }

    pub fn stats(&self) -> Stats {
        let log = self.shared.log();
        Stats { bytes: log.bytes, full: log.is_full(), waiting: log.unacked, dropped: log.dropped }
    }
}

/// The kernel's boot id of this machine; empty where there is none.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
