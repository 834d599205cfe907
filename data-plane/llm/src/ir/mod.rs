//! The hub of transcoding: what a conversation with a model is, in no provider's words. Every dialect reads its requests
//! into [`Request`] and writes them from it, and likewise answers ([`Response`]) and the events of a stream ([`Event`]),
//! so that `n` dialects need `2n` translations and not `n²`. Called by [`crate::codec`] and the folders in
//! [`crate::providers`].
//!
//! Text is borrowed from the body that it came in wherever it stands there unescaped. What a dialect alone knows is
//! kept: as a field with its own meaning (signatures, cache marks), as an [`Content::Opaque`] part, or by name among the
//! parameters that a target may have to drop ([`Request::extras`]). Nothing is lost silently.

mod content;
mod event;
mod request;
mod response;
mod tools;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub use self::{
    content::{CacheMark, Citation, Content, Document, Media, Part, Source, Thinking},
    event::{Block, Delta, Event, Events},
    request::{Effort, Format, Logprobs, Message, Param, Reasoning, Request, Role, Sampling},
    response::{Choice, Finish, Response},
    tools::{Tool, ToolCall, ToolChoice, ToolKind, ToolResult},
};

/// Borrowed where it can be.
pub type Text<'a> = Cow<'a, str>;
/// A JSON value as it was written.
pub type Json<'a> = Cow<'a, RawValue>;
