//! Files that stand in a request itself: data URLs and base64. Called by the readers of requests.

use std::borrow::Cow;

use crate::{
    ir::{Source, Text},
    providers::write as json,
};

/// What a URL in a request points to. Only what can be looked at without asking anybody: nothing is fetched here.
///
/// # Errors
/// What was expected.
pub fn source(url: Text<'_>) -> Result<Source<'_>, &'static str> {
    if is_data(&url) {
        let (media_type, data) = match url {
            Cow::Borrowed(url) => {
                let (media_type, data) = split(url)?;
                (Cow::Borrowed(media_type), Cow::Borrowed(data))
            }
            Cow::Owned(url) => {
                let (media_type, data) = split(&url)?;
                (Cow::Owned(media_type.to_owned()), Cow::Owned(data.to_owned()))
            }
        };
        return Ok(Source::Base64 { media_type, data });
    }
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    let web = ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if (web && rest.starts_with("//") || scheme == "gs") && !rest.bytes().any(|byte| byte <= b' ') {
        Ok(Source::Url(url))
    } else {
        Err("Expected an https URL or a data URL (`data:image/png;base64,…`).")
    }
}

pub fn is_data(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// Media type and base64 of a data URL.
fn split(url: &str) -> Result<(&str, &str), &'static str> {
    let (head, data) = url[5..]
        .split_once(',')
        .ok_or("A data URL has a comma before its data: `data:image/png;base64,…`.")?;
    let head = head.strip_suffix(";base64").ok_or("Data URLs must be base64: `data:image/png;base64,…`.")?;
    let media_type = head.split(';').next().unwrap_or_default();
    if !is_media_type(media_type) {
        return Err("A data URL names its media type: `data:image/png;base64,…`.");
    }
    if !is_base64(data) {
        return Err(BAD_BASE64);
    }
    Ok((media_type, data))
}

pub const BAD_BASE64: &str =
    "Expected base64 of the standard alphabet, with padding and without line breaks.";

/// `image/png`
pub fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        let known =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'_' | b'*');
        !part.is_empty() && part.bytes().all(known)
    };
    text.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// Whether it is some bytes in standard base64 with padding. Nothing is decoded.
pub fn is_base64(data: &str) -> bool {
    let bytes = data.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let letters = &bytes[..bytes.len() - padding];
    // All of them, without a branch at each: megabytes pass here.
    let wrong = letters.iter().fold(false, |wrong, byte| wrong | !IS_LETTER[usize::from(*byte)]);
    !bytes.is_empty() && bytes.len().is_multiple_of(4) && !wrong
}

const IS_LETTER: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        byte += 1;
    }
    table
};

/// `data:image/png;base64,…`
pub fn write(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// Writes `"data:image/png;base64,…"` as a JSON string. The data may be megabytes: it is copied once.
pub fn push(out: &mut Vec<u8>, media_type: &str, data: &str) {
    let head = format!("data:{media_type};base64,");
    if !is_base64(data) {
        return json::text(out, &(head + data));
    }
    json::text(out, &head);
    out.pop();
    out.extend_from_slice(data.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_urls_are_taken_apart() {
        for (url, media_type, data) in [
            ("data:image/png;base64,QUI=", "image/png", "QUI="),
            ("DATA:application/pdf;name=a.pdf;base64,QUJD", "application/pdf", "QUJD"),
        ] {
            let expected = |source: Source<'_>| matches!(&source, Source::Base64 { media_type: a, data: b } if a == media_type && b == data);
            assert!(expected(source(url.into()).unwrap()), "{url}");
            assert!(expected(source(url.to_owned().into()).unwrap()), "{url}");
        }
        assert!(matches!(source("https://a.example/x.png".into()), Ok(Source::Url(_))));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for url in [
            "",
            "x",
            "data:",
            "data:,QUI=",
            "data:image/png,QUI=",
            "data:;base64,QUI=",
            "data:image/png;base64,",
            "data:image/png;base64,QUI",
            "data:image/png;base64,QU I=",
            "data:image/png;base64,Q-_=",
            "data:image/png;base64,====",
            "data:image/png\n;base64,QUI=",
            "file:///etc/passwd",
            "ftp://a/b",
            "https:a",
            "http://a b",
            "dät",
        ] {
            assert!(source(url.into()).is_err(), "{url}");
            assert!(source(url.to_owned().into()).is_err(), "{url}");
        }
    }

    #[test]
    fn data_urls_are_written_as_json_strings() {
        for (media_type, data, json) in [
            ("image/png", "QUI=", r#""data:image/png;base64,QUI=""#),
            ("a\"b", "QUI=", r#""data:a\"b;base64,QUI=""#),
            ("image/png", "\"", r#""data:image/png;base64,\"""#),
        ] {
            let mut out = Vec::new();
            push(&mut out, media_type, data);
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
    }

    proptest! {
        #[test]
        fn base64_is_what_the_decoder_takes(text in "[A-Za-z0-9+/]{0,9}={0,3}|.{0,6}") {
            // The decoder also refuses bits that are cut off by the padding; providers don't.
            let engine = base64::engine::GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
            );
            prop_assert_eq!(is_base64(&text), !text.is_empty() && engine.decode(&text).is_ok());
        }

        #[test]
        fn any_bytes_are_base64(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            prop_assert!(is_base64(&STANDARD.encode(bytes)));
        }
    }
}
