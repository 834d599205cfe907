//! Every client dialect over every upstream dialect: what the client gets has its own shape, what the upstream gets has its
//! own, and the call is metered alike (E.1 to E.6, R000-1, R004-36).

use nemo_tests::{
    client::{Client, End, Response},
    eventually,
    fleet::{Fleet, UPSTREAM_KEY},
    script::{Script, UsageReport},
    upstream::PROMPT_TOKENS,
};
use serde_json::{Value, json};

/// What the mock says when nothing else is asked for.
pub const SENTENCE: &str = "Hello from the mock upstream, where all is well today.";
/// It is sent in so many pieces, and each counts as a token.
pub const PIECES: u64 = 10;

/// A model at an upstream of each dialect: how clients call it, and what its upstream is called at, whole and streamed.
pub const UPSTREAMS: [(&str, [&str; 2]); 5] = [
    ("at-openai", ["/v1/chat/completions", "/v1/chat/completions"]),
    ("at-anthropic", ["/v1/messages", "/v1/messages"]),
    (
        "at-google",
        ["/v1beta/models/mock:generateContent", "/v1beta/models/mock:streamGenerateContent?alt=sse"],
    ),
    ("at-bedrock", ["/model/mock/converse", "/model/mock/converse-stream"]),
    ("at-cohere", ["/v2/chat", "/v2/chat"]),
];

/// A gateway with a model at each of them, and one that only speaks Responses.
pub async fn fleet() -> Fleet {
    fleet_with(&[]).await
}

pub async fn fleet_with(settings: &[(&str, &str)]) -> Fleet {
    let fleet = Fleet::start_with(settings).await.unwrap();
    let origin = fleet.upstream.origin();
    let aws =
        json!({ "access_key_id": "AKIDTEST", "secret_access_key": UPSTREAM_KEY, "region": "eu-west-1" });
    for (id, provider, base, secret, endpoint) in [
        ("at-openai", "openai", "/v1", UPSTREAM_KEY.to_owned(), "chat.completions"),
        ("at-responses", "openai", "/v1", UPSTREAM_KEY.to_owned(), "responses"),
        ("at-anthropic", "anthropic", "/v1", UPSTREAM_KEY.to_owned(), "chat.completions"),
        ("at-google", "google-ai-studio", "/v1beta", UPSTREAM_KEY.to_owned(), "chat.completions"),
        ("at-bedrock", "bedrock", "", aws.to_string(), "chat.completions"),
        ("at-cohere", "cohere", "/compatibility/v1", UPSTREAM_KEY.to_owned(), "chat.completions"),
    ] {
        serve(&fleet, id, provider, &format!("{origin}{base}"), &secret, endpoint).await;
    }
    settled(&fleet, "at-cohere").await;
    fleet
}

pub async fn serve(fleet: &Fleet, id: &str, provider: &str, base_url: &str, secret: &str, endpoint: &str) {
    serve_as(fleet, id, provider, base_url, secret, endpoint, "mock").await;
}

/// The same under the name that the provider has for the model.
pub async fn serve_as(
    fleet: &Fleet,
    id: &str,
    provider: &str,
    base_url: &str,
    secret: &str,
    endpoint: &str,
    upstream_model: &str,
) {
    let credential = json!({ "name": id, "provider": provider, "secret": secret });
    let credential = fleet.admin.post("/credentials", credential).await.unwrap()["id"].clone();
    let price =
        json!({ "input": 5_000_000_000_i64, "output": 10_000_000_000_i64, "cache_read": 500_000_000 });
    let offering = json!({ "provider": provider, "upstream_model": upstream_model, "price": &price });
    let model = json!({
        "id": id, "display_name": id, "owned_by": "tests", "endpoints": [endpoint], "offerings": [offering],
        "max_output_tokens": 4096,
    });
    fleet.admin.put(&format!("/models/{id}"), json!({ "model": model })).await.unwrap();
    let deployment = json!({
        "provider": provider, "base_url": base_url, "credential_id": credential, "model": id,
        "upstream_model": upstream_model,
        "price": price,
    });
    fleet.admin.post("/deployments", deployment).await.unwrap();
}

pub async fn settled(fleet: &Fleet, model: &str) {
    eventually("the node serves the models", async || {
        let listed = fleet.client.get("/v1/models").await?.text();
        anyhow::ensure!(listed.contains(model), "{listed}");
        Ok(())
    })
    .await
    .unwrap();
}

/// The row of this answer in the request log.
pub async fn row(fleet: &Fleet, response: &Response) -> Value {
    super::media::row(fleet, response).await
}

/// How the clients of each dialect ask, and where the text of an answer and of a stream's events is.
#[derive(Clone, Copy, Debug)]
pub enum Speaks {
    Chat,
    Responses,
    Messages,
    Google,
}

impl Speaks {
    pub const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Google];

    pub async fn ask(self, client: &Client, model: &str, stream: bool, extra: &Value) -> Response {
        let user = json!({ "role": "user", "content": "hi" });
        let (path, mut body) = match self {
            Self::Chat => ("/v1/chat/completions".to_owned(), json!({ "messages": [user] })),
            Self::Responses => ("/v1/responses".to_owned(), json!({ "input": "hi" })),
            Self::Messages => ("/v1/messages".to_owned(), json!({ "messages": [user], "max_tokens": 100 })),
            Self::Google => {
                let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
                let contents = json!([{ "role": "user", "parts": [{ "text": "hi" }] }]);
                (format!("/v1beta/models/{model}:{method}"), json!({ "contents": contents }))
            }
        };
        if !matches!(self, Self::Google) {
            body["model"] = json!(model);
            if stream {
                body["stream"] = json!(true);
            }
        }
        for (name, value) in extra.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        client.post(&path, body.to_string()).await.unwrap()
    }

    pub fn text(self, answer: &Value) -> String {
        let (parts, member) = match self {
            Self::Chat => return answer["choices"][0]["message"]["content"].as_str().unwrap_or("").into(),
            Self::Responses => (&answer["output"][0]["content"], "text"),
            Self::Messages => (&answer["content"], "text"),
            Self::Google => (&answer["candidates"][0]["content"]["parts"], "text"),
        };
        parts.as_array().into_iter().flatten().filter_map(|part| part[member].as_str()).collect()
    }

    /// Input and output, as the dialect tells them.
    pub fn usage(self, answer: &Value) -> (Option<u64>, Option<u64>) {
        let (usage, names) = match self {
            Self::Chat => (&answer["usage"], ["prompt_tokens", "completion_tokens"]),
            Self::Responses | Self::Messages => (&answer["usage"], ["input_tokens", "output_tokens"]),
            Self::Google => (&answer["usageMetadata"], ["promptTokenCount", "candidatesTokenCount"]),
        };
        (usage[names[0]].as_u64(), usage[names[1]].as_u64())
    }

    pub fn finish(self, answer: &Value) -> &str {
        match self {
            Self::Chat => answer["choices"][0]["finish_reason"].as_str(),
            Self::Responses => answer["status"].as_str(),
            Self::Messages => answer["stop_reason"].as_str(),
            Self::Google => answer["candidates"][0]["finishReason"].as_str(),
        }
        .unwrap_or_default()
    }

    pub fn stopped(self) -> &'static str {
        ["stop", "completed", "end_turn", "STOP"][self as usize]
    }

    pub fn streamed_text(self, events: &[Value]) -> String {
        let pieces = events.iter().map(|event| match self {
            Self::Chat => &event["choices"][0]["delta"]["content"],
            Self::Responses if event["type"] == "response.output_text.delta" => &event["delta"],
            Self::Responses => &Value::Null,
            Self::Messages => &event["delta"]["text"],
            Self::Google => &event["candidates"][0]["content"]["parts"][0]["text"],
        });
        pieces.filter_map(Value::as_str).collect()
    }

    pub fn is_ended(self, text: &str) -> bool {
        match self {
            Self::Chat => text.ends_with("data: [DONE]\n\n"),
            Self::Responses => text.contains("event: response.completed\n"),
            Self::Messages => text.trim_end().ends_with(r#"data: {"type":"message_stop"}"#),
            Self::Google => text.contains(r#""finishReason":"STOP""#),
        }
    }
}

pub fn events(response: &Response) -> Vec<Value> {
    let all = response.events();
    let data = all.iter().filter(|event| !event.data.is_empty() && event.data != "[DONE]");
    data.map(|event| serde_json::from_str(&event.data).unwrap()).collect()
}

const COST: u64 = PROMPT_TOKENS * 5000 + PIECES * 10_000;

fn expect_metered(logged: &Value, what: &str) {
    for (member, value) in [
        ("outcome", json!("ok")),
        ("input_tokens", json!(PROMPT_TOKENS)),
        ("output_tokens", json!(PIECES)),
        ("finish_reason", json!("stop")),
        ("cost_nanos", json!(COST)),
        ("cost_source", json!("priced")),
    ] {
        assert_eq!(logged[member], value, "{what}: {member} in {logged}");
    }
}

/// R000-1, E.3, E.5: any client, any upstream, complete answers.
#[tokio::test]
async fn every_client_gets_its_own_dialect_from_every_upstream() {
    let fleet = fleet().await;
    for client in Speaks::ALL {
        for (model, [path, _]) in UPSTREAMS {
            let what = format!("{client:?} {model}");
            let response = client.ask(&fleet.client, model, false, &json!({})).await;
            assert_eq!(response.status, 200, "{what}: {}", response.text());
            let answer = response.json().unwrap();
            let sent = fleet.upstream.last_request().unwrap();
            assert_eq!(sent.path, expected_path(client, model, path), "{what}");
            assert_eq!(client.text(&answer), SENTENCE, "{what}: {answer}");
            assert_eq!(client.usage(&answer), (Some(PROMPT_TOKENS), Some(PIECES)), "{what}: {answer}");
            assert_eq!(client.finish(&answer), client.stopped(), "{what}: {answer}");
            expect_metered(&row(&fleet, &response).await, &what);
        }
    }
}

fn expected_path<'a>(client: Speaks, model: &str, path: &'a str) -> &'a str {
    let _ = (client, model);
    path
}

/// The same in streams, with everything that ends one.
#[tokio::test]
async fn every_client_gets_its_own_stream_from_every_upstream() {
    let fleet = fleet().await;
    for client in Speaks::ALL {
        for (model, [_, path]) in UPSTREAMS {
            let what = format!("{client:?} {model}");
            let extra = match client {
                Speaks::Chat => json!({ "stream_options": { "include_usage": true } }),
                _ => json!({}),
            };
            let response = client.ask(&fleet.client, model, true, &extra).await;
            let text = response.text();
            assert_eq!((response.status, response.end), (200, End::Complete), "{what}: {text}");
            assert_eq!(fleet.upstream.last_request().unwrap().path, path, "{what}");
            let events = events(&response);
            assert_eq!(client.streamed_text(&events), SENTENCE, "{what}: {text}");
            assert!(client.is_ended(&text), "{what}: {text}");
            expect_metered(&row(&fleet, &response).await, &what);
            if let Speaks::Chat = client {
                let last = events.last().unwrap();
                assert_eq!(client.usage(last), (Some(PROMPT_TOKENS), Some(PIECES)), "{what}: {text}");
                let told = last["usage"]["cost"].as_f64().unwrap();
                assert!((told - COST as f64 / 1e9).abs() < 1e-12, "{what}: {told}");
            }
        }
    }
}

fn functions(client: Speaks) -> Value {
    let schema =
        json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let (name, about) = ("weather", "The weather of a city");
    match client {
        Speaks::Chat => json!({ "tools": [{ "type": "function",
            "function": { "name": name, "description": about, "parameters": schema } }] }),
        Speaks::Responses => json!({ "tools": [{ "type": "function", "name": name, "description": about,
            "parameters": schema }] }),
        Speaks::Messages => {
            json!({ "tools": [{ "name": name, "description": about, "input_schema": schema }] })
        }
        Speaks::Google => json!({ "tools": [{ "functionDeclarations": [{ "name": name, "description": about,
            "parameters": schema }] }] }),
    }
}

/// The call in an answer: its id where there is one, and its arguments.
fn call_of(client: Speaks, answer: &Value) -> (Value, Value) {
    let parsed = |text: &Value| serde_json::from_str(text.as_str().unwrap_or("null")).unwrap_or(Value::Null);
    match client {
        Speaks::Chat => {
            let call = &answer["choices"][0]["message"]["tool_calls"][0];
            (call["id"].clone(), parsed(&call["function"]["arguments"]))
        }
        Speaks::Responses => {
            let call = answer["output"].as_array().unwrap().iter().find(|it| it["type"] == "function_call");
            let call = call.cloned().unwrap_or_default();
            (call["call_id"].clone(), parsed(&call["arguments"]))
        }
        Speaks::Messages => {
            let call = answer["content"].as_array().unwrap().iter().find(|it| it["type"] == "tool_use");
            let call = call.cloned().unwrap_or_default();
            (call["id"].clone(), call["input"].clone())
        }
        Speaks::Google => {
            let parts = answer["candidates"][0]["content"]["parts"].as_array().unwrap();
            let call = parts.iter().find(|it| it["functionCall"].is_object()).cloned().unwrap_or_default();
            (call["functionCall"]["id"].clone(), call["functionCall"]["args"].clone())
        }
    }
}

/// The conversation so far, with the answer and the result of its call.
fn with_result(client: Speaks, answer: &Value, id: &Value) -> Value {
    let user = json!({ "role": "user", "content": "hi" });
    match client {
        Speaks::Chat => json!({ "messages": [user, answer["choices"][0]["message"],
            { "role": "tool", "tool_call_id": id, "content": "sunny" }] }),
        Speaks::Responses => {
            let mut input = vec![user];
            input.extend(answer["output"].as_array().cloned().unwrap_or_default());
            input.push(json!({ "type": "function_call_output", "call_id": id, "output": "sunny" }));
            json!({ "input": input })
        }
        Speaks::Messages => json!({ "messages": [user, { "role": "assistant", "content": answer["content"] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": id, "content": "sunny" }] }] }),
        Speaks::Google => json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] },
            answer["candidates"][0]["content"],
            { "role": "user", "parts": [{ "functionResponse": { "name": "weather", "response": { "sky": "sunny" } } }] }] }),
    }
}

/// R003-6: a call, its result, and the answer that follows.
#[tokio::test]
async fn a_tool_is_called_and_its_result_understood_over_every_pair() {
    let fleet = fleet().await;
    for client in Speaks::ALL {
        for (model, _) in UPSTREAMS {
            let what = format!("{client:?} {model}");
            let tools = functions(client);
            let response = client.ask(&fleet.client, model, false, &tools).await;
            assert_eq!(response.status, 200, "{what}: {}", response.text());
            let answer = response.json().unwrap();
            let (id, arguments) = call_of(client, &answer);
            assert_eq!(arguments, json!({ "city": "mock" }), "{what}: {answer}");
            let mut second = with_result(client, &answer, &id);
            second.as_object_mut().unwrap().extend(tools.as_object().unwrap().clone());
            let response = client.ask(&fleet.client, model, false, &second).await;
            assert_eq!(response.status, 200, "{what}: {}", response.text());
            assert_eq!(client.text(&response.json().unwrap()), SENTENCE, "{what}: {}", response.text());
            let sent = String::from_utf8_lossy(&fleet.upstream.last_request().unwrap().body).into_owned();
            assert!(sent.contains("sunny"), "{what}: {sent}");
        }
    }
}

/// Cached tokens are inside of the prompt for some and beside it for others: the bill is the same.
#[tokio::test]
async fn cached_tokens_cost_the_same_whoever_counts_them() {
    let fleet = fleet().await;
    let report = UsageReport::Tokens { prompt: 1000, completion: 10, cached: 900 };
    for client in Speaks::ALL {
        for (model, _) in UPSTREAMS.into_iter().filter(|(model, _)| *model != "at-cohere") {
            for stream in [false, true] {
                fleet.upstream.push(Script::ok().usage(report));
                let response = client.ask(&fleet.client, model, stream, &json!({})).await;
                let logged = row(&fleet, &response).await;
                let what = format!("{client:?} {model} {stream}: {logged}");
                assert_eq!(
                    (&logged["input_tokens"], &logged["cache_read_tokens"]),
                    (&json!(1000), &json!(900)),
                    "{what}"
                );
                assert_eq!(logged["cost_nanos"], 100 * 5000 + 900 * 500 + 10 * 10_000, "{what}");
            }
        }
    }
}
