//! The Rust client `async-openai`, unmodified, whatever the upstream speaks: chat, a stream, a tool loop, structured
//! output, an image, embeddings. Called by `tests/sdk/run.sh` with the base URL and the key of a gateway, and the models
//! that it has: those with `embed` in their name embed.

use std::env;

use async_openai::{Client, config::OpenAIConfig};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

const SENTENCE: &str = "Hello from the mock upstream, where all is well today.";
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = env::args().skip(1);
    let (base, key) = (args.next().expect("the base URL"), args.next().expect("the key"));
    let client = Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key(key));
    let mut passed = 0;
    for model in args {
        if model.contains("embed") {
            embeddings(&client, &model).await;
            passed += 1;
            continue;
        }
        chat(&client, &model).await;
        stream(&client, &model).await;
        tool_loop(&client, &model).await;
        structured(&client, &model).await;
        image(&client, &model).await;
        passed += 5;
    }
    println!("rust: {passed} passed");
}

/// The client's own types, made of JSON, so that what is missing in them shows here.
fn request<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a request of the client's types")
}

async fn ask(client: &Client<OpenAIConfig>, body: Value) -> Value {
    let answer = client.chat().create(request(body)).await.expect("an answer");
    serde_json::to_value(answer).expect("an answer of the client's types")
}

fn says(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

async fn chat(client: &Client<OpenAIConfig>, model: &str) {
    let answer = ask(client, json!({ "model": model, "messages": says("Hello!") })).await;
    assert_eq!(answer["choices"][0]["message"]["content"], SENTENCE, "{model}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{model}");
    assert!(answer["usage"]["completion_tokens"].as_u64() > Some(0), "{model}");
}

async fn stream(client: &Client<OpenAIConfig>, model: &str) {
    let body = json!({ "model": model, "messages": says("Hello!"), "stream": true });
    let mut stream = client.chat().create_stream(request(body)).await.expect("a stream");
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.expect("a chunk");
        text.extend(chunk.choices.first().and_then(|choice| choice.delta.content.clone()));
    }
    assert_eq!(text, SENTENCE, "{model}");
}

async fn tool_loop(client: &Client<OpenAIConfig>, model: &str) {
    let schema = json!({ "type": "object", "properties": { "place": { "type": "string" } }, "required": ["place"] });
    let tools = json!([{ "type": "function", "function": { "name": "get_weather", "parameters": schema } }]);
    let mut messages = says("Weather in Paris?");
    let first = ask(client, json!({ "model": model, "messages": messages, "tools": tools })).await;
    let call = &first["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "get_weather", "{model}: {first}");
    let turns = messages.as_array_mut().expect("messages");
    turns.push(json!({ "role": "assistant", "tool_calls": [call] }));
    turns.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": "21 degrees" }));
    let second = ask(client, json!({ "model": model, "messages": messages, "tools": tools })).await;
    assert_eq!(second["choices"][0]["message"]["content"], SENTENCE, "{model}");
}

async fn structured(client: &Client<OpenAIConfig>, model: &str) {
    let schema = json!({
        "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"],
        "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "city", "schema": schema, "strict": true } });
    let answer = ask(client, json!({ "model": model, "messages": says("A city"), "response_format": format })).await;
    let content = answer["choices"][0]["message"]["content"].as_str().expect("content");
    let value: Value = serde_json::from_str(content).expect("JSON");
    assert!(value["name"].is_string(), "{model}: {content}");
}

async fn image(client: &Client<OpenAIConfig>, model: &str) {
    let url = format!("data:image/png;base64,{PNG}");
    let content = json!([
        { "type": "text", "text": "What is this?" },
        { "type": "image_url", "image_url": { "url": url } },
    ]);
    let messages = json!([{ "role": "user", "content": content }]);
    let answer = ask(client, json!({ "model": model, "messages": messages })).await;
    assert_eq!(answer["choices"][0]["message"]["content"], SENTENCE, "{model}");
}

async fn embeddings(client: &Client<OpenAIConfig>, model: &str) {
    let body = json!({ "model": model, "input": ["one", "two"] });
    let answer = client.embeddings().create(request(body)).await.expect("embeddings");
    assert_eq!(answer.data.len(), 2, "{model}");
    assert!(!answer.data[0].embedding.is_empty(), "{model}");
}
