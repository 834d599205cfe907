//! The members that say how a request wants to be routed, ours and those of other gateways (requirements E.6, E.9,
//! E.10, F), and those that tell what it needs of a model. Read by [`super::Reader`]; whatever is not of the form that
//! its meaning needs is refused by name.

use nemo_types::{Nanos, NanosPerMillion};

use super::{EnvelopeError, Reader};
use crate::{
    Endpoint, Features, MaxPrice, Overrides, Preferences, Sort, decimal,
    json::{Cursor, Kind, Members, Value},
};

type Read<T> = Result<Option<T>, EnvelopeError>;

impl Reader<'_> {
    pub(super) fn overrides(&mut self) -> &mut Overrides {
        self.envelope.extras.overrides.get_or_insert_default()
    }

    /// A whole number from 0 on.
    pub(super) fn count(&self, name: &'static str, value: &Value) -> Read<u64> {
        match (value.kind, value.unsigned(self.body())) {
            (Kind::Null, _) => Ok(None),
            (Kind::Number, Some(number)) => Ok(Some(number)),
            (Kind::Number, None) => Err(EnvelopeError::invalid(name, "a non-negative integer")),
            _ => Err(EnvelopeError::wrong_type(name, "a non-negative integer", value)),
        }
    }

    /// A name, without the white space around it.
    pub(super) fn name(&self, name: &'static str, value: &Value) -> Read<Box<str>> {
        match value.kind {
            Kind::Null => Ok(None),
            Kind::String => self.named(name, value).map(Some),
            _ => Err(EnvelopeError::wrong_type(name, "a string", value)),
        }
    }

    fn named(&self, name: &'static str, value: &Value) -> Result<Box<str>, EnvelopeError> {
        let text = value.text(self.body());
        let text = text.as_deref().map(str::trim);
        let fits = |text: &&str| !text.is_empty() && text.len() <= Overrides::MAX_NAME;
        text.filter(fits).map(Into::into).ok_or_else(|| {
            EnvelopeError::invalid(name, "made of non-empty strings of at most 256 bytes each")
        })
    }

    /// An array of names.
    pub(super) fn names(&self, name: &'static str, value: &Value) -> Read<Vec<Box<str>>> {
        self.list(name, "an array of strings", value, |item| match item.kind {
            Kind::String => self.named(name, item),
            _ => Err(EnvelopeError::wrong_type(name, "an array of strings", item)),
        })
    }

    /// An array of models: names, or objects with a `model` and perhaps a `provider`, as LiteLLM and Bifrost have them.
    pub(super) fn models(&self, name: &'static str, value: &Value) -> Read<Vec<Box<str>>> {
        const EXPECTED: &str = "an array of names of models";
        self.list(name, EXPECTED, value, |item| match item.kind {
            Kind::String => self.named(name, item),
            Kind::Object => self.model_object(name, item),
            _ => Err(EnvelopeError::wrong_type(name, EXPECTED, item)),
        })
    }

    fn model_object(&self, name: &'static str, value: &Value) -> Result<Box<str>, EnvelopeError> {
        let (mut model, mut provider) = (None, None);
        self.each_member(value, |member, value| {
            let known = match member {
                "model" => &mut model,
                "provider" => &mut provider,
                _ => return Ok(()),
            };
            *known = self.name(name, value)?;
            Ok(())
        })?;
        match (provider, model) {
            (None, Some(model)) => Ok(model),
            (Some(provider), Some(model)) => Ok(format!("{provider}/{model}").into()),
            (_, None) => Err(EnvelopeError::invalid(
                name,
                "made of names of models, or of objects with one in `model`",
            )),
        }
    }

    /// An amount of USD, as a number or as text.
    pub(super) fn usd(&self, name: &'static str, value: &Value) -> Read<Nanos> {
        let amount = match value.kind {
            Kind::Null => return Ok(None),
            Kind::Number => std::str::from_utf8(value.raw(self.body())).ok().and_then(decimal::nanos),
            Kind::String => value.text(self.body()).and_then(|text| decimal::nanos(text.trim())),
            _ => return Err(EnvelopeError::wrong_type(name, "an amount of USD", value)),
        };
        amount.map(Some).ok_or_else(|| EnvelopeError::invalid(name, "an amount of USD, for example 0.05"))
    }

    pub(super) fn sort(&self, name: &'static str, value: &Value, others: &[&str]) -> Read<Sort> {
        let Some(text) = self.name(name, value)? else { return Ok(None) };
        match Sort::from_name(&text) {
            Some(sort) => Ok(Some(sort)),
            None if others.contains(&&*text) => Ok(None),
            None => {
                let names = Sort::ALL.map(Sort::name);
                let expected = [&names[..], others].concat().join(", ");
                Err(EnvelopeError::invalid(name, &format!("one of: {expected}")))
            }
        }
    }

    /// OpenRouter's `provider`. What it says beyond this has no meaning here.
    pub(super) fn preferences(&self, value: &Value) -> Read<Preferences> {
        match value.kind {
            Kind::Null => return Ok(None),
            Kind::Object => {}
            _ => return Err(EnvelopeError::wrong_type("provider", "an object", value)),
        }
        let mut told = Preferences::default();
        let mut seen = 0_u8;
        self.each_member(value, |member, value| {
            let (bit, name) = match member {
                "order" => (0, "provider.order"),
                "only" => (1, "provider.only"),
                "ignore" => (2, "provider.ignore"),
                "allow_fallbacks" => (3, "provider.allow_fallbacks"),
                "sort" => (4, "provider.sort"),
                "require_parameters" => (5, "provider.require_parameters"),
                "max_price" => (6, "provider.max_price"),
                _ => return Ok(()),
            };
            if seen & 1 << bit != 0 {
                return Err(EnvelopeError::repeated(name));
            }
            seen |= 1 << bit;
            match bit {
                0 => told.order = self.names(name, value)?.unwrap_or_default(),
                1 => told.only = self.names(name, value)?.unwrap_or_default(),
                2 => told.ignore = self.names(name, value)?.unwrap_or_default(),
                3 => told.allow_fallbacks = self.boolean(name, value)?,
                4 => told.sort = self.sort_of_provider(value)?,
                5 => told.require_parameters = self.boolean(name, value)?.unwrap_or(false),
                _ => told.max_price = self.max_price(value)?,
            }
            Ok(())
        })?;
        Ok(Some(told))
    }

    /// A name, or an object with it in `by`.
    fn sort_of_provider(&self, value: &Value) -> Read<Sort> {
        const NAME: &str = "provider.sort";
        if value.kind != Kind::Object {
            return self.sort(NAME, value, &[]);
        }
        let mut sort = None;
        self.each_member(value, |member, value| {
            if member == "by" {
                sort = self.sort(NAME, value, &[])?;
            }
            Ok(())
        })?;
        Ok(sort)
    }

    fn max_price(&self, value: &Value) -> Result<MaxPrice, EnvelopeError> {
        /// What is said per token is said per million tokens.
        const PER_MILLION: i64 = 1_000_000;
        let mut limit = MaxPrice::default();
        match value.kind {
            Kind::Null => return Ok(limit),
            Kind::Object => {}
            _ => return Err(EnvelopeError::wrong_type("provider.max_price", "an object", value)),
        }
        self.each_member(value, |member, value| {
            let (name, factor, place) = match member {
                "prompt" => ("provider.max_price.prompt", 1, &mut limit.prompt),
                "completion" => ("provider.max_price.completion", 1, &mut limit.completion),
                "request" => ("provider.max_price.request", PER_MILLION, &mut limit.request),
                "image" => ("provider.max_price.image", PER_MILLION, &mut limit.image),
                _ => return Ok(()),
            };
            // A limit beyond what can be counted is none.
            *place = self.usd(name, value)?.and_then(|usd| usd.0.checked_mul(factor)).map(NanosPerMillion);
            Ok(())
        })?;
        Ok(limit)
    }

    /// What functions need: a model that calls them. A tool of another kind is the upstream's own.
    pub(super) fn tools(&self, value: &Value) -> Features {
        let is_function = |item: &Value| {
            let mut found = false;
            let told = self.each_member(item, |member, value| {
                if member == "type" {
                    let kind = value.text(self.body());
                    found = kind.is_some_and(|kind| matches!(&*kind, "function" | "custom" | "mcp"));
                }
                Ok(())
            });
            told.is_ok() && found
        };
        // Chat completions know functions only, so there is nothing to look for.
        let any = match self.endpoint {
            Endpoint::Responses => self.first_item(value, is_function),
            Endpoint::GenerateContent => self.first_item(value, |tool| self.declares_functions(tool)),
            _ => self.has_items(value),
        };
        let mut found = if any { Features::TOOLS } else { Features::default() };
        if self.first_item(value, |item| self.is_provider_tool(item)) {
            found.insert(Features::PROVIDER_TOOLS);
        }
        found
    }

    /// Whether a tool of Google's holds functions, and not only what Google itself runs.
    fn declares_functions(&self, tool: &Value) -> bool {
        let mut found = false;
        let told = self.each_member(tool, |member, value| {
            let named = matches!(member, "functionDeclarations" | "function_declarations");
            found |= named && self.has_items(value);
            Ok(())
        });
        told.is_ok() && found
    }

    /// Whether a tool is neither the client's own nor one without a type.
    fn is_provider_tool(&self, tool: &Value) -> bool {
        /// Anthropic's; the client runs the others (`bash_…`, `computer_…`) itself.
        const SERVED: [&str; 5] = ["web_search", "web_fetch", "code_execution", "mcp", "tool_search"];
        let mut found = false;
        let told = self.each_member(tool, |member, value| {
            if self.endpoint == Endpoint::GenerateContent {
                found |= !matches!(member, "functionDeclarations" | "function_declarations");
            } else if member == "type" {
                let kind = value.text(self.body());
                found = kind.is_some_and(|kind| match self.endpoint {
                    Endpoint::Messages => SERVED.iter().any(|it| kind.starts_with(it)),
                    _ => !matches!(&*kind, "function" | "custom"),
                });
            }
            Ok(())
        });
        told.is_ok() && found
    }

    /// `response_format` of chat completions, or `text` of responses, where the same stands in `format`.
    pub(super) fn answer_format(&self, value: &Value) -> Features {
        let mut found = Features::default();
        // What it must look like is the upstream's to judge, and the whole body is JSON by now.
        let _whole = self.each_member(value, |member, value| {
            match member {
                "type" => {
                    let kind = value.text(self.body());
                    if kind.is_some_and(|kind| matches!(&*kind, "json_object" | "json_schema")) {
                        found.insert(Features::JSON);
                    }
                }
                "format" if matches!(self.endpoint, Endpoint::Responses | Endpoint::Messages) => {
                    found.insert(self.answer_format(value))
                }
                _ => {}
            }
            Ok(())
        });
        found
    }

    /// Whether sound is asked for.
    pub(super) fn modalities(&self, value: &Value) -> Features {
        // Google's are in capitals.
        let audio =
            |item: &Value| item.text(self.body()).is_some_and(|text| text.eq_ignore_ascii_case("audio"));
        if self.first_item(value, audio) { Features::AUDIO } else { Features::default() }
    }

    fn list<T>(
        &self,
        name: &'static str,
        expected: &str,
        value: &Value,
        mut read: impl FnMut(&Value) -> Result<T, EnvelopeError>,
    ) -> Read<Vec<T>> {
        match value.kind {
            Kind::Null => return Ok(None),
            Kind::Array => {}
            _ => return Err(EnvelopeError::wrong_type(name, expected, value)),
        }
        let (mut items, mut refused) = (Vec::new(), None);
        self.first_item(value, |item| {
            if items.len() == Overrides::MAX_LIST {
                let expected = format!("at most {} items long", Overrides::MAX_LIST);
                refused = Some(EnvelopeError::invalid(name, &expected));
            } else {
                match read(item) {
                    Ok(item) => items.push(item),
                    Err(error) => refused = Some(error),
                }
            }
            refused.is_some()
        });
        refused.map_or(Ok(Some(items)), Err)
    }

    /// Whether `wanted` holds for an item of the array; those behind the first are not looked at.
    fn first_item(&self, array: &Value, mut wanted: impl FnMut(&Value) -> bool) -> bool {
        if array.kind != Kind::Array {
            return false;
        }
        let mut cursor = Cursor::new(self.body(), array.span.start + 1);
        loop {
            // Also where an empty array ends.
            let Ok(item) = cursor.value(1) else { return false };
            if wanted(&item) {
                return true;
            }
            cursor.skip_whitespace();
            if cursor.peek() != Some(b',') {
                return false;
            }
            cursor = Cursor::new(self.body(), cursor.position() + 1);
        }
    }

    /// Whether it is an array that is not empty.
    fn has_items(&self, value: &Value) -> bool {
        let inside = value.raw(self.body()).get(1..).unwrap_or_default();
        value.kind == Kind::Array && !inside.trim_ascii_start().starts_with(b"]")
    }

    /// Nothing for what is no object.
    fn each_member(
        &self,
        value: &Value,
        mut read: impl FnMut(&str, &Value) -> Result<(), EnvelopeError>,
    ) -> Result<(), EnvelopeError> {
        let Some(mut members) = Members::of(self.body(), value) else { return Ok(()) };
        while let Some(member) = self.inner(members.next())? {
            if let Some(name) = member.name.text(self.body()) {
                read(&name, &member.value)?;
            }
        }
        Ok(())
    }
}
