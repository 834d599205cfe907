//! Answers: read from upstreams, written for clients. The pieces of a message are the same in a stream's deltas.

mod decode;
mod encode;
mod wire;

pub use decode::decode;
pub(super) use decode::seconds;
pub use encode::encode;
pub(super) use encode::{annotation, call_id, extra_content, head, image, is_shown, length, reason};
pub(super) use wire::{AnnotationIn, CallIn, ImageIn, MessageIn, SpokenIn, TextIn, finish};
