//! What a key is limited to, as its clients see it.

use std::time::Duration;

use nemo_tests::{
    eventually,
    fleet::{EMBEDDING_MODEL, Fleet, MODEL},
};
use serde_json::{Value, json};

use super::chat::chat;

async fn key(fleet: &Fleet, mut request: Value) -> (String, nemo_tests::client::Client) {
    request["name"] = json!("limited");
    let (id, secret) = fleet.issue_key(request).await.unwrap();
    (id, fleet.client_with(Some(&secret)))
}

/// Status and message once the node knows the key.
async fn answered(client: &nemo_tests::client::Client, path: &str, body: &str) -> (u16, String) {
    eventually("the node knows the key", async || {
        let answer = client.post(path, body).await?;
        anyhow::ensure!(answer.status != 401, "{}", answer.text());
        Ok((answer.status, answer.text()))
    })
    .await
    .unwrap()
}

fn embed() -> String {
    json!({ "model": EMBEDDING_MODEL, "input": "hi" }).to_string()
}

#[tokio::test]
async fn keys_are_limited_to_endpoints_models_and_networks() {
    let fleet = Fleet::start().await.unwrap();
    let chat = &chat("hi");
    let (_, client) = key(&fleet, json!({ "allowed_endpoints": ["chat.*"] })).await;
    assert_eq!(answered(&client, "/v1/chat/completions", chat).await.0, 200);
    let (status, text) = answered(&client, "/v1/embeddings", &embed()).await;
    assert!(status == 403 && text.contains("`embeddings`"), "{status} {text}");

    let (_, client) = key(&fleet, json!({ "allowed_models": ["test-em*"] })).await;
    assert_eq!(answered(&client, "/v1/embeddings", &embed()).await.0, 200);
    let (status, text) = answered(&client, "/v1/chat/completions", chat).await;
    assert!(status == 403 && text.contains(MODEL), "{status} {text}");

    let (id, client) = key(&fleet, json!({ "allowed_cidrs": ["10.0.0.0/8"] })).await;
    // Nobody is trusted to say where the request came from.
    let client = client.header("x-forwarded-for", "10.1.2.3");
    let (status, text) = answered(&client, "/v1/chat/completions", chat).await;
    assert!(status == 403 && text.contains("127.0.0.1"), "{status} {text}");
    assert_eq!(client.get("/v1/models").await.unwrap().status, 403);
    let change = json!({ "allowed_cidrs": { "networks": ["10.0.0.0/8", "127.0.0.1"] } });
    let changed = fleet.admin.patch(&fleet.org(&format!("/keys/{id}")), change).await.unwrap();
    assert_eq!(changed["allowed_cidrs"], json!(["10.0.0.0/8", "127.0.0.1/32"]));
    eventually("the key is let in", async || {
        let status = client.post("/v1/chat/completions", chat).await?.status;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Behind a proxy that is trusted, a key's networks are about the client that the proxy names.
#[tokio::test]
async fn the_client_that_a_trusted_proxy_names_is_held_to_the_keys_networks() {
    let fleet = Fleet::start_with(&[("NEMO_TRUSTED_PROXIES", "127.0.0.0/8, 198.51.100.7")]).await.unwrap();
    let (_, client) = key(&fleet, json!({ "allowed_cidrs": ["10.0.0.0/8"] })).await;
    let chat = &chat("hi");
    let from = |forwarded: &str| client.clone().header("x-forwarded-for", forwarded);
    assert_eq!(answered(&from("10.1.2.3"), "/v1/chat/completions", chat).await.0, 200);
    for (forwarded, allowed) in [
        ("10.1.2.3, 198.51.100.7", true),
        ("192.0.2.1", false),
        // What the client itself put in front proves nothing.
        ("10.1.2.3, 192.0.2.1", false),
    ] {
        let answer = from(forwarded).post("/v1/chat/completions", chat).await.unwrap();
        assert_eq!(answer.status == 200, allowed, "{forwarded}: {} {}", answer.status, answer.text());
        assert!(allowed || answer.status == 403 && answer.text().contains("192.0.2.1"), "{}", answer.text());
        let listed = from(forwarded).get("/v1/models").await.unwrap();
        assert_eq!(listed.status == 200, allowed, "{forwarded}: the list of models");
    }
    assert_eq!(client.post("/v1/chat/completions", chat).await.unwrap().status, 403, "the proxy itself");
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_until_its_overlap_ends() {
    let fleet = Fleet::start().await.unwrap();
    let (id, old) = key(&fleet, json!({})).await;
    assert_eq!(answered(&old, "/v1/chat/completions", &chat("hi")).await.0, 200);
    let rotate = async |overlap: u32| {
        let path = fleet.org(&format!("/keys/{id}/rotate"));
        let answer = fleet.admin.post(&path, json!({ "overlap_seconds": overlap })).await.unwrap();
        fleet.client_with(answer["secret"].as_str())
    };
    let new = rotate(4).await;
    let begun = std::time::Instant::now();
    eventually("the new secret works", async || {
        let status = new.get("/v1/models").await?.status;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    if begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(old.get("/v1/models").await.unwrap().status, 200, "within the overlap");
    }
    eventually("the old secret stops", async || {
        let status = old.get("/v1/models").await?.status;
        anyhow::ensure!(status == 401, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(new.get("/v1/models").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_keys_metadata_is_in_the_log_of_requests_that_bring_none() {
    let fleet = Fleet::start().await.unwrap();
    let (_, client) =
        key(&fleet, json!({ "metadata": "{\"cost_center\":7}", "default_tags": ["code"] })).await;
    let chat = chat("hi");
    assert_eq!(answered(&client, "/v1/chat/completions", &chat).await.0, 200);
    let own = client.header("x-nemo-metadata", "{\"own\":1}");
    assert_eq!(own.post("/v1/chat/completions", &chat).await.unwrap().status, 200);
    let rows = fleet.request_log(2).await.unwrap();
    assert_eq!(
        (rows[1]["metadata"].as_str(), rows[0]["metadata"].as_str()),
        (Some("{\"cost_center\":7}"), Some("{\"own\":1}"))
    );
}
