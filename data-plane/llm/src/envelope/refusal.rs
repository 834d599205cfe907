//! Why a request body is refused, in words for the client. Made by [`super::parse`].

use crate::json::{JsonError, Value};

/// Why a body is refused. All of it is the client's fault, a 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EnvelopeError {
    pub kind: EnvelopeErrorKind,
    /// The field at fault, for `error.param`.
    pub param: Option<&'static str>,
    /// Says what was wrong and what is expected. Safe to show to the client.
    pub message: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum EnvelopeErrorKind {
    InvalidUtf8,
    InvalidJson,
    NotAnObject,
    /// A field that the endpoint needs is not there.
    MissingField,
    /// A field is there with a value that it can't have.
    InvalidField,
    /// A field that is read stands in the body twice, or once in another letter case.
    DuplicateField,
    /// More than [`super::MAX_REMOVABLE`] extras.
    TooManyExtras,
}

impl EnvelopeError {
    pub(super) fn field(kind: EnvelopeErrorKind, param: &'static str, message: String) -> Self {
        Self { kind, param: Some(param), message }
    }

    /// `name` has a value of another type than `expected`.
    pub(super) fn wrong_type(name: &'static str, expected: &str, value: &Value) -> Self {
        let message = format!("`{name}` must be {expected}, but {} was given.", value.kind.name());
        Self::field(EnvelopeErrorKind::InvalidField, name, message)
    }

    pub(super) fn invalid(name: &'static str, expected: &str) -> Self {
        Self::field(EnvelopeErrorKind::InvalidField, name, format!("`{name}` must be {expected}."))
    }

    pub(super) fn repeated(name: &'static str) -> Self {
        let message = format!("`{name}` is given more than once in the request body; send it once.");
        Self::field(EnvelopeErrorKind::DuplicateField, name, message)
    }

    pub(super) fn json(body: &[u8], error: JsonError) -> Self {
        let before = &body[..error.offset.min(body.len())];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
        let (expected, offset) = (error.expected, error.offset);
        Self {
            kind: EnvelopeErrorKind::InvalidJson,
            param: None,
            message: format!(
                "The request body is not valid JSON: expected {expected} at line {line}, column {column} (byte {offset})."
            ),
        }
    }
}
