//! `tools` and `tool_choice`.

use std::{borrow::Cow, collections::HashSet};

use serde::Deserialize;

use crate::{
    Dialect,
    codec::CodecError,
    ir::{Json, Text, Tool, ToolChoice, ToolKind},
    providers::{
        read::{
            Str,
            node::{Node, Path},
        },
        write,
    },
};

/// # Errors
/// What is wrong with which tool.
pub(super) fn decode<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Vec<Tool<'a>>, CodecError> {
    let (mut tools, mut names) = (Vec::new(), HashSet::new());
    node.elements(path, |index, node| {
        let path = path.index(index);
        let tool = tool(node, &path, u16::try_from(index).unwrap_or(u16::MAX))?;
        if !tool.name.is_empty() && !names.insert(tool.name.clone()) {
            return Err(path.key("name").must_be("a name that no other tool has"));
        }
        tools.push(tool);
        Ok(())
    })?;
    Ok(tools)
}

fn tool<'a>(node: Node<'a>, path: &Path<'_>, at: u16) -> Result<Tool<'a>, CodecError> {
    let (mut kind, mut name, mut description) = (None, None, None);
    let (mut parameters, mut strict, mut format) = (None, None, None);
    node.members(path, |key, value| {
        let path = path.key(&key);
        match key.as_ref() {
            "type" => kind = Some(value.text(&path)?),
            "name" => name = Some(value.text(&path)?),
            "description" => description = Some(value.text(&path)?),
            "parameters" => parameters = Some(value.object(&path)?),
            "strict" => strict = Some(value.boolean(&path)?),
            "format" => format = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    let kind = kind.ok_or_else(|| path.key("type").required("the type of the tool, like function"))?;
    let named =
        |name: Option<Text<'a>>| name.ok_or_else(|| path.key("name").required("what the model calls it"));
    match kind.as_ref() {
        "function" => {
            let kind = ToolKind::Function { parameters, strict };
            Ok(Tool { name: named(name)?, description, kind, cache: None, at })
        }
        "custom" => {
            let name = named(name)?;
            let value = custom_of_chat(&name, description.as_deref(), format, path)?;
            let kind = ToolKind::Native { dialect: Dialect::Chat, value };
            Ok(Tool { name, description, kind, cache: None, at })
        }
        _ => {
            let kind = ToolKind::Native { dialect: Dialect::Responses, value: node.json(path)? };
            Ok(Tool { name: name.unwrap_or_default(), description, kind, cache: None, at })
        }
    }
}

/// A custom tool as Chat Completions has it: the same in one more object, and so is a grammar.
fn custom_of_chat<'a>(
    name: &str,
    description: Option<&str>,
    format: Option<Node<'_>>,
    path: &Path<'_>,
) -> Result<Json<'a>, CodecError> {
    let format_path = path.key("format");
    let (mut kind, mut syntax, mut definition) = (None, None, None);
    if let Some(format) = format {
        format.members(&format_path, |key, value| {
            let path = format_path.key(&key);
            match key.as_ref() {
                "type" => kind = Some(value.text(&path)?),
                "syntax" => syntax = Some(value.text(&path)?),
                "definition" => definition = Some(value.text(&path)?),
                _ => {}
            }
            Ok(())
        })?;
    }
    let grammar = match kind.as_deref() {
        None | Some("text") => None,
        Some("grammar") => {
            let syntax = syntax.ok_or_else(|| format_path.key("syntax").required("lark or regex"))?;
            let definition =
                definition.ok_or_else(|| format_path.key("definition").required("the grammar"))?;
            Some((syntax, definition))
        }
        Some(_) => return Err(format_path.key("type").must_be("text or grammar")),
    };
    let mut out = Vec::new();
    write::object(&mut out, |tool| {
        tool.text("type", "custom");
        tool.object("custom", |custom| {
            custom.text("name", name);
            if let Some(description) = description {
                custom.text("description", description);
            }
            if let Some((syntax, definition)) = &grammar {
                custom.object("format", |format| {
                    format.text("type", "grammar");
                    format.object("grammar", |grammar| {
                        grammar.text("syntax", syntax);
                        grammar.text("definition", definition);
                    });
                });
            }
        });
    });
    let json = String::from_utf8(out).unwrap_or_default();
    serde_json::value::RawValue::from_string(json).map(Cow::Owned).map_err(|_| path.must_be("a custom tool"))
}

/// `None`: one of the provider's own tools is chosen, which the hub has no word for.
///
/// # Errors
/// When it is nothing that OpenAI knows.
pub(super) fn choice<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Option<ToolChoice<'a>>, CodecError> {
    if node.is_string() {
        return match node.text(path)?.as_ref() {
            "auto" => Ok(Some(ToolChoice::Auto)),
            "none" => Ok(Some(ToolChoice::None)),
            "required" => Ok(Some(ToolChoice::Required)),
            _ => Err(path.must_be("one of auto, none and required, or an object")),
        };
    }
    if !node.is_object() {
        return Err(path.must_be("a string or an object"));
    }
    let (mut kind, mut name, mut mode, mut tools) = (None, None, None, None);
    node.members(path, |key, value| {
        let path = path.key(&key);
        match key.as_ref() {
            "type" => kind = Some(value.text(&path)?),
            "name" => name = Some(value.text(&path)?),
            "mode" => mode = Some(value.text(&path)?),
            "tools" => tools = Some(value),
            _ => {}
        }
        Ok(())
    })?;
    match kind.as_deref() {
        Some("function" | "custom") => {
            let name = name.ok_or_else(|| path.key("name").required("the name of a function"))?;
            Ok(Some(ToolChoice::Function(name)))
        }
        Some("allowed_tools") => {
            let required = match mode.as_deref() {
                Some("auto") => false,
                Some("required") => true,
                _ => return Err(path.key("mode").must_be("auto or required")),
            };
            let path = path.key("tools");
            let tools = tools.ok_or_else(|| path.required("the tools that may be called"))?;
            Ok(allowed(tools, &path)?.map(|names| ToolChoice::Allowed { names, required }))
        }
        Some(_) => Ok(None),
        None => Err(path.key("type").required("the type of tool, like function")),
    }
}

/// `None`: the provider's own tools are among them.
fn allowed<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Option<Vec<Text<'a>>>, CodecError> {
    let (mut names, mut own) = (Vec::new(), false);
    node.elements(path, |index, node| {
        let path = path.index(index);
        let mut name = None;
        node.members(&path, |key, value| {
            if key == "name" {
                name = Some(value.text(&path.key("name"))?);
            }
            Ok(())
        })?;
        match name {
            Some(name) => names.push(name),
            None => own = true,
        }
        Ok(())
    })?;
    Ok((!own).then_some(names))
}

/// Writes a tool.
///
/// # Errors
/// When it is one that only another dialect knows.
pub(super) fn encode(out: &mut Vec<u8>, tool: &Tool<'_>) -> Result<(), CodecError> {
    match &tool.kind {
        ToolKind::Function { parameters, strict } => {
            write::object(out, |object| {
                object.text("type", "function");
                object.text("name", &tool.name);
                tool.description.iter().for_each(|text| object.text("description", text));
                object.raw("parameters", parameters.as_ref().map_or(NO_PARAMETERS, |schema| schema.get()));
                // Here functions are strict unless one says otherwise; elsewhere it is the other way round.
                object.value("strict", strict.unwrap_or(false));
            });
            Ok(())
        }
        ToolKind::Native { dialect: Dialect::Responses, value } => {
            out.extend_from_slice(value.get().as_bytes());
            Ok(())
        }
        ToolKind::Native { value, .. } => match custom(value.get()) {
            Some(custom) => {
                write_custom(out, &custom);
                Ok(())
            }
            None => {
                let path = format!("tools[{}]", tool.at);
                let message = format!("`{path}` is a tool that this model's provider does not have.");
                Err(CodecError::unsupported(path, message))
            }
        },
    }
}

const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// A custom tool of Chat Completions.
#[derive(Deserialize)]
struct Custom<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow, default)]
    description: Option<Str<'a>>,
    #[serde(borrow, default)]
    format: Option<CustomFormat<'a>>,
}

#[derive(Deserialize)]
struct CustomFormat<'a> {
    #[serde(borrow, default)]
    grammar: Option<Grammar<'a>>,
}

#[derive(Deserialize)]
struct Grammar<'a> {
    #[serde(borrow)]
    syntax: Str<'a>,
    #[serde(borrow)]
    definition: Str<'a>,
}

fn custom(tool: &str) -> Option<Custom<'_>> {
    #[derive(Deserialize)]
    struct Native<'a> {
        #[serde(borrow)]
        custom: Custom<'a>,
    }
    serde_json::from_str(tool).ok().map(|Native { custom }| custom)
}

fn write_custom(out: &mut Vec<u8>, custom: &Custom<'_>) {
    write::object(out, |object| {
        object.text("type", "custom");
        object.text("name", &custom.name.0);
        custom.description.iter().for_each(|text| object.text("description", &text.0));
        if let Some(grammar) = custom.format.as_ref().and_then(|format| format.grammar.as_ref()) {
            object.object("format", |format| {
                format.text("type", "grammar");
                format.text("syntax", &grammar.syntax.0);
                format.text("definition", &grammar.definition.0);
            });
        }
    });
}

pub(super) fn encode_choice(out: &mut Vec<u8>, choice: &ToolChoice<'_>, tools: &[Tool<'_>]) {
    let kind = |name: &str| {
        let is_custom = |tool: &Tool<'_>| tool.name == name && matches!(tool.kind, ToolKind::Native { .. });
        if tools.iter().any(is_custom) { "custom" } else { "function" }
    };
    let named = |out: &mut Vec<u8>, name: &str| {
        write::object(out, |object| {
            object.text("type", kind(name));
            object.text("name", name);
        });
    };
    match choice {
        ToolChoice::Auto => write::text(out, "auto"),
        ToolChoice::None => write::text(out, "none"),
        ToolChoice::Required => write::text(out, "required"),
        ToolChoice::Function(name) => named(out, name),
        ToolChoice::Allowed { names, required } => write::object(out, |object| {
            object.text("type", "allowed_tools");
            object.text("mode", if *required { "required" } else { "auto" });
            object.array("tools", names, |out, name| named(out, name));
        }),
    }
}
