//! The Responses API: passed through with its named events, metered by the event that ends it (E.4).

use nemo_tests::{
    client::End,
    script::{Ending, Script},
    upstream::media::RESPONSE_TOKENS,
};
use serde_json::json;

use super::media::{RESPONSES, fleet, row};

#[tokio::test]
async fn a_response_is_metered_with_its_cached_and_reasoning_tokens() {
    let fleet = fleet().await;
    let [input, output, cached, reasoning] = RESPONSE_TOKENS;
    let first = json!({ "model": RESPONSES, "input": "hi" }).to_string();
    let first = fleet.client.post("/v1/responses", first).await.unwrap().json().unwrap()["id"].clone();
    let request = json!({
        "model": RESPONSES, "input": "hi", "previous_response_id": first, "nemo_metadata": { "run": 7 },
        "stream_options": { "include_obfuscation": false },
    });
    let native = format!("resp_{}", first.as_str().unwrap().rsplit('.').next().unwrap());
    for path in ["/v1/responses", "/api/v1/responses"] {
        let response = fleet.client.post(path, request.to_string()).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json().unwrap()["previous_response_id"], first, "the same as it was given out");
        let mut expected = request.clone();
        expected["previous_response_id"] = json!(native);
        expected["model"] = json!("responses-mock");
        expected.as_object_mut().unwrap().remove("nemo_metadata");
        assert_eq!(fleet.upstream.last_request().unwrap().json().unwrap(), expected);
        let logged = row(&fleet, &response).await;
        let nanos = (input - cached) * 5000 + cached * 500 + output * 10_000;
        for (member, value) in [
            ("endpoint", json!("responses")),
            ("input_tokens", json!(input)),
            ("output_tokens", json!(output)),
            ("cache_read_tokens", json!(cached)),
            ("reasoning_tokens", json!(reasoning)),
            ("finish_reason", json!("stop")),
            ("cost_nanos", json!(nanos)),
            ("cost_source", json!("priced")),
            ("units", json!([])),
        ] {
            assert_eq!(logged[member], value, "{member} in {logged}");
        }
    }
    let short = json!({ "model": RESPONSES, "input": "hi", "max_output_tokens": 5 });
    let response = fleet.client.post("/v1/responses", short.to_string()).await.unwrap();
    assert_eq!(row(&fleet, &response).await["finish_reason"], "length");
}

#[tokio::test]
async fn a_streamed_response_keeps_its_named_events_byte_for_byte() {
    let fleet = fleet().await;
    let request = json!({ "model": RESPONSES, "input": "hi", "stream": true });
    let response = fleet.client.post("/v1/responses", request.to_string()).await.unwrap();
    assert_eq!((response.status, response.end), (200, End::Complete));
    let events = response.events();
    assert_eq!(events[0].raw.lines().next(), Some("event: response.created"));
    assert_eq!(events.last().unwrap().raw.lines().next(), Some("event: response.completed"));
    assert!(!response.text().contains("[DONE]"));
    let sent = fleet.upstream.last_request().unwrap().json().unwrap();
    assert_eq!(sent.get("stream_options"), None, "usage comes unasked here");
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["output_tokens"], &logged["stream"]), (&json!(RESPONSE_TOKENS[1]), &json!(true)));
    assert_eq!(logged["finish_reason"], "stop");
}

/// B7, C15.
#[tokio::test]
async fn a_response_without_its_last_event_is_never_ended_cleanly() {
    let fleet = fleet().await;
    fleet.tolerant().await.unwrap();
    let request = json!({ "model": RESPONSES, "input": "hi", "stream": true }).to_string();
    for ending in [Ending::NoDone, Ending::HalfEvent, Ending::Cut(3000)] {
        fleet.upstream.push(Script::ok().ending(ending));
        let response = fleet.client.post("/v1/responses", request.as_str()).await.unwrap();
        assert_eq!(response.end, End::Truncated, "{ending:?}");
        let last = response.events().last().unwrap().data.clone();
        assert!(last.contains("upstream_interrupted"), "{ending:?}: {last}");
        let logged = row(&fleet, &response).await;
        assert_eq!((&logged["outcome"], &logged["usage_estimated"]), (&json!("interrupted"), &json!(true)));
    }
    fleet.upstream.push(Script::ok().ending(Ending::ErrorEvent(5)));
    let response = fleet.client.post("/v1/responses", request.as_str()).await.unwrap();
    assert_eq!(row(&fleet, &response).await["error_code"], "upstream_error");
}
