//! Requests. Called through [`crate::codec`].

mod decode;
mod encode;
mod settings;
#[cfg(test)]
mod tests;

pub use self::{decode::decode, encode::encode};
