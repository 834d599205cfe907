//! Requests to Converse and ConverseStream, which have the same body: the model and whether to stream stand in the path.

mod messages;
mod settings;
mod tools;

use super::{family::Family, fields::Body};
use crate::{
    codec::{CodecError, Destination, Encoded},
    ir::{Param, Request},
    providers::place,
    transcode::JSON_TOOL,
};

/// How errors call this target.
const NAME: &str = "Bedrock's Converse API";

/// What the parts of a request are written with.
struct Writing<'a, 'r> {
    request: &'r Request<'a>,
    to: &'r Destination<'r>,
    family: Family,
    dropped: Vec<Param>,
}

impl Writing<'_, '_> {
    fn drop(&mut self, param: Param) {
        place::drop(&mut self.dropped, param);
    }
}

/// # Errors
/// What Bedrock can't do, or would refuse in its own words.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    place::one_text_answer(request, NAME)?;
    let mut writing = Writing { request, to, family: Family::of(to.model), dropped: Vec::new() };
    let settings = settings::write(&mut writing);
    let tools = tools::write(&mut writing, settings.thinks)?;
    let conversation = messages::write(&mut writing, tools.instruction)?;
    let body = Body {
        messages: conversation.messages,
        system: conversation.system,
        inference_config: settings.inference,
        tool_config: tools.config,
        output_config: tools.output,
        additional_model_request_fields: settings.additional,
        additional_model_response_field_paths: settings.answer_paths,
        request_metadata: settings.metadata,
        service_tier: settings.tier,
    };
    let mut out = Vec::with_capacity(1024);
    crate::providers::write::value(&mut out, &body);
    Ok(Encoded { forced_tool: tools.forced, ..Encoded::new(out, writing.dropped) })
}

#[cfg(test)]
mod tests;
