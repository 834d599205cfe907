//! The messages of a request, and how they get into the hub. Called by [`super::decode`].

use serde::Deserialize;

use super::super::{
    content::{ContentIn, parts},
    thoughts::{self, DetailIn},
};
use crate::{
    CodecError,
    ir::{Content, Message, Part, Role, Text, ToolCall, ToolResult},
    providers::{
        read::{Str, text},
        tool_id,
    },
};

#[derive(Debug, Deserialize)]
pub(super) struct MessageIn<'a> {
    #[serde(borrow)]
    role: Str<'a>,
    #[serde(borrow)]
    content: Option<ContentIn<'a>>,
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    refusal: Option<Str<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<CallIn<'a>>>,
    #[serde(borrow)]
    tool_call_id: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Str<'a>>,
    /// What some services call the same.
    #[serde(borrow)]
    reasoning: Option<Str<'a>>,
    #[serde(borrow)]
    reasoning_details: Option<Vec<DetailIn<'a>>>,
    #[serde(borrow)]
    extra_content: Option<ExtraIn<'a>>,
    /// The legacy form of a call.
    function_call: Option<serde::de::IgnoredAny>,
    /// A spoken answer that OpenAI keeps.
    audio: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct CallIn<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    function: Option<FunctionIn<'a>>,
    #[serde(borrow)]
    custom: Option<CustomIn<'a>>,
    #[serde(borrow)]
    extra_content: Option<ExtraIn<'a>>,
}

#[derive(Debug, Deserialize)]
struct FunctionIn<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    arguments: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
struct CustomIn<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    input: Option<Str<'a>>,
}

/// What Google's own compatibility layer adds.
#[derive(Debug, Deserialize)]
pub(in super::super) struct ExtraIn<'a> {
    #[serde(borrow)]
    google: Option<GoogleIn<'a>>,
}

#[derive(Debug, Deserialize)]
struct GoogleIn<'a> {
    #[serde(borrow)]
    thought_signature: Option<Str<'a>>,
}

impl<'a> ExtraIn<'a> {
    pub(in super::super) fn signature(extra: Option<Self>) -> Option<Text<'a>> {
        text(extra?.google?.thought_signature).filter(|signature| !signature.is_empty())
    }
}

pub(super) fn read<'a>(messages: Vec<MessageIn<'a>>) -> Result<Vec<Message<'a>>, CodecError> {
    if messages.is_empty() {
        return Err(CodecError::invalid("messages", "Expected at least one message."));
    }
    if messages.len() > usize::from(u16::MAX) {
        return Err(CodecError::invalid("messages", format!("More than {} messages.", u16::MAX)));
    }
    let each = messages.into_iter().zip(0_u16..);
    each.map(|(message, at)| message.read(at)).collect()
}

impl<'a> MessageIn<'a> {
    fn read(self, at: u16) -> Result<Message<'a>, CodecError> {
        let path = |member: &str| format!("messages[{at}].{member}");
        let role = match &*self.role.0 {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => return self.assistant(at),
            "tool" => return self.tool(at),
            "function" => {
                let message =
                    "The legacy role `function` is not translated: send `tool` with `tool_call_id`.";
                return Err(CodecError::unsupported(path("role"), message));
            }
            other => {
                let message = format!(
                    "Unknown role {other:?}. Expected one of system, developer, user, assistant, tool."
                );
                return Err(CodecError::invalid(path("role"), message));
            }
        };
        let content = self.content.ok_or_else(|| CodecError::invalid(path("content"), CONTENT))?;
        let parts = parts(content, || path("content"))?;
        if role != Role::User
            && let Some(part) = parts.iter().find(|part| !matches!(part.content, Content::Text { .. }))
        {
            let place = format!("{}[{}]", path("content"), part.at);
            return Err(CodecError::invalid(place, "Instructions are made of text alone."));
        }
        Ok(Message { role, parts, name: text(self.name), at })
    }

    fn assistant(self, at: u16) -> Result<Message<'a>, CodecError> {
        let path = |member: &str| format!("messages[{at}].{member}");
        if self.function_call.is_some() {
            let message = "The legacy `function_call` is not translated: send `tool_calls`.";
            return Err(CodecError::unsupported(path("function_call"), message));
        }
        if self.audio.is_some() {
            let message = "A spoken answer is kept by the provider that gave it, and can't go to another.";
            return Err(CodecError::unsupported(path("audio"), message));
        }
        let mut all = thoughts::read(self.reasoning_details, self.reasoning_content.or(self.reasoning));
        let first = all.len();
        if let Some(content) = self.content {
            let parts = parts(content, || path("content"))?;
            let empty =
                |part: &Part<'_>| matches!(&part.content, Content::Text { text, .. } if text.is_empty());
            all.extend(parts.into_iter().filter(|part| !empty(part)));
        }
        if let Some(refusal) = text(self.refusal).filter(|refusal| !refusal.is_empty()) {
            all.push(Part::new(Content::Refusal(refusal)));
        }
        if let Some(signature) = ExtraIn::signature(self.extra_content)
            && let Some(part) = all.get_mut(first)
        {
            part.signature = Some(signature);
        }
        for (call, index) in self.tool_calls.into_iter().flatten().zip(0_u16..) {
            all.push(call.read(|member| format!("{}[{index}]{member}", path("tool_calls")))?);
        }
        Ok(Message { role: Role::Assistant, parts: all, name: text(self.name), at })
    }

    fn tool(self, at: u16) -> Result<Message<'a>, CodecError> {
        let path = |member: &str| format!("messages[{at}].{member}");
        let id = self.tool_call_id.ok_or_else(|| {
            CodecError::invalid(path("tool_call_id"), "A result names the call that it answers.")
        })?;
        let (call_id, _) = tool_id::split_text(id.0);
        let content = self.content.ok_or_else(|| CodecError::invalid(path("content"), CONTENT))?;
        let content = parts(content, || path("content"))?;
        // A mark on the whole of it is what Anthropic knows.
        let cache = content.iter().find_map(|part| part.cache);
        let result = ToolResult { call_id, name: text(self.name), content, is_error: false };
        let part = Part { cache, ..Part::new(Content::ToolResult(result)) };
        Ok(Message { role: Role::User, parts: vec![part], name: None, at })
    }
}

const CONTENT: &str = "Expected a string or a list of parts.";

impl<'a> CallIn<'a> {
    fn read(self, path: impl Fn(&str) -> String) -> Result<Part<'a>, CodecError> {
        let id = text(self.id).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| CodecError::invalid(path(".id"), "A call has an id."))?;
        let (id, hidden) = tool_id::split_text(id);
        let (name, arguments, custom) = match (self.function, self.custom) {
            (Some(function), _) => (function.name.0, text(function.arguments), false),
            (None, Some(custom)) => (custom.name.0, text(custom.input), true),
            (None, None) => {
                return Err(CodecError::invalid(
                    path(""),
                    "A call has a member `function`, which is missing.",
                ));
            }
        };
        let call = ToolCall { id, name, arguments: arguments.unwrap_or_default(), custom };
        let signature = ExtraIn::signature(self.extra_content).or(hidden);
        Ok(Part { signature, ..Part::new(Content::ToolCall(call)) })
    }
}
