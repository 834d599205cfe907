//! Requests: [`decode`] reads those of Anthropic's clients, [`encode`] writes those for Claude.
//!
//! Writing is in parts: [`messages`] (the conversation), [`files`] (images and documents), [`tools`] (functions and the
//! choice among them), [`format`] (answers in JSON), [`thinking`] (how much of it, and what it rules out).

mod body;
mod decode;
mod encode;
mod files;
mod format;
mod messages;
mod thinking;
mod tools;

pub(super) use self::decode::{MaxTokens, decode_with};
pub use self::{decode::decode, encode::encode};
pub(super) use self::{encode::encode_with, files::write_media};

#[cfg(test)]
mod tests;
