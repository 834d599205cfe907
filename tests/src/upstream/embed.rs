//! Deterministic embeddings: numbers that depend on the input only, in both encodings of the API.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Serialize;
use serde_json::Value;

const DEFAULT_DIMENSIONS: usize = 8;
/// A request for more is cut to this.
const MAX_DIMENSIONS: usize = 4096;

#[derive(Serialize)]
pub(super) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Answers a request body. The input is a string, an array of strings, an array of tokens, or an array of those.
pub(super) fn embeddings(request: &Value, model: &str) -> Embeddings {
    let dimensions = request["dimensions"].as_u64().and_then(|wanted| usize::try_from(wanted).ok());
    let dimensions = dimensions.unwrap_or(DEFAULT_DIMENSIONS).clamp(1, MAX_DIMENSIONS);
    let inputs: Vec<&Value> = match &request["input"] {
        Value::Array(items) if items.first().is_some_and(|item| !item.is_number()) => items.iter().collect(),
        one => vec![one],
    };
    let base64 = request["encoding_format"] == "base64";
    let data = inputs.iter().enumerate().map(|(index, input)| {
        let floats = vector(&input.to_string(), dimensions);
        let embedding = if base64 { Vector::Base64(encode(&floats)) } else { Vector::Floats(floats) };
        Embedding { object: "embedding", index, embedding }
    });
    let data = data.collect();
    let prompt_tokens = inputs.iter().map(|input| tokens(input)).sum();
    let usage = EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens };
    Embeddings { object: "list", data, model: model.into(), usage }
}

/// Words of a text, or the number of tokens given.
fn tokens(input: &Value) -> usize {
    match input {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(tokens) => tokens.len(),
        _ => 0,
    }
}

/// Numbers in -1..1 with few digits, so that they survive any number formatting.
fn vector(input: &str, dimensions: usize) -> Vec<f32> {
    (0..dimensions)
        .map(|index| {
            let mut hasher = DefaultHasher::new();
            (input, index).hash(&mut hasher);
            let [a, b, ..] = hasher.finish().to_le_bytes();
            f32::from(i16::from_le_bytes([a, b])) / 32768.0
        })
        .collect()
}

/// Little-endian floats in base64, as OpenAI sends and its SDKs ask for by default.
fn encode(floats: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sextet = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            text.push(if place <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn base64_is_the_little_endian_form_of_the_floats() {
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, -0.5]), "AACAPwAAAL8=");
        assert_eq!(encode(&[1.0, -0.5, 0.0]), "AACAPwAAAL8AAAAA");
    }

    #[test]
    fn every_form_of_input_gives_one_vector_per_input_and_the_same_each_time() {
        for (input, count, tokens) in [
            (json!("a b"), 1, 2),
            (json!(["a", "b c"]), 2, 3),
            (json!([1, 2, 3]), 1, 3),
            (json!([[1], [2, 3]]), 2, 3),
        ] {
            let request = json!({"input": input, "dimensions": 5});
            let answer = serde_json::to_value(embeddings(&request, "m")).unwrap();
            assert_eq!(answer, serde_json::to_value(embeddings(&request, "m")).unwrap());
            assert_eq!(answer["data"].as_array().unwrap().len(), count, "{request}");
            assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 5);
            assert_eq!(answer["usage"]["total_tokens"], tokens);
        }
    }
}
