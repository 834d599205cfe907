//! Embeddings: passed through, metered by their input.

use nemo_tests::fleet::{EMBEDDING_MODEL, Fleet, MODEL};
use serde_json::json;

/// R004-26.
#[tokio::test]
async fn embeddings_pass_through_and_are_priced() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "model": EMBEDDING_MODEL, "input": ["a", "b"], "encoding_format": "base64" });
    let response = fleet.client.post("/v1/embeddings", request.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json().unwrap()["data"].as_array().unwrap().len(), 2);
    let row = fleet.request_log(1).await.unwrap().remove(0);
    assert_eq!(row["endpoint"], "embeddings");
    assert_eq!(row["cost_source"], "priced", "{row}");
    assert_eq!(row["cost_nanos"].as_i64(), row["input_tokens"].as_i64().map(|tokens| tokens * 2500), "{row}");
}

/// C26: a chat model is never sent an embedding request.
#[tokio::test]
async fn a_model_that_does_not_embed_is_refused_with_the_reason() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "model": MODEL, "input": "a" });
    let response = fleet.client.post("/v1/embeddings", request.to_string()).await.unwrap();
    assert_eq!(response.status, 400);
    let error = &response.json().unwrap()["error"];
    assert_eq!(error["code"], "no_candidate_for_endpoint");
    assert_eq!(error["metadata"]["eliminated"][0]["reason"], "endpoint_not_served", "{error}");
    assert_eq!(fleet.upstream.served(), 0);
}
