//! Reading JSON bodies with errors that name the place: into borrowed structures here, value by value in [`node`]. Called by
//! the readers of dialects.

pub(in crate::providers) mod node;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{codec::CodecError, ir::Text};

/// Most members of a body: beyond it the search for members that are there twice would take long.
const MAX_MEMBERS: usize = 256;

/// A string that is borrowed where it has no escapes. (`Option<Cow<str>>` would always be owned.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Str<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Str<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

impl<'a> From<Str<'a>> for Text<'a> {
    fn from(text: Str<'a>) -> Self {
        text.0
    }
}

/// The text of an optional string.
pub fn text(text: Option<Str<'_>>) -> Option<Text<'_>> {
    text.map(|text| text.0)
}

/// The members of an object as they were written, in their order.
#[derive(Debug)]
pub struct Members<'a>(pub Vec<(Str<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members: Vec<(Str<'de>, &'de RawValue)> = Vec::with_capacity(16);
                while let Some(member) = map.next_entry::<Str<'de>, &'de RawValue>()? {
                    if members.len() == MAX_MEMBERS {
                        return Err(de::Error::custom("more than 256 members"));
                    }
                    if members.iter().any(|(name, _)| *name == member.0) {
                        return Err(de::Error::custom(format_args!("duplicate field `{}`", member.0.0)));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(List)
    }
}

/// Reads a whole body.
///
/// # Errors
/// With the path of what is wrong.
pub fn body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CodecError> {
    value("", utf8(body)?)
}

/// As a string first: each piece of it then needs no check of its own.
fn utf8(body: &[u8]) -> Result<&str, CodecError> {
    simdutf8::basic::from_utf8(body).map_err(|_| CodecError::invalid("", "The body is no valid UTF-8."))
}

/// Reads one value; `at` is its own path.
///
/// # Errors
/// With the path of what is wrong.
pub fn value<'a, T: Deserialize<'a>>(at: &str, json: &'a str) -> Result<T, CodecError> {
    // Paths cost time, and are needed only for what fails.
    serde_json::from_str(json).or_else(|_| {
        let mut reader = serde_json::Deserializer::from_str(json);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let inner = error.path().to_string();
            CodecError::invalid(join(at, &inner), sentence(&error.into_inner()))
        })?;
        reader.end().map_err(|error| CodecError::invalid(at, sentence(&error)))?;
        Ok(read)
    })
}

/// The value of an optional member: `null` is as good as none.
///
/// # Errors
/// With the path of what is wrong.
pub fn member<'a, T: Deserialize<'a>>(name: &str, json: &'a RawValue) -> Result<Option<T>, CodecError> {
    value(name, json.get())
}

/// `messages` and `[0].role`, or `tool_choice` and `type`, in one path.
fn join(at: &str, inner: &str) -> String {
    match (at, inner) {
        (at, "." | "?" | "") => at.to_owned(),
        ("", inner) => inner.to_owned(),
        (at, inner) if inner.starts_with('[') => format!("{at}{inner}"),
        (at, inner) => format!("{at}.{inner}"),
    }
}

/// What the parser says, as a sentence without the line and column of a text that is all one line.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    // In words of JSON, not of Rust.
    let text = match text.rsplit_once("expected ") {
        Some((before, "f64")) => format!("{before}expected a number"),
        Some((before, "i64")) => format!("{before}expected an integer"),
        Some((before, "u16" | "u32" | "u64")) => format!("{before}expected a whole number"),
        _ => text.to_owned(),
    };
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    struct Item<'a> {
        #[serde(borrow)]
        name: Str<'a>,
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let items: Vec<Item<'_>> = body(br#"[{"name":"plain"},{"name":"esc\n"}]"#).unwrap();
        assert!(matches!(items[0].name.0, Cow::Borrowed("plain")));
        assert!(matches!(&items[1].name.0, Cow::Owned(text) if text == "esc\n"));
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        let error = value::<Vec<Item<'_>>>("messages", r#"[{"name":"a"},{"name":5}]"#).unwrap_err();
        assert_eq!(error.path, "messages[1].name");
        assert_eq!(error.message, "Invalid type: integer `5`, expected a string.");
        let error = value::<f64>("temperature", "\"hot\"").unwrap_err();
        assert_eq!(error.message, "Invalid type: string \"hot\", expected a number.");
        let error = value::<Item<'_>>("tool", "{}").unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), ("tool", "Missing field `name`."));
        assert_eq!(body::<Item<'_>>(b"{\"name\":\"\xff\"}").unwrap_err().path, "");
        assert!(body::<Item<'_>>(b"{\"name\":\"a\"} x").unwrap_err().message.starts_with("Trailing"));
    }

    #[test]
    fn members_stand_once_and_are_bounded() {
        let twice = body::<Members<'_>>(br#"{"a":1,"\u0061":2}"#).unwrap_err();
        assert_eq!(twice.message, "Duplicate field `a`.");
        let many: Vec<_> = (0..300).map(|n| format!("\"{n}\":0")).collect();
        assert!(body::<Members<'_>>(format!("{{{}}}", many.join(",")).as_bytes()).is_err());
        assert_eq!(body::<Members<'_>>(br#"{"a": [1, 2]}"#).unwrap().0[0].1.get(), "[1, 2]");
    }
}
