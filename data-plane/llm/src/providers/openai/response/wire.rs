//! Pieces of answers that whole messages and the deltas of streams have in common.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use super::super::{request::ExtraIn, thoughts::DetailIn};
use crate::{
    ir::{Citation, Finish, Media, Source, Text},
    providers::{
        data_url,
        read::{Str, text},
    },
};

/// What a choice says: the whole message, or what is new of it.
#[derive(Default, Deserialize)]
pub(in super::super) struct MessageIn<'a> {
    #[serde(borrow)]
    pub content: Option<TextIn<'a>>,
    #[serde(borrow)]
    pub refusal: Option<Str<'a>>,
    #[serde(borrow)]
    pub reasoning_content: Option<Str<'a>>,
    #[serde(borrow)]
    pub reasoning: Option<Str<'a>>,
    #[serde(borrow)]
    pub reasoning_details: Option<Vec<DetailIn<'a>>>,
    #[serde(borrow)]
    pub tool_calls: Option<Vec<CallIn<'a>>>,
    #[serde(borrow)]
    pub annotations: Option<Vec<AnnotationIn<'a>>>,
    #[serde(borrow)]
    pub images: Option<Vec<ImageIn<'a>>>,
    #[serde(borrow)]
    pub audio: Option<SpokenIn<'a>>,
    #[serde(borrow)]
    pub extra_content: Option<ExtraIn<'a>>,
}

/// Text, or Mistral's list of chunks, some of which are thoughts.
#[derive(Debug)]
pub(in super::super) enum TextIn<'a> {
    Plain(Str<'a>),
    Chunks(Vec<ChunkIn<'a>>),
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct ChunkIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    thinking: Option<Vec<ThoughtIn<'a>>>,
}

#[derive(Debug, Deserialize)]
struct ThoughtIn<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

impl<'a> ChunkIn<'a> {
    /// Its text, and whether it is a thought.
    pub(in super::super) fn read(self) -> (Text<'a>, bool) {
        if self.kind.is_some_and(|kind| &*kind.0 == "thinking") {
            let mut pieces = self.thinking.into_iter().flatten().filter_map(|thought| text(thought.text));
            let first = pieces.next().unwrap_or_default();
            (pieces.fold(first, |all, piece| Cow::Owned(all.into_owned() + &piece)), true)
        } else {
            (text(self.text).unwrap_or_default(), false)
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TextIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = TextIn<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<TextIn<'de>, E> {
                Ok(TextIn::Plain(Str(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextIn<'de>, E> {
                Ok(TextIn::Plain(Str(Cow::Owned(text.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<TextIn<'de>, A::Error> {
                let list = de::value::SeqAccessDeserializer::new(list);
                Vec::deserialize(list).map(TextIn::Chunks)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A call, or a piece of one.
#[derive(Debug, Deserialize)]
pub(in super::super) struct CallIn<'a> {
    pub index: Option<u32>,
    #[serde(borrow)]
    pub id: Option<Str<'a>>,
    #[serde(borrow)]
    pub function: Option<FunctionIn<'a>>,
    #[serde(borrow)]
    pub custom: Option<FunctionIn<'a>>,
    #[serde(borrow)]
    pub extra_content: Option<ExtraIn<'a>>,
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct FunctionIn<'a> {
    #[serde(borrow)]
    pub name: Option<Str<'a>>,
    /// Some services send an object, which is not how it is meant.
    #[serde(borrow, alias = "input")]
    pub arguments: Option<ArgumentsIn<'a>>,
}

/// A string of JSON, or the JSON itself.
#[derive(Debug)]
pub(in super::super) struct ArgumentsIn<'a>(pub Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for ArgumentsIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de serde_json::value::RawValue>::deserialize(deserializer)?.get();
        if raw.starts_with('"') {
            serde_json::from_str::<Str<'de>>(raw).map(|text| Self(text.0)).map_err(de::Error::custom)
        } else {
            Ok(Self(Cow::Borrowed(if raw == "null" { "" } else { raw })))
        }
    }
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct AnnotationIn<'a> {
    #[serde(borrow)]
    url_citation: Option<UrlCitationIn<'a>>,
}

#[derive(Debug, Deserialize)]
struct UrlCitationIn<'a> {
    #[serde(borrow)]
    url: Option<Str<'a>>,
    #[serde(borrow)]
    title: Option<Str<'a>>,
    /// OpenRouter's.
    #[serde(borrow)]
    content: Option<Str<'a>>,
    start_index: Option<u32>,
    end_index: Option<u32>,
}

impl<'a> AnnotationIn<'a> {
    /// `None` for annotations of another kind.
    pub(in super::super) fn read(self) -> Option<Citation<'a>> {
        let citation = self.url_citation?;
        let span = citation.start_index.zip(citation.end_index);
        Some(Citation {
            url: text(citation.url),
            title: text(citation.title),
            quote: text(citation.content),
            span: span.filter(|(start, end)| start < end),
            ..Citation::default()
        })
    }
}

/// An image that the model made, as OpenRouter has it.
#[derive(Debug, Deserialize)]
pub(in super::super) struct ImageIn<'a> {
    #[serde(borrow)]
    image_url: ImageUrlIn<'a>,
}

#[derive(Debug, Deserialize)]
struct ImageUrlIn<'a> {
    #[serde(borrow)]
    url: Str<'a>,
}

impl<'a> ImageIn<'a> {
    pub(in super::super) fn read(self) -> Option<Media<'a>> {
        let source: Source<'a> = data_url::source(self.image_url.url.0).ok()?;
        Some(Media { source, detail: None })
    }
}

/// A spoken answer. Nobody can ask for one who doesn't get it as it is, but its words are an answer all the same.
#[derive(Debug, Deserialize)]
pub(in super::super) struct SpokenIn<'a> {
    #[serde(borrow)]
    transcript: Option<Str<'a>>,
}

impl<'a> SpokenIn<'a> {
    pub(in super::super) fn words(spoken: Option<Self>) -> Option<Text<'a>> {
        text(spoken?.transcript).filter(|words| !words.is_empty())
    }
}

/// Why a choice ended. `calls`: it has tool calls, whatever some services then say. `None`: it has not.
pub(in super::super) fn finish(reason: Option<Str<'_>>, calls: bool) -> Option<Finish<'_>> {
    let reason = text(reason).filter(|reason| !reason.is_empty())?;
    Some(match &*reason {
        // Others are what open models' servers say.
        "stop" | "eos" | "eos_token" | "end_turn" if calls => Finish::ToolCalls,
        "stop" | "eos" | "eos_token" | "end_turn" => Finish::Stop,
        "length" | "model_length" | "max_tokens" => Finish::Length,
        "tool_calls" | "function_call" | "tool_use" => Finish::ToolCalls,
        "content_filter" | "sensitive" => Finish::ContentFilter,
        "error" => Finish::Error,
        _ => Finish::Other(reason),
    })
}
