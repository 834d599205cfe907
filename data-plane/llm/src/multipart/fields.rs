//! A form without files as the JSON object that says the same, for targets that take no forms. Called by the data plane
//! when a form that has come whole goes to one of those.

use memchr::memmem;
use serde_json::{Map, Value};

use super::head::Head;

/// The object with the form's fields, all of them text. `body` was passed by a [`super::FormScanner`]. `None` when a part
/// is a file, or is no text, or has the name of another.
pub fn to_json(boundary: &str, body: &[u8]) -> Option<Vec<u8>> {
    let delimiter = format!("--{boundary}");
    let mut rest = &body[memmem::find(body, delimiter.as_bytes())? + delimiter.len()..];
    let next = format!("\r\n{delimiter}");
    let mut fields = Map::new();
    while !rest.starts_with(b"--") {
        let blank = memmem::find(rest, b"\r\n\r\n")?;
        let head = Head::parse(&rest[..blank + 2]).ok().filter(|head| !head.is_file && !head.encoded)?;
        let content = &rest[blank + 2..];
        let end = memmem::find(content, next.as_bytes())?;
        let value = content.get(2..end).unwrap_or_default();
        let value = Value::String(std::str::from_utf8(value).ok()?.to_owned());
        if fields.insert(head.name, value).is_some() {
            return None;
        }
        rest = &content[end + next.len()..];
    }
    serde_json::to_vec(&fields).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let part = |(head, value): &(&str, &str)| {
            format!("--b7\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
        };
        format!("{}--b7--\r\n", parts.iter().map(part).collect::<String>()).into_bytes()
    }

    #[test]
    fn a_form_without_files_is_an_object() {
        let body =
            form(&[("name=\"prompt\"", "a \"cat\"\r\n--b"), ("name=model", "veo"), ("name=\"user\"", "")]);
        let json: Value = serde_json::from_slice(&to_json("b7", &body).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({ "prompt": "a \"cat\"\r\n--b", "model": "veo", "user": "" }));
        assert_eq!(to_json("b7", b"--b7--\r\n").as_deref(), Some(&b"{}"[..]));
        for parts in [
            &[("name=\"input_reference\"; filename=\"a.png\"", "x")][..],
            &[("name=a", "1"), ("name=\"a\"", "2")],
        ] {
            assert_eq!(to_json("b7", &form(parts)), None, "{parts:?}");
        }
        for broken in [&b"--b7\r\n"[..], b"", b"--b7\r\nContent-Disposition: form-data; name=a\r\n\r\nx"] {
            assert_eq!(to_json("b7", broken), None);
        }
    }
}
