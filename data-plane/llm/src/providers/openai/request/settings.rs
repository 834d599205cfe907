//! Members of a request that have a shape of their own. Called by [`super::decode`].

use std::{borrow::Cow, collections::HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::content::CacheIn;
use crate::{
    CodecError, Dialect,
    ir::{Effort, Format, Reasoning, Text, Tool, ToolChoice, ToolKind},
    providers::read::{self, Str, text},
};

#[derive(Deserialize)]
struct ToolIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    function: Option<FunctionIn<'a>>,
    #[serde(borrow)]
    cache_control: Option<CacheIn<'a>>,
}

#[derive(Deserialize)]
struct FunctionIn<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    description: Option<Str<'a>>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    strict: Option<bool>,
}

pub(super) fn tools<'a>(json: &'a RawValue) -> Result<Vec<Tool<'a>>, CodecError> {
    let Some(list) = read::member::<Vec<&'a RawValue>>("tools", json)? else { return Ok(Vec::new()) };
    let mut names = HashSet::new();
    let mut tools = Vec::with_capacity(list.len());
    for (raw, at) in list.into_iter().zip(0_u16..) {
        let path = format!("tools[{at}]");
        let tool: ToolIn<'a> = read::value(&path, raw.get())?;
        let cache = tool.cache_control.as_ref().map(CacheIn::mark);
        let tool = match (&*tool.kind.0, tool.function) {
            ("function", Some(function)) => Tool {
                name: function.name.0,
                description: text(function.description),
                kind: ToolKind::Function {
                    parameters: schema(&path, function.parameters)?,
                    strict: function.strict,
                },
                cache,
                at,
            },
            ("function", None) => {
                return Err(CodecError::invalid(path, "A tool has a member `function`, which is missing."));
            }
            // Custom tools, and those that the provider runs.
            _ => Tool {
                name: Text::Borrowed(""),
                description: None,
                kind: ToolKind::Native { dialect: Dialect::Chat, value: Cow::Borrowed(raw) },
                cache,
                at,
            },
        };
        if matches!(tool.kind, ToolKind::Function { .. }) && !names.insert(tool.name.clone()) {
            let message = format!("There is another tool of the name {:?}.", tool.name);
            return Err(CodecError::invalid(format!("tools[{at}].function.name"), message));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// A schema is an object.
fn schema<'a>(path: &str, schema: Option<&'a RawValue>) -> Result<Option<Cow<'a, RawValue>>, CodecError> {
    match schema {
        None => Ok(None),
        Some(schema) if schema.get() == "null" => Ok(None),
        Some(schema) if schema.get().starts_with('{') => Ok(Some(Cow::Borrowed(schema))),
        Some(_) => Err(CodecError::invalid(
            format!("{path}.function.parameters"),
            "Expected a JSON schema, which is an object.",
        )),
    }
}

#[derive(Deserialize)]
struct ChoiceIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    function: Option<NameIn<'a>>,
    #[serde(borrow)]
    allowed_tools: Option<AllowedIn<'a>>,
}

#[derive(Deserialize)]
struct NameIn<'a> {
    #[serde(borrow)]
    name: Str<'a>,
}

#[derive(Deserialize)]
struct AllowedIn<'a> {
    #[serde(borrow)]
    mode: Option<Str<'a>>,
    #[serde(borrow)]
    tools: Vec<AllowedToolIn<'a>>,
}

#[derive(Deserialize)]
struct AllowedToolIn<'a> {
    #[serde(borrow)]
    function: NameIn<'a>,
}

pub(super) fn tool_choice<'a>(json: &'a RawValue) -> Result<Option<ToolChoice<'a>>, CodecError> {
    let expected = "Expected auto, none, required, or an object with the name of a function.";
    if json.get().starts_with('"') {
        let word = read::member::<Str<'a>>("tool_choice", json)?.unwrap_or_default();
        return match &*word.0 {
            "auto" => Ok(Some(ToolChoice::Auto)),
            "none" => Ok(Some(ToolChoice::None)),
            // Mistral's and Anthropic's word.
            "required" | "any" => Ok(Some(ToolChoice::Required)),
            _ => Err(CodecError::invalid("tool_choice", expected)),
        };
    }
    let Some(choice) = read::member::<ChoiceIn<'a>>("tool_choice", json)? else { return Ok(None) };
    match (&*choice.kind.0, choice.function, choice.allowed_tools) {
        ("function", Some(function), _) => Ok(Some(ToolChoice::Function(function.name.0))),
        ("allowed_tools", _, Some(allowed)) => Ok(Some(ToolChoice::Allowed {
            names: allowed.tools.into_iter().map(|tool| tool.function.name.0).collect(),
            required: allowed.mode.is_some_and(|mode| &*mode.0 == "required"),
        })),
        ("custom", ..) => {
            Err(CodecError::unsupported("tool_choice", "Custom tools are known to OpenAI alone."))
        }
        _ => Err(CodecError::invalid("tool_choice", expected)),
    }
}

#[derive(Deserialize)]
struct FormatIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    json_schema: Option<SchemaIn<'a>>,
}

#[derive(Deserialize)]
struct SchemaIn<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    description: Option<Str<'a>>,
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    strict: Option<bool>,
}

pub(super) fn format<'a>(json: &'a RawValue) -> Result<Option<Format<'a>>, CodecError> {
    let Some(format) = read::member::<FormatIn<'a>>("response_format", json)? else { return Ok(None) };
    match (&*format.kind.0, format.json_schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(Format::Json)),
        ("json_schema", Some(SchemaIn { name, description, schema: Some(schema), strict }))
            if schema.get().starts_with('{') =>
        {
            let (name, description) = (text(name), text(description));
            Ok(Some(Format::Schema { name, description, schema: Cow::Borrowed(schema), strict }))
        }
        ("json_schema", _) => Err(CodecError::invalid(
            "response_format.json_schema",
            "Expected an object with a `schema`, which is an object.",
        )),
        (other, _) => Err(CodecError::invalid(
            "response_format.type",
            format!("Unknown format {other:?}. Expected text, json_object or json_schema."),
        )),
    }
}

pub(super) fn effort(path: &str, word: &str) -> Result<Effort, CodecError> {
    Effort::from_name(word).ok_or_else(|| {
        let message = format!("Unknown effort {word:?}. Expected none, minimal, low, medium, high or xhigh.");
        CodecError::invalid(path, message)
    })
}

/// OpenRouter's `reasoning`.
#[derive(Deserialize)]
struct ReasoningIn<'a> {
    #[serde(borrow)]
    effort: Option<Str<'a>>,
    max_tokens: Option<u64>,
    exclude: Option<bool>,
    enabled: Option<bool>,
}

pub(super) fn reasoning(json: &RawValue, into: &mut Option<Reasoning>) -> Result<(), CodecError> {
    let Some(said) = read::member::<ReasoningIn<'_>>("reasoning", json)? else { return Ok(()) };
    let reasoning = into.get_or_insert_default();
    if let Some(word) = said.effort {
        reasoning.effort = Some(effort("reasoning.effort", &word.0)?);
    }
    reasoning.budget = said.max_tokens.or(reasoning.budget);
    reasoning.visible = said.exclude.map(|exclude| !exclude).or(reasoning.visible);
    match said.enabled {
        Some(false) => reasoning.effort = Some(Effort::None),
        Some(true) if reasoning.effort.is_none() && reasoning.budget.is_none() => {
            reasoning.effort = Some(Effort::Medium);
        }
        _ => {}
    }
    Ok(())
}

/// Anthropic's `thinking`, as clients of LiteLLM and of several services send it here.
#[derive(Deserialize)]
struct ThinkingIn<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    budget_tokens: Option<u64>,
}

pub(super) fn thinking(json: &RawValue, into: &mut Option<Reasoning>) -> Result<(), CodecError> {
    let Some(said) = read::member::<ThinkingIn<'_>>("thinking", json)? else { return Ok(()) };
    let reasoning = into.get_or_insert_default();
    match &*said.kind.0 {
        "enabled" => {
            reasoning.budget = said.budget_tokens.or(reasoning.budget);
            reasoning.adaptive |= reasoning.budget.is_none() && reasoning.effort.is_none();
        }
        "adaptive" => reasoning.adaptive = true,
        "disabled" => reasoning.effort = Some(Effort::None),
        _ => {
            let message = "Expected enabled, adaptive or disabled.";
            return Err(CodecError::invalid("thinking.type", message));
        }
    }
    Ok(())
}
