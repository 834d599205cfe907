//! Answers of `/v2/chat`.

use std::borrow::Cow;

use nemo_types::Usage;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    Dialect,
    codec::CodecError,
    ir::{Choice, Citation, Content, Finish, Json, Part, Response, Text, Thinking, ToolCall},
    providers::read::{self, Str},
};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    message: Message<'a>,
    usage: Option<Tokens>,
    #[serde(borrow)]
    logprobs: Option<Vec<Logprob<'a>>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    tool_plan: Option<Str<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<Call<'a>>>,
    #[serde(borrow)]
    content: Option<Vec<Piece<'a>>>,
    #[serde(borrow)]
    citations: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
pub(super) struct Piece<'a> {
    #[serde(borrow)]
    pub text: Option<Str<'a>>,
    #[serde(borrow)]
    pub thinking: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Str<'a>,
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Str<'a>,
    #[serde(borrow)]
    arguments: Option<Str<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Tokens {
    billed_units: Option<Counts>,
    tokens: Option<Counts>,
    cached_tokens: Option<f64>,
}

/// Numbers of tokens, which Cohere writes with a fraction now and then.
#[derive(Deserialize)]
struct Counts {
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
}

impl Tokens {
    /// What is billed: the tokens of Cohere's own template are not.
    pub(super) fn usage(&self) -> Usage {
        let count = |field: fn(&Counts) -> Option<f64>| {
            let told = [&self.billed_units, &self.tokens].into_iter().flatten().find_map(field);
            told.map(whole)
        };
        let input = count(|counts| counts.input_tokens);
        Usage {
            input,
            output: count(|counts| counts.output_tokens),
            cache_read: self.cached_tokens.map(|cached| whole(cached).min(input.unwrap_or(0))),
            ..Usage::default()
        }
    }
}

/// A count without its fraction, of which nothing is lost: it is always zero.
pub(super) fn whole(count: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and takes what is no number as zero"
    )]
    let count = count.ceil() as u64;
    count
}

#[derive(Deserialize)]
pub(super) struct Logprob<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
    logprobs: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct Cited<'a> {
    start: Option<u32>,
    end: Option<u32>,
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    sources: Option<Vec<Source<'a>>>,
    content_index: Option<usize>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    document: Option<Grounding<'a>>,
}

#[derive(Deserialize)]
struct Grounding<'a> {
    #[serde(borrow)]
    title: Option<Str<'a>>,
    #[serde(borrow)]
    url: Option<Str<'a>>,
}

/// # Errors
/// When it is no answer of this API.
pub fn decode(body: &[u8]) -> Result<Response<'_>, CodecError> {
    let body: Body<'_> = read::body(body)?;
    let mut parts = Vec::new();
    let text_at = write_content(body.message.content.unwrap_or_default(), &mut parts);
    for (place, citation) in body.message.citations.into_iter().flatten().filter_map(citation) {
        // Citations that don't say of which text are of the first.
        let found = place.and_then(|place| text_at.binary_search_by_key(&place, |(index, _)| *index).ok());
        let at = found.and_then(|found| text_at.get(found)).or(text_at.first());
        if let Some(Content::Text { citations, .. }) =
            at.and_then(|(_, part)| parts.get_mut(*part)).map(|part: &mut Part<'_>| &mut part.content)
        {
            citations.push(citation);
        }
    }
    if let Some(plan) = body.message.tool_plan.filter(|plan| !plan.0.is_empty()) {
        parts.push(Part::text(plan.0));
    }
    for call in body.message.tool_calls.unwrap_or_default() {
        let arguments = read::text(call.function.arguments).filter(|text| !text.is_empty());
        parts.push(Part::new(Content::ToolCall(ToolCall {
            id: call.id.0,
            name: call.function.name.0,
            arguments: arguments.unwrap_or(Cow::Borrowed("{}")),
            custom: false,
        })));
    }
    let finish = body.finish_reason.map(|reason| finish(reason.0));
    let logprobs = body.logprobs.and_then(|list| logprobs(&list));
    Ok(Response {
        id: read::text(body.id).unwrap_or_default(),
        choices: vec![Choice { index: 0, parts, finish, logprobs }],
        usage: body.usage.map(|usage| usage.usage()),
        ..Response::default()
    })
}

/// Where the texts are: index in the content, in ascending order, and in the parts.
fn write_content<'a>(pieces: Vec<Piece<'a>>, parts: &mut Vec<Part<'a>>) -> Vec<(usize, usize)> {
    let mut text_at = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        if let Some(thinking) = piece.thinking {
            parts.push(Part::new(Content::Thinking(Thinking { text: thinking.0, ..Thinking::default() })));
        } else if let Some(text) = piece.text {
            text_at.push((index, parts.len()));
            parts.push(Part::text(text.0));
        }
    }
    text_at
}

/// With the index of the text that it is of. One that can't be read is no reason to lose the text.
pub(super) fn citation(json: &RawValue) -> Option<(Option<usize>, Citation<'_>)> {
    let cited: Cited<'_> = serde_json::from_str(json.get()).ok()?;
    let source = cited.sources.into_iter().flatten().find_map(|source| source.document);
    let (title, url) = source.map(|source| (source.title, source.url)).unwrap_or_default();
    let citation = Citation {
        url: read::text(url),
        title: read::text(title),
        quote: read::text(cited.text),
        document: None,
        span: cited.start.zip(cited.end),
        native: Some((Dialect::Cohere, Cow::Borrowed(json))),
    };
    Some((cited.content_index, citation))
}

pub(super) fn finish(reason: Text<'_>) -> Finish<'_> {
    match &*reason {
        "COMPLETE" => Finish::Stop,
        "STOP_SEQUENCE" => Finish::StopSequence(Cow::Borrowed("")),
        "MAX_TOKENS" | "ERROR_LIMIT" => Finish::Length,
        "TOOL_CALL" => Finish::ToolCalls,
        "ERROR_TOXIC" => Finish::ContentFilter,
        "ERROR" | "TIMEOUT" => Finish::Error,
        _ => Finish::Other(reason),
    }
}

/// In OpenAI's shape. Cohere tells of pieces of text, whose tokens have numbers instead of texts.
pub(super) fn logprobs(list: &[Logprob<'_>]) -> Option<Json<'static>> {
    let content: Vec<_> = list
        .iter()
        .map(|item| {
            let text = item.text.as_ref().map_or("", |text| &*text.0);
            let logprob: f64 = item.logprobs.iter().flatten().sum();
            json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes(), "top_logprobs": [] })
        })
        .collect();
    let shape = json!({ "content": content, "refusal": null });
    RawValue::from_string(shape.to_string()).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
