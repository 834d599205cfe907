//! Streams: an upstream's chunks into events, and events into chunks for a client.

mod arguments;
mod decode;
mod encode;

pub use decode::Decoder;
pub use encode::Encoder;
