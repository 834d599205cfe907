//! What a client of Google's asks, into the hub.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
};

use serde_json::value::RawValue;

use super::super::{
    schema, signature,
    wire::{
        self, Content, FunctionCallingConfig, FunctionDeclaration, Members, Part as WirePart, ThinkingConfig,
    },
    write,
};
use crate::{
    Dialect,
    codec::{CodecError, Inbound},
    ir::{
        self, Document, Effort, Format, Json, Logprobs, Media, Message, Part, Reasoning, Request, Role,
        Source, Text, Thinking, Tool, ToolCall, ToolChoice, ToolKind, ToolResult,
    },
};

/// Most members of a body: what is lost of its parts is looked for among those that nobody knows.
const MAX_MEMBERS: usize = 256;

/// # Errors
/// What is wrong with it, or what only Google could do for it.
pub fn decode<'a>(body: &'a [u8], inbound: Inbound<'a>) -> Result<Request<'a>, CodecError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| CodecError::invalid("", "The body is not UTF-8, as JSON has to be."))?;
    let members: Members<'a> = wire::read(text, "")?;
    let mut request = Request::new(Dialect::GenerateContent, inbound.model.into());
    request.stream = inbound.stream;
    request.include_usage = inbound.stream;
    no_twins(&members, "")?;
    if members.0.len() > MAX_MEMBERS {
        return Err(CodecError::invalid("", format!("More than {MAX_MEMBERS} members.")));
    }
    for (name, value) in members.0 {
        top_level(&mut request, name, value)?;
    }
    if request.messages.iter().all(|message| message.role == Role::System) {
        return Err(CodecError::invalid(
            "contents",
            "There is none: expected a list of at least one content.",
        ));
    }
    // The instructions come first, wherever they stand in the body.
    request.messages.sort_by_key(|message| message.role != Role::System);
    link(&mut request)?;
    Ok(request)
}

/// A member that is there twice would be read one way here and another way elsewhere.
fn no_twins(members: &Members<'_>, path: &str) -> Result<(), CodecError> {
    let mut seen = HashSet::with_capacity(members.0.len());
    let mut names = members.0.iter().map(|(name, _)| name);
    match names.find(|name| !seen.insert(camel(name))) {
        Some(twin) => Err(CodecError::invalid(format!("{path}{twin}"), "This member is there twice.")),
        None => Ok(()),
    }
}

/// `snake_case` as `snakeCase`.
pub(in super::super) fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|it| it.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    Cow::Owned(out)
}

fn top_level<'a>(request: &mut Request<'a>, name: Text<'a>, value: &'a RawValue) -> Result<(), CodecError> {
    if value.get() == "null" {
        return Ok(());
    }
    match &*camel(&name) {
        "contents" => contents(request, value)?,
        "systemInstruction" => system(request, value)?,
        "tools" => tools(request, value)?,
        "toolConfig" => tool_config(request, value)?,
        "generationConfig" => generation_config(request, value)?,
        "cachedContent" => {
            let message = "Content that Google keeps can be used with Google's models only.";
            return Err(CodecError::unsupported("cachedContent", message));
        }
        "serviceTier" => {
            let tier: wire::Str<'a> = wire::read(value.get(), "serviceTier")?;
            request.service_tier = match tier.0.to_ascii_lowercase().as_str() {
                "standard" => Some("default".into()),
                "unspecified" => None,
                other => Some(other.to_owned().into()),
            };
        }
        "labels" => request.metadata = Some(Cow::Borrowed(value)),
        "store" => request.store = Some(wire::read(value.get(), "store")?),
        "model" => {
            if request.model.is_empty() {
                request.model = wire::read::<wire::Str<'a>>(value.get(), "model")?.0;
            }
        }
        _ => request.extras.push((name, Cow::Borrowed(value))),
    }
    Ok(())
}

fn index(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

fn contents<'a>(request: &mut Request<'a>, value: &'a RawValue) -> Result<(), CodecError> {
    let contents: Vec<Content<'a>> = wire::read(value.get(), "contents")?;
    request.messages.reserve(contents.len() + 1);
    for (at, content) in contents.into_iter().enumerate() {
        let role = match content.role.as_ref().map(|role| &*role.0) {
            None | Some("" | "user" | "function") => Role::User,
            Some("model") => Role::Assistant,
            Some(other) => {
                let message = format!("There is no role {other:?}: expected \"user\" or \"model\".");
                return Err(CodecError::invalid(format!("contents[{at}].role"), message));
            }
        };
        let mut parts = Vec::with_capacity(content.parts.as_ref().map_or(0, Vec::len));
        for (nth, part) in content.parts.into_iter().flatten().enumerate() {
            note_lost(&part, &mut request.extras);
            let place = || format!("contents[{at}].parts[{nth}]");
            let mut part = read_part(part, role, &place)?;
            part.at = index(nth);
            parts.push(part);
        }
        request.messages.push(Message { role, parts, name: None, at: index(at) });
    }
    Ok(())
}

/// What stands beside a film or an image and says how it is to be looked at.
fn note_lost<'a>(part: &WirePart<'a>, extras: &mut Vec<(Text<'a>, Json<'a>)>) {
    for (name, value) in [
        ("contents.parts.videoMetadata", part.video_metadata),
        ("contents.parts.mediaResolution", part.media_resolution),
    ] {
        if let Some(value) = value
            && !extras.iter().any(|(noted, _)| noted == name)
        {
            extras.push((name.into(), Cow::Borrowed(value)));
        }
    }
}

fn read_part<'a>(
    mut wire: WirePart<'a>,
    role: Role,
    place: &dyn Fn() -> String,
) -> Result<Part<'a>, CodecError> {
    let signed = wire.thought_signature.take().map(|it| it.0);
    let invalid = |message: &str| CodecError::invalid(place(), message);
    if let Some(text) = wire.text {
        if wire.thought == Some(true) {
            let mut thinking = Thinking { text: text.0, ..Thinking::default() };
            if let Some(signed) = signed {
                signature::into_thinking(signed, &mut thinking);
            }
            return Ok(Part::new(ir::Content::Thinking(thinking)));
        }
        let signature = signed.map(signature::from_wire);
        return Ok(Part { signature, ..Part::text(text.0) });
    }
    let content = if let Some(blob) = wire.inline_data {
        let data = wire::standard_base64(blob.data).ok_or_else(|| {
            CodecError::invalid(format!("{}.inlineData.data", place()), "This is no base64.")
        })?;
        let name = blob.display_name.map(|it| it.0);
        media(&blob.mime_type.clone(), Source::Base64 { media_type: blob.mime_type, data }, name)
    } else if let Some(file) = wire.file_data {
        let name = file.display_name.map(|it| it.0);
        let guess = || write::media_type_of(&file.file_uri).unwrap_or("application/octet-stream").into();
        let kind = file.mime_type.map_or_else(guess, |it| it.0);
        media(&kind, source_of(file.file_uri), name)
    } else if let Some(call) = wire.function_call {
        if role != Role::Assistant {
            return Err(invalid("A function is called by the model: expected \"role\": \"model\"."));
        }
        let arguments = call.args.filter(|args| args.get() != "null").map_or("{}", RawValue::get);
        if !arguments.starts_with('{') {
            let place = format!("{}.functionCall.args", place());
            return Err(CodecError::invalid(place, "Arguments are an object."));
        }
        let id = call.id.unwrap_or_default().0;
        ir::Content::ToolCall(ToolCall { id, name: call.name, arguments: arguments.into(), custom: false })
    } else if let Some(response) = wire.function_response {
        if role != Role::User {
            return Err(invalid(
                "A function's response is no part of what the model says: expected \"role\": \"user\".",
            ));
        }
        ir::Content::ToolResult(result(response, place)?)
    } else if let Some((name, value)) = wire.opaque() {
        let value = Cow::Owned(write::raw(format!("{{\"{name}\":{}}}", value.get())));
        ir::Content::Opaque { dialect: Dialect::GenerateContent, value }
    } else if signed.is_some() || wire.thought.is_some() {
        // What is left of an empty part that carries a signature.
        ir::Content::Text { text: "".into(), citations: Vec::new() }
    } else {
        return Err(invalid(
            "There is nothing in this part that we know: expected text, inlineData, fileData, functionCall or \
             functionResponse.",
        ));
    };
    Ok(Part { signature: signed.map(signature::from_wire), ..Part::new(content) })
}

fn media<'a>(media_type: &str, source: Source<'a>, name: Option<Text<'a>>) -> ir::Content<'a> {
    let media = |source| Media { source, detail: None };
    match media_type.split('/').next().unwrap_or_default() {
        "image" => ir::Content::Image(media(source)),
        "audio" => ir::Content::Audio(media(source)),
        "video" => ir::Content::Video(media(source)),
        _ => ir::Content::Document(Document { source, name, context: None, citations: false }),
    }
}

fn source_of(uri: Text<'_>) -> Source<'_> {
    let kept = ["gs://", "files/", "https://generativelanguage.googleapis.com/"];
    if kept.iter().any(|prefix| uri.starts_with(prefix)) { Source::File(uri) } else { Source::Url(uri) }
}

/// `{"output": …}` and `{"error": …}` are Google's advice; whatever else there is, is the output.
fn result<'a>(
    response: wire::FunctionResponse<'a>,
    place: &dyn Fn() -> String,
) -> Result<ToolResult<'a>, CodecError> {
    let path = || format!("{}.functionResponse", place());
    let mut content = Vec::new();
    let mut is_error = false;
    if let Some(value) = response.response.filter(|it| it.get() != "null") {
        let Members(members) = wire::read(value.get(), &format!("{}.response", path()))?;
        let mut text: Text<'a> = value.get().into();
        if let [(name, only)] = members.as_slice() {
            is_error = name == "error";
            if is_error || matches!(&**name, "output" | "result") {
                text = serde_json::from_str::<wire::Str<'a>>(only.get())
                    .map_or_else(|_| only.get().into(), |it| it.0);
            }
        }
        content.push(Part::text(text));
    }
    for (nth, part) in response.parts.into_iter().flatten().enumerate() {
        content.push(read_part(part, Role::User, &|| format!("{}.parts[{nth}]", path()))?);
    }
    let call_id = response.id.unwrap_or_default().0;
    Ok(ToolResult { call_id, name: Some(response.name), content, is_error })
}

fn system<'a>(request: &mut Request<'a>, value: &'a RawValue) -> Result<(), CodecError> {
    let path = "systemInstruction";
    let content: Content<'a> = if value.get().starts_with('"') {
        let text = wire::read(value.get(), path)?;
        Content { role: None, parts: Some(vec![WirePart { text: Some(text), ..WirePart::default() }]) }
    } else {
        wire::read(value.get(), path)?
    };
    let mut parts = Vec::new();
    for (nth, part) in content.parts.into_iter().flatten().enumerate() {
        let Some(text) = part.text else {
            return Err(CodecError::invalid(format!("{path}.parts[{nth}]"), "Instructions are text."));
        };
        parts.push(Part { at: index(nth), ..Part::text(text.0) });
    }
    if !parts.is_empty() {
        request.messages.push(Message { role: Role::System, parts, name: None, at: 0 });
    }
    Ok(())
}

fn tools<'a>(request: &mut Request<'a>, value: &'a RawValue) -> Result<(), CodecError> {
    let tools: Vec<Members<'a>> = wire::read(value.get(), "tools")?;
    let mut names = HashSet::new();
    for (at, Members(members)) in tools.into_iter().enumerate() {
        for (name, value) in members {
            if value.get() == "null" {
                continue;
            }
            if &*camel(&name) == "functionDeclarations" {
                functions(request, &mut names, at, value)?;
                continue;
            }
            let value = write::raw(format!("{{{}:{}}}", write::quoted(&camel(&name)), value.get()));
            let kind = ToolKind::Native { dialect: Dialect::GenerateContent, value: Cow::Owned(value) };
            request.tools.push(Tool { name, description: None, kind, cache: None, at: index(at) });
        }
    }
    Ok(())
}

fn functions<'a>(
    request: &mut Request<'a>,
    names: &mut HashSet<Text<'a>>,
    at: usize,
    value: &'a RawValue,
) -> Result<(), CodecError> {
    let path = format!("tools[{at}].functionDeclarations");
    let functions: Vec<FunctionDeclaration<'a>> = wire::read(value.get(), &path)?;
    for (nth, function) in functions.into_iter().enumerate() {
        if !names.insert(function.name.clone()) {
            let message = format!("There are two functions of the name {:?}.", function.name);
            return Err(CodecError::invalid(format!("{path}[{nth}].name"), message));
        }
        let parameters = match (function.parameters_json_schema, function.parameters) {
            (Some(schema), _) => Some(Cow::Borrowed(schema)),
            (None, Some(schema)) if schema.get() != "null" => {
                Some(schema::to_json_schema(schema, &format!("{path}[{nth}].parameters"))?)
            }
            _ => None,
        };
        request.tools.push(Tool {
            name: function.name,
            description: function.description.map(|it| it.0),
            kind: ToolKind::Function { parameters, strict: None },
            cache: None,
            at: index(at),
        });
    }
    Ok(())
}

fn tool_config<'a>(request: &mut Request<'a>, value: &'a RawValue) -> Result<(), CodecError> {
    let Members(members) = wire::read(value.get(), "toolConfig")?;
    for (name, value) in members {
        if &*camel(&name) != "functionCallingConfig" {
            request.extras.push((format!("toolConfig.{name}").into(), Cow::Borrowed(value)));
            continue;
        }
        let path = "toolConfig.functionCallingConfig";
        let config: FunctionCallingConfig<'a> = wire::read(value.get(), path)?;
        let mut names: Vec<_> = config.allowed_function_names.into_iter().flatten().map(|it| it.0).collect();
        let mode = config.mode.map(|it| it.0.to_ascii_uppercase()).unwrap_or_default();
        request.tool_choice = match mode.as_str() {
            "" | "MODE_UNSPECIFIED" => None,
            "NONE" => Some(ToolChoice::None),
            "AUTO" | "VALIDATED" if names.is_empty() => Some(ToolChoice::Auto),
            "AUTO" | "VALIDATED" => Some(ToolChoice::Allowed { names, required: false }),
            "ANY" if names.is_empty() => Some(ToolChoice::Required),
            "ANY" if names.len() == 1 => names.pop().map(ToolChoice::Function),
            "ANY" => Some(ToolChoice::Allowed { names, required: true }),
            other => {
                let message = format!("There is no mode {other:?}: expected AUTO, ANY, NONE or VALIDATED.");
                return Err(CodecError::invalid(format!("{path}.mode"), message));
            }
        };
    }
    Ok(())
}

fn generation_config<'a>(request: &mut Request<'a>, value: &'a RawValue) -> Result<(), CodecError> {
    let members: Members<'a> = wire::read(value.get(), "generationConfig")?;
    no_twins(&members, "generationConfig.")?;
    let (mut json, mut json_schema, mut logprobs, mut top) = (false, None, false, None);
    for (name, value) in members.0 {
        let path = format!("generationConfig.{name}");
        if value.get() == "null" {
            continue;
        }
        let text = value.get();
        let sampling = &mut request.sampling;
        match &*camel(&name) {
            "temperature" => sampling.temperature = Some(wire::read(text, &path)?),
            "topP" => sampling.top_p = Some(wire::read(text, &path)?),
            "topK" => sampling.top_k = Some(whole(text, &path)?),
            "seed" => sampling.seed = Some(wire::read(text, &path)?),
            "presencePenalty" => sampling.presence_penalty = Some(wire::read(text, &path)?),
            "frequencyPenalty" => sampling.frequency_penalty = Some(wire::read(text, &path)?),
            "candidateCount" => request.choices = wire::read::<u32>(text, &path)?.max(1),
            "maxOutputTokens" => request.max_output = Some(wire::read(text, &path)?),
            "stopSequences" => {
                let stop: Vec<wire::Str<'a>> = wire::read(text, &path)?;
                request.stop = stop.into_iter().map(|it| it.0).collect();
            }
            "responseMimeType" => {
                let kind: wire::Str<'a> = wire::read(text, &path)?;
                json = kind.0 == "application/json";
                if !json && kind.0 != "text/plain" {
                    request.extras.push((path.into(), Cow::Borrowed(value)));
                }
            }
            "responseSchema" => json_schema = Some(schema::to_json_schema(value, &path)?),
            "responseJsonSchema" => json_schema = Some(Cow::Borrowed(value)),
            "responseLogprobs" => logprobs = wire::read(text, &path)?,
            "logprobs" => top = Some(wire::read(text, &path)?),
            "responseModalities" => {
                let modalities: Vec<wire::Str<'a>> = wire::read(text, &path)?;
                request.modalities = modalities.iter().map(|it| it.0.to_ascii_lowercase().into()).collect();
            }
            "thinkingConfig" => request.reasoning = reasoning(wire::read(text, &path)?, &path)?,
            _ => request.extras.push((path.into(), Cow::Borrowed(value))),
        }
    }
    request.logprobs = logprobs.then_some(Logprobs { top });
    request.format = match json_schema {
        Some(schema) => Some(Format::Schema { name: None, description: None, schema, strict: None }),
        None => json.then_some(Format::Json),
    };
    Ok(())
}

/// Google's `topK` may be written as `40.0`.
fn whole(text: &str, path: &str) -> Result<u64, CodecError> {
    let text = text.strip_suffix(".0").unwrap_or(text);
    wire::read(text, path)
}

fn reasoning(config: ThinkingConfig<'_>, path: &str) -> Result<Option<Reasoning>, CodecError> {
    let level = config.thinking_level.map(|it| it.0.to_ascii_lowercase()).unwrap_or_default();
    let effort = match level.as_str() {
        "" | "thinking_level_unspecified" => None,
        level => Some(Effort::from_name(level).ok_or_else(|| {
            let message = format!("There is no level {level:?}: expected MINIMAL, LOW, MEDIUM or HIGH.");
            CodecError::invalid(format!("{path}.thinkingLevel"), message)
        })?),
    };
    let reasoning = Reasoning {
        effort,
        budget: config.thinking_budget.and_then(|budget| u64::try_from(budget).ok()),
        adaptive: config.thinking_budget.is_some_and(|budget| budget < 0),
        visible: config.include_thoughts,
    };
    // Thoughts come only where they are asked for.
    Ok(Some(Reasoning { visible: Some(reasoning.visible.unwrap_or(false)), ..reasoning }))
}

/// Calls and responses find each other by their order, since Google's clients need no ids: each call without one gets one,
/// and a response without one belongs to the first call of its name that has none yet.
fn link(request: &mut Request<'_>) -> Result<(), CodecError> {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut waiting: HashMap<String, VecDeque<String>> = HashMap::new();
    let mut answered: HashSet<String> = HashSet::new();
    for message in &mut request.messages {
        for part in &mut message.parts {
            match &mut part.content {
                ir::Content::ToolCall(call) => {
                    if call.id.is_empty() {
                        call.id = format!("call_{}", names.len()).into();
                    }
                    names.insert(call.id.clone().into_owned(), call.name.clone().into_owned());
                    waiting
                        .entry(call.name.clone().into_owned())
                        .or_default()
                        .push_back(call.id.clone().into_owned());
                }
                ir::Content::ToolResult(result) => {
                    let name = result.name.as_deref().unwrap_or_default();
                    if result.call_id.is_empty() {
                        let queue = waiting.get_mut(name);
                        let open = queue.and_then(|ids| {
                            std::iter::from_fn(|| ids.pop_front()).find(|id| !answered.contains(id))
                        });
                        result.call_id = open.unwrap_or_default().into();
                    }
                    if names.get(&*result.call_id).is_none_or(|called| called != name) {
                        let place = Dialect::GenerateContent.place(message.at, Some(part.at));
                        let message = format!("This answers no call of {name:?} before it.");
                        return Err(CodecError::invalid(format!("{place}.functionResponse"), message));
                    }
                    answered.insert(result.call_id.clone().into_owned());
                }
                _ => {}
            }
        }
    }
    Ok(())
}
