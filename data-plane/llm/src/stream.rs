//! A streamed answer on its way through: every frame is forwarded as it came, and looked at in passing. The one
//! thing that is ever taken out is the usage-only chunk that the gateway itself has asked for, and the one thing that is
//! ever put in is the call's cost, into the last chunk with usage of a client that has asked for that. Driven by the data
//! plane's metered body, one observer per stream.
//!
//! - Nothing is parsed that need not be: [`chunk`] looks for a few names in each chunk and walks the JSON only
//!   of those that carry a report, an error or an end.
//! - Without an edit, frames leave at once, whole. With one, only an event that is still incomplete is held back
//!   (up to [`MAX_HELD`] bytes; a usage-only chunk is never longer), so that it can be cut out or changed whole.
//! - Some upstreams put `"usage":null` on every chunk because usage was asked for. Those stay: a client that
//!   did not ask ignores the member, and cutting it out would mean rewriting every chunk.

use bytes::Bytes;
use nemo_types::{Measure, Nanos, Usage};
use smallvec::{SmallVec, smallvec};

use crate::{
    Endpoint, FinishReason, Pricing, ServiceTier, UpstreamErrorInfo,
    sse::{RawEvent, SseError, SseScanner},
    usage_scan::CostEdit,
};

mod chunk;

use chunk::{Notes, Verdict};

/// Longest incomplete event that is held back to be cut out.
pub const MAX_HELD: usize = 64 << 10;

/// What to forward for one frame: none, one, or several pieces of it.
pub type Pieces = SmallVec<[Bytes; 2]>;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StreamError {
    /// The upstream closed the stream before the end of the answer.
    #[error("the upstream's stream ended before the answer was complete")]
    Truncated,
    /// The upstream sent something else than events.
    #[error(transparent)]
    Sse(#[from] SseError),
}

/// Watches one stream of the OpenAI dialect.
#[derive(Debug)]
pub struct StreamObserver {
    scanner: SseScanner,
    notes: Notes,
    /// Something may be cut out of it or put into it.
    edits: bool,
    /// The incomplete event has grown beyond [`MAX_HELD`] and is being forwarded piecemeal.
    released: bool,
    /// The last complete event was cut out: so is what still belongs to its line end.
    last_was_cut: bool,
    /// The stream was over while the client had got the beginning of an event only.
    ended_within_event: bool,
}

impl StreamObserver {
    /// `strip_usage_chunk`: as [`crate::Spliced::strip_usage_chunk`] says.
    pub fn new(endpoint: Endpoint, strip_usage_chunk: bool) -> Self {
        Self {
            scanner: SseScanner::new(),
            notes: Notes::new(endpoint, strip_usage_chunk),
            edits: strip_usage_chunk,
            released: false,
            last_was_cut: false,
            ended_within_event: false,
        }
    }

    /// Puts what the call costs into the last chunk with usage. For a client that has asked for usage, and no other.
    #[must_use]
    pub fn with_pricing(mut self, pricing: Pricing) -> Self {
        self.notes.pricing = Some(pricing);
        self.edits = true;
        self
    }

    /// Takes the next frame of the upstream, returns what the client gets for it: the frame itself, unless
    /// something must be cut out or held back.
    ///
    /// # Errors
    /// When what comes is no stream of events; nothing more can be forwarded then.
    pub fn frame(&mut self, frame: Bytes) -> Result<Pieces, StreamError> {
        if self.notes.malformed {
            return Ok(Pieces::new());
        }
        if self.edits {
            let mut pieces = Pieces::new();
            // In steps, so that what is held back never grows far beyond its bound.
            for start in (0..frame.len()).step_by(MAX_HELD) {
                self.frame_with_edits(&frame.slice(start..frame.len().min(start + MAX_HELD)), &mut pieces)?;
            }
            return Ok(pieces);
        }
        let (notes, mut broken) = (&mut self.notes, None);
        self.scanner.scan(&frame, |raw| {
            let verdict = notes.raw(&raw);
            if verdict == Verdict::Malformed && broken.is_none() {
                broken = Some((raw.in_frame.start, began_earlier(&raw)));
            }
        })?;
        if let Some((good, within)) = broken {
            // What stands before the malformed event is the client's still.
            self.ended_within_event = within;
            let good = if within { 0..0 } else { 0..good };
            return Ok(if good.is_empty() { Pieces::new() } else { smallvec![frame.slice(good)] });
        }
        Ok(if frame.is_empty() { Pieces::new() } else { smallvec![frame] })
    }

    /// The upstream has sent an event that is none: nothing more of the stream is forwarded, nor to be read. What came of
    /// the event in earlier frames may have been, where nothing is edited.
    pub fn is_malformed(&self) -> bool {
        self.notes.malformed
    }

    /// To be called when the upstream has ended the stream: returns what was held back.
    ///
    /// An answer is complete when the terminator or the last choice's finish reason was seen, and also when the
    /// upstream reported an error of its own, which the client has got: see [`Self::error`].
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when the answer is not complete.
    pub fn finish(&mut self) -> Result<Pieces, StreamError> {
        self.ended_within_event |= !self.is_between_events();
        let mut pieces = Pieces::new();
        // Some upstreams leave out the blank line after the last event. Two, as the line may be open as well.
        let held = if self.edits && !self.released && !self.notes.malformed {
            self.scanner.partial().to_vec()
        } else {
            Vec::new()
        };
        let (notes, mut verdict, mut data) = (&mut self.notes, Verdict::Keep, Vec::new());
        self.scanner.scan(b"\n\n", |raw| {
            if let Some(event) = raw.event {
                verdict = notes.raw(&raw);
                if matches!(verdict, Verdict::Price(_)) {
                    data = event.data.trim_ascii().to_vec();
                }
            }
        })?;
        match verdict {
            Verdict::Keep if !held.is_empty() => pieces.push(Bytes::from(held)),
            Verdict::Price(edit) if !held.is_empty() => {
                pieces.push(Bytes::from(edited(&held, &data, &edit).unwrap_or(held)));
            }
            _ => {}
        }
        if self.notes.is_complete() { Ok(pieces) } else { Err(StreamError::Truncated) }
    }

    /// Whether what the client has got ends with a complete event. If not, a blank line must go before an event
    /// of our own. Holds after [`Self::finish`] too, when that has failed.
    pub fn is_between_events(&self) -> bool {
        let open = if self.edits { self.released } else { !self.scanner.is_between_events() };
        // What follows a malformed event is not forwarded.
        (!open || self.notes.malformed) && !self.ended_within_event
    }

    /// Whether something that is part of an answer was seen: text, a call, an image, a finish reason. A chunk that only
    /// says who speaks, or that something is about to come, is not; until then another upstream can still answer.
    pub fn seen_content(&self) -> bool {
        self.notes.seen_content
    }

    /// The last usage that was reported.
    pub fn usage(&self) -> Option<Usage> {
        self.notes.usage
    }

    /// What the upstream says the call costs.
    pub fn provider_cost(&self) -> Option<Nanos> {
        self.notes.cost
    }

    /// The tier that the call was served in.
    pub fn service_tier(&self) -> ServiceTier {
        self.notes.tier
    }

    /// Of the first choice that has ended.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.notes.finish_reason.as_ref()
    }

    /// Bytes of generated text so far, for an estimate when usage never came.
    pub fn output_bytes(&self) -> u64 {
        self.notes.output_bytes
    }

    /// Those of them that have come since the last report of usage: some report at the start already.
    pub fn unreported_bytes(&self) -> u64 {
        self.notes.output_bytes - self.notes.reported_bytes
    }

    /// What was consumed in other units than text tokens, so far.
    pub fn measures(&self) -> Vec<Measure> {
        self.notes.measures()
    }

    /// The error that the upstream reported within the stream.
    pub fn error(&self) -> Option<&UpstreamErrorInfo> {
        self.notes.error.as_ref()
    }

    /// Forwards complete events, edited where they must be, and holds back the incomplete one.
    fn frame_with_edits(&mut self, frame: &Bytes, pieces: &mut Pieces) -> Result<(), StreamError> {
        // What of the frame is decided to be forwarded but not yet in `pieces`.
        let mut kept = 0..0;
        if self.scanner.owes_line_feed() && frame.first() == Some(&b'\n') {
            kept = if self.last_was_cut { 1..1 } else { 0..1 };
        }
        let (notes, last_was_cut, released) = (&mut self.notes, &mut self.last_was_cut, &mut self.released);
        let within_event = &mut self.ended_within_event;
        self.scanner.scan(frame, |raw| {
            let was_malformed = notes.malformed;
            let verdict = notes.raw(&raw);
            let began_earlier = began_earlier(&raw);
            let RawEvent { in_frame, bytes, event } = raw;
            // Its beginning is with the client already.
            let begun = std::mem::take(released);
            if verdict == Verdict::Malformed && !was_malformed {
                *within_event = begun;
            }
            *last_was_cut = verdict == Verdict::Cut && !begun || notes.malformed;
            let with_cost = match &verdict {
                Verdict::Price(edit) if !begun => {
                    bytes.zip(event).and_then(|(bytes, event)| edited(bytes, event.data.trim_ascii(), edit))
                }
                _ => None,
            };
            match bytes {
                _ if *last_was_cut => {
                    push(pieces, frame, &kept);
                    kept = in_frame.end..in_frame.end;
                }
                _ if with_cost.is_some() => {
                    push(pieces, frame, &kept);
                    pieces.extend(with_cost.map(Bytes::from));
                    kept = in_frame.end..in_frame.end;
                }
                Some(bytes) if began_earlier && !begun => {
                    pieces.push(Bytes::copy_from_slice(bytes));
                    kept = in_frame.end..in_frame.end;
                }
                _ => kept.end = in_frame.end,
            }
        })?;
        self.hold(frame, kept, pieces);
        Ok(())
    }

    /// What is behind the last complete event is held back, unless it is too long for a usage-only chunk.
    fn hold(&mut self, frame: &Bytes, mut kept: std::ops::Range<usize>, pieces: &mut Pieces) {
        if self.scanner.is_between_events() || self.notes.malformed {
            return push(pieces, frame, &kept);
        }
        let held = self.scanner.partial();
        if self.released {
            kept.end = frame.len();
            return push(pieces, frame, &kept);
        }
        push(pieces, frame, &kept);
        if held.len() > MAX_HELD {
            self.released = true;
            pieces.push(Bytes::copy_from_slice(held));
        }
    }
}

/// An event with the edit made in its data; `None` when the data stands in several lines of it.
fn edited(event: &[u8], data: &[u8], edit: &CostEdit) -> Option<Vec<u8>> {
    edit.apply(event, memchr::memmem::find(event, data)?)
}

/// Whether a part of it was in frames before.
fn began_earlier(raw: &RawEvent<'_>) -> bool {
    raw.bytes.is_none_or(|bytes| bytes.len() > raw.in_frame.len())
}

fn push(pieces: &mut Pieces, frame: &Bytes, range: &std::ops::Range<usize>) {
    if !range.is_empty() {
        pieces.push(frame.slice(range.clone()));
    }
}

#[cfg(test)]
mod tests;
