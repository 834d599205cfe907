//! What Google's clients put into a conversation beside text, noted while it is passed, as [`super::parts`] does for the
//! others: images, sound, films and documents, inlined or kept elsewhere, by their media types. Used by
//! [`super::parse_call`] for `contents` of `generateContent`.

use crate::{
    Features,
    features::Inlined,
    json::{Observe, Place, Value},
};

/// The containers around a member of a content, innermost lowest: array, content.
const CONTENT: (usize, u128) = (2, 0b01);
/// Around a member of a part: array, content, array, part.
const PART: (usize, u128) = (4, 0b0101);
/// Around a member of a file: those, and the file.
const FILE: (usize, u128) = (5, 0b01011);
/// The same within what a function has answered: part, `functionResponse`, array, part.
const ANSWERS_PART: (usize, u128) = (7, 0b010_1101);
const ANSWERS_FILE: (usize, u128) = (8, 0b0101_1011);

#[derive(Default)]
pub(super) struct GoogleParts {
    found: Features,
    inlined: Inlined,
    images: u64,
    /// The member of a content that is being passed is `parts`.
    in_parts: bool,
    file: Option<File>,
    /// What the next string is, and where the name before it ends.
    follows: Option<(What, usize)>,
}

/// One file, as far as it was passed.
#[derive(Clone, Copy)]
struct File {
    inline: bool,
    kind: Option<Features>,
    bytes: u64,
}

#[derive(Clone, Copy)]
enum What {
    MediaType,
    Data,
}

impl Observe for GoogleParts {
    #[inline]
    fn name(&mut self, document: &[u8], place: Place, name: &Value) {
        match (place.open, place.objects) {
            CONTENT => self.in_parts = name.text(document).as_deref() == Some("parts"),
            PART | ANSWERS_PART if self.in_parts => self.part(document, name),
            FILE | ANSWERS_FILE if self.file.is_some() => {
                let what = match name.text(document).as_deref() {
                    Some("mimeType" | "mime_type") => Some(What::MediaType),
                    Some("data") => Some(What::Data),
                    _ => None,
                };
                self.follows = what.map(|what| (what, name.span.end));
            }
            _ => {}
        }
    }

    #[inline]
    fn string(&mut self, document: &[u8], value: &Value) {
        let (Some((what, from)), Some(file)) = (self.follows.take(), &mut self.file) else { return };
        let between = document.get(from..value.span.start).unwrap_or_default();
        // A string within something else is neither.
        if between.iter().any(|byte| matches!(byte, b'[' | b'{')) {
            return;
        }
        match what {
            What::MediaType => file.kind = value.text(document).map(|media_type| of_media_type(&media_type)),
            What::Data => file.bytes = value.inner(document).len() as u64,
        }
    }
}

impl GoogleParts {
    /// What was seen: needs, inlined files, and how many images there are.
    pub(super) fn finish(mut self) -> (Features, Inlined, u64) {
        self.close();
        (self.found, self.inlined, self.images)
    }

    fn part(&mut self, document: &[u8], name: &Value) {
        self.close();
        let inline = match name.text(document).as_deref() {
            Some("inlineData" | "inline_data") => true,
            Some("fileData" | "file_data") => false,
            _ => return,
        };
        self.file = Some(File { inline, kind: None, bytes: 0 });
    }

    /// The file that was being passed is over.
    fn close(&mut self) {
        self.follows = None;
        let Some(File { inline, kind, bytes }) = self.file.take() else { return };
        let Some(kind) = kind else {
            // One that says nothing of itself is as long as its text at the most, or it is elsewhere.
            if !inline {
                self.found.insert(Features::UNKNOWN_INPUT);
            }
            return;
        };
        self.found.insert(kind);
        self.images += u64::from(kind == Features::IMAGES);
        if inline {
            self.inlined.add(bytes);
        } else if kind == Features::AUDIO {
            // How long it plays is not in the request.
            self.found.insert(Features::UNKNOWN_INPUT);
        }
    }
}

fn of_media_type(media_type: &str) -> Features {
    let (family, _) = media_type.split_once('/').unwrap_or((media_type, ""));
    match family.to_ascii_lowercase().as_str() {
        "image" => Features::IMAGES,
        "audio" => Features::AUDIO,
        "video" => Features::VIDEO,
        _ => Features::FILES,
    }
}
