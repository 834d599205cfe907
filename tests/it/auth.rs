//! Keys on the data port: who gets in, and how soon a change is felt.

use nemo_tests::{
    client::{Client, Response},
    eventually,
    fleet::{Fleet, MODEL, text},
};
use serde_json::json;

async fn ask(client: &Client) -> anyhow::Result<Response> {
    client.post("/v1/chat/completions", super::chat::chat("hi")).await
}

async fn until(client: &Client, status: u16) -> Response {
    eventually(&format!("status {status}"), async || {
        let response = ask(client).await?;
        anyhow::ensure!(response.status == status, "{} {}", response.status, response.text());
        Ok(response)
    })
    .await
    .unwrap()
}

/// R000-3, E.1: 401 with OpenAI's code for everything that is no valid key.
#[tokio::test]
async fn without_a_valid_key_nothing_passes() {
    let fleet = Fleet::start().await.unwrap();
    assert!(fleet.key.starts_with("sk-nemo-") && fleet.key[8..].bytes().all(|b| b.is_ascii_alphanumeric()));
    let mut wrong = fleet.key.clone();
    wrong.replace_range(wrong.len() - 1.., if wrong.ends_with('a') { "b" } else { "a" });
    for key in [None, Some(""), Some("sk-nemo-short"), Some("sk-or-v1-0000"), Some(wrong.as_str())] {
        let response = ask(&fleet.client_with(key)).await.unwrap();
        assert_eq!(response.status, 401, "{key:?}");
        let error = &response.json().unwrap()["error"];
        assert_eq!(error["code"], "invalid_api_key", "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let header = fleet.client_with(None).header("x-api-key", &fleet.key);
    assert_eq!(ask(&header).await.unwrap().status, 200);
    assert_eq!(fleet.upstream.served(), 1);
}

#[tokio::test]
async fn disabling_rotating_and_deleting_a_key_is_felt_at_the_node() {
    let fleet = Fleet::start().await.unwrap();
    let (id, secret) = fleet.issue_key(json!({ "name": "changing" })).await.unwrap();
    let path = fleet.org(&format!("/keys/{id}"));
    let first = fleet.client_with(Some(&secret));
    until(&first, 200).await;

    fleet.admin.patch(&path, json!({ "disabled": true })).await.unwrap();
    let refused = until(&first, 401).await;
    assert_eq!(refused.json().unwrap()["error"]["code"], "key_disabled");
    fleet.admin.patch(&path, json!({ "disabled": false })).await.unwrap();
    until(&first, 200).await;

    let rotated =
        fleet.admin.post(&format!("{path}/rotate"), json!({ "overlap_seconds": 3600 })).await.unwrap();
    let second = fleet.client_with(Some(&text(&rotated, "secret").unwrap()));
    until(&second, 200).await;
    assert_eq!(ask(&first).await.unwrap().status, 200, "the old secret works during the overlap");
    let rotated = fleet.admin.post(&format!("{path}/rotate"), json!({})).await.unwrap();
    let third = fleet.client_with(Some(&text(&rotated, "secret").unwrap()));
    until(&third, 200).await;
    assert_eq!(ask(&second).await.unwrap().status, 401, "without overlap the old secret is dead");

    fleet.admin.delete(&path).await.unwrap();
    until(&third, 401).await;
}

#[tokio::test]
async fn a_key_limited_to_some_models_may_not_use_others() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "name": "limited", "allowed_models": ["other-model", "elsewhere/*"] });
    let (_, secret) = fleet.issue_key(request).await.unwrap();
    let client = fleet.client_with(Some(&secret));
    let refused = until(&client, 403).await;
    assert_eq!(refused.json().unwrap()["error"]["code"], "permission_denied");
    let listed = client.get("/v1/models").await.unwrap().json().unwrap();
    assert_eq!(listed["data"], json!([]), "{MODEL} is not listed for it either");
}

#[tokio::test]
async fn a_key_expires() {
    let fleet = Fleet::start().await.unwrap();
    let at = time::OffsetDateTime::now_utc() + time::Duration::seconds(5);
    let at = at.format(&time::format_description::well_known::Rfc3339).unwrap();
    let (_, secret) = fleet.issue_key(json!({ "name": "short", "expires_at": at })).await.unwrap();
    let refused = {
        let client = fleet.client_with(Some(&secret));
        eventually("the key has expired", async || {
            let response = ask(&client).await?;
            let code = response.json()?["error"]["code"].clone();
            anyhow::ensure!(code == "key_expired", "{code}");
            Ok(response)
        })
        .await
        .unwrap()
    };
    assert_eq!(refused.status, 401);
}
