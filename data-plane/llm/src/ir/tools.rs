//! Functions that a model may call, its calls, and what came of them.

use super::{Json, Part, Text};
use crate::Dialect;

#[derive(Clone, Debug)]
pub struct Tool<'a> {
    pub name: Text<'a>,
    pub description: Option<Text<'a>>,
    pub kind: ToolKind<'a>,
    pub cache: Option<super::CacheMark>,
    /// Index among the client's tools, for errors.
    pub at: u16,
}

#[derive(Clone, Debug)]
pub enum ToolKind<'a> {
    /// The client runs it.
    Function {
        /// JSON schema; `None`: no arguments.
        parameters: Option<Json<'a>>,
        strict: Option<bool>,
    },
    /// The provider runs it, or it has a shape of its own; the whole tool as this dialect has it.
    Native { dialect: Dialect, value: Json<'a> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    Auto,
    None,
    /// At least one call, of whichever function.
    Required,
    Function(Text<'a>),
    /// OpenAI's `allowed_tools`: only these; `required`: at least one of them.
    Allowed {
        names: Vec<Text<'a>>,
        required: bool,
    },
}

#[derive(Clone, Debug)]
pub struct ToolCall<'a> {
    /// Empty where the dialect has none (Gemini); the writer makes one up.
    pub id: Text<'a>,
    pub name: Text<'a>,
    /// JSON text, which models don't always get right.
    pub arguments: Text<'a>,
    /// OpenAI's custom tools take text, not JSON.
    pub custom: bool,
}

#[derive(Clone, Debug)]
pub struct ToolResult<'a> {
    pub call_id: Text<'a>,
    /// Of the function; dialects without ids go by it. Filled in by [`super::Request::link_tool_results`].
    pub name: Option<Text<'a>>,
    pub content: Vec<Part<'a>>,
    pub is_error: bool,
}
