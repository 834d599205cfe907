//! Streams: [`Decoder`] reads those of upstreams, [`Encoder`] writes for clients.

mod decode;
mod encode;
mod open;

pub use decode::Decoder;
pub use encode::Encoder;

#[cfg(test)]
mod tests;
