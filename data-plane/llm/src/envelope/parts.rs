//! Which kinds of parts the messages of a request have, noted while they are passed: the same single pass, no tree.
//! Only members of a part are looked at (`[{"content":[{"type":…}]}]`, and what the result of a tool has of them), never
//! text: a message whose content is a string can say what it wants. Used by [`super::parse`] for `messages` of chat
//! completions and of Anthropic's, and `input` of responses.

use crate::{
    Features,
    features::Inlined,
    json::{Observe, Place, Value},
};

/// How many containers are around a member of a message, or of an item of `input`: array, message.
const MESSAGE: usize = 2;
/// The containers around a member of what is no list of parts but one, innermost lowest: array, message, part.
const LONE_PART: (usize, u128) = (3, 0b011);
/// Around a member of a part: array, message, array, part.
const PART: (usize, u128) = (4, 0b0101);
/// Around a member of what is attached to it: those, and an object.
const ATTACHED: (usize, u128) = (5, 0b0_1011);
/// The same within the result of a tool: part, array, part.
const INNER_PART: (usize, u128) = (6, 0b01_0101);
const INNER_ATTACHED: (usize, u128) = (7, 0b010_1011);

/// Strings up to this many bytes count as text, whatever they are.
const SHORT: usize = 1024;

#[derive(Default)]
pub(super) struct Parts {
    found: Features,
    inlined: Inlined,
    images: u64,
    item: Item,
    /// What the member of a message that is being passed holds.
    holds: Holds,
    /// The parts that are being passed: one, and one within it.
    parts: [Part; 2],
    /// Which of the two had a member last.
    at: usize,
    /// The member of a part that is being passed is its `content`.
    nested: bool,
    /// What the data of the attachment that is being passed is called.
    data: Option<&'static str>,
    /// What the next string is, and where the name before it ends.
    follows: Option<(What, usize)>,
}

/// A message, or an item of `input`, as far as it was passed.
#[derive(Clone, Copy, Default)]
struct Item {
    id: bool,
    /// It says what it is: by a type, or as a message by a role.
    told: bool,
    thoughts: bool,
    sealed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holds {
    #[default]
    Other,
    Parts,
    Audio,
}

/// A part, as far as it was passed.
#[derive(Clone, Copy, Default)]
struct Part {
    /// It is an image, and was counted.
    image: bool,
    /// Bytes of a source, until it is known whether that is one.
    source: u64,
}

#[derive(Clone, Copy)]
enum What {
    TypeOfItem,
    Role,
    /// `encrypted_content`
    Sealed,
    TypeOfPart,
    Data,
}

impl Observe for Parts {
    #[inline]
    fn name(&mut self, document: &[u8], place: Place, name: &Value) {
        match (place.open, place.objects) {
            (MESSAGE, _) => self.member(document, name),
            LONE_PART | PART => self.part(document, name, 0),
            INNER_PART if self.nested => self.part(document, name, 1),
            ATTACHED | INNER_ATTACHED => self.attached(document, name),
            _ => {}
        }
    }

    #[inline]
    fn string(&mut self, document: &[u8], value: &Value) {
        if let Some((what, from)) = self.follows.take() {
            self.value(document, what, from, value);
        }
    }
}

impl Parts {
    /// What was seen: needs, inlined files, and how many images there are.
    pub(super) fn finish(mut self) -> (Features, Inlined, u64) {
        self.close();
        (self.found, self.inlined, self.images)
    }

    /// A member of a message, or of an item, is called `name`.
    fn member(&mut self, document: &[u8], name: &Value) {
        if begins(document, name) {
            self.close();
        }
        (self.follows, self.holds) = (None, Holds::Other);
        match name.text(document).as_deref() {
            Some("content" | "output") => self.holds = Holds::Parts,
            Some("audio") => self.holds = Holds::Audio,
            Some("id") => self.item.id = true,
            Some("role") => self.follows = Some((What::Role, name.span.end)),
            Some("type") => self.follows = Some((What::TypeOfItem, name.span.end)),
            Some("encrypted_content") => self.follows = Some((What::Sealed, name.span.end)),
            _ => {}
        }
    }

    /// The item that was being passed is over. One that is nothing but an id stands for what the provider keeps, and so
    /// do thoughts that are not in it.
    fn close(&mut self) {
        let Item { id, told, thoughts, sealed } = std::mem::take(&mut self.item);
        if id && (!told || (thoughts && !sealed)) {
            self.found.insert(Features::UNKNOWN_INPUT);
        }
    }

    /// A member of a part is called `name`. What an attachment is in has its name also where the type is left out.
    #[cold]
    fn part(&mut self, document: &[u8], name: &Value, at: usize) {
        (self.follows, self.data, self.at) = (None, None, at);
        if at == 0 {
            self.nested = false;
        }
        let text = match self.holds {
            Holds::Other => return,
            Holds::Parts => name.text(document),
            Holds::Audio => {
                // What the model has said earlier.
                let stored = name.text(document).as_deref() == Some("id");
                return self.found.insert(if stored { Features::UNKNOWN_INPUT } else { Features::default() });
            }
        };
        if begins(document, name)
            && let Some(part) = self.parts.get_mut(at)
        {
            *part = Part::default();
        }
        let (found, data) = match text.as_deref() {
            Some("type") => return self.follows = Some((What::TypeOfPart, name.span.end)),
            Some("content") => return self.nested = at == 0,
            Some("source") => return self.data = Some("data"),
            Some("input_audio") => return self.found.insert(Features::AUDIO),
            Some("image_url") => (Features::IMAGES, "url"),
            Some("video_url") => (Features::VIDEO, "url"),
            Some("audio_url") => {
                self.found.insert(Features::UNKNOWN_INPUT);
                (Features::AUDIO, "url")
            }
            Some("file" | "file_data") => (Features::FILES, "file_data"),
            _ => return,
        };
        self.needs(found);
        // It may be there itself, or in an object.
        (self.data, self.follows) = (Some(data), Some((What::Data, name.span.end)));
    }

    /// A member of what is attached to a part is called `name`.
    #[cold]
    fn attached(&mut self, document: &[u8], name: &Value) {
        let is_data = self.data.is_some() && name.text(document).as_deref() == self.data;
        self.follows = is_data.then_some((What::Data, name.span.end));
    }

    #[cold]
    fn value(&mut self, document: &[u8], what: What, from: usize, value: &Value) {
        let between = document.get(from..value.span.start).unwrap_or_default();
        // A string within something else, or behind it, is not what was named.
        if !between.iter().all(|byte| *byte == b':' || byte.is_ascii_whitespace()) {
            return;
        }
        match what {
            What::Role => self.item.told = true,
            What::Sealed => self.item.sealed = true,
            What::Data => self.inlined(value.inner(document)),
            What::TypeOfItem => {
                self.item.told = true;
                match value.text(document).as_deref() {
                    Some("reasoning") => self.item.thoughts = true,
                    // What a tool of the provider has found or made stays there.
                    Some(
                        "item_reference"
                        | "image_generation_call"
                        | "web_search_call"
                        | "file_search_call"
                        | "code_interpreter_call",
                    ) => self.found.insert(Features::UNKNOWN_INPUT),
                    _ => {}
                }
            }
            What::TypeOfPart => {
                if let Some(kind) = value.text(document) {
                    self.needs(of_type(&kind));
                }
            }
        }
    }

    /// The part that is being passed needs this. It is one image, however often it says so.
    fn needs(&mut self, found: Features) {
        self.found.insert(found);
        let Some(part) = self.parts.get_mut(self.at) else { return };
        if found == Features::IMAGES && !std::mem::replace(&mut part.image, true) {
            self.images += 1;
            let source = std::mem::take(&mut part.source);
            if source > 0 {
                self.inlined.add(source);
            }
        }
    }

    /// The data of an attachment. It is no text only where it is counted as what it is: as an image, or as a file, of
    /// which nobody knows how much it is.
    fn inlined(&mut self, data: &[u8]) {
        let bytes = data.len() as u64;
        if data.len() <= SHORT {
            return;
        }
        match (self.data, self.parts.get_mut(self.at)) {
            // A source may be a text, and of which type it is may be said behind it.
            (Some("data"), Some(part)) if !part.image => part.source = part.source.saturating_add(bytes),
            (Some("data"), _) => self.inlined.add(bytes),
            _ if data.starts_with(b"data:") => {
                if self.data == Some("url") && !data.starts_with(b"data:image") {
                    // A document, which some models take as an image, has any number of pages.
                    self.found.insert(Features::UNKNOWN_INPUT);
                }
                self.inlined.add(bytes);
            }
            _ => {}
        }
    }
}

/// Whether this is the first name of its object.
fn begins(document: &[u8], name: &Value) -> bool {
    let before = document.get(..name.span.start).unwrap_or_default();
    before.iter().rfind(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

fn of_type(kind: &str) -> Features {
    match kind {
        "image_url" | "input_image" | "image" | "computer_screenshot" => Features::IMAGES,
        "input_audio" | "audio_url" | "audio" => Features::AUDIO,
        "video_url" | "input_video" | "video" => Features::VIDEO,
        "file" | "input_file" | "document" => Features::FILES,
        _ => Features::default(),
    }
}
