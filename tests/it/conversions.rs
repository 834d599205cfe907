//! Endpoints that are no conversation, at providers with words of their own: embeddings and images (R004-26, R004-36).

use nemo_tests::{
    fleet::{Fleet, UPSTREAM_KEY},
    script::Script,
    upstream::{
        Upstream,
        dialects::{TEXT_TOKENS, vector},
        media::PNG,
    },
};
use serde_json::{Value, json};

use super::{
    dialects::{row, serve_as, settled},
    media::quantity,
};

/// A service account's key that is good for nothing else.
pub fn service_account() -> String {
    json!({
        "type": "service_account", "client_email": "mock@project.example", "private_key_id": "1",
        "private_key": include_str!("service-account.pem"), "token_uri": "http://169.254.169.254/never",
    })
    .to_string()
}

/// A gateway whose node fetches Google's tokens from the second.
pub async fn fleet_with_tokens() -> (Fleet, Upstream) {
    let tokens = Upstream::start().await.unwrap();
    let url = format!("{}/token", tokens.origin());
    (Fleet::start_with(&[("NEMO_GCP_TOKEN_URL", &url)]).await.unwrap(), tokens)
}

pub const VERTEX: &str = "/v1/projects/p/locations/l";

fn secret(provider: &str) -> String {
    match provider {
        "bedrock" => {
            json!({ "access_key_id": "AKIDTEST", "secret_access_key": UPSTREAM_KEY, "region": "eu-west-1" })
                .to_string()
        }
        "google-vertex" => service_account(),
        _ => UPSTREAM_KEY.to_owned(),
    }
}

/// One provider's embeddings: where they are asked for, in which words, and what is counted.
struct Case {
    provider: &'static str,
    base: &'static str,
    model: &'static str,
    texts: &'static [&'static str],
    path: &'static str,
    body: Value,
    counted: Option<u64>,
}

fn cases() -> Vec<Case> {
    let two: &[&str] = &["a", "b c"];
    let content = |text: &str| json!({ "parts": [{ "text": text }] });
    let single = |text: &str| json!({ "model": "models/gemini-embedding-001", "content": content(text), "outputDimensionality": 8 });
    let case = |provider, base, model, path, body, counted| Case {
        provider,
        base,
        model,
        texts: two,
        path,
        body,
        counted,
    };
    vec![
        case(
            "google-ai-studio",
            "/v1beta",
            "gemini-embedding-001",
            "/v1beta/models/gemini-embedding-001:batchEmbedContents",
            json!({ "requests": [single("a"), single("b c")] }),
            None,
        ),
        case(
            "google-vertex",
            VERTEX,
            "text-embedding-005",
            "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict",
            json!({ "instances": [{ "content": "a" }, { "content": "b c" }], "parameters": { "outputDimensionality": 8 } }),
            Some(2 * TEXT_TOKENS),
        ),
        Case {
            texts: &["a"],
            ..case(
                "google-vertex",
                VERTEX,
                "gemini-embedding-2",
                "/v1/projects/p/locations/l/publishers/google/models/gemini-embedding-2:embedContent",
                json!({ "content": content("a"), "embedContentConfig": { "outputDimensionality": 8 } }),
                Some(TEXT_TOKENS),
            )
        },
        Case {
            texts: &["a"],
            ..case(
                "bedrock",
                "",
                "amazon.titan-embed-text-v2:0",
                "/model/amazon.titan-embed-text-v2%3A0/invoke",
                json!({ "inputText": "a", "dimensions": 8 }),
                Some(TEXT_TOKENS),
            )
        },
        case(
            "bedrock",
            "",
            "cohere.embed-english-v3",
            "/model/cohere.embed-english-v3/invoke",
            json!({ "texts": two, "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 8 }),
            None,
        ),
        case(
            "cohere",
            "/compatibility/v1",
            "embed-v4.0",
            "/v2/embed",
            json!({ "model": "embed-v4.0", "texts": two, "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 8 }),
            Some(2 * TEXT_TOKENS),
        ),
        case(
            "voyage",
            "/v1",
            "voyage-3.5",
            "/v1/embeddings",
            json!({ "model": "voyage-3.5", "input": two, "output_dimension": 8 }),
            // Words, as the mock counts for OpenAI too.
            Some(3),
        ),
    ]
}

/// The numbers of an embedding, in whichever encoding was asked for.
fn numbers(embedding: &Value) -> Vec<f64> {
    match embedding.as_str() {
        Some(packed) => {
            let bytes = base64(packed);
            let floats = bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap()));
            floats.map(f64::from).collect()
        }
        None => embedding.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect(),
    }
}

/// Decodes standard base64, by hand: so that it has nothing in common with what it checks.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = text.bytes().filter(|byte| *byte != b'=');
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in letters {
        bits = bits << 6 | u32::try_from(LETTERS.iter().position(|it| *it == letter).unwrap()).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

/// R004-26: `/v1/embeddings` at everybody who embeds, in both encodings, counted and priced.
#[tokio::test]
async fn embeddings_are_asked_for_in_each_providers_own_words() {
    let (fleet, _tokens) = fleet_with_tokens().await;
    let cases = cases();
    for case in &cases {
        let base = format!("{}{}", fleet.upstream.origin(), case.base);
        let (id, model) = (id(case), case.model);
        serve_as(&fleet, &id, case.provider, &base, &secret(case.provider), "embeddings", model).await;
    }
    settled(&fleet, &id(cases.last().unwrap())).await;
    for case in &cases {
        for encoding in ["float", "base64"] {
            let what = format!("{} {} {encoding}", case.provider, case.model);
            let input = if case.texts.len() == 1 { json!(case.texts[0]) } else { json!(case.texts) };
            let request = json!({
                "model": id(case), "input": input, "encoding_format": encoding, "dimensions": 8,
            });
            let response = fleet.client.post("/v1/embeddings", request.to_string()).await.unwrap();
            assert_eq!(response.status, 200, "{what}: {}", response.text());
            let sent = fleet.upstream.last_request().unwrap();
            let mut body = sent.json().unwrap();
            if case.provider == "voyage" && encoding == "base64" {
                assert_eq!(body.as_object_mut().unwrap().remove("encoding_format"), Some(json!("base64")));
            }
            assert_eq!((&*sent.path, body), (case.path, case.body.clone()), "{what}");
            check(case, encoding, &response.json().unwrap(), &what);
            let logged = row(&fleet, &response).await;
            assert_eq!(
                (&logged["endpoint"], &logged["outcome"]),
                (&json!("embeddings"), &json!("ok")),
                "{what}"
            );
            let tokens = logged["input_tokens"].as_u64().unwrap();
            match case.counted {
                Some(counted) => {
                    assert_eq!(
                        (tokens, &logged["cost_source"]),
                        (counted, &json!("priced")),
                        "{what}: {logged}"
                    );
                }
                None => assert_eq!(logged["cost_source"], "estimated", "{what}: {logged}"),
            }
            assert_eq!(logged["cost_nanos"].as_u64(), Some(tokens * 5000), "{what}: {logged}");
        }
    }
}

fn id(case: &Case) -> String {
    format!("at-{}-{}", case.provider, case.model.replace(':', "-"))
}

fn check(case: &Case, encoding: &str, answer: &Value, what: &str) {
    assert_eq!(answer["object"], "list", "{what}: {answer}");
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), case.texts.len(), "{what}: {answer}");
    for (at, item) in data.iter().enumerate() {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(at)), "{what}: {answer}");
        assert_eq!(item["embedding"].is_string(), encoding == "base64", "{what}: {answer}");
        let numbers = numbers(&item["embedding"]);
        if case.provider == "voyage" {
            assert_eq!(numbers.len(), 8, "{what}: {answer}");
        } else {
            assert_eq!(numbers, vector(at), "{what}: {answer}");
        }
    }
    if let Some(counted) = case.counted {
        assert_eq!(answer["usage"]["prompt_tokens"], counted, "{what}: {answer}");
    }
    assert!(answer["usage"]["total_tokens"].as_u64().unwrap() > 0, "{what}: {answer}");
}

async fn serve_titan(fleet: &Fleet) {
    let (origin, model) = (fleet.upstream.origin(), "amazon.titan-embed-text-v2:0");
    serve_as(fleet, "at-titan", "bedrock", &origin, &secret("bedrock"), "embeddings", model).await;
    settled(fleet, "at-titan").await;
}

/// Titan takes one text in a call: many are as many calls, and one answer, one row, one price.
#[tokio::test]
async fn a_longer_list_than_a_provider_takes_is_sent_in_pieces() {
    let fleet = Fleet::start().await.unwrap();
    serve_titan(&fleet).await;
    let texts: Vec<String> = (0..30).map(|at| format!("text {at:02}")).collect();
    let request = json!({ "model": "at-titan", "input": texts, "dimensions": 8 });
    let client = fleet.client.clone().header("idempotency-key", "list-1");
    let response = client.post("/v1/embeddings", request.to_string()).await.unwrap();
    let answer = response.json().unwrap();
    assert_eq!(response.status, 200, "{answer}");
    let data = answer["data"].as_array().unwrap();
    assert!(data.len() == 30 && data.iter().enumerate().all(|(at, it)| it["index"] == at), "{answer}");
    assert_eq!(answer["usage"]["prompt_tokens"], 30 * TEXT_TOKENS);
    let sent = fleet.upstream.requests();
    let mut asked: Vec<_> = sent.iter().map(|it| it.json().unwrap()["inputText"].clone()).collect();
    asked.sort_by_key(|text| text.as_str().unwrap().to_owned());
    assert_eq!(json!(asked), json!(texts));
    // Each is another request: under one key, the first one's answer would stand for all.
    let keyed: Vec<_> = sent.iter().filter(|it| it.header("idempotency-key").is_some()).collect();
    assert!(keyed.len() == 1 && keyed[0].json().unwrap()["inputText"] == texts[0], "{}", keyed.len());
    let logged = row(&fleet, &response).await;
    assert_eq!(logged["cost_nanos"], 30 * TEXT_TOKENS * 5000, "{logged}");
    assert_eq!(logged["attempts"], 1, "{logged}");
}

/// A piece that fails fails the attempt. What the others have cost is paid, and the next attempt begins anew.
#[tokio::test]
async fn a_piece_that_fails_is_a_failed_attempt_that_was_paid() {
    let fleet = Fleet::start().await.unwrap();
    serve_titan(&fleet).await;
    let request = json!({ "model": "at-titan", "input": ["one", "two", "three"] }).to_string();
    fleet.upstream.push(Script::ok());
    fleet.upstream.push(Script::status(500));
    let response = fleet.client.post("/v1/embeddings", request.clone()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-nemo-attempts"), Some("2"), "{response:?}");
    let logged = row(&fleet, &response).await;
    let cost = logged["cost_nanos"].as_u64().unwrap();
    assert!(cost > 3 * TEXT_TOKENS * 5000, "two attempts: {logged}");

    // What is wrong with one text is told, and no attempt more is made.
    fleet.upstream.push(Script::ok());
    for _ in 0..2 {
        fleet.upstream.push(Script::status(400));
    }
    let response = fleet.client.post("/v1/embeddings", request).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!((response.status, &error["type"]), (400, &json!("invalid_request_error")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("refused a part of the request"), "{error}");
    let logged = row(&fleet, &response).await;
    assert!(logged["cost_nanos"].as_u64().unwrap() > 0, "{logged}");
}

/// What a provider's embeddings can't do is a 400 that names it, and nothing is sent.
#[tokio::test]
async fn embeddings_that_a_provider_has_not_are_refused_by_their_place() {
    let fleet = Fleet::start().await.unwrap();
    serve_titan(&fleet).await;
    let before = fleet.upstream.served();
    let many = json!(vec!["a"; 2049]);
    for (input, param) in [(many, "input"), (json!([1, 2]), "input[0]"), (json!([]), "input")] {
        let request = json!({ "model": "at-titan", "input": input });
        let response = fleet.client.post("/v1/embeddings", request.to_string()).await.unwrap();
        let error = response.json().unwrap()["error"].clone();
        assert_eq!((response.status, &error["param"]), (400, &json!(param)), "{input}: {error}");
    }
    assert_eq!(fleet.upstream.served(), before);
}

/// R004-36: Imagen, and the Gemini models that paint, behind `/v1/images/generations`.
#[tokio::test]
async fn images_are_made_by_google_behind_openais_endpoint() {
    let (fleet, _tokens) = fleet_with_tokens().await;
    let cases = [
        (
            "imagen",
            "google-ai-studio",
            "/v1beta",
            "imagen-4.0-generate-001",
            2,
            "/v1beta/models/imagen-4.0-generate-001:predict",
        ),
        (
            "vertex-imagen",
            "google-vertex",
            VERTEX,
            "imagen-4.0-generate-001",
            2,
            "/v1/projects/p/locations/l/publishers/google/models/imagen-4.0-generate-001:predict",
        ),
        (
            "painter",
            "google-ai-studio",
            "/v1beta",
            "gemini-2.5-flash-image",
            1,
            "/v1beta/models/gemini-2.5-flash-image:generateContent",
        ),
        (
            "vertex-painter",
            "google-vertex",
            VERTEX,
            "gemini-2.5-flash-image",
            1,
            "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash-image:generateContent",
        ),
    ];
    for (id, provider, base, model, ..) in cases {
        let base = format!("{}{base}", fleet.upstream.origin());
        serve_as(&fleet, id, provider, &base, &secret(provider), "images.generations", model).await;
    }
    settled(&fleet, "vertex-painter").await;
    for (id, .., count, path) in cases {
        let request = json!({ "model": id, "prompt": "a cat", "n": count, "size": "1024x1024" });
        let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
        assert_eq!(response.status, 200, "{id}: {}", response.text());
        let sent = fleet.upstream.last_request().unwrap();
        assert_eq!(sent.path, path, "{id}");
        let body = sent.json().unwrap();
        if id.ends_with("imagen") {
            assert_eq!(body["instances"], json!([{ "prompt": "a cat" }]), "{id}: {body}");
            assert_eq!(body["parameters"]["sampleCount"], count, "{id}: {body}");
            assert_eq!(body["parameters"]["aspectRatio"], "1:1", "{id}: {body}");
        } else {
            assert_eq!(body["contents"][0]["parts"], json!([{ "text": "a cat" }]), "{id}: {body}");
            assert_eq!(
                body["generationConfig"]["responseModalities"],
                json!(["TEXT", "IMAGE"]),
                "{id}: {body}"
            );
        }
        let answer = response.json().unwrap();
        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), count, "{id}: {answer}");
        assert!(data.iter().all(|image| image["b64_json"] == PNG), "{id}: {answer}");
        let logged = row(&fleet, &response).await;
        assert_eq!(
            (&logged["endpoint"], &logged["outcome"]),
            (&json!("images.generations"), &json!("ok")),
            "{logged}"
        );
        assert_eq!(quantity(&logged, "images"), Some(count as u64), "{id}: {logged}");
    }
    let before = fleet.upstream.served();
    let request = json!({ "model": "imagen", "prompt": "a cat", "response_format": "url" });
    let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!((response.status, &error["param"]), (400, &json!("response_format")), "{error}");
    assert_eq!(fleet.upstream.served(), before);
}
