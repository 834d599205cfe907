//! Ids of tool calls that carry Google's `thoughtSignature`.
//!
//! Gemini refuses the next turn when the signature of a call does not come back with it. Clients that know the field
//! return it; most drop what they don't know, but every client returns a call's id. So the writers of answers for clients
//! put the signature into the id ([`with_signature`]), and the readers of requests take it out again ([`split`]), for
//! whichever provider the next turn goes to.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::ir::Text;

/// Before a signature that is standard base64 with padding, as Google's are: written in the URL alphabet, unpadded.
const SIGNATURE: &str = "__ts_";
/// Before any other signature: its text in URL-safe base64.
const TEXT: &str = "__tx_";
/// Places in an id that are looked at: each is a pass over all of its rest, and a client may send any id.
const MOST_TRIES: usize = 16;

/// The id with the signature in it, of letters, digits, `_` and `-` only. Without signature: the id.
pub fn with_signature(id: &str, signature: &str) -> String {
    let mut out = String::with_capacity(id.len() + SIGNATURE.len() + signature.len());
    out.push_str(id);
    if signature.is_empty() {
        return out;
    }
    if is_base64(signature) {
        out.push_str(SIGNATURE);
        out.extend(signature.trim_end_matches('=').chars().map(|letter| match letter {
            '+' => '-',
            '/' => '_',
            other => other,
        }));
    } else {
        out.push_str(TEXT);
        URL_SAFE_NO_PAD.encode_string(signature, &mut out);
    }
    out
}

/// The id as the provider knows it, and the signature that [`with_signature`] put into it.
pub fn split(id: &str) -> (&str, Option<Cow<'_, str>>) {
    let none = (id, None);
    let Some(at) = id.find("__t") else { return none };
    // An id of somebody else may have `__t` in it: it is ours only if all of the rest fits.
    let mut from = at;
    for _ in 0..MOST_TRIES {
        let rest = &id[from..];
        if let Some(signature) = rest.strip_prefix(SIGNATURE).and_then(from_url_alphabet) {
            return (&id[..from], Some(signature));
        }
        if let Some(signature) = rest.strip_prefix(TEXT).and_then(from_text) {
            return (&id[..from], Some(signature));
        }
        match rest[1..].find("__t") {
            Some(next) => from += 1 + next,
            None => return none,
        }
    }
    none
}

fn from_url_alphabet(text: &str) -> Option<Cow<'_, str>> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.is_empty() || text.len() % 4 == 1 || !text.bytes().all(fits) {
        return None;
    }
    if text.len().is_multiple_of(4) && !text.contains(['-', '_']) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.extend(text.chars().map(|letter| match letter {
        '-' => '+',
        '_' => '/',
        other => other,
    }));
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    Some(Cow::Owned(out))
}

fn from_text(text: &str) -> Option<Cow<'_, str>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(Cow::Owned)
}

/// Whether it is standard base64 with the padding that its length asks for.
/// The same of text that is borrowed or not.
pub fn split_text(id: Text<'_>) -> (Text<'_>, Option<Text<'_>>) {
    match id {
        Text::Borrowed(id) => {
            let (id, signature) = split(id);
            (Text::Borrowed(id), signature)
        }
        Text::Owned(id) => {
            let (own, signature) = split(&id);
            (Text::Owned(own.to_owned()), signature.map(|it| Text::Owned(it.into_owned())))
        }
    }
}

fn is_base64(text: &str) -> bool {
    let letters = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - letters.len() <= 2
        && letters.len() % 4 != 1
        && !letters.is_empty()
        && letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signature_of_google_survives_in_the_id() {
        for signature in ["QUJD", "QUI=", "QQ==", "+/+/", "a__ts_b", "skip_thought_signature_validator"] {
            let id = with_signature("call_0_abc", signature);
            assert!(
                id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')),
                "{id}"
            );
            assert_eq!(split(&id), ("call_0_abc", Some(signature.into())), "{id}");
        }
        assert_eq!(with_signature("call_1", "+/=="), "call_1__ts_-_");
    }

    #[test]
    fn ids_of_others_stay_as_they_are() {
        for id in [
            "",
            "call_abc",
            "toolu_01A__ts_",
            "x__ts_a",
            "x__ts_ab!d",
            "__t",
            "x__tx_a",
            "x__tx__w",
            "é__tz_",
        ] {
            assert_eq!(split(id), (id, None));
        }
        assert_eq!(with_signature("call_1", ""), "call_1");
    }

    proptest! {
        /// R004-27, failure 23: what a naive client returns is what the model wrote.
        #[test]
        fn every_signature_comes_back(id in "[a-zA-Z0-9-]{0,20}", signature in "(?s).{1,60}|([A-Za-z0-9+/]{4}){1,20}") {
            let written = with_signature(&id, &signature);
            let (same, found) = split(&written);
            prop_assert_eq!(same, &id);
            prop_assert_eq!(found.as_deref(), Some(signature.as_str()));
        }

        #[test]
        fn any_id_can_be_split(id in "(?s).{0,40}|.{0,8}(__t[sx]_).{0,30}") {
            let (before, signature) = split(&id);
            prop_assert!(id.starts_with(before));
            prop_assert_eq!(signature.is_none(), before.len() == id.len());
        }
    }

    /// What looks like a mark all over is not tried at every place of it.
    #[test]
    fn a_long_id_of_somebody_else_is_given_up_on() {
        let id = SIGNATURE.repeat(200_000) + "!";
        assert_eq!(split(&id), (&*id, None));
    }
}
