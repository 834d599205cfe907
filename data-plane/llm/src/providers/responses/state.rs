//! What only a provider that keeps state can answer: answers, conversations and items that a request names by id. Called
//! by [`crate::codec`] for every target that does not speak Responses.

use serde::Deserialize;

use crate::{
    Dialect,
    codec::CodecError,
    ir::{Content, Request},
};

/// Refuses what refers to state that a target of another dialect has not.
///
/// # Errors
/// Names the member that refers to it, and what the client can do instead.
pub fn refuse(request: &Request<'_>) -> Result<(), CodecError> {
    if request.dialect != Dialect::Responses {
        return Ok(());
    }
    if request.previous_response_id.is_some() {
        return Err(CodecError::invalid(
            "previous_response_id",
            "`previous_response_id` goes on from an answer that its provider keeps, and the provider of this model keeps \
             none. Send the whole conversation in `input`.",
        ));
    }
    for (name, value) in &request.extras {
        let message = match (name.as_ref(), value.get()) {
            ("conversation", _) => {
                "`conversation` names one that a provider keeps, and the provider of this model keeps none. Send the \
                 whole conversation in `input`."
            }
            ("prompt", _) => {
                "`prompt` names a template that a provider keeps, and the provider of this model keeps none. Send its \
                 text in `instructions` or `input`."
            }
            ("background", "true") => {
                "`background` needs a provider that keeps the answer until it is asked for, and the provider of this \
                 model does not. Leave it out, and stream the answer if it takes long."
            }
            _ => continue,
        };
        return Err(CodecError::invalid(name.as_ref(), message));
    }
    for message in &request.messages {
        for part in &message.parts {
            if let Content::Opaque { dialect: Dialect::Responses, value } = &part.content
                && is_reference(value.get())
            {
                let path = format!("input[{}]", message.at);
                let message = format!(
                    "`{path}` names an item that a provider keeps, and the provider of this model keeps none. Send the \
                     item itself."
                );
                return Err(CodecError::invalid(path, message));
            }
        }
    }
    Ok(())
}

/// Whether an item is only the id of one.
pub(super) fn is_reference(item: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: Option<&'a str>,
    }
    serde_json::from_str(item).is_ok_and(|Kind { kind }| matches!(kind, None | Some("item_reference")))
}
