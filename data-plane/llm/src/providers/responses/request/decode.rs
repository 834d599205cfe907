//! A client's request, member by member.

use std::borrow::Cow;

use super::{
    super::{affinity, state},
    items, tools,
};
use crate::{
    Dialect,
    codec::CodecError,
    extras::ExtraField,
    ir::{Content, Effort, Format, Json, Logprobs, Message, Part, Reasoning, Request, Role, Text},
    providers::read::node::{self, Node, Path},
};

/// # Errors
/// What is wrong with it, and where.
pub fn decode(body: &[u8]) -> Result<Request<'_>, CodecError> {
    let mut reader = Reader { request: Request::new(Dialect::Responses, Text::Borrowed("")), input: None };
    node::body(body, |name, value| reader.member(&name, value))?;
    reader.finish()
}

struct Reader<'a> {
    request: Request<'a>,
    input: Option<Node<'a>>,
}

impl<'a> Reader<'a> {
    fn member(&mut self, name: &Text<'a>, value: Node<'a>) -> Result<(), CodecError> {
        let request = &mut self.request;
        let path = Path::top(name);
        match name.as_ref() {
            "model" => request.model = value.text(&path)?,
            "input" => self.input = Some(value),
            "instructions" => {
                let part = Part::text(value.text(&path)?);
                let message = Message { role: Role::System, parts: vec![part], name: None, at: 0 };
                request.messages.insert(0, message);
            }
            "stream" => request.stream = value.boolean(&path)?,
            "stream_options" => return self.stream_options(&path, name.clone(), value),
            "max_output_tokens" => request.max_output = Some(value.unsigned(&path)?),
            "temperature" => request.sampling.temperature = Some(value.float(&path)?),
            "top_p" => request.sampling.top_p = Some(value.float(&path)?),
            "top_logprobs" => {
                let top = u32::try_from(value.unsigned(&path)?).map_err(|_| path.must_be("at most 20"))?;
                // With 0, which is what clients echo from an answer, nothing is asked.
                if top > 0 {
                    request.logprobs = Some(Logprobs { top: Some(top) });
                }
            }
            "include" => return self.include(&path, name.clone(), value),
            "parallel_tool_calls" => request.parallel_tool_calls = Some(value.boolean(&path)?),
            "tools" => request.tools = tools::decode(value, &path)?,
            "tool_choice" => match tools::choice(value, &path)? {
                Some(choice) => request.tool_choice = Some(choice),
                None => return self.extra(&path, name.clone(), value),
            },
            "text" => return self.text(&path, value),
            "reasoning" => return self.reasoning(&path, value),
            "user" => request.user = Some(value.text(&path)?),
            "service_tier" => request.service_tier = Some(value.text(&path)?),
            "metadata" => request.metadata = Some(value.object(&path)?),
            "prompt_cache_key" => request.cache_key = Some(value.text(&path)?),
            "store" => request.store = Some(value.boolean(&path)?),
            "previous_response_id" => {
                request.previous_response_id = Some(affinity::unwrap(value.text(&path)?));
            }
            // What everybody does who does not know them.
            "truncation" if value.source() == r#""disabled""# => {}
            "background" if value.source() == "false" => {}
            other if ExtraField::from_name(other).is_some() => {}
            _ => return self.extra(&path, name.clone(), value),
        }
        Ok(())
    }

    fn extra(&mut self, path: &Path<'_>, name: Text<'a>, value: Node<'a>) -> Result<(), CodecError> {
        self.request.extras.push((name, value.json(path)?));
        Ok(())
    }

    /// There is nothing in it but a pad against eavesdroppers.
    fn stream_options(&mut self, path: &Path<'_>, name: Text<'a>, value: Node<'a>) -> Result<(), CodecError> {
        let mut obfuscated = false;
        value.members(path, |name, value| {
            if name == "include_obfuscation" {
                obfuscated = value.boolean(&path.key("include_obfuscation"))?;
            }
            Ok(())
        })?;
        if obfuscated { self.extra(path, name, value) } else { Ok(()) }
    }

    fn include(&mut self, path: &Path<'_>, name: Text<'a>, value: Node<'a>) -> Result<(), CodecError> {
        let mut unknown = false;
        value.elements(path, |index, value| {
            match value.text(&path.index(index))?.as_ref() {
                // Whoever has encrypted thoughts gets them sent in any case.
                "reasoning.encrypted_content" => {}
                "message.output_text.logprobs" => {
                    _ = self.request.logprobs.get_or_insert(Logprobs { top: None })
                }
                _ => unknown = true,
            }
            Ok(())
        })?;
        if unknown { self.extra(path, name, value) } else { Ok(()) }
    }

    fn text(&mut self, path: &Path<'_>, value: Node<'a>) -> Result<(), CodecError> {
        value.members(path, |name, value| {
            let path = path.key(&name);
            match name.as_ref() {
                "format" => self.request.format = format(value, &path)?,
                // The default.
                "verbosity" if value.source() == r#""medium""# => {}
                _ => self.request.extras.push((path.to_string().into(), value.json(&path)?)),
            }
            Ok(())
        })
    }

    fn reasoning(&mut self, path: &Path<'_>, value: Node<'a>) -> Result<(), CodecError> {
        let mut reasoning = Reasoning::default();
        value.members(path, |name, value| {
            let path = path.key(&name);
            match name.as_ref() {
                "effort" => {
                    let effort = Effort::from_name(&value.text(&path)?);
                    reasoning.effort = Some(effort.ok_or_else(|| {
                        path.must_be("one of none, minimal, low, medium, high, xhigh and max")
                    })?);
                }
                "summary" | "generate_summary" => {
                    value.text(&path)?;
                    reasoning.visible = Some(true);
                }
                _ => self.request.extras.push((path.to_string().into(), value.json(&path)?)),
            }
            Ok(())
        })?;
        self.request.reasoning = (reasoning != Reasoning::default()).then_some(reasoning);
        Ok(())
    }

    fn finish(mut self) -> Result<Request<'a>, CodecError> {
        let path = Path::top("input");
        match self.input {
            Some(input) if input.is_string() => {
                let part = Part::text(input.text(&path)?);
                self.request.messages.push(Message {
                    role: Role::User,
                    parts: vec![part],
                    name: None,
                    at: 0,
                });
            }
            Some(input) if input.is_array() => items::decode(input, &path, &mut self.request.messages)?,
            Some(_) => return Err(path.must_be("a string or an array of items")),
            // What is gone on with may be enough.
            None if self.goes_on() => {}
            None => return Err(path.required("a string or an array of items")),
        }
        // A call that is answered may be among what the provider keeps.
        if !self.goes_on()
            && let Err((message, _)) = self.request.link_tool_results()
        {
            let path = format!("input[{message}].call_id");
            let message = format!("`{path}` must be that of a call before it: there is none.");
            return Err(CodecError::invalid(path, message));
        }
        Ok(self.request)
    }

    /// Part of the input is kept by the provider.
    fn goes_on(&self) -> bool {
        let request = &self.request;
        request.previous_response_id.is_some()
            || request.extras.iter().any(|(name, _)| matches!(name.as_ref(), "conversation" | "prompt"))
            || request.messages.iter().flat_map(|message| &message.parts).any(|part| {
                matches!(&part.content, Content::Opaque { value, .. } if state::is_reference(value.get()))
            })
    }
}

/// `text.format`; plain text is what everybody writes.
fn format<'a>(value: Node<'a>, path: &Path<'_>) -> Result<Option<Format<'a>>, CodecError> {
    let (mut kind, mut name, mut description) = (None, None, None);
    let (mut schema, mut strict): (Option<Json<'a>>, _) = (None, None);
    value.members(path, |key, value| {
        let path = path.key(&key);
        match key.as_ref() {
            "type" => kind = Some(value.text(&path)?),
            "name" => name = Some(value.text(&path)?),
            "description" => description = Some(value.text(&path)?),
            "schema" => schema = Some(value.object(&path)?),
            "strict" => strict = Some(value.boolean(&path)?),
            _ => {}
        }
        Ok(())
    })?;
    let expected = "one of text, json_object and json_schema";
    match kind.unwrap_or(Cow::Borrowed("")).as_ref() {
        "text" => Ok(None),
        "json_object" => Ok(Some(Format::Json)),
        "json_schema" => {
            let schema =
                schema.ok_or_else(|| path.key("schema").required("the JSON schema of the answer"))?;
            Ok(Some(Format::Schema { name, description, schema, strict }))
        }
        "" => Err(path.key("type").required(expected)),
        _ => Err(path.key("type").must_be(expected)),
    }
}
