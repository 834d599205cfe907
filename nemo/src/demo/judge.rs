//! `/v1/moderations` and `/v1/rerank` of the demo provider: a list of bad words, and shared words.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, MODERATION_MODEL, RERANK_MODEL, Refusal, answer_id, check_model, embeddings};

const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];
/// What the demo takes for violence.
const VIOLENT: [&str; 3] = ["attack", "kill", "murder"];

#[derive(Deserialize)]
pub(super) struct Moderation {
    model: String,
    input: Value,
}

pub(super) fn moderate(request: &Moderation, body: &[u8]) -> Result<Answer, Refusal> {
    check_model(&request.model, MODERATION_MODEL)?;
    let inputs = match &request.input {
        Value::Array(inputs) => inputs.clone(),
        input => vec![input.clone()],
    };
    let results: Vec<Value> = inputs.iter().map(judge).collect();
    Ok(Answer::Whole(json!({ "id": answer_id("modr", body), "model": MODERATION_MODEL, "results": results })))
}

fn judge(input: &Value) -> Value {
    let text = input.to_string().to_lowercase();
    let flagged = VIOLENT.iter().any(|word| text.contains(word));
    let of = |value: &dyn Fn(&str) -> Value| -> Value {
        CATEGORIES.iter().map(|name| ((*name).to_owned(), value(name))).collect()
    };
    let hit = |name: &str| flagged && name == "violence";
    json!({
        "flagged": flagged,
        "categories": of(&|name| json!(hit(name))),
        "category_scores": of(&|name| json!(if hit(name) { 0.98 } else { 0.01 })),
        "category_applied_input_types": of(&|_| json!(["text"])),
    })
}

const MAX_DOCUMENTS: usize = 1000;
/// Documents that one search unit covers.
const DOCUMENTS_PER_SEARCH: usize = 100;

#[derive(Deserialize)]
pub(super) struct Ranking {
    model: String,
    query: String,
    documents: Vec<Value>,
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
}

pub(super) fn rank(request: &Ranking, body: &[u8]) -> Result<Answer, Refusal> {
    check_model(&request.model, RERANK_MODEL)?;
    if request.documents.is_empty() || request.documents.len() > MAX_DOCUMENTS {
        let message =
            format!("documents has {} entries; expected 1 to {MAX_DOCUMENTS}", request.documents.len());
        return Err(Refusal::new(http::StatusCode::BAD_REQUEST, message, "bad_body"));
    }
    let text = |document: &Value| {
        let text = document.as_str().or_else(|| document["text"].as_str());
        text.map_or_else(|| document.to_string(), str::to_owned)
    };
    let mut scored: Vec<(usize, f32)> = (0..)
        .zip(&request.documents)
        .map(|(at, document)| (at, embeddings::similarity(&request.query, &text(document))))
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(request.top_n.unwrap_or(scored.len()));
    let results: Vec<Value> = scored
        .into_iter()
        .map(|(at, score)| {
            let mut result = json!({ "index": at, "relevance_score": score.clamp(0.0, 1.0) });
            if request.return_documents {
                result["document"] = json!({ "text": text(&request.documents[at]) });
            }
            result
        })
        .collect();
    let searches = request.documents.len().div_ceil(DOCUMENTS_PER_SEARCH);
    Ok(Answer::Whole(json!({
        "id": answer_id("rerank", body), "model": RERANK_MODEL, "results": results,
        "meta": { "billed_units": { "search_units": searches } },
    })))
}
