//! What the gateway knows of a form: the counterpart of the envelope of a JSON body.

use super::{MultipartError, Part, head::Head};
use crate::{Asked, Chain, Endpoint, Extras, Overrides, Said, decimal, extras::ExtraField, meter};

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
    NemoTags,
    NemoStrategy,
    NemoFallbacks,
    NemoNoFallback,
    NemoRetries,
    NemoMaxCost,
    NemoCache,
}

impl FormField {
    const ALL: [Self; 14] = [
        Self::Model,
        Self::Stream,
        Self::N,
        Self::Quality,
        Self::Size,
        Self::NemoMetadata,
        Self::NemoTimeoutMs,
        Self::NemoTags,
        Self::NemoStrategy,
        Self::NemoFallbacks,
        Self::NemoNoFallback,
        Self::NemoRetries,
        Self::NemoMaxCost,
        Self::NemoCache,
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
            Self::NemoTags => "nemo_tags",
            Self::NemoStrategy => "nemo_strategy",
            Self::NemoFallbacks => "nemo_fallbacks",
            Self::NemoNoFallback => "nemo_no_fallback",
            Self::NemoRetries => "nemo_retries",
            Self::NemoMaxCost => "nemo_max_cost",
            Self::NemoCache => "nemo_cache",
        }
    }

    /// The field of a part of this name. Lists are sent as one text with commas, or as `name[]` for each item.
    fn of(name: &str) -> Option<(Self, bool)> {
        let item = name.strip_suffix("[]");
        let field = Self::ALL.into_iter().find(|field| field.name() == item.unwrap_or(name))?;
        (item.is_none() || field.is_list()).then_some((field, item.is_some()))
    }

    fn bit(self) -> u16 {
        1 << self as u8
    }

    fn is_list(self) -> bool {
        matches!(self, Self::NemoTags | Self::NemoFallbacks)
    }
}

/// The most images of one call at OpenAI. So many are reckoned with while `n` may still come.
const MAX_IMAGES: u64 = 10;

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
    pub retries: Option<u64>,
    pub no_fallback: Option<bool>,
    /// Few forms have any.
    pub overrides: Option<Box<Overrides>>,
    seen: u16,
    /// The call goes upstream by what was read so far: nothing can be taken out any more.
    sealed: bool,
    /// No more than [`MAX_IMAGES`] are paid for.
    bounded: bool,
}

impl Form {
    /// What the call is billed by.
    pub fn asked(&self, endpoint: Endpoint) -> Asked {
        let images = self.n.filter(|_| endpoint.is_image());
        Asked { images, quality: self.quality.clone(), size: self.size.clone(), ..Asked::default() }
    }

    /// The same while more of the form may come (`ended` says that it can't): as many images as it can still ask for.
    pub fn most_asked(&self, endpoint: Endpoint, ended: bool) -> Asked {
        let mut asked = self.asked(endpoint);
        // An `n` that is no number here may be one to the upstream.
        let told = ended && self.seen & FormField::N.bit() == 0;
        if asked.images.is_none() && !told && endpoint.is_image() {
            asked.images = Some(MAX_IMAGES);
        }
        asked
    }

    /// What to do with a part of these headers.
    pub(super) fn admit(&mut self, head: &Head) -> Result<Part, MultipartError> {
        let name = head.name.as_str();
        // Arrays of fields are sent as `name[]`.
        let stem = name.split_once('[').map_or(name, |(stem, _)| stem);
        let strip = ExtraField::from_name(stem).is_some();
        let Some((field, is_item)) = FormField::of(name) else {
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
        if self.seen & field.bit() != 0 && !is_item {
            return refused("is given more than once in the form; send it once");
        }
        self.seen |= field.bit();
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
            FormField::N => {
                self.n = text.trim().parse().ok().filter(|n| *n > 0);
                if self.bounded && self.n > Some(MAX_IMAGES) {
                    return refused(&format!("at most {MAX_IMAGES}, or come before the file"));
                }
            }
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
            FormField::NemoRetries => match text.trim().parse() {
                Ok(retries) => self.retries = Some(retries),
                Err(_) => return refused("a non-negative integer"),
            },
            FormField::NemoNoFallback => match boolean(text) {
                Some(value) => self.no_fallback = Some(value),
                None => return refused("a boolean"),
            },
            // There is no cache yet.
            FormField::NemoCache if boolean(text).is_some() => {}
            FormField::NemoCache => return refused("a boolean"),
            FormField::NemoTags
            | FormField::NemoFallbacks
            | FormField::NemoStrategy
            | FormField::NemoMaxCost => {
                let told = self.overrides.get_or_insert_default();
                if let Err(expected) = overridden(told, field, text.trim()) {
                    return refused(expected);
                }
            }
        }
        Ok(())
    }

    /// As those of a JSON body.
    pub fn extras(&self) -> Extras<'_> {
        Extras {
            metadata: self.metadata.as_deref(),
            no_fallback: self.no_fallback,
            timeout_ms: self.timeout_ms,
            retries: self.retries.map(|retries| Said::new(FormField::NemoRetries.name(), retries)),
            overrides: self.overrides.clone(),
        }
    }

    /// From here on nothing can be taken out.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    /// From here on no more images can be asked for than [`Self::most_asked`] has told.
    pub(super) fn bound(&mut self) {
        self.bounded = true;
    }
}

/// As Python and JSON write it.
fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "True" | "1" => Some(true),
        "false" | "False" | "0" => Some(false),
        _ => None,
    }
}

/// # Errors
/// What was expected instead.
fn overridden(told: &mut Overrides, field: FormField, text: &str) -> Result<(), &'static str> {
    let name = field.name();
    match field {
        FormField::NemoTags => {
            let mut tags = told.tags.take().map(|tags| tags.value).unwrap_or_default();
            list(text, &mut tags)?;
            told.tags = Some(Said::new(name, tags));
        }
        FormField::NemoFallbacks => {
            let mut models = told.chain.take().map(|chain| chain.value.into_models()).unwrap_or_default();
            list(text, &mut models)?;
            told.chain = Some(Said::new(name, Chain::Instead(models)));
        }
        FormField::NemoMaxCost => {
            let amount = decimal::nanos(text).ok_or("an amount of USD, for example 0.05")?;
            told.max_cost = Some(Said::new(name, amount));
        }
        _ if text.is_empty() => return Err("the name of a strategy"),
        _ => told.strategy = Some(Said::new(name, text.into())),
    }
    Ok(())
}

fn list(text: &str, into: &mut Vec<Box<str>>) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    for item in text.split(',').map(str::trim) {
        if item.is_empty() || item.len() > Overrides::MAX_NAME || into.len() == Overrides::MAX_LIST {
            return Err("a list of at most 16 names, with one comma between two");
        }
        into.push(item.into());
    }
    Ok(())
}

impl super::FormScanner {
    /// To be called when the call goes upstream: what the gateway would take out now, it could not heed any more, and the
    /// length of the whole form may have been announced.
    pub fn seal(&mut self) {
        self.form.seal();
    }

    /// To be called when images are paid for by [`Form::most_asked`].
    pub fn bound(&mut self) {
        self.form.bound();
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
