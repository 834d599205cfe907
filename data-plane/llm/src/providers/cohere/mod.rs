//! Cohere's API, version 2: chat and embeddings. Rankings pass as they are: others took their shape from Cohere. Called
//! through [`crate::codec`] and [`crate::plan`].

pub mod embeddings;
pub mod errors;
mod fields;
pub mod request;
pub mod response;
pub mod stream;
