//! Anthropic's Messages API, which Claude on Vertex speaks as well, in both directions. Called through
//! [`crate::codec`]; [`count_tokens`] through [`crate::count`]; [`models`] by the data plane, for what has no counterpart
//! elsewhere.
//!
//! - [`wire`] and [`writer`]: what reading and writing have in common
//! - [`blocks`]: the content blocks of requests and answers, [`citations`] among them
//! - [`claude`]: what the name of a model tells of what it takes
//! - [`opaque`]: thoughts of other providers, kept in the words of this one

mod blocks;
mod citations;
pub(crate) mod claude;
pub mod count_tokens;
pub mod errors;
pub mod models;
mod opaque;
pub mod request;
pub mod response;
mod schema;
pub mod stream;
mod usage;
mod wire;
mod writer;
