//! An upstream that costs next to nothing: prepared bytes, one thread, one epoll loop. It answers in the words of OpenAI,
//! and below `/v1/messages` in those of Anthropic.
//!
//! Request bodies are drained; only their first bytes are searched, for `"stream":true` and `"include_usage":true`.
//! Streams are written one event at a time in turns over all streams, each event as a chunk and a write of its own, so
//! that a proxy gets them as a real provider's tokens come and not as one block. Streams of requests with
//! `"user":"paced"` get one event every millisecond, which leaves even a slow proxy the time to pass on each by itself.
//! Not for tests of behaviour: these use `nemo_tests::upstream`.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use nemo_tests::wire::{BodyReader, Framing, Head};

use crate::poll::{Poller, Ready, Ticker, non_blocking};

const LISTENER: usize = usize::MAX - 1;
const TICKER: usize = usize::MAX - 2;
/// Member of a request that wants its stream paced.
pub(crate) const PACED: &str = r#""user":"paced""#;
/// Time between two events of a paced stream.
const PACE: Duration = Duration::from_millis(1);
const MAX_CONNECTIONS: usize = 4096;
const READ_BUFFER: usize = 256 * 1024;
/// How much of a body is searched for its settings; load bodies that stream are shorter.
const PEEK: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 18081)]
    port: u16,
    /// Events of a stream, without usage and terminator.
    #[arg(long, default_value_t = crate::load::STREAM_CHUNKS)]
    chunks: usize,
}

/// The prepared bytes.
struct Answers {
    unary: Vec<u8>,
    stream_head: Vec<u8>,
    /// One HTTP chunk for each event.
    events: Vec<Vec<u8>>,
    usage: Vec<u8>,
    /// `[DONE]` and the last chunk.
    done: Vec<u8>,
}

/// Both dialects.
struct Spoken {
    openai: Answers,
    anthropic: Answers,
}

impl Answers {
    /// As Anthropic says the same.
    fn anthropic(chunks: usize) -> Self {
        let text = "All work and no play makes a dull day. ".repeat(16);
        let body = format!(
            r#"{{"id":"msg_bench0000000000000000000","type":"message","role":"assistant","model":"bench","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":250,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":128,"service_tier":"standard"}}}}"#
        );
        let unary = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_bench\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream_head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n";
        let named =
            |name: &str, rest: &str| chunk(&format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}"));
        let mut events = vec![
            named(
                "message_start",
                r#","message":{"id":"msg_bench","type":"message","role":"assistant","model":"bench","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":250,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}"#,
            ),
            named("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
        ];
        let delta = named("content_block_delta", r#","index":0,"delta":{"type":"text_delta","text":" and"}"#);
        events.extend(std::iter::repeat_n(delta, chunks.saturating_sub(2)));
        events.push(named("content_block_stop", r#","index":0"#));
        events.push(named(
            "message_delta",
            r#","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":128}"#,
        ));
        let done = [&named("message_stop", "")[..], b"0\r\n\r\n"].concat();
        Self { unary: unary.into(), stream_head: stream_head.into(), events, usage: Vec::new(), done }
    }

    fn new(chunks: usize) -> Self {
        // 600 characters make a response of about 1 KB.
        let text = "All work and no play makes a dull day. ".repeat(16);
        let body = format!(
            r#"{{"id":"chatcmpl-bench000000000000000000000","object":"chat.completion","created":1760000000,"model":"bench","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],{},"service_tier":"default","system_fingerprint":"fp_bench"}}"#,
            usage_member()
        );
        let unary = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\nopenai-processing-ms: 1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream_head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n";
        let events = (0..chunks).map(|index| {
            let (delta, finish) = match index {
                0 => (r#"{"role":"assistant","content":""}"#, "null"),
                _ if index + 1 == chunks => ("{}", r#""stop""#),
                _ => (r#"{"content":" and"}"#, "null"),
            };
            chunk(&format!(
                r#"data: {{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
            ))
        });
        let usage = chunk(&format!(
            r#"data: {{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench","choices":[],{}}}"#,
            usage_member()
        ));
        let done = [&chunk("data: [DONE]")[..], b"0\r\n\r\n"].concat();
        Self { unary: unary.into(), stream_head: stream_head.into(), events: events.collect(), usage, done }
    }
}

impl Spoken {
    fn of(&self, anthropic: bool) -> &Answers {
        if anthropic { &self.anthropic } else { &self.openai }
    }
}

fn usage_member() -> &'static str {
    r#""usage":{"prompt_tokens":250,"completion_tokens":128,"total_tokens":378,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}"#
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2).into()
}

struct Connection {
    /// The last request was in the words of Anthropic.
    anthropic: bool,
    stream: TcpStream,
    /// Start of a head whose end has not come yet.
    partial: Vec<u8>,
    body: Option<BodyReader>,
    /// First bytes of the body.
    peek: Vec<u8>,
    /// Next event of the stream being written.
    streaming: Option<Streaming>,
    /// Bytes that the socket did not take yet.
    unsent: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Streaming {
    next: usize,
    usage: bool,
    paced: bool,
}

struct Server {
    poller: Poller,
    answers: Spoken,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections with a stream whose socket takes more: those in a hurry, and the paced ones.
    streams: VecDeque<usize>,
    paced: VecDeque<usize>,
    buffer: Vec<u8>,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .with_context(|| format!("listen on 127.0.0.1:{}", args.port))?;
    listener.set_nonblocking(true)?;
    let poller = Poller::new()?;
    poller.add(&listener, LISTENER)?;
    let ticker = Ticker::new(PACE)?;
    poller.add(&ticker, TICKER)?;
    writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let mut server = Server {
        poller,
        answers: Spoken {
            openai: Answers::new(args.chunks.max(2)),
            anthropic: Answers::anthropic(args.chunks.max(2)),
        },
        connections: Vec::new(),
        free: Vec::new(),
        streams: VecDeque::new(),
        paced: VecDeque::new(),
        buffer: vec![0; READ_BUFFER],
    };
    let mut ready = Vec::new();
    loop {
        let timeout = if server.streams.is_empty() { None } else { Some(Duration::ZERO) };
        server.poller.wait(timeout, &mut ready)?;
        for event in &ready {
            match event.token {
                LISTENER => server.accept(&listener)?,
                TICKER => {
                    // Missed ticks are not made up for, or events would come in lumps.
                    ticker.clear();
                    for _ in 0..server.paced.len() {
                        let token = server.paced.pop_front();
                        token.into_iter().for_each(|token| server.next_event(token));
                    }
                }
                _ => server.serve(*event),
            }
        }
        for _ in 0..server.streams.len() {
            let token = server.streams.pop_front();
            token.into_iter().for_each(|token| server.next_event(token));
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        while let Some((stream, _)) = non_blocking(listener.accept())? {
            let token = self.free.pop().unwrap_or(self.connections.len());
            if token >= MAX_CONNECTIONS {
                continue;
            }
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.poller.add(&stream, token)?;
            let (partial, peek, unsent) = (Vec::new(), Vec::with_capacity(PEEK), Vec::new());
            let connection =
                Connection { anthropic: false, stream, partial, body: None, peek, streaming: None, unsent };
            if token == self.connections.len() {
                self.connections.push(Some(connection));
            } else {
                self.connections[token] = Some(connection);
            }
        }
        Ok(())
    }

    /// Handles readiness of one connection; one that fails in any way is closed, as its peer must cope with.
    fn serve(&mut self, event: Ready) {
        let Some(Some(connection)) = self.connections.get_mut(event.token) else { return };
        let (mut alive, mut started) = (true, false);
        if event.writable {
            alive = connection.resume(&self.poller, event.token).is_ok();
        }
        if alive && event.readable {
            match connection.read(&mut self.buffer, &self.answers) {
                Ok(Some(bytes)) => {
                    alive = connection.send(bytes, &self.poller, event.token).is_ok();
                    started = true;
                }
                Ok(None) => {}
                Err(_) => alive = false,
            }
        }
        if !alive {
            self.connections[event.token] = None;
            self.streams.retain(|token| *token != event.token);
            self.paced.retain(|token| *token != event.token);
            self.free.push(event.token);
        } else if started || event.writable {
            self.enqueue(event.token);
        }
    }

    /// Lets a stream go on, if there is one and its socket takes more.
    fn enqueue(&mut self, token: usize) {
        let Some(Some(connection)) = self.connections.get(token) else { return };
        match connection.streaming {
            Some(stream) if connection.unsent.is_empty() => {
                if stream.paced { &mut self.paced } else { &mut self.streams }.push_back(token);
            }
            _ => {}
        }
    }

    /// Writes one event of a stream.
    fn next_event(&mut self, token: usize) {
        let Some(Some(connection)) = self.connections.get_mut(token) else { return };
        let Some(stream) = &mut connection.streaming else { return };
        let answers = self.answers.of(connection.anthropic);
        let usage_is_next = stream.usage && !connection.anthropic && stream.next == answers.events.len();
        let (bytes, last) = match answers.events.get(stream.next) {
            Some(event) => (event, false),
            None if usage_is_next => (&answers.usage, false),
            None => (&answers.done, true),
        };
        stream.next += 1;
        if last {
            connection.streaming = None;
        }
        // A connection that is closed shows that by becoming readable.
        if connection.send(bytes, &self.poller, token).is_ok() {
            self.enqueue(token);
        }
    }
}

impl Connection {
    /// Reads once. Returns what to send if a request is complete.
    fn read<'a>(&mut self, buffer: &mut [u8], answers: &'a Spoken) -> io::Result<Option<&'a [u8]>> {
        let Some(length) = non_blocking(self.stream.read(buffer))? else { return Ok(None) };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut input = &buffer[..length];
        let joined;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(input);
            joined = std::mem::take(&mut self.partial);
            input = &joined;
        }
        if self.body.is_none() {
            let Some(head) = Head::parse(input).map_err(io::Error::other)? else {
                self.partial = input.to_vec();
                return Ok(None);
            };
            let framing = head.request_framing().map_err(io::Error::other)?;
            self.anthropic = head.first_line.starts_with(b"POST /v1/messages");
            self.peek.clear();
            input = &input[head.len..];
            self.body = Some(BodyReader::new(framing));
        }
        let peek = &mut self.peek;
        let body = self.body.get_or_insert_with(|| BodyReader::new(Framing::Length(0)));
        let consumed = body.feed(input, |data| {
            let room = (PEEK - peek.len()).min(data.len());
            peek.extend_from_slice(&data[..room]);
        });
        if consumed.map_err(io::Error::other)? < input.len() {
            return Err(io::Error::other("a request was pipelined"));
        }
        if !body.is_done() {
            return Ok(None);
        }
        self.body = None;
        let answers = answers.of(self.anthropic);
        if is_true(&self.peek, "stream") {
            let usage = is_true(&self.peek, "include_usage");
            let paced = memchr::memmem::find(&self.peek, PACED.as_bytes()).is_some();
            self.streaming = Some(Streaming { next: 0, usage, paced });
            return Ok(Some(&answers.stream_head));
        }
        Ok(Some(&answers.unary))
    }

    fn send(&mut self, bytes: &[u8], poller: &Poller, token: usize) -> io::Result<()> {
        let sent = non_blocking(self.stream.write(bytes))?.unwrap_or(0);
        if sent < bytes.len() {
            self.unsent = bytes[sent..].to_vec();
            poller.watch_writing(&self.stream, token, true)?;
        }
        Ok(())
    }

    fn resume(&mut self, poller: &Poller, token: usize) -> io::Result<()> {
        let sent = non_blocking(self.stream.write(&self.unsent))?.unwrap_or(0);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            poller.watch_writing(&self.stream, token, false)?;
        }
        Ok(())
    }
}

/// Whether the JSON text has this member as `true`, written with or without a space.
fn is_true(json: &[u8], name: &str) -> bool {
    let has = |text: String| memchr::memmem::find(json, text.as_bytes()).is_some();
    has(format!("\"{name}\":true")) || has(format!("\"{name}\": true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_answers_have_the_size_that_the_report_names() {
        let answers = Answers::new(256);
        assert!((900..1300).contains(&answers.unary.len()), "{}", answers.unary.len());
        let sizes: Vec<usize> = answers.events.iter().map(Vec::len).collect();
        assert!(sizes.iter().all(|size| (140..200).contains(size)), "{sizes:?}");
    }

    #[test]
    fn a_prepared_stream_is_well_formed() {
        let answers = Answers::new(256);
        let all = [answers.events.concat(), answers.usage, answers.done].concat();
        let mut reader = BodyReader::new(Framing::Chunked);
        let mut events = Vec::new();
        reader.feed(&all, |piece| events.push(String::from_utf8(piece.to_vec()).unwrap())).unwrap();
        assert!(reader.is_done() && events.len() == 258);
        assert!(events.iter().all(|event| event.starts_with("data: ") && event.ends_with("\n\n")));
        for event in &events[..257] {
            serde_json::from_str::<serde_json::Value>(&event[6..]).unwrap();
        }
    }

    #[test]
    fn the_prepared_answers_are_json() {
        for answers in [Answers::new(2), Answers::anthropic(2)] {
            let head = Head::parse(&answers.unary).unwrap().unwrap();
            let body = &answers.unary[head.len..];
            assert_eq!(head.response_framing(), Ok(Framing::Length(body.len() as u64)));
            serde_json::from_slice::<serde_json::Value>(body).unwrap();
        }
    }

    #[test]
    fn a_prepared_stream_of_anthropic_has_as_many_deltas() {
        let answers = Answers::anthropic(256);
        let deltas =
            answers.events.iter().filter(|event| memchr::memmem::find(event, b"text_delta").is_some());
        assert_eq!((deltas.count(), answers.events.len()), (254, 258));
        assert!(memchr::memmem::find(&answers.done, b"message_stop").is_some());
    }
}
