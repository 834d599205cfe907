//! Encrypted thoughts of OpenAI's models, for clients that know thinking blocks only. OpenAI wants the id of the
//! reasoning item back beside its content, and a block has one field for both: `id:content`. No content has a colon in
//! it, neither Anthropic's nor OpenAI's, since both are base64. Used by the writers for clients and the reader of
//! requests.

use std::borrow::Cow;

/// One field for both.
pub(super) fn pack<'a>(content: &'a str, id: &str) -> Cow<'a, str> {
    if id.is_empty() { Cow::Borrowed(content) } else { Cow::Owned(format!("{id}:{content}")) }
}

/// Content and id; `None`: it is Anthropic's own, and has no id.
pub(super) fn unpack<'a>(field: &Cow<'a, str>) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
    let (id, content) = field.rsplit_once(':')?;
    Some(match field {
        Cow::Borrowed(_) => {
            let at = id.len();
            let Cow::Borrowed(field) = field else { return None };
            (Cow::Borrowed(&field[at + 1..]), Cow::Borrowed(&field[..at]))
        }
        Cow::Owned(_) => (Cow::Owned(content.to_owned()), Cow::Owned(id.to_owned())),
    })
}

/// Whether Claude's provider can read it: OpenAI's content is a Fernet token, whose version byte is `0x80`.
pub(super) fn is_openai(content: &str) -> bool {
    content.starts_with("gAAAA")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back() {
        for (content, id) in [("gAAAAB", "rs_1"), ("gAAAAB", "dep:rs_1"), ("E+/=", "")] {
            let packed = pack(content, id);
            for packed in [Cow::Borrowed(&*packed), Cow::Owned(packed.clone().into_owned())] {
                let (text, of) = unpack(&packed).unwrap_or((packed.clone(), Cow::Borrowed("")));
                assert_eq!((&*text, &*of), (content, id));
            }
        }
        assert!(is_openai("gAAAAB") && !is_openai("EqMD"));
    }
}
