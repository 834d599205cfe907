//! Functions, the provider's own tools, and the choice among them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{
        claude::Claude,
        schema,
        wire::Str,
        writer::{self, Array, Object},
    },
    encode::Dropped,
    format::{Form, JSON_TOOL},
    messages::{Conversation, cache_control},
};
use crate::{
    CodecError, Dialect,
    ir::{Param, Request, Tool, ToolChoice, ToolKind},
};

/// Parameters of a function that has none.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;
const MAX_NAME: usize = 128;
/// More are refused.
const MAX_STRICT: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice<'r> {
    Auto,
    None,
    Any,
    Tool(&'r str),
}

#[derive(Debug)]
pub(super) struct Tools<'r, 'a> {
    tools: Vec<&'r Tool<'a>>,
    /// Functions that were called earlier and are not offered any more: Claude wants to know them all the same.
    former: Vec<&'r str>,
    choice: Option<Choice<'r>>,
    one_at_a_time: bool,
}

impl<'r, 'a> Tools<'r, 'a> {
    pub(super) fn of(
        request: &'r Request<'a>,
        conversation: &Conversation<'r, 'a>,
    ) -> Result<Self, CodecError> {
        let mut tools: Vec<_> = request.tools.iter().collect();
        for tool in &tools {
            check(tool, request.dialect)?;
        }
        let known = |name: &str| request.tools.iter().any(|tool| tool.name == name);
        let unknown = |name: &str| {
            let path = Param::ToolChoice.name(request.dialect);
            let message = format!("`{path}` names `{name}`, which is none of `tools`.");
            CodecError::invalid(path, message)
        };
        let choice = match &request.tool_choice {
            _ if tools.is_empty() => None,
            None => None,
            Some(ToolChoice::Auto) => Some(Choice::Auto),
            Some(ToolChoice::None) => Some(Choice::None),
            Some(ToolChoice::Required) => Some(Choice::Any),
            Some(ToolChoice::Function(name)) if known(name) => Some(Choice::Tool(name)),
            Some(ToolChoice::Function(name)) => return Err(unknown(name)),
            Some(ToolChoice::Allowed { names, required }) => {
                if let Some(name) = names.iter().find(|name| !known(name)) {
                    return Err(unknown(name));
                }
                tools.retain(|tool| names.contains(&tool.name));
                Some(if *required { Choice::Any } else { Choice::Auto })
            }
        };
        let former = if tools.is_empty() { conversation.called() } else { Vec::new() };
        let one_at_a_time = request.parallel_tool_calls == Some(false);
        Ok(Self { tools, former, choice, one_at_a_time })
    }

    /// The client relies on a call.
    pub(super) fn must_be_called(&self) -> bool {
        !self.tools.is_empty() && matches!(self.choice, Some(Choice::Any | Choice::Tool(_)))
    }

    pub(super) fn only_may_be_called(&mut self) {
        self.choice = Some(Choice::Auto);
    }

    /// # Errors
    /// When a tool of the client's has the name that the gateway needs for its own.
    pub(super) fn no_other_named(&self, request: &Request<'_>, name: &str) -> Result<(), CodecError> {
        match self.tools.iter().find(|tool| tool.name == name) {
            None => Ok(()),
            Some(tool) => {
                let path = name_path(tool, request.dialect);
                let message = format!(
                    "`{path}` can't be `{name}` for this model: the gateway uses that name for answers in JSON."
                );
                Err(CodecError::unsupported(path, message))
            }
        }
    }

    pub(super) fn write(
        mut self,
        body: &mut Object<'_>,
        claude: Claude,
        hosted: bool,
        form: &Form<'_, '_>,
        dropped: &mut Dropped,
    ) -> Result<(), CodecError> {
        let asked = match form {
            Form::Tool { asked, .. } => Some(*asked),
            _ => None,
        };
        if asked.is_some() && self.choice == Some(Choice::None) {
            // The function of the form is the only one that may be called.
            self.tools.clear();
        }
        if self.tools.is_empty() && self.former.is_empty() && asked.is_none() {
            return Ok(());
        }
        let mut array = Array::open(body.member("tools"));
        let mut strict = 0;
        for tool in &self.tools {
            let held = claude.holds_schemas(hosted) && strict < MAX_STRICT;
            strict += usize::from(write_tool(array.item(), tool, held, dropped));
        }
        for name in &self.former {
            write_function(&mut array, name, None, NO_PARAMETERS);
        }
        if let Form::Tool { schema, description, .. } = form {
            let description = description.unwrap_or("The answer, in the form that is asked for.");
            write_function(&mut array, JSON_TOOL, Some(description), schema);
        }
        array.close();
        self.write_choice(body, asked);
        Ok(())
    }

    fn write_choice(&self, body: &mut Object<'_>, form_is_asked: Option<bool>) {
        let choice = match form_is_asked {
            Some(true) => Some(Choice::Auto),
            Some(false) if self.tools.is_empty() => Some(Choice::Tool(JSON_TOOL)),
            Some(false) => Some(Choice::Any),
            None if self.tools.is_empty() => Some(Choice::None),
            None => self.choice,
        };
        let one =
            (self.one_at_a_time || choice == Some(Choice::Tool(JSON_TOOL))) && choice != Some(Choice::None);
        let Some(choice) = choice.or(one.then_some(Choice::Auto)) else { return };
        let mut object = Object::open(body.member("tool_choice"));
        match choice {
            Choice::Auto => object.value("type", "auto"),
            Choice::None => object.value("type", "none"),
            Choice::Any => object.value("type", "any"),
            Choice::Tool(name) => {
                object.value("type", "tool");
                object.value("name", name);
            }
        }
        if one {
            object.value("disable_parallel_tool_use", true);
        }
        object.close();
    }
}

fn name_path(tool: &Tool<'_>, dialect: Dialect) -> String {
    match dialect {
        Dialect::Chat => format!("tools[{}].function.name", tool.at),
        _ => format!("tools[{}].name", tool.at),
    }
}

fn schema_path(tool: &Tool<'_>, dialect: Dialect) -> String {
    match dialect {
        Dialect::Chat => format!("tools[{}].function.parameters", tool.at),
        Dialect::Messages => format!("tools[{}].input_schema", tool.at),
        _ => format!("tools[{}].parameters", tool.at),
    }
}

fn check(tool: &Tool<'_>, dialect: Dialect) -> Result<(), CodecError> {
    match &tool.kind {
        ToolKind::Native { dialect: Dialect::Messages, .. } => Ok(()),
        ToolKind::Native { .. } => {
            let path = format!("tools[{}]", tool.at);
            let message = format!("`{path}` is a tool of another provider: this model takes functions.");
            Err(CodecError::unsupported(path, message))
        }
        ToolKind::Function { parameters, .. } => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            if tool.name.is_empty() || tool.name.len() > MAX_NAME || !tool.name.bytes().all(fits) {
                let path = name_path(tool, dialect);
                let message =
                    format!("`{path}` must be 1 to {MAX_NAME} letters, digits, `_` and `-` for this model.");
                return Err(CodecError::unsupported(path, message));
            }
            if parameters.as_ref().is_some_and(|schema| !is_object_schema(schema.get())) {
                let path = schema_path(tool, dialect);
                let message = format!("`{path}` must be a JSON schema of type `object`.");
                return Err(CodecError::invalid(path, message));
            }
            Ok(())
        }
    }
}

/// The members of a schema that decide what it is of.
#[derive(Debug, Deserialize)]
struct Top<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Str<'a>>,
}

/// Of objects, said or unsaid.
pub(super) fn is_object_schema(json: &str) -> bool {
    json.starts_with('{')
        && serde_json::from_str::<Top<'_>>(json)
            .is_ok_and(|top| top.kind.is_none_or(|kind| kind.0 == "object"))
}

/// Writes a schema of objects, with its type, which Claude wants to be said.
fn write_schema(out: &mut Vec<u8>, json: &str) {
    let is_said = serde_json::from_str::<Top<'_>>(json).is_ok_and(|top| top.kind.is_some());
    let members = json.get(1..).unwrap_or("}");
    match members.trim_start().starts_with('}') {
        _ if is_said => writer::raw(out, json),
        true => writer::raw(out, NO_PARAMETERS),
        false => {
            out.extend_from_slice(br#"{"type":"object","#);
            writer::raw(out, members);
        }
    }
}

fn write_function(array: &mut Array<'_>, name: &str, description: Option<&str>, schema: &str) {
    let mut object = Object::open(array.item());
    object.value("name", name);
    if let Some(description) = description {
        object.value("description", description);
    }
    write_schema(object.member("input_schema"), schema);
    object.close();
}

/// Tells whether it was written as strict. `held`: the model can be.
fn write_tool(out: &mut Vec<u8>, tool: &Tool<'_>, held: bool, dropped: &mut Dropped) -> bool {
    let (parameters, strict) = match &tool.kind {
        ToolKind::Native { value, .. } => {
            writer::raw(out, value.get());
            return false;
        }
        ToolKind::Function { parameters, strict } => (parameters.as_deref(), *strict == Some(true)),
    };
    let strict = strict && {
        let possible = held && parameters.is_some_and(schema::is_native);
        dropped.add_if(!possible, Param::Strict);
        possible
    };
    let mut object = Object::open(out);
    object.value("name", &tool.name);
    if let Some(description) = tool.description.as_deref().filter(|it| !it.is_empty()) {
        object.value("description", description);
    }
    write_schema(object.member("input_schema"), parameters.map_or(NO_PARAMETERS, RawValue::get));
    if strict {
        object.value("strict", true);
    }
    if let Some(mark) = tool.cache {
        cache_control(&mut object, mark);
    }
    object.close();
    strict
}
