//! Streams: [`Decoder`] reads Claude's events, [`Encoder`] writes those for Anthropic's clients.

mod decoder;
mod encoder;

pub use self::{decoder::Decoder, encoder::Encoder};

#[cfg(test)]
mod tests;
