//! Binds what a provider keeps or encrypts to the deployment that has made it: every id of an answer or item, and every
//! `encrypted_content`, gets that deployment's tag on its way to the client, and loses it on its way back, when it says
//! where the request has to go. `resp_abc` becomes `resp_nemo.<tag>.abc`: its kind still stands in front. Pure, and used by
//! the codec as well as by the data plane, which rewrites Responses and videos that pass as they are:
//!
//! - [`read_request`]: what a request is bound to, and what must be cut out of its body
//! - [`Rewriter`]: puts the tag into an answer or a stream while it passes, without building anything
//!
//! A tag is opaque here; it consists of letters, digits and `-` ([`is_tag`]). No tag, no change. An account at a provider
//! may be shared by tenants, and an id is all that it takes to read there: a [`Tagger`] with an owner seals every id, so
//! that the tag proves who has got it ([`Sealed`]).

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use memchr::memmem;
use nemo_types::{MARK_LEN, Marker};
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

/// Between what a tag says and the seal, which has [`SEAL_DIGITS`].
const SEAL: char = '-';
const SEAL_DIGITS: usize = MARK_LEN * 2;

/// Makes the tags of one answer.
#[derive(Clone, Debug, Default)]
pub struct Tagger {
    /// Empty: nothing is tagged.
    base: Box<str>,
    owner: Option<Owner>,
}

#[derive(Clone, Debug)]
struct Owner {
    marker: Marker,
    /// Of the marker.
    key: usize,
    id: Box<[u8]>,
}

impl From<&str> for Tagger {
    /// Every id gets this tag.
    fn from(tag: &str) -> Self {
        Self { base: if is_tag(tag) { tag.into() } else { Box::default() }, owner: None }
    }
}

impl Tagger {
    /// Every id gets this tag with a seal, by which nobody but `owner` can use it. `key`: of the marker.
    pub fn sealing(base: &str, marker: Marker, key: usize, owner: &[u8]) -> Self {
        Self { owner: Some(Owner { marker, key, id: owner.into() }), ..Self::from(base) }
    }

    /// What stands before content, which has no seal. Empty: nothing is tagged.
    fn mark(&self) -> Bytes {
        if self.base.is_empty() { Bytes::new() } else { format!("{MARK}{}{END}", self.base).into() }
    }

    /// What is put into this id.
    fn mark_of(&self, id: &[u8]) -> Bytes {
        let Some(owner) = &self.owner else { return self.mark() };
        let mark = owner.marker.mark(owner.key, &[&owner.id, self.base.as_bytes(), id]);
        let mut text = String::with_capacity(MARK.len() + self.base.len() + 1 + SEAL_DIGITS + 1);
        for part in [MARK, &self.base, "-"] {
            text.push_str(part);
        }
        text.extend(mark.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(digit));
        text.push(END);
        text.into()
    }
}

fn digit(value: u8) -> Option<char> {
    char::from_digit(value.into(), 16)
}

/// An id whose tag has a seal, as it came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The tag without the seal.
    pub base: &'a str,
    /// What it is called where it was made.
    pub id: String,
    mark: [u8; MARK_LEN],
}

impl<'a> Sealed<'a> {
    /// `None`: it has no tag, or one without a seal.
    pub fn read(text: &'a str) -> Option<Self> {
        let Mark { cut, tag } = find(text)?;
        let (base, seal) = text[tag].rsplit_once(SEAL)?;
        if seal.len() != SEAL_DIGITS {
            return None;
        }
        let mut mark = [0; MARK_LEN];
        for (byte, pair) in mark.iter_mut().zip(seal.as_bytes().chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self { base, id: [&text[..cut.start], &text[cut.end..]].concat(), mark })
    }

    /// Which key of the marker has sealed it for this owner; `None`: none has.
    pub fn check(&self, marker: &Marker, owner: &[u8]) -> Option<usize> {
        marker.check(&[owner, self.base.as_bytes(), self.id.as_bytes()], self.mark)
    }
}

/// Of a digit as it is written here: there is one way to write a seal.
fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// A tag without its seal, if it has one.
pub fn base(tag: &str) -> &str {
    match tag.rsplit_once(SEAL) {
        Some((base, seal)) if seal.len() == SEAL_DIGITS && seal.bytes().all(|it| value(it).is_some()) => base,
        _ => tag,
    }
}

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
    /// It answers a question that was asked there.
    Approval,
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

    /// It names what a provider keeps: who sends it gets to know that.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::PreviousResponse | Self::Reference)
    }
}

/// One value of a request that says where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// `None`: what it names is kept somewhere, and nobody knows where.
    pub tag: Option<&'a str>,
    /// As the client sent it, escapes and all.
    pub text: &'a str,
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
            Bound::Approval => "approval_request_id",
            Bound::Reference | Bound::Item => "id",
        };
        self.item.map(|item| format!("input[{item}].{member}")).unwrap_or_else(|| member.to_owned())
    }
}

/// What is bound in a request.
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
        let mark = find(text);
        if text.is_empty() || mark.is_none() && !bound.is_kept() {
            return Ok(());
        }
        if self.bindings.len() == MAX_BINDINGS {
            let message = format!("`input` has more than {MAX_BINDINGS} items of earlier answers.");
            return Err(CodecError::invalid("input", message));
        }
        let tag = mark.map(|mark| {
            self.cuts.push(start + mark.cut.start..start + mark.cut.end);
            &text[mark.tag]
        });
        self.bindings.push(Binding { tag, text, bound, item });
        Ok(())
    }
}

/// Finds what is tagged in the body of a request, and what names something that is kept without being tagged. Costs
/// nothing to speak of where there is no id.
///
/// # Errors
/// When there is too much of it, or the body is no JSON object.
pub fn read_request(body: &[u8]) -> Result<Tagged<'_>, CodecError> {
    let mut tagged = Tagged::default();
    // Any letter of a name may be written as an escape.
    if [MARK.as_bytes(), b"id\"", b"\\u"].into_iter().all(|hint| memmem::find(body, hint).is_none()) {
        return Ok(tagged);
    }
    let broken = || CodecError::invalid("", "The body must be a JSON object in UTF-8.");
    let text = simdutf8::basic::from_utf8(body).map_err(|_| broken())?;
    let mut members = Members::open(body, 0).ok_or_else(broken)?;
    while let Some(member) = members.next().map_err(|_| broken())? {
        match member.name.text(body).as_deref() {
            Some("previous_response_id") => {
                tagged.take(text, &member.value, Bound::PreviousResponse, None)?
            }
            Some("input") if member.value.kind == Kind::Array => {
                read_input(text, &member.value, &mut tagged)?;
            }
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

/// A reference says that it is one, or says nothing else that would make it a message. An image without the image is one
/// too: the provider takes that which it keeps under the id.
fn read_item<'a>(
    body: &'a str,
    item: &Value,
    index: usize,
    tagged: &mut Tagged<'a>,
) -> Result<(), CodecError> {
    let bytes = body.as_bytes();
    let Some(mut members) = Members::of(bytes, item) else { return Ok(()) };
    let (mut ids, mut found) = (SmallVec::<[_; 1]>::new(), SmallVec::<[_; 4]>::new());
    let (mut refers, mut typed, mut speaks) = (false, false, false);
    let (mut depicts, mut pictured) = (false, None);
    while let Ok(Some(member)) = members.next() {
        match member.name.text(bytes).as_deref() {
            Some("id") => ids.push(member.value),
            Some("encrypted_content") => found.push((member.value, Bound::Encrypted)),
            Some("approval_request_id") => found.push((member.value, Bound::Approval)),
            Some("type") => {
                typed |= member.value.kind != Kind::Null;
                match member.value.text(bytes).as_deref() {
                    Some("item_reference") => refers = true,
                    Some("image_generation_call") => depicts = true,
                    _ => {}
                }
            }
            Some("result") => {
                let filled = member.value.kind == Kind::String && member.value.raw(bytes) != br#""""#;
                pictured = Some(pictured.unwrap_or(true) && filled);
            }
            Some("role" | "content") => speaks = true,
            _ => {}
        }
    }
    refers |= depicts && pictured != Some(true);
    let bound = if refers || !typed && !speaks { Bound::Reference } else { Bound::Item };
    found.extend(ids.into_iter().map(|id| (id, bound)));
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
