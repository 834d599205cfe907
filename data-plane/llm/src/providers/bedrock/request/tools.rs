//! Functions, which of them must be called, and answers that must be JSON. Part of [`super::encode`].

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{JSON_TOOL, NAME, Writing};
use crate::{
    codec::CodecError,
    ir::{CacheMark, Content, Format, Param, Request, Tool, ToolChoice, ToolKind},
    providers::bedrock::{
        family::Structured,
        fields::{
            self, CachePoint, Choice, InputSchema, JsonSchema, OutputConfig, Schema, TextFormat, ToolConfig,
            ToolSpec,
        },
    },
};

/// What a model is told that can't be made to call the function.
const ASK_FOR_CALL: &str = "Give your final answer only by calling the function `json_response`, with arguments that \
                            match its schema. Write no other text.";

const JSON_TOOL_DESCRIPTION: &str =
    "Gives the answer to the user: the arguments are the whole answer, as JSON.";

#[derive(Default)]
pub(super) struct Tools<'r> {
    pub config: Option<ToolConfig<'r>>,
    pub output: Option<OutputConfig<'r>>,
    /// See [`crate::codec::Encoded::forced_tool`].
    pub forced: bool,
    /// To be added to the system's text.
    pub instruction: Option<&'static str>,
}

pub(super) fn write<'r>(writing: &mut Writing<'_, 'r>, thinks: bool) -> Result<Tools<'r>, CodecError> {
    let request = writing.request;
    let mut specs = specs(writing)?;
    let mut choice = choice(writing, thinks, !request.tools.is_empty());
    if request.parallel_tool_calls == Some(false) && !request.tools.is_empty() {
        writing.drop(Param::ParallelToolCalls);
    }
    let mut tools = Tools::default();
    // A call that is asked for by name is no answer that could have a format.
    let named = matches!(request.tool_choice, Some(ToolChoice::Function(_)));
    if let Some(format) = request.format.as_ref().filter(|_| !named) {
        let how = structured(writing, format, thinks);
        if how == Structured::Native {
            tools.output = native(format);
        } else {
            tools.forced = true;
            let offered = request.tools.is_empty() || request.tool_choice == Some(ToolChoice::None);
            specs.push(json_tool(format));
            match how {
                Structured::ForcedTool if offered => choice = Some(Choice::Tool { name: JSON_TOOL }),
                Structured::ForcedTool => choice = Some(Choice::Any {}),
                _ => tools.instruction = Some(ASK_FOR_CALL),
            }
        }
    }
    tools.config =
        if specs.is_empty() { None } else { Some(ToolConfig { tools: specs, tool_choice: choice }) };
    Ok(tools)
}

/// The functions to be offered.
fn specs<'r>(writing: &mut Writing<'_, 'r>) -> Result<Vec<fields::Tool<'r>>, CodecError> {
    let request = writing.request;
    let in_history = called(request);
    let mut specs = Vec::new();
    match &request.tool_choice {
        // Converse knows no `none`, but what isn't offered isn't called. A conversation with calls must have tools.
        Some(ToolChoice::None) if in_history.is_empty() => {}
        Some(ToolChoice::Allowed { names, .. }) => {
            for tool in request.tools.iter().filter(|tool| names.contains(&tool.name)) {
                push(writing, tool, &mut specs)?;
            }
        }
        choice => {
            if *choice == Some(ToolChoice::None) && !request.tools.is_empty() {
                writing.drop(Param::ToolChoice);
            }
            for tool in &request.tools {
                push(writing, tool, &mut specs)?;
            }
        }
    }
    if specs.is_empty() {
        // C 25: refused otherwise. The client no longer offers them, but they were called.
        specs.extend(in_history.into_iter().map(|name| spec(name, None, Schema::Changed(object_schema()))));
    }
    Ok(specs)
}

/// Names of the functions that were called before.
fn called<'r>(request: &'r Request<'_>) -> Vec<&'r str> {
    let mut seen = HashSet::new();
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    let names = parts.filter_map(|part| match &part.content {
        Content::ToolCall(call) => Some(&*call.name),
        _ => None,
    });
    names.filter(|name| seen.insert(*name)).collect()
}

fn push<'r>(
    writing: &mut Writing<'_, 'r>,
    tool: &'r Tool<'_>,
    specs: &mut Vec<fields::Tool<'r>>,
) -> Result<(), CodecError> {
    let ToolKind::Function { parameters, strict } = &tool.kind else {
        return Err(CodecError::unsupported(
            format!("tools[{}]", tool.at),
            format!("{NAME} takes functions, and none of the tools that another provider runs or defines."),
        ));
    };
    if !is_name(&tool.name) {
        return Err(CodecError::unsupported(
            format!("tools[{}]", tool.at),
            format!("{NAME} takes names of 1 to 64 letters, digits, `_` and `-`, and not `{}`.", tool.name),
        ));
    }
    if *strict == Some(true) {
        writing.drop(Param::Strict);
    }
    let description = tool.description.as_deref().filter(|text| !text.is_empty());
    specs.push(spec(&tool.name, description, schema(parameters.as_deref())));
    if let Some(mark) = tool.cache {
        if writing.family.caches_tools() {
            specs.push(fields::Tool::CachePoint(CachePoint::new(mark == CacheMark::Hour)));
        } else {
            writing.drop(Param::CacheControl);
        }
    }
    Ok(())
}

pub(super) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn spec<'r>(name: &'r str, description: Option<&'r str>, json: Schema<'r>) -> fields::Tool<'r> {
    fields::Tool::ToolSpec(ToolSpec { name, description, input_schema: InputSchema { json } })
}

/// Arguments are an object, and its schema must say so.
fn schema(parameters: Option<&RawValue>) -> Schema<'_> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
    }
    let Some(parameters) = parameters else { return Schema::Changed(object_schema()) };
    match serde_json::from_str::<Typed<'_>>(parameters.get()) {
        Ok(Typed { kind: Some(_) }) => Schema::Written(parameters),
        _ => {
            let mut schema = object_schema();
            if let Ok(written) = serde_json::from_str::<Map<String, Value>>(parameters.get()) {
                schema.extend(written);
            }
            Schema::Changed(schema)
        }
    }
}

fn object_schema() -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(Map::new()));
    schema
}

/// What of the client's choice can be said. `auto` is not said: it is what happens anyway.
fn choice<'r>(writing: &mut Writing<'_, 'r>, thinks: bool, any: bool) -> Option<Choice<'r>> {
    let request: &'r Request<'_> = writing.request;
    let wanted = match request.tool_choice.as_ref()? {
        ToolChoice::Required | ToolChoice::Allowed { required: true, .. } => Choice::Any {},
        ToolChoice::Function(name) => Choice::Tool { name },
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Allowed { .. } => return None,
    };
    if any && !thinks && writing.family.can_force_tools() {
        return Some(wanted);
    }
    writing.drop(Param::ToolChoice);
    None
}

/// How this format can be had.
fn structured(writing: &mut Writing<'_, '_>, format: &Format<'_>, thinks: bool) -> Structured {
    let how = match (writing.family.structured(), format) {
        // Any JSON is no schema.
        (Structured::Native, Format::Json) => Structured::AskedTool,
        // A thinking Claude can't be made to call a function.
        (Structured::ForcedTool, _) if thinks => Structured::AskedTool,
        (how, _) => how,
    };
    let strict = matches!(format, Format::Schema { strict: Some(true), .. });
    if strict && how == Structured::AskedTool {
        // Asked is not made: the answer may depart from the schema.
        writing.drop(Param::Strict);
    }
    how
}

fn native<'r>(format: &'r Format<'_>) -> Option<OutputConfig<'r>> {
    let Format::Schema { name, description, schema, .. } = format else { return None };
    let (name, description) = (name.as_deref(), description.as_deref());
    Some(OutputConfig {
        text_format: TextFormat::new(JsonSchema { schema: schema.get(), name, description }),
    })
}

fn json_tool<'r>(format: &'r Format<'_>) -> fields::Tool<'r> {
    match format {
        Format::Json => {
            let mut schema = object_schema();
            schema.insert("additionalProperties".into(), true.into());
            spec(JSON_TOOL, Some(JSON_TOOL_DESCRIPTION), Schema::Changed(schema))
        }
        Format::Schema { description, schema: json, .. } => {
            let description = description.as_deref().filter(|text| !text.is_empty());
            spec(JSON_TOOL, description.or(Some(JSON_TOOL_DESCRIPTION)), schema(Some(json)))
        }
    }
}
