//! Answers in JSON: natively where the model can be held to the schema, else as the arguments of a function that it must
//! call, which the gateway shows to the client as text.

use super::{
    super::{claude::Claude, schema},
    encode::Dropped,
    tools::Tools,
};
pub(super) use crate::transcode::JSON_TOOL;
use crate::{CodecError, ir};

/// Its parameters when any object will do.
const ANY_OBJECT: &str = r#"{"type":"object","additionalProperties":true}"#;
/// For a model that thinks, and so can't be forced.
const INSTRUCTION: &str = "Give your final answer by calling the function `json_response` once, with the answer as its arguments. Write no text beside it.";

/// How the answer gets its form.
#[derive(Debug)]
pub(super) enum Form<'r, 'a> {
    Free,
    Native(&'r ir::Json<'a>),
    Tool {
        schema: &'r str,
        description: Option<&'r str>,
        /// The model is asked to call it; otherwise it must.
        asked: bool,
    },
}

impl<'r, 'a> Form<'r, 'a> {
    pub(super) fn of(
        request: &'r ir::Request<'a>,
        claude: Claude,
        hosted: bool,
        tools: &mut Tools<'r, 'a>,
        thinks: bool,
        dropped: &mut Dropped,
    ) -> Result<Self, CodecError> {
        let Some(format) = &request.format else { return Ok(Self::Free) };
        // Then the answer is a call, and has the form of its parameters.
        if tools.must_be_called() {
            return Ok(Self::Free);
        }
        let (schema, description) = match format {
            ir::Format::Schema { schema, .. }
                if claude.holds_schemas(hosted) && schema::is_native(schema) =>
            {
                return Ok(Self::Native(schema));
            }
            ir::Format::Schema { schema, description, .. } => (schema.get(), description.as_deref()),
            ir::Format::Json => (ANY_OBJECT, None),
        };
        if !super::tools::is_object_schema(schema) {
            let path = ir::Param::Format.name(request.dialect);
            let message = format!("`{path}` must have a schema of type `object` for this model.");
            return Err(CodecError::unsupported(path, message));
        }
        tools.no_other_named(request, JSON_TOOL)?;
        let strict = matches!(format, ir::Format::Schema { strict: Some(true), .. });
        // The model sees the schema, and is not held to it.
        dropped.add_if(strict, ir::Param::Strict);
        Ok(Self::Tool { schema, description, asked: thinks })
    }

    pub(super) fn is_tool(&self) -> bool {
        matches!(self, Self::Tool { .. })
    }

    pub(super) fn native_schema(&self) -> Option<&'r str> {
        match self {
            Self::Native(schema) => Some(schema.get()),
            _ => None,
        }
    }

    /// What is added to the system prompt.
    pub(super) fn instruction(&self) -> Option<&'static str> {
        match self {
            Self::Tool { asked: true, .. } => Some(INSTRUCTION),
            _ => None,
        }
    }
}
