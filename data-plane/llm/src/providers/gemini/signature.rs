//! `thoughtSignature` as a carrier: Google's clients give back whatever base64 stands there, so for them it carries the
//! signatures and encrypted thoughts of other providers too.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::wire::standard_base64;
use crate::ir::{Text, Thinking};

/// Before what is no base64 of itself, or is more than a signature: then one letter that tells which.
const MARK: &[u8] = b"\0nemo";

/// A signature as Google's clients can hold it: they decode base64.
pub(super) fn to_wire(signature: &str) -> Cow<'_, str> {
    let google = standard_base64(signature.into()).is_some_and(|standard| *standard == *signature);
    if google && !signature.is_empty() { Cow::Borrowed(signature) } else { marked(b's', &[signature]) }
}

/// What a thought carries beside its text: a signature, an encrypted thought, the id of OpenAI's item. Empty: nothing.
pub(super) fn of_thinking<'a>(thinking: &'a Thinking<'_>) -> Option<Cow<'a, str>> {
    match (&thinking.signature, &thinking.encrypted, &thinking.id) {
        (Some(signature), None, None) => Some(to_wire(signature)),
        (None, None, None) => None,
        (signature, encrypted, id) => {
            let text = |it: &'a Option<Text<'_>>| it.as_deref().unwrap_or_default();
            Some(marked(b't', &[text(signature), text(encrypted), text(id)]))
        }
    }
}

/// The other way round, of a thought: into `thinking`.
pub(super) fn into_thinking<'a>(wire: Text<'a>, thinking: &mut Thinking<'a>) {
    let wire = normal(wire);
    match unmarked(&wire) {
        Some((b't', rest)) => {
            let mut fields = rest.split('\0').map(|it| (!it.is_empty()).then(|| Cow::Owned(it.to_owned())));
            thinking.signature = fields.next().flatten();
            thinking.encrypted = fields.next().flatten();
            thinking.id = fields.next().flatten();
        }
        Some((_, rest)) => thinking.signature = Some(rest.into()),
        None => thinking.signature = Some(wire),
    }
}

/// The other way round, of any other part.
pub(super) fn from_wire(wire: Text<'_>) -> Text<'_> {
    let wire = normal(wire);
    match unmarked(&wire) {
        Some((_, rest)) => rest.into(),
        None => wire,
    }
}

/// In the standard alphabet: some clients hand signatures back in the other one.
fn normal(wire: Text<'_>) -> Text<'_> {
    standard_base64(wire.clone()).unwrap_or(wire)
}

fn marked(kind: u8, fields: &[&str]) -> Cow<'static, str> {
    let mut bytes = MARK.to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(fields.join("\0").as_bytes());
    Cow::Owned(STANDARD.encode(bytes))
}

fn unmarked(wire: &str) -> Option<(u8, String)> {
    // `STANDARD.encode(MARK)` begins so.
    if !wire.starts_with("AG5lbW") {
        return None;
    }
    let mut bytes = STANDARD.decode(wire).ok()?;
    let rest = bytes.strip_prefix(MARK)?;
    let (kind, length) = (*rest.first()?, rest.len() - 1);
    let text = bytes.split_off(bytes.len() - length);
    Some((kind, String::from_utf8(text).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_others_survive_a_client_that_decodes_base64() {
        for signature in ["EqoB+/==", "QUJD", "not base64 at all", "skip_thought_signature_validator", ""] {
            let wire = to_wire(signature);
            assert!(STANDARD.decode(&*wire).is_ok() || &*wire == "EqoB+/==", "{wire}");
            assert_eq!(from_wire(wire), signature);
        }
        assert_eq!(to_wire("QUJD"), "QUJD");
    }

    #[test]
    fn encrypted_thoughts_and_ids_come_back() {
        let thinking =
            Thinking { encrypted: Some("gAAAA".into()), id: Some("rs_1".into()), ..Thinking::default() };
        let mut read = Thinking::default();
        into_thinking(of_thinking(&thinking).unwrap(), &mut read);
        assert_eq!((read.encrypted.as_deref(), read.id.as_deref()), (Some("gAAAA"), Some("rs_1")));
        assert_eq!(read.signature, None);
        assert_eq!(of_thinking(&Thinking::default()), None);
        let mut read = Thinking::default();
        into_thinking("QUJD".into(), &mut read);
        assert_eq!(read.signature.as_deref(), Some("QUJD"));
    }
}
