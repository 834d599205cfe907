//! The members of a request's body, as they are on the wire.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::super::wire::{CacheControl, Str, TextOr};
use crate::ir::{Json, Text};

/// A request; what the hub has no place for is in `extras`.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) model: Option<Str<'a>>,
    pub(super) messages: Option<Vec<Message<'a>>>,
    pub(super) system: Option<TextOr<'a>>,
    pub(super) max_tokens: Option<u64>,
    pub(super) stop_sequences: Option<Vec<Str<'a>>>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<u64>,
    pub(super) stream: Option<bool>,
    pub(super) tools: Option<Vec<&'a RawValue>>,
    pub(super) tool_choice: Option<ToolChoice<'a>>,
    pub(super) thinking: Option<Thinking<'a>>,
    pub(super) output_config: Option<OutputConfig<'a>>,
    pub(super) output_format: Option<Format<'a>>,
    pub(super) metadata: Option<&'a RawValue>,
    pub(super) service_tier: Option<Str<'a>>,
    /// Has `anthropic_version`, as bodies for Vertex have, whose path names the model.
    pub(super) hosted: bool,
    pub(super) extras: Vec<(Text<'a>, Json<'a>)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Body<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut body = Body::default();
                while let Some(name) = members.next_key::<Str<'de>>()? {
                    match &*name.0 {
                        "model" => body.model = members.next_value()?,
                        "messages" => body.messages = members.next_value()?,
                        "system" => body.system = members.next_value()?,
                        "max_tokens" => body.max_tokens = members.next_value()?,
                        "stop_sequences" => body.stop_sequences = members.next_value()?,
                        "temperature" => body.temperature = members.next_value()?,
                        "top_p" => body.top_p = members.next_value()?,
                        "top_k" => body.top_k = members.next_value()?,
                        "stream" => body.stream = members.next_value()?,
                        "tools" => body.tools = members.next_value()?,
                        "tool_choice" => body.tool_choice = members.next_value()?,
                        "thinking" => body.thinking = members.next_value()?,
                        "output_config" => body.output_config = members.next_value()?,
                        "output_format" => body.output_format = members.next_value()?,
                        "metadata" => body.metadata = members.next_value()?,
                        "service_tier" => body.service_tier = members.next_value()?,
                        "anthropic_version" => {
                            body.hosted = true;
                            _ = members.next_value::<IgnoredAny>()?;
                        }
                        _ => {
                            let value: &'de RawValue = members.next_value()?;
                            if value.get() != "null" {
                                body.extras.push((name.0, Json::Borrowed(value)));
                            }
                        }
                    }
                }
                Ok(body)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) role: Str<'a>,
    #[serde(borrow)]
    pub(super) content: TextOr<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToolChoice<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Str<'a>,
    #[serde(borrow, default)]
    pub(super) name: Option<Str<'a>>,
    #[serde(default)]
    pub(super) disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Thinking<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Str<'a>,
    #[serde(default)]
    pub(super) budget_tokens: Option<u64>,
    #[serde(borrow, default)]
    pub(super) display: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputConfig<'a> {
    #[serde(borrow, default)]
    pub(super) effort: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) format: Option<Format<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Format<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Str<'a>,
    #[serde(borrow, default)]
    pub(super) schema: Option<&'a RawValue>,
}

/// A tool of the client's own; any other `type` is the provider's.
#[derive(Debug, Deserialize)]
pub(super) struct Tool<'a> {
    #[serde(borrow, rename = "type", default)]
    pub(super) kind: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) description: Option<Str<'a>>,
    #[serde(borrow, default)]
    pub(super) input_schema: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) strict: Option<bool>,
    #[serde(borrow, default)]
    pub(super) cache_control: Option<CacheControl<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    pub(super) user_id: Option<Str<'a>>,
}
