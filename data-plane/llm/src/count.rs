//! What a request would take in, in tokens: counted by the target, in its own words, or estimated here where it can't.
//! Called for [`Plan::Count`](crate::Plan::Count) by the data plane's `pipeline::crossing`.

use crate::{
    CodecError, Destination, Dialect, Encoded, Endpoint, Hosting, Inbound, Provider,
    address::{one_segment, own_base, published, segments},
    codec, estimate, ir,
    providers::{
        anthropic, bedrock, gemini,
        read::{self, Members},
        responses, write,
    },
};

/// Who counts, by the words in which it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Anthropic's `count_tokens`, also of the Claude that Vertex serves.
    Messages,
    /// Google's `:countTokens`.
    GenerateContent,
    /// Bedrock's `CountTokens`.
    Converse,
    /// OpenAI's `/responses/input_tokens`.
    Responses,
    /// Nobody, so the gateway estimates.
    Estimate,
}

impl Counter {
    /// `None`: this provider has no conversations with this model.
    pub fn of(provider: &Provider, model: &str) -> Option<Self> {
        Some(match (provider.dialect(model)?, provider.hosting) {
            (Dialect::Messages, _) => Self::Messages,
            (Dialect::GenerateContent, Hosting::AiStudio | Hosting::Vertex) => Self::GenerateContent,
            (Dialect::Converse, _) if bedrock::count_tokens::model(model).is_some() => Self::Converse,
            _ if provider.counts_input => Self::Responses,
            _ => Self::Estimate,
        })
    }

    /// Whose errors it answers with.
    pub fn dialect(self) -> Option<Dialect> {
        Some(match self {
            Self::Messages => Dialect::Messages,
            Self::GenerateContent => Dialect::GenerateContent,
            Self::Converse => Dialect::Converse,
            Self::Responses => Dialect::Responses,
            Self::Estimate => return None,
        })
    }

    /// Where it is called; `None` when nothing is, or when the model's name can't stand in a path.
    pub fn url(self, provider: &Provider, base_url: &str, model: &str) -> Option<String> {
        Some(match (self, provider.hosting) {
            (Self::Messages, Hosting::Vertex) => {
                format!("{base_url}{}", gemini::address::CLAUDE_COUNT_TOKENS)
            }
            (Self::Messages, _) => provider.url(base_url, Endpoint::CountTokens),
            (Self::GenerateContent, Hosting::Vertex) => {
                let (publisher, model) = published(segments(model)?);
                format!("{base_url}/publishers/{publisher}/models/{model}:countTokens")
            }
            (Self::GenerateContent, _) => {
                let path = gemini::address::ai_studio(segments(model)?, "countTokens");
                format!("{}{path}", own_base(provider, base_url))
            }
            (Self::Converse, _) => {
                let model = one_segment(bedrock::count_tokens::model(model)?)?;
                format!("{base_url}/model/{model}/count-tokens")
            }
            (Self::Responses, _) => format!("{base_url}{}/input_tokens", Endpoint::Responses.upstream_path()),
            (Self::Estimate, _) => return None,
        })
    }

    /// Whether an answer with this status says that the target, or this account at it, does not count. Then the count is
    /// estimated: a client that plans by it is helped more by a number than by an error. `said`: the words of it.
    pub fn is_missing(self, status: u16, said: &str) -> bool {
        // Permission to count is a right of its own at Amazon and Google.
        matches!(status, 403 | 404 | 405 | 501)
            || (self == Self::Converse && status == 400 && said.contains("counting tokens"))
    }
}

/// A request of a client's dialect, which is to be counted. It is wrong in the same ways as one that is to be answered.
fn decode<'a>(from: Dialect, body: &'a [u8], inbound: Inbound<'a>) -> Result<ir::Request<'a>, CodecError> {
    match from {
        Dialect::GenerateContent => gemini::count_tokens::decode(body, inbound),
        _ => anthropic::count_tokens::decode(body),
    }
}

/// The request for whoever counts.
///
/// # Errors
/// What is wrong with it, or what the target can't read, by the client's own name for it.
pub fn request(
    (from, by): (Dialect, Counter),
    body: &[u8],
    inbound: Inbound<'_>,
    to: &Destination<'_>,
) -> Result<Encoded, CodecError> {
    if (from, by) == (Dialect::GenerateContent, Counter::GenerateContent) {
        return gemini::count_tokens::native(body, to);
    }
    let request = decode(from, body, inbound)?;
    if let Some(dialect) = by.dialect() {
        codec::takes_files(&request, dialect, to)?;
    }
    match by {
        Counter::Messages => anthropic::count_tokens::encode(&request, to),
        Counter::GenerateContent => gemini::count_tokens::encode(&request, to),
        Counter::Converse => bedrock::count_tokens::encode(&request, to),
        Counter::Responses => responses::count_tokens::encode(&request, to),
        Counter::Estimate => Err(CodecError::invalid("", "Nobody is to be asked.")),
    }
}

/// The client's answer, made of the answer of whoever counted.
///
/// # Errors
/// When there is no count in it.
pub fn response((from, by): (Dialect, Counter), body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let name = match by {
        Counter::GenerateContent => "totalTokens",
        Counter::Converse => "inputTokens",
        Counter::Messages | Counter::Responses | Counter::Estimate => "input_tokens",
    };
    let Members(members) = read::body(body)?;
    let value = members.iter().find(|(member, _)| member.0 == name).map(|(_, value)| *value);
    // Google leaves out what is zero.
    let tokens = match (value, by) {
        (Some(value), _) => value.get().parse().ok(),
        (None, Counter::GenerateContent) => Some(0),
        (None, _) => None,
    };
    let missing = || CodecError::invalid(name, format!("The upstream's answer has no `{name}`."));
    Ok(render(from, tokens.ok_or_else(missing)?))
}

/// The client's answer where nobody but the gateway counts.
///
/// # Errors
/// What is wrong with the request.
pub fn estimated(from: Dialect, body: &[u8], inbound: Inbound<'_>) -> Result<Vec<u8>, CodecError> {
    Ok(render(from, estimate::of_request(&decode(from, body, inbound)?)))
}

fn render(from: Dialect, tokens: u64) -> Vec<u8> {
    let name = if from == Dialect::GenerateContent { "totalTokens" } else { "input_tokens" };
    format!("{{\"{name}\":{tokens}}}").into_bytes()
}

/// A written request without what nobody counts: targets refuse members that they don't know.
pub(crate) fn reduced(encoded: &Encoded, kept: &[&str]) -> Result<Vec<u8>, CodecError> {
    let Members(members) = read::body(&encoded.body)?;
    let mut out = Vec::with_capacity(encoded.body.len());
    write::object(&mut out, |object| {
        for (name, value) in members.iter().filter(|(name, _)| kept.contains(&&*name.0)) {
            object.raw(&name.0, value.get());
        }
    });
    Ok(out)
}

#[cfg(test)]
mod tests;
