//! The attempt loop beyond the fault matrix: retries and their limits, hints, what goes on to another link and what does
//! not, uploads, and what is recorded of it (B2 to B4, B6, R004-10 to R004-16).

use std::time::{Duration, Instant};

use nemo_tests::{
    client::End,
    fleet::Fleet,
    links::Links,
    ports::free_port,
    script::{Ending, Script, UsageReport},
};
use serde_json::{Value, json};

async fn world(name: &str, count: usize) -> (Fleet, Links) {
    let fleet = Fleet::start().await.unwrap();
    fleet.admin.put("/settings/routing.backoff_ms", json!({ "value": "20" })).await.unwrap();
    let links = Links::start(&fleet.admin, name, count, None).await.unwrap();
    Links::settled(&fleet.client, name).await.unwrap();
    (fleet, links)
}

fn request(model: &str, extra: &Value) -> String {
    let mut request = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    request.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    request.to_string()
}

const PATH: &str = "/v1/chat/completions";

/// R004-14, R004-17: retries come after every candidate was asked once, and no more of them than asked for.
#[tokio::test]
async fn a_passing_fault_is_retried_as_often_as_is_asked_for() {
    let (fleet, links) = world("retried", 1).await;
    let upstream = &links.upstreams[0];
    for (retries, failures, status) in [(None, 2, 200), (Some(0), 1, 502), (Some(1), 1, 200)] {
        (0..failures).for_each(|_| upstream.push(Script::status(503)));
        let before = upstream.served();
        let extra = retries.map_or(json!({}), |retries| json!({ "nemo_retries": retries }));
        let response = fleet.client.post(PATH, request("retried", &extra)).await.unwrap();
        assert_eq!(response.status, status, "{retries:?}: {}", response.text());
        let attempts = upstream.served() - before;
        assert_eq!(attempts, if status == 200 { failures + 1 } else { failures }, "{retries:?}");
        assert_eq!(response.header("x-nemo-attempts"), Some(&*attempts.to_string()));
    }
    let row = &fleet.request_log(3).await.unwrap()[2];
    assert_eq!((row["attempts"].as_u64(), row["outcome"].as_str()), (Some(3), Some("ok")), "{row}");
}

/// B2, C14: a short hint is waited for; one beyond the request's own deadline is not slept on.
#[tokio::test]
async fn a_hint_is_kept_to_and_never_beyond_the_deadline() {
    let (fleet, links) = world("hinted", 2).await;
    let first = &links.upstreams[0];
    let limited = |millis: &str| Script::status(429).header("retry-after-ms", millis).unwrap();
    first.push(limited("400"));
    let begin = Instant::now();
    let response = fleet.client.post(PATH, request("hinted", &json!({}))).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-model")), (200, Some("link-1")));
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    assert_eq!(links.served(), [2, 0]);

    // Then only the deadline is in the way of a longer one.
    let path = "/settings/routing.hint_wait_ms?wait=fleet";
    fleet.admin.put(path, json!({ "value": "20000" })).await.unwrap();
    first.push(limited("9000"));
    let hurried = fleet.client.clone().header("x-nemo-timeout-ms", "8000");
    let begin = Instant::now();
    let response = hurried.post(PATH, request("hinted", &json!({}))).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-model")), (200, Some("link-2")));
    assert!(begin.elapsed() < Duration::from_secs(7), "{:?}", begin.elapsed());
    assert_eq!(response.header("x-nemo-chain").unwrap().matches(";429;").count(), 1);
}

/// B2, B3: an error that comes as a whole 200 is judged as the status would be that it should have had.
#[tokio::test]
async fn an_error_inside_of_a_200_goes_on_to_another_link() {
    let (fleet, links) = world("pretended", 2).await;
    let first = &links.upstreams[0];
    let said = |code: u16| {
        format!(r#"{{"error":{{"message":"Provider returned error","code":{code}}},"user_id":"u"}}"#)
    };
    first.push(Script::ok().body(said(502)));
    let response = fleet.client.post(PATH, request("pretended", &json!({}))).await.unwrap();
    assert_eq!(
        (response.status, response.header("x-nemo-model")),
        (200, Some("link-2")),
        "{}",
        response.text()
    );
    assert_eq!(response.header("x-nemo-attempts"), Some("2"));
    assert_eq!(links.served(), [1, 1]);
    // The client's fault is the client's, whoever says so.
    first.push(Script::ok().body(said(400)));
    let response = fleet.client.post(PATH, request("pretended", &json!({}))).await.unwrap();
    assert_eq!((response.status, response.text()), (200, said(400)));
    assert_eq!(links.served(), [2, 1]);
}

/// B3: what is the client's fault stays with it; what is ours, or too long for one model, goes on.
#[tokio::test]
async fn refusals_go_on_only_where_another_link_can_help() {
    let (fleet, links) = world("refused", 2).await;
    let (first, second) = (&links.upstreams[0], &links.upstreams[1]);
    let long = r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    first.push(Script::status(400).body(long));
    let response = fleet.client.post(PATH, request("refused", &json!({}))).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (400, long), "no link has a larger window");
    assert_eq!(links.served(), [1, 0]);

    let model = json!({
        "id": "refused-2", "display_name": "larger", "owned_by": "tests", "context_window": 1_000_000,
        "max_output_tokens": 4096, "endpoints": ["chat.completions"], "offerings": [],
    });
    fleet.admin.put("/models/refused-2", json!({ "model": model })).await.unwrap();
    nemo_tests::eventually("the larger window is known", async || {
        first.push(Script::status(400).body(long));
        let response = fleet.client.post(PATH, request("refused", &json!({}))).await?;
        anyhow::ensure!(response.header("x-nemo-model") == Some("link-2"), "{}", response.text());
        anyhow::ensure!(response.header("x-nemo-chain").is_some_and(|it| it.contains("link-1;400;")));
        Ok(())
    })
    .await
    .unwrap();

    let billing = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#;
    first.push(Script::status(400).body(billing));
    let response = fleet.client.post(PATH, request("refused", &json!({}))).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-model")), (200, Some("link-2")));
    assert!(!second.requests().is_empty());
    nemo_tests::eventually("the operator is told", async || {
        anyhow::ensure!(fleet.logs().contains("refused the gateway's credential"));
        Ok(())
    })
    .await
    .unwrap();
}

/// I7, B7: comments commit the 200, not the answer; another link can still give that.
#[tokio::test]
async fn another_link_answers_after_comments_have_gone_out() {
    let fleet = Fleet::start_with(&[("NEMO_TIMEOUTS__KEEP_ALIVE_MS", "100")]).await.unwrap();
    let links = Links::start(&fleet.admin, "silent", 2, None).await.unwrap();
    Links::settled(&fleet.client, "silent").await.unwrap();
    links.upstreams[0].push(Script::status(503).delay(Duration::from_secs(2)));
    let response = fleet.client.post(PATH, request("silent", &json!({ "stream": true }))).await.unwrap();
    let text = response.text();
    assert_eq!((response.status, response.end), (200, End::Complete), "{text}");
    assert!(text.starts_with(": keep-alive\n\n") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(response.header("x-nemo-model"), None, "it was not known yet who would answer");
    assert_eq!(links.served(), [1, 1]);

    // Nobody answers: the stream says so.
    links.upstreams[0].push(Script::status(401).delay(Duration::from_secs(2)));
    links.upstreams[1].push(Script::status(401));
    let response = fleet.client.post(PATH, request("silent", &json!({ "stream": true }))).await.unwrap();
    let last: Value = serde_json::from_str(&response.events().pop().unwrap().data).unwrap();
    assert_eq!((response.status, &last["error"]["code"]), (200, &json!("fallback_chain_exhausted")));
    assert_eq!(last["error"]["metadata"]["attempts"].as_array().unwrap().len(), 2);
    assert_ne!(response.end, End::Complete);
}

/// R004-12, B8: every attempt is counted, and what a failed one has cost is not lost.
#[tokio::test]
async fn a_failed_attempt_that_reported_usage_is_paid_for() {
    let (fleet, links) = world("paid", 2).await;
    let report = concat!(
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}],\"usage\":{\"prompt_tokens\":1000,",
        "\"completion_tokens\":0,\"total_tokens\":1000}}\n\n"
    );
    links.upstreams[0].push(Script::replay("text/event-stream", report).ending(Ending::Cut(report.len())));
    links.upstreams[1].push(Script::ok().usage(UsageReport::Tokens {
        prompt: 1000,
        completion: 0,
        cached: 0,
    }));
    let response = fleet.client.post(PATH, request("paid", &json!({ "stream": true }))).await.unwrap();
    assert_eq!((response.status, response.end), (200, End::Complete), "{}", response.text());
    assert!(
        response.header("x-nemo-chain").unwrap().contains("link-1;interrupted;"),
        "{:?}",
        response.headers
    );
    let row = fleet.request_log(1).await.unwrap().remove(0);
    assert_eq!(row["attempts"], 2, "{row}");
    assert_eq!(row["input_tokens"], 1000, "of the answer: {row}");
    // 2.50 USD per million, twice.
    assert_eq!(row["cost_nanos"].as_i64(), Some(5_000_000), "{row}");
}

/// Nobody listens at the first address: nothing was sent, so that even a form goes on to the next.
#[tokio::test]
async fn a_form_goes_on_as_long_as_nothing_of_it_was_sent() {
    use super::media::{FORM, field, file, form};
    let fleet = Fleet::start().await.unwrap();
    let upstream = nemo_tests::upstream::Upstream::start().await.unwrap();
    let nobody = format!("http://127.0.0.1:{}/v1", free_port().unwrap());
    let credential = json!({ "name": "form", "provider": "custom", "secret": "sk-form" });
    let credential = fleet.admin.post("/credentials", credential).await.unwrap();
    let credential_id = credential["id"].as_str().unwrap();
    let mut links = Vec::new();
    for (id, base_url) in [("hear-1", &nobody), ("hear-2", &upstream.base_url())] {
        let served = nemo_tests::admin::ServedModel {
            id,
            endpoints: &["audio.transcriptions"],
            upstream_model: &format!("up-{id}"),
            base_url,
            credential_id,
        };
        let made = fleet.admin.serve_model(&served).await.unwrap();
        links.push(json!({ "deployments": [{ "deployment_id": made["id"], "weight": 1 }] }));
    }
    fleet.admin.post("/model-groups", json!({ "name": "hear", "links": links })).await.unwrap();
    Links::settled(&fleet.client, "hear").await.unwrap();
    let body = form(&[field("model", "hear"), file("file", &[7; 3_000_000])]);
    let path = "/v1/audio/transcriptions";
    let response = fleet.client.post_as(path, FORM, &[&body]).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(
        response.header("x-nemo-chain").unwrap().contains("up-hear-1;connect;"),
        "{:?}",
        response.headers
    );
    let sent = upstream.last_request().unwrap();
    let expected = form(&[field("model", "up-hear-2"), file("file", &[7; 3_000_000])]);
    assert!(sent.body == expected, "renamed for the one who got it: {} bytes", sent.body.len());

    // What was sent once is gone.
    upstream.push(Script::status(503));
    let response = fleet.client.post_as(path, FORM, &[&body]).await.unwrap();
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(response.text().contains("send it again"), "{}", response.text());
    assert_eq!(upstream.served(), 2);
}

/// What a stream's error event says decides as a status would: a fault of the client's is passed on, and nobody else is
/// asked or blamed.
#[tokio::test]
async fn an_error_event_is_judged_like_an_answer() {
    let (fleet, links) = world("judged", 2).await;
    let event = |error: Value| {
        let text = format!("data: {}\n\n", json!({ "error": error }));
        Script::replay("text/event-stream", text)
    };
    let stream = request("judged", &json!({ "stream": true }));
    for _ in 0..4 {
        links.upstreams[0].push(event(json!({ "message": "no", "type": "invalid_request_error" })));
        let response = fleet.client.post(PATH, &stream).await.unwrap();
        let last: Value = serde_json::from_str(&response.events().pop().unwrap().data).unwrap();
        assert_eq!((response.status, &last["error"]["message"]), (200, &json!("no")));
        assert_ne!(response.end, End::Complete, "B7");
    }
    assert_eq!(links.served(), [4, 0], "its breaker is closed");
    let row = fleet.request_log(4).await.unwrap().remove(0);
    assert_eq!(row["error_code"], "upstream_rejected", "{row}");

    for (error, result) in [
        (json!({ "message": "slow down", "code": "rate_limit_exceeded" }), "rate_limited"),
        (json!({ "message": "busy", "type": "overloaded_error" }), "error_event"),
    ] {
        let (fleet, links) = world("judged", 2).await;
        links.upstreams[0].push(event(error));
        let response = fleet.client.post(PATH, &stream).await.unwrap();
        assert_eq!((response.status, response.end), (200, End::Complete), "{}", response.text());
        let chain = response.header("x-nemo-chain").unwrap();
        assert!(chain.contains(&format!("link-1;{result};")) && chain.contains("link-2;200;"), "{chain}");
        assert_eq!(links.served(), [1, 1]);
    }
}

/// E.4: "200, then `response.failed`" is a failure like any other, as long as only its beginning was announced.
#[tokio::test]
async fn a_response_that_fails_before_its_first_delta_comes_from_the_next_link() {
    let (fleet, links) = world("announced", 2).await;
    let event = |kind: &str, more: Value| {
        let mut data =
            json!({ "type": kind, "response": { "id": "r", "status": "in_progress", "error": null } });
        data.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let item = json!({ "item": { "type": "message", "content": [] } });
    let error = json!({ "response": { "id": "r", "status": "failed", "error": { "code": "server_error", "message": "x" } } });
    let failed = [
        event("response.created", json!({})),
        event("response.in_progress", json!({})),
        event("response.output_item.added", item),
        event("response.failed", error),
    ];
    links.upstreams[0]
        .push(Script::replay("text/event-stream", failed.concat()).drip(97, Duration::from_millis(1)));
    let body = json!({ "model": "announced", "input": "hi", "stream": true }).to_string();
    let response = fleet.client.post("/v1/responses", body).await.unwrap();
    let text = response.text();
    assert_eq!((response.status, response.end), (200, End::Complete), "{text}");
    assert!(text.contains("event: response.completed") && !text.contains("response.failed"), "{text}");
    assert_eq!(text.matches("event: response.created").count(), 1, "{text}");
    assert!(response.header("x-nemo-chain").unwrap().starts_with("custom/link-1;error_event;"), "{text}");
    assert_eq!(links.served(), [1, 1]);
}
