//! What the hub holds, for Google: contents, tools, instructions. Numbers and switches are in [`super::settings`].

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    super::{
        model,
        write::{self, Blob, Content, FileData, FunctionResponse, Known, Part as WirePart},
    },
    settings::{self, GenerationConfig},
};
use crate::{
    Dialect, Hosting,
    codec::{CodecError, Destination, Encoded},
    ir::{self, Document, Media, Message, Param, Request, Role, Source, ToolChoice, ToolKind, ToolResult},
};

/// What Google lets pass in place of a signature, for calls that its model did not make.
const UNSIGNED: &str = "skip_thought_signature_validator";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "GenerationConfig::is_empty")]
    generation_config: GenerationConfig<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Tool<'a> {
    Functions {
        #[serde(rename = "functionDeclarations")]
        functions: Vec<Function<'a>>,
    },
    Own(&'a RawValue),
    Search {
        #[serde(rename = "googleSearch")]
        search: Empty,
    },
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    function_calling_config: Calling<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Calling<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_function_names: Vec<&'a str>,
}

/// # Errors
/// What Google can't do, by the client's own name for it.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    if request.previous_response_id.is_some() {
        let message =
            "Google keeps no answers to go on from: expected the whole conversation in the request.";
        return Err(CodecError::invalid("previous_response_id", message));
    }
    let mut writer = Writer {
        dialect: request.dialect,
        vertex: to.provider.hosting == Hosting::Vertex,
        generation: model::generation(to.model),
        dropped: Vec::new(),
    };
    let (mut contents, mut system) = writer.contents(request)?;
    if contents.is_empty()
        && let Some(instructions) = system.take()
    {
        // Google wants to be asked something: instructions alone are the question.
        contents.push(Content { role: Some("user"), ..instructions });
    }
    let tools = writer.tools(request)?;
    let tool_config = writer.tool_config(request, !tools.is_empty());
    let service_tier = settings::service_tier(request, writer.vertex, &mut writer.dropped);
    let generation_config = settings::generation_config(request, to, &mut writer.dropped)?;
    settings::note_dropped(request, &mut writer.dropped);
    let body =
        Body { contents, system_instruction: system, tools, tool_config, generation_config, service_tier };
    let body = serde_json::to_vec(&body)
        .map_err(|error| CodecError::invalid("", format!("The request can't be written: {error}.")))?;
    Ok(Encoded::new(body, writer.dropped))
}

struct Writer {
    dialect: Dialect,
    vertex: bool,
    generation: u32,
    dropped: Vec<Param>,
}

/// Whether the target fetches this URL itself: Google's own storage and files, YouTube, and with newer models any public
/// URL.
pub(crate) fn reads_url(uri: &str, to: &Destination<'_>) -> bool {
    let vertex = to.provider.hosting == Hosting::Vertex;
    is_googles(uri) || is_public(uri, vertex, model::generation(to.model))
}

fn is_googles(uri: &str) -> bool {
    let own = [
        "gs://",
        "https://generativelanguage.googleapis.com/",
        "https://www.youtube.com/",
        "https://youtu.be/",
    ];
    own.iter().any(|prefix| uri.starts_with(prefix))
}

fn is_public(uri: &str, vertex: bool, generation: u32) -> bool {
    uri.starts_with("https://") && (vertex || generation >= model::THINKS)
}

/// Where something of a message stands, for errors.
#[derive(Clone, Copy)]
struct At {
    message: u16,
    part: u16,
}

impl Writer {
    fn drop(&mut self, param: Param) {
        if !self.dropped.contains(&param) {
            self.dropped.push(param);
        }
    }

    fn refuse(&self, at: At, member: &str, message: impl Into<String>) -> CodecError {
        let place = self.dialect.place(at.message, Some(at.part));
        let dot = if member.is_empty() { "" } else { "." };
        CodecError::unsupported(format!("{place}{dot}{member}"), message)
    }

    /// Turns and instructions. Turns of one role that follow each other become one; instructions become one, in order.
    fn contents<'a>(
        &mut self,
        request: &'a Request<'_>,
    ) -> Result<(Vec<Content<'a>>, Option<Content<'a>>), CodecError> {
        let mut contents: Vec<Content<'a>> = Vec::with_capacity(request.messages.len());
        let mut system = Vec::new();
        for message in &request.messages {
            if message.name.is_some() {
                self.drop(Param::ParticipantName);
            }
            if matches!(message.role, Role::System | Role::Developer) {
                self.instructions(message, &mut system)?;
                continue;
            }
            let role = if message.role == Role::Assistant { "model" } else { "user" };
            let mut parts = Vec::with_capacity(message.parts.len());
            self.parts(message, &mut parts)?;
            if parts.is_empty() {
                continue;
            }
            match contents.last_mut() {
                Some(last) if last.role == Some(role) => last.parts.append(&mut parts),
                _ => contents.push(Content { role: Some(role), parts }),
            }
        }
        for content in &mut contents {
            arrange(content, self.generation >= model::SIGNED);
        }
        let system = (!system.is_empty()).then_some(Content { role: None, parts: system });
        Ok((contents, system))
    }

    fn instructions<'a>(
        &mut self,
        message: &'a Message<'_>,
        system: &mut Vec<WirePart<'a>>,
    ) -> Result<(), CodecError> {
        for part in &message.parts {
            if part.cache.is_some() {
                self.drop(Param::CacheControl);
            }
            match &part.content {
                ir::Content::Text { text, .. } if text.is_empty() => {}
                ir::Content::Text { text, .. } => system.push(WirePart::Known(write::text(&**text))),
                _ => {
                    let at = At { message: message.at, part: part.at };
                    return Err(self.refuse(at, "", "Google's models take instructions as text only."));
                }
            }
        }
        Ok(())
    }

    fn parts<'a>(&mut self, message: &'a Message<'_>, out: &mut Vec<WirePart<'a>>) -> Result<(), CodecError> {
        for part in &message.parts {
            let at = At { message: message.at, part: part.at };
            if part.cache.is_some() {
                self.drop(Param::CacheControl);
            }
            let first = out.len();
            self.content(&part.content, part.signature.as_deref(), at, out)?;
            if let (Some(signature), Some(WirePart::Known(known))) =
                (&part.signature, out[first..].first_mut())
            {
                known.thought_signature = Some(Cow::Borrowed(signature));
            }
        }
        Ok(())
    }

    fn content<'a>(
        &mut self,
        content: &'a ir::Content<'_>,
        signature: Option<&'a str>,
        at: At,
        out: &mut Vec<WirePart<'a>>,
    ) -> Result<(), CodecError> {
        let known = match content {
            ir::Content::Text { text, .. } | ir::Content::Refusal(text) => {
                if text.is_empty() && signature.is_none() {
                    return Ok(());
                }
                write::text(&**text)
            }
            ir::Content::Image(media) => self.media(media, "image/jpeg", at)?,
            ir::Content::Audio(media) => self.media(media, "audio/wav", at)?,
            ir::Content::Video(media) => self.media(media, "video/mp4", at)?,
            ir::Content::Document(document) => return self.document(document, at, out),
            ir::Content::ToolCall(call) => write::call(call),
            ir::Content::ToolResult(result) => return self.tool_result(result, at, out),
            ir::Content::Thinking(thinking) => {
                // Google's own thoughts have no signature: it is on what came of them. Others' mean nothing to it.
                if thinking.signature.is_some() || thinking.encrypted.is_some() || thinking.text.is_empty() {
                    self.drop(Param::Thinking);
                    return Ok(());
                }
                Known { thought: true, ..write::text(&*thinking.text) }
            }
            ir::Content::Opaque { dialect: Dialect::GenerateContent, value } => {
                out.push(write::own(value, signature));
                return Ok(());
            }
            ir::Content::Opaque { dialect, .. } => {
                let message = format!("Only providers that speak {} understand this part.", dialect.name());
                return Err(self.refuse(at, "", message));
            }
        };
        out.push(WirePart::Known(known));
        Ok(())
    }

    fn media<'a>(
        &mut self,
        media: &'a Media<'_>,
        likely: &'static str,
        at: At,
    ) -> Result<Known<'a>, CodecError> {
        if media.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.drop(Param::ImageDetail);
        }
        self.source(&media.source, likely, at)
    }

    fn source<'a>(
        &self,
        source: &'a Source<'_>,
        likely: &'static str,
        at: At,
    ) -> Result<Known<'a>, CodecError> {
        match source {
            Source::Base64 { media_type, data } => {
                Ok(Known { inline_data: Some(Blob { mime_type: media_type, data }), ..Known::default() })
            }
            Source::Text(text) => Ok(write::text(&**text)),
            Source::File(uri) | Source::Url(uri) => {
                let file_uri = self.uri(uri, matches!(source, Source::File(_)), at)?;
                // Vertex insists on a type.
                let mime_type = write::media_type_of(uri).or(self.vertex.then_some(likely));
                Ok(Known { file_data: Some(FileData { mime_type, file_uri }), ..Known::default() })
            }
        }
    }

    fn uri<'a>(&self, uri: &'a str, file: bool, at: At) -> Result<Cow<'a, str>, CodecError> {
        if is_googles(uri) {
            return Ok(Cow::Borrowed(uri));
        }
        if file && uri.starts_with("files/") && !self.vertex {
            return Ok(Cow::Owned(format!("https://generativelanguage.googleapis.com/v1beta/{uri}")));
        }
        if file {
            let message =
                "This file is kept by another provider: Google's models see files of Google's only.";
            return Err(self.refuse(at, self.member_of_file(), message));
        }
        if is_public(uri, self.vertex, self.generation) {
            return Ok(Cow::Borrowed(uri));
        }
        let message = "This model fetches no such URL: expected the data itself in base64, or a URL that begins with \
                       https:// and a model that takes it.";
        Err(self.refuse(at, self.member_of_url(), message))
    }

    fn member_of_url(&self) -> &'static str {
        match self.dialect {
            Dialect::Chat | Dialect::Completions | Dialect::Responses => "image_url",
            Dialect::Messages => "source.url",
            _ => "fileData.fileUri",
        }
    }

    fn member_of_file(&self) -> &'static str {
        match self.dialect {
            Dialect::Chat | Dialect::Completions => "file.file_id",
            Dialect::Responses => "file_id",
            Dialect::Messages => "source.file_id",
            _ => "fileData.fileUri",
        }
    }

    fn document<'a>(
        &mut self,
        document: &'a Document<'_>,
        at: At,
        out: &mut Vec<WirePart<'a>>,
    ) -> Result<(), CodecError> {
        if document.citations {
            self.drop(Param::Citations);
        }
        if let Some(context) = &document.context {
            out.push(WirePart::Known(write::text(&**context)));
        }
        out.push(WirePart::Known(self.source(&document.source, "application/pdf", at)?));
        Ok(())
    }

    /// One response, and what of it is no text: within the response where the model takes it, else after it.
    fn tool_result<'a>(
        &mut self,
        result: &'a ToolResult<'_>,
        at: At,
        out: &mut Vec<WirePart<'a>>,
    ) -> Result<(), CodecError> {
        let mut texts: Vec<&str> = Vec::new();
        let mut rest = Vec::new();
        for part in &result.content {
            if part.cache.is_some() {
                self.drop(Param::CacheControl);
            }
            match &part.content {
                ir::Content::Text { text, .. } => texts.push(text),
                other => self.content(other, None, at, &mut rest)?,
            }
        }
        let text = match texts.as_slice() {
            [only] => Cow::Borrowed(*only),
            several => Cow::Owned(several.join("\n")),
        };
        let name = result.name.as_deref().unwrap_or(&result.call_id);
        let (within, after) =
            if self.generation >= model::SIGNED { (rest, Vec::new()) } else { (Vec::new(), rest) };
        let response = FunctionResponse {
            id: &result.call_id,
            name,
            response: output(text, result.is_error),
            parts: within,
        };
        out.push(WirePart::Known(Known { function_response: Some(response), ..Known::default() }));
        out.extend(after);
        Ok(())
    }

    fn tools<'a>(&mut self, request: &'a Request<'_>) -> Result<Vec<Tool<'a>>, CodecError> {
        let mut functions = Vec::new();
        let mut tools = Vec::new();
        for tool in &request.tools {
            if tool.cache.is_some() {
                self.drop(Param::CacheControl);
            }
            match &tool.kind {
                ToolKind::Function { parameters, strict } => {
                    if *strict == Some(true) {
                        self.drop(Param::Strict);
                    }
                    functions.push(Function {
                        name: &tool.name,
                        description: tool.description.as_deref(),
                        parameters_json_schema: parameters.as_deref().filter(|schema| schema.get() != "null"),
                    });
                }
                ToolKind::Native { dialect: Dialect::GenerateContent, value } => tools.push(Tool::Own(value)),
                // Every dialect has a tool of this name, and they do the same.
                ToolKind::Native { .. } if tool.name.starts_with("web_search") => {
                    tools.push(Tool::Search { search: Empty {} });
                }
                ToolKind::Native { .. } => {
                    let message = format!("Google's models have no such tool as {:?}.", tool.name);
                    return Err(CodecError::unsupported(format!("tools[{}]", tool.at), message));
                }
            }
        }
        if !functions.is_empty() {
            tools.insert(0, Tool::Functions { functions });
        }
        Ok(tools)
    }

    fn tool_config<'a>(&mut self, request: &'a Request<'_>, has_tools: bool) -> Option<ToolConfig<'a>> {
        if has_tools && request.parallel_tool_calls == Some(false) {
            self.drop(Param::ParallelToolCalls);
        }
        let (mode, names) = match request.tool_choice.as_ref()? {
            // No tools, nothing to choose.
            _ if !has_tools => return None,
            ToolChoice::Auto => ("AUTO", Vec::new()),
            ToolChoice::None => ("NONE", Vec::new()),
            ToolChoice::Required => ("ANY", Vec::new()),
            ToolChoice::Function(name) => ("ANY", vec![&**name]),
            ToolChoice::Allowed { names, required } => {
                let mode = if *required { "ANY" } else { "VALIDATED" };
                (mode, names.iter().map(|name| &**name).collect())
            }
        };
        let function_calling_config = Calling { mode, allowed_function_names: names };
        Some(ToolConfig { function_calling_config })
    }
}

/// An object as it is; anything else as Google advises.
fn output(text: Cow<'_, str>, is_error: bool) -> Cow<'_, RawValue> {
    if is_error {
        return Cow::Owned(write::object("error", &text));
    }
    if !super::super::wire::is_object(&text) {
        return Cow::Owned(write::object("output", &text));
    }
    match text {
        Cow::Borrowed(text) => write::arguments(text, false),
        Cow::Owned(text) => Cow::Owned(write::raw(text)),
    }
}

/// Responses of functions come first in their turn. `signed`: the first call of a turn needs a signature, or Google
/// refuses the conversation; calls that other models made have none.
fn arrange(content: &mut Content<'_>, signed: bool) {
    let is_response =
        |part: &WirePart<'_>| matches!(part, WirePart::Known(known) if known.function_response.is_some());
    content.parts.sort_by_key(|part| !is_response(part));
    let first_call = content.parts.iter_mut().find_map(|part| match part {
        WirePart::Known(known) if known.function_call.is_some() => Some(known),
        _ => None,
    });
    if let Some(call) = first_call
        && signed
        && call.thought_signature.is_none()
    {
        call.thought_signature = Some(Cow::Borrowed(UNSIGNED));
    }
}
