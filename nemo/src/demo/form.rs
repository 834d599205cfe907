//! A `multipart/form-data` body, read whole: the demo is for small files.

use std::collections::BTreeMap;

use http::StatusCode;

use super::Refusal;

/// Its fields, and how long its files are.
pub(super) struct Form {
    fields: BTreeMap<String, String>,
    files: BTreeMap<String, usize>,
}

impl Form {
    pub(super) fn parse(content_type: &str, body: &[u8]) -> Result<Self, Refusal> {
        let refused = || Refusal::new(StatusCode::BAD_REQUEST, "the body is no multipart form", "bad_body");
        let boundary = content_type.split_once("boundary=").ok_or_else(refused)?.1;
        let boundary = boundary.split(';').next().unwrap_or_default().trim_matches('"');
        let delimiter = format!("\r\n--{boundary}");
        let whole = [b"\r\n", body].concat();
        let mut form = Self { fields: BTreeMap::new(), files: BTreeMap::new() };
        let (mut rest, mut begun) = (whole.as_slice(), false);
        while let Some(at) = find(rest, delimiter.as_bytes()) {
            if begun {
                form.part(&rest[..at]).ok_or_else(refused)?;
            }
            begun = true;
            rest = &rest[at + delimiter.len()..];
        }
        if begun && rest.starts_with(b"--") { Ok(form) } else { Err(refused()) }
    }

    fn part(&mut self, part: &[u8]) -> Option<()> {
        let end = find(part, b"\r\n\r\n")?;
        let (head, content) = (std::str::from_utf8(&part[..end]).ok()?, &part[end + 4..]);
        let name = head.split_once("name=\"")?.1.split_once('"')?.0.to_owned();
        if head.contains("filename=") {
            self.files.insert(name, content.len());
        } else {
            self.fields.insert(name, String::from_utf8_lossy(content).into_owned());
        }
        Some(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Empty when there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Length of a file.
    pub(super) fn file(&self, name: &str) -> Result<usize, Refusal> {
        self.files.get(name).copied().ok_or_else(|| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the form has no file {name:?}"), "bad_body")
        })
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_files_are_found() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n12\r\n34\r\n--b--\r\n";
        let form = Form::parse("multipart/form-data; boundary=b", body).unwrap();
        assert_eq!((form.text("model"), form.file("file").unwrap()), ("m", 6));
        assert!(form.file("image").is_err() && form.text("other").is_empty());
        for bad in [&body[..20], b"", &body[..body.len() - 4]] {
            assert!(Form::parse("multipart/form-data; boundary=b", bad).is_err());
        }
    }
}
