//! A conversation between a client and an upstream of different dialects: the request on its way there, the answer on its
//! way back, whole or event by event. Called by the data plane's dispatch and its metered body; [`crate::codec`] knows who
//! reads and writes what.
//!
//! Where a target has no way to ask for JSON, its writer makes a function of it that the model must call
//! ([`crate::Encoded::forced_tool`]). Clients asked for text, so here the call becomes text again, whatever the dialects.

use bytes::Bytes;
use nemo_types::Usage;
use smallvec::SmallVec;

use crate::{
    Destination, Dialect, Echo, Encoded, ErrorBody, ErrorDialect, FinishReason, Inbound, ServiceTier,
    UpstreamErrorInfo,
    aws_event_stream::{FrameError, FrameScanner},
    codec::{self, CodecError, Decoder, Encoder},
    ir,
    links::{self, Files, Link},
    render_stream_error,
    sse::{SseError, SseScanner},
};

/// What a function that stands for the client's JSON schema is called.
pub const JSON_TOOL: &str = "json_response";

/// The request as the target wants it.
///
/// # Errors
/// What is wrong with it, or what the target can't do, by the client's own name for it.
pub fn request(
    (from, to): (Dialect, Dialect),
    body: &[u8],
    inbound: Inbound<'_>,
    destination: &Destination<'_>,
) -> Result<Encoded, CodecError> {
    request_with((from, to), body, inbound, destination, &Files::NONE)
}

/// The same with what was fetched of [`links`].
///
/// # Errors
/// As [`request`].
pub fn request_with(
    (from, to): (Dialect, Dialect),
    body: &[u8],
    inbound: Inbound<'_>,
    destination: &Destination<'_>,
    files: &Files,
) -> Result<Encoded, CodecError> {
    let mut request = codec::decode_request(from, body, inbound)?;
    files.fill(&mut request);
    codec::encode_request(&request, to, destination)
}

/// What the request names by URL and the target wants the bytes of; empty when it can't be read at all.
pub fn links(
    (from, to): (Dialect, Dialect),
    body: &[u8],
    inbound: Inbound<'_>,
    destination: &Destination<'_>,
) -> Vec<Link> {
    let request = codec::decode_request(from, body, inbound);
    request.map_or_else(|_| Vec::new(), |request| links::wanted(&request, to, destination))
}

/// A complete answer in the client's dialect, and what it tells.
#[derive(Debug, Default)]
pub struct Answer {
    pub body: Vec<u8>,
    pub usage: Option<Usage>,
    pub finish_reason: Option<FinishReason>,
    pub service_tier: ServiceTier,
    /// Bytes of generated text.
    pub output_bytes: u64,
}

/// Translates a complete answer.
///
/// # Errors
/// When it is no answer of the upstream's dialect.
pub fn response((from, to): (Dialect, Dialect), body: &[u8], echo: &Echo) -> Result<Answer, CodecError> {
    let mut response = codec::decode_response(to, body)?;
    if echo.forced_tool {
        response.choices.iter_mut().for_each(call_to_text);
    }
    let finish = response.choices.iter().find_map(|choice| choice.finish.as_ref());
    Ok(Answer {
        usage: response.usage.filter(|usage| !usage.is_unknown()),
        finish_reason: finish.map(ir::Finish::reason),
        service_tier: response.service_tier,
        output_bytes: response.choices.iter().flat_map(|choice| &choice.parts).map(generated).sum(),
        body: codec::encode_response(from, &response, echo),
    })
}

fn call_to_text(choice: &mut ir::Choice<'_>) {
    for part in &mut choice.parts {
        if let ir::Content::ToolCall(call) = &mut part.content
            && call.name == JSON_TOOL
        {
            let text = std::mem::take(&mut call.arguments);
            part.content = ir::Content::Text { text, citations: Vec::new() };
        }
    }
    let calls = choice.parts.iter().any(|part| matches!(part.content, ir::Content::ToolCall(_)));
    if !calls && choice.finish == Some(ir::Finish::ToolCalls) {
        choice.finish = Some(ir::Finish::Stop);
    }
}

/// Bytes of text that the model wrote.
fn generated(part: &ir::Part<'_>) -> u64 {
    let bytes = match &part.content {
        ir::Content::Text { text, .. } | ir::Content::Refusal(text) => text.len(),
        ir::Content::Thinking(thinking) => thinking.text.len(),
        ir::Content::ToolCall(call) => call.name.len() + call.arguments.len(),
        _ => 0,
    };
    bytes as u64
}

/// Why a stream can't be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// The upstream closed the stream before the end of the answer.
    #[error("the upstream's stream ended before the answer was complete")]
    Truncated,
    #[error(transparent)]
    Sse(#[from] SseError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came is none of its dialect's events, or is longer than one may be.
    #[error("the upstream sent what is no event of its dialect: {0}")]
    Malformed(String),
}

/// Translates one streamed answer. One per stream, driven by the data plane's metered body.
#[derive(Debug)]
pub struct StreamTranscoder {
    framing: Framing,
    decoder: Decoder,
    writer: Writer,
}

#[derive(Debug)]
enum Framing {
    Sse(SseScanner),
    /// Amazon's binary frames.
    Aws(FrameScanner),
}

/// The client's side of it.
#[derive(Debug)]
struct Writer {
    encoder: Encoder,
    errors: ErrorDialect,
    forced_tool: bool,
    /// Calls that are to be shown as text: choice and block.
    as_text: SmallVec<[(u32, u32); 1]>,
    /// Choices with calls of the client's own functions.
    calling: SmallVec<[u32; 1]>,
    /// Blocks that have begun and not ended.
    open: SmallVec<[(u32, u32); 2]>,
    seen: Seen,
}

/// What is known of the answer.
#[derive(Debug, Default)]
struct Seen {
    usage: Option<Usage>,
    finish_reason: Option<FinishReason>,
    service_tier: ServiceTier,
    output_bytes: u64,
    /// How many there were when the usage was reported.
    reported_bytes: u64,
    content: bool,
    ended: bool,
    error: Option<UpstreamErrorInfo>,
}

impl StreamTranscoder {
    /// `errors`: how the client wants to be told of an error within the stream. `None` where the one or the other does not
    /// stream.
    pub fn new((from, to): (Dialect, Dialect), echo: Echo, errors: ErrorDialect) -> Option<Self> {
        let framing = match to {
            Dialect::Converse => Framing::Aws(FrameScanner::new()),
            _ => Framing::Sse(SseScanner::new()),
        };
        let forced_tool = echo.forced_tool;
        let encoder = Encoder::new(from, echo)?;
        let writer = Writer {
            encoder,
            errors,
            forced_tool,
            as_text: SmallVec::new(),
            calling: SmallVec::new(),
            open: SmallVec::new(),
            seen: Seen::default(),
        };
        Some(Self { framing, decoder: Decoder::new(to)?, writer })
    }

    /// Takes the next piece of the upstream's body, as the network cut it, and appends to `out` what the client gets for
    /// it: nothing, or whole events.
    ///
    /// # Errors
    /// When what comes is no such stream; what is in `out` is good still.
    pub fn frame(&mut self, frame: &Bytes, out: &mut Vec<u8>) -> Result<(), TranscodeError> {
        let Self { framing, decoder, writer } = self;
        match framing {
            Framing::Sse(scanner) => {
                let mut outcome = Ok(());
                scanner.scan(frame, |raw| {
                    if outcome.is_ok() {
                        outcome = match (raw.event, raw.bytes) {
                            (Some(event), _) => sse_event(decoder, writer, event.name, event.data, out),
                            (None, None) => Err(TranscodeError::Malformed("it is too long".into())),
                            (None, Some(_)) => Ok(()),
                        };
                    }
                })?;
                outcome
            }
            Framing::Aws(scanner) => {
                let mut outcome = Ok(());
                scanner.push(frame, |frame| {
                    if outcome.is_ok() {
                        outcome = event(decoder, writer, frame.name, frame.payload, out);
                    }
                })?;
                outcome
            }
        }
    }

    /// To be called when the upstream has ended its body: appends what is still to be said.
    ///
    /// # Errors
    /// [`TranscodeError::Truncated`] when the answer is not complete.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), TranscodeError> {
        let partial = match &self.framing {
            Framing::Sse(scanner) => !scanner.is_between_events(),
            Framing::Aws(frames) => !frames.is_between_frames(),
        };
        if partial && matches!(self.framing, Framing::Sse(_)) {
            // Some leave out the blank line after the last event. Two, as the line may be open as well.
            self.frame(&Bytes::from_static(b"\n\n"), out)?;
        } else if partial {
            return Err(TranscodeError::Truncated);
        }
        if !self.writer.is_over() {
            let mut events = ir::Events::new();
            self.decoder.finish(&mut events);
            events.into_iter().for_each(|event| self.writer.take(event, out));
        }
        if self.writer.is_over() { Ok(()) } else { Err(TranscodeError::Truncated) }
    }

    /// Ends what has begun as if the limit of the output were met: the gateway stops the stream.
    pub fn stop(&mut self, choices: u64, out: &mut Vec<u8>) {
        if self.writer.is_over() || self.writer.seen.finish_reason.is_some() {
            return;
        }
        for (choice, block) in std::mem::take(&mut self.writer.open) {
            self.writer.encoder.event(&ir::Event::BlockStop { choice, block }, out);
        }
        for choice in 0..u32::try_from(choices.clamp(1, MOST_CHOICES)).unwrap_or(1) {
            self.writer.encoder.event(&ir::Event::Finish { choice, finish: ir::Finish::Length }, out);
        }
        self.writer.seen.finish_reason = Some(FinishReason::new("length"));
    }

    /// Whether something that is part of an answer was seen; until then another upstream can still answer.
    pub fn seen_content(&self) -> bool {
        self.writer.seen.content
    }

    /// The error that the upstream reported within the stream.
    pub fn error(&self) -> Option<&UpstreamErrorInfo> {
        self.writer.seen.error.as_ref()
    }

    /// The last usage that was reported.
    pub fn usage(&self) -> Option<Usage> {
        self.writer.seen.usage
    }

    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.writer.seen.finish_reason.as_ref()
    }

    pub fn service_tier(&self) -> ServiceTier {
        self.writer.seen.service_tier
    }

    /// Bytes of generated text so far.
    pub fn output_bytes(&self) -> u64 {
        self.writer.seen.output_bytes
    }

    /// Those of them that have come since the last report of usage: some report at the start already.
    pub fn unreported_bytes(&self) -> u64 {
        self.writer.seen.output_bytes - self.writer.seen.reported_bytes
    }
}

/// More answers than any provider makes.
const MOST_CHOICES: u64 = 128;

fn sse_event(
    decoder: &mut Decoder,
    writer: &mut Writer,
    name: &[u8],
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TranscodeError> {
    // Whoever stands between may end any stream so.
    let stray = data.trim_ascii() == b"[DONE]" && !matches!(decoder, Decoder::Chat(_));
    if data.is_empty() || stray {
        return Ok(());
    }
    event(decoder, writer, std::str::from_utf8(name).unwrap_or_default(), data, out)
}

fn event(
    decoder: &mut Decoder,
    writer: &mut Writer,
    name: &str,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TranscodeError> {
    if writer.is_over() {
        return Ok(());
    }
    let mut events = ir::Events::new();
    let read = decoder.event(name, data, &mut events);
    events.into_iter().for_each(|event| writer.take(event, out));
    read.map_err(|error| TranscodeError::Malformed(error.message))
}

impl Writer {
    /// Nothing follows.
    fn is_over(&self) -> bool {
        self.seen.ended || self.seen.error.is_some()
    }

    fn take(&mut self, event: ir::Event<'_>, out: &mut Vec<u8>) {
        if self.is_over() {
            return;
        }
        let event = if self.forced_tool { self.unforced(event) } else { event };
        self.note(&event);
        match &event {
            ir::Event::Error(said) => {
                out.extend_from_slice(&render_stream_error(self.errors, &error_body(said)));
            }
            event => self.encoder.event(event, out),
        }
    }

    /// The call that stands for the client's JSON becomes text.
    fn unforced<'a>(&mut self, event: ir::Event<'a>) -> ir::Event<'a> {
        match event {
            ir::Event::BlockStart { choice, block, kind: ir::Block::ToolCall { name, .. } }
                if name == JSON_TOOL =>
            {
                self.as_text.push((choice, block));
                ir::Event::BlockStart { choice, block, kind: ir::Block::Text }
            }
            ir::Event::Delta { choice, block, delta: ir::Delta::Arguments(text) }
                if self.as_text.contains(&(choice, block)) =>
            {
                ir::Event::Delta { choice, block, delta: ir::Delta::Text(text) }
            }
            ir::Event::BlockStart { choice, kind: ir::Block::ToolCall { .. }, .. } => {
                if !self.calling.contains(&choice) {
                    self.calling.push(choice);
                }
                event
            }
            ir::Event::Finish { choice, finish: ir::Finish::ToolCalls }
                if self.as_text.iter().any(|(of, _)| *of == choice) && !self.calling.contains(&choice) =>
            {
                ir::Event::Finish { choice, finish: ir::Finish::Stop }
            }
            other => other,
        }
    }

    fn note(&mut self, event: &ir::Event<'_>) {
        let seen = &mut self.seen;
        match event {
            ir::Event::Start { service_tier, .. } => seen.service_tier = service_tier.or(seen.service_tier),
            ir::Event::BlockStart { choice, block, kind } => {
                self.open.push((*choice, *block));
                // Of a text or a thought nothing has been said yet.
                seen.content |= !matches!(kind, ir::Block::Text | ir::Block::Thinking { .. });
                if let ir::Block::ToolCall { name, .. } = kind {
                    seen.output_bytes += name.len() as u64;
                }
            }
            ir::Event::BlockStop { choice, block } => self.open.retain(|open| *open != (*choice, *block)),
            ir::Event::Delta { delta, .. } => {
                seen.content = true;
                if let ir::Delta::Text(text)
                | ir::Delta::Thinking(text)
                | ir::Delta::Arguments(text)
                | ir::Delta::Refusal(text) = delta
                {
                    seen.output_bytes += text.len() as u64;
                }
            }
            ir::Event::Finish { finish, .. } => {
                seen.content = true;
                seen.finish_reason.get_or_insert_with(|| finish.reason());
            }
            ir::Event::Usage(usage) if !usage.is_unknown() => {
                (seen.usage, seen.reported_bytes) = (Some(*usage), seen.output_bytes);
            }
            ir::Event::Usage(_) => {}
            ir::Event::Error(said) => seen.error = Some(said.clone()),
            ir::Event::End => seen.ended = true,
            ir::Event::Logprobs { .. } => {}
        }
    }
}

/// What the upstream said, as the client is told.
fn error_body(said: &UpstreamErrorInfo) -> ErrorBody<'_> {
    let by_code = said.code.as_deref().and_then(|code| code.parse().ok());
    let status = by_code.filter(|status| (400..600).contains(status)).unwrap_or(match said.kind.as_deref() {
        Some("rate_limit_error" | "RESOURCE_EXHAUSTED") => 429,
        Some("invalid_request_error" | "INVALID_ARGUMENT") => 400,
        Some("overloaded_error" | "UNAVAILABLE") => 503,
        _ => 502,
    });
    ErrorBody {
        status,
        message: said.message.as_deref().unwrap_or("The upstream failed in the middle of its answer."),
        kind: said.kind.as_deref().unwrap_or("upstream_error"),
        code: said.code.as_deref().or(Some("upstream_error")),
        param: said.param.as_deref(),
        metadata: None,
    }
}

#[cfg(test)]
mod tests;
