//! HTTP/1.1 framing on byte slices, without IO: heads and bodies of both directions.
//!
//! Called by [`crate::client`], which must see what a library would hide (chunk boundaries, a missing terminator), and
//! by the load generator and the bench upstream, which must cost less than what they measure. Strict: what a careful
//! peer would refuse is an error here.

use std::fmt;

/// A head longer than this is an error.
pub const MAX_HEAD: usize = 64 * 1024;

/// What is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError(pub String);

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed HTTP: {}", self.0)
    }
}

impl std::error::Error for WireError {}

fn wrong<T>(what: impl Into<String>) -> Result<T, WireError> {
    Err(WireError(what.into()))
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// Responses only: the body ends with the connection.
    UntilClose,
}

/// A parsed head, borrowing from the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Request line or status line, without its line end.
    pub first_line: &'a [u8],
    fields: &'a [u8],
    /// Bytes up to and with the empty line.
    pub len: usize,
}

impl<'a> Head<'a> {
    /// The head at the start of `buffer`; `None` while it is incomplete.
    pub fn parse(buffer: &'a [u8]) -> Result<Option<Self>, WireError> {
        let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
            return if buffer.len() > MAX_HEAD { wrong("head too long") } else { Ok(None) };
        };
        let (first_line, fields) = match memchr::memmem::find(&buffer[..end], b"\r\n") {
            Some(line) => (&buffer[..line], &buffer[line + 2..end + 2]),
            None => (&buffer[..end], &buffer[..0]),
        };
        Ok(Some(Self { first_line, fields, len: end + 4 }))
    }

    /// Every header field in order, as sent. A line without a colon has an empty value.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        Lines(self.fields).map(|line| match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], line[colon + 1..].trim_ascii()),
            None => (line, &line[..0]),
        })
    }

    /// First field of that name.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Status code of a response head.
    pub fn status(&self) -> Result<u16, WireError> {
        let line = self.first_line;
        let code = match line.get(..9) {
            Some(b"HTTP/1.1 " | b"HTTP/1.0 ") => line.get(9..12),
            _ => None,
        };
        let code = code.and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse().ok());
        match code {
            Some(code) if (100..1000).contains(&code) => Ok(code),
            _ => wrong(format!("status line {:?}", String::from_utf8_lossy(line))),
        }
    }

    /// How the body of this *response* is framed (to a request other than HEAD).
    pub fn response_framing(&self) -> Result<Framing, WireError> {
        match self.status()? {
            100..=199 | 204 | 304 => Ok(Framing::Length(0)),
            _ => Ok(self.framing()?.unwrap_or(Framing::UntilClose)),
        }
    }

    /// How the body of this *request* is framed.
    pub fn request_framing(&self) -> Result<Framing, WireError> {
        Ok(self.framing()?.unwrap_or(Framing::Length(0)))
    }

    fn framing(&self) -> Result<Option<Framing>, WireError> {
        let mut framing = None;
        for (name, value) in self.fields() {
            let this = if name.eq_ignore_ascii_case(b"content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let Some(length) = length else { return wrong("content-length is not a number") };
                Framing::Length(length)
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return wrong("transfer-encoding other than chunked");
                }
                Framing::Chunked
            } else {
                continue;
            };
            if framing.replace(this).is_some() {
                return wrong("body framed twice");
            }
        }
        Ok(framing)
    }

    /// Whether the peer closes the connection after this message.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
            || self.first_line.starts_with(b"HTTP/1.0")
    }
}

/// Lines that each end with CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memmem::find(self.0, b"\r\n")?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 2..];
        Some(line)
    }
}

/// Incremental reader of one body.
#[derive(Debug, Clone)]
pub struct BodyReader(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fixed {
        left: u64,
    },
    UntilClose,
    ChunkSize {
        size: u64,
        digits: u8,
    },
    /// In a chunk extension, or at the CR after the size.
    SizeEnd {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    ChunkData {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line (`empty`) or within it.
    Trailer {
        empty: bool,
    },
    TrailerLf {
        empty: bool,
    },
    Done,
}

impl BodyReader {
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Fixed { left },
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::ChunkSize { size: 0, digits: 0 },
        })
    }

    /// All of the body has been seen.
    pub fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Whether the connection may end here without cutting the body short.
    pub fn may_end(&self) -> bool {
        matches!(self.0, State::Done | State::UntilClose)
    }

    /// Consumes body bytes from `input` until the body or the input ends, and gives the payload to `sink`, one call
    /// for each contiguous piece. Returns how many bytes were consumed; the rest belongs to the next message.
    pub fn feed(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, WireError> {
        let mut at = 0;
        while at < input.len() && self.0 != State::Done {
            let rest = &input[at..];
            at += match self.0 {
                State::UntilClose => {
                    sink(rest);
                    rest.len()
                }
                State::Fixed { left } => {
                    let (taken, left) = take(rest, left, &mut sink);
                    self.0 = if left == 0 { State::Done } else { State::Fixed { left } };
                    taken
                }
                State::ChunkData { left } => {
                    let (taken, left) = take(rest, left, &mut sink);
                    self.0 = if left == 0 { State::DataCr } else { State::ChunkData { left } };
                    taken
                }
                state => {
                    self.0 = framing_byte(state, rest[0])?;
                    1
                }
            };
        }
        Ok(at)
    }
}

fn take(rest: &[u8], left: u64, sink: &mut impl FnMut(&[u8])) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
    sink(&rest[..taken]);
    (taken, left - taken as u64)
}

/// One byte of chunked framing.
fn framing_byte(state: State, byte: u8) -> Result<State, WireError> {
    Ok(match (state, byte) {
        (State::ChunkSize { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                _ => (byte | 0x20) - b'a' + 10,
            };
            State::ChunkSize { size: size * 16 + u64::from(digit), digits: digits + 1 }
        }
        (State::ChunkSize { size, digits: 1.. }, b'\r') => State::SizeLf { size },
        (State::ChunkSize { size, digits: 1.. }, b';') => State::SizeEnd { size },
        (State::SizeEnd { size }, b'\r') => State::SizeLf { size },
        (State::SizeEnd { size }, _) => State::SizeEnd { size },
        (State::SizeLf { size: 0 }, b'\n') => State::Trailer { empty: true },
        (State::SizeLf { size }, b'\n') => State::ChunkData { left: size },
        (State::DataCr, b'\r') => State::DataLf,
        (State::DataLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
        (State::Trailer { empty }, b'\r') => State::TrailerLf { empty },
        (State::Trailer { .. }, _) => State::Trailer { empty: false },
        (State::TrailerLf { empty: true }, b'\n') => State::Done,
        (State::TrailerLf { empty: false }, b'\n') => State::Trailer { empty: true },
        (state, byte) => return wrong(format!("byte {byte:#04x} in chunked framing at {state:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] = b"5\r\nhello\r\n1;ext=1\r\n \r\nA\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\nNEXT";

    fn read(input: &[u8], step: usize) -> (Vec<u8>, usize, bool) {
        let mut reader = BodyReader::new(Framing::Chunked);
        let (mut out, mut consumed) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            consumed += reader.feed(piece, |data| out.extend_from_slice(data)).unwrap();
        }
        (out, consumed, reader.is_done())
    }

    #[test]
    fn a_chunked_body_reads_the_same_however_it_is_cut() {
        for step in 1..=CHUNKED.len() {
            let (out, consumed, done) = read(CHUNKED, step);
            assert_eq!(
                (out.as_slice(), consumed, done),
                (&b"hello 0123456789"[..], CHUNKED.len() - 4, true),
                "{step}"
            );
        }
    }

    #[test]
    fn a_body_without_its_last_chunk_is_not_done() {
        let (_, _, done) = read(&CHUNKED[..CHUNKED.len() - 6], 7);
        assert!(!done);
    }

    #[test]
    fn chunk_sizes_that_are_not_hexadecimal_are_refused() {
        for bad in [&b"g\r\n"[..], b"\r\n", b"5\r\nhello5", b"-1\r\n", b"11111111111111111\r\n"] {
            let result = BodyReader::new(Framing::Chunked).feed(bad, |_| {});
            assert!(result.is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_head_is_read_with_its_fields_and_framing() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length:  12\r\nX-A: b: c\r\nconnection: CLOSE\r\n\r\nbody";
        let head = Head::parse(text).unwrap().unwrap();
        assert_eq!((head.status().unwrap(), head.len, head.closes()), (200, text.len() - 4, true));
        assert_eq!(head.response_framing(), Ok(Framing::Length(12)));
        assert_eq!(head.field("x-a"), Some(&b"b: c"[..]));
        assert!(Head::parse(&text[..30]).unwrap().is_none());
    }

    #[test]
    fn a_message_framed_twice_is_refused() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(Head::parse(text).unwrap().unwrap().response_framing().is_err());
    }
}
