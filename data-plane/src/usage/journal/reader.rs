//! Finds the events in the journal that were not given out yet. Reads outside of the lock: what is in a segment does not
//! change, it only grows. Called by [`super::Journal::take`].

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    log::{Log, Origin, Segment},
    record::{self, Kind},
    shapes::{self, Whole},
    storage::SegmentFile,
};
use crate::usage::{Events, batch::put_head};

/// Read at once; a longer record is read whole.
const CHUNK: usize = 256 * 1024;
/// What an event takes about, with what is between it and the next: so that little is read twice.
const EACH: usize = 400;
/// Events of one batch have at most so many bytes together, but for a single one that has more.
const BATCH_BYTES: usize = 1 << 20;

/// Events of one epoch, encoded, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub epoch: u64,
    /// Sequence of the first; the others follow without gap. Counts what this process has given out of the epoch.
    pub first_seq: u64,
    pub events: Events,
}

/// Where to look next.
pub struct Place {
    pub epoch: u64,
    id: u64,
    file: Arc<dyn SegmentFile>,
    run: Range<usize>,
}

/// What was found there.
pub struct Found {
    events: Events,
    /// Up to where everything was found.
    at: usize,
    /// Something else than records is there.
    damaged: bool,
    /// The batch takes no more.
    full: bool,
}

impl Log {
    /// Begins a batch: with events of requests that were lost, or with those that are in memory, if there are any; else
    /// with none.
    pub fn begin_batch(&mut self, max: usize) -> Option<Batch> {
        let wanted = |segment: &Segment| segment.taken < segment.closed;
        let mut chains = self.former.iter_mut().chain(std::iter::once(&mut self.live));
        let chain = chains.find(|chain| !chain.lost.is_empty() || chain.segments.iter().any(wanted))?;
        let mut batch = Batch { epoch: chain.epoch, first_seq: chain.event_seq, events: Events::default() };
        let lost = chain.lost.len().min(max);
        chain.lost.drain(..lost).for_each(|event| batch.events.push_message(&event));
        chain.event_seq += lost as u64;
        drop(chains);
        if lost > 0 {
            self.untaken -= lost as u64;
            self.given.push_back((Origin::Lost { epoch: batch.epoch }, lost as u64));
        } else if batch.epoch == self.live.epoch {
            batch.events = self.take_fresh(max);
        }
        Some(batch)
    }

    fn take_fresh(&mut self, max: usize) -> Events {
        let (events, runs) = self.fresh.take(max, BATCH_BYTES);
        for run in runs {
            if let Some(segment) = self.live.segment(run.segment) {
                segment.taken += run.count;
                if let Some(unread) = segment.unread.front_mut() {
                    unread.start = run.next;
                }
            }
            self.given.push_back((Origin::Segment { id: run.segment }, run.count));
        }
        self.live.event_seq += events.len() as u64;
        self.untaken -= events.len() as u64;
        events
    }

    /// The next place in this epoch where events are that can't be had without reading.
    pub fn place(&self, epoch: u64) -> Option<Place> {
        if epoch == self.live.epoch && self.fresh.is_complete() {
            return None;
        }
        let chain = self.former.iter().chain([&self.live]).find(|chain| chain.epoch == epoch)?;
        let segment = chain.segments.iter().find(|it| it.taken < it.closed)?;
        let run = segment.unread.front()?.clone();
        Some(Place { epoch, id: segment.id, file: segment.file.clone(), run })
    }

    /// Adds what was found to the batch, unless it was dropped meanwhile. Whether to look further.
    pub fn found(&mut self, place: &Place, found: Found, batch: &mut Batch) -> bool {
        let chains = self.former.iter_mut().chain([&mut self.live]);
        let Some(chain) = chains.into_iter().find(|chain| chain.epoch == place.epoch) else { return true };
        let Some(segment) = chain.segments.iter_mut().find(|it| it.id == place.id) else { return true };
        let count = found.events.len() as u64;
        segment.taken += count;
        chain.event_seq += count;
        self.untaken -= count;
        if count > 0 {
            self.given.push_back((Origin::Segment { id: place.id }, count));
        }
        let mut damaged = found.damaged;
        let runs = segment.unread.len();
        if let Some(run) = segment.unread.front_mut() {
            run.start = found.at;
            match run.len() {
                0 if runs > 1 => drop(segment.unread.pop_front()),
                0 => damaged |= segment.taken < segment.closed,
                _ => {}
            }
        }
        if damaged {
            let events = segment.closed - segment.taken;
            segment.closed = segment.taken;
            segment.unread = std::iter::once(segment.end..segment.end).collect();
            self.untaken -= events;
            self.unacked -= events;
            self.dropped += events;
            tracing::error!(
                events,
                epoch = place.epoch,
                name = segment.name,
                "a segment of the usage journal is damaged: events are lost"
            );
            self.spoil(place.epoch);
            self.end_former();
        }
        batch.events.append(found.events);
        if place.epoch == self.live.epoch && self.live.segments.iter().all(|it| it.taken == it.closed) {
            self.fresh.caught_up();
        }
        !found.full
    }
}

/// At most `max` more events, and no more than fit into a batch that has `bytes` already.
pub fn look(place: &Place, max: usize, mut bytes: usize) -> Found {
    let mut found = Found { events: Events::default(), at: place.run.start, damaged: false, full: false };
    let Some((chunk, partial)) = chunk(place, max) else { return Found { damaged: true, ..found } };
    let (mut at, mut count, mut shape) = (0, 0, None::<(u32, Bytes)>);
    let mut events = BytesMut::with_capacity(chunk.len());
    while at < chunk.len() {
        // What is not given out need not be checked: if its length is wrong, nothing that follows is a record.
        if let Some(next) = record::skip(&chunk, at, Kind::Closed) {
            at = next;
            continue;
        }
        let Some(record) = record::read(&chunk, at, place.epoch) else {
            // Cut off by the chunk, not by the disk.
            found.damaged = at == 0 || !partial;
            break;
        };
        if record.kind == Kind::Closed {
            let payload = chunk.get(record.payload).unwrap_or_default();
            let known = match record.shape {
                0 => None,
                at if shape.as_ref().is_some_and(|(read, _)| *read == at) => shape.as_ref().map(|(_, it)| it),
                at => {
                    shape = shapes::read_file(&*place.file, at, place.epoch).map(|it| (at, it));
                    shape.as_ref().map(|(_, it)| it)
                }
            };
            let whole =
                Whole::read(payload, known.map(|it| &**it)).filter(|_| known.is_some() == (record.shape > 0));
            let Some(event) = whole else {
                found.damaged = true;
                break;
            };
            let size = event.len();
            if count == max || (bytes > 0 && bytes + size > BATCH_BYTES) {
                found.full = true;
                break;
            }
            (bytes, count) = (bytes + size, count + 1);
            put_head(&mut events, size);
            event.put(&mut events);
        }
        at = record.next;
    }
    if count > 0 {
        found.events.push(events.freeze(), count);
    }
    found.at += at;
    found
}

/// What to search, and whether there is more of the run.
fn chunk(place: &Place, max: usize) -> Option<(Vec<u8>, bool)> {
    let all = place.run.len();
    let read = |len: usize| match place.file.read(place.run.start as u64, len) {
        Ok(chunk) => Some(chunk).filter(|chunk| chunk.len() == len),
        Err(error) => {
            tracing::error!(%error, "a segment of the usage journal can't be read");
            None
        }
    };
    let wanted = max.saturating_mul(EACH).clamp(CHUNK / 16, CHUNK);
    let first = read(all.min(wanted))?;
    match record::claimed(&first, 0) {
        Some(size) if size > first.len() => read(size.min(all)).map(|chunk| (chunk, size < all)),
        _ => Some((first, all > wanted)),
    }
}

/// Whether a batch can take more.
pub fn has_room(batch: &Batch, max: usize) -> bool {
    batch.events.len() < max && batch.events.bytes() < BATCH_BYTES
}
