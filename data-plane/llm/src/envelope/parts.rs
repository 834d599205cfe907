//! Which kinds of parts the messages of a request have, noted while they are passed: the same single pass, no tree.
//! Only members of a part are looked at (`[{"content":[{"type":…}]}]`), never text: a message whose content is a
//! string can say what it wants. Used by [`super::parse`] for `messages` of chat completions and `input` of responses.

use crate::{
    Features,
    features::Inlined,
    json::{Observe, Place, Value},
};

/// The containers around a member of a part, innermost lowest: array, message, array, part.
const PART: u128 = 0b0101;
const PART_LEVEL: usize = 4;
const MESSAGE_LEVEL: usize = 2;

/// Strings up to this many bytes count as text, whatever they are.
const SHORT: usize = 1024;

#[derive(Default)]
pub(super) struct Parts {
    pub(super) found: Features,
    pub(super) inlined: Inlined,
    /// Images, by the names of their members and by their types: mostly every image has both.
    named_images: u64,
    typed_images: u64,
    /// Where the name of the member of a message that is being passed begins.
    member: usize,
    /// What comes next is the type of a part, whose name ends at `type_at`.
    type_follows: bool,
    type_at: usize,
}

impl Observe for Parts {
    #[inline]
    fn name(&mut self, document: &[u8], place: Place, name: &Value) {
        if place.open == MESSAGE_LEVEL {
            self.member = name.span.start;
        } else if place.open == PART_LEVEL && place.objects == PART {
            self.part(document, name);
        }
    }

    #[inline]
    fn string(&mut self, document: &[u8], value: &Value) {
        if self.type_follows {
            self.kind(document, value);
        } else if value.span.end - value.span.start > SHORT {
            self.long(document, value);
        }
    }
}

impl Parts {
    /// How many images there are.
    pub(super) fn images(&self) -> u64 {
        self.named_images.max(self.typed_images)
    }

    /// A member of a part is called `name`. What an attachment is in has its name also where the type is left out.
    #[cold]
    fn part(&mut self, document: &[u8], name: &Value) {
        self.type_follows = false;
        let member = document.get(self.member..).unwrap_or_default();
        if !member.starts_with(br#""content""#) && !member.starts_with(br#""output""#) {
            return;
        }
        match name.text(document).as_deref() {
            Some("type") => (self.type_follows, self.type_at) = (true, name.span.end),
            Some("image_url") => {
                self.named_images += 1;
                self.found.insert(Features::IMAGES);
            }
            Some("input_audio") => self.found.insert(Features::AUDIO),
            Some("audio_url") => {
                self.found.insert(Features::AUDIO);
                self.found.insert(Features::UNKNOWN_INPUT);
            }
            Some("video_url") => self.found.insert(Features::VIDEO),
            Some("file") => self.found.insert(Features::FILES),
            _ => {}
        }
    }

    /// Where a file is inlined, it is the whole string.
    #[cold]
    fn long(&mut self, document: &[u8], value: &Value) {
        let inner = value.inner(document);
        if inner.starts_with(b"data:") {
            self.inlined.files += 1;
            self.inlined.bytes += inner.len() as u64;
        }
    }

    #[cold]
    fn kind(&mut self, document: &[u8], value: &Value) {
        self.type_follows = false;
        let between = document.get(self.type_at..value.span.start).unwrap_or_default();
        // A string within something else is not the type.
        let direct = !between.iter().any(|byte| matches!(byte, b'[' | b'{'));
        if let Some(kind) = value.text(document).filter(|_| direct) {
            let found = of_type(&kind);
            self.typed_images += u64::from(found == Features::IMAGES);
            self.found.insert(found);
        }
    }
}

fn of_type(kind: &str) -> Features {
    match kind {
        "image_url" | "input_image" | "image" => Features::IMAGES,
        "input_audio" | "audio_url" | "audio" => Features::AUDIO,
        "video_url" | "input_video" | "video" => Features::VIDEO,
        "file" | "input_file" | "document" => Features::FILES,
        _ => Features::default(),
    }
}
