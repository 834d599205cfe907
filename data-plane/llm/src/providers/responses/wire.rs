//! Answers and events as upstreams write them. Nothing in here is insisted on: what has another type than it should is
//! taken for absent, since whole services are built after the documentation alone.

use std::{borrow::Cow, fmt};

use nemo_types::Usage;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    Dialect, ServiceTier, UpstreamErrorInfo,
    ir::{Citation, Finish, Text},
};

/// A string; anything else is as good as none.
#[derive(Clone, Debug, Default)]
pub(super) struct Str<'a>(Option<Cow<'a, str>>);

impl<'a> Str<'a> {
    pub(super) fn text(self) -> Text<'a> {
        self.0.unwrap_or_default()
    }

    pub(super) fn some(self) -> Option<Text<'a>> {
        self.0
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Str<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Str<'de>, E> {
                Ok(Str(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Str<'de>, E> {
                Ok(Str(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E>(self) -> Result<Str<'de>, E> {
                Ok(Str(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Str<'de>, E> {
                Ok(Str(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Str<'de>, E> {
                Ok(Str(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Str<'de>, E> {
                Ok(Str(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Str<'de>, E> {
                Ok(Str(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Str<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Str(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Str<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Str(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A value that is read if it is what it should be.
pub(super) fn lenient<'a, T: Deserialize<'a>>(json: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(json?.get()).ok()
}

/// The elements of an array.
pub(super) fn list(json: Option<&RawValue>) -> Vec<&RawValue> {
    lenient(json).unwrap_or_default()
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) object: Str<'a>,
    #[serde(borrow)]
    pub(super) id: Str<'a>,
    #[serde(borrow)]
    pub(super) model: Str<'a>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) status: Str<'a>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) output: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Str<'a>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

impl Answer<'_> {
    pub(super) fn created(&self) -> Option<u64> {
        let digits = |text: &str| text.split('.').next().and_then(|whole| whole.parse().ok());
        self.created_at.and_then(|number| digits(number.get()))
    }

    pub(super) fn tier(&self) -> ServiceTier {
        ServiceTier::new(self.service_tier.as_str().as_bytes())
    }

    /// Why it ended; `called`: there is a call among its items.
    pub(super) fn finish(&self, called: bool) -> Finish<'static> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Details<'a> {
            #[serde(borrow)]
            reason: Str<'a>,
        }
        match self.status.as_str() {
            "incomplete" => {
                let details: Details<'_> = lenient(self.incomplete_details).unwrap_or_default();
                match details.reason.as_str() {
                    "max_output_tokens" | "max_tokens" | "" => Finish::Length,
                    "content_filter" => Finish::ContentFilter,
                    other => Finish::Other(Cow::Owned(other.to_owned())),
                }
            }
            "failed" | "cancelled" => Finish::Error,
            _ if called => Finish::ToolCalls,
            _ => Finish::Stop,
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Counts<'a> {
            #[serde(borrow)]
            input_tokens: Option<&'a RawValue>,
            #[serde(borrow)]
            input_tokens_details: Option<&'a RawValue>,
            #[serde(borrow)]
            output_tokens: Option<&'a RawValue>,
            #[serde(borrow)]
            output_tokens_details: Option<&'a RawValue>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Details<'a> {
            #[serde(borrow)]
            cached_tokens: Option<&'a RawValue>,
            #[serde(borrow)]
            cache_write_tokens: Option<&'a RawValue>,
            #[serde(borrow)]
            reasoning_tokens: Option<&'a RawValue>,
        }
        let counts: Counts<'_> = lenient(self.usage)?;
        let input: Details<'_> = lenient(counts.input_tokens_details).unwrap_or_default();
        let output: Details<'_> = lenient(counts.output_tokens_details).unwrap_or_default();
        Some(Usage {
            input: lenient(counts.input_tokens),
            output: lenient(counts.output_tokens),
            cache_read: lenient(input.cached_tokens),
            cache_write: lenient(input.cache_write_tokens),
            reasoning: lenient(output.reasoning_tokens),
            ..Usage::default()
        })
        .filter(|usage| !usage.is_unknown())
    }

    /// What an answer says that has failed.
    pub(super) fn failure(&self) -> UpstreamErrorInfo {
        failure(self.error)
    }
}

/// OpenAI says what went wrong in a code only, here.
pub(super) fn failure(error: Option<&RawValue>) -> UpstreamErrorInfo {
    let mut info = error.map(|error| crate::decode_error(error.get().as_bytes())).unwrap_or_default();
    if info.kind.as_deref().is_none_or(|kind| kind == "error") {
        info.kind = Some(match info.code.as_deref() {
            Some("rate_limit_exceeded") => "rate_limit_error".to_owned(),
            Some("server_error" | "vector_store_timeout") | None => "server_error".to_owned(),
            Some(_) => "invalid_request_error".to_owned(),
        });
    }
    if info.message.is_none() {
        info.message = Some("The upstream says that the answer has failed.".to_owned());
    }
    info
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Str<'a>,
    #[serde(borrow)]
    pub(super) id: Str<'a>,
    #[serde(borrow)]
    pub(super) call_id: Str<'a>,
    #[serde(borrow)]
    pub(super) name: Str<'a>,
    #[serde(borrow)]
    pub(super) arguments: Str<'a>,
    #[serde(borrow)]
    pub(super) input: Str<'a>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) summary: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) encrypted_content: Str<'a>,
    /// Base64 of a picture.
    #[serde(borrow)]
    pub(super) result: Str<'a>,
    #[serde(borrow)]
    pub(super) output_format: Str<'a>,
}

impl<'a> Item<'a> {
    /// The id that its output goes by; services that are not OpenAI leave it out.
    pub(super) fn call_id(&mut self) -> Text<'a> {
        let call_id = std::mem::take(&mut self.call_id).text();
        if call_id.is_empty() { std::mem::take(&mut self.id).text() } else { call_id }
    }

    /// Thoughts that can be read: the summary, or else the thoughts themselves.
    pub(super) fn thoughts(&self) -> Text<'a> {
        let summary = thoughts(self.summary);
        if summary.is_empty() { thoughts(self.content) } else { summary }
    }

    pub(super) fn image_type(&self) -> &'static str {
        match self.output_format.as_str() {
            "jpeg" | "jpg" => "image/jpeg",
            "webp" => "image/webp",
            "gif" => "image/gif",
            _ => "image/png",
        }
    }
}

fn thoughts(parts: Option<&RawValue>) -> Text<'_> {
    let mut all = Text::Borrowed("");
    for part in list(parts) {
        let text = lenient::<Part<'_>>(Some(part)).unwrap_or_default().text.text();
        if all.is_empty() {
            all = text;
        } else {
            all.to_mut().push_str("\n\n");
            all.to_mut().push_str(&text);
        }
    }
    all
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Str<'a>,
    #[serde(borrow)]
    pub(super) text: Str<'a>,
    #[serde(borrow)]
    pub(super) refusal: Str<'a>,
    #[serde(borrow)]
    pub(super) annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
}

/// A citation, its own form with it.
pub(super) fn citation(json: &RawValue) -> Citation<'_> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Annotation<'a> {
        #[serde(borrow)]
        url: Str<'a>,
        #[serde(borrow)]
        title: Str<'a>,
        #[serde(borrow)]
        filename: Str<'a>,
        #[serde(borrow)]
        start_index: Option<&'a RawValue>,
        #[serde(borrow)]
        end_index: Option<&'a RawValue>,
    }
    let annotation: Annotation<'_> = lenient(Some(json)).unwrap_or_default();
    let span = lenient(annotation.start_index).zip(lenient(annotation.end_index));
    Citation {
        url: annotation.url.some(),
        title: annotation.title.some().or(annotation.filename.some()),
        quote: None,
        document: None,
        span,
        native: Some((Dialect::Responses, Cow::Borrowed(json))),
    }
}
