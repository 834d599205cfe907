//! `multipart/form-data` on its way through: a few small fields are read, `model` is renamed and the gateway's own
//! fields are taken out while everything else passes as the slices in which it came, files of any size included.
//! Driven by the data plane, one [`FormScanner`] per request; pure and incremental: any split of the body gives the
//! same result.
//!
//! Strict where leniency would let the upstream read another form than the gateway does: the fields that are read must
//! not be repeated, hidden in other spellings, encoded, or sent as files.

use bytes::Bytes;
use memchr::memmem::Finder;

mod fields;
mod form;
mod head;

pub use fields::to_json;
pub use form::{Form, FormField};
use head::Head;

/// Longest boundary that is accepted; RFC 2046 allows 70.
pub const MAX_BOUNDARY: usize = 200;
/// Longest headers of one part, with the delimiter before them.
pub const MAX_PART_HEAD: usize = 16 << 10;
/// Longest value of a field that is read.
pub const MAX_FIELD: usize = 8 << 10;
/// Most parts of one form.
pub const MAX_PARTS: usize = 1000;

/// Why a form is refused: all of it is the client's fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct MultipartError {
    /// The field at fault.
    pub param: Option<&'static str>,
    pub message: String,
}

impl MultipartError {
    fn new(message: impl Into<String>) -> Self {
        Self { param: None, message: message.into() }
    }

    fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), message: message.into() }
    }
}

/// A piece of the form that goes on, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// As it came.
    Raw(Bytes),
    /// The value of `model`, for which the upstream's name is put.
    Model(Bytes),
}

/// The boundary in a content type; `None` when it is no form, or has none that could be a boundary.
pub fn boundary(content_type: &str) -> Option<String> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = head::parameter(parameters, "boundary").ok()??;
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let fits = (1..=MAX_BOUNDARY).contains(&boundary.len()) && !boundary.ends_with(' ');
    (fits && boundary.bytes().all(sane)).then_some(boundary)
}

/// Reads a form as it comes.
#[derive(Debug)]
pub struct FormScanner {
    /// `\r\n--boundary`
    delimiter: Finder<'static>,
    state: State,
    /// Seen, but not decided upon: never more than a part's head or a field that is read.
    carry: Vec<u8>,
    form: Form,
    parts: usize,
    /// Something was passed on: then a delimiter keeps its line break.
    begun: bool,
    /// The bytes that were taken out so far.
    stripped: u64,
    /// The part at hand is a file.
    in_file: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before the first delimiter.
    Start,
    /// At a delimiter, with its line break.
    Head,
    Body(Part),
    /// Behind the last delimiter.
    End,
}

/// What is done with the content of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Pass,
    /// Read, then passed on.
    Read(FormField),
    /// Read, then dropped with its head.
    Strip(Option<FormField>),
}

impl FormScanner {
    pub fn new(boundary: &str) -> Self {
        Self {
            delimiter: Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned(),
            state: State::Start,
            carry: Vec::new(),
            form: Form::default(),
            parts: 0,
            begun: false,
            stripped: 0,
            in_file: false,
        }
    }

    /// What was read so far.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Bytes that were taken out so far, the gateway's own fields with their heads.
    pub fn stripped(&self) -> u64 {
        self.stripped
    }

    /// The content of a file is passing.
    pub fn in_file(&self) -> bool {
        self.in_file && matches!(self.state, State::Body(_))
    }

    /// The last delimiter was seen: nothing that follows has a meaning.
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Takes the next frame; appends what goes on.
    ///
    /// # Errors
    /// When it is no form, or one that the upstream might read otherwise.
    pub fn push(&mut self, frame: Bytes, out: &mut Vec<Piece>) -> Result<(), MultipartError> {
        let mut window = if self.carry.is_empty() {
            frame
        } else {
            let mut joined = std::mem::take(&mut self.carry);
            joined.extend_from_slice(&frame);
            Bytes::from(joined)
        };
        while self.step(&mut window, out)? {}
        self.carry = window.to_vec();
        Ok(())
    }

    /// To be called at the end of the body.
    ///
    /// # Errors
    /// When the form is not complete.
    pub fn finish(&self) -> Result<(), MultipartError> {
        if self.is_complete() {
            return Ok(());
        }
        Err(MultipartError::new("The form ends before its closing boundary."))
    }

    /// Decides on the beginning of `window` and takes it away; false when more must come first.
    fn step(&mut self, window: &mut Bytes, out: &mut Vec<Piece>) -> Result<bool, MultipartError> {
        match self.state {
            State::Start => self.start(window),
            State::Head => self.head(window, out),
            State::Body(Part::Pass) => Ok(self.pass(window, out)),
            State::Body(Part::Read(field)) => self.value(window, Some(field), true, out),
            State::Body(Part::Strip(field)) => self.value(window, field, false, out),
            State::End => {
                if !window.is_empty() {
                    out.push(Piece::Raw(std::mem::take(window)));
                }
                Ok(false)
            }
        }
    }

    /// The first delimiter begins the body, with or without a line break before it.
    fn start(&mut self, window: &mut Bytes) -> Result<bool, MultipartError> {
        let delimiter = self.delimiter.needle();
        let skip = if window.starts_with(b"\r") { 0 } else { 2 };
        let expected = &delimiter[skip..];
        let length = window.len().min(expected.len());
        if window[..length] != expected[..length] {
            return Err(MultipartError::new(
                "The form does not begin with the boundary that its content type names.",
            ));
        }
        if length < expected.len() {
            return Ok(false);
        }
        if skip > 0 {
            // So that every delimiter looks the same; `begun` says that its line break is not the client's.
            *window = [&delimiter[..skip], window].concat().into();
        } else {
            self.begun = true;
        }
        self.state = State::Head;
        Ok(true)
    }

    /// `window` begins with a delimiter.
    fn head(&mut self, window: &mut Bytes, out: &mut Vec<Piece>) -> Result<bool, MultipartError> {
        let length = self.delimiter.needle().len();
        let Some(after) = window.get(length..length + 2) else { return Ok(false) };
        if after == b"--" {
            self.emit_head(window.split_to(length + 2), out);
            self.state = State::End;
            return Ok(true);
        }
        let Some(blank) = memchr::memmem::find(&window[length..], b"\r\n\r\n") else {
            if window.len() > MAX_PART_HEAD {
                return Err(MultipartError::new(format!(
                    "The headers of a part of the form are longer than {MAX_PART_HEAD} bytes."
                )));
            }
            return Ok(false);
        };
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(MultipartError::new(format!("The form has more than {MAX_PARTS} parts.")));
        }
        let end = length + blank + 4;
        if end > MAX_PART_HEAD {
            return Err(MultipartError::new(format!(
                "The headers of a part of the form are longer than {MAX_PART_HEAD} bytes."
            )));
        }
        let head = Head::parse(&window[length..end])?;
        let part = self.form.admit(&head)?;
        // The content begins behind the first line break of the blank line, so that an empty one is found as any other.
        let text = window.split_to(end - 2);
        match part {
            Part::Strip(_) => self.stripped += text.len() as u64,
            Part::Pass | Part::Read(_) => self.emit_head(text, out),
        }
        self.in_file = part == Part::Pass && head.is_file;
        self.state = State::Body(part);
        Ok(true)
    }

    /// Passes a delimiter on, with what belongs to it. The first one has no line break before it.
    fn emit_head(&mut self, mut text: Bytes, out: &mut Vec<Piece>) {
        if !std::mem::replace(&mut self.begun, true) {
            let _not_the_clients = text.split_to(2);
        }
        out.push(Piece::Raw(text));
    }

    /// Content that nobody looks at.
    fn pass(&mut self, window: &mut Bytes, out: &mut Vec<Piece>) -> bool {
        if let Some(at) = self.delimiter.find(window) {
            if at > 0 {
                out.push(Piece::Raw(window.split_to(at)));
            }
            self.state = State::Head;
            return true;
        }
        let kept = head::overlap(window, self.delimiter.needle());
        if window.len() > kept {
            out.push(Piece::Raw(window.split_to(window.len() - kept)));
        }
        false
    }

    /// A value that is read whole.
    fn value(
        &mut self,
        window: &mut Bytes,
        field: Option<FormField>,
        keep: bool,
        out: &mut Vec<Piece>,
    ) -> Result<bool, MultipartError> {
        let Some(at) = self.delimiter.find(window) else {
            if window.len() <= MAX_FIELD + self.delimiter.needle().len() {
                return Ok(false);
            }
            return Err(too_long(field));
        };
        let mut value = window.split_to(at);
        if value.len() > MAX_FIELD + 2 {
            return Err(too_long(field));
        }
        if !keep {
            self.stripped += value.len() as u64;
        }
        // The second line break of the blank line.
        let line_break = value.split_to(value.len().min(2));
        if let Some(field) = field {
            self.form.read(field, &value)?;
        }
        if keep {
            out.push(Piece::Raw(line_break));
            out.push(match field {
                Some(FormField::Model) => Piece::Model(value),
                _ => Piece::Raw(value),
            });
        }
        self.state = State::Head;
        Ok(true)
    }
}

fn too_long(field: Option<FormField>) -> MultipartError {
    let name = field.map_or("nemo_…", FormField::name);
    let message = format!("The field `{name}` of the form is longer than {MAX_FIELD} bytes.");
    MultipartError { param: field.map(FormField::name), message }
}

#[cfg(test)]
mod tests;
