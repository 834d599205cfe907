//! `/responses/input_tokens`, as an upstream's: what a request for a response would take in. Called by [`crate::count`].

use super::request;
use crate::{CodecError, Destination, Encoded, count, ir::Request};

/// Members of a request for a response that are counted; others are refused.
const COUNTED: [&str; 8] =
    ["model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text"];

/// # Errors
/// What the target can't do.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let encoded = request::encode(request, to)?;
    let body = count::reduced(&encoded, &COUNTED)?;
    Ok(Encoded { body: body.into(), ..encoded })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_counted_is_not_sent() {
        let body = br#"{"model":"m","system":"Be brief.","max_tokens":9,"temperature":0.5,
            "messages":[{"role":"user","content":"hi"}],
            "tools":[{"name":"f","input_schema":{"type":"object"}}]}"#;
        let request = crate::providers::anthropic::count_tokens::decode(body).unwrap();
        let provider = crate::provider("openai").unwrap();
        let to = Destination { provider, model: "gpt-5.2", most_output: 0, cap: None, hosted: false };
        let sent: serde_json::Value = serde_json::from_slice(&encode(&request, &to).unwrap().body).unwrap();
        assert_eq!((&sent["model"], &sent["tools"][0]["name"]), (&json!("gpt-5.2"), &json!("f")), "{sent}");
        assert!(sent["input"].to_string().contains("hi"), "{sent}");
        for uncounted in ["store", "max_output_tokens", "temperature", "stream"] {
            assert!(sent.get(uncounted).is_none(), "{sent}");
        }
    }
}
