//! A strict JSON walker that allocates nothing and remembers where everything stands. It accepts exactly the
//! documents of RFC 8259 that nest at most [`MAX_DEPTH`] deep (the limit of `serde_json`), and is tested against
//! `serde_json` on generated and on broken input. Used for request envelopes, stream chunks and response bodies.
//!
//! Bytes inside strings are not checked for being UTF-8: callers that need it check the whole document once.

use std::borrow::Cow;

use crate::Span;

pub(crate) mod scan;

/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 127;

/// Where a document stops being JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// Byte offset of the first byte that does not fit.
    pub offset: usize,
    /// What would have fitted.
    pub expected: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl Kind {
    /// With its article, for error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A value in a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value {
    pub kind: Kind,
    /// For a string: including the quotes.
    pub span: Span,
    /// For a string: whether it holds escapes.
    pub escaped: bool,
}

impl Value {
    /// The bytes of the value as they stand in `document`.
    pub fn raw<'a>(&self, document: &'a [u8]) -> &'a [u8] {
        document.get(self.span.start..self.span.end).unwrap_or_default()
    }

    /// The text of a string without its quotes, escapes left as they are; of another kind, the raw bytes.
    pub fn inner<'a>(&self, document: &'a [u8]) -> &'a [u8] {
        let raw = self.raw(document);
        match self.kind {
            Kind::String => raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default(),
            _ => raw,
        }
    }

    /// The text of a string, unescaped. `None` for other kinds, for what is no UTF-8, and for an unpaired
    /// surrogate, which has no text.
    pub fn text<'a>(&self, document: &'a [u8]) -> Option<Cow<'a, str>> {
        match (self.kind, self.escaped) {
            (Kind::String, false) => std::str::from_utf8(self.inner(document)).ok().map(Cow::Borrowed),
            (Kind::String, true) => serde_json::from_slice(self.raw(document)).ok().map(Cow::Owned),
            _ => None,
        }
    }

    /// A number that is a non-negative integer without fraction or exponent.
    pub fn unsigned(&self, document: &[u8]) -> Option<u64> {
        if self.kind != Kind::Number {
            return None;
        }
        self.raw(document).iter().try_fold(0_u64, |count, byte| {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 { count.checked_mul(10)?.checked_add(digit.into()) } else { None }
        })
    }

    pub fn boolean(&self, document: &[u8]) -> Option<bool> {
        (self.kind == Kind::Boolean).then(|| self.raw(document) == b"true")
    }
}

/// A member of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    pub name: Value,
    pub value: Value,
}

/// The members of an object, in order, each value checked whole before it is returned.
pub struct Members<'a> {
    cursor: Cursor<'a>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    First,
    Later,
    Done,
}

impl<'a> Members<'a> {
    /// The members of the object that starts at `at`, white space allowed before it; `None` when something else
    /// is there.
    pub fn open(document: &'a [u8], at: usize) -> Option<Self> {
        let mut cursor = Cursor::new(document, at);
        cursor.skip_whitespace();
        (cursor.peek() == Some(b'{')).then(|| {
            cursor.at += 1;
            Self { cursor, state: State::First }
        })
    }

    /// The members that follow a member which ends at `at`, up to the closing brace of their object.
    pub fn rest(document: &'a [u8], at: usize) -> Self {
        Self { cursor: Cursor::new(document, at), state: State::Later }
    }

    /// The members of `value`; `None` when it is no object.
    pub fn of(document: &'a [u8], value: &Value) -> Option<Self> {
        (value.kind == Kind::Object).then(|| Self::open(document, value.span.start)).flatten()
    }

    /// The next member; `None` after the last, when [`Members::end`] is the position behind the closing brace.
    ///
    /// # Errors
    /// When the object is no JSON from here on.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Member>, JsonError> {
        let Some(name) = self.name()? else { return Ok(None) };
        Ok(Some(Member { name, value: self.value()? }))
    }

    /// The name of the next member, whose value must be read next; `None` as for [`Members::next`].
    ///
    /// # Errors
    /// When this is no JSON.
    #[inline]
    pub fn name(&mut self) -> Result<Option<Value>, JsonError> {
        let cursor = &mut self.cursor;
        cursor.skip_whitespace();
        match (&self.state, cursor.peek()) {
            (State::Done, _) => return Ok(None),
            (_, Some(b'}')) => {
                cursor.at += 1;
                self.state = State::Done;
                return Ok(None);
            }
            (State::First, _) => self.state = State::Later,
            (State::Later, Some(b',')) => {
                cursor.at += 1;
                cursor.skip_whitespace();
            }
            (State::Later, _) => return Err(cursor.error("`,` or `}`")),
        }
        cursor.name().map(Some)
    }

    /// The members of the value whose name was read, if it is an object. They are read in passing, instead of once to
    /// find the end of the object and once more for what is in it.
    #[inline]
    pub fn enter(&mut self) -> Option<Self> {
        Self::open(self.cursor.document, self.cursor.at)
    }

    /// Goes on behind the object that was entered, and read to its end.
    #[inline]
    pub fn leave(&mut self, inner: &Self) {
        self.cursor.at = inner.cursor.at;
    }

    /// The value of the member whose name was read.
    ///
    /// # Errors
    /// When there is none.
    #[inline]
    pub fn value(&mut self) -> Result<Value, JsonError> {
        self.cursor.value(1)
    }

    /// The same, and `observer` is told what is inside of it, in the same pass.
    pub(crate) fn value_observed(&mut self, observer: &mut impl Observe) -> Result<Value, JsonError> {
        self.cursor.value_observed(1, observer)
    }

    /// Where the reading stands.
    pub fn end(&self) -> usize {
        self.cursor.at
    }
}

/// Where in a container something stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// How many containers are open around it, the outermost included.
    pub(crate) open: usize,
    /// One bit per open container, the innermost lowest: set for objects.
    pub(crate) objects: u128,
}

/// Is told of names and strings in a container while it is passed.
pub(crate) trait Observe {
    fn name(&mut self, document: &[u8], place: Place, name: &Value);
    /// A string that is no name.
    fn string(&mut self, document: &[u8], value: &Value);
}

/// Does not look, and leaves nothing behind in the loop that passes most of a body.
struct Unobserved;

impl Observe for Unobserved {
    #[inline(always)]
    fn name(&mut self, _: &[u8], _: Place, _: &Value) {}
    #[inline(always)]
    fn string(&mut self, _: &[u8], _: &Value) {}
}

/// A position in a document.
pub struct Cursor<'a> {
    document: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(document: &'a [u8], at: usize) -> Self {
        Self { document, at }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn peek(&self) -> Option<u8> {
        self.document.get(self.at).copied()
    }

    pub fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Requires that nothing but white space is left.
    ///
    /// # Errors
    /// When something is.
    pub fn end_of_document(&mut self) -> Result<(), JsonError> {
        self.skip_whitespace();
        if self.at == self.document.len() { Ok(()) } else { Err(self.error("the end of the body")) }
    }

    /// Reads one value, white space allowed before it. `depth`: how many containers it stands in.
    ///
    /// # Errors
    /// When there is no JSON value here, or it nests too deep.
    pub fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.value_observed(depth, &mut Unobserved)
    }

    /// The same, and `observer` is told what is inside of it.
    #[inline]
    fn value_observed(&mut self, depth: usize, observer: &mut impl Observe) -> Result<Value, JsonError> {
        self.skip_whitespace();
        let start = self.at;
        let mut escaped = false;
        let kind = match self.peek() {
            Some(b'"') => {
                escaped = self.string()?;
                Kind::String
            }
            Some(b'{') => self.container(depth, observer).map(|()| Kind::Object)?,
            Some(b'[') => self.container(depth, observer).map(|()| Kind::Array)?,
            _ => self.scalar()?,
        };
        Ok(Value { kind, span: Span { start, end: self.at }, escaped })
    }

    fn error(&self, expected: &'static str) -> JsonError {
        JsonError { offset: self.at, expected }
    }

    /// A member's name and the colon behind it.
    fn name(&mut self) -> Result<Value, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a member name in double quotes"));
        }
        let start = self.at;
        let escaped = self.string()?;
        let span = Span { start, end: self.at };
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return Err(self.error("`:`"));
        }
        self.at += 1;
        Ok(Value { kind: Kind::String, span, escaped })
    }

    /// Passes an object or array with all that is in it. One bit per level remembers which of the two is open.
    fn container(&mut self, depth: usize, observer: &mut impl Observe) -> Result<(), JsonError> {
        let (mut open, mut objects) = (0_usize, 0_u128);
        loop {
            self.skip_whitespace();
            match self.peek() {
                Some(byte @ (b'{' | b'[')) => {
                    if depth + open >= MAX_DEPTH {
                        return Err(self.error("less than 128 levels of nesting"));
                    }
                    let object = byte == b'{';
                    (open, objects) = (open + 1, objects << 1 | u128::from(object));
                    self.at += 1;
                    self.skip_whitespace();
                    if self.peek() != Some(if object { b'}' } else { b']' }) {
                        if object {
                            let name = self.name()?;
                            observer.name(self.document, Place { open, objects }, &name);
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    let start = self.at;
                    let escaped = self.string()?;
                    let span = Span { start, end: self.at };
                    observer.string(self.document, &Value { kind: Kind::String, span, escaped });
                }
                _ => _ = self.scalar()?,
            }
            // A value has ended: close what ends with it, up to the next comma.
            loop {
                let object = objects & 1 == 1;
                self.skip_whitespace();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if object {
                            self.skip_whitespace();
                            let name = self.name()?;
                            observer.name(self.document, Place { open, objects }, &name);
                        }
                        break;
                    }
                    Some(b'}') if object => {}
                    Some(b']') if !object => {}
                    _ => return Err(self.error(if object { "`,` or `}`" } else { "`,` or `]`" })),
                }
                self.at += 1;
                (open, objects) = (open - 1, objects >> 1);
                if open == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Passes a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b't') => self.literal(b"true", Kind::Boolean),
            Some(b'f') => self.literal(b"false", Kind::Boolean),
            Some(b'n') => self.literal(b"null", Kind::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.error("a JSON value")),
        }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<Kind, JsonError> {
        if self.document[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(kind);
        }
        Err(self.error("`true`, `false` or `null`"))
    }

    fn number(&mut self) -> Result<Kind, JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.error("a digit")) }
    }

    /// Passes a string, from its opening quote; true when it holds escapes.
    fn string(&mut self) -> Result<bool, JsonError> {
        self.at += 1;
        // Most strings are names or words.
        if let Some(at) = scan::special_nearby(self.document, self.at)
            && self.document[at] == b'"'
        {
            self.at = at + 1;
            return Ok(false);
        }
        let mut escaped;
        (self.at, escaped) = scan::stretch(self.document, self.at);
        loop {
            self.at = scan::special_in_string(self.document, self.at);
            if self.special(&mut escaped)? {
                return Ok(escaped);
            }
        }
    }

    /// Passes the special byte that stands here; true for the closing quote.
    #[inline]
    fn special(&mut self, escaped: &mut bool) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(true)
            }
            Some(b'\\') => {
                *escaped = true;
                self.escape().map(|()| false)
            }
            Some(_) => Err(self.error("no raw control character in a string")),
            None => Err(self.error("a closing quote")),
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.document.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.document.get(self.at + 2..self.at + 6).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.error("four hexadecimal digits after `\\u`"));
                }
                self.at += 6;
            }
            _ => return Err(self.error("a known escape after `\\`")),
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
