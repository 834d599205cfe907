//! AWS Bedrock, as an upstream: its Converse API for conversations with any model, and `invoke` with a model's own words
//! for embeddings. Called through [`crate::codec`] and [`crate::plan`].

pub mod count_tokens;
pub mod embeddings;
pub mod errors;
pub(crate) mod family;
mod fields;
pub mod request;
pub mod response;
pub mod stream;
