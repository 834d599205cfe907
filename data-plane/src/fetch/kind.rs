//! What a file is: by what its server says, and by how it begins. Both must agree. Called by [`super::client`].

use super::Why;

/// What is asked for.
pub fn accept(document: bool) -> &'static str {
    if document { "application/pdf" } else { "image/png, image/jpeg, image/gif, image/webp" }
}

fn no(document: bool) -> Why {
    if document { Why::NoDocument } else { Why::NoImage }
}

/// The media type that a server names, if it is one that is asked for.
///
/// # Errors
/// When it is not.
pub fn named(content_type: Option<&str>, document: bool) -> Result<&'static str, Why> {
    let named = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let known: &[&str] = match document {
        true => &["application/pdf"],
        false => &["image/png", "image/jpeg", "image/gif", "image/webp"],
    };
    let found = known.iter().find(|known| known.eq_ignore_ascii_case(named));
    match found {
        Some(found) => Ok(found),
        // Never registered, and often seen.
        None if !document && named.eq_ignore_ascii_case("image/jpg") => Ok("image/jpeg"),
        None => Err(no(document)),
    }
}

/// Whether a file of this type begins as it should.
///
/// # Errors
/// When it does not.
pub fn check(media_type: &str, body: &[u8]) -> Result<(), Why> {
    let begins = match media_type {
        "image/png" => body.starts_with(b"\x89PNG\r\n\x1a\n"),
        "image/jpeg" => body.starts_with(b"\xff\xd8\xff"),
        "image/gif" => body.starts_with(b"GIF87a") || body.starts_with(b"GIF89a"),
        "image/webp" => body.starts_with(b"RIFF") && body.get(8..12) == Some(b"WEBP"),
        "application/pdf" => body.starts_with(b"%PDF-"),
        _ => false,
    };
    if begins { Ok(()) } else { Err(no(media_type == "application/pdf")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_server_says_and_begins_as_such() {
        for (name, media_type, begin) in [
            ("image/png", "image/png", &b"\x89PNG\r\n\x1a\n..."[..]),
            ("IMAGE/JPEG; q=1", "image/jpeg", b"\xff\xd8\xff\xe0"),
            ("image/jpg", "image/jpeg", b"\xff\xd8\xff\xe1"),
            ("image/gif", "image/gif", b"GIF89a.."),
            ("image/webp", "image/webp", b"RIFF\0\0\0\0WEBPVP8 "),
        ] {
            assert_eq!(named(Some(name), false), Ok(media_type));
            assert_eq!(check(media_type, begin), Ok(()));
            assert_eq!(check(media_type, b"<html>"), Err(Why::NoImage), "{media_type}");
            assert_eq!(check(media_type, b""), Err(Why::NoImage), "{media_type}");
        }
        for name in [None, Some(""), Some("text/html"), Some("image/svg+xml"), Some("application/pdf")] {
            assert_eq!(named(name, false), Err(Why::NoImage), "{name:?}");
        }
        assert_eq!(named(Some("application/pdf"), true), Ok("application/pdf"));
        assert_eq!(named(Some("image/png"), true), Err(Why::NoDocument));
        assert_eq!(check("application/pdf", b"%PDF-1.7"), Ok(()));
        assert_eq!(check("application/pdf", b"\x89PNG\r\n\x1a\n"), Err(Why::NoDocument));
    }
}
