//! A raw HTTP/1.1 and SSE client: one connection for each request, every byte kept as it came, with its time.
//!
//! A library client would repair or hide what tests want to see: header order, chunk boundaries, a stream that ends
//! without its terminator.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::eventually::patience;
use crate::wire::{BodyReader, Head};

/// A response larger than this is an error.
const MAX_BODY: usize = 256 << 20;

/// Where requests go, and the headers that each of them carries.
#[derive(Debug, Clone)]
pub struct Client {
    addr: SocketAddr,
    headers: Vec<(String, String)>,
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By its own framing.
    Complete,
    /// The connection was closed first.
    Truncated,
    /// The connection was reset first.
    Reset,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// In the order and case in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Pieces of the body as they were read, with the time since the request began.
    pub pieces: Vec<(Duration, Bytes)>,
    pub end: End,
    /// Until the head was there.
    pub first_byte: Duration,
    pub total: Duration,
}

/// One event of a server-sent stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Text of the `data:` lines, joined by line feeds; empty for a comment.
    pub data: String,
    /// The event as sent, with its empty line.
    pub raw: String,
    /// Since the request began.
    pub at: Duration,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, headers: Vec::new() }
    }

    /// Adds a header to every request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// `Authorization: Bearer` on every request.
    #[must_use]
    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Sends a JSON body and reads the whole response.
    pub async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> anyhow::Result<Response> {
        self.open("POST", path, body.as_ref()).await?.finish().await
    }

    /// Sends a body of another type than JSON, in `chunks` of a chunked body if there are several, and reads the whole
    /// response.
    pub async fn post_as(
        &self,
        path: &str,
        content_type: &str,
        chunks: &[&[u8]],
    ) -> anyhow::Result<Response> {
        let mut request =
            format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {content_type}\r\n", self.addr);
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes;
        if let [only] = chunks {
            request.push_str(&format!("content-length: {}\r\n\r\n", only.len()));
            bytes = [request.as_bytes(), only].concat();
        } else {
            request.push_str("transfer-encoding: chunked\r\n\r\n");
            bytes = request.into_bytes();
            for chunk in chunks {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        self.send_raw(&bytes).await?.finish().await
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.open("GET", path, b"").await?.finish().await
    }

    /// Sends a request and returns when the head of the response is there.
    pub async fn open(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Exchange> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.addr);
        if method != "GET" {
            request
                .push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.send_raw(&[request.as_bytes(), body].concat()).await
    }

    /// Sends exactly these bytes, and returns when the head of a response is there.
    pub async fn send_raw(&self, request: &[u8]) -> anyhow::Result<Exchange> {
        let start = Instant::now();
        let mut stream =
            TcpStream::connect(self.addr).await.with_context(|| format!("connect to {}", self.addr))?;
        stream.set_nodelay(true)?;
        // A server may answer and close before it has read everything (413), so a failed write is no verdict yet.
        let written = stream.write_all(request).await;
        let mut exchange = Exchange {
            stream,
            start,
            buffer: BytesMut::new(),
            status: 0,
            headers: Vec::new(),
            body: BodyReader::new(crate::wire::Framing::UntilClose),
            first_byte: Duration::ZERO,
            pieces: Vec::new(),
            end: None,
        };
        exchange
            .read_head()
            .await
            .with_context(|| format!("no response head (request written: {written:?})"))?;
        Ok(exchange)
    }
}

/// A request whose response is being read. Dropping it closes the connection, as a client does that leaves.
#[derive(Debug)]
pub struct Exchange {
    stream: TcpStream,
    start: Instant,
    /// Read but not yet consumed; after the head, only bytes that follow the body.
    buffer: BytesMut,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: BodyReader,
    pub first_byte: Duration,
    pieces: Vec<(Duration, Bytes)>,
    end: Option<End>,
}

impl Exchange {
    async fn read_head(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(head) = Head::parse(&self.buffer)? {
                self.status = head.status()?;
                self.body = BodyReader::new(head.response_framing()?);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.headers = head.fields().map(|(name, value)| (text(name), text(value))).collect();
                let len = head.len;
                self.first_byte = self.start.elapsed();
                let rest = self.buffer.split_off(len);
                self.buffer.clear();
                return self.take_body(&rest);
            }
            let read = within(self.stream.read_buf(&mut self.buffer)).await?;
            anyhow::ensure!(read? > 0, "connection closed after {} bytes of the head", self.buffer.len());
        }
    }

    fn take_body(&mut self, input: &[u8]) -> anyhow::Result<()> {
        let at = self.start.elapsed();
        let mut payload = BytesMut::new();
        let consumed = self.body.feed(input, |data| payload.extend_from_slice(data))?;
        if !payload.is_empty() {
            self.pieces.push((at, payload.freeze()));
        }
        anyhow::ensure!(self.received() <= MAX_BODY, "body larger than {MAX_BODY} bytes");
        anyhow::ensure!(
            consumed == input.len(),
            "{} bytes after the end of the body",
            input.len() - consumed
        );
        if self.body.is_done() {
            self.end = Some(End::Complete);
        }
        Ok(())
    }

    /// Bytes of the body so far.
    pub fn received(&self) -> usize {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum()
    }

    /// Value of a response header, by name without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Reads once. `false` when the response had ended.
    pub async fn read_more(&mut self) -> anyhow::Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        self.buffer.clear();
        match within(self.stream.read_buf(&mut self.buffer)).await? {
            Ok(0) => self.end = Some(if self.body.may_end() { End::Complete } else { End::Truncated }),
            Ok(_) => {
                let input = self.buffer.split();
                self.take_body(&input)?;
            }
            Err(_) => self.end = Some(End::Reset),
        }
        Ok(true)
    }

    /// Reads until the body so far satisfies `enough`, or the response ends. Returns the body so far.
    pub async fn read_until(&mut self, mut enough: impl FnMut(&[u8]) -> bool) -> anyhow::Result<Bytes> {
        loop {
            let body = concat(&self.pieces);
            if enough(&body) || !self.read_more().await? {
                return Ok(body);
            }
        }
    }

    /// Reads until `count` whole SSE events have come, or the response ends.
    pub async fn read_events(&mut self, count: usize) -> anyhow::Result<Vec<Event>> {
        while events(&self.pieces).len() < count && self.read_more().await? {}
        Ok(events(&self.pieces))
    }

    /// Reads to the end.
    pub async fn finish(mut self) -> anyhow::Result<Response> {
        while self.read_more().await? {}
        let end = self.end.context("no end")?;
        Ok(Response {
            status: self.status,
            headers: self.headers,
            body: concat(&self.pieces),
            pieces: self.pieces,
            end,
            first_byte: self.first_byte,
            total: self.start.elapsed(),
        })
    }
}

impl Response {
    /// Value of a header, by name without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}, body {}", self.status, self.text()))
    }

    /// The SSE events of the body. What follows the last empty line is no event.
    pub fn events(&self) -> Vec<Event> {
        events(&self.pieces)
    }

    /// The JSON of every event but `[DONE]`.
    pub fn chunks(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let events = self.events();
        let data = events.iter().map(|event| event.data.as_str());
        data.filter(|data| !data.is_empty() && *data != "[DONE]")
            .map(|data| serde_json::from_str(data).with_context(|| format!("event {data:?}")))
            .collect()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(patience(), work).await.with_context(|| format!("nothing came for {:?}", patience()))
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn concat(pieces: &[(Duration, Bytes)]) -> Bytes {
    let mut all = BytesMut::with_capacity(pieces.iter().map(|(_, piece)| piece.len()).sum());
    for (_, piece) in pieces {
        all.extend_from_slice(piece);
    }
    all.freeze()
}

/// Events with the time of the piece that completed each.
fn events(pieces: &[(Duration, Bytes)]) -> Vec<Event> {
    let (mut pending, mut found) = (Vec::new(), Vec::new());
    for (at, piece) in pieces {
        pending.extend_from_slice(piece);
        while let Some(end) = event_end(&pending) {
            let raw: Vec<u8> = pending.drain(..end).collect();
            let raw = String::from_utf8_lossy(&raw).into_owned();
            let lines = raw.lines().filter_map(|line| line.strip_prefix("data:"));
            let data: Vec<&str> = lines.map(|data| data.strip_prefix(' ').unwrap_or(data)).collect();
            found.push(Event { data: data.join("\n"), raw, at: *at });
        }
    }
    found
}

/// End of the first event: after an empty line, whichever of the two usual line ends is used.
fn event_end(bytes: &[u8]) -> Option<usize> {
    let unix = memchr::memmem::find(bytes, b"\n\n").map(|at| at + 2);
    let dos = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    unix.into_iter().chain(dos).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_across_pieces_and_timed_by_their_last_byte() {
        let piece = |at, text: &'static str| (Duration::from_millis(at), Bytes::from_static(text.as_bytes()));
        let pieces =
            [piece(1, "data: a"), piece(2, "\ndata: b\n"), piece(3, "\n: ping\n\ndata: c\r\n\r\ndata: half")];
        let events = events(&pieces);
        let seen: Vec<(&str, u128)> =
            events.iter().map(|event| (event.data.as_str(), event.at.as_millis())).collect();
        assert_eq!(seen, [("a\nb", 3), ("", 3), ("c", 3)]);
    }
}
