//! `/v1/messages/count_tokens`: what a request would take in. Called by [`crate::count`].

use super::request::{MaxTokens, decode_with, encode_with};
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
