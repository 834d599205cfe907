//! The parts of messages and of tools' outputs.

use crate::{
    Dialect,
    codec::CodecError,
    ir::{CacheMark, Content, Document, Media, Part, Source, Text},
    providers::{
        data_url,
        read::node::{Node, Path},
    },
};

/// A string, or an array of parts.
///
/// # Errors
/// What is wrong with which part.
pub(super) fn decode<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Vec<Part<'a>>, CodecError> {
    if node.is_string() {
        return Ok(vec![Part::text(node.text(path)?)]);
    }
    if !node.is_array() {
        return Err(path.must_be("a string or an array of parts"));
    }
    let mut parts = Vec::new();
    node.elements(path, |index, node| {
        let path = path.index(index);
        let fields = Fields::read(node, &path)?;
        let cache = fields.cache;
        let content = fields.content(node, &path)?;
        let at = u16::try_from(index).unwrap_or(u16::MAX);
        parts.push(Part { at, cache, ..Part::new(content) });
        Ok(())
    })?;
    Ok(parts)
}

/// What stands in parts of all types.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<Text<'a>>,
    text: Option<Text<'a>>,
    refusal: Option<Text<'a>>,
    image_url: Option<Text<'a>>,
    detail: Option<Text<'a>>,
    file_id: Option<Text<'a>>,
    file_url: Option<Text<'a>>,
    file_data: Option<Text<'a>>,
    filename: Option<Text<'a>>,
    audio: Option<Node<'a>>,
    cache: Option<CacheMark>,
}

impl<'a> Fields<'a> {
    fn read(node: Node<'a>, path: &Path<'_>) -> Result<Self, CodecError> {
        let mut fields = Self::default();
        node.members(path, |name, value| {
            let path = path.key(&name);
            let field = match name.as_ref() {
                "type" => &mut fields.kind,
                "text" => &mut fields.text,
                "refusal" => &mut fields.refusal,
                "image_url" => &mut fields.image_url,
                "detail" => &mut fields.detail,
                "file_id" => &mut fields.file_id,
                "file_url" => &mut fields.file_url,
                "file_data" => &mut fields.file_data,
                "filename" => &mut fields.filename,
                "input_audio" => {
                    fields.audio = Some(value);
                    return Ok(());
                }
                "prompt_cache_breakpoint" | "cache_control" => {
                    fields.cache = Some(cache_mark(value, &path)?);
                    return Ok(());
                }
                _ => return Ok(()),
            };
            *field = Some(value.text(&path)?);
            Ok(())
        })?;
        Ok(fields)
    }

    fn content(self, node: Node<'a>, path: &Path<'_>) -> Result<Content<'a>, CodecError> {
        let kind = self.kind.as_deref().ok_or_else(|| path.key("type").required("the type of the part"))?;
        match kind {
            "input_text" | "output_text" | "text" | "summary_text" => {
                let text = self.text.ok_or_else(|| path.key("text").required("a string"))?;
                Ok(Content::Text { text, citations: Vec::new() })
            }
            "refusal" => {
                Ok(Content::Refusal(self.refusal.ok_or_else(|| path.key("refusal").required("a string"))?))
            }
            "input_image" => self.image(path),
            "input_file" => self.file(path),
            "input_audio" => {
                let path = path.key("input_audio");
                audio(self.audio.ok_or_else(|| path.required("an object with data and format"))?, &path)
            }
            // A picture of a screen, for a tool of the provider.
            "computer_screenshot" => {
                Ok(Content::Opaque { dialect: Dialect::Responses, value: node.json(path)? })
            }
            _ => {
                let path = path.key("type");
                Err(path.must_be(
                    "one of input_text, output_text, refusal, input_image, input_file and input_audio",
                ))
            }
        }
    }

    fn image(self, path: &Path<'_>) -> Result<Content<'a>, CodecError> {
        let source = match (self.image_url, self.file_id) {
            (Some(url), _) => {
                let path = path.key("image_url");
                data_url::source(url).map_err(|expected| path.wrong(expected))?
            }
            (None, Some(id)) => Source::File(id),
            (None, None) => {
                return Err(path.key("image_url").required("a URL or a data URL, or else `file_id`"));
            }
        };
        Ok(Content::Image(Media { source, detail: self.detail }))
    }

    fn file(self, path: &Path<'_>) -> Result<Content<'a>, CodecError> {
        let name = self.filename;
        let source = match (self.file_data, self.file_url, self.file_id) {
            (Some(data), _, _) => {
                let path = path.key("file_data");
                file_data(data, name.as_deref()).map_err(|expected| path.wrong(expected))?
            }
            (None, Some(url), _) => {
                let path = path.key("file_url");
                match data_url::source(url) {
                    Ok(Source::Url(url)) => Source::Url(url),
                    _ => return Err(path.must_be("an https URL")),
                }
            }
            (None, None, Some(id)) => Source::File(id),
            (None, None, None) => {
                return Err(path.key("file_data").required("a data URL, or else `file_url` or `file_id`"));
            }
        };
        Ok(Content::Document(Document { source, name, context: None, citations: false }))
    }
}

/// A data URL; some clients send the base64 alone, and let the name say what it is.
fn file_data<'a>(data: Text<'a>, name: Option<&str>) -> Result<Source<'a>, &'static str> {
    if data_url::is_data(&data) {
        return data_url::source(data);
    }
    if !data_url::is_base64(&data) {
        return Err("Expected a data URL (`data:application/pdf;base64,…`), or base64 with padding.");
    }
    let ending = name.and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
    let media_type = match ending.as_deref() {
        Some("txt" | "text" | "log") => "text/plain",
        Some("md") => "text/markdown",
        Some("html" | "htm") => "text/html",
        Some("csv") => "text/csv",
        Some("json") => "application/json",
        _ => "application/pdf",
    };
    Ok(Source::Base64 { media_type: media_type.into(), data })
}

fn audio<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Content<'a>, CodecError> {
    let (mut data, mut format) = (None, None);
    node.members(path, |name, value| {
        let path = path.key(&name);
        match name.as_ref() {
            "data" => data = Some(value.text(&path)?),
            "format" => format = Some(value.text(&path)?),
            _ => {}
        }
        Ok(())
    })?;
    let data = data.ok_or_else(|| path.key("data").required("base64"))?;
    if !data_url::is_base64(&data) {
        return Err(path.key("data").wrong(data_url::BAD_BASE64));
    }
    let media_type = match format.as_deref() {
        Some("mp3") => "audio/mpeg",
        Some("wav") => "audio/wav",
        _ => return Err(path.key("format").must_be("one of mp3 and wav")),
    };
    Ok(Content::Audio(Media { source: Source::Base64 { media_type: media_type.into(), data }, detail: None }))
}

/// OpenAI's own mark, or the one that is usual with clients of other gateways.
fn cache_mark(node: Node<'_>, path: &Path<'_>) -> Result<CacheMark, CodecError> {
    let mut mark = CacheMark::Default;
    node.members(path, |name, value| {
        if name == "ttl" && value.text(&path.key("ttl"))? != "5m" {
            mark = CacheMark::Hour;
        }
        Ok(())
    })?;
    Ok(mark)
}
