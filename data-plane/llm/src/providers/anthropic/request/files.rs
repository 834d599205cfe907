//! Images and documents in requests: what Claude reads of them, and the paths of those that it can't. Called by
//! [`super::messages`].

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    super::writer::{self, Object},
    messages::close,
};
use crate::{
    CodecError, Dialect,
    ir::{CacheMark, Content, Document, Media, Part, Source},
};

/// An image, a document, or what is Anthropic's own. `place` is its path in the client's body.
pub(super) fn write_file(
    out: &mut Vec<u8>,
    part: &Part<'_>,
    dialect: Dialect,
    place: &str,
) -> Result<(), CodecError> {
    let refused = |what: &str| {
        let message =
            format!("`{place}` is {what}, which this model can't read: expected text, an image or a PDF.");
        Err(CodecError::unsupported(place, message))
    };
    match &part.content {
        Content::Image(media) => write_image(out, media, part.cache, dialect, place),
        Content::Document(document) => write_document(out, document, part.cache, dialect, place),
        Content::Opaque { dialect: Dialect::Messages, value } => {
            writer::raw(out, value.get());
            Ok(())
        }
        Content::Audio(_) => refused("audio"),
        Content::Video(_) => refused("a video"),
        _ => refused("of another provider"),
    }
}

/// The member of a part that holds the file.
fn file_path(dialect: Dialect, place: &str, image: bool) -> String {
    let member = match (dialect, image) {
        (Dialect::Chat | Dialect::Responses, true) => "image_url",
        (Dialect::Chat, false) => "file",
        (Dialect::Responses, false) => "file_data",
        (Dialect::Messages, _) => "source",
        _ => return place.to_owned(),
    };
    format!("{place}.{member}")
}

fn foreign_file(path: String) -> CodecError {
    let message = format!("`{path}` is a file that another provider keeps: send its content as base64.");
    CodecError::unsupported(path, message)
}

fn write_image(
    out: &mut Vec<u8>,
    media: &Media<'_>,
    cache: Option<CacheMark>,
    dialect: Dialect,
    place: &str,
) -> Result<(), CodecError> {
    let path = || file_path(dialect, place, true);
    match &media.source {
        Source::File(_) if dialect != Dialect::Messages => return Err(foreign_file(path())),
        Source::Base64 { media_type, .. } if image_type(media_type).is_none() => {
            let message = format!(
                "`{}` is of type `{media_type}`: this model reads images of type `image/jpeg`, `image/png`, `image/gif` and `image/webp`.",
                path()
            );
            return Err(CodecError::unsupported(path(), message));
        }
        _ => {}
    }
    let mut object = Object::open(out);
    object.value("type", "image");
    write_media(object.member("source"), &media.source);
    close(object, cache);
    Ok(())
}

fn image_type(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "image/jpeg" | "image/jpg" => "image/jpeg",
        "image/png" => "image/png",
        "image/gif" => "image/gif",
        "image/webp" => "image/webp",
        _ => return None,
    })
}

/// Writes a source as it is.
pub(in super::super) fn write_media(out: &mut Vec<u8>, source: &Source<'_>) {
    let mut object = Object::open(out);
    match source {
        Source::Url(url) => {
            object.value("type", "url");
            object.value("url", url);
        }
        Source::Base64 { media_type, data } => {
            object.value("type", "base64");
            object.value("media_type", image_type(media_type).unwrap_or(media_type));
            object.value("data", data);
        }
        Source::File(id) => {
            object.value("type", "file");
            object.value("file_id", id);
        }
        Source::Text(text) => {
            object.value("type", "text");
            object.value("media_type", "text/plain");
            object.value("data", text);
        }
    }
    object.close();
}

fn write_document(
    out: &mut Vec<u8>,
    document: &Document<'_>,
    cache: Option<CacheMark>,
    dialect: Dialect,
    place: &str,
) -> Result<(), CodecError> {
    let path = || file_path(dialect, place, false);
    let plain;
    let source = match &document.source {
        Source::File(_) if dialect != Dialect::Messages => return Err(foreign_file(path())),
        Source::Base64 { media_type, data } if media_type != "application/pdf" => {
            plain = Source::Text(text_of(media_type, data).ok_or_else(|| {
                let message = format!(
                    "`{}` is of type `{media_type}`: this model reads documents of type `application/pdf` and text.",
                    path()
                );
                CodecError::unsupported(path(), message)
            })?);
            &plain
        }
        source => source,
    };
    let mut object = Object::open(out);
    object.value("type", "document");
    write_media(object.member("source"), source);
    if let Some(name) = &document.name {
        object.value("title", name);
    }
    if let Some(context) = &document.context {
        object.value("context", context);
    }
    if document.citations {
        let mut citations = Object::open(object.member("citations"));
        citations.value("enabled", true);
        citations.close();
    }
    close(object, cache);
    Ok(())
}

/// A file of text, which Claude takes as text.
fn text_of(media_type: &str, data: &str) -> Option<Cow<'static, str>> {
    let is_text =
        media_type.starts_with("text/") || matches!(media_type, "application/json" | "application/xml");
    let bytes = is_text.then(|| STANDARD.decode(data).ok())??;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
