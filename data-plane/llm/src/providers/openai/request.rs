//! Requests: read by [`decode()`] for every target of another dialect, written by [`encode()`] for every client of one.

mod decode;
mod encode;
mod messages;
mod schema;
mod settings;
mod write;

pub use decode::decode;
pub(super) use decode::parameter;
pub use encode::encode;
pub(super) use messages::ExtraIn;

#[cfg(test)]
mod tests;
