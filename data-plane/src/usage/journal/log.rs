//! What is in the journal, and the one place where records are added. Everything here runs under the journal's lock:
//! adding a record is one copy into the page cache, and only a change of segments touches the file system.

mod acknowledge;
mod carry;

use std::{collections::VecDeque, io, ops::Range, sync::Arc};

use bytes::Bytes;

use self::carry::Payloads;
use super::{
    fresh::Fresh,
    marker::Marker,
    record::{self, Kind, SEGMENT_HEAD},
    shapes::{self, Draft, Shapes},
    storage::{SegmentFile, Storage},
};

/// Made ahead, so that nobody waits for it.
pub const SPARE: &str = "spare.tmp";

/// Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub segment: usize,
    /// Of all files together; at least four segments.
    pub max: u64,
    /// Of events that are kept in memory as well, so that they need not be read back.
    pub memory: usize,
}

/// Where a record lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    at: usize,
    len: usize,
}

/// A request that was opened and is not closed.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Of its first `Opened`; 0: nobody's place.
    seq: u64,
    opened: Place,
    extended: Option<Place>,
}

/// What the journal gave for an opened request, and takes back when it is over.
#[derive(Debug)]
#[must_use = "the request is charged as it was reserved if nobody closes it"]
pub struct Ticket {
    seq: u64,
    slot: u32,
}

/// The journal can't take it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the usage journal is full")]
pub struct Full;

pub struct Segment {
    /// Counts up in this process; in the live chain without gap.
    pub id: u64,
    pub name: String,
    pub file: Arc<dyn SegmentFile>,
    /// What it takes on the disk.
    pub size: u64,
    /// Where records are that nobody has looked for events in yet.
    pub unread: VecDeque<Range<usize>>,
    pub end: usize,
    /// Events in it, those of them that were given out, and those that need not be kept.
    pub closed: u64,
    pub taken: u64,
    pub acked: u64,
    /// Requests that are open, and are so in this segment.
    pub open: u64,
    pub unsynced: bool,
}

impl Segment {
    fn is_done(&self) -> bool {
        self.acked == self.closed
    }
}

/// The segments of one epoch, oldest first.
pub struct Chain {
    pub epoch: u64,
    /// Sequence of the next event that is given out.
    pub event_seq: u64,
    pub segments: VecDeque<Segment>,
    /// Events of requests that were never closed, not given out yet. They come first: the segments that tell of them
    /// may be deleted as soon as their own events are acknowledged.
    pub lost: VecDeque<Bytes>,
    pub lost_unacked: u64,
    /// Nothing of it is missing.
    pub exact: bool,
}

impl Chain {
    pub fn new(epoch: u64, exact: bool) -> Self {
        let (segments, lost) = (VecDeque::new(), VecDeque::new());
        Self { epoch, event_seq: 1, segments, lost, lost_unacked: 0, exact }
    }

    pub fn segment(&mut self, id: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|it| it.id == id)
    }
}

/// Where events came from that were given out.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    Lost { epoch: u64 },
    Segment { id: u64 },
}

pub struct Log {
    pub storage: Arc<dyn Storage>,
    pub limits: Limits,
    pub boot_id: String,
    /// Epochs of earlier processes, oldest first.
    pub former: VecDeque<Chain>,
    pub live: Chain,
    /// Events of the live chain.
    pub fresh: Fresh,
    /// Of the active segment.
    shapes: Shapes,
    next_seq: u64,
    pub next_id: u64,
    open: Vec<Open>,
    free: Vec<u32>,
    spare: Option<Arc<dyn SegmentFile>>,
    /// What all files take.
    pub bytes: u64,
    /// Events that were not given out, and those that are not acknowledged.
    pub untaken: u64,
    pub unacked: u64,
    /// Since the start of this process.
    pub dropped: u64,
    /// Given out and not acknowledged, in order.
    pub given: VecDeque<(Origin, u64)>,
    /// Whole epochs that are acknowledged, and whether nothing of them was lost.
    pub over: Vec<(u64, bool)>,
    /// Files that nobody needs, to be removed by the keeper.
    pub graveyard: Vec<String>,
    /// The disk refused a segment the last time.
    cramped: bool,
    /// Events are being dropped.
    overflowing: bool,
    /// The marker says that everything was synced.
    pub clean: bool,
}

impl Log {
    pub fn new(storage: Arc<dyn Storage>, limits: Limits, boot_id: String, live: Chain) -> Self {
        Self {
            storage,
            limits,
            boot_id,
            former: VecDeque::new(),
            live,
            fresh: Fresh::new(limits.memory),
            shapes: Shapes::default(),
            next_seq: 1,
            next_id: 1,
            open: Vec::new(),
            free: Vec::new(),
            spare: None,
            bytes: 0,
            untaken: 0,
            unacked: 0,
            dropped: 0,
            given: VecDeque::new(),
            over: Vec::new(),
            graveyard: Vec::new(),
            cramped: false,
            overflowing: false,
            clean: false,
        }
    }

    /// A request is about to be sent.
    pub fn open(&mut self, event: &mut Draft) -> Result<Ticket, Full> {
        if self.is_full() {
            return Err(Full);
        }
        let (seq, opened) = self.append(event, Kind::Opened, 0)?;
        let place = Open { seq, opened, extended: None };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.open.push(place);
                u32::try_from(self.open.len() - 1).map_err(|_| Full)?
            }
        };
        if let Some(free) = self.open.get_mut(slot as usize) {
            *free = place;
        }
        self.pin(opened.segment, true);
        Ok(Ticket { seq, slot })
    }

    pub fn extend(&mut self, change: &mut Draft, ticket: &Ticket) {
        let Ok((_, place)) = self.append(change, Kind::Extended, ticket.seq) else {
            // Were the process to die, the request would be charged less than it may have cost.
            return self.spoil_live();
        };
        if let Some(open) = self.open.get_mut(ticket.slot as usize).filter(|it| it.seq == ticket.seq) {
            open.extended = Some(place);
        }
    }

    /// Whether the event was written.
    pub fn close(&mut self, event: &mut Draft, ticket: Option<Ticket>) -> bool {
        let written = self.append(event, Kind::Closed, ticket.as_ref().map_or(0, |it| it.seq));
        let is_written = written.is_ok();
        if let Ok((_, place)) = written {
            if let Some(active) = self.live.segments.back_mut() {
                active.closed += 1;
            }
            self.fresh.push(place.segment, place.at + place.len, &event.whole());
            self.untaken += 1;
            self.unacked += 1;
        } else {
            self.dropped += 1;
            self.spoil_live();
        }
        if let Some(ticket) = ticket
            && let Some(open) = self.open.get_mut(ticket.slot as usize).filter(|it| it.seq == ticket.seq)
        {
            let segment = open.opened.segment;
            open.seq = 0;
            self.free.push(ticket.slot);
            self.pin(segment, false);
        }
        is_written
    }

    /// No further request that must be billed: what is left is for the endings of those that were taken.
    pub fn is_full(&self) -> bool {
        let active = self.live.segments.back().map_or(usize::MAX, |it| it.end);
        self.spare.is_none() && !self.has_room() && (self.overflowing || active > self.limits.segment / 2)
    }

    fn has_room(&self) -> bool {
        !self.cramped && self.bytes + self.limits.segment as u64 <= self.limits.max
    }

    fn pin(&mut self, segment: u64, open: bool) {
        let Some(first) = self.live.segments.front().map(|it| it.id) else { return };
        let at = usize::try_from(segment.wrapping_sub(first)).unwrap_or(usize::MAX);
        if let Some(segment) = self.live.segments.get_mut(at) {
            segment.open = if open { segment.open + 1 } else { segment.open.saturating_sub(1) };
        }
    }

    fn append(&mut self, draft: &mut Draft, kind: Kind, ticket: u64) -> Result<(u64, Place), Full> {
        if std::mem::take(&mut self.clean) {
            self.mark();
        }
        // Again in a fresh segment where there is no room, or when nobody knows what is in one that was not written.
        for _ in 0..4 {
            let shape = self.shape(draft);
            let (line, crc) = draft.line(shape > 0);
            if self.has_place(line.len()) {
                if let Ok(written) = self.write(line, crc, (kind, ticket), shape) {
                    return Ok(written);
                }
            } else {
                self.rotate(line.len())?;
            }
        }
        Err(Full)
    }

    /// Where the active segment has the shape of this; 0: nowhere.
    fn shape(&mut self, draft: &Draft) -> u32 {
        let Some(shape) = draft.shape() else { return 0 };
        let hash = match self.shapes.find(shape) {
            shapes::Place::At(at) => return at,
            shapes::Place::Wanted(hash) => hash,
            shapes::Place::None => return 0,
        };
        let mut line = Vec::new();
        let crc = record::press(&mut line, |line| line.extend_from_slice(shape));
        if !self.has_place(line.len()) {
            return 0;
        }
        let Ok((_, place)) = self.write(&mut line, crc, (Kind::Shape, 0), 0) else { return 0 };
        let at = u32::try_from(place.at).unwrap_or(0);
        self.shapes.written(hash, shape, at);
        at
    }

    fn has_place(&self, len: usize) -> bool {
        let end = self.live.segments.back().map_or(usize::MAX, |it| it.end);
        end.saturating_add(len) <= self.limits.segment
    }

    /// Adds one record to the active segment; where that fails nothing more is added to it.
    fn write(
        &mut self,
        line: &mut [u8],
        crc: u32,
        (kind, ticket): (Kind, u64),
        shape: u32,
    ) -> Result<(u64, Place), Full> {
        let seq = self.next_seq;
        let ticket = if kind == Kind::Opened && ticket == 0 { seq } else { ticket };
        record::seal(line, crc, kind, (self.live.epoch, seq, ticket), shape);
        let active = self.live.segments.back_mut().ok_or(Full)?;
        if let Err(error) = active.file.write(active.end as u64, line) {
            tracing::error!(%error, "a segment of the usage journal can't be written, going on in another");
            active.end = self.limits.segment;
            return Err(Full);
        }
        let place = Place { segment: active.id, at: active.end, len: line.len() };
        active.end += line.len();
        active.unsynced = true;
        if let Some(unread) = active.unread.back_mut() {
            unread.end = active.end;
        }
        self.next_seq += 1;
        Ok((seq, place))
    }

    /// Makes another segment the active one, if need be at the price of the oldest.
    fn rotate(&mut self, need: usize) -> Result<(), Full> {
        if SEGMENT_HEAD + need > self.limits.segment {
            return Err(Full);
        }
        let mut carried = Vec::new();
        let begun = self.begin_at_any_price(&mut carried);
        if begun.is_err() && !carried.is_empty() {
            // They are under way, and nothing tells of them any more.
            self.spoil_live();
        }
        begun?;
        for (slot, payloads) in carried {
            self.write_again(slot, payloads);
        }
        Ok(())
    }

    /// What has to be written again for it is added to `carried`, also when nothing comes of it.
    fn begin_at_any_price(&mut self, carried: &mut Vec<(usize, Payloads)>) -> Result<(), Full> {
        // Not on and on: what is freed may go to somebody else on a full disk.
        for again in [true, true, false] {
            match self.begin_segment() {
                Ok(()) => return Ok(()),
                Err(error) if again => carried.extend(self.drop_oldest(&error).ok_or(Full)?),
                Err(_) => {}
            }
        }
        Err(Full)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let name = segment_name(self.live.epoch, self.next_seq);
        let spare = self.spare.take();
        let file = match spare.map(|file| self.storage.rename(SPARE, &name).map(|()| file)) {
            Some(Ok(file)) => file,
            Some(Err(error)) => {
                self.bytes -= self.limits.segment as u64;
                let _ = self.storage.remove(SPARE);
                return Err(error);
            }
            None => self.create(&name)?,
        };
        if let Err(error) = file.write(0, &record::segment_head(self.live.epoch, self.next_seq)) {
            self.bytes -= self.limits.segment as u64;
            let _ = self.storage.remove(&name);
            return Err(error);
        }
        self.live.segments.push_back(Segment {
            id: self.next_id,
            name,
            file,
            size: self.limits.segment as u64,
            unread: std::iter::once(SEGMENT_HEAD..SEGMENT_HEAD).collect(),
            end: SEGMENT_HEAD,
            closed: 0,
            taken: 0,
            acked: 0,
            open: 0,
            unsynced: true,
        });
        self.next_id += 1;
        self.shapes.clear();
        Ok(())
    }

    fn create(&mut self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        if self.bytes + self.limits.segment as u64 > self.limits.max {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "journal.max_bytes is reached"));
        }
        let made = self.storage.create(name, self.limits.segment as u64);
        self.cramped = made.is_err();
        if made.is_ok() {
            self.bytes += self.limits.segment as u64;
        }
        made
    }

    /// Makes room, and returns what is to be written again; `None`: there is nothing to drop.
    fn drop_oldest(&mut self, reason: &io::Error) -> Option<Vec<(usize, Payloads)>> {
        let former = self.former.iter_mut().position(|chain| !chain.segments.is_empty());
        let chain = match former.and_then(|at| self.former.get_mut(at)) {
            Some(chain) => chain,
            None if self.live.segments.len() > 1 => &mut self.live,
            None => return None,
        };
        let epoch = chain.epoch;
        let segment = chain.segments.pop_front()?;
        let events = segment.closed - segment.acked;
        // It may be what tells a later process of requests that were lost.
        if events > 0 || chain.lost_unacked > 0 {
            self.spoil(epoch);
        }
        let open = if epoch == self.live.epoch { self.open_in(&segment) } else { Vec::new() };
        self.fresh.forget(segment.id);
        self.untaken -= segment.closed - segment.taken;
        self.unacked -= events;
        self.dropped += events;
        self.bytes -= segment.size;
        if let Err(error) = self.storage.remove(&segment.name) {
            tracing::error!(%error, name = segment.name, "a segment of the usage journal can't be removed");
        }
        self.cramped = false;
        if events > 0 {
            self.overflowing = true;
            tracing::error!(events, epoch, dropped = self.dropped, %reason, "the usage journal is full: the oldest events that were not acknowledged are lost");
        }
        Some(open)
    }

    /// Files with something that is not synced, which they are taken for now.
    pub fn take_unsynced(&mut self) -> Vec<Arc<dyn SegmentFile>> {
        let segments = self.live.segments.iter_mut();
        segments.filter_map(|it| std::mem::take(&mut it.unsynced).then(|| it.file.clone())).collect()
    }

    /// Whether another segment should be made ahead.
    pub fn wants_spare(&self) -> bool {
        let active = self.live.segments.back().map_or(0, |it| it.end);
        let room = self.bytes + self.limits.segment as u64 <= self.limits.max;
        self.spare.is_none() && room && (active > self.limits.segment / 2 || self.cramped)
    }

    /// What became of the wish.
    pub fn spare(&mut self, made: io::Result<Arc<dyn SegmentFile>>) {
        match made {
            Ok(file) => {
                self.bytes += self.limits.segment as u64;
                (self.spare, self.cramped) = (Some(file), false);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.cramped, true) {
                    tracing::error!(%error, "no room for another segment of the usage journal");
                }
            }
        }
        self.overflowing &= self.spare.is_none();
    }

    /// Removes the spare: the process is about to end.
    pub fn drop_spare(&mut self) {
        if self.spare.take().is_some() {
            self.bytes -= self.limits.segment as u64;
            self.graveyard.push(SPARE.to_owned());
        }
    }

    /// Something of this epoch is missing, and a later process must know.
    pub fn spoil(&mut self, epoch: u64) {
        if epoch == self.live.epoch {
            return self.spoil_live();
        }
        let chain = self.former.iter_mut().find(|chain| chain.epoch == epoch);
        if chain.is_some_and(|chain| std::mem::take(&mut chain.exact)) {
            Marker { boot_id: self.boot_id.clone(), exact: false, clean: false }.write(&*self.storage, epoch);
        }
    }

    /// The same of the live epoch.
    pub fn spoil_live(&mut self) {
        if std::mem::take(&mut self.live.exact) {
            self.mark();
        }
    }

    /// Writes down how the live epoch is.
    pub fn mark(&self) {
        let marker = Marker { boot_id: self.boot_id.clone(), exact: self.live.exact, clean: self.clean };
        marker.write(&*self.storage, self.live.epoch);
    }
}

pub fn segment_name(epoch: u64, first_seq: u64) -> String {
    format!("{epoch}-{first_seq}.log")
}

/// Epoch and first seq.
pub fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (epoch, seq) = name.strip_suffix(".log")?.split_once('-')?;
    Some((epoch.parse().ok()?, seq.parse().ok()?))
}
