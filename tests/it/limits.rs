//! Bounds on what a client may send: body (plain, chunked, compressed), headers, pace (C18, C19).

use std::io::Write as _;
use std::time::Duration;

use nemo_tests::{eventually, fleet::Fleet, script::Script};
use serde_json::json;

use super::chat::chat;

const LIMIT: usize = 256 * 1024;

async fn fleet() -> Fleet {
    Fleet::start_with(&[("NEMO_MAX_BODY_BYTES", &LIMIT.to_string())]).await.unwrap()
}

/// Nothing is under way any more.
async fn place_is_free(fleet: &Fleet) {
    eventually("the place is free again", async || {
        let metrics = fleet.metrics().await?;
        anyhow::ensure!(metrics.contains("nemo_requests_in_flight 0\n"));
        Ok(())
    })
    .await
    .unwrap();
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_body_reaches_the_upstream_decoded() {
    let fleet = fleet().await;
    let client = fleet.client.clone().header("content-encoding", "gzip");
    let response = client.post("/v1/chat/completions", gzip(chat("hi").as_bytes())).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = fleet.upstream.last_request().unwrap();
    assert_eq!(seen.json().unwrap()["messages"][0]["content"], "hi");
    assert_eq!(seen.header("content-encoding"), None);
}

#[tokio::test]
async fn bombs_and_bodies_beyond_the_limit_are_refused_and_reach_no_upstream() {
    let fleet = fleet().await;
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < LIMIT);
    let client = fleet.client.clone().header("content-encoding", "gzip");
    let response = client.post("/v1/chat/completions", bomb).await.unwrap();
    assert_eq!(response.status, 413, "{}", response.text());
    assert_eq!(response.json().unwrap()["error"]["code"], "payload_too_large");

    let piece = "x".repeat(LIMIT + 1);
    let chunked = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: \
         application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{piece}\r\n",
        fleet.key,
        piece.len()
    );
    let response = fleet.client.send_raw(chunked.as_bytes()).await.unwrap();
    assert_eq!(response.status, 413);

    let client = fleet.client.clone().header("content-encoding", "compress");
    let response = client.post("/v1/chat/completions", "x").await.unwrap();
    assert_eq!(response.status, 415, "{}", response.text());
    assert!(response.text().contains("gzip, deflate, br, zstd"), "{}", response.text());
    assert_eq!(fleet.upstream.served(), 0);
}

/// A client that stops in the middle of its body loses its place.
#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let fleet = Fleet::start_with(&[("NEMO_TIMEOUTS__BODY_IDLE_MS", "500")]).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: \
         application/json\r\ncontent-length: 1000\r\n\r\n{{",
        fleet.key
    );
    let response = fleet.client.send_raw(head.as_bytes()).await.unwrap().finish().await.unwrap();
    assert_eq!(response.status, 408, "{}", response.text());
    assert_eq!(response.json().unwrap()["error"]["code"], "request_timeout");
    assert!(response.total < Duration::from_secs(20), "{:?}", response.total);
    place_is_free(&fleet).await;
}

/// A client that does not read its answer loses its place: it ends as one that left.
#[tokio::test]
async fn an_answer_that_is_not_read_is_dropped() {
    let fleet = Fleet::start_with(&[("NEMO_TIMEOUTS__WRITE_MS", "500")]).await.unwrap();
    // More than all buffers on the way hold.
    let delta = json!({ "choices": [{ "index": 0, "delta": { "content": "x".repeat(1000) } }] });
    fleet.upstream.push(Script::replay("text/event-stream", format!("data: {delta}\n\n").repeat(32_000)));
    let body = chat("hi").replacen('{', r#"{"stream":true,"#, 1);
    let stuck = fleet.client.open("POST", "/v1/chat/completions", body.as_bytes()).await.unwrap();
    assert_eq!(stuck.status, 200);
    place_is_free(&fleet).await;
    let row = &fleet.request_log(1).await.unwrap()[0];
    assert_eq!(row["outcome"], "cancelled", "{row}");
    // It has not left: it is still there.
    drop(stuck);
}

#[tokio::test]
async fn too_many_and_too_large_headers_are_a_431() {
    let fleet = fleet().await;
    let mut client = fleet.client.clone();
    for number in 0..120 {
        client = client.header(&format!("x-extra-{number}"), "1");
    }
    assert_eq!(client.get("/v1/models").await.unwrap().status, 431);
    let large = fleet.client.clone().header("x-large", &"y".repeat(300 * 1024));
    // The server may answer and close before it has read everything, which can look like a reset.
    if let Ok(response) = large.get("/v1/models").await {
        assert_eq!(response.status, 431);
    }
    assert_eq!(fleet.client.get("/v1/models").await.unwrap().status, 200);
}
