//! One client connection: sends prepared requests, reads answers without keeping them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use nemo_tests::wire::{BodyReader, Head};

use crate::poll::{Poller, non_blocking};

/// How much of an error's body is kept.
const ERROR_BYTES: usize = 300;

pub(super) struct Connection {
    stream: TcpStream,
    token: usize,
    /// When the request in flight was due; `None` when idle.
    due: Option<Instant>,
    /// Bytes of the request that the socket has taken.
    sent: usize,
    /// Start of a head whose end has not come yet.
    partial: Vec<u8>,
    body: Option<BodyReader>,
    status: u16,
    closes: bool,
    /// Start of the body of an error.
    error: Vec<u8>,
    events: EventCounter,
}

/// What one read brought.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) bytes: usize,
    /// Events that were completed, with `[DONE]`.
    pub(super) events: u64,
    /// The answer is complete: when its request was due.
    pub(super) answered: Option<Instant>,
}

impl Connection {
    pub(super) fn open(target: SocketAddr, poller: &Poller, token: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(target)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, token)?;
        Ok(Self {
            stream,
            token,
            due: None,
            sent: 0,
            partial: Vec::new(),
            body: None,
            status: 0,
            closes: false,
            error: Vec::new(),
            events: EventCounter::default(),
        })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.due.is_none()
    }

    /// The server said that it closes the connection after this answer.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Status and start of the body, if the last answer was no success.
    pub(super) fn failure(&self) -> Option<String> {
        (self.status != 200)
            .then(|| format!("status {}: {}", self.status, String::from_utf8_lossy(&self.error)))
    }

    pub(super) fn start(&mut self, request: &[u8], due: Instant, poller: &Poller) -> io::Result<()> {
        self.due = Some(due);
        self.sent = 0;
        self.write(request, poller)
    }

    /// Sends more of the request. Watches for writing only while the socket is full, which costs two calls.
    pub(super) fn write(&mut self, request: &[u8], poller: &Poller) -> io::Result<()> {
        let was_full = self.sent > 0;
        self.sent += non_blocking(self.stream.write(&request[self.sent..]))?.unwrap_or(0);
        let full = self.sent < request.len();
        if full != was_full {
            poller.watch_writing(&self.stream, self.token, full)?;
        }
        Ok(())
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Progress> {
        let Some(bytes) = non_blocking(self.stream.read(buffer))? else { return Ok(Progress::default()) };
        if bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        if self.due.is_none() {
            return Err(io::Error::other("the server sent bytes that nobody asked for"));
        }
        let mut input = &buffer[..bytes];
        let joined;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(input);
            joined = std::mem::take(&mut self.partial);
            input = &joined;
        }
        if self.body.is_none() {
            let Some(head) = Head::parse(input).map_err(io::Error::other)? else {
                self.partial = input.to_vec();
                return Ok(Progress { bytes, ..Progress::default() });
            };
            self.status = head.status().map_err(io::Error::other)?;
            self.body = Some(BodyReader::new(head.response_framing().map_err(io::Error::other)?));
            self.closes = head.closes();
            self.events = EventCounter::default();
            self.error.clear();
            input = &input[head.len..];
        }
        self.read_body(bytes, input)
    }

    fn read_body(&mut self, bytes: usize, input: &[u8]) -> io::Result<Progress> {
        let Some(body) = &mut self.body else { return Ok(Progress { bytes, ..Progress::default() }) };
        let (status, error, counter) = (self.status, &mut self.error, &mut self.events);
        let before = counter.events;
        let consumed = body.feed(input, |data| {
            counter.count(data);
            if status != 200 {
                let room = ERROR_BYTES.saturating_sub(error.len()).min(data.len());
                error.extend_from_slice(&data[..room]);
            }
        });
        if consumed.map_err(io::Error::other)? < input.len() {
            return Err(io::Error::other("bytes after the end of the answer"));
        }
        let mut progress = Progress { bytes, events: self.events.events - before, answered: None };
        if body.is_done() {
            self.body = None;
            progress.answered = self.due.take();
        }
        Ok(progress)
    }
}

/// Counts empty lines, which end server-sent events, across pieces.
#[derive(Default)]
struct EventCounter {
    events: u64,
    after_line_feed: bool,
}

impl EventCounter {
    fn count(&mut self, data: &[u8]) {
        for at in memchr::memchr_iter(b'\n', data) {
            let empty = if at == 0 { self.after_line_feed } else { data[at - 1] == b'\n' };
            self.events += u64::from(empty);
        }
        self.after_line_feed = data.last().map_or(self.after_line_feed, |last| *last == b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_they_are_cut() {
        let text = b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n";
        for step in 1..=text.len() {
            let mut counter = EventCounter::default();
            text.chunks(step).for_each(|piece| counter.count(piece));
            assert_eq!(counter.events, 3, "{step}");
        }
    }
}
