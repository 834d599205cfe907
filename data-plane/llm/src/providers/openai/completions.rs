//! Legacy Completions, for clients of upstreams that have none: the prompt becomes what a user says.

use std::borrow::Cow;

use nemo_types::Usage;
use serde_json::value::RawValue;

use super::{
    request::parameter,
    response::{head, reason},
    usage,
};
use crate::{
    codec::{CodecError, Echo},
    dialect::Dialect,
    ir::{self, Content, Delta, Event, Message, Part, Request, Response, Role, Text},
    providers::{
        read::{self, Members, Str, text},
        write::{self, Object},
    },
};

/// # Errors
/// What is wrong, by its path; and what only a model that completes text can do.
pub fn decode(body: &[u8]) -> Result<Request<'_>, CodecError> {
    let Members(members) = read::body(body)?;
    let mut request = Request::new(Dialect::Completions, Cow::Borrowed(""));
    let mut prompt = None;
    let mut best_of = None;
    for (name, json) in members {
        match &*name.0 {
            "model" => request.model = text(read::member::<Str<'_>>("model", json)?).unwrap_or_default(),
            "prompt" => prompt = Some(self::prompt(json)?),
            "max_completion_tokens" | "max_tokens" => {
                let limit = read::member::<u64>(&name.0, json)?;
                request.max_output = request.max_output.into_iter().chain(limit).min();
            }
            "best_of" => best_of = read::member::<u32>("best_of", json)?,
            "suffix" => refuse(
                &name,
                read::member::<Str<'_>>("suffix", json)?.is_some_and(|text| !text.0.is_empty()),
            )?,
            "echo" => refuse(&name, read::member::<bool>("echo", json)? == Some(true))?,
            _ => parameter(&mut request, name, json)?,
        }
    }
    if best_of.is_some_and(|best_of| best_of > request.choices) {
        return refuse(&Str("best_of".into()), true).map(|()| request);
    }
    let prompt = prompt.ok_or_else(|| CodecError::invalid("prompt", "Missing field `prompt`."))?;
    request.messages = vec![Message { role: Role::User, parts: vec![Part::text(prompt)], name: None, at: 0 }];
    Ok(request)
}

fn refuse(name: &Str<'_>, asked: bool) -> Result<(), CodecError> {
    if asked {
        let message = "The model's provider has no completions, and its chats can't do this.";
        return Err(CodecError::unsupported(name.0.clone(), message));
    }
    Ok(())
}

/// One text. Several prompts would be several conversations, and token numbers mean something to one model alone.
fn prompt(json: &RawValue) -> Result<Text<'_>, CodecError> {
    if json.get().starts_with('"') {
        return Ok(read::member::<Str<'_>>("prompt", json)?.unwrap_or_default().0);
    }
    match read::member::<Vec<&RawValue>>("prompt", json)?.as_deref() {
        Some([one]) if one.get().starts_with('"') => Ok(read::value::<Str<'_>>("prompt[0]", one.get())?.0),
        Some([first, ..]) if first.get().starts_with('"') => {
            Err(CodecError::unsupported("prompt", "The model's provider takes one prompt at a time."))
        }
        Some([_, ..]) => {
            Err(CodecError::unsupported("prompt", "The model's provider takes text, not numbers of tokens."))
        }
        Some([]) | None => Err(CodecError::invalid("prompt", "Expected a string, or a list with one.")),
    }
}

pub fn encode(response: &Response<'_>, echo: &Echo) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    let mut out = Object::open(&mut body);
    head(&mut out, "text_completion", &response.id, &response.model, response.created, echo);
    out.array("choices", &response.choices, |out, choice| {
        let words = choice.parts.iter().filter_map(|part| match &part.content {
            Content::Text { text, .. } | Content::Refusal(text) => Some(&**text),
            _ => None,
        });
        let finish = reason(choice.finish.as_ref());
        self::choice(out, choice.index, &words.collect::<String>(), Some(finish.as_str()));
    });
    if let Some(counts) = &response.usage {
        usage::write(out.member("usage"), counts);
    }
    out.close();
    body
}

fn choice(out: &mut Vec<u8>, index: u32, text: &str, finish: Option<&str>) {
    write::object(out, |out| {
        out.text("text", text);
        out.value("index", index);
        out.raw("logprobs", "null");
        match finish {
            Some(reason) => out.text("finish_reason", reason),
            None => out.raw("finish_reason", "null"),
        }
    });
}

/// Events as chunks of a completion. Thoughts and calls have no place in it.
#[derive(Debug)]
pub struct Encoder {
    echo: Echo,
    /// `data: {"id":…,"object":…,"created":…,"model":…`
    head: Vec<u8>,
    usage: Option<Usage>,
}

impl Encoder {
    pub fn new(echo: Echo) -> Self {
        Self { echo, head: Vec::new(), usage: None }
    }

    pub fn event(&mut self, event: &ir::Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created, .. } => {
                self.head.clear();
                self.head.extend_from_slice(b"data: ");
                let mut object = Object::open(&mut self.head);
                head(&mut object, "text_completion", id, model, *created, &self.echo);
            }
            Event::Delta { choice, delta: Delta::Text(text) | Delta::Refusal(text), .. } => {
                self.chunk(*choice, text, None, out);
            }
            Event::Finish { choice, finish } => self.chunk(*choice, "", Some(finish.reason().as_str()), out),
            Event::Usage(counts) => self.usage = Some(*counts),
            Event::End => {
                if let Some(counts) = self.usage.as_ref().filter(|_| self.echo.include_usage) {
                    out.extend_from_slice(&self.head);
                    out.extend_from_slice(b",\"choices\":[],\"usage\":");
                    usage::write(out, counts);
                    out.extend_from_slice(b"}\n\n");
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            _ => {}
        }
    }

    fn chunk(&self, index: u32, text: &str, finish: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[");
        choice(out, index, text, finish);
        out.push(b']');
        if self.echo.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
    }
}
