//! Frames of AWS's binary event streams (`application/vnd.amazon.eventstream`), found in a byte stream. Frames come in as
//! the network cut them and are handed out when complete and both of their checksums hold, as slices of the bytes at
//! hand where they lie in one piece, from a small buffer where they don't. Called by the data plane's reader of
//! ConverseStream, which gives them to [`crate::codec::Decoder`].
//!
//! A frame is `total length (4) | length of headers (4) | CRC-32 of these (4) | headers | payload | CRC-32 of all (4)`, numbers
//! with the highest byte first. A header is `length of name (1) | name | type (1) | value`.
//!
//! Written here and not taken from AWS's crate, which copies every frame and its headers and brings an async runtime
//! along.

use std::str;

/// Largest frame: AWS itself allows 16 MiB of payload. Beyond it the stream is taken for something else.
pub const MAX_FRAME: usize = (16 << 20) + MAX_HEADERS + OVERHEAD;

/// Most bytes of headers in a frame, as AWS has it.
const MAX_HEADERS: usize = 128 << 10;
const PRELUDE: usize = 12;
/// A frame without headers and payload.
const OVERHEAD: usize = PRELUDE + 4;
/// A buffer that has grown beyond this is given back: streams are many, and long frames rare.
const KEPT_CAPACITY: usize = 16 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of the upstream's event stream says that it is {0} bytes long")]
    Length(u32),
    #[error("a frame of the upstream's event stream has {0} bytes of headers")]
    Headers(u32),
    #[error("the checksum of a frame of the upstream's event stream is wrong")]
    Checksum,
    #[error("a header of a frame of the upstream's event stream can't be read")]
    Header,
}

/// What a frame is about, by its `:message-type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    Event,
    /// The service has failed in one of the ways that it documents.
    Exception,
    /// It has failed in another way.
    Error,
}

/// A complete frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub kind: FrameKind,
    /// The `:event-type` or `:exception-type`; of an error always [`Frame::ERROR`].
    pub name: &'a str,
    /// JSON; of an error its message as plain text, or its code when it has no message.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The name of errors that the service doesn't document.
    pub const ERROR: &'static str = "error";
}

/// Cuts a byte stream into frames. After an error the stream is unusable.
#[derive(Debug, Default)]
pub struct FrameScanner {
    /// A frame that has begun but not ended.
    partial: Vec<u8>,
}

impl FrameScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and calls `on_frame` for every frame that they complete.
    ///
    /// # Errors
    /// When this is no event stream, or a frame was altered on its way.
    pub fn push(&mut self, bytes: &[u8], mut on_frame: impl FnMut(Frame<'_>)) -> Result<(), FrameError> {
        let mut rest = bytes;
        if !self.partial.is_empty() {
            // Only as much as the frame lacks is copied.
            loop {
                let wanted = frame_length(&self.partial)?.unwrap_or(PRELUDE);
                let missing = wanted - self.partial.len().min(wanted);
                if missing == 0 {
                    break;
                }
                let (head, tail) = rest.split_at(missing.min(rest.len()));
                self.partial.extend_from_slice(head);
                rest = tail;
                if head.len() < missing {
                    return Ok(());
                }
            }
            on_frame(read(&self.partial)?);
            self.partial.clear();
            self.partial.shrink_to(KEPT_CAPACITY);
        }
        while let Some(length) = frame_length(rest)?
            && length <= rest.len()
        {
            let (frame, tail) = rest.split_at(length);
            on_frame(read(frame)?);
            rest = tail;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// True when no frame has begun that has not ended.
    pub fn is_between_frames(&self) -> bool {
        self.partial.is_empty()
    }
}

/// The length of the frame that begins here; `None` while it isn't known. Its prelude has a checksum of its own, so that
/// a wrong length is noticed before one waits for so many bytes.
fn frame_length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(prelude) = bytes.get(..PRELUDE) else { return Ok(None) };
    let (length, headers) = (number(prelude, 0), number(prelude, 4));
    if crc32fast::hash(&prelude[..8]) != number(prelude, 8) {
        return Err(FrameError::Checksum);
    }
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if !(OVERHEAD..=MAX_FRAME).contains(&size) {
        return Err(FrameError::Length(length));
    }
    let headers_size = usize::try_from(headers).unwrap_or(usize::MAX);
    if headers_size > MAX_HEADERS.min(size - OVERHEAD) {
        return Err(FrameError::Headers(headers));
    }
    Ok(Some(size))
}

/// Reads a frame whose length has been checked.
fn read(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let end = frame.len().saturating_sub(4);
    if crc32fast::hash(&frame[..end]) != number(frame, end) {
        return Err(FrameError::Checksum);
    }
    let payload_at = PRELUDE + usize::try_from(number(frame, 4)).unwrap_or(usize::MAX);
    let (headers, payload) = match (frame.get(PRELUDE..payload_at), frame.get(payload_at..end)) {
        (Some(headers), Some(payload)) => (headers, payload),
        _ => return Err(FrameError::Header),
    };
    let mut said = Said::default();
    let mut reader = Reader(headers);
    while !reader.0.is_empty() {
        let (name, value) = reader.header().ok_or(FrameError::Header)?;
        said.take(name, value);
    }
    Ok(said.frame(payload))
}

/// What the headers say.
#[derive(Default)]
struct Said<'a> {
    kind: &'a str,
    event: &'a str,
    exception: &'a str,
    code: &'a str,
    message: &'a str,
}

impl<'a> Said<'a> {
    fn take(&mut self, name: &[u8], value: Option<&'a str>) {
        let place = match name {
            b":message-type" => &mut self.kind,
            b":event-type" => &mut self.event,
            b":exception-type" => &mut self.exception,
            b":error-code" => &mut self.code,
            b":error-message" => &mut self.message,
            _ => return,
        };
        *place = value.unwrap_or_default();
    }

    fn frame(self, payload: &'a [u8]) -> Frame<'a> {
        match self.kind {
            "exception" => Frame { kind: FrameKind::Exception, name: self.exception, payload },
            "error" => {
                let said = if self.message.is_empty() { self.code } else { self.message };
                Frame { kind: FrameKind::Error, name: Frame::ERROR, payload: said.as_bytes() }
            }
            _ => Frame { kind: FrameKind::Event, name: self.event, payload },
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Name and value, the latter only of text.
    fn header(&mut self) -> Option<(&'a [u8], Option<&'a str>)> {
        let length = self.take(1)?[0];
        let name = self.take(usize::from(length))?;
        let length = match self.take(1)?[0] {
            // True and false.
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            // Long integers and timestamps.
            5 | 8 => 8,
            kind @ (6 | 7) => {
                let length = self.take(2)?;
                let value = self.take(usize::from(u16::from_be_bytes([length[0], length[1]])))?;
                let text = if kind == 7 { Some(str::from_utf8(value).ok()?) } else { None };
                return Some((name, text));
            }
            9 => 16,
            _ => return None,
        };
        self.take(length)?;
        Some((name, None))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }
}

/// Four bytes as a number; zero where there are none, which no caller asks for.
fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).unwrap_or_default();
    u32::from_be_bytes(four)
}

/// Writes a frame, as AWS does: for upstreams that tests and examples pretend to be.
pub fn write(kind: FrameKind, name: &str, payload: &[u8]) -> Vec<u8> {
    let (kind, name_header) = match kind {
        FrameKind::Event => ("event", ":event-type"),
        FrameKind::Exception => ("exception", ":exception-type"),
        FrameKind::Error => ("error", ":error-code"),
    };
    let mut headers = Vec::new();
    for (header, value) in
        [(name_header, name), (":content-type", "application/json"), (":message-type", kind)]
    {
        headers.push(u8::try_from(header.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(header.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(OVERHEAD + headers.len() + payload.len());
    frame.extend_from_slice(&size(OVERHEAD + headers.len() + payload.len()));
    frame.extend_from_slice(&size(headers.len()));
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests;
