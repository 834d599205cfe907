//! Voyage's embeddings and rankings, which are nearly those of OpenAI and Cohere. Called through [`crate::plan`].

use nemo_types::Usage;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    embeddings::{self, Most, Vector},
    read::{self, Members, Str},
    write,
};
use crate::{
    codec::{CodecError, Destination, Echo, Encoded},
    ir::Param,
    plan::{Conversion, Converted},
};

pub(super) const EMBEDDINGS: Conversion =
    Conversion { request: embed, response: embedded, path: embeddings_path };
pub(super) const RERANK: Conversion = Conversion { request: rank, response: ranked, path: rerank_path };

fn embeddings_path(_: &str) -> String {
    "/embeddings".to_owned()
}

fn rerank_path(_: &str) -> String {
    "/rerank".to_owned()
}

fn embed(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let mut asked = embeddings::read(body)?;
    let mut fields = json!({ "model": to.model, "input": [] });
    if let Some(kind) = asked.input_type.as_deref() {
        fields["input_type"] = match kind {
            "query" | "search_query" => "query".into(),
            "document" | "passage" | "search_document" => "document".into(),
            other => {
                return Err(CodecError::invalid(
                    "input_type",
                    format!(
                        "Expected `query` or `document`, and not `{}`.",
                        &other[..other.floor_char_boundary(64)]
                    ),
                ));
            }
        };
    }
    if let Some(dimensions) = asked.dimensions {
        fields["output_dimension"] = dimensions.into();
    }
    // Numbers are what comes when nothing is said, and can't be asked for.
    if asked.base64 {
        fields["encoding_format"] = "base64".into();
    }
    match asked.truncate.map(RawValue::get) {
        None => {}
        Some("true" | "\"END\"") => fields["truncation"] = true.into(),
        Some("false" | "\"NONE\"") => fields["truncation"] = false.into(),
        Some(_) => asked.dropped.push(Param::Other("truncate".into())),
    }
    // It takes a thousand, but their vectors are more than is read of an answer.
    embeddings::pieces(&asked.texts, Most::texts(200), asked.dropped, |texts| {
        let mut fields = fields.clone();
        fields["input"] = json!(texts);
        Ok(fields.to_string().into())
    })
}

#[derive(Deserialize)]
struct Embedded<'a> {
    #[serde(borrow)]
    data: Vec<Item<'a>>,
    #[serde(borrow)]
    model: Option<Str<'a>>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    embedding: Vector<'a>,
    index: u64,
}

#[derive(Deserialize)]
struct Tokens {
    total_tokens: Option<u64>,
}

fn embedded(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let mut answers: Vec<Embedded<'_>> = embeddings::answers(body)?;
    answers.iter_mut().for_each(|answer| answer.data.sort_by_key(|item| item.index));
    let tokens = embeddings::sum(answers.iter().map(|it| it.usage.as_ref()?.total_tokens));
    let model = answers.first().and_then(|it| it.model.as_ref()).map(|model| &*model.0);
    let vectors = answers.iter().flat_map(|it| &it.data).map(|item| item.embedding);
    embeddings::write(echo, model, vectors, tokens)
}

/// A ranking, as Cohere's clients ask for it.
fn rank(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let (mut dropped, mut query, mut documents) = (Vec::new(), None, None);
    let mut fields = json!({ "model": to.model });
    for (name, json) in read::body::<Members<'_>>(body)?.0 {
        match &*name.0 {
            "model" => {}
            "query" => query = read::member::<Str<'_>>("query", json)?,
            "documents" => documents = Some(texts(json)?),
            "top_n" | "top_k" => {
                if let Some(most) = read::member::<u64>(&name.0, json)? {
                    fields["top_k"] = most.into();
                }
            }
            "return_documents" => {
                if let Some(wanted) = read::member::<bool>("return_documents", json)? {
                    fields["return_documents"] = wanted.into();
                }
            }
            _ if json.get() == "null" => {}
            other => dropped.push(Param::Other(other.into())),
        }
    }
    let missing = |name: &str| CodecError::invalid(name, format!("Missing field `{name}`."));
    fields["query"] = query.ok_or_else(|| missing("query"))?.0.into();
    fields["documents"] = documents.ok_or_else(|| missing("documents"))?.into();
    Ok(Encoded::new(fields.to_string(), dropped))
}

/// Documents are texts, or objects that have one.
fn texts(json: &RawValue) -> Result<Vec<String>, CodecError> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        text: Str<'a>,
    }
    let items: Vec<&RawValue> = read::value("documents", json.get())?;
    let mut texts = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let path = format!("documents[{at}]");
        let text = if item.get().starts_with('{') {
            read::value::<Document<'_>>(&path, item.get())?.text
        } else {
            read::value(&path, item.get())?
        };
        texts.push(text.0.into_owned());
    }
    Ok(texts)
}

#[derive(Deserialize)]
struct Ranked<'a> {
    #[serde(borrow)]
    data: Vec<Score<'a>>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Score<'a> {
    index: u64,
    relevance_score: f64,
    #[serde(borrow)]
    document: Option<Str<'a>>,
}

fn ranked(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let body: Ranked<'_> = read::body(body)?;
    let tokens = body.usage.and_then(|usage| usage.total_tokens);
    let mut out = Vec::with_capacity(64 * body.data.len() + 128);
    write::object(&mut out, |object| {
        object.text("id", &echo.id);
        object.array("results", &body.data, |out, score| {
            write::object(out, |result| {
                result.value("index", score.index);
                result.value("relevance_score", score.relevance_score);
                if let Some(text) = &score.document {
                    result.object("document", |document| document.text("text", &text.0));
                }
            });
        });
        object.object("meta", |meta| {
            meta.object("tokens", |count| count.value("input_tokens", tokens.unwrap_or(0)));
        });
    });
    let usage = tokens.map(|input| Usage { input: Some(input), ..Usage::default() });
    Ok(Converted { body: out, usage, measures: Vec::new() })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn to() -> Destination<'static> {
        let provider = crate::provider("voyage").unwrap();
        Destination { provider, model: "voyage-3.5", most_output: 0, cap: None, hosted: false }
    }

    fn value(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn embeddings_are_asked_for_in_voyages_words() {
        let body =
            br#"{"model":"m","input":["a","b"],"encoding_format":"float","dimensions":256,"user":"u"}"#;
        let encoded = embed(body, &to()).unwrap();
        let expected = json!({ "model": "voyage-3.5", "input": ["a", "b"], "output_dimension": 256 });
        assert_eq!((value(&encoded.body), &*encoded.dropped), (expected, &[Param::User][..]));
        let body = br#"{"input":"a","encoding_format":"base64","input_type":"passage","truncation":false}"#;
        let expected = json!({
            "model": "voyage-3.5", "input": ["a"], "encoding_format": "base64", "input_type": "document",
            "truncation": false,
        });
        assert_eq!(value(&embed(body, &to()).unwrap().body), expected);
        assert_eq!(embed(br#"{"input":"a","input_type":"x"}"#, &to()).unwrap_err().path, "input_type");

        let answer = br#"{"object":"list","data":[{"object":"embedding","embedding":[2],"index":1},
            {"object":"embedding","embedding":[1],"index":0}],"model":"voyage-3.5","usage":{"total_tokens":9}}"#;
        let converted = embedded(answer, &Echo::default()).unwrap();
        let body = value(&converted.body);
        assert_eq!(body["data"][0]["embedding"], json!([1]));
        assert_eq!(body["usage"], json!({ "prompt_tokens": 9, "total_tokens": 9 }));
        assert_eq!(converted.usage.unwrap().input, Some(9));
    }

    #[test]
    fn rankings_are_asked_for_and_answered_in_coheres_words() {
        let body = br#"{"model":"m","query":"q","documents":["a",{"text":"b"}],"top_n":1,"return_documents":true,"x":1}"#;
        let encoded = rank(body, &to()).unwrap();
        let expected = json!({
            "model": "voyage-3.5", "query": "q", "documents": ["a", "b"], "top_k": 1, "return_documents": true,
        });
        assert_eq!((value(&encoded.body), &*encoded.dropped), (expected, &[Param::Other("x".into())][..]));
        for (body, path) in [
            (&br#"{"documents":["a"]}"#[..], "query"),
            (br#"{"query":"q"}"#, "documents"),
            (br#"{"query":"q","documents":"a"}"#, "documents"),
            (br#"{"query":"q","documents":["a",5]}"#, "documents[1]"),
            (br#"{"query":"q","documents":[{"title":"a"}]}"#, "documents[0]"),
        ] {
            assert_eq!(rank(body, &to()).unwrap_err().path, path);
        }
        let answer = br#"{"object":"list","data":[{"relevance_score":0.5,"index":1,"document":"b"}],
            "model":"rerank-2.5","usage":{"total_tokens":26}}"#;
        let converted = ranked(answer, &Echo { id: "1".into(), ..Echo::default() }).unwrap();
        let expected = json!({
            "id": "1", "results": [{ "index": 1, "relevance_score": 0.5, "document": { "text": "b" } }],
            "meta": { "tokens": { "input_tokens": 26 } },
        });
        assert_eq!(value(&converted.body), expected);
        assert_eq!(converted.usage.unwrap().input, Some(26));
    }
}
