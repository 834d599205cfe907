//! Writing: what this folder needs beside [`crate::providers::write`].

pub(super) use crate::providers::write::Object;
use crate::providers::write::value;

/// An array that is being written, where an item may turn out to be none that can be. [`Array::close`] ends it.
#[derive(Debug)]
pub(super) struct Array<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Array<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, first: true }
    }

    /// The next item goes into what is returned.
    pub(super) fn item(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out
    }

    pub(super) fn close(self) {
        self.out.push(b']');
    }
}

/// JSON as it was written, on one line: it may become an event of a stream. Line breaks can only be white space between
/// its tokens.
pub(super) fn raw(out: &mut Vec<u8>, json: &str) {
    let from = out.len();
    out.extend_from_slice(json.as_bytes());
    if memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some() {
        for byte in &mut out[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

/// A text as it stands within the quotes of a JSON string.
pub(super) fn escaped(text: &str) -> String {
    let mut quoted = Vec::with_capacity(text.len() + 8);
    value(&mut quoted, text);
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    String::from_utf8_lossy(inner).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_others_stays_on_one_line() {
        let mut out = Vec::new();
        raw(&mut out, "{\r\n \"a\\n\": 1}");
        assert_eq!(out, b"{   \"a\\n\": 1}");
        assert_eq!(escaped("a\"\n"), "a\\\"\\n");
    }
}
