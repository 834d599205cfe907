//! Reads values of the members that matter, and says of others what was expected. Called by [`Reader::read`].

use super::{EnvelopeError, Reader, StreamOptions};
use crate::{
    Extras,
    json::{JsonError, Kind, Members, Value},
};

impl<'a> Reader<'a> {
    pub(super) fn boolean(&self, name: &'static str, value: &Value) -> Result<Option<bool>, EnvelopeError> {
        match value.kind {
            Kind::Null => Ok(None),
            Kind::Boolean => Ok(value.boolean(self.body())),
            _ => Err(EnvelopeError::wrong_type(name, "a boolean", value)),
        }
    }

    pub(super) fn positive(&self, name: &'static str, value: &Value) -> Result<Option<u64>, EnvelopeError> {
        match (value.kind, value.unsigned(self.body())) {
            (Kind::Null, _) => Ok(None),
            (Kind::Number, Some(number)) if number > 0 => Ok(Some(number)),
            (Kind::Number, _) => Err(EnvelopeError::invalid(name, "a positive integer")),
            _ => Err(EnvelopeError::wrong_type(name, "a positive integer", value)),
        }
    }

    pub(super) fn token_limit(
        &self,
        name: &'static str,
        value: &Value,
    ) -> Result<Option<u64>, EnvelopeError> {
        match (value.kind, value.unsigned(self.body())) {
            (Kind::Null, _) => Ok(None),
            (Kind::Number, Some(limit)) => Ok(Some(limit)),
            (Kind::Number, None) if value.raw(self.body()) == b"-1" => Ok(None),
            (Kind::Number, None) => Err(EnvelopeError::invalid(name, "a non-negative integer")),
            _ => Err(EnvelopeError::wrong_type(name, "a non-negative integer", value)),
        }
    }

    pub(super) fn metadata(&self, value: &Value) -> Result<Option<&'a str>, EnvelopeError> {
        match value.kind {
            Kind::Null => Ok(None),
            Kind::Object if value.span.end - value.span.start > Extras::MAX_METADATA => {
                Err(EnvelopeError::invalid("nemo_metadata", "at most 4096 bytes of JSON"))
            }
            Kind::Object => Ok(self.text.get(value.span.start..value.span.end)),
            _ => Err(EnvelopeError::wrong_type("nemo_metadata", "an object", value)),
        }
    }

    pub(super) fn stream_options(&self, value: &Value) -> Result<StreamOptions, EnvelopeError> {
        const FLAG: &str = "stream_options.include_usage";
        if value.kind == Kind::Null {
            return Ok(StreamOptions::Null(value.span));
        }
        let Some(mut members) = Members::of(self.body(), value) else {
            return Err(EnvelopeError::wrong_type("stream_options", "an object", value));
        };
        let mut options = StreamOptions::WithoutFlag { inside: value.span.start + 1, empty: true };
        while let Some(member) = self.inner(members.next())? {
            let is_flag = member.name.text(self.body()).is_some_and(|name| name == "include_usage");
            match &mut options {
                StreamOptions::Flag { .. } if is_flag => {
                    return Err(EnvelopeError::repeated(FLAG));
                }
                _ if is_flag => {
                    let asked = self.boolean(FLAG, &member.value)?.unwrap_or(false);
                    options = StreamOptions::Flag { asked, span: member.value.span };
                }
                StreamOptions::WithoutFlag { empty, .. } => *empty = false,
                _ => {}
            }
        }
        Ok(options)
    }

    /// The boolean member `name` of an object of another gateway's making; anything else there is not ours to
    /// judge.
    pub(super) fn flag_inside(&self, value: &Value, name: &str) -> Result<Option<bool>, EnvelopeError> {
        let Some(mut members) = Members::of(self.body(), value) else { return Ok(None) };
        let mut flag = None;
        while let Some(member) = self.inner(members.next())? {
            if member.name.text(self.body()).is_some_and(|text| text == name) {
                flag = member.value.boolean(self.body());
            }
        }
        Ok(flag)
    }

    pub(super) fn inner<T>(&self, result: Result<T, JsonError>) -> Result<T, EnvelopeError> {
        result.map_err(|error| EnvelopeError::json(self.body(), error))
    }
}
