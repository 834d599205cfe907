//! Reading: what this folder needs beside [`crate::providers::read`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{CodecError, ir::CacheMark, providers::read};

pub(super) use crate::providers::read::Str;

/// `content`, `system`: a text, or a list whose items are read one by one.
#[derive(Debug)]
pub(super) enum TextOr<'a> {
    Text(Cow<'a, str>),
    Items(Vec<&'a RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for TextOr<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = TextOr<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content blocks")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::with_capacity(4);
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(TextOr::Items(all))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// `cache_control`.
#[derive(Debug, Deserialize)]
pub(super) struct CacheControl<'a> {
    #[serde(borrow, default)]
    ttl: Option<Str<'a>>,
}

impl CacheControl<'_> {
    pub(super) fn mark(&self) -> CacheMark {
        match &self.ttl {
            Some(Str(ttl)) if ttl == "1h" => CacheMark::Hour,
            _ => CacheMark::Default,
        }
    }
}

/// Reads a value that stands at `path`, which is asked for only when something is wrong.
pub(super) fn value<'a, T: Deserialize<'a>>(
    json: &'a str,
    path: &dyn Fn() -> String,
) -> Result<T, CodecError> {
    serde_json::from_str(json).or_else(|_| read::value(&path(), json))
}

/// An index as errors and parts carry it.
pub(super) fn index(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}
