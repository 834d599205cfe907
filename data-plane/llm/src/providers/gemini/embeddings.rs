//! OpenAI's `/v1/embeddings` in Google's words: `batchEmbedContents` of AI Studio, `predict` and `embedContent` of Vertex.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nemo_types::Usage;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    address,
    wire::{self, Members, Str},
    write,
};
use crate::{
    codec::{CodecError, Destination, Echo, Encoded},
    ir::Param,
    plan::{Conversion, Converted},
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

struct Asked<'a> {
    texts: Vec<Str<'a>>,
    dimensions: Option<u64>,
    dropped: Vec<Param>,
}

/// A text or a list of texts.
struct Input<'a>(Vec<Str<'a>>);

impl<'de> Deserialize<'de> for Input<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Input<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts (Google's models take no tokens)")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Input(vec![Str(text.into())]))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Input(vec![Str(text.to_owned().into())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Input(texts))
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

fn asked(body: &[u8]) -> Result<Asked<'_>, CodecError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| CodecError::invalid("", "The body is not UTF-8, as JSON has to be."))?;
    let Members(members) = wire::read(text, "")?;
    let mut asked = Asked { texts: Vec::new(), dimensions: None, dropped: Vec::new() };
    for (name, value) in members {
        let text = value.get();
        match &*name {
            _ if text == "null" => {}
            "model" => {}
            "input" => asked.texts = wire::read::<Input<'_>>(text, "input")?.0,
            "dimensions" => asked.dimensions = Some(wire::read(text, "dimensions")?),
            "encoding_format" => {
                let format: Str<'_> = wire::read(text, "encoding_format")?;
                if !matches!(&*format.0, "float" | "base64") {
                    return Err(CodecError::invalid("encoding_format", "Expected \"float\" or \"base64\"."));
                }
            }
            "user" => asked.dropped.push(Param::User),
            _ => asked.dropped.push(Param::Other(Box::from(&*name))),
        }
    }
    if asked.texts.is_empty() {
        return Err(CodecError::invalid(
            "input",
            "There is nothing to embed: expected a text or a list of texts.",
        ));
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
    content: write::Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embed_content_config: Option<Parameters>,
}

fn content<'a>(text: &'a Str<'_>) -> write::Content<'a> {
    write::Content { role: None, parts: vec![write::Part::Known(write::text(&*text.0))] }
}

fn ai_studio_request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let asked = asked(body)?;
    let model = if to.model.contains('/') { to.model.to_owned() } else { format!("models/{}", to.model) };
    let single = |text| Single {
        model: &model,
        content: content(text),
        output_dimensionality: asked.dimensions,
        embed_content_config: None,
    };
    encoded(&Batch { requests: asked.texts.iter().map(single).collect() }, asked.dropped)
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    output_dimensionality: u64,
}

fn vertex_request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let asked = asked(body)?;
    let parameters = asked.dimensions.map(|output_dimensionality| Parameters { output_dimensionality });
    if embeds_content(to.model) {
        let [text] = asked.texts.as_slice() else {
            let message = "This model embeds one text at a time on Vertex AI.";
            return Err(CodecError::unsupported("input", message));
        };
        let single = Single {
            model: "",
            content: content(text),
            output_dimensionality: None,
            embed_content_config: parameters,
        };
        return encoded(&single, asked.dropped);
    }
    let instances = asked.texts.iter().map(|text| Instance { content: &text.0 }).collect();
    encoded(&Predict { instances, parameters }, asked.dropped)
}

fn encoded(body: &impl Serialize, dropped: Vec<Param>) -> Result<Encoded, CodecError> {
    let body = serde_json::to_vec(body)
        .map_err(|error| CodecError::invalid("", format!("The request can't be written: {error}.")))?;
    Ok(Encoded { body: body.into(), dropped, forced_tool: false })
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

#[derive(Serialize)]
struct Written<'a> {
    object: &'static str,
    data: Vec<Datum<'a>>,
    model: &'a str,
    usage: WrittenUsage,
}

#[derive(Serialize)]
struct Datum<'a> {
    object: &'static str,
    index: usize,
    embedding: Embedding<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding<'a> {
    Numbers(&'a RawValue),
    Base64(String),
}

#[derive(Serialize)]
struct WrittenUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

fn response(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let answer: Answer<'_> = wire::read_answer(body)?;
    let vectors: Vec<Values<'_>> = match (answer.embeddings, answer.embedding, answer.predictions) {
        (Some(embeddings), ..) => embeddings,
        (_, Some(embedding), _) => vec![embedding],
        (.., Some(predictions)) => predictions.into_iter().map(|it| it.embeddings).collect(),
        _ => return Err(CodecError::invalid("", "The upstream's answer has no embeddings.")),
    };
    let statistics = vectors.iter().filter_map(|it| it.statistics.as_ref()?.token_count.as_ref()).map(count);
    let told = answer.usage_metadata.and_then(|it| it.prompt_token_count);
    let tokens = told.or_else(|| statistics.reduce(|a, b| a.saturating_add(b)));
    let base64 = wants_base64(&echo.request);
    let mut data = Vec::with_capacity(vectors.len());
    for (index, vector) in vectors.iter().enumerate() {
        let embedding = if base64 {
            Embedding::Base64(packed(vector.values)?)
        } else {
            Embedding::Numbers(vector.values)
        };
        data.push(Datum { object: "embedding", index, embedding });
    }
    // Some models don't count; clients expect a number, and what is billed is estimated by the gateway.
    let shown = tokens.unwrap_or_else(|| crate::estimate_input_tokens(&echo.request));
    let usage = WrittenUsage { prompt_tokens: shown, total_tokens: shown };
    let written = Written { object: "list", data, model: &echo.model, usage };
    Ok(Converted {
        body: serde_json::to_vec(&written).unwrap_or_default(),
        usage: tokens.map(|tokens| Usage { input: Some(tokens), ..Usage::default() }),
        measures: Vec::new(),
    })
}

/// A whole number, `5` or `5.0`.
fn count(number: &serde_json::Number) -> u64 {
    let text = number.to_string();
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

fn wants_base64(request: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Format<'a> {
        #[serde(borrow)]
        encoding_format: Option<Str<'a>>,
    }
    let format: Option<Format<'_>> = serde_json::from_slice(request).ok();
    format.and_then(|it| it.encoding_format).is_some_and(|it| it.0 == "base64")
}

/// As OpenAI packs them: floats of 32 bits, the lowest byte first.
fn packed(values: &RawValue) -> Result<String, CodecError> {
    let numbers: Vec<f32> = serde_json::from_str(values.get())
        .map_err(|_| CodecError::invalid("", "The upstream's embedding is no list of numbers."))?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Ok(STANDARD.encode(bytes))
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
        assert!(request(&VERTEX, r#"{"input":["a","b"]}"#, &newer).unwrap_err().unsupported);
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
