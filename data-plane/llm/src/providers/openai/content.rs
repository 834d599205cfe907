//! What the content of a message is made of, as it stands in requests, and how it gets into the hub. Called by
//! [`super::request`].

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::{
    CodecError,
    ir::{CacheMark, Content, Document, Media, Part, Source, Text},
    providers::{
        data_url,
        read::{Str, text},
    },
};

/// Text, or a list of parts.
#[derive(Debug)]
pub(super) enum ContentIn<'a> {
    Text(Str<'a>),
    Parts(Vec<PartIn<'a>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for ContentIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ContentIn<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of parts")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<ContentIn<'de>, E> {
                Ok(ContentIn::Text(Str(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ContentIn<'de>, E> {
                Ok(ContentIn::Text(Str(Cow::Owned(text.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ContentIn<'de>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(ContentIn::Parts)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct PartIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    refusal: Option<Str<'a>>,
    #[serde(borrow)]
    image_url: Option<UrlIn<'a>>,
    #[serde(borrow)]
    video_url: Option<UrlIn<'a>>,
    #[serde(borrow)]
    input_audio: Option<AudioIn<'a>>,
    #[serde(borrow)]
    file: Option<FileIn<'a>>,
    /// Not OpenAI's: clients of several gateways mark prompts as Anthropic has it.
    #[serde(borrow)]
    cache_control: Option<CacheIn<'a>>,
}

/// `{"url": …}`; some clients send the URL alone.
#[derive(Debug)]
struct UrlIn<'a> {
    url: Str<'a>,
    detail: Option<Str<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for UrlIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            url: Str<'a>,
            #[serde(borrow)]
            detail: Option<Str<'a>>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = UrlIn<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a `url`")
            }

            fn visit_borrowed_str<E: de::Error>(self, url: &'de str) -> Result<UrlIn<'de>, E> {
                Ok(UrlIn { url: Str(Cow::Borrowed(url)), detail: None })
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<UrlIn<'de>, E> {
                Ok(UrlIn { url: Str(Cow::Owned(url.to_owned())), detail: None })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<UrlIn<'de>, A::Error> {
                let Object { url, detail } = Object::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(UrlIn { url, detail })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
struct AudioIn<'a> {
    #[serde(borrow)]
    data: Str<'a>,
    #[serde(borrow)]
    format: Str<'a>,
}

#[derive(Debug, Deserialize)]
struct FileIn<'a> {
    #[serde(borrow)]
    file_data: Option<Str<'a>>,
    #[serde(borrow)]
    file_id: Option<Str<'a>>,
    #[serde(borrow)]
    filename: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CacheIn<'a> {
    #[serde(borrow)]
    ttl: Option<Str<'a>>,
}

impl CacheIn<'_> {
    pub(super) fn mark(&self) -> CacheMark {
        match self.ttl.as_ref().map(|ttl| &*ttl.0) {
            Some("1h") => CacheMark::Hour,
            _ => CacheMark::Default,
        }
    }
}

/// The parts of a message's content. `at`: the path of the content, `messages[2].content`.
pub(super) fn parts<'a>(
    content: ContentIn<'a>,
    at: impl Fn() -> String,
) -> Result<Vec<Part<'a>>, CodecError> {
    match content {
        ContentIn::Text(text) => Ok(vec![Part::text(text.0)]),
        ContentIn::Parts(parts) => {
            let each = parts.into_iter().enumerate();
            each.map(|(index, part)| {
                let at = || format!("{}[{index}]", at());
                let cache = part.cache_control.as_ref().map(CacheIn::mark);
                let content = part.content(at)?;
                Ok(Part { at: u16::try_from(index).unwrap_or(u16::MAX), cache, ..Part::new(content) })
            })
            .collect()
        }
    }
}

impl<'a> PartIn<'a> {
    fn content(self, at: impl Fn() -> String) -> Result<Content<'a>, CodecError> {
        let missing = |name: &str| {
            CodecError::invalid(at(), format!("A part of this type has a member `{name}`, which is missing."))
        };
        match &*self.kind.0 {
            "text" => {
                let text = self.text.ok_or_else(|| missing("text"))?;
                Ok(Content::Text { text: text.0, citations: Vec::new() })
            }
            "refusal" => Ok(Content::Refusal(self.refusal.ok_or_else(|| missing("refusal"))?.0)),
            "image_url" => {
                let image = self.image_url.ok_or_else(|| missing("image_url"))?;
                image.media("image/", || format!("{}.image_url", at())).map(Content::Image)
            }
            "video_url" => {
                let video = self.video_url.ok_or_else(|| missing("video_url"))?;
                video.media("video/", || format!("{}.video_url", at())).map(Content::Video)
            }
            "input_audio" => {
                let audio = self.input_audio.ok_or_else(|| missing("input_audio"))?;
                audio.media(|| format!("{}.input_audio", at())).map(Content::Audio)
            }
            "file" => {
                let file = self.file.ok_or_else(|| missing("file"))?;
                file.content(|| format!("{}.file", at()))
            }
            other => Err(CodecError::invalid(
                format!("{}.type", at()),
                format!(
                    "Unknown type of part {other:?}. Expected one of text, image_url, input_audio, file, refusal, video_url."
                ),
            )),
        }
    }
}

impl<'a> UrlIn<'a> {
    fn media(self, kind: &str, at: impl Fn() -> String) -> Result<Media<'a>, CodecError> {
        let source = data_url::source(self.url.0).map_err(|expected| CodecError::invalid(at(), expected))?;
        if let Source::Base64 { media_type, .. } = &source
            && !media_type.starts_with(kind)
        {
            return Err(CodecError::invalid(at(), format!("Expected {kind}…, this is {media_type}.")));
        }
        Ok(Media { source, detail: text(self.detail) })
    }
}

impl<'a> AudioIn<'a> {
    fn media(self, at: impl Fn() -> String) -> Result<Media<'a>, CodecError> {
        let media_type = audio_type(&self.format.0).ok_or_else(|| {
            let message = format!("Unknown format {:?}. Expected wav, mp3 or the like.", self.format.0);
            CodecError::invalid(format!("{}.format", at()), message)
        })?;
        if !data_url::is_base64(&self.data.0) {
            return Err(CodecError::invalid(format!("{}.data", at()), data_url::BAD_BASE64));
        }
        let source = Source::Base64 { media_type: Cow::Borrowed(media_type), data: self.data.0 };
        Ok(Media { source, detail: None })
    }
}

/// Formats of recordings, and their media types.
const AUDIO: &[(&str, &str)] = &[
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("flac", "audio/flac"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/opus"),
    ("aac", "audio/aac"),
    ("m4a", "audio/mp4"),
    ("aiff", "audio/aiff"),
    ("webm", "audio/webm"),
    ("pcm16", "audio/pcm"),
];

fn audio_type(format: &str) -> Option<&'static str> {
    AUDIO.iter().find(|(known, _)| *known == format).map(|(_, media_type)| *media_type)
}

/// The format of recordings of this media type.
pub(super) fn audio_format(media_type: &str) -> Option<&'static str> {
    let media_type = match media_type.split(';').next().unwrap_or_default() {
        "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "audio/wav",
        "audio/mp3" => "audio/mpeg",
        "audio/x-flac" => "audio/flac",
        "audio/x-m4a" | "audio/m4a" => "audio/mp4",
        other => other,
    };
    AUDIO.iter().find(|(_, known)| *known == media_type).map(|(format, _)| *format)
}

impl<'a> FileIn<'a> {
    fn content(self, at: impl Fn() -> String) -> Result<Content<'a>, CodecError> {
        let name = text(self.filename);
        let source = match (self.file_data, self.file_id) {
            (Some(data), _) => file_source(data.0, name.as_deref())
                .map_err(|expected| CodecError::invalid(format!("{}.file_data", at()), expected))?,
            (None, Some(id)) => Source::File(id.0),
            (None, None) => {
                return Err(CodecError::invalid(at(), "A file has `file_data` or `file_id`."));
            }
        };
        // Some send pictures and recordings as files.
        let media = |source| Media { source, detail: None };
        Ok(match source {
            Source::Base64 { ref media_type, .. } if media_type.starts_with("image/") => {
                Content::Image(media(source))
            }
            Source::Base64 { ref media_type, .. } if media_type.starts_with("audio/") => {
                Content::Audio(media(source))
            }
            Source::Base64 { ref media_type, .. } if media_type.starts_with("video/") => {
                Content::Video(media(source))
            }
            source => Content::Document(Document { source, name, context: None, citations: false }),
        })
    }
}

/// A data URL, a URL, or base64 alone: then it is by its name that one knows what it is.
fn file_source<'a>(data: Text<'a>, name: Option<&str>) -> Result<Source<'a>, &'static str> {
    if data.contains(':') {
        return data_url::source(data);
    }
    if !data_url::is_base64(&data) {
        return Err(data_url::BAD_BASE64);
    }
    let extension = name.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    let media_type = match extension {
        Some("txt") => "text/plain",
        Some("md") => "text/markdown",
        Some("csv") => "text/csv",
        Some("html") => "text/html",
        _ => "application/pdf",
    };
    Ok(Source::Base64 { media_type: Cow::Borrowed(media_type), data })
}
