//! Deployments that belong to an organization: where they may be, and what they share with the operator's.

use nemo_tests::fleet::{Fleet, MODEL, UPSTREAM_KEY};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "Hi" }] }).to_string()
}

/// The organization's own deployment of a model that nobody else serves, at the upstream of the operator's.
async fn own(fleet: &Fleet) {
    let entry =
        json!({ "id": "own", "display_name": "own", "owned_by": "tests", "endpoints": ["chat.completions"] });
    fleet.admin.put("/models/own", json!({ "model": entry })).await.unwrap();
    let credential = json!({ "name": "own", "provider": "custom", "secret": UPSTREAM_KEY });
    let credential = fleet.admin.post(&fleet.org("/credentials"), credential).await.unwrap();
    let deployment = json!({ "provider": "custom", "base_url": fleet.upstream.base_url(), "model": "own",
        "upstream_model": "u", "credential_id": credential["id"] });
    fleet.admin.post(&fleet.org("/deployments?wait=fleet"), deployment).await.unwrap();
}

/// SSRF: the operator's deployment answers from the same address, over a connection that is open.
#[tokio::test]
async fn an_organizations_own_deployment_does_not_reach_private_networks() {
    let fleet = Fleet::start_with(&[("NEMO_ORGANIZATION_NETWORKS", "")]).await.unwrap();
    own(&fleet).await;
    assert_eq!(fleet.client.post(CHAT, chat(MODEL)).await.unwrap().status, 200);
    let response = fleet.client.post(CHAT, chat("own")).await.unwrap();
    let error: Value = response.json().unwrap()["error"].clone();
    assert_eq!((response.status, &error["code"]), (502, &json!("fallback_chain_exhausted")), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("an address that an organization's own deployments may not have"), "{message}");
    assert!(response.header("x-nemo-chain").unwrap().contains("out_of_reach"), "{response:?}");
    assert_eq!(fleet.upstream.served(), 1);
}

#[tokio::test]
async fn what_the_operator_has_opened_is_reached() {
    let fleet =
        Fleet::start_with(&[("NEMO_ORGANIZATION_NETWORKS", "10.0.0.0/8, 127.0.0.1/32")]).await.unwrap();
    own(&fleet).await;
    let response = fleet.client.post(CHAT, chat("own")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Two organizations that choose the same key share the operator's account with the provider, and no answers.
#[tokio::test]
async fn an_idempotency_key_is_another_one_for_each_organization() {
    let fleet = Fleet::start().await.unwrap();
    let other = fleet.admin.create_tenant("other", "other").await.unwrap();
    let (_, key) = fleet.admin.issue_key(&other, json!({ "name": "other" })).await.unwrap();
    let theirs = fleet.client_with(Some(&key));
    fleet.settled(&theirs).await.unwrap();
    for client in [&fleet.client, &fleet.client, &theirs] {
        let client = client.clone().header("idempotency-key", "order-17");
        assert_eq!(client.post(CHAT, chat(MODEL)).await.unwrap().status, 200);
    }
    let sent = fleet.upstream.requests();
    let keys: Vec<_> = sent.iter().map(|request| request.header("idempotency-key").unwrap()).collect();
    assert!(keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
    assert!(keys.iter().all(|key| !key.contains("order-17")), "{keys:?}");
}
