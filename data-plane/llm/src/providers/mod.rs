//! The dialects, one folder each: `request` and `response` (whole bodies to and from [`crate::ir`]), `stream` (events),
//! `errors`. Called through [`crate::codec`].

pub mod anthropic;
pub mod bedrock;
pub mod cohere;
pub mod data_url;
pub mod embeddings;
pub mod gemini;
pub mod openai;
pub(crate) mod place;
pub mod read;
pub mod responses;
pub(crate) mod rows;
pub mod tool_id;
pub mod voyage;
pub mod write;
