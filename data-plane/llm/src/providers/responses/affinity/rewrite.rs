//! Puts a deployment's tag into the ids of an answer or a stream while its bytes pass. Nothing is parsed into values and
//! nothing is held back but an id that the network has cut, so neither the length of an event nor where it was cut
//! matters.
//!
//! What gets a tag, by its place: of an answer (the body, or `response` of an event) `id`, `previous_response_id`,
//! `remixed_from_video_id` and the items in `output`; of a list `first_id`, `last_id` and the items in `data`; of an item
//! (those, and `item` of an event) `id`, `encrypted_content`, `approval_request_id`; and `item_id` of an event.

use bytes::Bytes;
use memchr::memchr2;
use smallvec::SmallVec;

use super::{Tagger, kind_length};

/// What to forward for one frame, none of it empty.
pub type Pieces = SmallVec<[Bytes; 4]>;

/// Longest id that gets a tag, in bytes. A longer one would have to be held back.
const MAX_ID: usize = 1024;

/// Rewrites one answer.
#[derive(Debug)]
pub struct Rewriter {
    tagger: Tagger,
    /// What stands before `encrypted_content`; empty: everything passes as it is.
    mark: Bytes,
    /// `None`: the body is one JSON document.
    lines: Option<Lines>,
    json: Json,
    /// The start of an id whose end has not come yet.
    held: Held,
}

type Held = SmallVec<[u8; 64]>;

impl Rewriter {
    /// For a body that is one answer.
    pub fn answer(tagger: impl Into<Tagger>) -> Self {
        let tagger = tagger.into();
        let mark = tagger.mark();
        Self { tagger, mark, lines: None, json: Json::default(), held: Held::new() }
    }

    /// For a stream of server-sent events.
    pub fn stream(tagger: impl Into<Tagger>) -> Self {
        Self { lines: Some(Lines::default()), ..Self::answer(tagger) }
    }

    /// Takes the next bytes, returns what goes to the client for them.
    pub fn push(&mut self, frame: &Bytes) -> Pieces {
        let mut out = Out { frame, copied: 0, held: &mut self.held, pieces: Pieces::new() };
        if self.mark.is_empty() {
            out.rest(frame.len());
            return out.pieces;
        }
        let tags = Tags { tagger: &self.tagger, content: &self.mark };
        match &mut self.lines {
            None => self.json.read(frame, 0, tags, &mut out),
            Some(lines) => {
                let mut at = 0;
                while at < frame.len() {
                    let (data, next) = lines.next(frame, at);
                    if lines.event_ended {
                        self.json = Json::default();
                    }
                    if let Some(end) = data {
                        self.json.read(&frame[..end], at, tags, &mut out);
                        if end < frame.len() {
                            self.json.line_ended();
                        }
                    }
                    at = next;
                }
            }
        }
        out.rest(frame.len());
        out.pieces
    }

    /// The answer has ended: returns what is still held, which is something only if it ended within an id.
    pub fn finish(&mut self) -> Option<Bytes> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| Bytes::copy_from_slice(&held))
    }
}

/// What is put in.
#[derive(Clone, Copy)]
struct Tags<'t> {
    tagger: &'t Tagger,
    content: &'t Bytes,
}

/// What is forwarded of a frame.
struct Out<'f> {
    frame: &'f Bytes,
    /// How much of the frame is dealt with.
    copied: usize,
    /// Of the frames before, goes out before anything of this one.
    held: &'f mut Held,
    pieces: Pieces,
}

impl Out<'_> {
    /// Forwards the frame up to `end`.
    fn rest(&mut self, end: usize) {
        if self.copied < end {
            self.release();
            self.pieces.push(self.frame.slice(self.copied..end));
            self.copied = end;
        }
    }

    fn release(&mut self) {
        if !self.held.is_empty() {
            self.pieces.push(Bytes::copy_from_slice(self.held));
            self.held.clear();
        }
    }

    /// Puts the mark before what stands at `at`.
    fn insert(&mut self, at: usize, mark: Bytes) {
        self.rest(at);
        self.pieces.push(mark);
    }

    /// Keeps what stands from `start` to the end of the frame for the next one; `more`: of the id that is held already.
    fn hold(&mut self, start: usize, more: bool) {
        if !more {
            self.rest(start);
            self.held.clear();
        }
        self.held.extend_from_slice(&self.frame[start..]);
        self.copied = self.frame.len();
    }

    /// The id that is held ends before `end` of this frame: forwards it with its mark.
    fn complete(&mut self, end: usize, tagger: &Tagger) {
        self.held.extend_from_slice(&self.frame[self.copied..end]);
        let kind = kind_length(self.held);
        let mark = tagger.mark_of(self.held);
        self.pieces.push([&self.held[..kind], &mark, &self.held[kind..]].concat().into());
        self.held.clear();
        self.copied = end;
    }
}

/// Finds the `data` in lines of server-sent events.
#[derive(Debug, Default)]
struct Lines {
    place: Place,
    /// The last byte was a CR that ended a line: a LF right after it belongs to that line end.
    after_cr: bool,
    /// The line that was just passed was blank.
    event_ended: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// This much of a line is read, and it is `data:` so far.
    Start(usize),
    Data,
    Other,
}

impl Default for Place {
    fn default() -> Self {
        Self::Start(0)
    }
}

impl Lines {
    const DATA: &'static [u8] = b"data:";

    /// From `at`: up to where there is data, if there is, and where to go on.
    fn next(&mut self, frame: &[u8], at: usize) -> (Option<usize>, usize) {
        self.event_ended = false;
        let byte = frame[at];
        if std::mem::take(&mut self.after_cr) && byte == b'\n' {
            return (None, at + 1);
        }
        match self.place {
            Place::Start(matched) => {
                if matches!(byte, b'\n' | b'\r') {
                    self.event_ended = matched == 0;
                    self.end_line(byte);
                } else if Self::DATA[matched] != byte {
                    self.place = Place::Other;
                } else if matched + 1 == Self::DATA.len() {
                    self.place = Place::Data;
                } else {
                    self.place = Place::Start(matched + 1);
                }
                (None, at + 1)
            }
            Place::Data | Place::Other => {
                let end = memchr2(b'\n', b'\r', &frame[at..]).map_or(frame.len(), |length| at + length);
                let data = matches!(self.place, Place::Data).then_some(end);
                if let Some(byte) = frame.get(end) {
                    self.end_line(*byte);
                }
                (data, end + 1)
            }
        }
    }

    fn end_line(&mut self, byte: u8) {
        self.place = Place::Start(0);
        self.after_cr = byte == b'\r';
    }
}

/// A container that is looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// The body, or the data of an event.
    Root,
    /// `response` of an event.
    Response,
    Output,
    Item,
}

/// What a string that is a value gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// The mark behind its kind.
    Id,
    /// The mark at its start.
    Content,
    /// It is the name of a member.
    Name,
}

/// Longest name that is looked for.
const MAX_NAME: usize = "remixed_from_video_id".len();

/// Walks JSON byte by byte, and remembers only where it is.
#[derive(Debug, Default)]
struct Json {
    inside: SmallVec<[Inside; 4]>,
    /// How many containers are open that are not looked into.
    skipped: u32,
    /// The next string is a name.
    before_name: bool,
    /// Of the member at hand.
    name: SmallVec<[u8; MAX_NAME]>,
    string: Option<Str>,
}

/// A string that is open.
#[derive(Clone, Copy, Debug)]
struct Str {
    wants: Wants,
    escaped: bool,
    /// It is an id whose start is held.
    held: bool,
}

impl Json {
    fn read(&mut self, bytes: &[u8], from: usize, tags: Tags<'_>, out: &mut Out<'_>) {
        let mut at = from;
        while let Some(&byte) = bytes.get(at) {
            at = match &mut self.string {
                Some(string) => {
                    let next = match string.wants {
                        Wants::Nothing => pass(string, bytes, at),
                        Wants::Name => read_name(string, &mut self.name, bytes, at),
                        Wants::Id => tag_id(string, bytes, at, tags.tagger, out),
                        Wants::Content => tag_content(string, bytes, at, tags.content, out),
                    };
                    match next {
                        Some(next) => next,
                        None => {
                            self.string = None;
                            at + 1
                        }
                    }
                }
                None => {
                    self.structure(byte);
                    at + 1
                }
            };
        }
    }

    /// No string goes on in another line: what began as an id is none.
    fn line_ended(&mut self) {
        if let Some(string) = self.string.as_mut().filter(|string| string.wants == Wants::Id) {
            string.wants = Wants::Nothing;
        }
    }

    fn structure(&mut self, byte: u8) {
        let inside = self.inside.last().copied();
        let is_object = self.skipped == 0 && inside != Some(Inside::Output);
        match byte {
            b'"' => {
                let wants = match inside {
                    Some(inside) if is_object && !self.before_name => wants(inside, &self.name),
                    Some(_) if is_object => {
                        self.name.clear();
                        Wants::Name
                    }
                    _ => Wants::Nothing,
                };
                self.string = Some(Str { wants, escaped: false, held: false });
            }
            b':' => self.before_name = false,
            b',' => self.before_name = true,
            b'{' | b'[' => {
                match enter(inside, self.skipped > 0, byte, &self.name) {
                    Some(inside) => self.inside.push(inside),
                    None => self.skipped = self.skipped.saturating_add(1),
                }
                self.before_name = true;
            }
            b'}' | b']' => {
                if self.skipped > 0 {
                    self.skipped -= 1;
                } else {
                    _ = self.inside.pop();
                }
            }
            _ => {}
        }
    }
}

/// What a container is that opens here; `None`: nothing of interest.
fn enter(around: Option<Inside>, skipped: bool, bracket: u8, name: &[u8]) -> Option<Inside> {
    match (around, bracket, name) {
        _ if skipped => None,
        (None, b'{', _) => Some(Inside::Root),
        (Some(Inside::Root), b'{', b"response") => Some(Inside::Response),
        (Some(Inside::Root), b'{', b"item") => Some(Inside::Item),
        (Some(Inside::Root | Inside::Response), b'[', b"output") => Some(Inside::Output),
        (Some(Inside::Root), b'[', b"data") => Some(Inside::Output),
        (Some(Inside::Output), b'{', _) => Some(Inside::Item),
        _ => None,
    }
}

fn wants(inside: Inside, name: &[u8]) -> Wants {
    match (inside, name) {
        (Inside::Root | Inside::Response, b"id" | b"previous_response_id") => Wants::Id,
        (Inside::Root, b"first_id" | b"last_id" | b"remixed_from_video_id" | b"item_id")
        | (Inside::Item, b"id" | b"approval_request_id") => Wants::Id,
        (Inside::Item, b"encrypted_content") => Wants::Content,
        _ => Wants::Nothing,
    }
}

/// Passes a string up to its closing quote, or to the end of the bytes. `None`: the quote stands at `at`.
fn pass(string: &mut Str, bytes: &[u8], at: usize) -> Option<usize> {
    if std::mem::take(&mut string.escaped) {
        return Some(at + 1);
    }
    let found = memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |length| at + length);
    match bytes.get(found) {
        Some(b'"') if found == at => None,
        Some(b'\\') => {
            string.escaped = true;
            Some(found + 1)
        }
        _ => Some(found),
    }
}

/// Remembers the name of a member. One that is too long or has escapes in it is none that is looked for.
fn read_name(
    string: &mut Str,
    name: &mut SmallVec<[u8; MAX_NAME]>,
    bytes: &[u8],
    at: usize,
) -> Option<usize> {
    match bytes.get(at) {
        Some(b'"') => return None,
        Some(b'\\') => string.wants = Wants::Nothing,
        Some(_) if name.len() == MAX_NAME => string.wants = Wants::Nothing,
        Some(byte) => {
            name.push(*byte);
            return Some(at + 1);
        }
        None => return Some(at),
    }
    name.clear();
    Some(at)
}

/// Reads an id to its end, and puts the mark behind its kind. One with escapes in it, or one that is too long to be held
/// back, passes as it is.
fn tag_id(string: &mut Str, bytes: &[u8], at: usize, tagger: &Tagger, out: &mut Out<'_>) -> Option<usize> {
    let end = memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |length| at + length);
    let next = bytes.get(end);
    let length = end - at + if string.held { out.held.len() } else { 0 };
    if next.is_none() && length <= MAX_ID {
        if end == out.frame.len() {
            out.hold(at, string.held);
            string.held = true;
        }
        return Some(end);
    }
    string.wants = Wants::Nothing;
    if next == Some(&b'"') && (1..=MAX_ID).contains(&length) {
        if string.held {
            out.complete(end, tagger);
        } else {
            let id = &bytes[at..end];
            out.insert(at + kind_length(id), tagger.mark_of(id));
        }
    }
    Some(end)
}

/// Puts the mark before content, unless there is none.
fn tag_content(string: &mut Str, bytes: &[u8], at: usize, mark: &Bytes, out: &mut Out<'_>) -> Option<usize> {
    string.wants = Wants::Nothing;
    if bytes.get(at) != Some(&b'"') {
        out.insert(at, mark.clone());
    }
    Some(at)
}
