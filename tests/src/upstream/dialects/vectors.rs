//! Embeddings and images in the words of Google, Amazon and Cohere. A text's vector depends on its place alone.

use serde_json::{Value, json};

use super::list;
use crate::upstream::media::PNG;

/// What each text counts, where the provider counts.
pub const TEXT_TOKENS: u64 = 3;

/// Eight numbers that 32 bits hold exactly.
pub fn vector(at: usize) -> Vec<f64> {
    (0..8).map(|i| 0.125 * (at + i) as f64).collect()
}

fn vectors(count: usize) -> Vec<Vec<f64>> {
    (0..count).map(vector).collect()
}

/// `batchEmbedContents` of Google AI Studio, which does not count.
pub(super) fn batch(request: &Value) -> Value {
    let values = vectors(list(request, "requests").count()).into_iter().map(|it| json!({ "values": it }));
    json!({ "embeddings": values.collect::<Vec<_>>() })
}

/// `embedContent` of Vertex: one text.
pub(super) fn single() -> Value {
    json!({
        "embedding": { "values": vector(0) }, "truncated": false,
        "usageMetadata": { "promptTokenCount": TEXT_TOKENS, "totalTokenCount": TEXT_TOKENS },
    })
}

/// `predict`: images where there is a prompt, else embeddings.
pub(super) fn predict(request: &Value) -> Value {
    if request["instances"][0]["prompt"].is_string() {
        let count = request["parameters"]["sampleCount"].as_u64().unwrap_or(1).min(4);
        let image = json!({ "mimeType": "image/png", "bytesBase64Encoded": PNG });
        return json!({ "predictions": vec![image; usize::try_from(count).unwrap_or(1)] });
    }
    let statistics = json!({ "token_count": TEXT_TOKENS as f64, "truncated": false });
    let values = vectors(list(request, "instances").count()).into_iter();
    let embedding = |it| json!({ "embeddings": { "values": it, "statistics": statistics } });
    json!({ "predictions": values.map(embedding).collect::<Vec<_>>() })
}

/// `invoke` of Bedrock: Titan's one text, or Cohere's many, which are not counted there.
pub(super) fn invoke(request: &Value) -> Value {
    if request["inputText"].is_string() {
        return json!({ "embedding": vector(0), "inputTextTokenCount": TEXT_TOKENS });
    }
    json!({
        "id": "mock", "response_type": "embeddings_by_type", "texts": request["texts"],
        "embeddings": { "float": vectors(list(request, "texts").count()) },
    })
}

/// Cohere's own.
pub(super) fn embed(request: &Value) -> Value {
    let count = list(request, "texts").count();
    json!({
        "id": "mock", "texts": request["texts"], "embeddings": { "float": vectors(count) },
        "meta": { "api_version": { "version": "2" }, "billed_units": { "input_tokens": TEXT_TOKENS * count as u64 } },
        "response_type": "embeddings_by_type",
    })
}
