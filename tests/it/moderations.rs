//! Moderations and rerank: passed through, counted by the call and by the search.

use nemo_tests::script::{Script, UsageReport};
use serde_json::{Value, json};

use super::media::{MODERATION, RERANK, fleet, quantity, row};

#[tokio::test]
async fn a_moderation_without_a_model_goes_to_the_default_one_and_is_known_to_be_free() {
    let fleet = fleet().await;
    for (request, sent) in [
        (json!({ "input": "hello" }), json!({ "model": "moderation-mock", "input": "hello" })),
        (
            json!({ "model": null, "input": ["a", "b"] }),
            json!({ "model": "moderation-mock", "input": ["a", "b"] }),
        ),
        (
            json!({ "model": MODERATION, "nemo_tags": [], "input": "attack" }),
            json!({ "model": "moderation-mock", "input": "attack" }),
        ),
    ] {
        let response = fleet.client.post("/v1/moderations", request.to_string()).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(fleet.upstream.last_request().unwrap().json().unwrap(), sent);
        let logged = row(&fleet, &response).await;
        assert_eq!((logged["model"].as_str(), quantity(&logged, "requests")), (Some(MODERATION), Some(1)));
        assert_eq!((&logged["cost_nanos"], &logged["cost_source"]), (&json!(0), &json!("priced")));
    }
    let response =
        fleet.client.post("/v1/moderations", json!({ "model": MODERATION }).to_string()).await.unwrap();
    assert_eq!((response.status, &response.json().unwrap()["error"]["param"]), (400, &json!("input")));
}

#[tokio::test]
async fn a_ranking_is_billed_by_the_search_as_far_as_the_upstream_tells() {
    let fleet = fleet().await;
    let documents: Vec<String> = (0..101).map(|at| "x".repeat(at + 1)).collect();
    let request = json!({ "model": RERANK, "query": "q", "documents": documents, "top_n": 3 });
    let response = fleet.client.post("/v1/rerank", request.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json().unwrap()["results"][0]["index"], json!(100));
    let logged = row(&fleet, &response).await;
    assert_eq!((quantity(&logged, "search_units"), quantity(&logged, "documents")), (Some(2), Some(101)));
    assert_eq!(logged["cost_nanos"], json!(4_000_000));

    fleet.upstream.push(Script::ok().usage(UsageReport::Missing));
    let response = fleet.client.post("/v1/rerank", request.to_string()).await.unwrap();
    let logged = row(&fleet, &response).await;
    assert_eq!((quantity(&logged, "search_units"), &logged["cost_nanos"]), (None, &Value::Null));
    let bad = json!({ "model": RERANK, "query": "q", "documents": "one" });
    let response = fleet.client.post("/v1/rerank", bad.to_string()).await.unwrap();
    assert_eq!((response.status, &response.json().unwrap()["error"]["param"]), (400, &json!("documents")));
}

/// A call is paid for when it was answered.
#[tokio::test]
async fn a_price_for_each_call_is_none_for_one_that_failed() {
    let fleet = fleet().await;
    let deployments = fleet.admin.get(&format!("/deployments?model={MODERATION}")).await.unwrap();
    let id = deployments["deployments"][0]["id"].as_str().unwrap();
    let price = json!({ "units": [{ "unit": "requests", "price": CENT * 1_000_000 }] });
    fleet.admin.patch(&format!("/deployments/{id}?wait=fleet"), json!({ "price": price })).await.unwrap();
    let once = fleet.client.clone().header("x-nemo-retries", "0");
    for (script, cost) in
        [(Script::status(500), Value::Null), (Script::status(400), Value::Null), (Script::ok(), json!(CENT))]
    {
        fleet.upstream.push(script);
        let response = once.post("/v1/moderations", json!({ "input": "hi" }).to_string()).await.unwrap();
        assert_eq!(row(&fleet, &response).await["cost_nanos"], cost, "{}", response.status);
    }
}

/// In nano dollars.
const CENT: i64 = 10_000_000;
