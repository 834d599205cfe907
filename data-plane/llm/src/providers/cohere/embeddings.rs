//! Embeddings, of Cohere's own API and of its models on Bedrock.

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    codec::{CodecError, Destination, Echo, Encoded},
    ir::Param,
    plan::{Conversion, Converted},
    providers::{
        embeddings::{self, Most, Vector},
        read,
    },
};

pub(in crate::providers) const CONVERSION: Conversion = Conversion { request, response: read, path };

fn path(_: &str) -> String {
    "/v2/embed".to_owned()
}

fn request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    write(body, Some(to.model))
}

/// `model`: none where it stands in the path.
pub(in crate::providers) fn write(body: &[u8], model: Option<&str>) -> Result<Encoded, CodecError> {
    let mut asked = embeddings::read(body)?;
    // Cohere asks what for, OpenAI doesn't: texts to be found are what most embeddings are of.
    let input_type = match asked.input_type.as_deref().unwrap_or("document") {
        "query" | "search_query" => "search_query",
        "document" | "passage" | "search_document" => "search_document",
        "classification" => "classification",
        "clustering" => "clustering",
        other => {
            return Err(CodecError::invalid(
                "input_type",
                format!(
                    "Expected `search_document`, `search_query`, `classification` or `clustering`, and not `{}`.",
                    &other[..other.floor_char_boundary(64)]
                ),
            ));
        }
    };
    let mut fields = json!({ "input_type": input_type, "texts": [], "embedding_types": ["float"] });
    if let Some(model) = model {
        fields["model"] = model.into();
    }
    if let Some(dimensions) = asked.dimensions {
        fields["output_dimension"] = dimensions.into();
    }
    if let Some(truncate) = asked.truncate {
        match truncate.get() {
            "\"NONE\"" | "false" => fields["truncate"] = "NONE".into(),
            "\"START\"" => fields["truncate"] = "START".into(),
            "\"END\"" | "true" => fields["truncate"] = "END".into(),
            _ => asked.dropped.push(Param::Other("truncate".into())),
        }
    }
    embeddings::pieces(&asked.texts, Most::texts(96), asked.dropped, |texts| {
        let mut fields = fields.clone();
        fields["texts"] = json!(texts);
        Ok(fields.to_string().into())
    })
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    embeddings: &'a RawValue,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct ByType<'a> {
    #[serde(borrow)]
    float: Vec<Vector<'a>>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Billed>,
}

#[derive(Deserialize)]
struct Billed {
    /// Written with a fraction now and then.
    input_tokens: Option<f64>,
}

/// The vectors stand in an array of their own (Bedrock, for some models), or below the name of their type.
pub(in crate::providers) fn read(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let answers: Vec<Body<'_>> = embeddings::answers(body)?;
    let mut vectors = Vec::new();
    for answer in &answers {
        let json = answer.embeddings.get();
        vectors.append(&mut match json.starts_with('[') {
            true => read::value("embeddings", json)?,
            false => read::value::<ByType<'_>>("embeddings", json)?.float,
        });
    }
    let billed = answers.iter().map(|it| it.meta.as_ref()?.billed_units.as_ref()?.input_tokens);
    let tokens = embeddings::sum(billed.map(|tokens| tokens.map(super::response::whole)));
    embeddings::write(echo, None, vectors, tokens)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn asked(body: &str) -> Result<(Value, Vec<Param>), CodecError> {
        let encoded = write(body.as_bytes(), Some("embed-v4.0"))?;
        Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded.dropped))
    }

    #[test]
    fn texts_go_out_and_vectors_come_back() {
        let (body, dropped) =
            asked(r#"{"model":"m","input":["a"],"dimensions":512,"truncate":"END","user":"u"}"#).unwrap();
        let expected = json!({
            "model": "embed-v4.0", "input_type": "search_document", "texts": ["a"], "embedding_types": ["float"],
            "output_dimension": 512, "truncate": "END",
        });
        assert_eq!(body, expected);
        assert_eq!(dropped, [Param::User]);
        let error = asked(r#"{"input":"a","input_type":"poem"}"#).unwrap_err();
        assert!(!error.unsupported && error.path == "input_type");

        let answer = br#"{"id":"1","embeddings":{"float":[[0.5,1]]},"texts":["a"],
            "meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":3.0}},"response_type":"embeddings_by_type"}"#;
        let converted = read(answer, &Echo { model: "m".into(), ..Echo::default() }).unwrap();
        let body: Value = serde_json::from_slice(&converted.body).unwrap();
        assert_eq!(body["data"], json!([{ "object": "embedding", "index": 0, "embedding": [0.5, 1] }]));
        assert_eq!(converted.usage.unwrap().input, Some(3));
        assert!(read(br#"{"embeddings":{"int8":[[1]]}}"#, &Echo::default()).is_err());
    }
}
