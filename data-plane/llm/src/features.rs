//! What a request needs of a model beyond text, as far as its shape says: set by [`mod@crate::envelope`] while it reads
//! the body, read by the data plane's `pipeline::route`, which turns it into capability tags.

use std::fmt;

/// A set of needs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u16);

/// Each need with the catalog tag that stands for it.
const TAGS: [(Features, &str); 6] = [
    (Features::IMAGES, "vision"),
    (Features::AUDIO, "audio"),
    (Features::VIDEO, "video"),
    (Features::FILES, "file"),
    (Features::TOOLS, "function-calling"),
    (Features::JSON, "json"),
];

impl Features {
    /// There are images among the parts of a message.
    pub const IMAGES: Self = Self(1);
    /// There is sound among them, or sound is asked for.
    pub const AUDIO: Self = Self(2);
    pub const VIDEO: Self = Self(4);
    /// There are documents among them.
    pub const FILES: Self = Self(8);
    /// The model is given functions that it may call.
    pub const TOOLS: Self = Self(16);
    /// The answer must be JSON, of a schema or of any.
    pub const JSON: Self = Self(32);
    /// The provider runs tools of its own, which cost by themselves and put what they find into the prompt.
    pub const PROVIDER_TOOLS: Self = Self(64);
    /// What goes in is not all in the request, or says nothing about its size.
    pub const UNKNOWN_INPUT: Self = Self(128);
    /// The provider answers later, to whoever asks then, and says only there what it has cost.
    pub const BACKGROUND: Self = Self(256);

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The catalog tags that stand for these needs.
    pub fn tags(self) -> impl Iterator<Item = &'static str> {
        TAGS.into_iter().filter(move |(need, _)| self.contains(*need)).map(|(_, tag)| tag)
    }
}

/// Files that are inlined in messages, in base64: their bytes say nothing about tokens.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Inlined {
    pub files: u64,
    pub bytes: u64,
}

impl Inlined {
    /// One more file.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.tags()).finish()
    }
}
