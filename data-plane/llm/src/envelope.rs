//! The envelope of a request: the few members that the gateway reads, borrowed from the body, and where it
//! would have to cut. Called by `ingress`, once per request; [`mod@crate::splice`] works from the spans.
//!
//! The whole body must be JSON, and no member that is read may stand in it twice, in whatever spelling: the
//! model that is checked here must be the model that the upstream sees, whichever of two it would take.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::{
    Asked, Chain, Dialect, Endpoint, Extras, Features, Inbound, LimitName, Said,
    extras::ExtraField,
    features::Inlined,
    json::{Cursor, Kind, Member, Members, Value},
    meter,
};

mod fields;
mod google;
mod google_parts;
mod overrides;
mod parts;
mod refusal;
mod values;

use fields::Field;
pub(crate) use google::GoogleConfig;
use google_parts::GoogleParts;
use parts::Parts;
pub use refusal::{EnvelopeError, EnvelopeErrorKind};

/// A range of bytes in a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// What the gateway knows about a request body.
#[derive(Clone, PartialEq, Debug)]
pub struct Envelope<'a> {
    /// As sent, or the first of `models`, or the endpoint's default.
    pub model: Cow<'a, str>,
    /// The value of `model` in the body; empty when there is none, and then where the member would be put.
    pub model_span: Span,
    /// The client named it itself.
    pub(crate) model_sent: bool,
    pub stream: bool,
    /// The client wants a usage chunk: `stream_options.include_usage`, or OpenRouter's `usage.include`.
    pub include_usage: bool,
    /// `max_tokens` or `max_completion_tokens`, of both the smaller, which alone is sent; or `max_output_tokens`. `None` also
    /// for `-1`, which local servers read as "no limit".
    pub max_output: Option<u64>,
    pub n: Option<u64>,
    /// Answers that are made: `n`, or `best_of` if that is more, of each prompt. At least 1.
    pub choices: u64,
    /// Images among the parts of messages.
    pub images: u64,
    /// What the call is billed by, where that is not text alone.
    pub asked: Option<Box<Asked>>,
    /// What a model must be capable of.
    pub features: Features,
    pub inlined: Inlined,
    pub extras: Extras<'a>,
    pub(crate) stream_options: StreamOptions,
    pub(crate) limits: OutputLimits,
    /// Members that may have to go, in the order of the body.
    pub(crate) removable: SmallVec<[RemovableMember; 4]>,
}

/// The limits of the output that the client sent: where the value stands, and how many tokens it allows. `None`: null, or
/// `-1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct OutputLimits {
    /// `max_tokens`, or `max_output_tokens` of the Responses API.
    pub(crate) max_tokens: Option<(Span, Option<u64>)>,
    pub(crate) max_completion_tokens: Option<(Span, Option<u64>)>,
    /// Where Google's clients tell theirs.
    pub(crate) google: GoogleConfig,
}

/// `stream_options` as the client sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamOptions {
    Absent,
    Null(Span),
    /// An object without `include_usage`; `inside` is the position behind its opening brace.
    WithoutFlag {
        inside: usize,
        empty: bool,
    },
    /// The value of `include_usage`.
    Flag {
        asked: bool,
        span: Span,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Removable {
    Extra(ExtraField),
    StreamOptions,
    /// A limit of the output, of which an upstream reads another one.
    Limit(LimitName),
}

/// A member with what is needed to take it out and leave valid JSON behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RemovableMember {
    pub(crate) what: Removable,
    /// How many members stand before this one.
    pub(crate) index: usize,
    /// From the opening quote of the name to the end of the value.
    pub(crate) span: Span,
    /// Where the value of the member before ends; for the first member, where this one starts.
    pub(crate) previous_end: usize,
    /// Where the member after starts; for the last member, where this one ends.
    pub(crate) next_start: usize,
}

/// Most members of one body that may have to be removed.
pub const MAX_REMOVABLE: usize = 64;

/// Reads the envelope of `body`.
///
/// # Errors
/// When the body is no JSON object, or a field that is read is missing, repeated, or of the wrong type.
pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    parse_call(endpoint, body, Inbound::default())
}

/// The same where a part of the request stands in its path.
///
/// # Errors
/// As [`parse`].
pub fn parse_call<'a>(
    endpoint: Endpoint,
    body: &'a [u8],
    inbound: Inbound<'a>,
) -> Result<Envelope<'a>, EnvelopeError> {
    let text = simdutf8::basic::from_utf8(body).map_err(|_| not_utf8(body))?;
    let json_error = |error| EnvelopeError::json(body, error);
    let Some(mut members) = Members::open(body, 0) else {
        return Err(not_an_object(body));
    };
    let mut reader = Reader::new(endpoint, text, members.end());
    if !inbound.model.is_empty() {
        (reader.model, reader.envelope.stream) = (Some(Cow::Borrowed(inbound.model)), inbound.stream);
    }
    while let Some(name) = members.name().map_err(json_error)? {
        let field = reader.field(&name)?;
        let value = match field {
            Some(Field::Content) if endpoint.is_named_in_path() => {
                let mut parts = GoogleParts::default();
                let value = members.value_observed(&mut parts).map_err(json_error)?;
                let (found, inlined, images) = parts.finish();
                reader.envelope.features.insert(found);
                (reader.envelope.inlined, reader.envelope.images) = (inlined, images);
                value
            }
            Some(Field::Content) if reader.has_parts() => {
                let mut parts = Parts::default();
                let value = members.value_observed(&mut parts).map_err(json_error)?;
                let (found, inlined, images) = parts.finish();
                reader.envelope.features.insert(found);
                (reader.envelope.inlined, reader.envelope.images) = (inlined, images);
                value
            }
            _ => members.value().map_err(json_error)?,
        };
        reader.member(field, &Member { name, value })?;
    }
    Cursor::new(body, members.end()).end_of_document().map_err(json_error)?;
    reader.finish()
}

/// The vectorised check does not say where: look again.
fn not_utf8(body: &[u8]) -> EnvelopeError {
    let valid = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
    EnvelopeError {
        kind: EnvelopeErrorKind::InvalidUtf8,
        param: None,
        message: format!("The request body is not valid UTF-8 (byte {valid})."),
    }
}

fn not_an_object(body: &[u8]) -> EnvelopeError {
    let mut cursor = Cursor::new(body, 0);
    let value = cursor.value(0).and_then(|value| cursor.end_of_document().map(|()| value));
    match value {
        Err(error) => EnvelopeError::json(body, error),
        Ok(value) => EnvelopeError {
            kind: EnvelopeErrorKind::NotAnObject,
            param: None,
            message: format!("The request body must be a JSON object, but {} was given.", value.kind.name()),
        },
    }
}

/// Takes the members of a body one by one.
struct Reader<'a> {
    endpoint: Endpoint,
    text: &'a str,
    /// One bit per field that was seen.
    seen: u32,
    /// Members so far, and where the last one ended.
    count: usize,
    previous_end: usize,
    /// The last member of `removable` still has to learn where its successor starts.
    open: bool,
    model: Option<Cow<'a, str>>,
    has_content: bool,
    best_of: Option<u64>,
    /// Of legacy completions, which take several.
    prompts: u64,
    usage_include: bool,
    /// Aliases of `nemo_no_fallback`, which win over it in no case.
    no_fallback_alias: Option<bool>,
    /// OpenRouter's chain and LiteLLM's, which give way to `nemo_fallbacks`.
    models_alias: Option<Vec<Box<str>>>,
    fallbacks_alias: Option<Vec<Box<str>>>,
    envelope: Envelope<'a>,
}

impl<'a> Reader<'a> {
    /// `inside` is the position behind the opening brace.
    fn new(endpoint: Endpoint, text: &'a str, inside: usize) -> Self {
        let envelope = Envelope {
            model: Cow::Borrowed(""),
            model_span: Span { start: inside, end: inside },
            model_sent: false,
            stream: false,
            include_usage: false,
            max_output: None,
            n: None,
            choices: 1,
            images: 0,
            asked: (!endpoint.is_text()).then(Box::default),
            features: Features::default(),
            inlined: Inlined::default(),
            extras: Extras::default(),
            stream_options: StreamOptions::Absent,
            limits: OutputLimits::default(),
            removable: SmallVec::new(),
        };
        Self {
            endpoint,
            text,
            seen: 0,
            count: 0,
            previous_end: 0,
            open: false,
            model: None,
            has_content: false,
            best_of: None,
            prompts: 1,
            usage_include: false,
            no_fallback_alias: None,
            models_alias: None,
            fallbacks_alias: None,
            envelope,
        }
    }

    fn body(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// As [`Value::text`], without looking again whether it is UTF-8: the body is.
    fn words(&self, value: &Value) -> Option<Cow<'a, str>> {
        if value.kind != Kind::String || value.escaped {
            return value.text(self.body());
        }
        self.text.get(value.span.start + 1..value.span.end - 1).map(Cow::Borrowed)
    }

    /// Whether messages may have parts.
    fn has_parts(&self) -> bool {
        self.endpoint.dialect().or(self.endpoint.counts()).is_some_and(|it| it != Dialect::Completions)
    }

    /// Which member the name belongs to, if it is one that matters.
    #[inline]
    fn field(&mut self, name: &Value) -> Result<Option<Field>, EnvelopeError> {
        if std::mem::take(&mut self.open)
            && let Some(last) = self.envelope.removable.last_mut()
        {
            last.next_start = name.span.start;
        }
        // A name with an unpaired surrogate has no text and is none that is read.
        match self.words(name) {
            Some(name) => fields::classify(self.endpoint, &name),
            None => Ok(None),
        }
    }

    #[inline]
    fn member(&mut self, field: Option<Field>, member: &Member) -> Result<(), EnvelopeError> {
        if let Some(field) = field {
            self.note_once(field)?;
            self.read(field, &member.value)?;
            self.note_removable(field, member)?;
        }
        self.count += 1;
        self.previous_end = member.value.span.end;
        Ok(())
    }

    fn note_once(&mut self, field: Field) -> Result<(), EnvelopeError> {
        let Some((bit, name)) = field.unique(self.endpoint) else { return Ok(()) };
        if self.seen & bit != 0 {
            return Err(EnvelopeError::repeated(name));
        }
        self.seen |= bit;
        Ok(())
    }

    fn read(&mut self, field: Field, value: &Value) -> Result<(), EnvelopeError> {
        match field {
            Field::Model => self.model(value)?,
            Field::Content => self.has_content = self.content(value)?,
            Field::Stream => self.envelope.stream = self.boolean("stream", value)?.unwrap_or(false),
            Field::StreamOptions => self.envelope.stream_options = self.stream_options(value)?,
            Field::MaxTokens => {
                self.envelope.limits.max_tokens = Some((value.span, self.token_limit("max_tokens", value)?));
            }
            Field::MaxCompletionTokens => {
                let limit = self.token_limit("max_completion_tokens", value)?;
                self.envelope.limits.max_completion_tokens = Some((value.span, limit));
            }
            Field::MaxOutputTokens => {
                let limit = self.token_limit("max_output_tokens", value)?;
                self.envelope.limits.max_tokens = Some((value.span, limit));
            }
            Field::N => self.envelope.n = self.positive("n", value)?,
            // Whatever else it is, is the upstream's to refuse.
            Field::BestOf => self.best_of = value.unsigned(self.body()),
            Field::KeptElsewhere if value.kind != Kind::Null => {
                self.envelope.features.insert(Features::UNKNOWN_INPUT);
            }
            Field::WebSearch if value.kind != Kind::Null => {
                self.envelope.features.insert(Features::PROVIDER_TOOLS);
            }
            // Whatever else it is, is the upstream's to refuse.
            Field::Background if value.boolean(self.body()) == Some(true) => {
                self.envelope.features.insert(Features::BACKGROUND);
            }
            Field::KeptElsewhere | Field::WebSearch | Field::Background => {}
            Field::Quality | Field::Size => {
                // Anything else than text is the upstream's to refuse.
                let text = value.text(self.body()).map(|text| meter::kept(&text));
                if let (Some(text), Some(asked)) = (text, &mut self.envelope.asked) {
                    *if field == Field::Size { &mut asked.size } else { &mut asked.quality } = text;
                }
            }
            Field::NemoMetadata => self.envelope.extras.metadata = self.metadata(value)?,
            Field::NemoNoFallback => {
                self.envelope.extras.no_fallback = self.boolean("nemo_no_fallback", value)?
            }
            Field::NemoTimeoutMs => {
                self.envelope.extras.timeout_ms = self.positive("nemo_timeout_ms", value)?
            }
            Field::Tools | Field::Functions => self.envelope.features.insert(self.tools(value)),
            Field::AnswerFormat => self.envelope.features.insert(self.answer_format(value)),
            Field::Modalities => self.envelope.features.insert(self.modalities(value)),
            Field::GenerationConfig => self.generation_config(value)?,
            other => self.override_of(other, value)?,
        }
        Ok(())
    }

    /// Members that few requests have.
    #[cold]
    fn override_of(&mut self, field: Field, value: &Value) -> Result<(), EnvelopeError> {
        let name = field.unique(self.endpoint).map_or("", |(_, name)| name);
        match field {
            Field::NemoTags => {
                self.overrides().tags = self.names(name, value)?.map(|tags| Said::new(name, tags));
            }
            Field::NemoStrategy => {
                self.overrides().strategy = self.name(name, value)?.map(|it| Said::new(name, it));
            }
            Field::NemoFallbacks => {
                let chain = self.models(name, value)?.map(|models| Said::new(name, Chain::Instead(models)));
                self.overrides().chain = chain;
            }
            Field::NemoRetries => {
                let retries = self.count(name, value)?.map(|it| Said::new(name, it));
                self.envelope.extras.retries = retries.or(self.envelope.extras.retries);
            }
            Field::NemoMaxCost => {
                self.overrides().max_cost = self.usd(name, value)?.map(|it| Said::new(name, it));
            }
            // There is no cache yet.
            Field::NemoCache => _ = self.boolean(name, value)?,
            Field::Extra(extra) => self.alias(extra, name, value)?,
            _ => {}
        }
        Ok(())
    }

    /// Extras of other gateways; where ours says the same, ours wins.
    fn alias(&mut self, extra: ExtraField, name: &'static str, value: &Value) -> Result<(), EnvelopeError> {
        match extra {
            ExtraField::Usage => self.usage_include = self.flag_inside(value, "include")? == Some(true),
            ExtraField::DisableFallbacks => {
                self.no_fallback_alias = self.boolean(name, value)?.or(self.no_fallback_alias);
            }
            ExtraField::Provider => {
                let Some(told) = self.preferences(value)? else { return Ok(()) };
                let alias = told.allow_fallbacks.map(|allowed| !allowed);
                self.no_fallback_alias = self.no_fallback_alias.or(alias);
                self.overrides().preferences = Some(told);
            }
            ExtraField::Models => self.models_alias = self.names(name, value)?,
            ExtraField::Fallbacks => self.fallbacks_alias = self.models(name, value)?,
            ExtraField::NumRetries => {
                let retries = self.count(name, value)?.map(|it| Said::new(name, it));
                self.envelope.extras.retries = self.envelope.extras.retries.or(retries);
            }
            ExtraField::Routing => {
                let sort = self.sort(name, value, &["auto"])?;
                if value.kind != Kind::Null {
                    self.overrides().routing = Some(Said::new(name, sort));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_removable(&mut self, field: Field, member: &Member) -> Result<(), EnvelopeError> {
        let what = match field {
            Field::Extra(extra) => Removable::Extra(extra),
            field if field.is_nemo() => Removable::Extra(ExtraField::Nemo),
            Field::StreamOptions => Removable::StreamOptions,
            Field::MaxTokens if self.endpoint.has_choices() => Removable::Limit(LimitName::MaxTokens),
            Field::MaxCompletionTokens => Removable::Limit(LimitName::MaxCompletionTokens),
            _ => return Ok(()),
        };
        if self.envelope.removable.len() == MAX_REMOVABLE {
            return Err(EnvelopeError {
                kind: EnvelopeErrorKind::TooManyExtras,
                param: None,
                message: format!(
                    "The request body has more than {MAX_REMOVABLE} gateway fields (`nemo_…` and the like)."
                ),
            });
        }
        let span = Span { start: member.name.span.start, end: member.value.span.end };
        let previous_end = if self.count == 0 { span.start } else { self.previous_end };
        self.envelope.removable.push(RemovableMember {
            what,
            index: self.count,
            span,
            previous_end,
            next_start: span.end,
        });
        self.open = true;
        Ok(())
    }

    fn finish(mut self) -> Result<Envelope<'a>, EnvelopeError> {
        if self.models_alias.is_some() || self.fallbacks_alias.is_some() {
            self.chain_of_aliases();
        }
        let missing = |name: &'static str, expected: &str| {
            let message = format!("Missing required field `{name}`: expected {expected}.");
            EnvelopeError::field(EnvelopeErrorKind::MissingField, name, message)
        };
        let (content, content_type) = fields::content(self.endpoint);
        let envelope = &mut self.envelope;
        envelope.model = self
            .model
            .take()
            .or_else(|| self.endpoint.default_model().map(Cow::Borrowed))
            .ok_or_else(|| missing("model", "a string with the name of a model"))?;
        if !self.has_content && fields::needs_content(self.endpoint) {
            return Err(missing(content, content_type));
        }
        let asked = matches!(envelope.stream_options, StreamOptions::Flag { asked: true, .. });
        envelope.include_usage = asked || self.usage_include;
        if let Some(asked) = &mut envelope.asked {
            asked.images = envelope.n.filter(|_| self.endpoint.is_image());
        }
        let limits = [envelope.limits.max_tokens, envelope.limits.max_completion_tokens];
        envelope.max_output = limits.into_iter().flatten().filter_map(|(_, limit)| limit).min();
        let each = envelope.n.unwrap_or(1).max(self.best_of.unwrap_or(1));
        let counts = self.endpoint.has_choices() || self.endpoint == Endpoint::GenerateContent;
        envelope.choices = if counts { each.saturating_mul(self.prompts) } else { 1 };
        envelope.extras.no_fallback = envelope.extras.no_fallback.or(self.no_fallback_alias);
        Ok(self.envelope)
    }

    /// OpenRouter's `models` go on behind `model`, or begin the chain when there is none: what is then put into the
    /// body as `model` stands before the content.
    #[cold]
    fn chain_of_aliases(&mut self) {
        let mut models = self.models_alias.take().unwrap_or_default();
        if self.model.is_none() && self.has_content && !models.is_empty() {
            self.model = Some(Cow::Owned(models.remove(0).into()));
        }
        // OpenRouter's clients may name the model itself once more.
        if models.first().is_some_and(|first| self.model.as_deref() == Some(&**first)) {
            models.remove(0);
        }
        let models = Some(models).filter(|models| !models.is_empty());
        let models = models.map(|models| Said::new("models", Chain::After(models)));
        let fallbacks = self.fallbacks_alias.take().map(|it| Said::new("fallbacks", Chain::Instead(it)));
        let chain = &mut self.overrides().chain;
        *chain = chain.take().or(models).or(fallbacks);
    }

    fn model(&mut self, value: &Value) -> Result<(), EnvelopeError> {
        // Null is as good as absent where absent is good: then it gives way to the default.
        if value.kind != Kind::Null || self.endpoint.default_model().is_none() {
            self.model = Some(self.model_name(value)?);
            self.envelope.model_sent = true;
        }
        self.envelope.model_span = value.span;
        Ok(())
    }

    fn model_name(&self, value: &Value) -> Result<Cow<'a, str>, EnvelopeError> {
        if value.kind != Kind::String {
            return Err(EnvelopeError::wrong_type("model", "a string with the name of a model", value));
        }
        let text = self.words(value);
        text.filter(|text| !text.trim().is_empty())
            .ok_or_else(|| EnvelopeError::invalid("model", "a non-empty string with the name of a model"))
    }

    /// Whether the endpoint's main field is there; null counts as absent.
    fn content(&mut self, value: &Value) -> Result<bool, EnvelopeError> {
        let (name, expected) = fields::content(self.endpoint);
        let (arrays, strings) = match self.endpoint {
            Endpoint::ChatCompletions
            | Endpoint::Rerank
            | Endpoint::Messages
            | Endpoint::CountTokens
            | Endpoint::GenerateContent
            | Endpoint::GoogleCountTokens => (true, false),
            Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Responses => {
                (true, true)
            }
            _ => (false, true),
        };
        match value.kind {
            Kind::Null => return Ok(false),
            Kind::Array if arrays => {}
            Kind::String if strings => {}
            _ => return Err(EnvelopeError::wrong_type(name, expected, value)),
        }
        self.measure(value);
        if self.endpoint == Endpoint::Completions && value.kind == Kind::Array {
            let mut prompts = 0;
            let is_prompt = |item: &Value| matches!(item.kind, Kind::String | Kind::Array);
            crate::usage_scan::text::for_each_object(self.body(), value, |item| {
                prompts += u64::from(is_prompt(item));
            });
            self.prompts = prompts.max(1);
        }
        Ok(true)
    }

    /// Counts what the endpoint is billed by.
    fn measure(&mut self, value: &Value) {
        let body = self.text.as_bytes();
        let Some(asked) = &mut self.envelope.asked else { return };
        match self.endpoint {
            Endpoint::Speech => {
                asked.characters = value.text(body).map(|text| text.chars().count() as u64);
            }
            Endpoint::Rerank => {
                let mut documents = 0;
                crate::usage_scan::text::for_each_object(body, value, |_| documents += 1);
                asked.documents = Some(documents);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
