//! Streamed answers: bytes as they came, usage in passing, and every way to end.

use std::time::Duration;

use nemo_tests::{
    client::End,
    eventually::{eventually, yes},
    fleet::{Fleet, MODEL},
    script::{Ending, Script},
    upstream::Ended,
};
use serde_json::{Value, json};

fn streamed(extra: &Value) -> String {
    let mut request = json!({
        "model": MODEL, "stream": true, "messages": [{ "role": "user", "content": "hi" }],
    });
    request.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    request.to_string()
}

/// E.3, C: usage is asked for upstream and cut out again for clients that had not asked.
#[tokio::test]
async fn i8_a_stream_is_the_upstreams_bytes_without_the_usage_chunk_nobody_asked_for() {
    let fleet = Fleet::start().await.unwrap();
    let quiet = fleet.client.post("/v1/chat/completions", streamed(&json!({}))).await.unwrap();
    assert_eq!((quiet.status, quiet.end), (200, End::Complete), "{}", quiet.text());
    assert_eq!(quiet.header("x-nemo-edits"), Some("model,usage"));
    let upstream_saw = fleet.upstream.last_request().unwrap().json().unwrap();
    assert_eq!(upstream_saw["stream_options"]["include_usage"], true);
    let chunks = quiet.chunks().unwrap();
    assert!(
        chunks.iter().all(|chunk| !chunk["choices"].as_array().unwrap().is_empty()),
        "no chunk without choices"
    );
    assert!(quiet.text().ends_with("data: [DONE]\n\n"));

    let asked = json!({ "stream_options": { "include_usage": true } });
    let asked = fleet.client.post("/v1/chat/completions", streamed(&asked)).await.unwrap();
    assert_eq!(asked.header("x-nemo-edits"), Some("model,cost"));
    let last = asked.chunks().unwrap().pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["total_tokens"].as_u64().unwrap() > 0);

    let rows = fleet.request_log(2).await.unwrap();
    // R001-5: what the client is told is what is booked.
    let told = last["usage"]["cost"].as_f64().unwrap();
    let booked = rows.iter().map(|row| row["cost_nanos"].as_f64().unwrap() / 1e9);
    assert!(told > 0.0 && booked.into_iter().any(|cost| (cost - told).abs() < 1e-12), "{told}: {rows:?}");
    for row in rows {
        assert_eq!((row["outcome"].as_str(), row["stream"].as_bool()), (Some("ok"), Some(true)), "{row}");
        assert_eq!(row["cost_source"], "priced", "{row}");
        assert!(row["first_byte_us"].as_u64().unwrap() <= row["total_us"].as_u64().unwrap(), "{row}");
    }
}

/// E.6: `usage: {include: true}` of OpenRouter's clients brings the cost in complete answers too, and never unasked.
#[tokio::test]
async fn a_complete_answer_tells_its_cost_to_who_asks_for_usage() {
    let fleet = Fleet::start().await.unwrap();
    let body = |extra: Value| {
        let mut request = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }] });
        request.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
        request.to_string()
    };
    let asked = json!({ "usage": { "include": true } });
    let asked = fleet.client.post("/api/v1/chat/completions", body(asked)).await.unwrap();
    let cost = asked.json().unwrap()["usage"]["cost"].as_f64().unwrap();
    let header: f64 = asked.header("x-nemo-cost-usd").unwrap().parse().unwrap();
    assert!(cost > 0.0 && (cost - header).abs() < 1e-12, "{cost} {header}");
    assert_eq!(asked.header("x-nemo-edits"), Some("strip,model,cost"));
    let quiet = fleet.client.post("/api/v1/chat/completions", body(json!({}))).await.unwrap();
    assert_eq!(quiet.json().unwrap()["usage"].get("cost"), None);
    assert_eq!(quiet.header("x-nemo-edits"), Some("model"));
}

/// Frames are handed on when they come, not when the answer is complete.
#[tokio::test]
async fn chunks_are_not_held_back() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().pieces(20).ending(Ending::Hang(1500)));
    let request = streamed(&json!({}));
    let mut exchange = fleet.client.open("POST", "/v1/chat/completions", request.as_bytes()).await.unwrap();
    let events = exchange.read_events(4).await.unwrap();
    assert!(events.len() >= 4, "{events:?}");
    assert_eq!(fleet.upstream.last_request().unwrap().ended(), None);
}

/// C18: an event that arrives in pieces is forwarded whole and undamaged.
#[tokio::test]
async fn events_that_arrive_in_halves_are_whole_for_the_client() {
    let fleet = Fleet::start().await.unwrap();
    let whole = fleet.client.post("/v1/chat/completions", streamed(&json!({}))).await.unwrap();
    fleet.upstream.push(Script::ok().drip(7, Duration::from_micros(100)));
    let dripped = fleet.client.post("/v1/chat/completions", streamed(&json!({}))).await.unwrap();
    let contents = |response: &nemo_tests::client::Response| -> Vec<Value> {
        response.chunks().unwrap().iter().map(|chunk| chunk["choices"].clone()).collect()
    };
    assert_eq!(contents(&whole), contents(&dripped));
}

/// B7, C15: a stream that breaks off ends with an error event and a cut connection, never with [DONE].
#[tokio::test]
async fn i7_a_broken_stream_never_looks_complete() {
    let fleet = Fleet::start().await.unwrap();
    for ending in [Ending::Cut(700), Ending::Reset(700)] {
        fleet.upstream.push(Script::ok().pieces(20).ending(ending));
        let response = fleet.client.post("/v1/chat/completions", streamed(&json!({}))).await.unwrap();
        let text = response.text();
        assert_ne!(response.end, End::Complete, "{ending:?}: {text}");
        assert!(!text.contains("[DONE]"), "{ending:?}: {text}");
        let last = response.events().pop().unwrap();
        let error: Value = serde_json::from_str(&last.data).unwrap();
        assert_eq!(error["error"]["code"], "upstream_interrupted", "{ending:?}: {text}");
    }
    assert_eq!(fleet.upstream.served(), 2, "nothing is retried after the first content byte");
    let rows = fleet.request_log(2).await.unwrap();
    assert!(rows.iter().all(|row| row["outcome"] == "interrupted" && row["http_status"] == 200), "{rows:?}");
}

/// Some providers end without [DONE]; every choice has its finish reason, so nothing is missing.
#[tokio::test]
async fn a_stream_that_finished_without_its_terminator_is_complete() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().ending(Ending::NoDone));
    let response = fleet.client.post("/v1/chat/completions", &streamed(&json!({}))).await.unwrap();
    assert_eq!(response.end, End::Complete, "{}", response.text());
    assert!(!response.text().contains("\"error\""), "{}", response.text());
    assert_eq!(fleet.request_log(1).await.unwrap()[0]["outcome"], "ok");
}

/// An error event of the upstream's own is forwarded and recorded.
#[tokio::test]
async fn an_error_event_of_the_upstream_reaches_the_client() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().ending(Ending::ErrorEvent(2)));
    let response = fleet.client.post("/v1/chat/completions", streamed(&json!({}))).await.unwrap();
    let text = response.text();
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
    assert_eq!(fleet.request_log(1).await.unwrap()[0]["outcome"], "interrupted");
}

/// C4: a client that leaves cancels the upstream, and what it got is still accounted for.
#[tokio::test]
async fn a_client_that_leaves_cancels_upstream_and_is_accounted_for() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().pieces(100_000).pause(Duration::from_millis(20)));
    let mut exchange =
        fleet.client.open("POST", "/v1/chat/completions", streamed(&json!({})).as_bytes()).await.unwrap();
    exchange.read_events(3).await.unwrap();
    drop(exchange);
    let seen = fleet.upstream.last_request().unwrap();
    eventually("the upstream sees the client leave", async || {
        yes(matches!(seen.ended(), Some((Ended::ClientGone, _))))
    })
    .await
    .unwrap();
    let row = fleet.request_log(1).await.unwrap().remove(0);
    assert_eq!(row["outcome"], "cancelled", "{row}");
    assert_eq!(row["usage_estimated"], true, "{row}");
    assert_eq!(row["cost_source"], "estimated", "{row}");
    assert!(row["cost_nanos"].as_i64().unwrap() > 0 && row["output_tokens"].as_u64().unwrap() > 0, "{row}");
}

/// C4, before the first byte as well.
#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_accounted_for() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().delay(Duration::from_secs(60)));
    let request = super::chat::chat("hi");
    tokio::select! {
        answer = fleet.client.post("/v1/chat/completions", &request) => panic!("{answer:?}"),
        asked = eventually("the upstream has it", async || yes(!fleet.upstream.requests().is_empty())) => {
            asked.unwrap();
        }
    }
    let row = fleet.request_log(1).await.unwrap().remove(0);
    assert_eq!(
        (row["outcome"].as_str(), row["http_status"].as_u64()),
        (Some("cancelled"), Some(499)),
        "{row}"
    );
    assert!(row["input_tokens"].as_u64().unwrap() > 0, "{row}");
}
