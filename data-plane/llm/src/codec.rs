//! Which code reads and writes which dialect: the one place that knows all of [`crate::providers`]. Called by
//! [`crate::transcode`].
//!
//! Everything here is pure: bytes in, bytes or values out. No clock and no chance: ids and times that a client's dialect
//! wants and the upstream does not have come in through [`Echo`].

use bytes::Bytes;

use crate::{
    Dialect, Provider, UpstreamErrorInfo, inline, ir, links,
    providers::{anthropic, bedrock, cohere, gemini, openai, responses},
};

/// What a request does not say in its body but in its path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inbound<'a> {
    /// Of the path; empty: it stands in the body.
    pub model: &'a str,
    /// The path asks for a stream. Elsewhere the body does.
    pub stream: bool,
}

/// Whom a request is written for.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    pub provider: &'a Provider,
    /// What the upstream calls the model.
    pub model: &'a str,
    /// The most that the model can write, by the catalog; 0: unknown.
    pub most_output: u64,
    /// Tokens that each answer may have at most, where a budget says so.
    pub cap: Option<u64>,
    /// Sent through Vertex or another host that wants the provider's version in the body.
    pub hosted: bool,
}

/// A request for an upstream.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub body: Bytes,
    /// Further bodies, where the target takes only so much in one. What is answered to all of them, as a JSON array in their
    /// order, is the answer.
    pub more: Vec<Bytes>,
    /// What the target can't express, and so was left out.
    pub dropped: Vec<ir::Param>,
    /// The answer comes as a call of this made-up function, whose arguments are the JSON that the client asked for.
    pub forced_tool: bool,
}

impl Encoded {
    pub fn new(body: impl Into<Bytes>, dropped: Vec<ir::Param>) -> Self {
        Self { body: body.into(), more: Vec::new(), dropped, forced_tool: false }
    }
}

/// A request or answer that can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CodecError {
    /// The field, as the client calls it: `messages[3].content[0].image_url`; empty: the body as a whole.
    pub path: String,
    /// What is wrong, and what was expected: a whole sentence.
    pub message: String,
    /// The target can't do it, although the request is fine: another one may.
    pub unsupported: bool,
    /// Of an answer: there is none, because the provider's filters have kept it back.
    pub withheld: bool,
}

impl CodecError {
    /// The request is wrong.
    pub fn invalid(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), unsupported: false, withheld: false }
    }

    /// The request asks for what the target has not.
    pub fn unsupported(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { unsupported: true, ..Self::invalid(path, message) }
    }

    /// What was asked for was made, or would have been, and is not shown: `path` is what asked for it.
    pub fn withheld(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { withheld: true, ..Self::invalid(path, message) }
    }
}

/// What the answer needs of the request and of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    /// Unique, of letters and digits; dialects put their own prefix before it.
    pub id: Box<str>,
    /// Seconds since the epoch.
    pub created: u64,
    /// As the client asked for it: what the answer names where the upstream doesn't say.
    pub model: Box<str>,
    pub include_usage: bool,
    /// See [`Encoded::forced_tool`].
    pub forced_tool: bool,
    /// The client's whole request, for dialects that repeat some of it in the answer (Responses). Shared, not copied.
    pub request: Bytes,
    /// The deployment's tag, put into ids of provider-kept state, so that the next request finds it again: letters, digits
    /// and `-` ([`responses::affinity::is_tag`]). Empty: ids stay as they are.
    pub affinity: Box<str>,
}

/// # Errors
/// What is wrong with it, by the client's own name for it.
pub fn decode_request<'a>(
    dialect: Dialect,
    body: &'a [u8],
    inbound: Inbound<'a>,
) -> Result<ir::Request<'a>, CodecError> {
    let request = match dialect {
        Dialect::Chat => openai::request::decode(body),
        Dialect::Completions => openai::completions::decode(body),
        Dialect::Responses => responses::request::decode(body),
        Dialect::Messages => anthropic::request::decode(body),
        Dialect::GenerateContent => gemini::request::decode(body, inbound),
        Dialect::Converse | Dialect::Cohere => Err(not_read(dialect)),
    }?;
    bounded(request)
}

/// Most tools of a request, most of them that it allows, and most members that the hub has no place for: writers look
/// each of these up in the list of the others.
const MOST_TOOLS: usize = 4096;
const MOST_EXTRAS: usize = 256;

fn bounded(request: ir::Request<'_>) -> Result<ir::Request<'_>, CodecError> {
    let allowed = match &request.tool_choice {
        Some(ir::ToolChoice::Allowed { names, .. }) => names.len(),
        _ => 0,
    };
    let too_many = if request.extras.len() > MOST_EXTRAS {
        ("", MOST_EXTRAS, "members that are no part of a conversation")
    } else if request.tools.len() > MOST_TOOLS {
        ("tools", MOST_TOOLS, "tools")
    } else if allowed > MOST_TOOLS {
        (ir::Param::ToolChoice.name(request.dialect), MOST_TOOLS, "tools that may be called")
    } else {
        return Ok(request);
    };
    let (path, most, what) = too_many;
    Err(CodecError::invalid(path, format!("More than {most} {what}.")))
}

/// # Errors
/// What the target can't do or would refuse, by the client's own name for it.
pub fn encode_request(
    request: &ir::Request<'_>,
    dialect: Dialect,
    to: &Destination<'_>,
) -> Result<Encoded, CodecError> {
    if dialect != Dialect::Responses {
        responses::state::refuse(request)?;
    }
    takes_files(request, dialect, to)?;
    match dialect {
        Dialect::Chat => openai::request::encode(request, to),
        Dialect::Responses => responses::request::encode(request, to),
        Dialect::Messages => anthropic::request::encode(request, to),
        Dialect::GenerateContent => gemini::request::encode(request, to),
        Dialect::Converse => bedrock::request::encode(request, to),
        Dialect::Cohere => cohere::request::encode(request, to),
        Dialect::Completions => Err(not_read(dialect)),
    }
}

/// # Errors
/// A file of the request that the target does not take as it is.
pub(crate) fn takes_files(
    request: &ir::Request<'_>,
    dialect: Dialect,
    to: &Destination<'_>,
) -> Result<(), CodecError> {
    links::refuse(request, dialect, to)?;
    inline::check(request, dialect, to)
}

/// # Errors
/// When it is no answer of this dialect.
pub fn decode_response(dialect: Dialect, body: &[u8]) -> Result<ir::Response<'_>, CodecError> {
    match dialect {
        Dialect::Chat => openai::response::decode(body),
        Dialect::Responses => responses::response::decode(body),
        Dialect::Messages => anthropic::response::decode(body),
        Dialect::GenerateContent => gemini::response::decode(body),
        Dialect::Converse => bedrock::response::decode(body),
        Dialect::Cohere => cohere::response::decode(body),
        Dialect::Completions => Err(not_read(dialect)),
    }
}

/// The answer as clients of `dialect` expect it.
pub fn encode_response(dialect: Dialect, response: &ir::Response<'_>, echo: &Echo) -> Vec<u8> {
    match dialect {
        Dialect::Completions => openai::completions::encode(response, echo),
        Dialect::Responses => responses::response::encode(response, echo),
        Dialect::Messages => anthropic::response::encode(response, echo),
        Dialect::GenerateContent => gemini::response::encode(response, echo),
        // Nobody asks in the last two.
        Dialect::Chat | Dialect::Converse | Dialect::Cohere => openai::response::encode(response, echo),
    }
}

/// What an upstream's error body says, in the words of OpenAI.
pub fn decode_error(dialect: Dialect, status: u16, body: &[u8]) -> UpstreamErrorInfo {
    match dialect {
        Dialect::Messages => anthropic::errors::decode(status, body),
        Dialect::GenerateContent => gemini::errors::decode(status, body),
        Dialect::Converse => bedrock::errors::decode(status, body),
        Dialect::Cohere => cohere::errors::decode(status, body),
        Dialect::Chat | Dialect::Completions | Dialect::Responses => crate::decode_error(body),
    }
}

fn not_read(dialect: Dialect) -> CodecError {
    CodecError::unsupported("", format!("{} can't be written or read here.", dialect.name()))
}

/// Reads the events of an upstream.
#[derive(Debug)]
pub enum Decoder {
    Chat(openai::stream::Decoder),
    Responses(responses::stream::Decoder),
    Messages(anthropic::stream::Decoder),
    GenerateContent(gemini::stream::Decoder),
    Converse(bedrock::stream::Decoder),
    Cohere(cohere::stream::Decoder),
}

impl Decoder {
    /// `None` for a dialect that no upstream streams.
    pub fn new(dialect: Dialect) -> Option<Self> {
        Some(match dialect {
            Dialect::Chat => Self::Chat(openai::stream::Decoder::default()),
            Dialect::Responses => Self::Responses(responses::stream::Decoder::default()),
            Dialect::Messages => Self::Messages(anthropic::stream::Decoder::default()),
            Dialect::GenerateContent => Self::GenerateContent(gemini::stream::Decoder::default()),
            Dialect::Converse => Self::Converse(bedrock::stream::Decoder::default()),
            Dialect::Cohere => Self::Cohere(cohere::stream::Decoder::default()),
            Dialect::Completions => return None,
        })
    }

    /// Takes one event: `name` is its SSE `event` or its `:event-type`, empty when it has none.
    ///
    /// # Errors
    /// When it is none of this dialect; the stream is broken then.
    pub fn event<'a>(
        &mut self,
        name: &str,
        data: &'a [u8],
        out: &mut ir::Events<'a>,
    ) -> Result<(), CodecError> {
        match self {
            Self::Chat(decoder) => decoder.event(data, out),
            Self::Responses(decoder) => decoder.event(data, out),
            Self::Messages(decoder) => decoder.event(data, out),
            Self::GenerateContent(decoder) => decoder.event(data, out),
            Self::Converse(decoder) => decoder.event(name, data, out),
            Self::Cohere(decoder) => decoder.event(data, out),
        }
    }

    /// The upstream has closed the stream: closes what is open. Pushes `End` when the answer is complete without an
    /// event that says so; nothing when it was cut short.
    pub fn finish(&mut self, out: &mut ir::Events<'static>) {
        match self {
            Self::Chat(decoder) => decoder.finish(out),
            Self::Responses(decoder) => decoder.finish(out),
            Self::Messages(decoder) => decoder.finish(out),
            Self::GenerateContent(decoder) => decoder.finish(out),
            Self::Converse(decoder) => decoder.finish(out),
            Self::Cohere(decoder) => decoder.finish(out),
        }
    }
}

/// Writes the events for a client, framing included.
#[derive(Debug)]
pub enum Encoder {
    Chat(Box<openai::stream::Encoder>),
    Completions(Box<openai::completions::Encoder>),
    Responses(Box<responses::stream::Encoder>),
    Messages(Box<anthropic::stream::Encoder>),
    GenerateContent(Box<gemini::stream::Encoder>),
}

impl Encoder {
    /// `None` for a dialect that no client speaks.
    pub fn new(dialect: Dialect, echo: Echo) -> Option<Self> {
        Some(match dialect {
            Dialect::Chat => Self::Chat(Box::new(openai::stream::Encoder::new(echo))),
            Dialect::Completions => Self::Completions(Box::new(openai::completions::Encoder::new(echo))),
            Dialect::Responses => Self::Responses(Box::new(responses::stream::Encoder::new(echo))),
            Dialect::Messages => Self::Messages(Box::new(anthropic::stream::Encoder::new(echo))),
            Dialect::GenerateContent => Self::GenerateContent(Box::new(gemini::stream::Encoder::new(echo))),
            Dialect::Converse | Dialect::Cohere => return None,
        })
    }

    /// Appends to `out` what the client gets for this event: nothing, or whole SSE events. `End` writes all that the
    /// dialect has at the end (`[DONE]`, `message_stop`, the usage chunk). `Error` writes nothing: the gateway renders
    /// errors itself.
    pub fn event(&mut self, event: &ir::Event<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Chat(encoder) => encoder.event(event, out),
            Self::Completions(encoder) => encoder.event(event, out),
            Self::Responses(encoder) => encoder.event(event, out),
            Self::Messages(encoder) => encoder.event(event, out),
            Self::GenerateContent(encoder) => encoder.event(event, out),
        }
    }
}
