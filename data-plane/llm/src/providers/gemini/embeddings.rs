//! OpenAI's `/v1/embeddings` in Google's words: `batchEmbedContents` of AI Studio, `predict` and `embedContent` of Vertex.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{address, write};
use crate::{
    codec::{CodecError, Destination, Echo, Encoded},
    ir::{Param, Text},
    plan::{Conversion, Converted},
    providers::embeddings::{self, Asked, Most},
};

/// Of AI Studio.
pub const AI_STUDIO: Conversion = Conversion {
    request: ai_studio_request,
    response,
    path: |model| address::ai_studio(model, "batchEmbedContents"),
};

/// Of Vertex.
pub const VERTEX: Conversion = Conversion {
    request: vertex_request,
    response,
    path: |model| address::vertex(model, if embeds_content(model) { "embedContent" } else { "predict" }),
};

/// Vertex serves models since the second of Gemini's by another method than those before, one text at a time.
fn embeds_content(model: &str) -> bool {
    model.contains("gemini-embedding") && !model.ends_with("gemini-embedding-001")
}

/// The request, without what Google has no place for.
fn asked(body: &[u8]) -> Result<Asked<'_>, CodecError> {
    let mut asked = embeddings::read(body)?;
    for (said, name) in [(asked.input_type.is_some(), "input_type"), (asked.truncate.is_some(), "truncate")] {
        if said {
            asked.dropped.push(Param::Other(name.into()));
        }
    }
    Ok(asked)
}

#[derive(Serialize)]
struct Batch<'a> {
    requests: Vec<Single<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Single<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    content: Option<write::Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embed_content_config: Option<Parameters>,
}

fn content<'a>(text: &'a Text<'_>) -> write::Content<'a> {
    write::Content { role: None, parts: vec![write::Part::Known(write::text(&**text))] }
}

fn ai_studio_request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let asked = asked(body)?;
    let model = if to.model.contains('/') { to.model.to_owned() } else { format!("models/{}", to.model) };
    // It takes a hundred, but the vectors of the largest model, indented as Google does, are more than is read of an answer.
    embeddings::pieces(&asked.texts, Most::texts(50), asked.dropped, |texts| {
        let single = |text| Single {
            model: &model,
            content: Some(content(text)),
            output_dimensionality: asked.dimensions,
            embed_content_config: None,
        };
        written(&Batch { requests: texts.iter().map(single).collect() })
    })
}

#[derive(Serialize)]
struct Predict<'a> {
    instances: Vec<Instance<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
}

#[derive(Serialize)]
struct Instance<'a> {
    content: &'a str,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    output_dimensionality: u64,
}

fn vertex_request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let asked = asked(body)?;
    let parameters = asked.dimensions.map(|output_dimensionality| Parameters { output_dimensionality });
    if embeds_content(to.model) {
        return embeddings::pieces(&asked.texts, Most::texts(1), asked.dropped, |texts| {
            let content = texts.first().map(content);
            written(&Single {
                model: "",
                content,
                output_dimensionality: None,
                embed_content_config: parameters,
            })
        });
    }
    embeddings::pieces(&asked.texts, most_instances(to.model), asked.dropped, |texts| {
        written(&Predict {
            instances: texts.iter().map(|text| Instance { content: text }).collect(),
            parameters,
        })
    })
}

/// Of `predict`: the first model of Gemini's takes one text, those before it 250 texts of 20,000 tokens in all.
fn most_instances(model: &str) -> Most {
    if model.contains("gemini-embedding") { Most::texts(1) } else { Most { texts: 250, bytes: 40_000 } }
}

fn written(body: &impl Serialize) -> Result<Bytes, CodecError> {
    let written = serde_json::to_vec(body).map(Bytes::from);
    written.map_err(|error| CodecError::invalid("", format!("The request can't be written: {error}.")))
}

/// All three methods in one: no member means two things.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow)]
    embeddings: Option<Vec<Values<'a>>>,
    #[serde(borrow)]
    embedding: Option<Values<'a>>,
    #[serde(borrow)]
    predictions: Option<Vec<Prediction<'a>>>,
    usage_metadata: Option<Counted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    prompt_token_count: Option<u64>,
}

#[derive(Deserialize)]
struct Prediction<'a> {
    #[serde(borrow)]
    embeddings: Values<'a>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    values: &'a RawValue,
    statistics: Option<Statistics>,
}

#[derive(Deserialize)]
struct Statistics {
    /// Vertex writes it as a float.
    token_count: Option<serde_json::Number>,
}

fn response(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let (mut vectors, mut tokens) = (Vec::new(), Vec::new());
    for answer in embeddings::answers::<Answer<'_>>(body)? {
        let found: Vec<Values<'_>> = match (answer.embeddings, answer.embedding, answer.predictions) {
            (Some(embeddings), ..) => embeddings,
            (_, Some(embedding), _) => vec![embedding],
            (.., Some(predictions)) => predictions.into_iter().map(|it| it.embeddings).collect(),
            _ => return Err(CodecError::invalid("", "The upstream's answer has no embeddings.")),
        };
        let statistics =
            found.iter().filter_map(|it| it.statistics.as_ref()?.token_count.as_ref()).map(count);
        let told = answer.usage_metadata.and_then(|it| it.prompt_token_count);
        tokens.push(told.or_else(|| statistics.reduce(u64::saturating_add)));
        vectors.extend(found.iter().map(|it| it.values));
    }
    embeddings::write(echo, None, vectors, embeddings::sum(tokens))
}

/// A whole number, `5` or `5.0`.
fn count(number: &serde_json::Number) -> u64 {
    let text = number.to_string();
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(id: &str, model: &'static str) -> Destination<'static> {
        let provider = crate::provider(id).unwrap();
        Destination { provider, model, most_output: 0, cap: None, hosted: false }
    }

    fn request(
        of: &Conversion,
        body: &str,
        to: &Destination<'_>,
    ) -> Result<(String, Vec<Param>), CodecError> {
        let encoded = (of.request)(body.as_bytes(), to)?;
        Ok((String::from_utf8(encoded.body.to_vec()).unwrap(), encoded.dropped))
    }

    /// R004-26: embeddings of Google's models through OpenAI's endpoint.
    #[test]
    fn each_host_gets_its_own_words() {
        let studio = to("google-ai-studio", "gemini-embedding-001");
        let (body, dropped) =
            request(&AI_STUDIO, r#"{"model":"x","input":["a","b"],"dimensions":8,"user":"u"}"#, &studio)
                .unwrap();
        assert_eq!(
            body,
            r#"{"requests":[{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"a"}]},"outputDimensionality":8},{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"b"}]},"outputDimensionality":8}]}"#
        );
        assert_eq!(dropped, [Param::User]);
        let vertex = to("google-vertex", "text-embedding-005");
        let (body, _) = request(&VERTEX, r#"{"input":"a","dimensions":8}"#, &vertex).unwrap();
        assert_eq!(body, r#"{"instances":[{"content":"a"}],"parameters":{"outputDimensionality":8}}"#);
        let newer = to("google-vertex", "gemini-embedding-2");
        let (body, _) = request(&VERTEX, r#"{"input":"a","dimensions":8}"#, &newer).unwrap();
        assert_eq!(
            body,
            r#"{"content":{"parts":[{"text":"a"}]},"embedContentConfig":{"outputDimensionality":8}}"#
        );
        assert_eq!(
            (VERTEX.path)("gemini-embedding-2"),
            "/publishers/google/models/gemini-embedding-2:embedContent"
        );
        assert_eq!(
            (VERTEX.path)("gemini-embedding-001"),
            "/publishers/google/models/gemini-embedding-001:predict"
        );
    }

    #[test]
    fn what_is_no_text_is_refused_by_its_place() {
        let studio = to("google-ai-studio", "m");
        for (body, path) in [
            (r#"{"input":[1,2]}"#, "input[0]"),
            (r#"{"input":["a",7]}"#, "input[1]"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"model":"m"}"#, "input"),
            (r#"{"input":"a","dimensions":"8"}"#, "dimensions"),
            (r#"{"input":"a","encoding_format":"hex"}"#, "encoding_format"),
            ("[]", ""),
        ] {
            assert_eq!(request(&AI_STUDIO, body, &studio).unwrap_err().path, path, "{body}");
        }
    }

    #[test]
    fn answers_of_all_three_methods_become_openais() {
        let echo =
            |request: &str| Echo { model: "m".into(), request: request.to_owned().into(), ..Echo::default() };
        let body =
            |answer: &str, request: &str| (AI_STUDIO.response)(answer.as_bytes(), &echo(request)).unwrap();
        let studio = body(r#"{"embeddings":[{"values":[0.5,1]},{"values":[2]}]}"#, r#"{"input":["a","b"]}"#);
        assert_eq!(studio.usage, None, "nobody counted");
        assert_eq!(
            String::from_utf8(studio.body).unwrap(),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,1]},{"object":"embedding","index":1,"embedding":[2]}],"model":"m","usage":{"prompt_tokens":5,"total_tokens":5}}"#
        );
        let vertex = body(
            r#"{"predictions":[{"embeddings":{"values":[1],"statistics":{"token_count":3.0,"truncated":false}}},{"embeddings":{"values":[1],"statistics":{"token_count":4}}}]}"#,
            r#"{"input":["a","b"],"encoding_format":"base64"}"#,
        );
        assert_eq!(vertex.usage.unwrap().input, Some(7));
        assert!(String::from_utf8(vertex.body).unwrap().contains(r#""embedding":"AACAPw==""#));
        let newer = body(r#"{"embedding":{"values":[1]},"usageMetadata":{"promptTokenCount":2}}"#, "{}");
        assert_eq!(newer.usage.unwrap().input, Some(2));
        assert!((VERTEX.response)(b"{}", &Echo::default()).is_err());
    }
}
