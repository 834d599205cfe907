//! `/v1/completions` of the demo provider: continues a prompt by repeating it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, CHAT_MODEL, MAX_OUTPUT_TOKENS, Refusal, answer_id,
    chat::{StreamOptions, usage},
    check_model, now, text,
};

#[derive(Deserialize)]
pub(super) struct Request {
    model: String,
    prompt: Prompt,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    One(String),
    Many(Vec<String>),
    Tokens(Vec<u64>),
    ManyTokens(Vec<Vec<u64>>),
}

impl Prompt {
    fn texts(&self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Many(texts) => texts.clone(),
            Self::Tokens(tokens) => vec![format!("{} tokens", tokens.len())],
            Self::ManyTokens(lists) => {
                lists.iter().map(|tokens| format!("{} tokens", tokens.len())).collect()
            }
        }
    }
}

/// What OpenAI uses when the request says nothing.
const DEFAULT_MAX_TOKENS: u64 = 16;

pub(super) fn answer(request: &Request, body: &[u8]) -> Result<Answer, Refusal> {
    check_model(&request.model, CHAT_MODEL)?;
    let prompts = request.prompt.texts();
    let limit = request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).min(MAX_OUTPUT_TOKENS);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (id, created) = (answer_id("cmpl", body), now());
    let mut texts = Vec::new();
    for prompt in &prompts {
        let whole = format!(" … says the demo model of Nemo Router about: {prompt}");
        let mut pieces: Vec<String> = text::pieces(&whole).into_iter().map(str::to_owned).collect();
        let finish = if pieces.len() > limit { "length" } else { "stop" };
        pieces.truncate(limit);
        texts.push((pieces, finish));
    }
    let prompt_tokens = prompts.iter().map(|prompt| text::input_tokens(prompt)).sum();
    let completion_tokens = texts.iter().map(|(pieces, _)| pieces.len()).sum::<usize>();
    let usage = usage(prompt_tokens, u64::try_from(completion_tokens).unwrap_or(u64::MAX));
    let choice = |index: usize, text: &str, finish: Value| json!([{ "index": index, "text": text, "logprobs": null, "finish_reason": finish }]);
    let part = |choices: Value| json!({ "id": id, "object": "text_completion", "created": created, "model": CHAT_MODEL, "choices": choices });
    if !request.stream {
        let choices: Vec<_> = (0..)
            .zip(&texts)
            .map(|(index, (pieces, finish))| choice(index, &pieces.concat(), (*finish).into())[0].take())
            .collect();
        let mut whole = part(choices.into());
        whole["usage"] = usage;
        return Ok(Answer::Whole(whole));
    }
    let mut events = Vec::new();
    for (index, (pieces, finish)) in (0..).zip(&texts) {
        events.extend(pieces.iter().map(|piece| part(choice(index, piece, Value::Null))));
        events.push(part(choice(index, "", (*finish).into())));
    }
    if request.stream_options.as_ref().is_some_and(|options| options.include_usage) {
        for event in &mut events {
            event["usage"] = Value::Null;
        }
        let mut last = part(json!([]));
        last["usage"] = usage;
        events.push(last);
    }
    Ok(Answer::Events(events))
}
