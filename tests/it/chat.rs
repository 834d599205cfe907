//! Chat completions, complete answers: what the upstream gets and what the client gets.

use nemo_tests::{
    client::End,
    fleet::{Fleet, MODEL, UPSTREAM_KEY, UPSTREAM_MODEL},
    script::Script,
};
use serde_json::json;

/// R000-4, R004-27: the answer is the upstream's, byte for byte, and the request is the client's but for the model.
#[tokio::test]
async fn i8_bodies_pass_through_but_for_declared_edits() {
    let fleet = Fleet::start().await.unwrap();
    let request = format!(
        "{{ \"messages\": [{{\"role\":\"user\",\"content\":\"h\\u00e9 \\/ é\"}}] ,\n\t\"model\" : \"{MODEL}\", \
         \"temperature\":1.0e0, \"unknown_field\": [1, 2.50, null] }}"
    );
    let response = fleet.client.post("/v1/chat/completions", &request).await.unwrap();
    assert_eq!((response.status, response.end), (200, End::Complete), "{}", response.text());
    let seen = fleet.upstream.last_request().unwrap();
    assert_eq!(std::str::from_utf8(&seen.body).unwrap(), request.replace(MODEL, UPSTREAM_MODEL));
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(response.header("x-nemo-edits"), Some("model"));

    let body = r#"{ "choices" : [ {"message":{"role":"assistant","content":"\u0041"},"finish_reason":"stop","index":0}],
      "usage":{"completion_tokens":2,"prompt_tokens":3}, "x":1.50 }"#;
    fleet.upstream.push(Script::ok().body(body));
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.text(), body);
}

/// R001-5, section F: the gateway's own headers, with an exact cost.
#[tokio::test]
async fn answers_carry_the_gateways_headers_and_an_exact_cost() {
    let fleet = Fleet::start().await.unwrap();
    let usage = nemo_tests::script::UsageReport::Tokens { prompt: 1000, completion: 50, cached: 600 };
    fleet.upstream.push(Script::ok().usage(usage));
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    // 400 * 2.50 + 600 * 1.25 + 50 * 10.00 USD per million
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.00225"));
    for (name, value) in [
        ("x-nemo-cost-source", "priced"),
        ("x-nemo-provider", "custom"),
        ("x-nemo-model", UPSTREAM_MODEL),
        ("x-nemo-strategy", "simple-shuffle"),
        ("x-nemo-attempts", "1"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
    for name in ["x-request-id", "x-nemo-config-version", "x-nemo-overhead-ms"] {
        assert!(response.header(name).is_some_and(|value| !value.is_empty()), "{name}");
    }
}

/// B8: a cost that the upstream reports wins over the price list.
#[tokio::test]
async fn a_cost_reported_by_the_upstream_wins() {
    let fleet = Fleet::start().await.unwrap();
    let body = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"cost":0.00001234}}"#;
    fleet.upstream.push(Script::ok().body(body));
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.00001234"));
    assert_eq!(response.header("x-nemo-cost-source"), Some("provider"));
}

/// B8: unknown usage is an estimate and says so.
#[tokio::test]
async fn without_reported_usage_the_cost_is_called_an_estimate() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().usage(nemo_tests::script::UsageReport::Missing));
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.header("x-nemo-cost-source"), Some("estimated"));
}

#[tokio::test]
async fn request_ids_are_taken_if_sane_and_minted_otherwise() {
    let fleet = Fleet::start().await.unwrap();
    let named = fleet.client.clone().header("x-request-id", "trace-42/a");
    let response = named.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.header("x-request-id"), Some("trace-42/a"));
    let odd = fleet.client.clone().header("x-request-id", "no spaces please");
    let response = odd.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let minted = response.header("x-request-id").unwrap();
    assert!(uuid::Uuid::parse_str(minted).is_ok(), "{minted}");
}

/// The upstream sees the gateway's credential and nothing of the client's identity.
#[tokio::test]
async fn the_clients_key_and_identity_never_reach_the_upstream() {
    let fleet = Fleet::start().await.unwrap();
    let client = fleet
        .client
        .clone()
        .header("cookie", "session=1")
        .header("x-stainless-os", "Linux")
        .header("HTTP-Referer", "https://app.example")
        .header("X-Title", "App")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let extras = json!({
        "model": MODEL, "messages": [{"role": "user", "content": "hi"}],
        "nemo_metadata": {"run": 7}, "nemo_cache": false,
    });
    let response = client.post("/v1/chat/completions", extras.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-nemo-edits"), Some("strip,model"));
    let seen = fleet.upstream.last_request().unwrap();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {UPSTREAM_KEY}").as_str()));
    assert_eq!(seen.header("traceparent"), Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    for name in ["cookie", "x-stainless-os", "http-referer", "x-title", "x-nemo-metadata"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let everything = format!("{:?} {}", seen.headers, String::from_utf8_lossy(&seen.body));
    assert!(!everything.contains("sk-nemo-") && !everything.contains("nemo_"), "{everything}");
}

#[tokio::test]
async fn legacy_completions_pass_through() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "model": MODEL, "prompt": "Once upon", "max_tokens": 5 });
    let response = fleet.client.post("/v1/completions", request.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json().unwrap()["object"], "text_completion");
    assert_eq!(fleet.upstream.last_request().unwrap().path, "/v1/completions");
}

/// E.6: clients of OpenRouter change host and key only.
#[tokio::test]
async fn the_api_alias_serves_the_same_endpoints() {
    let fleet = Fleet::start().await.unwrap();
    let response = fleet.client.post("/api/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(fleet.upstream.last_request().unwrap().path, "/v1/chat/completions");
}

/// A body of several megabytes arrives whole, in both directions (C18).
#[tokio::test]
async fn large_bodies_pass_whole() {
    let fleet = Fleet::start().await.unwrap();
    // It would not fit into the window that the test's model has.
    let model = json!({ "id": MODEL, "display_name": MODEL, "owned_by": "tests", "endpoints": [] });
    fleet.admin.put(&format!("/models/{MODEL}?wait=fleet"), json!({ "model": model })).await.unwrap();
    let content = "lorem ipsum ".repeat(400_000);
    let answer = "dolor sit ".repeat(1_200_000);
    let body = json!({
        "choices": [{ "message": { "role": "assistant", "content": answer }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 7, "completion_tokens": 8 },
    })
    .to_string();
    fleet.upstream.push(Script::ok().body(body.clone()));
    let response = fleet.client.post("/v1/chat/completions", chat(&content)).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(response.body == body.as_bytes(), "{} of {} bytes", response.body.len(), body.len());
    let seen = fleet.upstream.last_request().unwrap();
    assert_eq!(seen.json().unwrap()["messages"][0]["content"].as_str().unwrap().len(), content.len());
    let row = &fleet.request_log(1).await.unwrap()[0];
    assert_eq!((row["input_tokens"].as_u64(), row["output_tokens"].as_u64()), (Some(7), Some(8)), "{row}");
}

pub fn chat(content: &str) -> String {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": content }] }).to_string()
}
