//! How thoughts of all providers fit into reasoning items, and come back out of them.
//!
//! A reasoning item has a summary that can be read and `encrypted_content` that can't. The latter is OpenAI's own when it
//! stands there bare; for the thoughts of others it says what it is, so that the next turn can hand it back in the right
//! place: the signature under thoughts that stand in the summary, or thoughts that are encrypted whole.

use std::borrow::Cow;

use crate::ir::{Text, Thinking};

/// Before a signature under the summary.
const SIGNATURE: &str = "signature.";
/// Before thoughts that another provider than OpenAI has encrypted.
const REDACTED: &str = "redacted.";
/// What OpenAI's encrypted thoughts begin with: they are Fernet tokens.
const FERNET: &str = "gAAAA";

/// `encrypted_content` for a client; `None`: there is nothing to be hidden.
pub(super) fn content<'a>(
    encrypted: Option<&'a str>,
    signature: Option<&str>,
    is_openai: bool,
) -> Option<Cow<'a, str>> {
    match (encrypted, signature) {
        (Some(data), _) if is_openai || data.starts_with(FERNET) => Some(Cow::Borrowed(data)),
        (Some(data), _) => Some(Cow::Owned(format!("{REDACTED}{data}"))),
        (None, Some(signature)) if !signature.is_empty() => {
            Some(Cow::Owned(format!("{SIGNATURE}{signature}")))
        }
        (None, _) => None,
    }
}

/// The thoughts of an item that a client sends back; affinity is unwrapped already.
pub(super) fn thinking<'a>(
    text: Text<'a>,
    encrypted: Option<Text<'a>>,
    id: Option<Text<'a>>,
) -> Thinking<'a> {
    let Some(data) = encrypted else { return Thinking { text, id, ..Thinking::default() } };
    if let Some(signature) = strip(&data, SIGNATURE) {
        return Thinking { text, signature: Some(signature), ..Thinking::default() };
    }
    if let Some(redacted) = strip(&data, REDACTED) {
        return Thinking { text, encrypted: Some(redacted), ..Thinking::default() };
    }
    // An id says that it is OpenAI's; some clients don't send it back.
    Thinking { text, encrypted: Some(data), id: Some(id.unwrap_or_default()), signature: None }
}

/// What OpenAI can decrypt; the thoughts of others mean nothing to it.
pub(super) fn of_openai<'t>(thinking: &'t Thinking<'_>) -> Option<&'t str> {
    let data = thinking.encrypted.as_deref()?;
    (thinking.id.is_some() || data.starts_with(FERNET)).then_some(data)
}

fn strip<'a>(data: &Text<'a>, prefix: &str) -> Option<Text<'a>> {
    match data {
        Cow::Borrowed(text) => text.strip_prefix(prefix).map(Cow::Borrowed),
        Cow::Owned(text) => text.strip_prefix(prefix).map(|rest| Cow::Owned(rest.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R004-27: thoughts come back to their provider as it has sent them.
    #[test]
    fn thoughts_of_all_providers_come_back_from_an_item() {
        let signed = content(None, Some("sig"), false);
        let back = thinking("why".into(), signed, Some("rs_1".into()));
        assert_eq!(
            (back.text.as_ref(), back.signature.as_deref(), back.encrypted),
            ("why", Some("sig"), None)
        );
        assert_eq!(back.id, None);

        let redacted = content(Some("opaque"), None, false);
        let back = thinking("".into(), redacted, Some("rs_1".into()));
        assert_eq!((back.encrypted.as_deref(), of_openai(&back)), (Some("opaque"), None));

        for id in [Some("rs_1".into()), None] {
            let own = content(Some("gAAAAx"), None, true);
            let back = thinking("".into(), own, id);
            assert_eq!(of_openai(&back), Some("gAAAAx"));
        }
        assert_eq!(content(None, Some(""), false), None);
    }
}
