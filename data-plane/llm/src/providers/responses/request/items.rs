//! The items of `input`.

use super::{
    super::{affinity, reasoning},
    content,
};
use crate::{
    Dialect,
    codec::CodecError,
    ir::{Content, Message, Part, Role, Text, ToolCall, ToolResult},
    providers::{
        read::node::{Node, Path},
        tool_id,
    },
};

/// Appends the messages that the items are. What the assistant wrote in a row is one message: thoughts, text, calls.
///
/// # Errors
/// What is wrong with which item.
pub(super) fn decode<'a>(
    input: Node<'a>,
    path: &Path<'_>,
    messages: &mut Vec<Message<'a>>,
) -> Result<(), CodecError> {
    input.elements(path, |index, node| {
        let path = path.index(index);
        let at = u16::try_from(index).unwrap_or(u16::MAX);
        let (role, parts) = Item::read(node, &path)?.message(&path)?;
        match messages.last_mut() {
            Some(last) if role == Role::Assistant && last.role == role => last.parts.extend(parts),
            _ => messages.push(Message { role, parts, name: None, at }),
        }
        Ok(())
    })
}

/// What stands in items of all types that are read.
struct Item<'a> {
    node: Node<'a>,
    kind: Option<Text<'a>>,
    role: Option<Text<'a>>,
    id: Option<Text<'a>>,
    content: Option<Node<'a>>,
    call_id: Option<Text<'a>>,
    name: Option<Text<'a>>,
    /// Of a function's call, or the input of a custom tool.
    arguments: Option<Text<'a>>,
    output: Option<Node<'a>>,
    summary: Option<Node<'a>>,
    encrypted: Option<Text<'a>>,
}

impl<'a> Item<'a> {
    fn read(node: Node<'a>, path: &Path<'_>) -> Result<Self, CodecError> {
        let mut item = Self {
            node,
            kind: None,
            role: None,
            id: None,
            content: None,
            call_id: None,
            name: None,
            arguments: None,
            output: None,
            summary: None,
            encrypted: None,
        };
        node.members(path, |name, value| {
            let path = path.key(&name);
            match name.as_ref() {
                "type" => item.kind = Some(value.text(&path)?),
                "role" => item.role = Some(value.text(&path)?),
                "id" => item.id = Some(affinity::unwrap(value.text(&path)?)),
                "content" => item.content = Some(value),
                "call_id" => item.call_id = Some(value.text(&path)?),
                "name" => item.name = Some(value.text(&path)?),
                // Some tools of the provider have objects here.
                "arguments" | "input" if value.is_string() => item.arguments = Some(value.text(&path)?),
                "output" => item.output = Some(value),
                "summary" => item.summary = Some(value),
                "encrypted_content" => item.encrypted = Some(affinity::unwrap(value.text(&path)?)),
                _ => {}
            }
            Ok(())
        })?;
        Ok(item)
    }

    fn message(mut self, path: &Path<'_>) -> Result<(Role, Vec<Part<'a>>), CodecError> {
        match self.kind.take().as_deref() {
            Some("message") => self.written(path),
            None if self.role.is_some() => self.written(path),
            Some("function_call") => self.call(path, false),
            Some("custom_tool_call") => self.call(path, true),
            Some("function_call_output" | "custom_tool_call_output") => self.result(path),
            Some("reasoning") => self.reasoning(path),
            None if self.id.is_some() => self.native(path, Role::User),
            Some("item_reference") if self.id.is_none() => {
                Err(path.key("id").required("the id of the item that is meant"))
            }
            Some(kind) => match of_provider(kind) {
                Some(role) => self.native(path, role),
                None => {
                    let path = path.key("type");
                    let expected =
                        "a type of item, like message, function_call, function_call_output or reasoning";
                    Err(path.must_be(expected))
                }
            },
            None => Err(path.key("role").required("user, assistant, system or developer")),
        }
    }

    fn written(self, path: &Path<'_>) -> Result<(Role, Vec<Part<'a>>), CodecError> {
        let role = match self.role.as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some(_) => return Err(path.key("role").must_be("one of user, assistant, system and developer")),
            None => return Err(path.key("role").required("user, assistant, system or developer")),
        };
        let path = path.key("content");
        let content = self.content.ok_or_else(|| path.required("a string or an array of parts"))?;
        Ok((role, content::decode(content, &path)?))
    }

    fn call(self, path: &Path<'_>, custom: bool) -> Result<(Role, Vec<Part<'a>>), CodecError> {
        let text = if custom { "input" } else { "arguments" };
        let id =
            self.call_id.ok_or_else(|| path.key("call_id").required("the id that its output has as well"))?;
        let name = self.name.ok_or_else(|| path.key("name").required("the name of the function"))?;
        let arguments =
            self.arguments.ok_or_else(|| path.key(text).required("what it was called with, a string"))?;
        let (id, signature) = tool_id::split_text(id);
        let call = Content::ToolCall(ToolCall { id, name, arguments, custom });
        Ok((Role::Assistant, vec![Part { signature, ..Part::new(call) }]))
    }

    fn result(self, path: &Path<'_>) -> Result<(Role, Vec<Part<'a>>), CodecError> {
        let id =
            self.call_id.ok_or_else(|| path.key("call_id").required("the id of the call that it answers"))?;
        let path = path.key("output");
        let output = self.output.ok_or_else(|| path.required("a string or an array of parts"))?;
        let content = content::decode(output, &path)?;
        let (call_id, _) = tool_id::split_text(id);
        let result = ToolResult { call_id, name: None, content, is_error: false };
        Ok((Role::User, vec![Part::new(Content::ToolResult(result))]))
    }

    fn reasoning(self, path: &Path<'_>) -> Result<(Role, Vec<Part<'a>>), CodecError> {
        let mut text = Text::Borrowed("");
        let parts = [(self.summary, "summary"), (self.content, "content")];
        // The summary, or else what models write that don't hide their thoughts.
        for (node, name) in parts.into_iter().filter_map(|(node, name)| Some((node?, name))) {
            if text.is_empty() {
                text = thoughts(node, &path.key(name))?;
            }
        }
        let thinking = reasoning::thinking(text, self.encrypted, self.id);
        Ok((Role::Assistant, vec![Part::new(Content::Thinking(thinking))]))
    }

    fn native(self, path: &Path<'_>, role: Role) -> Result<(Role, Vec<Part<'a>>), CodecError> {
        let value = self.node.json(path)?;
        Ok((role, vec![Part::new(Content::Opaque { dialect: Dialect::Responses, value })]))
    }
}

/// The parts of a summary in one, with a blank line between them.
fn thoughts<'a>(node: Node<'a>, path: &Path<'_>) -> Result<Text<'a>, CodecError> {
    let mut all = Text::Borrowed("");
    node.elements(path, |index, part| {
        let path = path.index(index);
        let mut text = None;
        part.members(&path, |name, value| {
            if name == "text" {
                text = Some(value.text(&path.key("text"))?);
            }
            Ok(())
        })?;
        let text = text.ok_or_else(|| path.key("text").required("a string"))?;
        if all.is_empty() {
            all = text;
        } else {
            let all = all.to_mut();
            all.push_str("\n\n");
            all.push_str(&text);
        }
        Ok(())
    })?;
    Ok(all)
}

/// Items of tools that the provider runs itself, or that have a shape of their own; whose turn they belong to.
fn of_provider(kind: &str) -> Option<Role> {
    Some(match kind {
        "file_search_call"
        | "web_search_call"
        | "computer_call"
        | "code_interpreter_call"
        | "image_generation_call"
        | "local_shell_call"
        | "shell_call"
        | "apply_patch_call"
        | "tool_search_call"
        | "tool_search_output"
        | "mcp_list_tools"
        | "mcp_approval_request"
        | "mcp_call"
        | "program"
        | "program_output"
        | "compaction" => Role::Assistant,
        "computer_call_output"
        | "local_shell_call_output"
        | "shell_call_output"
        | "apply_patch_call_output"
        | "mcp_approval_response"
        | "compaction_trigger"
        | "additional_tools"
        | "configuration_update"
        | "item_reference" => Role::User,
        _ => return None,
    })
}
