//! Writing JSON straight into a buffer. Called by the writers of dialects.

use serde::Serialize;

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    pub fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// An object whose first members are written already, without the closing brace.
    pub fn go_on(out: &'o mut Vec<u8>) -> Self {
        Self { out, empty: false }
    }

    pub fn close(self) {
        self.out.push(b'}');
    }

    /// Writes the name; the value is to be written into what this returns. `name` needs no escapes.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub fn text(&mut self, name: &str, value: &str) {
        text(self.member(name), value);
    }

    /// JSON that is written already.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.member(name).extend_from_slice(json.as_bytes());
    }

    pub fn value(&mut self, name: &str, value: impl Serialize) {
        self::value(self.member(name), value);
    }

    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.member(name), write);
    }

    /// One element for each item.
    pub fn array<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut Vec<u8>, T),
    ) {
        array(self.member(name), items, write);
    }
}

pub fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    let mut object = Object::open(out);
    write(&mut object);
    object.close();
}

pub fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

pub fn text(out: &mut Vec<u8>, text: &str) {
    value(out, text);
}

pub fn value(out: &mut Vec<u8>, value: impl Serialize) {
    // Into memory, of values whose keys are strings: there is no way to fail.
    let _ = serde_json::to_writer(out, &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let mut out = Vec::new();
        object(&mut out, |object| {
            object.text("text", "a\"\n\u{1}é");
            object.value("number", 1.5);
            object.raw("raw", "[1, 2]");
            object.object("empty", |_| {});
            object.array("array", ["a", "b"], text);
        });
        let expected = r#"{"text":"a\"\n\u0001é","number":1.5,"raw":[1, 2],"empty":{},"array":["a","b"]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
