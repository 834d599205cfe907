//! `/v1/embeddings` of the demo provider: each word has a pseudo-random direction, a text is the sum of its words.
//! So equal texts have equal vectors, and texts with words in common are near each other.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, EMBEDDING_MODEL, Refusal, check_model, text};

const DEFAULT_DIMENSIONS: usize = 256;
const MAX_DIMENSIONS: usize = 4096;
const MAX_INPUTS: usize = 2048;

#[derive(Deserialize)]
pub(super) struct Request {
    model: String,
    input: Input,
    dimensions: Option<usize>,
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
    Tokens(Vec<u64>),
    ManyTokens(Vec<Vec<u64>>),
}

impl Input {
    /// Words and token count of each input.
    fn texts(&self) -> Vec<(Vec<String>, u64)> {
        let of_text = |text: &String| {
            (text.split_whitespace().map(str::to_lowercase).collect(), text::input_tokens(text))
        };
        let of_tokens = |tokens: &Vec<u64>| {
            (tokens.iter().map(u64::to_string).collect(), u64::try_from(tokens.len()).unwrap_or(u64::MAX))
        };
        match self {
            Self::One(text) => vec![of_text(text)],
            Self::Many(texts) => texts.iter().map(of_text).collect(),
            Self::Tokens(tokens) => vec![of_tokens(tokens)],
            Self::ManyTokens(lists) => lists.iter().map(of_tokens).collect(),
        }
    }
}

pub(super) fn answer(request: &Request) -> Result<Answer, Refusal> {
    check_model(&request.model, EMBEDDING_MODEL)?;
    let refuse = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message, "bad_body");
    let dimensions = request.dimensions.unwrap_or(DEFAULT_DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(refuse(format!("dimensions is {dimensions}; expected 1 to {MAX_DIMENSIONS}")));
    }
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => return Err(refuse(format!("encoding_format is {other:?}; expected float or base64"))),
    };
    let texts = request.input.texts();
    if texts.is_empty() || texts.len() > MAX_INPUTS {
        return Err(refuse(format!("input has {} texts; expected 1 to {MAX_INPUTS}", texts.len())));
    }
    let data: Vec<_> = (0_usize..)
        .zip(&texts)
        .map(|(index, (words, _))| {
            let vector = vector(words, dimensions);
            let embedding =
                if base64 { Value::String(encode_base64(&bytes(&vector))) } else { vector.into() };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let tokens: u64 = texts.iter().map(|(_, tokens)| tokens).sum();
    Ok(Answer::Whole(json!({
        "object": "list",
        "data": data,
        "model": EMBEDDING_MODEL,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// A vector of length one.
fn vector(words: &[String], dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; dimensions];
    // The empty text needs a direction as well.
    let empty = [String::new()];
    for word in if words.is_empty() { &empty[..] } else { words } {
        let mut state = text::hash(word.as_bytes());
        for value in &mut sum {
            *value += direction(&mut state);
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    sum.iter_mut().for_each(|value| *value /= length);
    sum
}

/// The next number of `splitmix64`, between -1 and 1.
fn direction(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let [a, b, ..] = bits.to_le_bytes();
    f32::from(u16::from_le_bytes([a, b])) / 32_767.5 - 1.0
}

/// How near two texts are, from -1 to 1.
pub(super) fn similarity(a: &str, b: &str) -> f32 {
    let vector = |text: &str| {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        vector(&words, DEFAULT_DIMENSIONS)
    };
    vector(a).iter().zip(&vector(b)).map(|(a, b)| a * b).sum()
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn encode_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * at) & 0x3f).unwrap_or_default();
            out.push(if at <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn vectors_have_length_one_and_nearness_follows_shared_words() {
        for text in ["", "one", "one two three"] {
            let length: f32 = vector(&words(text), 7).iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-4, "{text}: {length}");
        }
        assert!(similarity("the blue whale", "the blue whale") > 0.999);
        assert!(
            similarity("the blue whale", "the blue car") > similarity("the blue whale", "some red bus") + 0.2
        );
    }

    #[test]
    fn base64_is_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encode_base64(bytes.as_bytes()), text);
        }
        assert_eq!(encode_base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
