//! Log probabilities: Google's two lists, side by side by token, and OpenAI's one with alternatives inside.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::wire::Str;
use crate::ir::Json;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Google<'a> {
    #[serde(borrow, default)]
    chosen_candidates: Vec<Token<'a>>,
    #[serde(borrow, default)]
    top_candidates: Vec<Top<'a>>,
}

#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow, default)]
    candidates: Vec<Token<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token<'a> {
    #[serde(borrow, default)]
    token: Str<'a>,
    #[serde(default)]
    log_probability: f64,
}

#[derive(Serialize)]
struct OpenAi<'a> {
    content: Vec<Entry<'a>>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    token: Scored<'a>,
    top_logprobs: Vec<Scored<'a>>,
}

#[derive(Serialize)]
struct Scored<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

/// In OpenAI's shape; `None` when it can't be read: nobody's answer is worth nothing for want of these.
pub(super) fn read(result: &RawValue) -> Option<Json<'static>> {
    let google: Google<'_> = serde_json::from_str(result.get()).ok()?;
    let mut tops = google.top_candidates.iter();
    let content = google.chosen_candidates.iter().map(|token| Entry {
        token: scored(token),
        top_logprobs: tops.next().map(|top| top.candidates.iter().map(scored).collect()).unwrap_or_default(),
    });
    let openai = OpenAi { content: content.collect(), refusal: None };
    serde_json::value::to_raw_value(&openai).ok().map(Json::Owned)
}

fn scored<'a>(token: &'a Token<'_>) -> Scored<'a> {
    Scored { token: &token.token.0, logprob: token.log_probability, bytes: token.token.0.as_bytes() }
}

#[derive(Deserialize)]
struct Theirs<'a> {
    #[serde(borrow)]
    content: Option<Vec<Their<'a>>>,
}

#[derive(Deserialize)]
struct Their<'a> {
    #[serde(borrow)]
    token: Str<'a>,
    logprob: f64,
    #[serde(borrow, default)]
    top_logprobs: Vec<Alternative<'a>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow)]
    token: Str<'a>,
    logprob: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    chosen_candidates: Vec<WrittenToken>,
    top_candidates: Vec<WrittenTop>,
}

#[derive(Debug, Serialize)]
struct WrittenTop {
    candidates: Vec<WrittenToken>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenToken {
    token: String,
    log_probability: f64,
}

/// From OpenAI's shape.
pub(super) fn write(logprobs: &RawValue) -> Option<Written> {
    let theirs: Theirs<'_> = serde_json::from_str(logprobs.get()).ok()?;
    let mut written = Written { chosen_candidates: Vec::new(), top_candidates: Vec::new() };
    for entry in theirs.content? {
        let token =
            |token: Str<'_>, log_probability| WrittenToken { token: token.0.into_owned(), log_probability };
        written.chosen_candidates.push(token(entry.token, entry.logprob));
        let candidates = entry.top_logprobs.into_iter().map(|it| token(it.token, it.logprob)).collect();
        written.top_candidates.push(WrittenTop { candidates });
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_tell_the_same() {
        let google = r#"{"chosenCandidates":[{"token":"é","logProbability":-0.5}],"topCandidates":[{"candidates":[{"token":"é","logProbability":-0.5},{"token":"e","logProbability":-1.5}]}]}"#;
        let openai = r#"{"content":[{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[{"token":"é","logprob":-0.5,"bytes":[195,169]},{"token":"e","logprob":-1.5,"bytes":[101]}]}],"refusal":null}"#;
        let raw = |text: &str| -> Box<RawValue> { serde_json::from_str(text).unwrap() };
        assert_eq!(read(&raw(google)).unwrap().get(), openai);
        assert_eq!(serde_json::to_string(&write(&raw(openai)).unwrap()).unwrap(), google);
        assert!(write(&raw(r#"{"content":null}"#)).is_none() && read(&raw("7")).is_none());
    }
}
