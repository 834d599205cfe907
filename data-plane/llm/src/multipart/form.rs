//! What the gateway knows of a form: the counterpart of the envelope of a JSON body.

use super::{MultipartError, Part, head::Head};
use crate::{Asked, Endpoint, Extras, extras::ExtraField, meter};

/// The fields that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormField {
    Model,
    Stream,
    N,
    Quality,
    Size,
    NemoMetadata,
    NemoTimeoutMs,
}

impl FormField {
    const ALL: [Self; 7] = [
        Self::Model,
        Self::Stream,
        Self::N,
        Self::Quality,
        Self::Size,
        Self::NemoMetadata,
        Self::NemoTimeoutMs,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::N => "n",
            Self::Quality => "quality",
            Self::Size => "size",
            Self::NemoMetadata => "nemo_metadata",
            Self::NemoTimeoutMs => "nemo_timeout_ms",
        }
    }
}

/// The fields of a form that were read so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Form {
    pub model: Option<String>,
    pub stream: bool,
    pub n: Option<u64>,
    pub quality: Box<str>,
    pub size: Box<str>,
    /// The text of a JSON object, at most [`Extras::MAX_METADATA`] bytes.
    pub metadata: Option<String>,
    pub timeout_ms: Option<u64>,
    seen: u8,
    /// The length is announced and a file has begun: nothing can be taken out any more.
    sealed: bool,
}

impl Form {
    /// What the call is billed by.
    pub fn asked(&self, endpoint: Endpoint) -> Asked {
        let images = self.n.filter(|_| endpoint.is_image());
        Asked { images, quality: self.quality.clone(), size: self.size.clone(), ..Asked::default() }
    }

    /// What to do with a part of these headers.
    pub(super) fn admit(&mut self, head: &Head) -> Result<Part, MultipartError> {
        let name = head.name.as_str();
        // Arrays of fields are sent as `name[]`.
        let stem = name.split_once('[').map_or(name, |(stem, _)| stem);
        let field = FormField::ALL.into_iter().find(|field| field.name() == name);
        let strip = ExtraField::from_name(stem).is_some();
        let Some(field) = field else {
            similar(name)?;
            if strip && self.sealed {
                return Err(MultipartError::new(format!(
                    "The field `{}` is the gateway's own and must come before the file, or be sent as a header.",
                    meter::kept(name)
                )));
            }
            return Ok(if strip { Part::Strip(None) } else { Part::Pass });
        };
        let refused =
            |what: &str| Err(MultipartError::field(field.name(), format!("`{}` {what}.", field.name())));
        if head.is_file {
            return refused("is sent as a file; send it as a plain field");
        }
        if head.encoded {
            return refused("is sent with a content-transfer-encoding; send it as it is");
        }
        let bit = 1 << field as u8;
        if self.seen & bit != 0 {
            return refused("is given more than once in the form; send it once");
        }
        self.seen |= bit;
        if strip && self.sealed {
            return refused("must come before the file, or be sent as a header");
        }
        Ok(if strip { Part::Strip(Some(field)) } else { Part::Read(field) })
    }

    pub(super) fn read(&mut self, field: FormField, value: &[u8]) -> Result<(), MultipartError> {
        let refused = |expected: &str| {
            Err(MultipartError::field(field.name(), format!("`{}` must be {expected}.", field.name())))
        };
        let Ok(text) = std::str::from_utf8(value) else { return refused("UTF-8 text") };
        match field {
            FormField::Model if text.trim().is_empty() => {
                return refused("a non-empty string with the name of a model");
            }
            FormField::Model => self.model = Some(text.to_owned()),
            // Python's SDK writes JSON's words, others write Python's.
            FormField::Stream => self.stream = matches!(text, "true" | "True" | "1"),
            // What is no number is the upstream's to refuse.
            FormField::N => self.n = text.trim().parse().ok().filter(|n| *n > 0),
            FormField::Quality => self.quality = meter::kept(text),
            FormField::Size => self.size = meter::kept(text),
            FormField::NemoMetadata => {
                let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
                if text.len() > Extras::MAX_METADATA || object.is_err() {
                    return refused("a JSON object of at most 4096 bytes");
                }
                self.metadata = Some(text.to_owned());
            }
            FormField::NemoTimeoutMs => match text.trim().parse() {
                Ok(millis) if millis > 0 => self.timeout_ms = Some(millis),
                _ => return refused("a positive integer"),
            },
        }
        Ok(())
    }

    /// From here on nothing can be taken out: the length of what follows was announced.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }
}

impl super::FormScanner {
    /// To be called when the length of the whole form has been announced to the upstream.
    pub fn seal(&mut self) {
        self.form.seal();
    }
}

/// A name that some parser could take for one that is read: in other letter case, with blanks, escapes or percents.
fn similar(name: &str) -> Result<(), MultipartError> {
    let plain = name.trim().replace('\\', "");
    let meant = FormField::ALL.into_iter().find(|field| plain.eq_ignore_ascii_case(field.name()));
    let escaped = name.contains(['\\', '%']) || !name.is_ascii();
    match meant {
        Some(field) => Err(MultipartError::field(
            field.name(),
            format!(
                "`{name}` is no field of this endpoint; field names are case-sensitive, send `{}`.",
                field.name()
            ),
        )),
        None if escaped => {
            Err(MultipartError::new("The name of a field of the form has escapes or is not ASCII."))
        }
        None => Ok(()),
    }
}
