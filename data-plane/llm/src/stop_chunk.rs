//! The last chunk of a stream that the gateway stops: it says `length`, so that a client which reads nothing else knows
//! that the answer was cut. Called by the data plane's metered body.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::Endpoint;

/// A chunk that ends every choice, with the identity of the chunks before it. `sample`: a frame of the stream.
/// `None` where an answer has no chunks with choices: its error event says all there is.
pub fn stop_chunk(endpoint: Endpoint, sample: &[u8], choices: u64) -> Option<Bytes> {
    /// More than any provider makes; a client gets its `length` for the first of them all the same.
    const MOST: u64 = 128;
    if !endpoint.has_choices() {
        return None;
    }
    let chat = endpoint == Endpoint::ChatCompletions;
    let mut chunk = json!({
        "id": "chatcmpl-stopped",
        "object": if chat { "chat.completion.chunk" } else { "text_completion" },
        "created": 0,
        "model": "",
    });
    if let Some(Value::Object(seen)) = first_object(sample) {
        for name in ["id", "created", "model", "system_fingerprint"] {
            if let Some(value) = seen.get(name) {
                chunk[name] = value.clone();
            }
        }
    }
    let choice = |index: u64| {
        if chat {
            json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": "length" })
        } else {
            json!({ "index": index, "text": "", "logprobs": null, "finish_reason": "length" })
        }
    };
    chunk["choices"] = (0..choices.clamp(1, MOST)).map(choice).collect();
    Some(Bytes::from(format!("data: {chunk}\n\n")))
}

/// The first event of the frame that is a JSON object with an id.
fn first_object(sample: &[u8]) -> Option<Value> {
    let lines = sample.split(|byte| *byte == b'\n');
    let data = lines.filter_map(|line| line.strip_prefix(b"data:"));
    data.filter_map(|data| serde_json::from_slice::<Value>(data).ok()).find(|value| value["id"].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunk_looks_like_those_before_it() {
        let sample = b": x\n\ndata: {\"id\":\"c1\",\"created\":7,\"model\":\"m\",\"choices\":[]}\n\n";
        let chunk = stop_chunk(Endpoint::ChatCompletions, sample, 2).unwrap();
        let text = std::str::from_utf8(&chunk).unwrap();
        let value: Value = serde_json::from_str(text.strip_prefix("data: ").unwrap().trim()).unwrap();
        assert_eq!(
            (&value["id"], &value["created"], &value["model"]),
            (&json!("c1"), &json!(7), &json!("m"))
        );
        assert_eq!(value["object"], "chat.completion.chunk");
        let reasons: Vec<_> =
            value["choices"].as_array().unwrap().iter().map(|it| &it["finish_reason"]).collect();
        assert_eq!(reasons, ["length", "length"]);
        assert!(text.ends_with("\n\n"));
        assert!(stop_chunk(Endpoint::Completions, b"data: {\"id", u64::MAX).is_some());
        assert!(stop_chunk(Endpoint::Responses, sample, 1).is_none());
    }
}
