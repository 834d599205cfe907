//! Puts a deployment's tag into the ids of an answer or a stream while its bytes pass. Nothing is parsed into values and
//! nothing is held back but the few bytes of an id's kind, so neither the length of an event nor where the network cut it
//! matters.
//!
//! What gets a tag, by its place: of an answer (the body, or `response` of an event) `id`, `previous_response_id` and the
//! items in `output`; of an item (those, and `item` of an event) `id`, `encrypted_content`, `approval_request_id`; and
//! `item_id` of an event.

use bytes::Bytes;
use memchr::memchr2;
use smallvec::SmallVec;

use super::{MARK, MAX_KIND, is_kind, is_tag};

/// What to forward for one frame, none of it empty.
pub type Pieces = SmallVec<[Bytes; 4]>;

/// Rewrites one answer.
#[derive(Debug)]
pub struct Rewriter {
    /// `nemo.<tag>.`; empty: everything passes as it is.
    mark: Bytes,
    /// `None`: the body is one JSON document.
    lines: Option<Lines>,
    json: Json,
    /// The start of an id whose kind has not ended yet.
    held: SmallVec<[u8; MAX_KIND]>,
}

impl Rewriter {
    /// For a body that is one answer.
    pub fn answer(tag: &str) -> Self {
        let mark = if is_tag(tag) { Bytes::from(format!("{MARK}{tag}.")) } else { Bytes::new() };
        Self { mark, lines: None, json: Json::default(), held: SmallVec::new() }
    }

    /// For a stream of server-sent events.
    pub fn stream(tag: &str) -> Self {
        Self { lines: Some(Lines::default()), ..Self::answer(tag) }
    }

    /// Takes the next bytes, returns what goes to the client for them.
    pub fn push(&mut self, frame: &Bytes) -> Pieces {
        let mut out = Out { frame, copied: 0, held: &mut self.held, pieces: Pieces::new() };
        if self.mark.is_empty() {
            out.rest(frame.len());
            return out.pieces;
        }
        match &mut self.lines {
            None => self.json.read(frame, 0, &self.mark, &mut out),
            Some(lines) => {
                let mut at = 0;
                while at < frame.len() {
                    let (data, next) = lines.next(frame, at);
                    if lines.event_ended {
                        self.json = Json::default();
                    }
                    if let Some(end) = data {
                        self.json.read(&frame[..end], at, &self.mark, &mut out);
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

/// What is forwarded of a frame.
struct Out<'f> {
    frame: &'f Bytes,
    /// How much of the frame is dealt with.
    copied: usize,
    /// Of the frames before, goes out before anything of this one.
    held: &'f mut SmallVec<[u8; MAX_KIND]>,
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
    fn insert(&mut self, at: usize, mark: &Bytes) {
        self.rest(at);
        self.pieces.push(mark.clone());
    }

    /// Puts the mark before what is held, or else before the last `length` bytes before `at`.
    fn insert_before(&mut self, at: usize, length: usize, mark: &Bytes) {
        if self.held.is_empty() {
            return self.insert(at - length, mark);
        }
        self.pieces.push(mark.clone());
        self.release();
    }

    /// Keeps what stands from `start` to the end of the frame for the next one.
    fn hold(&mut self, start: usize) {
        self.rest(start);
        self.held.extend_from_slice(&self.frame[start..]);
        self.copied = self.frame.len();
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
const MAX_NAME: usize = "previous_response_id".len();

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
    /// Bytes of it that were read while it wants an id's kind to end.
    kind: usize,
}

impl Json {
    fn read(&mut self, bytes: &[u8], from: usize, mark: &Bytes, out: &mut Out<'_>) {
        let mut at = from;
        while let Some(&byte) = bytes.get(at) {
            at = match &mut self.string {
                Some(string) => {
                    let next = match string.wants {
                        Wants::Nothing => pass(string, bytes, at),
                        Wants::Name => read_name(string, &mut self.name, bytes, at),
                        Wants::Id | Wants::Content => tag(string, bytes, at, mark, out),
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
                self.string = Some(Str { wants, escaped: false, kind: 0 });
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
        (Some(Inside::Output), b'{', _) => Some(Inside::Item),
        _ => None,
    }
}

fn wants(inside: Inside, name: &[u8]) -> Wants {
    match (inside, name) {
        (Inside::Root | Inside::Response, b"id" | b"previous_response_id") => Wants::Id,
        (Inside::Root, b"item_id") | (Inside::Item, b"id" | b"approval_request_id") => Wants::Id,
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

/// Reads an id's kind, and puts the mark behind it.
fn tag(string: &mut Str, bytes: &[u8], at: usize, mark: &Bytes, out: &mut Out<'_>) -> Option<usize> {
    let byte = bytes[at];
    if byte == b'"' && string.kind == 0 {
        return None;
    }
    if string.wants == Wants::Content {
        out.insert(at, mark);
        string.wants = Wants::Nothing;
        return Some(at);
    }
    // The kind may have begun in a frame before.
    let in_frame = string.kind.saturating_sub(out.held.len());
    if is_kind(byte) && string.kind + 1 < MAX_KIND {
        string.kind += 1;
        if at + 1 == out.frame.len() {
            out.hold(at - in_frame);
        }
        return Some(at + 1);
    }
    string.wants = Wants::Nothing;
    if byte == b'_' && string.kind > 0 {
        out.insert(at + 1, mark);
        return Some(at + 1);
    }
    out.insert_before(at, in_frame, mark);
    Some(at)
}
