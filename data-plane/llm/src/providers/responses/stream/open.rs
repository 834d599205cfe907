//! A block of an answer that has begun and not ended, as the writer of a stream keeps it: events at its end repeat all
//! that was in it.

use crate::providers::write;

/// Most bytes of an answer that are kept to be repeated. What is beyond was sent in deltas, and is missing from the
/// events that repeat it: no model writes that much.
const MAX_KEPT: usize = 32 << 20;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) block: u32,
    pub(super) kind: Kind,
    /// The inside of a JSON string: all that was written.
    inside: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text {
        content: u32,
        /// Elements of their arrays.
        annotations: Vec<u8>,
        count: u32,
        logprobs: Vec<u8>,
    },
    Refusal {
        content: u32,
    },
    Thinking {
        item: Item,
        signature: String,
    },
    Call {
        /// `None`: not told to the client yet. Google's signature comes into its id, and may be still to come.
        item: Option<Item>,
        call_id: String,
        name: String,
        signature: String,
        custom: bool,
    },
}

/// Where in the output something stands, and its id.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) index: usize,
    pub(super) id: String,
}

impl Open {
    pub(super) fn new(block: u32, kind: Kind) -> Self {
        Self { block, kind, inside: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inside.is_empty()
    }

    /// Writes the text as a JSON string, and keeps it.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, text: &str) {
        let start = out.len();
        write::text(out, text);
        let inside = out.get(start + 1..out.len() - 1).unwrap_or_default();
        if self.inside.len() + inside.len() <= MAX_KEPT {
            self.inside.extend_from_slice(inside);
        }
    }

    /// All of it as a JSON string.
    pub(super) fn literal(&self) -> Vec<u8> {
        [b"\"", self.inside.as_slice(), b"\""].concat()
    }
}
