//! Server-sent events, found in a byte stream without changing it. Frames come in as the network cut them;
//! events are handed out when complete, as slices of the frame where they lie in one, from a small buffer where
//! they don't. Line ends may be LF, CRLF or CR, also mixed; a byte order mark, comments, and fields other than
//! `data` and `event` are passed over, as the HTML standard says.
//!
//! [`crate::stream`] drives it.

use std::ops::Range;

use bytes::Bytes;

mod event;

pub use event::SseEvent;

/// Largest event that is buffered to be looked at. A longer one (an inlined image, say) is passed over unseen.
pub const MAX_BUFFERED_EVENT: usize = 8 << 20;

/// Largest event at all: beyond it the stream is taken for something else than server-sent events.
pub const MAX_EVENT: usize = 64 << 20;

/// A buffer that has grown beyond this is given back: streams are many, and long events rare.
const KEPT_CAPACITY: usize = 16 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SseError {
    #[error("an event of the upstream's stream is longer than {MAX_EVENT} bytes")]
    EventTooLarge,
}

/// A complete event, with its place.
pub(crate) struct RawEvent<'a> {
    /// The part of it that lies in the frame at hand, with the blank line that ends it.
    pub(crate) in_frame: Range<usize>,
    /// All of its bytes; `None` when it was too long to be buffered.
    pub(crate) bytes: Option<&'a [u8]>,
    /// What it says; `None` for comments and blank lines.
    pub(crate) event: Option<SseEvent<'a>>,
}

/// Cuts a byte stream into events.
#[derive(Debug, Default)]
pub struct SseScanner {
    /// The event that has begun but not ended, unless it has become too long.
    partial: Vec<u8>,
    /// Length of that event, buffered or not.
    length: usize,
    /// The line at the end of what was seen has bytes in it.
    in_line: bool,
    /// The last byte seen was a CR that ended a line: a LF right after it belongs to that line end.
    after_cr: bool,
    /// Lines of the event so far that are not blank.
    lines: usize,
    /// Something was seen: a byte order mark can only stand before everything.
    started: bool,
    /// Where several `data` lines are joined.
    joined: Vec<u8>,
}

impl SseScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame and calls `on_event` for every event that it completes.
    ///
    /// # Errors
    /// When an event exceeds [`MAX_EVENT`].
    pub fn push(&mut self, frame: &Bytes, mut on_event: impl FnMut(SseEvent<'_>)) -> Result<(), SseError> {
        self.scan(frame, |raw| {
            if let Some(event) = raw.event {
                on_event(event);
            }
        })
    }

    /// True when no event has begun that has not ended.
    pub fn is_between_events(&self) -> bool {
        self.length == 0
    }

    /// The bytes of the event that has begun. Empty too when it has become too long to be buffered.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Whether the first byte of the next frame, if it is a LF, still belongs to the line end of the last event.
    pub(crate) fn owes_line_feed(&self) -> bool {
        self.after_cr && self.length == 0
    }

    /// Like [`Self::push`], with the bytes and the place of each event, comments included.
    pub(crate) fn scan(&mut self, frame: &[u8], mut visit: impl FnMut(RawEvent<'_>)) -> Result<(), SseError> {
        let mut start = usize::from(self.owes_line_feed() && frame.first() == Some(&b'\n'));
        let mut at = 0;
        while let Some(end) = self.event_end(frame, &mut at) {
            let in_frame = start..end;
            if self.length + in_frame.len() > MAX_EVENT {
                return Err(SseError::EventTooLarge);
            }
            self.emit(frame, in_frame, &mut visit);
            (self.length, self.lines) = (0, 0);
            start = end;
        }
        self.keep(frame.get(start..).unwrap_or_default())
    }

    /// The event is complete: its end lies in `frame`.
    fn emit(&mut self, frame: &[u8], in_frame: Range<usize>, visit: &mut impl FnMut(RawEvent<'_>)) {
        let tail = &frame[in_frame.clone()];
        let first = !std::mem::replace(&mut self.started, true);
        let (buffered, too_long) = (!self.partial.is_empty(), self.length > self.partial.len());
        if buffered && !too_long {
            self.partial.extend_from_slice(tail);
        }
        let bytes = match (too_long, buffered) {
            (true, _) => None,
            (false, true) => Some(&self.partial[..]),
            (false, false) => Some(tail),
        };
        let event = bytes.and_then(|bytes| event::read(bytes, self.lines == 1, first, &mut self.joined));
        visit(RawEvent { in_frame, bytes, event });
        self.partial.clear();
        self.partial.shrink_to(KEPT_CAPACITY);
    }

    /// Remembers the event that has begun at the end of a frame.
    fn keep(&mut self, rest: &[u8]) -> Result<(), SseError> {
        let buffered = self.partial.len() == self.length;
        self.length += rest.len();
        if self.length > MAX_EVENT {
            return Err(SseError::EventTooLarge);
        }
        if self.length > MAX_BUFFERED_EVENT {
            self.partial = Vec::new();
        } else if buffered {
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Position behind the next blank line at or after `at`; `None` when the frame ends before one.
    fn event_end(&mut self, frame: &[u8], at: &mut usize) -> Option<usize> {
        loop {
            if self.after_cr && *at < frame.len() {
                self.after_cr = false;
                *at += usize::from(frame[*at] == b'\n');
            }
            let rest = frame.get(*at..)?;
            let Some(length) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.in_line |= !rest.is_empty();
                *at = frame.len();
                return None;
            };
            let blank = length == 0 && !std::mem::take(&mut self.in_line);
            *at += length + 1;
            // The LF of a CRLF is taken here where it is in reach, so that an event ends behind it.
            if rest[length] == b'\r' {
                match frame.get(*at) {
                    Some(b'\n') => *at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            self.in_line = false;
            if blank {
                return Some(*at);
            }
            self.lines += 1;
        }
    }
}

#[cfg(test)]
mod tests;
