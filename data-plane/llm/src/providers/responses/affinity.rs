//! Binds what a provider keeps or encrypts to the deployment that has made it: every id of an answer or item, and every
//! `encrypted_content`, gets that deployment's tag on its way to the client, and loses it on its way back, when it says
//! where the request has to go. `resp_abc` becomes `resp_nemo.<tag>.abc`: its kind still stands in front. Pure, and used by
//! the codec as well as by the data plane, which rewrites Responses traffic that passes as it is:
//!
//! - [`read_request`]: what a request is bound to, and what must be cut out of its body
//! - [`Rewriter`]: puts the tag into an answer or a stream while it passes, without building anything
//!
//! A tag is opaque here; it consists of letters, digits and `-` ([`is_tag`]). No tag, no change.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use memchr::memmem;
use smallvec::SmallVec;

use crate::{
    codec::CodecError,
    ir::Text,
    json::{Cursor, Kind, Members, Value},
    splice::Segments,
};

mod rewrite;

pub use rewrite::{Pieces, Rewriter};

/// Says that a tag follows.
const MARK: &str = "nemo.";
/// Between the tag and what was there.
const END: char = '.';
/// Longest tag, in bytes.
pub const MAX_TAG: usize = 64;
/// Longest kind of an id, with its underscore: `resp_`, `msg_`, `approval_`.
const MAX_KIND: usize = 16;
/// Most values of one request that may be tagged: a conversation has some per turn.
pub const MAX_BINDINGS: usize = 16 << 10;

pub fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The id with the tag in it. An empty id, or one for which there is no tag, stays as it is.
pub fn wrap<'a>(tag: &str, id: &'a str) -> Cow<'a, str> {
    if id.is_empty() || !is_tag(tag) {
        return Cow::Borrowed(id);
    }
    let (kind, rest) = id.split_at(kind_length(id.as_bytes()));
    Cow::Owned([kind, MARK, tag, ".", rest].concat())
}

/// The same for `encrypted_content`, which has no kind.
pub fn wrap_content<'a>(tag: &str, content: &'a str) -> Cow<'a, str> {
    if content.is_empty() || !is_tag(tag) {
        return Cow::Borrowed(content);
    }
    Cow::Owned([MARK, tag, ".", content].concat())
}

/// The tag in an id or in encrypted content.
pub fn tag(text: &str) -> Option<&str> {
    find(text).and_then(|Mark { tag, .. }| text.get(tag))
}

/// As the provider knows it.
pub fn unwrap(text: Text<'_>) -> Text<'_> {
    let Some(Mark { cut, .. }) = find(&text) else { return text };
    match text {
        // Without kind, as encrypted content is, it can stay borrowed.
        Cow::Borrowed(text) if cut.start == 0 => Cow::Borrowed(&text[cut.end..]),
        text => Cow::Owned([&text[..cut.start], &text[cut.end..]].concat()),
    }
}

/// The bytes of a text that are not the provider's, and those of them that are the tag.
struct Mark {
    cut: Range<usize>,
    tag: Range<usize>,
}

fn find(text: &str) -> Option<Mark> {
    let start = kind_length(text.as_bytes());
    let after = text[start..].strip_prefix(MARK)?;
    let length = after.find(END)?;
    is_tag(&after[..length]).then(|| {
        let tag = start + MARK.len();
        Mark { cut: start..tag + length + 1, tag: tag..tag + length }
    })
}

/// Length of the kind at the start of an id, underscore included; 0: it has none.
fn kind_length(id: &[u8]) -> usize {
    match id.iter().take(MAX_KIND).position(|byte| !is_kind(*byte)) {
        Some(at) if at > 0 && id[at] == b'_' => at + 1,
        _ => 0,
    }
}

fn is_kind(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Why a request can only go where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It goes on from an answer that is kept there.
    PreviousResponse,
    /// It refers to an item that is kept there.
    Reference,
    /// It brings thoughts that can only be decrypted there.
    Encrypted,
    /// It brings an item whole, which was written there. Other deployments understand it as well.
    Item,
}

impl Bound {
    /// No other deployment can answer such a request.
    pub fn is_firm(self) -> bool {
        self != Self::Item
    }
}

/// One tagged value of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    pub tag: &'a str,
    pub bound: Bound,
    /// Index in `input`; `None`: a member of the request itself.
    pub item: Option<usize>,
}

impl Binding<'_> {
    /// For errors: the place in the client's words.
    pub fn place(&self) -> String {
        let member = match self.bound {
            Bound::PreviousResponse => return "previous_response_id".to_owned(),
            Bound::Encrypted => "encrypted_content",
            Bound::Reference | Bound::Item => "id",
        };
        self.item.map(|item| format!("input[{item}].{member}")).unwrap_or_else(|| member.to_owned())
    }
}

/// What is tagged in a request.
#[derive(Clone, Debug, Default)]
pub struct Tagged<'a> {
    pub bindings: SmallVec<[Binding<'a>; 2]>,
    /// What has to go before the request goes upstream, in order.
    pub cuts: SmallVec<[Range<usize>; 2]>,
}

impl<'a> Tagged<'a> {
    /// What decides where the request goes, if anything does.
    pub fn firm(&self) -> impl Iterator<Item = &Binding<'a>> {
        self.bindings.iter().filter(|binding| binding.bound.is_firm())
    }

    fn take(
        &mut self,
        body: &'a str,
        value: &Value,
        bound: Bound,
        item: Option<usize>,
    ) -> Result<(), CodecError> {
        // Ids and base64 have nothing to be escaped in front; where they have, they are not ours.
        if value.kind != Kind::String {
            return Ok(());
        }
        let start = value.span.start + 1;
        let text = body.get(start..value.span.end.saturating_sub(1)).unwrap_or_default();
        let Some(mark) = find(text) else { return Ok(()) };
        if self.bindings.len() == MAX_BINDINGS {
            let message = format!("`input` has more than {MAX_BINDINGS} items of earlier answers.");
            return Err(CodecError::invalid("input", message));
        }
        self.cuts.push(start + mark.cut.start..start + mark.cut.end);
        self.bindings.push(Binding { tag: &text[mark.tag], bound, item });
        Ok(())
    }
}

/// Finds what is tagged in the body of a request. Costs nothing to speak of where nothing is.
///
/// # Errors
/// When there is too much of it, or the body is no JSON object.
pub fn read_request(body: &[u8]) -> Result<Tagged<'_>, CodecError> {
    let mut tagged = Tagged::default();
    if memmem::find(body, MARK.as_bytes()).is_none() {
        return Ok(tagged);
    }
    let broken = || CodecError::invalid("", "The body must be a JSON object in UTF-8.");
    let text = simdutf8::basic::from_utf8(body).map_err(|_| broken())?;
    let mut members = Members::open(body, 0).ok_or_else(broken)?;
    while let Some(member) = members.next().map_err(|_| broken())? {
        match member.name.inner(body) {
            b"previous_response_id" => tagged.take(text, &member.value, Bound::PreviousResponse, None)?,
            b"input" if member.value.kind == Kind::Array => read_input(text, &member.value, &mut tagged)?,
            _ => {}
        }
    }
    Ok(tagged)
}

fn read_input<'a>(body: &'a str, input: &Value, tagged: &mut Tagged<'a>) -> Result<(), CodecError> {
    let bytes = body.as_bytes();
    let mut cursor = Cursor::new(bytes, input.span.start + 1);
    let mut index = 0;
    loop {
        cursor.skip_whitespace();
        if cursor.peek() == Some(b',') {
            cursor = Cursor::new(bytes, cursor.position() + 1);
        } else if cursor.peek() == Some(b']') {
            return Ok(());
        }
        // The whole body was walked before, so it is JSON.
        let Ok(item) = cursor.value(1) else { return Ok(()) };
        read_item(body, &item, index, tagged)?;
        index += 1;
    }
}

fn read_item<'a>(
    body: &'a str,
    item: &Value,
    index: usize,
    tagged: &mut Tagged<'a>,
) -> Result<(), CodecError> {
    let bytes = body.as_bytes();
    let Some(mut members) = Members::of(bytes, item) else { return Ok(()) };
    let (mut id, mut reference, mut found) = (None, true, SmallVec::<[_; 4]>::new());
    while let Ok(Some(member)) = members.next() {
        match member.name.inner(bytes) {
            b"id" => id = Some(member.value),
            b"encrypted_content" => found.push((member.value, Bound::Encrypted)),
            b"approval_request_id" => found.push((member.value, Bound::Reference)),
            b"type" => reference &= member.value.inner(bytes) == b"item_reference",
            _ => reference = false,
        }
    }
    found.extend(id.map(|id| (id, if reference { Bound::Reference } else { Bound::Item })));
    found.sort_by_key(|(value, _)| value.span.start);
    found.into_iter().try_for_each(|(value, bound)| tagged.take(body, &value, bound, Some(index)))
}

/// The body without what [`read_request`] has found, as slices of it.
///
/// # Panics
/// When the cuts are of another, longer body.
pub fn cut(body: &Bytes, cuts: &[Range<usize>]) -> Segments {
    let mut segments = Segments::new();
    let mut kept = 0;
    for cut in cuts {
        segments.push(body.slice(kept..cut.start));
        kept = cut.end;
    }
    segments.push(body.slice(kept..));
    segments
}

#[cfg(test)]
mod tests;
