//! Streams. Called through [`crate::codec`].

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use self::{decode::Decoder, encode::Encoder};
