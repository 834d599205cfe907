//! `CountTokens`, which takes the conversation of a Converse request. Called by [`crate::count`].

use bytes::Bytes;

use super::{family::Family, request};
use crate::{CodecError, Destination, Encoded, count, ir::Request, providers::write};

/// Members of a Converse request that are counted.
const COUNTED: [&str; 4] = ["messages", "system", "toolConfig", "additionalModelRequestFields"];

/// The name of this model where its tokens are counted. `None` where they are not: Bedrock counts for Anthropic's models,
/// by their own ids alone, so that the prefix of an inference profile (`us.`) goes, and one with a name of its own can't be
/// counted for.
pub fn model(id: &str) -> Option<&str> {
    let name = id.rsplit('/').next()?;
    (Family::of(id) == Family::Anthropic).then(|| name.find("anthropic.").and_then(|at| name.get(at..)))?
}

/// # Errors
/// What Bedrock can't read.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let encoded = request::encode(request, to)?;
    let counted = count::reduced(&encoded, &COUNTED)?;
    let mut out = Vec::with_capacity(counted.len() + 32);
    write::object(&mut out, |object| {
        object.object("input", |input| input.member("converse").extend_from_slice(&counted));
    });
    Ok(Encoded { body: Bytes::from(out), ..encoded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_counted_for_by_their_own_ids() {
        for (id, name) in [
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Some("anthropic.claude-haiku-4-5-20251001-v1:0")),
            ("us.anthropic.claude-opus-4-1", Some("anthropic.claude-opus-4-1")),
            ("global.anthropic.claude-opus-4-1", Some("anthropic.claude-opus-4-1")),
            ("arn:aws:bedrock:r:1:inference-profile/eu.anthropic.claude-x", Some("anthropic.claude-x")),
            ("arn:aws:bedrock:r::foundation-model/anthropic.claude-x", Some("anthropic.claude-x")),
            ("arn:aws:bedrock:r:1:application-inference-profile/abc", None),
            ("amazon.nova-pro-v1:0", None),
            ("", None),
        ] {
            assert_eq!(model(id), name, "{id}");
        }
    }

    #[test]
    fn the_conversation_is_sent_and_nothing_that_is_not_counted() {
        let body = br#"{"model":"m","system":"Be brief.","max_tokens":9,"temperature":0.5,
            "messages":[{"role":"user","content":"hi"}],
            "tools":[{"name":"f","input_schema":{"type":"object"}}]}"#;
        let request = crate::providers::anthropic::count_tokens::decode(body).unwrap();
        let provider = crate::provider("bedrock").unwrap();
        let model = "us.anthropic.claude-opus-4-1";
        let to = Destination { provider, model, most_output: 0, cap: None, hosted: false };
        let sent: serde_json::Value = serde_json::from_slice(&encode(&request, &to).unwrap().body).unwrap();
        let asked = &sent["input"]["converse"];
        assert_eq!(asked["messages"][0]["content"][0]["text"], "hi", "{sent}");
        assert_eq!(asked["system"][0]["text"], "Be brief.", "{sent}");
        assert_eq!(asked["toolConfig"]["tools"][0]["toolSpec"]["name"], "f", "{sent}");
        assert_eq!(asked.as_object().unwrap().len(), 3, "{sent}");
    }
}
