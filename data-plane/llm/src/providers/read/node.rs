//! Reading a client's JSON with the place of everything at hand, so that an error can name it. Used for requests of
//! Responses, where what a value must be depends on what stands beside it.
//!
//! Nothing is built: a [`Node`] is a span of the body. A [`Path`] is a chain of places on the stack, and becomes text only
//! when something is wrong.

use std::{borrow::Cow, fmt};

use serde_json::value::RawValue;

use crate::{
    codec::CodecError,
    ir::{Json, Text},
    json::{Cursor, Kind, Members, Value},
};

/// Where in the body something stands.
#[derive(Clone, Copy)]
pub(in crate::providers) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(in crate::providers) fn top(key: &'p str) -> Self {
        Self { parent: None, step: Step::Key(key) }
    }

    pub(in crate::providers) fn key(&'p self, key: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }

    pub(in crate::providers) fn index(&'p self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    /// The value here is wrong; `expected` says what it must be.
    pub(in crate::providers) fn must_be(&self, expected: &str) -> CodecError {
        let path = self.to_string();
        let message = format!("`{path}` must be {expected}.");
        CodecError::invalid(path, message)
    }

    /// The same where what was expected is a sentence already.
    pub(in crate::providers) fn wrong(&self, sentence: &str) -> CodecError {
        let path = self.to_string();
        let message = format!("`{path}`: {sentence}");
        CodecError::invalid(path, message)
    }

    pub(in crate::providers) fn required(&self, what: &str) -> CodecError {
        let path = self.to_string();
        let message = format!("`{path}` is required: {what}.");
        CodecError::invalid(path, message)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match (self.step, self.parent) {
            (Step::Key(key), Some(_)) => write!(f, ".{key}"),
            (Step::Key(key), None) => f.write_str(key),
            (Step::Index(index), _) => write!(f, "[{index}]"),
        }
    }
}

/// A value of the body.
#[derive(Clone, Copy)]
pub(in crate::providers) struct Node<'a> {
    document: &'a str,
    value: Value,
}

/// Calls `each` with the members of the body, those that are null left out.
///
/// # Errors
/// When the body is no JSON object, and what `each` says.
pub(in crate::providers) fn body<'a>(
    body: &'a [u8],
    mut each: impl FnMut(Text<'a>, Node<'a>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let document = super::utf8(body)?;
    let not_json = |error: crate::json::JsonError| {
        let message = format!(
            "The body is not JSON: at byte {} it should go on with {}.",
            error.offset, error.expected
        );
        CodecError::invalid("", message)
    };
    let mut members =
        Members::open(body, 0).ok_or_else(|| CodecError::invalid("", "The body must be a JSON object."))?;
    while let Some(member) = members.next().map_err(not_json)? {
        let name = Node { document, value: member.name }.name();
        let value = Node { document, value: member.value };
        if !value.is_null() {
            each(name, value)?;
        }
    }
    Cursor::new(body, members.end()).end_of_document().map_err(not_json)
}

impl<'a> Node<'a> {
    fn bytes(&self) -> &'a [u8] {
        self.document.as_bytes()
    }

    /// The name of a member; one with an unpaired surrogate is none that anybody knows.
    fn name(&self) -> Text<'a> {
        self.value.text(self.bytes()).unwrap_or_default()
    }

    pub(in crate::providers) fn is_null(&self) -> bool {
        self.value.kind == Kind::Null
    }

    pub(in crate::providers) fn is_string(&self) -> bool {
        self.value.kind == Kind::String
    }

    pub(in crate::providers) fn is_array(&self) -> bool {
        self.value.kind == Kind::Array
    }

    pub(in crate::providers) fn is_object(&self) -> bool {
        self.value.kind == Kind::Object
    }

    /// As it stands in the body.
    pub(in crate::providers) fn source(&self) -> &'a str {
        self.document.get(self.value.span.start..self.value.span.end).unwrap_or_default()
    }

    fn wrong(&self, path: &Path<'_>, expected: &str) -> CodecError {
        path.must_be(&format!("{expected}, not {}", self.value.kind.name()))
    }

    pub(in crate::providers) fn text(&self, path: &Path<'_>) -> Result<Text<'a>, CodecError> {
        if !self.is_string() {
            return Err(self.wrong(path, "a string"));
        }
        self.value
            .text(self.bytes())
            .ok_or_else(|| path.must_be("text: there is half of a surrogate pair in it"))
    }

    pub(in crate::providers) fn json(&self, path: &Path<'_>) -> Result<Json<'a>, CodecError> {
        // It has been walked before, so it is JSON.
        let raw: &RawValue = serde_json::from_str(self.source()).map_err(|_| path.must_be("JSON"))?;
        Ok(Cow::Borrowed(raw))
    }

    /// The same for what must be an object, like a schema.
    pub(in crate::providers) fn object(&self, path: &Path<'_>) -> Result<Json<'a>, CodecError> {
        if self.is_object() { self.json(path) } else { Err(self.wrong(path, "an object")) }
    }

    pub(in crate::providers) fn boolean(&self, path: &Path<'_>) -> Result<bool, CodecError> {
        self.value.boolean(self.bytes()).ok_or_else(|| self.wrong(path, "true or false"))
    }

    pub(in crate::providers) fn unsigned(&self, path: &Path<'_>) -> Result<u64, CodecError> {
        self.value.unsigned(self.bytes()).ok_or_else(|| path.must_be("a whole number that is not negative"))
    }

    pub(in crate::providers) fn float(&self, path: &Path<'_>) -> Result<f64, CodecError> {
        if self.value.kind != Kind::Number {
            return Err(self.wrong(path, "a number"));
        }
        let number = self.source().parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| path.must_be("a number that a computer can hold"))
    }

    /// Calls `each` with the members of an object, those that are null left out.
    pub(in crate::providers) fn members(
        &self,
        path: &Path<'_>,
        mut each: impl FnMut(Text<'a>, Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let mut members =
            Members::of(self.bytes(), &self.value).ok_or_else(|| self.wrong(path, "an object"))?;
        // It has been walked before, so it is JSON.
        while let Ok(Some(member)) = members.next() {
            let name = Self { document: self.document, value: member.name }.name();
            let value = Self { document: self.document, value: member.value };
            if !value.is_null() {
                each(name, value)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with the elements of an array.
    pub(in crate::providers) fn elements(
        &self,
        path: &Path<'_>,
        mut each: impl FnMut(usize, Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        if !self.is_array() {
            return Err(self.wrong(path, "an array"));
        }
        let mut cursor = Cursor::new(self.bytes(), self.value.span.start + 1);
        let mut index = 0;
        loop {
            cursor.skip_whitespace();
            if cursor.peek() == Some(b',') {
                cursor = Cursor::new(self.bytes(), cursor.position() + 1);
            } else if cursor.peek() == Some(b']') {
                return Ok(());
            }
            let Ok(value) = cursor.value(1) else { return Ok(()) };
            each(index, Self { document: self.document, value })?;
            index += 1;
        }
    }
}
