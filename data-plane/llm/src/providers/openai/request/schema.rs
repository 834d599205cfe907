//! What a model has to be told so that its answer has the format that was asked for. Called by [`super::encode`].

use crate::{
    ir::{Content, Format, Request},
    quirks::ChatQuirks,
};

/// OpenAI refuses to answer in JSON unless the word stands in a message; clients of dialects that have no such rule don't
/// write it. Services without `json_schema` know JSON alone: they are told the schema.
pub(super) fn instruction(request: &Request<'_>, quirks: &ChatQuirks) -> Option<String> {
    match request.format.as_ref()? {
        Format::Json if !says_json(request) => Some("Answer with a JSON object.".to_owned()),
        Format::Schema { schema, .. } if !quirks.schemas => {
            Some(format!("Answer with a JSON object of this JSON schema: {}", schema.get()))
        }
        _ => None,
    }
}

fn says_json(request: &Request<'_>) -> bool {
    let json = |text: &str| text.as_bytes().windows(4).any(|word| word.eq_ignore_ascii_case(b"json"));
    request.messages.iter().flat_map(|message| &message.parts).any(|part| match &part.content {
        Content::Text { text, .. } => json(text),
        _ => false,
    })
}
