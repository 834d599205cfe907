//! Reading what Anthropic's clients send.

use std::{borrow::Cow, collections::HashSet};

use serde_json::value::RawValue;

use super::{
    super::{
        blocks::{self, Within},
        wire::{self, CacheControl, TextOr},
    },
    body::{Body, Format, Message, Metadata, OutputConfig, Thinking, Tool, ToolChoice},
};
use crate::{
    CodecError, Dialect,
    ir::{self, Effort, Reasoning, Role, ToolKind},
    providers::read,
};

/// Whether a request must say how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum MaxTokens {
    Required,
    /// Nothing is to be answered: tokens are counted.
    NoMatter,
}

pub fn decode(body: &[u8]) -> Result<ir::Request<'_>, CodecError> {
    decode_with(body, MaxTokens::Required)
}

pub(in super::super) fn decode_with(
    body: &[u8],
    max_tokens: MaxTokens,
) -> Result<ir::Request<'_>, CodecError> {
    let body: Body<'_> = read::body(body)?;
    let model = match body.model {
        None if body.hosted => Default::default(),
        model => model.ok_or_else(|| missing("model", "a string with the name of a model"))?,
    };
    if body.max_tokens.is_none() && max_tokens == MaxTokens::Required {
        return Err(missing("max_tokens", "a number of tokens"));
    }
    let mut request = ir::Request::new(Dialect::Messages, model.0);
    if let Some(system) = body.system {
        request.messages.push(system_message(system)?);
    }
    let messages = body.messages.ok_or_else(|| missing("messages", "an array of messages"))?;
    if messages.is_empty() {
        return Err(invalid("messages", "an array with at least one message"));
    }
    for (at, message) in messages.into_iter().enumerate() {
        request.messages.push(self::message(at, message)?);
    }
    request.max_output = body.max_tokens;
    request.stop = body.stop_sequences.into_iter().flatten().map(|it| it.0).collect();
    request.stream = body.stream.unwrap_or(false);
    request.include_usage = true;
    request.sampling.temperature = body.temperature;
    request.sampling.top_p = body.top_p;
    request.sampling.top_k = body.top_k;
    request.service_tier = body.service_tier.map(|it| it.0);
    request.extras = body.extras;
    request.tools = tools(body.tools.unwrap_or_default())?;
    if let Some(choice) = body.tool_choice {
        request.parallel_tool_calls = choice.disable_parallel_tool_use.map(|disable| !disable);
        request.tool_choice = Some(tool_choice(choice, &request.tools)?);
    }
    metadata(&mut request, body.metadata)?;
    output(&mut request, body.thinking, body.output_config, body.output_format)?;
    request.link_tool_results().map_err(|(message, part)| {
        let path = format!("{}.tool_use_id", Dialect::Messages.place(message, Some(part)));
        let message = format!("`{path}` answers no call: no `tool_use` before it has this id.");
        CodecError::invalid(path, message)
    })?;
    Ok(request)
}

fn missing(path: &str, expected: &str) -> CodecError {
    CodecError::invalid(path, format!("`{path}` is missing: expected {expected}."))
}

fn invalid(path: &str, expected: &str) -> CodecError {
    CodecError::invalid(path, format!("`{path}` must be {expected}."))
}

fn system_message(system: TextOr<'_>) -> Result<ir::Message<'_>, CodecError> {
    let parts = blocks::parts(system, Within::ToolResult, &|| "system".to_owned())?;
    if let Some(part) = parts.iter().find(|part| !matches!(part.content, ir::Content::Text { .. })) {
        return Err(invalid(&format!("system[{}].type", part.at), "`text`"));
    }
    Ok(ir::Message { role: Role::System, parts, name: None, at: 0 })
}

fn message(at: usize, message: Message<'_>) -> Result<ir::Message<'_>, CodecError> {
    let (role, within) = match &*message.role.0 {
        "user" => (Role::User, Within::User),
        "assistant" => (Role::Assistant, Within::Assistant),
        "system" => (Role::System, Within::ToolResult),
        _ => {
            return Err(invalid(&format!("messages[{at}].role"), "`user`, `assistant` or `system`"));
        }
    };
    let parts = blocks::parts(message.content, within, &|| format!("messages[{at}].content"))?;
    Ok(ir::Message { role, parts, name: None, at: wire::index(at) })
}

fn tools(raw: Vec<&RawValue>) -> Result<Vec<ir::Tool<'_>>, CodecError> {
    let mut names = HashSet::new();
    let mut tools = Vec::with_capacity(raw.len());
    for (at, raw) in raw.into_iter().enumerate() {
        let tool: Tool<'_> = wire::value(raw.get(), &|| format!("tools[{at}]"))?;
        let own = tool.kind.as_ref().is_none_or(|kind| kind.0 == "custom");
        let name = match tool.name {
            Some(name) if !name.0.is_empty() => name.0,
            // Sets of tools (MCP) go by other names.
            _ if !own => Cow::Borrowed(""),
            _ => return Err(missing(&format!("tools[{at}].name"), "a string")),
        };
        if !name.is_empty() && !names.insert(name.clone()) {
            let path = format!("tools[{at}].name");
            let message = format!("`{path}` is `{name}` like another tool: names must be unique.");
            return Err(CodecError::invalid(path, message));
        }
        let kind = if own {
            let schema =
                tool.input_schema.filter(|schema| schema.get().starts_with('{')).ok_or_else(|| {
                    invalid(&format!("tools[{at}].input_schema"), "an object with a JSON schema")
                })?;
            ToolKind::Function { parameters: Some(Cow::Borrowed(schema)), strict: tool.strict }
        } else {
            ToolKind::Native { dialect: Dialect::Messages, value: Cow::Borrowed(raw) }
        };
        let cache = tool.cache_control.as_ref().map(CacheControl::mark);
        let description = tool.description.map(|it| it.0);
        tools.push(ir::Tool { name, description, kind, cache, at: wire::index(at) });
    }
    Ok(tools)
}

fn tool_choice<'a>(choice: ToolChoice<'a>, tools: &[ir::Tool<'_>]) -> Result<ir::ToolChoice<'a>, CodecError> {
    Ok(match &*choice.kind.0 {
        "auto" => ir::ToolChoice::Auto,
        "any" => ir::ToolChoice::Required,
        "none" => ir::ToolChoice::None,
        "tool" => {
            let name = choice.name.ok_or_else(|| missing("tool_choice.name", "the name of a tool"))?;
            if !tools.iter().any(|tool| tool.name == name.0) {
                return Err(invalid("tool_choice.name", "the name of one of `tools`"));
            }
            ir::ToolChoice::Function(name.0)
        }
        _ => return Err(invalid("tool_choice.type", "`auto`, `any`, `tool` or `none`")),
    })
}

/// Anthropic knows one member of it, the user.
fn metadata<'a>(request: &mut ir::Request<'a>, raw: Option<&'a RawValue>) -> Result<(), CodecError> {
    let Some(raw) = raw else { return Ok(()) };
    let metadata: Metadata<'a> = wire::value(raw.get(), &|| "metadata".to_owned())?;
    request.user = metadata.user_id.map(|it| it.0);
    Ok(())
}

/// What the answer is to be like: how much thought stands behind it, and which form it has.
fn output<'a>(
    request: &mut ir::Request<'a>,
    thinking: Option<Thinking<'a>>,
    config: Option<OutputConfig<'a>>,
    old_format: Option<Format<'a>>,
) -> Result<(), CodecError> {
    let mut reasoning = Reasoning::default();
    if let Some(thinking) = thinking {
        match &*thinking.kind.0 {
            "enabled" => {
                let budget = thinking.budget_tokens;
                reasoning.budget = Some(budget.ok_or_else(|| missing("thinking.budget_tokens", "a number"))?);
            }
            "disabled" => reasoning.budget = Some(0),
            "adaptive" | "between_tools" => reasoning.adaptive = true,
            _ => return Err(invalid("thinking.type", "`enabled`, `disabled` or `adaptive`")),
        }
        reasoning.visible = thinking.display.map(|display| display.0 != "omitted");
    }
    let (effort, format) = config.map_or((None, None), |config| (config.effort, config.format));
    if let Some(effort) = effort {
        let known = Effort::from_name(&effort.0)
            .ok_or_else(|| invalid("output_config.effort", "`low`, `medium`, `high`, `xhigh` or `max`"))?;
        // Without thoughts it is about the length of the answer.
        if reasoning.budget != Some(0) {
            reasoning.effort = Some(known);
        }
    }
    request.reasoning = (reasoning != Reasoning::default()).then_some(reasoning);
    for (format, path) in [(format, "output_config.format"), (old_format, "output_format")] {
        let Some(format) = format else { continue };
        let schema = format
            .schema
            .filter(|schema| format.kind.0 == "json_schema" && schema.get().starts_with('{'))
            .ok_or_else(|| invalid(path, "an object of type `json_schema` with a `schema`"))?;
        let schema = Cow::Borrowed(schema);
        request.format =
            Some(ir::Format::Schema { name: None, description: None, schema, strict: Some(true) });
        break;
    }
    Ok(())
}
