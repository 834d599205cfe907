//! The request log: one row per request, through the whole path.

use std::collections::HashSet;

use nemo_tests::{
    fleet::{Fleet, MODEL, UPSTREAM_MODEL},
    script::Script,
};
use serde_json::json;

use super::chat::chat;

/// R004-29, R004-30.
#[tokio::test]
async fn a_request_leaves_one_row_with_what_happened() {
    let fleet = Fleet::start().await.unwrap();
    let client =
        fleet.client.clone().header("x-request-id", "mine-1").header("x-nemo-metadata", r#"{"team":"red"}"#);
    let response = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 200);
    let row = fleet.request_log(1).await.unwrap().remove(0);
    for (member, value) in [
        ("org_id", json!(fleet.org_id)),
        ("team_id", json!(fleet.team_id)),
        ("key_id", json!(fleet.key_id)),
        ("endpoint", json!("chat.completions")),
        ("requested_model", json!(MODEL)),
        ("model", json!(MODEL)),
        ("provider", json!("custom")),
        ("upstream_model", json!(UPSTREAM_MODEL)),
        ("outcome", json!("ok")),
        ("http_status", json!(200)),
        ("finish_reason", json!("stop")),
        ("usage_estimated", json!(false)),
        ("cost_source", json!("priced")),
        ("attempts", json!(1)),
        ("strategy", json!("simple-shuffle")),
        ("client_request_id", json!("mine-1")),
        ("cost_usd", json!(response.header("x-nemo-cost-usd").unwrap())),
    ] {
        assert_eq!(row[member], value, "{member} in {row}");
    }
    let metadata: serde_json::Value = serde_json::from_str(row["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(metadata, json!({ "team": "red" }));
    assert_eq!(row["request_bytes"].as_u64(), Some(chat("hi").len() as u64));
    assert_eq!(row["response_bytes"].as_u64(), Some(response.body.len() as u64));
    assert!(row["total_us"].as_u64() >= row["upstream_us"].as_u64(), "{row}");
    let mut one =
        fleet.admin.get(&fleet.org(&format!("/requests/{}", row["id"].as_str().unwrap()))).await.unwrap();
    // The list does without.
    assert!(one["decision"].take().is_object());
    assert_eq!(one, row);
}

#[tokio::test]
async fn every_request_is_logged_exactly_once() {
    let fleet = Fleet::start().await.unwrap();
    let total = 200;
    let mut requests = tokio::task::JoinSet::new();
    for at in 0..total {
        let client = fleet.client.clone();
        if at % 10 == 0 {
            fleet.upstream.push(Script::status(500));
        }
        requests.spawn(async move { client.post("/v1/chat/completions", chat("hi")).await.unwrap().status });
    }
    let statuses = requests.join_all().await;
    let failed = statuses.iter().filter(|status| **status != 200).count();
    let listed = nemo_tests::eventually("all rows", async || {
        let listed = fleet.admin.get(&format!("{}?page_size=1000", fleet.org("/requests"))).await?;
        let rows = listed["requests"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(rows.len() >= total, "{}", rows.len());
        Ok(rows)
    })
    .await
    .unwrap();
    let ids: HashSet<_> = listed.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((listed.len(), ids.len()), (total, total));
    assert_eq!(listed.iter().filter(|row| row["http_status"] != 200).count(), failed);
    // Some are tried again, some are refused while the only deployment cools down. The log says how often it was asked;
    // what was lost with a connection it has not seen.
    let attempts: u64 = listed.iter().map(|row| row["attempts"].as_u64().unwrap()).sum();
    assert!((1..=attempts).contains(&fleet.upstream.served()), "{} of {attempts}", fleet.upstream.served());
}

#[tokio::test]
async fn the_log_can_be_filtered_and_paged() {
    let fleet = Fleet::start().await.unwrap();
    for at in 0..5 {
        if at == 2 {
            fleet.upstream.push(Script::status(500));
        }
        let once = fleet.client.clone().header("x-nemo-retries", "0");
        once.post("/v1/chat/completions", chat("hi")).await.unwrap();
    }
    fleet.request_log(5).await.unwrap();
    let path = fleet.org("/requests");
    let errors = fleet.admin.get(&format!("{path}?outcome=error")).await.unwrap();
    assert_eq!(errors["requests"].as_array().unwrap().len(), 1);
    let mut seen = HashSet::new();
    let mut next = String::new();
    for _ in 0..5 {
        let page = fleet.admin.get(&format!("{path}?page_size=2{next}")).await.unwrap();
        for row in page["requests"].as_array().unwrap() {
            assert!(seen.insert(row["id"].as_str().unwrap().to_owned()));
        }
        let token = page["next_page_token"].as_str().unwrap_or_default();
        if token.is_empty() {
            break;
        }
        next = format!("&page_token={token}");
    }
    assert_eq!(seen.len(), 5);
}
