//! Rate limits as clients meet them (E.2, C21, C22): requests, tokens and requests at once, with our values in OpenAI's
//! headers.

use std::time::Duration;

use nemo_tests::{
    eventually,
    fleet::{Fleet, MODEL},
    script::{Script, UsageReport},
};
use serde_json::{Value, json};

use super::chat::chat;

const CHAT: &str = "/v1/chat/completions";

async fn limit(fleet: &Fleet, body: Value) {
    fleet.admin.post(&fleet.org("/rate-limits?wait=fleet"), body).await.unwrap();
}

/// C21: the request beyond the limit is a 429 that says which limit and when to come back, and reaches no upstream.
#[tokio::test]
async fn c21_requests_beyond_the_limit_are_a_429_with_our_headers() {
    let fleet = Fleet::start().await.unwrap();
    limit(&fleet, json!({ "name": "small", "requests_per_minute": 3 })).await;
    for left in ["2", "1", "0"] {
        let response = fleet.client.post(CHAT, chat("hi")).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(
            response.header("x-ratelimit-limit-requests"),
            Some("3"),
            "ours, not the upstream's 10000"
        );
        assert_eq!(response.header("x-ratelimit-remaining-requests"), Some(left));
        assert!(response.header("x-ratelimit-reset-requests").is_some_and(|reset| reset.ends_with('s')));
        assert_eq!(response.header("x-ratelimit-limit-tokens"), None, "none is set");
    }
    let refused = fleet.client.post(CHAT, chat("hi")).await.unwrap();
    let error = refused.json().unwrap()["error"].clone();
    assert_eq!((refused.status, &error["code"]), (429, &json!("rate_limit_exceeded")), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("`small` of the organization allows 3 requests per minute"), "{message}");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let millis: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds) && millis.div_ceil(1000) == seconds, "{seconds} {millis}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(fleet.upstream.served(), 3);
    let other = fleet.client.post("/api/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!((other.status, &other.json().unwrap()["error"]["code"]), (429, &json!(429)));
}

/// C21: one that is refused after its limits have let it through costs nothing of them.
#[tokio::test]
async fn c21_what_is_refused_later_is_given_back() {
    let fleet = Fleet::start().await.unwrap();
    limit(&fleet, json!({ "name": "small", "requests_per_minute": 3 })).await;
    let unserved = json!({ "model": MODEL, "prompt": "a cat" });
    let mut dear: Value = serde_json::from_str(&chat("hi")).unwrap();
    dear["nemo_max_cost"] = json!(0.0001);
    for (path, body, code) in
        [("/v1/images/generations", unserved, "no_candidate_for_endpoint"), (CHAT, dear, "max_cost_exceeded")]
    {
        for _ in 0..4 {
            let refused = fleet.client.post(path, body.to_string()).await.unwrap();
            let error = refused.json().unwrap()["error"].clone();
            assert_eq!((refused.status, &error["code"]), (400, &json!(code)), "{error}");
        }
    }
    // What the upstream refuses has been sent.
    fleet.upstream.push(Script::status(400));
    assert_eq!(fleet.client.post(CHAT, chat("hi")).await.unwrap().status, 400);
    for left in ["1", "0"] {
        let response = fleet.client.post(CHAT, chat("hi")).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("x-ratelimit-remaining-requests"), Some(left));
    }
}

/// C22: tokens are charged before they are used, and corrected afterwards.
#[tokio::test]
async fn c22_tokens_are_charged_ahead_and_corrected() {
    let fleet = Fleet::start().await.unwrap();
    limit(&fleet, json!({ "name": "t", "tokens_per_minute": 1000 })).await;
    let ask = |most: u64| {
        json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }], "max_tokens": most })
            .to_string()
    };
    // Much is allowed and little is used, so another one fits.
    for _ in 0..3 {
        let usage = UsageReport::Tokens { prompt: 5, completion: 5, cached: 0 };
        fleet.upstream.push(Script::ok().usage(usage));
        let response = fleet.client.post(CHAT, ask(900)).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("x-ratelimit-limit-tokens"), Some("1000"));
    }
    // What was used beyond it counts as well.
    fleet.upstream.push(Script::ok().usage(UsageReport::Tokens { prompt: 5, completion: 2000, cached: 0 }));
    assert_eq!(fleet.client.post(CHAT, ask(100)).await.unwrap().status, 200);
    let refused = fleet.client.post(CHAT, ask(100)).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("1000 tokens per minute"), "{}", refused.text());
    // More than a minute has never passes.
    let never = fleet.client.post(CHAT, ask(5000)).await.unwrap();
    assert!(never.status == 429 && never.text().contains("this request alone counts"), "{}", never.text());
}

/// C21: a place is free again when its request is over, however it ends.
#[tokio::test]
async fn c21_places_are_given_back_when_requests_end() {
    let fleet = Fleet::start().await.unwrap();
    limit(&fleet, json!({ "name": "c", "concurrent": 1 })).await;
    fleet.upstream.push(Script::ok().pieces(200).content("x".repeat(200)).pause(Duration::from_millis(50)));
    let streamed =
        json!({ "model": MODEL, "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let mut first = fleet.client.open("POST", CHAT, streamed.to_string().as_bytes()).await.unwrap();
    first.read_events(2).await.unwrap();
    let second = fleet.client.post(CHAT, chat("hi")).await.unwrap();
    assert_eq!((second.status, second.header("retry-after")), (429, Some("2")), "{}", second.text());
    assert!(second.text().contains("allows 1 requests at once"), "{}", second.text());
    drop(first);
    eventually("the place is free", async || {
        let status = fleet.client.post(CHAT, chat("hi")).await?.status;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// A limit of some models leaves the others alone, and one of a key its siblings.
#[tokio::test]
async fn limits_hold_for_their_models_and_keys_alone() {
    let fleet = Fleet::start().await.unwrap();
    let (_, other) = fleet.issue_key(json!({ "name": "other" })).await.unwrap();
    let other = fleet.client_with(Some(&other));
    fleet.settled(&other).await.unwrap();
    limit(
        &fleet,
        json!({ "name": "k", "key_id": fleet.key_id, "model": "test-m*", "requests_per_minute": 1 }),
    )
    .await;
    assert_eq!(fleet.client.post(CHAT, chat("hi")).await.unwrap().status, 200);
    let refused = fleet.client.post(CHAT, chat("hi")).await.unwrap();
    assert!(refused.status == 429 && refused.text().contains("`k` of the key"), "{}", refused.text());
    assert_eq!(other.post(CHAT, chat("hi")).await.unwrap().status, 200);
    let body = json!({ "model": nemo_tests::fleet::EMBEDDING_MODEL, "input": "a" }).to_string();
    let response = fleet.client.post("/v1/embeddings", body).await.unwrap();
    assert_eq!((response.status, response.header("x-ratelimit-limit-requests")), (200, None));
}
