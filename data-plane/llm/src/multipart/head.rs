//! The headers of one part: whose field it is, and whether it is a file.

use super::MultipartError;

/// What the headers of a part say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) is_file: bool,
    /// A `content-transfer-encoding` that changes the bytes.
    pub(super) encoded: bool,
}

impl Head {
    /// `text` is what stands between the boundary and the content: padding, a line break, and lines up to a blank one.
    pub(super) fn parse(text: &[u8]) -> Result<Self, MultipartError> {
        let text = std::str::from_utf8(text)
            .map_err(|_| MultipartError::new("The headers of a part of the form are not UTF-8."))?;
        let mut lines = text.split("\r\n");
        // Only blanks may stand behind a boundary: anything else makes it another, longer boundary.
        if lines.next().is_none_or(|padding| !padding.bytes().all(|byte| matches!(byte, b' ' | b'\t'))) {
            return Err(MultipartError::new(
                "A line of the form begins with its boundary and goes on after it.",
            ));
        }
        let (mut disposition, mut encoded) = (None, false);
        for line in lines.filter(|line| !line.is_empty()) {
            if line.starts_with([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
                return Err(MultipartError::new("A header of a part of the form goes over several lines."));
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(MultipartError::new("A part of the form has a header without a colon."));
            };
            if name.eq_ignore_ascii_case("content-disposition") {
                if disposition.replace(value).is_some() {
                    return Err(MultipartError::new(
                        "A part of the form has two content-disposition headers.",
                    ));
                }
            } else if name.eq_ignore_ascii_case("content-transfer-encoding") {
                let plain = ["binary", "8bit", "7bit"];
                encoded = !plain.iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
            }
        }
        let missing =
            || MultipartError::new("A part of the form has no content-disposition: form-data with a name.");
        let (kind, parameters) = disposition.ok_or_else(missing)?.split_once(';').ok_or_else(missing)?;
        if !kind.trim().eq_ignore_ascii_case("form-data") {
            return Err(missing());
        }
        let name = parameter(parameters, "name")?.ok_or_else(missing)?;
        let is_file =
            parameter(parameters, "filename")?.is_some() || parameter(parameters, "filename*")?.is_some();
        if parameter(parameters, "name*")?.is_some() {
            return Err(MultipartError::new("A part of the form has an encoded name (`name*`)."));
        }
        Ok(Self { name, is_file, encoded })
    }
}

/// The value of a parameter of a header, unquoted. `None` when it is not there.
///
/// # Errors
/// When it is there twice, or a quote is not closed.
pub(super) fn parameter(text: &str, wanted: &str) -> Result<Option<String>, MultipartError> {
    let mut found = None;
    let mut rest = text.trim_start_matches([' ', '\t', ';']);
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else { break };
        let (value, after) = value(after.trim_start_matches([' ', '\t']))?;
        if name.trim().eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
            return Err(MultipartError::new(format!("A header of the form has `{wanted}` twice.")));
        }
        rest = after.trim_start_matches([' ', '\t', ';']);
    }
    Ok(found)
}

/// A token or quoted string, and what follows it. Backslashes stay: of a name they are refused, of a file's name
/// nobody asks.
fn value(text: &str) -> Result<(String, &str), MultipartError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return Ok((text[..end].trim_end().to_owned(), &text[end..]));
    };
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return Ok((quoted[..at].to_owned(), &quoted[at + 1..])),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    Err(MultipartError::new("A header of the form has a quote that is not closed."))
}

/// Length of the longest end of `text` that could be the beginning of `delimiter`.
pub(super) fn overlap(text: &[u8], delimiter: &[u8]) -> usize {
    let from = text.len().saturating_sub(delimiter.len() - 1);
    // A delimiter begins with a carriage return and has no other.
    let at = memchr::memrchr(b'\r', &text[from..]).map(|at| from + at);
    match at {
        Some(at) if delimiter.starts_with(&text[at..]) => text.len() - at,
        _ => 0,
    }
}
