//! Functions, which of them must be called, and answers that must be JSON. Part of [`super::encode`].

use serde_json::{Map, Value};

use super::{JSON_TOOL, NAME, Writing};
use crate::{
    codec::CodecError,
    ir::{Format, Param, Tool, ToolChoice, ToolKind},
    providers::cohere::fields::{Body, Function, ResponseFormat, Schema, Tool as Written},
};

/// Whether the answer comes as a call of the made-up function.
pub(super) fn write<'r>(writing: &mut Writing<'_, 'r>, body: &mut Body<'r>) -> Result<bool, CodecError> {
    let request = writing.request;
    // Of fewer functions the right one is called.
    let offered = |tool: &&Tool<'_>| match &request.tool_choice {
        Some(ToolChoice::Function(name)) => tool.name == *name,
        Some(ToolChoice::Allowed { names, .. }) => names.contains(&tool.name),
        _ => true,
    };
    let mut strict = 0;
    for tool in request.tools.iter().filter(offered) {
        let ToolKind::Function { parameters, strict: is_strict } = &tool.kind else {
            return Err(CodecError::unsupported(
                format!("tools[{}]", tool.at),
                format!(
                    "{NAME} takes functions, and none of the tools that another provider runs or defines."
                ),
            ));
        };
        strict += usize::from(*is_strict == Some(true));
        let schema = parameters.as_deref().map_or_else(|| Schema::Made(object_schema()), Schema::Written);
        body.tools.push(function(&tool.name, tool.description.as_deref(), schema));
    }
    // All or none.
    body.strict_tools = strict > 0 && strict == body.tools.len();
    if strict > 0 && !body.strict_tools {
        writing.drop(Param::Strict);
    }
    body.tool_choice = match &request.tool_choice {
        _ if body.tools.is_empty() => None,
        Some(ToolChoice::Required | ToolChoice::Function(_) | ToolChoice::Allowed { required: true, .. }) => {
            Some("REQUIRED")
        }
        Some(ToolChoice::None) => Some("NONE"),
        _ => None,
    };
    Ok(match &request.format {
        Some(format) => write_format(writing, format, body),
        None => false,
    })
}

/// Cohere's own format can't stand beside tools.
fn write_format<'r>(writing: &mut Writing<'_, 'r>, format: &'r Format<'_>, body: &mut Body<'r>) -> bool {
    if matches!(writing.request.tool_choice, Some(ToolChoice::Function(_))) && !body.tools.is_empty() {
        // A call that is asked for by name is no answer that could have a format.
        return false;
    }
    if body.tool_choice == Some("NONE") {
        // What may not be called need not be offered.
        body.tools.clear();
        body.tool_choice = None;
        body.strict_tools = false;
    }
    let schema = match format {
        Format::Json => None,
        Format::Schema { schema, .. } => Some(&**schema),
    };
    if body.tools.is_empty() {
        body.response_format = Some(ResponseFormat { kind: "json_object", json_schema: schema });
        return false;
    }
    let description = "Gives the answer to the user: the arguments are the whole answer, as JSON.";
    let schema = schema.map_or_else(|| Schema::Made(object_schema()), Schema::Written);
    body.tools.push(function(JSON_TOOL, Some(description), schema));
    body.tool_choice = Some("REQUIRED");
    true
}

fn function<'r>(name: &'r str, description: Option<&'r str>, parameters: Schema<'r>) -> Written<'r> {
    Written { kind: "function", function: Function { name, description, parameters } }
}

fn object_schema() -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(Map::new()));
    schema
}
