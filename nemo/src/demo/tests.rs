//! Covers: the demo provider behaves like a real OpenAI-compatible server, over a real socket.

use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use nemo_runtime::drain;

use super::*;

struct Demo {
    addr: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _trigger: drain::DrainTrigger,
}

fn demo() -> Demo {
    let (trigger, watcher) = drain::channel();
    let addr = start(&TaskGroup::new(), watcher, Duration::ZERO, None).unwrap();
    Demo { addr, client: Client::builder(TokioExecutor::new()).build_http(), _trigger: trigger }
}

impl Demo {
    async fn post_raw(&self, path: &str, body: &str) -> (u16, String) {
        let request = Request::post(format!("http://{}/v1{path}", self.addr));
        let response = self
            .client
            .request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.post_raw(path, &body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The events of a streamed answer without `[DONE]`.
    async fn events(&self, path: &str, body: Value) -> Vec<Value> {
        let (status, text) = self.post_raw(path, &body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        let mut events: Vec<&str> =
            text.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn ask(extra: Value) -> Value {
    let mut body =
        json!({ "model": CHAT_MODEL, "messages": [{ "role": "user", "content": "Hello big world" }] });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn weather() -> Value {
    let parameters = json!({
        "type": "object", "required": ["city"],
        "properties": { "city": { "type": "string" }, "unit": { "enum": ["celsius"] } },
    });
    json!([{ "type": "function", "function": { "name": "weather", "parameters": parameters } }])
}

#[tokio::test]
async fn chat_answers_the_same_request_the_same_way() {
    let demo = demo();
    let first = demo.post("/chat/completions", ask(json!({}))).await;
    let second = demo.post("/chat/completions", ask(json!({}))).await;
    assert_eq!((&first["id"], &first["choices"]), (&second["id"], &second["choices"]));
    let text = first["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.ends_with("You said: Hello big world"), "{text}");
    assert_eq!(first["choices"][0]["finish_reason"], "stop");
    let usage = &first["usage"];
    assert_eq!(usage["prompt_tokens"], 4 + 4);
    assert_eq!(usage["completion_tokens"], text.split(' ').count());
    assert_eq!(usage["total_tokens"].as_u64(), Some(8 + text.split(' ').count() as u64));
}

#[tokio::test]
async fn streamed_pieces_joined_are_the_whole_answer() {
    let demo = demo();
    let whole = demo.post("/chat/completions", ask(json!({}))).await;
    let events = demo.events("/chat/completions", ask(json!({ "stream": true }))).await;
    let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], text);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events.iter().filter(|e| e["choices"][0]["delta"].get("role").is_some()).count(), 1);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(events.iter().all(|event| event.get("usage").is_none()), "usage that nobody asked for");
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn usage_is_streamed_when_asked_for_and_equals_that_of_the_whole_answer() {
    let demo = demo();
    let whole = demo.post("/chat/completions", ask(json!({}))).await;
    let asked = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let events = demo.events("/chat/completions", ask(asked)).await;
    let (last, others) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    assert!(others.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
}

#[tokio::test]
async fn the_output_limit_is_kept() {
    let demo = demo();
    let answer = demo.post("/chat/completions", ask(json!({ "max_completion_tokens": 3 }))).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let answer = demo.post("/chat/completions", ask(json!({ "n": 2 }))).await;
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_first_tool_is_called_with_arguments_of_its_schema_and_its_result_ends_the_loop() {
    let demo = demo();
    let answer = demo.post("/chat/completions", ask(json!({ "tools": weather() }))).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "weather");
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "city": "example", "unit": "celsius" }));

    let events = demo.events("/chat/completions", ask(json!({ "tools": weather(), "stream": true }))).await;
    let parts = events
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str());
    assert_eq!(serde_json::from_str::<Value>(&parts.collect::<String>()).unwrap(), arguments);
    let named = |event: &Value| event["choices"][0]["delta"]["tool_calls"][0]["id"].is_string();
    assert_eq!(events.iter().filter(|event| named(event)).count(), 1);

    let messages = json!([
        { "role": "user", "content": "weather?" },
        answer["choices"][0]["message"],
        { "role": "tool", "tool_call_id": call["id"], "content": "21 degrees" },
    ]);
    let end = demo.post("/chat/completions", ask(json!({ "tools": weather(), "messages": messages }))).await;
    assert_eq!(end["choices"][0]["message"]["content"], "The tool returned: 21 degrees");
    let none =
        demo.post("/chat/completions", ask(json!({ "tools": weather(), "tool_choice": "none" }))).await;
    assert_eq!(none["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn structured_answers_fit_their_schema() {
    let demo = demo();
    let schema = json!({ "type": "object", "properties": { "ok": { "type": "boolean" } } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let answer = demo.post("/chat/completions", ask(json!({ "response_format": format }))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"ok\":true}");
    let answer =
        demo.post("/chat/completions", ask(json!({ "response_format": { "type": "json_object" } }))).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["answer"], "Hello big world");
}

#[tokio::test]
async fn text_completions_answer_every_prompt() {
    let demo = demo();
    let body = json!({ "model": CHAT_MODEL, "prompt": ["one", "two"], "max_tokens": 99 });
    let answer = demo.post("/completions", body).await;
    assert_eq!(answer["object"], "text_completion");
    assert!(answer["choices"][1]["text"].as_str().unwrap().ends_with("two"));
    let asked = json!({
        "model": CHAT_MODEL, "prompt": "one", "stream": true, "stream_options": { "include_usage": true },
    });
    let events = demo.events("/completions", asked).await;
    assert!(events.last().unwrap()["usage"]["total_tokens"].as_u64().unwrap() > 2);
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn embeddings_honour_dimensions_and_encoding() {
    let demo = demo();
    let body = |extra: Value| {
        let mut body = json!({ "model": EMBEDDING_MODEL, "input": ["a b", "c"] });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let floats = demo.post("/embeddings", body(json!({ "dimensions": 5 }))).await;
    assert_eq!(floats["data"][1]["index"], 1);
    let vector: Vec<f64> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(vector.len(), 5);
    let encoded =
        demo.post("/embeddings", body(json!({ "dimensions": 5, "encoding_format": "base64" }))).await;
    // 20 bytes are 28 characters.
    assert_eq!(encoded["data"][0]["embedding"].as_str().unwrap().len(), 28);
    assert_eq!(floats["usage"], encoded["usage"]);
    let (status, text) = demo.post_raw("/embeddings", &body(json!({ "dimensions": 0 })).to_string()).await;
    assert_eq!(status, 400, "{text}");
}

#[tokio::test]
async fn what_it_cannot_do_is_refused_in_the_shape_of_openai() {
    let demo = demo();
    for (path, body, status, code) in [
        ("/chat/completions", ask(json!({ "model": "gpt-5" })).to_string(), 404, "model_not_found"),
        ("/chat/completions", "{".to_owned(), 400, "bad_body"),
        ("/chat/completions", ask(json!({ "messages": [] })).to_string(), 400, "bad_body"),
        ("/fine_tuning/jobs", "{}".to_owned(), 404, "not_found"),
    ] {
        let (found, text) = demo.post_raw(path, &body).await;
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((found, &error["error"]["code"]), (status, &json!(code)), "{text}");
        assert!(error["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn the_port_of_the_last_start_is_taken_again_when_it_is_free() {
    let (_trigger, watcher) = drain::channel();
    let tasks = TaskGroup::new();
    let first = start(&tasks, watcher.clone(), Duration::ZERO, None).unwrap();
    let second = start(&tasks, watcher.clone(), Duration::ZERO, Some(first)).unwrap();
    assert_ne!(first, second, "the first is not free");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(start(&tasks, watcher, Duration::ZERO, Some(free)).unwrap(), free);
}
