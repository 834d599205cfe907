//! The newest events, in memory and as they will be sent: what is shipped need not be read back. Bounded: when nobody
//! takes them they are let go of, and read from the files until whoever ships has caught up. Called by [`super::log`] and
//! [`super::reader`].

use std::collections::VecDeque;

use bytes::BytesMut;

use super::shapes::Whole;
use crate::usage::batch::{Events, MAX_HEAD, put_head};

/// Events are kept in pieces of so many bytes, but for one that is longer.
const PIECE: usize = 128 << 10;
/// Empty pieces that are kept for the next ones.
const MAX_IDLE: usize = 4;

/// Where the record of an event lies that is kept here.
#[derive(Clone, Copy)]
struct Entry {
    segment: u64,
    /// Where the next record begins.
    next: usize,
    /// In its piece.
    len: usize,
}

/// Events of one segment, one behind the other.
pub struct Run {
    pub segment: u64,
    pub count: u64,
    /// Everything before this was given out.
    pub next: usize,
}

pub struct Fresh {
    /// All events of the live epoch that were not given out, or none of them.
    complete: bool,
    /// Of bytes that are kept.
    max: usize,
    len: usize,
    entries: VecDeque<Entry>,
    pieces: VecDeque<BytesMut>,
    idle: Vec<BytesMut>,
}

impl Fresh {
    pub fn new(max: usize) -> Self {
        let (entries, pieces) = (VecDeque::new(), VecDeque::new());
        Self { complete: true, max, len: 0, entries, pieces, idle: Vec::new() }
    }

    /// Whether every event that was not given out is here. If not, none is.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Everything in the files was given out.
    pub fn caught_up(&mut self) {
        self.complete = true;
    }

    /// An event was written, up to `next` in this segment.
    pub fn push(&mut self, segment: u64, next: usize, event: &Whole<'_>) {
        if !self.complete {
            return;
        }
        let length = event.len();
        let room = MAX_HEAD + length;
        if self.len + room > self.max {
            return self.let_go();
        }
        if self.pieces.back().is_none_or(|piece| piece.capacity() - piece.len() < room) {
            let piece = self.piece(room.max(PIECE));
            self.pieces.push_back(piece);
        }
        let Some(piece) = self.pieces.back_mut() else { return };
        let before = piece.len();
        put_head(piece, length);
        event.put(piece);
        let len = piece.len() - before;
        self.len += len;
        self.entries.push_back(Entry { segment, next, len });
    }

    /// One that was given out and is nobody's any more, or a new one.
    fn piece(&mut self, room: usize) -> BytesMut {
        let reclaimed = self.idle.iter_mut().position(|piece| piece.try_reclaim(room));
        reclaimed.map_or_else(|| BytesMut::with_capacity(room), |at| self.idle.swap_remove(at))
    }

    fn let_go(&mut self) {
        self.complete = false;
        self.len = 0;
        (self.entries, self.pieces) = (VecDeque::new(), VecDeque::new());
    }

    /// The oldest events, as they are sent: at most `max`, and no more bytes than that but for a single event.
    pub fn take(&mut self, max: usize, bytes: usize) -> (Events, Vec<Run>) {
        let (mut taken, mut runs) = (Events::default(), Vec::<Run>::new());
        let (mut count, mut size) = (0, 0);
        while let Some(piece) = self.pieces.front_mut() {
            let (mut part, before) = (0, count);
            while part < piece.len()
                && count < max
                && let Some(entry) = self.entries.front().copied()
                && (size == 0 || size + entry.len <= bytes)
            {
                self.entries.pop_front();
                (part, count, size) = (part + entry.len, count + 1, size + entry.len);
                match runs.last_mut().filter(|run| run.segment == entry.segment) {
                    Some(run) => (run.count, run.next) = (run.count + 1, entry.next),
                    None => runs.push(Run { segment: entry.segment, count: 1, next: entry.next }),
                }
            }
            if part > 0 {
                taken.push(piece.split_to(part).freeze(), count - before);
            }
            let more = !piece.is_empty();
            if more || self.pieces.len() == 1 {
                break;
            }
            self.retire_front();
        }
        self.len -= size;
        (taken, runs)
    }

    /// Nobody asks for the events of this segment any more, which is the oldest one.
    pub fn forget(&mut self, segment: u64) {
        while let Some(entry) = self.entries.front().copied().filter(|entry| entry.segment == segment) {
            self.entries.pop_front();
            self.len -= entry.len;
            while self.pieces.len() > 1 && self.pieces.front().is_some_and(BytesMut::is_empty) {
                self.retire_front();
            }
            if let Some(piece) = self.pieces.front_mut() {
                let _ = piece.split_to(entry.len.min(piece.len()));
            }
        }
    }

    fn retire_front(&mut self) {
        if let Some(piece) = self.pieces.pop_front().filter(|_| self.idle.len() < MAX_IDLE) {
            self.idle.push(piece);
        }
    }
}
