//! Embeddings of the models that Bedrock hosts, Amazon's Titan and Cohere's, through `invoke`, which takes each model's own
//! words.

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    codec::{CodecError, Destination, Echo, Encoded},
    ir::Param,
    plan::{Conversion, Converted},
    providers::{
        cohere,
        embeddings::{self, Most},
    },
};

pub(in crate::providers) const CONVERSION: Conversion = Conversion { request, response, path };

fn path(model: &str) -> String {
    // One segment, and AWS wants its own escapes.
    format!("/model/{}/invoke", model.replace(':', "%3A").replace('/', "%2F"))
}

fn request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    if to.model.contains("cohere.") {
        return cohere::embeddings::write(body, None);
    }
    if !to.model.contains("titan-embed") {
        return Err(CodecError::unsupported(
            "model",
            "Of the models on Bedrock, Titan's and Cohere's embeddings can be asked for here.",
        ));
    }
    let mut asked = embeddings::read(body)?;
    // Only the second version has a choice of lengths.
    let dimensions = asked.dimensions.filter(|_| to.model.contains("embed-text-v2"));
    if asked.dimensions.is_some() && dimensions.is_none() {
        asked.dropped.push(Param::Other("dimensions".into()));
    }
    for (said, name) in [(asked.input_type.is_some(), "input_type"), (asked.truncate.is_some(), "truncate")] {
        if said {
            asked.dropped.push(Param::Other(name.into()));
        }
    }
    // One text in a call.
    embeddings::pieces(&asked.texts, Most::texts(1), asked.dropped, |text| {
        let mut fields = json!({ "inputText": text.first() });
        if let Some(dimensions) = dimensions {
            fields["dimensions"] = dimensions.into();
        }
        Ok(fields.to_string().into())
    })
}

/// Titan's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Titan<'a> {
    #[serde(borrow)]
    embedding: Option<&'a RawValue>,
    input_text_token_count: Option<u64>,
}

fn response(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let titan: Vec<Titan<'_>> = embeddings::answers(body)?;
    if titan.iter().any(|it| it.embedding.is_none()) {
        return cohere::embeddings::read(body, echo);
    }
    let tokens = embeddings::sum(titan.iter().map(|it| it.input_text_token_count));
    embeddings::write(echo, None, titan.iter().filter_map(|it| it.embedding), tokens)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn to(model: &str) -> Destination<'_> {
        let provider = crate::provider("bedrock").unwrap();
        Destination { provider, model, most_output: 0, cap: None, hosted: false }
    }

    fn asked(model: &str, body: &str) -> Result<(Value, Vec<Param>), CodecError> {
        let encoded = request(body.as_bytes(), &to(model))?;
        Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded.dropped))
    }

    #[test]
    fn titan_takes_one_text_in_its_own_words() {
        let v2 = "amazon.titan-embed-text-v2:0";
        let (body, dropped) =
            asked(v2, r#"{"model":"m","input":["a"],"dimensions":256,"user":"u"}"#).unwrap();
        assert_eq!(body, json!({ "inputText": "a", "dimensions": 256 }));
        assert_eq!(dropped, [Param::User]);
        let (body, dropped) =
            asked("amazon.titan-embed-text-v1", r#"{"input":"a","dimensions":256,"input_type":"query"}"#)
                .unwrap();
        assert_eq!(body, json!({ "inputText": "a" }));
        assert_eq!(dropped, [Param::Other("dimensions".into()), Param::Other("input_type".into())]);
        assert!(asked("mistral.mistral-large", r#"{"input":"a"}"#).unwrap_err().unsupported);
        assert_eq!(path("amazon.titan-embed-text-v2:0"), "/model/amazon.titan-embed-text-v2%3A0/invoke");

        let answer =
            br#"{"embedding":[0.25,1],"inputTextTokenCount":7,"embeddingsByType":{"float":[0.25,1]}}"#;
        let converted = response(answer, &Echo { model: "titan".into(), ..Echo::default() }).unwrap();
        let body: Value = serde_json::from_slice(&converted.body).unwrap();
        assert_eq!(body["data"][0]["embedding"], json!([0.25, 1]));
        assert_eq!((&body["model"], &body["usage"]["prompt_tokens"]), (&json!("titan"), &json!(7)));
        assert_eq!(converted.usage.unwrap().input, Some(7));
    }

    #[test]
    fn several_texts_for_titan_are_several_calls() {
        let body = r#"{"model":"m","input":["a","b","c"],"dimensions":256}"#;
        let encoded = request(body.as_bytes(), &to("amazon.titan-embed-text-v2:0")).unwrap();
        let sent: Vec<Value> = [&encoded.body]
            .into_iter()
            .chain(&encoded.more)
            .map(|it| serde_json::from_slice(it).unwrap())
            .collect();
        let expected = ["a", "b", "c"].map(|text| json!({ "inputText": text, "dimensions": 256 }));
        assert_eq!(sent, expected);
        let echo = Echo { request: body.into(), ..Echo::default() };
        let one = |at: u8| format!(r#"{{"embedding":[{at}],"inputTextTokenCount":{at}}}"#);
        let answers = format!("[{},{},{}]", one(1), one(2), one(3));
        let converted = response(answers.as_bytes(), &echo).unwrap();
        let body: Value = serde_json::from_slice(&converted.body).unwrap();
        assert_eq!(body["data"][2], json!({ "object": "embedding", "index": 2, "embedding": [3] }));
        assert_eq!(converted.usage.unwrap().input, Some(6));
        let short = response(format!("[{},{}]", one(1), one(2)).as_bytes(), &echo).unwrap_err();
        assert!(short.message.contains("2 vectors for 3 texts"), "{short}");
        let many = format!(r#"{{"input":[{}"a"]}}"#, "\"a\",".repeat(2048));
        let error = request(many.as_bytes(), &to("amazon.titan-embed-text-v2:0")).unwrap_err();
        assert!(error.path == "input" && error.message.contains("2048"), "{error}");
    }

    #[test]
    fn cohere_on_bedrock_takes_many() {
        let (body, dropped) =
            asked("cohere.embed-english-v3", r#"{"input":["a","b"],"input_type":"query"}"#).unwrap();
        assert_eq!(
            body,
            json!({ "input_type": "search_query", "texts": ["a", "b"], "embedding_types": ["float"] })
        );
        assert_eq!(dropped, []);
        for answer in [
            r#"{"embeddings":[[1],[2]],"id":"i","response_type":"embeddings_floats","texts":["a","b"]}"#,
            r#"{"embeddings":{"float":[[1],[2]]},"id":"i","response_type":"embeddings_by_type"}"#,
        ] {
            let converted = response(answer.as_bytes(), &Echo::default()).unwrap();
            let body: Value = serde_json::from_slice(&converted.body).unwrap();
            assert_eq!(body["data"][1], json!({ "object": "embedding", "index": 1, "embedding": [2] }));
            assert!(converted.usage.is_none(), "it doesn't tell");
        }
        assert!(response(b"{}", &Echo::default()).is_err());
    }
}
