//! Waits for an upstream: each has its bound, an organization can set its own, and the error names which it was (C16,
//! C17).

use std::time::{Duration, Instant};

use nemo_tests::{
    client::End,
    eventually,
    fleet::{Fleet, MODEL},
    script::{Ending, Script},
};
use serde_json::{Value, json};

use super::{
    budget::{amount, budget, settled},
    chat::chat,
    media::row,
};

fn streamed() -> String {
    json!({ "model": MODEL, "stream": true, "messages": [{ "role": "user", "content": "hi" }] }).to_string()
}

/// Sets timeouts of the organization, which the node then has.
async fn set(fleet: &Fleet, timeouts: &[(&str, u64)]) {
    for (name, millis) in timeouts {
        let path = fleet.org(&format!("/settings/timeouts.{name}?wait=fleet"));
        fleet.admin.put(&path, json!({ "value": millis.to_string() })).await.unwrap();
    }
}

/// Of the 504 that a request gets whose upstream is silent.
async fn silence_is_a(fleet: &Fleet, code: &str) {
    fleet.upstream.push(Script::ok().delay(Duration::from_secs(600)));
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!((response.status, &error["code"]), (504, &json!(code)), "{error}");
    assert_eq!(error["type"], "timeout_error", "{error}");
    let chain = response.header("x-nemo-chain");
    assert!(chain.is_some_and(|it| it.contains(";timeout;")), "{chain:?}");
}

#[tokio::test]
async fn an_organizations_first_byte_and_total_timeouts_are_a_504_with_their_name() {
    let fleet = Fleet::start().await.unwrap();
    set(&fleet, &[("first_byte_ms", 300)]).await;
    silence_is_a(&fleet, "first_byte_timeout").await;
    // Long enough that the upstream was asked before it is over.
    set(&fleet, &[("first_byte_ms", 15_000), ("total_ms", 2000)]).await;
    silence_is_a(&fleet, "total_timeout").await;
}

/// The most specific setting wins.
#[tokio::test]
async fn a_deployments_own_timeouts_win_over_its_organizations() {
    let fleet = Fleet::start().await.unwrap();
    set(&fleet, &[("first_byte_ms", 15_000)]).await;
    let listed = fleet.admin.get("/deployments").await.unwrap();
    let id = listed["deployments"].as_array().unwrap().iter().find(|it| it["model"] == MODEL).unwrap()["id"]
        .clone();
    let path = format!("/deployments/{}?wait=fleet", id.as_str().unwrap());
    let changed = fleet.admin.patch(&path, json!({ "timeouts": { "first_byte_ms": 250 } })).await.unwrap();
    let timeouts = &changed["timeouts"];
    assert!(timeouts["first_byte_ms"] == 250 && timeouts["idle_ms"].is_null(), "{changed}");
    let begin = Instant::now();
    silence_is_a(&fleet, "first_byte_timeout").await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let error =
        fleet.admin.patch(&path, json!({ "timeouts": { "idle_ms": 0 } })).await.unwrap_err().to_string();
    assert!(error.contains("timeouts.idle_ms"), "{error}");
}

#[tokio::test]
async fn nonsense_is_refused_when_it_is_set() {
    let fleet = Fleet::start().await.unwrap();
    for value in ["0", "-5", "\"soon\"", "1.5", "99999999999"] {
        let path = fleet.org("/settings/timeouts.idle_ms");
        let error = fleet.admin.put(&path, json!({ "value": value })).await.unwrap_err().to_string();
        assert!(error.contains("milliseconds"), "{value}: {error}");
    }
}

/// C16: a stream that stalls ends with an error event and a cut connection, never as if it were complete.
#[tokio::test]
async fn a_stalled_stream_ends_with_an_error_event_that_names_the_wait() {
    let fleet = Fleet::start().await.unwrap();
    fleet.tolerant().await.unwrap();
    set(&fleet, &[("idle_ms", 500)]).await;
    eventually("a stream stalls after its content has begun", async || {
        fleet.upstream.push(Script::ok().pieces(20).ending(Ending::Hang(900)));
        let response = fleet.client.post("/v1/chat/completions", streamed()).await?;
        let text = response.text();
        // A machine that stands still ahead of the content makes it a 504.
        anyhow::ensure!(response.status == 200, "{} {text}", response.status);
        assert_ne!(response.end, End::Complete, "{text}");
        assert!(!text.contains("[DONE]"), "{text}");
        let last = response.events().pop().unwrap();
        let error: Value = serde_json::from_str(&last.data)?;
        assert_eq!(error["error"]["code"], "idle_timeout", "{text}");
        anyhow::Ok(())
    })
    .await
    .unwrap();
    eventually("the request log says so too", async || {
        let rows = fleet.request_log(1).await?;
        let said = |row: &Value| row["outcome"] == "interrupted" && row["error_code"] == "idle_timeout";
        anyhow::ensure!(rows.iter().any(said), "{rows:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// C17: comments in silence, between events only, and the answer is otherwise the same.
#[tokio::test]
async fn a_silent_stream_is_kept_alive_by_comments_between_its_events() {
    let fleet = Fleet::start_with(&[("NEMO_TIMEOUTS__KEEP_ALIVE_MS", "100")]).await.unwrap();
    fleet.upstream.push(Script::ok().pieces(3).pause(Duration::from_millis(450)));
    let response = fleet.client.post("/v1/chat/completions", streamed()).await.unwrap();
    assert_eq!(response.end, End::Complete);
    let text = response.text();
    assert!(text.matches(": keep-alive\n\n").count() >= 3, "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    for event in response.events() {
        assert!(!event.raw.contains("keep-alive") || event.raw == ": keep-alive\n\n", "{:?}", event.raw);
    }
    let content = |chunks: Vec<Value>| -> String {
        let text = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        chunks.iter().filter_map(text).collect()
    };
    let quick = eventually("a stream without a silence", async || {
        fleet.upstream.push(Script::ok().pieces(3));
        let quick = fleet.client.post("/v1/chat/completions", streamed()).await?;
        anyhow::ensure!(!quick.text().contains("keep-alive"), "{}", quick.text());
        Ok(quick)
    })
    .await
    .unwrap();
    assert_eq!(content(response.chunks().unwrap()), content(quick.chunks().unwrap()));

    // Half an event has come: a comment now would be read as part of it.
    fleet.upstream.push(Script::ok().pieces(3).drip(150, Duration::from_millis(250)));
    let dripped = fleet.client.post("/v1/chat/completions", streamed()).await.unwrap();
    assert_eq!(content(dripped.chunks().unwrap()), content(quick.chunks().unwrap()));
}

/// B7, C17: also before the upstream has said anything; what it then says is in the stream.
#[tokio::test]
async fn a_stream_is_kept_alive_before_the_upstream_answers() {
    let fleet = Fleet::start_with(&[("NEMO_TIMEOUTS__KEEP_ALIVE_MS", "100")]).await.unwrap();
    let silence = Duration::from_secs(2);
    fleet.upstream.push(Script::ok().delay(silence));
    let response = fleet.client.post("/v1/chat/completions", streamed()).await.unwrap();
    let text = response.text();
    assert_eq!((response.status, response.end), (200, End::Complete), "{text}");
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert!(text.starts_with(": keep-alive\n\n") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(response.first_byte < silence, "{:?}", response.first_byte);
    assert_eq!(fleet.request_log(1).await.unwrap()[0]["outcome"], "ok");

    for (status, code) in [(500, Some("fallback_chain_exhausted")), (400, None)] {
        fleet.upstream.push(Script::status(status).delay(silence));
        let once = fleet.client.clone().header("x-nemo-retries", "0");
        let response = once.post("/v1/chat/completions", streamed()).await.unwrap();
        let text = response.text();
        assert_eq!(response.status, 200, "committed by the first comment: {text}");
        assert_ne!(response.end, End::Complete, "{text}");
        assert!(!text.contains("[DONE]"), "{text}");
        let last = response.events().pop().unwrap();
        let error: Value = serde_json::from_str(&last.data).unwrap();
        assert!(error["error"]["message"].is_string(), "{text}");
        assert!(code.is_none_or(|code| error["error"]["code"] == code), "{text}");
    }

    // A complete answer has no comments, whatever it takes.
    fleet.upstream.push(Script::ok().delay(Duration::from_millis(500)));
    let whole = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert!(whole.json().is_ok() && !whole.text().contains("keep-alive"), "{}", whole.text());
}

/// Nobody has answered it, comments or not: what the client pays for is what failed attempts have cost, once (D 3).
#[tokio::test]
async fn a_failed_stream_costs_no_more_for_having_been_kept_alive() {
    let fleet = Fleet::start_with(&[("NEMO_TIMEOUTS__KEEP_ALIVE_MS", "200")]).await.unwrap();
    fleet.tolerant().await.unwrap();
    let id = budget(&fleet, "1", json!({})).await;
    let once = fleet.client.clone().header("x-nemo-retries", "0");
    let mut sum = 0;
    let cut = || Script::ok().pieces(20).ending(Ending::Cut(700));
    for (script, costs) in
        [(Script::status(503), false), (Script::status(400), false), (Script::reset(), true), (cut(), true)]
    {
        let mut both = Vec::new();
        for delay in [0, 2000] {
            fleet.upstream.push(script.clone().delay(Duration::from_millis(delay)));
            let response = once.post("/v1/chat/completions", streamed()).await.unwrap();
            let early = response.text().starts_with(": keep-alive");
            assert!(delay == 0 || early, "{} {}", response.status, response.text());
            both.push(row(&fleet, &response).await["cost_nanos"].as_i64());
        }
        assert_eq!(both[0].is_some_and(|nanos| nanos > 0), costs, "{both:?}");
        assert_eq!(both[0], both[1]);
        sum += both.into_iter().flatten().sum::<i64>();
    }
    let current = settled(&fleet, &id, sum).await;
    assert_eq!(amount(&current["settled"]), sum, "{current}");
}
