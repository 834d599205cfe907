//! How much text a model has generated: the strings of a message or delta, measured without being unescaped.

use crate::json::{Cursor, Kind, Members, Value};

/// Deepest level of a message that is looked into: `tool_calls[].function.arguments` is the deepest text.
const MAX_LEVEL: usize = 4;

/// Calls `visit` for each value in an array.
pub(crate) fn for_each_object(document: &[u8], array: &Value, mut visit: impl FnMut(&Value)) {
    if array.kind != Kind::Array {
        return;
    }
    let mut at = array.span.start + 1;
    loop {
        let mut cursor = Cursor::new(document, at);
        let Ok(value) = cursor.value(1) else { return };
        visit(&value);
        cursor.skip_whitespace();
        if cursor.peek() != Some(b',') {
            return;
        }
        at = cursor.position() + 1;
    }
}

/// Calls `visit` with each member of an object, up to a defect.
pub(crate) fn for_each_member(document: &[u8], object: &Value, mut visit: impl FnMut(&[u8], &Value)) {
    let Some(mut members) = Members::of(document, object) else { return };
    while let Ok(Some(member)) = members.next() {
        visit(member.name.inner(document), &member.value);
    }
}

/// Bytes of generated text in a message or delta: content, reasoning, refusals, names and arguments of calls.
pub(crate) fn generated(document: &[u8], message: &Value) -> u64 {
    inside(document, message, 0)
}

/// Whether a delta has anything that is no text but content all the same: sound, an image, a list of calls. Who speaks,
/// and what is empty, is nothing.
pub(crate) fn says_more_than_a_role(document: &[u8], delta: &Value) -> bool {
    let Some(mut members) = Members::of(document, delta) else { return false };
    while let Ok(Some(member)) = members.next() {
        let can = matches!(member.value.kind, Kind::Object | Kind::Array | Kind::String);
        let empty = member.value.span.end - member.value.span.start <= 2;
        if can && !empty && member.name.inner(document) != b"role" {
            return true;
        }
    }
    false
}

fn inside(document: &[u8], value: &Value, level: usize) -> u64 {
    match value.kind {
        Kind::String => length(document, value),
        Kind::Object if level < MAX_LEVEL => {
            let Some(mut members) = Members::of(document, value) else { return 0 };
            let mut sum = 0;
            while let Ok(Some(member)) = members.next() {
                // Labels are not generated; `reasoning_details` and `images` repeat or are no text.
                let counts = !matches!(
                    member.name.inner(document),
                    b"role"
                        | b"id"
                        | b"type"
                        | b"index"
                        | b"reasoning_details"
                        | b"annotations"
                        | b"images"
                        | b"audio"
                        | b"inlineData"
                        | b"thoughtSignature"
                );
                if counts && !matches!(member.value.kind, Kind::Null | Kind::Number | Kind::Boolean) {
                    sum += inside(document, &member.value, level + 1);
                }
            }
            sum
        }
        Kind::Array if level < MAX_LEVEL => {
            let mut sum = 0;
            for_each_object(document, value, |item| sum += inside(document, item, level + 1));
            sum
        }
        _ => 0,
    }
}

/// Bytes of UTF-8 that a string stands for; 0 for other values.
pub(crate) fn length(document: &[u8], value: &Value) -> u64 {
    let inner = value.inner(document);
    match (value.kind, value.escaped) {
        (Kind::String, false) => inner.len() as u64,
        (Kind::String, true) => unescaped_length(inner),
        _ => 0,
    }
}

fn unescaped_length(mut text: &[u8]) -> u64 {
    let mut bytes = 0;
    while let Some(at) = memchr::memchr(b'\\', text) {
        bytes += at as u64;
        let (taken, stands_for) = match text.get(at + 1..) {
            Some([b'u', digits @ ..]) => (6, utf8_length(digits)),
            _ => (2, 1),
        };
        bytes += stands_for;
        text = text.get(at + taken..).unwrap_or_default();
    }
    bytes + text.len() as u64
}

/// UTF-8 bytes of the character with these four hexadecimal digits; half of four for each half of a pair.
fn utf8_length(digits: &[u8]) -> u64 {
    match digits {
        [b'0', b'0', b'0'..=b'7', ..] => 1,
        [b'0', b'0'..=b'7', ..] => 2,
        [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..] => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Cursor::new(text.as_bytes(), 0).value(0).unwrap()
    }

    #[test]
    fn a_string_measures_as_its_text() {
        for text in ["", "abc", "é漢🦀", "a\nb\"c\\d/", "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{d7ff}"]
        {
            let plain = serde_json::to_string(text).unwrap();
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            for json in [
                plain,
                format!("\"{escaped}\""),
                format!("\"{}\"", escaped.to_uppercase().replace("\\U", "\\u")),
            ] {
                assert_eq!(length(json.as_bytes(), &value(&json)), text.len() as u64, "{json}");
            }
        }
    }

    #[test]
    fn labels_are_not_generated_text() {
        for (message, bytes) in [
            (r#"{"role":"assistant","content":"hello"}"#, 5),
            (r#"{"content":null,"refusal":"no"}"#, 2),
            (r#"{"reasoning_content":"hm","content":"ok"}"#, 4),
            (r#"{"reasoning":"hm","reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#, 2),
            (
                r#"{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
                3,
            ),
            (r#"{"content":[{"type":"text","text":"abc"},{"type":"text","text":"de"}]}"#, 5),
            ("{}", 0),
            ("[]", 0),
        ] {
            assert_eq!(generated(message.as_bytes(), &value(message)), bytes, "{message}");
        }
    }
}
