//! `/v1/messages/count_tokens`: what a request would take in. Called by the data plane where the target counts itself
//! ([`encode`], [`decode_answer`]) and where the gateway has to estimate ([`decode`], [`render`]).

use serde::Deserialize;

use super::{
    request::{MaxTokens, decode_with, encode_with},
    writer::Object,
};
use crate::{CodecError, Destination, Encoded, ir::Request};

/// Reads a request to count, which is a request for an answer without the length of the answer.
///
/// # Errors
/// What is wrong with it, by its path.
pub fn decode(body: &[u8]) -> Result<Request<'_>, CodecError> {
    decode_with(body, MaxTokens::NoMatter)
}

/// Writes a request to count, for Anthropic, or for Vertex, where the model stands in the body of this request alone.
///
/// # Errors
/// What Claude can't read.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    encode_with(request, to, true)
}

/// The count in an upstream's answer.
///
/// # Errors
/// When there is none.
pub fn decode_answer(body: &[u8]) -> Result<u64, CodecError> {
    #[derive(Deserialize)]
    struct Answer {
        input_tokens: u64,
    }
    let answer: Result<Answer, _> = serde_json::from_slice(body);
    let missing = |_| CodecError::invalid("input_tokens", "The upstream's answer has no `input_tokens`.");
    answer.map(|answer| answer.input_tokens).map_err(missing)
}

/// The answer to a client.
pub fn render(tokens: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    let mut object = Object::open(&mut out);
    object.value("input_tokens", tokens);
    object.close();
    out
}
