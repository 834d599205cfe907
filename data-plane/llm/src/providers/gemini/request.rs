//! Requests. Called through [`crate::codec`].

mod decode;
mod encode;
mod settings;
#[cfg(test)]
mod tests;

pub(super) use self::decode::camel;
pub(crate) use self::encode::reads_url;
pub use self::{decode::decode, encode::encode};
