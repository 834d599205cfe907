//! Answers of Converse.

use std::borrow::Cow;

use nemo_types::Usage;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Dialect, ServiceTier,
    codec::CodecError,
    ir::{Choice, Citation, Content, Finish, Media, Part, Response, Source, Text, Thinking, ToolCall},
    providers::read::{self, Str},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    output: Output<'a>,
    #[serde(borrow)]
    stop_reason: Str<'a>,
    usage: Option<Tokens>,
    #[serde(borrow)]
    additional_model_response_fields: Option<Additional<'a>>,
    #[serde(borrow)]
    service_tier: Option<Tier<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Tier<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
}

impl Tier<'_> {
    pub(super) fn named(tier: Option<&Self>) -> ServiceTier {
        let name = tier.and_then(|tier| tier.kind.as_ref());
        name.map(|name| ServiceTier::new(name.0.as_bytes())).unwrap_or_default()
    }
}

/// What the model says in its own words, of what the request asked for.
#[derive(Deserialize)]
pub(super) struct Additional<'a> {
    #[serde(borrow)]
    stop_sequence: Option<Str<'a>>,
}

/// A union: one of these is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    tool_use: Option<ToolUse<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<Reasoning<'a>>,
    #[serde(borrow)]
    citations_content: Option<Cited<'a>>,
    #[serde(borrow)]
    image: Option<Image<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse<'a> {
    #[serde(borrow)]
    tool_use_id: Str<'a>,
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    /// `server_tool_use`: AWS has run it already.
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning<'a> {
    #[serde(borrow)]
    reasoning_text: Option<ReasoningText<'a>>,
    #[serde(borrow)]
    redacted_content: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct ReasoningText<'a> {
    #[serde(borrow)]
    text: Str<'a>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Cited<'a> {
    #[serde(borrow, default)]
    content: Vec<Words<'a>>,
    #[serde(borrow, default)]
    citations: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Words<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow)]
    format: Str<'a>,
    #[serde(borrow)]
    source: Option<ImageSource<'a>>,
}

#[derive(Deserialize)]
struct ImageSource<'a> {
    #[serde(borrow)]
    bytes: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CitationBlock<'a> {
    #[serde(borrow)]
    title: Option<Str<'a>>,
    #[serde(borrow, default)]
    source_content: Vec<Words<'a>>,
    #[serde(borrow)]
    location: Option<Location<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location<'a> {
    #[serde(borrow)]
    web: Option<Web<'a>>,
    document_char: Option<InDocument>,
    document_page: Option<InDocument>,
    document_chunk: Option<InDocument>,
}

#[derive(Deserialize)]
struct Web<'a> {
    #[serde(borrow)]
    url: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InDocument {
    document_index: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
    #[serde(default)]
    cache_details: Vec<CacheDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheDetail {
    ttl: String,
    input_tokens: u64,
}

impl Tokens {
    /// Bedrock counts what was cached beside the input.
    pub(super) fn usage(&self) -> Usage {
        let (read, write) = (self.cache_read_input_tokens, self.cache_write_input_tokens);
        let hour = self.cache_details.iter().filter(|it| it.ttl == "1h").map(|it| it.input_tokens);
        let hour = hour.fold(0_u64, u64::saturating_add).min(write.unwrap_or(0));
        Usage {
            input: self
                .input_tokens
                .map(|input| input.saturating_add(read.unwrap_or(0)).saturating_add(write.unwrap_or(0))),
            output: self.output_tokens,
            cache_read: read,
            cache_write: write,
            cache_write_1h: (hour > 0).then_some(hour),
            ..Usage::default()
        }
    }
}

/// # Errors
/// When it is no answer of Converse.
pub fn decode(body: &[u8]) -> Result<Response<'_>, CodecError> {
    let body: Body<'_> = read::body(body)?;
    let mut parts = Vec::with_capacity(body.output.message.content.len());
    for (at, block) in body.output.message.content.into_iter().enumerate() {
        let path = format!("output.message.content[{at}]");
        parts.extend(part(read::value(&path, block.get())?, block));
    }
    let met = body.additional_model_response_fields.and_then(Additional::stop_sequence);
    Ok(Response {
        choices: vec![Choice {
            index: 0,
            parts,
            finish: Some(finish(body.stop_reason.0, met)),
            logprobs: None,
        }],
        usage: body.usage.map(|usage| usage.usage()),
        service_tier: Tier::named(body.service_tier.as_ref()),
        ..Response::default()
    })
}

fn part<'a>(block: Block<'a>, whole: &'a RawValue) -> Option<Part<'a>> {
    let content = if let Some(text) = block.text {
        Content::Text { text: text.0, citations: Vec::new() }
    } else if let Some(call) = block.tool_use.as_ref().filter(|call| call.kind.is_none()) {
        Content::ToolCall(ToolCall {
            id: call.tool_use_id.0.clone(),
            name: call.name.0.clone(),
            arguments: Cow::Borrowed(call.input.map_or("{}", RawValue::get)),
            custom: false,
        })
    } else if let Some(reasoning) = block.reasoning_content {
        Content::Thinking(thinking(reasoning))
    } else if let Some(cited) = block.citations_content {
        let citations = cited.citations.into_iter().filter_map(citation).collect();
        Content::Text { text: joined(cited.content), citations }
    } else if let Some(image) = block.image {
        Content::Image(picture(image)?)
    } else {
        // A tool that AWS ran, or a kind that is newer than this.
        Content::Opaque { dialect: Dialect::Converse, value: Cow::Borrowed(whole) }
    };
    Some(Part::new(content))
}

fn thinking(reasoning: Reasoning<'_>) -> Thinking<'_> {
    let mut thinking = Thinking::default();
    if let Some(said) = reasoning.reasoning_text {
        thinking.text = said.text.0;
        thinking.signature = read::text(said.signature);
    }
    thinking.encrypted = read::text(reasoning.redacted_content);
    thinking
}

fn picture(image: Image<'_>) -> Option<Media<'_>> {
    let data = image.source?.bytes?.0;
    let media_type = Cow::Owned(format!("image/{}", image.format.0));
    Some(Media { source: Source::Base64 { media_type, data }, detail: None })
}

fn joined(pieces: Vec<Words<'_>>) -> Text<'_> {
    let mut texts = pieces.into_iter().filter_map(|piece| piece.text);
    let first = texts.next().map(|text| text.0).unwrap_or_default();
    texts.fold(first, |joined, text| joined + text.0)
}

/// One that can't be read is no reason to lose the text.
pub(super) fn citation(json: &RawValue) -> Option<Citation<'_>> {
    let said: CitationBlock<'_> = serde_json::from_str(json.get()).ok()?;
    let (mut url, mut document) = (None, None);
    if let Some(place) = said.location {
        url = place.web.and_then(|web| web.url).map(|url| url.0);
        let within = [place.document_char, place.document_page, place.document_chunk];
        document = within.into_iter().flatten().find_map(|it| it.document_index);
    }
    let quote = joined(said.source_content);
    Some(Citation {
        url,
        title: read::text(said.title),
        quote: (!quote.is_empty()).then_some(quote),
        document,
        span: None,
        native: Some((Dialect::Converse, Cow::Borrowed(json))),
    })
}

/// `met`: the stop sequence, if the model told it.
pub(super) fn finish<'a>(reason: Text<'a>, met: Option<Str<'a>>) -> Finish<'a> {
    match &*reason {
        "end_turn" => Finish::Stop,
        "stop_sequence" => Finish::StopSequence(read::text(met).unwrap_or_default()),
        "tool_use" => Finish::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "guardrail_intervened" | "content_filtered" => Finish::ContentFilter,
        "refusal" => Finish::Refusal,
        "pause_turn" => Finish::Pause,
        "malformed_tool_use" => Finish::MalformedCall,
        "malformed_model_output" => Finish::Error,
        _ => Finish::Other(reason),
    }
}

impl<'a> Additional<'a> {
    pub(super) fn stop_sequence(self) -> Option<Str<'a>> {
        self.stop_sequence
    }
}

#[cfg(test)]
mod tests;
