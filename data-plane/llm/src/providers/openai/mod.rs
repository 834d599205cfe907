//! OpenAI's Chat Completions, which most services speak, and their legacy Completions.

pub mod completions;
mod content;
pub(super) mod effort;
pub(super) mod limits;
pub mod request;
pub mod response;
pub mod stream;
mod thoughts;
mod usage;
