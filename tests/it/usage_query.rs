//! What was used, as the admin API sums it up: the sums of requests that went through the whole path, and searching the
//! log that they were summed beside.

use nemo_tests::{
    fleet::{Fleet, MODEL},
    script::Script,
};
use serde_json::{Value, json};

use super::chat::chat;

/// Sends four requests with two keys, one of them answered with an error, and waits until all are in the log.
async fn used(fleet: &Fleet) -> anyhow::Result<(String, Vec<Value>)> {
    let (second, secret) = fleet.issue_key(json!({ "name": "second" })).await?;
    let other = fleet.client_with(Some(&secret));
    fleet.settled(&other).await?;
    for _ in 0..2 {
        fleet.client.post("/v1/chat/completions", chat("hi")).await?;
    }
    other.clone().header("x-request-id", "mine-7").post("/v1/chat/completions", chat("hi")).await?;
    fleet.upstream.push(Script::status(500));
    other.header("x-nemo-retries", "0").post("/v1/chat/completions", chat("hi")).await?;
    Ok((second, fleet.request_log(4).await?))
}

fn sum(rows: &[Value], member: &str) -> i64 {
    rows.iter().filter_map(|row| row[member].as_i64()).sum()
}

/// R000-11: per-key spend is visible as soon as the request is logged, and is what the log says.
#[tokio::test]
async fn usage_by_key_is_the_sum_of_the_log_at_once() {
    let fleet = Fleet::start().await.unwrap();
    let (second, log) = used(&fleet).await.unwrap();
    let path = fleet.org("/usage?interval=hour&group_by=key,model,endpoint");
    let answer = fleet.admin.get(&path).await.unwrap();
    let rows = answer["rows"].as_array().unwrap();
    for key in [&fleet.key_id, &second] {
        let logged: Vec<_> = log.iter().filter(|row| row["key_id"] == **key).cloned().collect();
        let rows: Vec<_> = rows.iter().filter(|row| row["key_id"] == **key).cloned().collect();
        assert_eq!(logged.len(), 2);
        assert_eq!(sum(&rows, "requests"), 2, "{answer}");
        for member in ["cost_nanos", "input_tokens", "output_tokens", "request_bytes", "response_bytes"] {
            assert_eq!(sum(&rows, member), sum(&logged, member), "{member} in {answer}");
        }
        assert!(sum(&rows, "cost_nanos") > 0, "{answer}");
        assert!(rows.iter().all(|row| row["model"] == MODEL && row["endpoint"] == "chat.completions"));
        assert!(rows.iter().all(|row| row["total"]["p95_us"].as_i64() > Some(0)), "{answer}");
    }
    let errors = |key: &str| {
        let rows: Vec<_> = rows.iter().filter(|row| row["key_id"] == key).cloned().collect();
        sum(&rows, "errors")
    };
    assert_eq!((errors(&fleet.key_id), errors(&second)), (0, 1), "{answer}");
    let all = fleet.admin.get("/usage?group_by=org").await.unwrap();
    let own = all["rows"].as_array().unwrap().iter().find(|row| row["org_id"] == *fleet.org_id).unwrap();
    assert_eq!(own["requests"], 4, "{all}");
}

#[tokio::test]
async fn the_log_is_found_by_status_key_and_the_clients_id() {
    let fleet = Fleet::start().await.unwrap();
    let (second, log) = used(&fleet).await.unwrap();
    let found = async |query: &str| {
        let listed = fleet.admin.get(&fleet.org(&format!("/requests?{query}"))).await.unwrap();
        let ids = listed["requests"].as_array().unwrap().iter().map(|row| row["id"].clone());
        ids.collect::<Vec<_>>()
    };
    // Newest first: the error, the one with an id, and two of the first key.
    let ids: Vec<_> = log.iter().map(|row| row["id"].clone()).collect();
    assert_eq!(found("status=5xx").await, ids[..1]);
    assert_eq!(found("status=2xx").await, ids[1..]);
    assert_eq!(found("client_request_id=mine-7").await, ids[1..2]);
    assert_eq!(found(&format!("key_id={second}")).await, ids[..2]);
    assert_eq!(found(&format!("id={}", ids[3].as_str().unwrap())).await, ids[3..]);
    assert_eq!(found("min_total_us=600000000").await, [] as [Value; 0]);
    let refused = fleet.admin.call("GET", &fleet.org("/requests?status=many"), None).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("4xx"), "{}", refused.text());
}
