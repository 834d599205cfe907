//! Clients of Portkey, with the headers that they send.

use nemo_tests::fleet::Fleet;
use serde_json::json;

use super::chat::chat;

/// E.8: the key travels in Portkey's header, beside whatever stands in `Authorization`.
#[tokio::test]
async fn portkeys_headers_work_as_they_are() {
    let fleet = Fleet::start().await.unwrap();
    let client = fleet
        .client_with(Some("sk-of-some-provider"))
        .header("x-portkey-api-key", &fleet.key)
        .header("x-portkey-trace-id", "trace-77")
        .header("x-portkey-metadata", r#"{"_user":"ada"}"#)
        .header("x-portkey-request-timeout", "30000")
        .header("x-portkey-retry-count", "3")
        .header("x-portkey-custom-host", "http://127.0.0.1:1");
    let response = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-portkey-trace-id"), Some("trace-77"));
    assert_eq!(response.header("x-request-id"), Some("trace-77"));
    assert_eq!(response.header("x-portkey-provider"), Some("custom"));
    assert_eq!(response.header("x-portkey-retry-attempt-count"), Some("0"));
    let row = fleet.request_log(1).await.unwrap().remove(0);
    assert_eq!(row["client_request_id"], "trace-77");
    let metadata: serde_json::Value = serde_json::from_str(row["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(metadata, json!({ "_user": "ada" }));
    let upstream = fleet.upstream.last_request().unwrap();
    let leaked: Vec<_> = upstream.headers.keys().filter(|name| name.as_str().starts_with("x-")).collect();
    assert!(leaked.is_empty(), "{leaked:?}");

    // Not even a bearer token has to stand in `Authorization`.
    let other = fleet.client_with(None).header("authorization", "Basic eDp5");
    let other = other.header("x-portkey-api-key", &fleet.key);
    assert_eq!(other.post("/v1/chat/completions", chat("hi")).await.unwrap().status, 200);

    // Without any of it, nobody hears of Portkey.
    let plain = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(plain.header("x-portkey-provider"), None);
}

#[tokio::test]
async fn what_portkeys_headers_must_be_is_said() {
    let fleet = Fleet::start().await.unwrap();
    for (name, value) in [
        ("x-portkey-metadata", "[]"),
        ("x-portkey-request-timeout", "0"),
        ("x-portkey-request-timeout", "soon"),
        ("x-portkey-provider", "a/b"),
        ("x-portkey-retry-count", "often"),
    ] {
        let client = fleet.client.clone().header(name, value);
        let response = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
        assert_eq!(response.status, 400, "{name}: {value}");
        assert_eq!(response.json().unwrap()["error"]["param"], name);
    }
    assert_eq!(fleet.upstream.served(), 0);
}
