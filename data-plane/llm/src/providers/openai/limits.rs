//! What OpenAI answers 400 to because it is too long, and Azure with it. Others that speak its dialects take more, or don't
//! say. Called by the writers of Chat Completions and of Responses.

use crate::{
    CodecError, Provider,
    ir::{Param, Request},
};

/// Most sequences that end an answer.
const MAX_STOPS: usize = 4;
/// Longest `user`, in characters. Clients of Anthropic send more than twice as many.
const MAX_USER: usize = 64;

fn is_openai(provider: &Provider) -> bool {
    matches!(provider.id, "openai" | "azure")
}

/// # Errors
/// When there are more sequences than it takes: without one of them the answer would be another.
pub(super) fn check_stop(request: &Request<'_>, provider: &Provider) -> Result<(), CodecError> {
    let count = request.stop.len();
    if count <= MAX_STOPS || !is_openai(provider) {
        return Ok(());
    }
    let path = Param::Stop.name(request.dialect);
    let message = format!("This model's provider takes at most {MAX_STOPS} stop sequences, not {count}.");
    Err(CodecError::unsupported(path, message))
}

/// Whether it can be told who asks.
pub(in super::super) fn takes_user(provider: &Provider, user: &str) -> bool {
    !is_openai(provider) || user.chars().count() <= MAX_USER
}
