//! Thoughts of a model in the two shapes that chat clients know: `reasoning_content`, which is the text alone, and
//! OpenRouter's `reasoning_details`, which has the signatures too. Called by readers and writers of this folder.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    ir::{Content, Part, Text, Thinking},
    providers::{
        read::{Str, text},
        write::{self, Object},
    },
};

/// One item of `reasoning_details`.
#[derive(Debug, Deserialize)]
pub(super) struct DetailIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    summary: Option<Str<'a>>,
    #[serde(borrow)]
    data: Option<Str<'a>>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    /// Of the item that this is a piece of.
    #[serde(borrow)]
    index: Option<&'a RawValue>,
}

/// What an item says.
pub(super) enum Detail<'a> {
    Text { text: Text<'a>, signature: Option<Text<'a>>, id: Option<Text<'a>> },
    Encrypted { data: Text<'a>, id: Option<Text<'a>> },
}

impl<'a> DetailIn<'a> {
    /// `None` for what says nothing, or has a type of the future.
    pub(super) fn read(self) -> Option<Detail<'a>> {
        let nonempty = |text: Option<Str<'a>>| self::text(text).filter(|text| !text.is_empty());
        match &*self.kind.0 {
            "reasoning.text" | "reasoning.summary" => {
                let (text, signature) = (nonempty(self.text.or(self.summary)), nonempty(self.signature));
                if text.is_none() && signature.is_none() {
                    return None;
                }
                Some(Detail::Text { text: text.unwrap_or_default(), signature, id: nonempty(self.id) })
            }
            "reasoning.encrypted" => {
                Some(Detail::Encrypted { data: nonempty(self.data)?, id: nonempty(self.id) })
            }
            _ => None,
        }
    }
}

/// The thoughts of a whole message. The details are preferred: the plain text has no signature.
pub(super) fn read<'a>(details: Option<Vec<DetailIn<'a>>>, plain: Option<Str<'a>>) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    let mut last_index = None;
    for detail in details.into_iter().flatten() {
        let index = detail.index.map(RawValue::get);
        let same = index.is_some() && index == last_index;
        let Some(detail) = detail.read() else { continue };
        last_index = index;
        let thinking = match detail {
            Detail::Encrypted { data, id } => {
                // Summary and encrypted thoughts of one item, which are written as two.
                if let Some(last) = unsigned(&mut parts).filter(|last| id.is_some() && last.id == id) {
                    last.encrypted = Some(data);
                    continue;
                }
                Thinking { encrypted: Some(data), id, ..Thinking::default() }
            }
            // A client that collects a stream may keep its pieces as they came, and the signature as one of its own.
            Detail::Text { text, signature, id }
                if (same || text.is_empty()) && unsigned(&mut parts).is_some() =>
            {
                if let Some(last) = unsigned(&mut parts) {
                    last.text.to_mut().push_str(&text);
                    last.signature = signature;
                    last.id = last.id.take().or(id);
                }
                continue;
            }
            Detail::Text { text, signature, id } => Thinking { text, signature, id, encrypted: None },
        };
        parts.push(Part::new(Content::Thinking(thinking)));
    }
    if parts.is_empty()
        && let Some(text) = text(plain).filter(|text| !text.is_empty())
    {
        parts.push(Part::new(Content::Thinking(Thinking { text, ..Thinking::default() })));
    }
    parts
}

fn unsigned<'p, 'a>(parts: &'p mut [Part<'a>]) -> Option<&'p mut Thinking<'a>> {
    match &mut parts.last_mut()?.content {
        Content::Thinking(thinking) if thinking.signature.is_none() && thinking.encrypted.is_none() => {
            Some(thinking)
        }
        _ => None,
    }
}

/// Both shapes, of these thoughts.
pub(super) fn write<'t>(out: &mut Object<'_>, thoughts: impl Iterator<Item = &'t Thinking<'t>> + Clone) {
    if thoughts.clone().next().is_none() {
        return;
    }
    let plain: String = thoughts.clone().map(|thought| &*thought.text).collect();
    if !plain.is_empty() {
        out.text("reasoning_content", &plain);
    }
    write_details(out, thoughts);
}

pub(super) fn write_details<'t>(out: &mut Object<'_>, thoughts: impl Iterator<Item = &'t Thinking<'t>>) {
    let readable = |thought: &Thinking<'_>| !thought.text.is_empty() || thought.encrypted.is_none();
    let items = thoughts.flat_map(|thought| {
        let text = readable(thought).then_some((thought, None));
        text.into_iter().chain(thought.encrypted.as_deref().map(|data| (thought, Some(data))))
    });
    out.array("reasoning_details", items.enumerate(), |out, (index, (thought, encrypted))| {
        write::object(out, |out| {
            if let Some(data) = encrypted {
                out.text("type", "reasoning.encrypted");
                out.text("data", data);
            } else {
                out.text("type", "reasoning.text");
                out.text("text", &thought.text);
                if let Some(signature) = &thought.signature {
                    out.text("signature", signature);
                }
            }
            if let Some(id) = &thought.id {
                out.text("id", id);
            }
            out.value("index", index);
        });
    });
}
