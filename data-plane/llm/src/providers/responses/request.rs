//! Requests: [`decode`] reads what clients send, [`encode`] writes for upstreams.

mod content;
mod decode;
mod encode;
mod items;
mod out;
mod tools;

pub use decode::decode;
pub use encode::encode;

#[cfg(test)]
mod tests;
