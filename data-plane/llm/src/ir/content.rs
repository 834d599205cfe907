//! What a message is made of.

use super::{Json, Text, ToolCall, ToolResult};
use crate::Dialect;

/// One piece of a message, with what can stand on any piece.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    pub content: Content<'a>,
    /// Its index among the parts that the client sent, to be named in errors.
    pub at: u16,
    /// The client wants the prompt up to here in the provider's cache.
    pub cache: Option<CacheMark>,
    /// Google's `thoughtSignature`, which may stand on any part and must come back with it. Of thinking the signature is
    /// in [`Thinking`].
    pub signature: Option<Text<'a>>,
}

impl<'a> Part<'a> {
    pub fn new(content: Content<'a>) -> Self {
        Self { content, at: 0, cache: None, signature: None }
    }

    pub fn text(text: impl Into<Text<'a>>) -> Self {
        Self::new(Content::Text { text: text.into(), citations: Vec::new() })
    }
}

#[derive(Clone, Debug)]
pub enum Content<'a> {
    Text {
        text: Text<'a>,
        citations: Vec<Citation<'a>>,
    },
    Image(Media<'a>),
    Audio(Media<'a>),
    Video(Media<'a>),
    Document(Document<'a>),
    ToolCall(ToolCall<'a>),
    ToolResult(ToolResult<'a>),
    Thinking(Thinking<'a>),
    /// The model's words of refusal.
    Refusal(Text<'a>),
    /// What only this dialect knows, to be given back to it; others report or refuse it.
    Opaque {
        dialect: Dialect,
        value: Json<'a>,
    },
}

/// An image, a recording, a film.
#[derive(Clone, Debug)]
pub struct Media<'a> {
    pub source: Source<'a>,
    /// OpenAI's `detail` of an image: `low`, `high`, `auto`.
    pub detail: Option<Text<'a>>,
}

#[derive(Clone, Debug)]
pub enum Source<'a> {
    Url(Text<'a>),
    /// Standard base64 with padding, checked. `media_type`: `image/png`, …
    Base64 {
        media_type: Text<'a>,
        data: Text<'a>,
    },
    /// A file that the provider keeps, by the provider's own id or URI.
    File(Text<'a>),
    /// A document of plain text.
    Text(Text<'a>),
}

/// A file to be read: a PDF, a text.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    pub source: Source<'a>,
    pub name: Option<Text<'a>>,
    /// Anthropic's `context`.
    pub context: Option<Text<'a>>,
    /// The answer is to cite it.
    pub citations: bool,
}

/// What the model thought, and what its provider needs to see it again.
#[derive(Clone, Debug, Default)]
pub struct Thinking<'a> {
    pub text: Text<'a>,
    /// Proves to the provider that the text is its model's own.
    pub signature: Option<Text<'a>>,
    /// Thoughts that are encrypted whole: Anthropic's `redacted_thinking.data`, OpenAI's `encrypted_content`.
    pub encrypted: Option<Text<'a>>,
    /// The id of OpenAI's reasoning item.
    pub id: Option<Text<'a>>,
}

/// How long the provider should keep a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMark {
    /// As long as the provider does by default, which is five minutes with Anthropic.
    Default,
    Hour,
}

/// Where a piece of the answer is from.
#[derive(Clone, Debug, Default)]
pub struct Citation<'a> {
    pub url: Option<Text<'a>>,
    pub title: Option<Text<'a>>,
    /// The words that are cited.
    pub quote: Option<Text<'a>>,
    /// Index of the document among those of the request.
    pub document: Option<u32>,
    /// Where in the answer's text it applies, in characters.
    pub span: Option<(u32, u32)>,
    /// The dialect's own citation, whole, for its own clients.
    pub native: Option<(Dialect, Json<'a>)>,
}
