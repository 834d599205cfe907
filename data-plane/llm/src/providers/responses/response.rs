//! Answers: [`decode`] reads those of upstreams, [`encode`] writes for clients.

mod decode;
mod encode;

pub use decode::decode;
pub use encode::encode;

pub(super) use decode::logprobs;
pub(super) use encode::call_id;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::echo as test_echo;
