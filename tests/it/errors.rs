//! Errors as clients see them (E.1, B2, B3, B4, B11).

use nemo_tests::{
    fleet::{Fleet, MODEL, UPSTREAM_KEY},
    script::Script,
};
use serde_json::{Value, json};

use super::chat::chat;

/// Bad input names the field and what was expected, and reaches no upstream.
#[tokio::test]
async fn bad_input_names_the_field_and_reaches_no_upstream() {
    let fleet = Fleet::start().await.unwrap();
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    for (body, param, says) in [
        ("{".to_owned(), Value::Null, "JSON"),
        ("[]".to_owned(), Value::Null, "object"),
        (format!("{{{messages}}}"), json!("model"), "model"),
        (format!(r#"{{"model":7,{messages}}}"#), json!("model"), "string"),
        (format!(r#"{{"model":"{MODEL}"}}"#), json!("messages"), "messages"),
        (format!(r#"{{"model":"{MODEL}",{messages},"stream":"yes"}}"#), json!("stream"), "boolean"),
        (format!(r#"{{"model":"{MODEL}",{messages},"model":"other"}}"#), json!("model"), "once"),
        (format!(r#"{{"model":"{MODEL}",{messages},"mod\u0065l":"other"}}"#), json!("model"), "once"),
    ] {
        let response = fleet.client.post("/v1/chat/completions", &body).await.unwrap();
        let error = response.json().unwrap()["error"].clone();
        assert_eq!(response.status, 400, "{body}: {error}");
        assert_eq!(error["param"], param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{body}: {error}");
    }
    assert_eq!(fleet.upstream.served(), 0);
}

#[tokio::test]
async fn bad_headers_are_named() {
    let fleet = Fleet::start().await.unwrap();
    for (name, value) in [
        ("x-nemo-timeout-ms", "soon"),
        ("x-nemo-timeout-ms", "0"),
        ("x-nemo-metadata", "[1]"),
        ("x-nemo-strategy", "fastest"),
        ("x-nemo-min-config-version", "-1"),
    ] {
        let response =
            fleet.client.clone().header(name, value).post("/v1/chat/completions", chat("hi")).await.unwrap();
        assert_eq!((response.status, response.json().unwrap()["error"]["param"].as_str()), (400, Some(name)));
    }
    let ahead = fleet.client.clone().header("x-nemo-min-config-version", "999999999");
    let response = ahead.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 503, "infrastructure is 503, never 401");
    assert_eq!(fleet.upstream.served(), 0);
}

/// B3: the upstream's refusal of the client's request passes through.
#[tokio::test]
async fn an_upstreams_4xx_passes_through_as_it_is() {
    let fleet = Fleet::start().await.unwrap();
    let body = r#"{"error":{"message":"max_tokens is too large","type":"invalid_request_error","param":"max_tokens","code":"too_large"}}"#;
    for status in [400, 404, 413, 422] {
        fleet.upstream.push(Script::status(status).body(body));
        let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
        assert_eq!((response.status, response.text().as_str()), (status, body));
    }
    let rows = fleet.request_log(4).await.unwrap();
    assert!(
        rows.iter().all(|row| row["outcome"] == "error" && row["error_code"] == "upstream_rejected"),
        "{rows:?}"
    );
    assert!(rows.iter().all(|row| row["cost_nanos"].is_null()), "nothing was consumed: {rows:?}");
}

/// B3: a fault of our credential never looks like the client's, and its text stays here.
#[tokio::test]
async fn a_fault_of_our_credential_is_never_a_401() {
    let fleet = Fleet::start().await.unwrap();
    for status in [401, 402, 403] {
        let body = format!(r#"{{"error":{{"message":"Incorrect API key provided: {UPSTREAM_KEY}"}}}}"#);
        fleet.upstream.push(Script::status(status).body(body));
        let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
        assert_eq!(response.status, 502);
        assert_eq!(response.json().unwrap()["error"]["code"], "upstream_credential_rejected");
        assert_eq!(response.header("x-should-retry"), Some("false"));
        assert!(!response.text().contains(UPSTREAM_KEY), "{}", response.text());
    }
    assert!(!fleet.logs().contains(UPSTREAM_KEY), "I10: no secret in the log");
}

/// B2: when every link ended in 429, the client gets 429 with the hint.
#[tokio::test]
async fn an_upstreams_429_keeps_its_hint() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::status(429).header("retry-after", "7").unwrap());
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!((response.status, response.header("retry-after")), (429, Some("7")));
    assert_eq!(response.json().unwrap()["error"]["type"], "rate_limit_error");
}

/// R004-11, B4, B6: 502 with the chain, and no retry by the SDK.
#[tokio::test]
async fn an_upstream_fault_is_a_502_with_the_chain() {
    let fleet = Fleet::start().await.unwrap();
    let once = fleet.client.clone().header("x-nemo-retries", "0");
    fleet.tolerant().await.unwrap();
    for script in
        [Script::status(500), Script::status(529), Script::wire("not http\r\n\r\n"), Script::wire("")]
    {
        fleet.upstream.push(script.clone());
        let response = once.post("/v1/chat/completions", chat("hi")).await.unwrap();
        assert_eq!(response.status, 502, "{script:?}");
        assert_eq!(response.header("x-should-retry"), Some("false"));
        assert!(response.header("x-nemo-chain").unwrap().starts_with("custom/"), "{script:?}");
        let attempts = &response.json().unwrap()["error"]["metadata"]["attempts"];
        assert_eq!(attempts[0]["provider"], "custom", "{attempts}");
    }
}

#[tokio::test]
async fn a_client_can_ask_for_a_shorter_deadline() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().delay(std::time::Duration::from_secs(30)));
    let hurried = fleet.client.clone().header("x-nemo-timeout-ms", "200");
    let response = hurried.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 504);
    assert_eq!(response.json().unwrap()["error"]["code"], "total_timeout");
    assert!(response.total < std::time::Duration::from_secs(10), "{:?}", response.total);
}

#[tokio::test]
async fn paths_methods_and_types_that_are_not_served_say_what_is() {
    let fleet = Fleet::start().await.unwrap();
    let nowhere = fleet.client.post("/v1/nothing", "{}").await.unwrap();
    assert_eq!((nowhere.status, nowhere.json().unwrap()["error"]["code"].as_str()), (404, Some("not_found")));
    let get = fleet.client.get("/v1/chat/completions").await.unwrap();
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let huge = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: \
         application/json\r\ncontent-length: 99999999999\r\n\r\n",
        fleet.key
    );
    let response = fleet.client.send_raw(huge.as_bytes()).await.unwrap().finish().await.unwrap();
    assert_eq!(response.status, 413);
    let form = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: \
         text/plain\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}",
        fleet.key
    );
    let response = fleet.client.send_raw(form.as_bytes()).await.unwrap().finish().await.unwrap();
    assert_eq!(response.status, 415);
}

/// E.6: under /api/v1 the code is a number.
#[tokio::test]
async fn openrouter_clients_get_their_own_error_shape() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "model": "nobody", "messages": [] }).to_string();
    let response = fleet.client.post("/api/v1/chat/completions", &request).await.unwrap();
    assert_eq!(response.json().unwrap()["error"]["code"], 404);
    fleet.upstream.push(Script::status(400).body(r#"{"error":{"message":"no","code":"bad"}}"#));
    let response = fleet.client.post("/api/v1/chat/completions", chat("hi")).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!((error["code"].as_u64(), error["message"].as_str()), (Some(400), Some("no")));
}
