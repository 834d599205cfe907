//! Google's generateContent, of AI Studio and of Vertex AI, and what else the two serve in words of their own.
//!
//! - [`request`], [`response`], [`stream`], [`errors`]: conversations to and from [`crate::ir`]; `wire` holds the shapes that are
//!   read, `write` those that are written, and the rest is one concern each
//! - [`embeddings`], [`imagen`], [`veo`]: OpenAI's endpoints in Google's words
//! - [`count_tokens`]: what a request would take in
//! - [`address`]: paths of those, and what a deployment's base URL on Vertex looks like

pub mod address;
mod citations;
pub mod count_tokens;
pub mod embeddings;
pub mod errors;
mod finish;
pub mod imagen;
mod logprobs;
mod model;
pub mod request;
pub mod response;
mod schema;
mod signature;
pub mod stream;
mod usage;
pub mod veo;
mod wire;
mod write;
