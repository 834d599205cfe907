//! Budgets as clients meet them: what is refused, capped and stopped, and what is settled (B1, B11, C1 to C4, D).

use nemo_tests::{
    client::End,
    eventually,
    fleet::{Fleet, MODEL},
    script::{Script, UsageReport},
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Nano-USD for a token of the test's model.
const INPUT: i64 = 2_500;
const OUTPUT: i64 = 10_000;

fn chat(extra: &Value) -> String {
    let mut body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }] });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

/// A budget on the whole organization that every node knows.
pub async fn budget(fleet: &Fleet, limit_usd: &str, extra: Value) -> String {
    let mut body = json!({ "name": "b", "limit_usd": limit_usd, "window": "day" });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    let made = fleet.admin.post(&fleet.org("/budgets?wait=fleet"), body).await.unwrap();
    nemo_tests::fleet::text(&made, "id").unwrap()
}

/// What is settled of the budget, once so much is; with what is still held.
pub async fn settled(fleet: &Fleet, id: &str, nanos: i64) -> Value {
    eventually("the budget is settled", async || {
        let budget = fleet.admin.get(&fleet.org(&format!("/budgets/{id}"))).await?;
        let current = budget["current"].clone();
        let seen = amount(&current["settled"]);
        anyhow::ensure!(seen >= nanos, "{seen} of {nanos}: {budget}");
        Ok(current)
    })
    .await
    .unwrap()
}

/// Nano-USD of an amount, which protobuf's JSON writes as text.
pub fn amount(value: &Value) -> i64 {
    let nanos = &value["nanos"];
    nanos.as_i64().or_else(|| nanos.as_str()?.parse().ok()).unwrap_or(0)
}

/// B11, C1: an exhausted budget is a 402 that says what, how much and until when, in both dialects; SDKs don't retry it,
/// and no upstream sees it.
#[tokio::test]
async fn b11_an_exhausted_budget_is_a_402_that_says_what_and_until_when() {
    let fleet = Fleet::start().await.unwrap();
    let id = budget(&fleet, "0.003", json!({})).await;
    let mut served = 0;
    let refused = loop {
        let response = fleet.client.post(CHAT, chat(&json!({ "max_tokens": 20 }))).await.unwrap();
        match response.status {
            200 => served += 1,
            402 if response.header("retry-after").is_none() => break response,
            402 | 503 => {}
            other => panic!("{other} {}", response.text()),
        }
        assert!(served < 40);
    };
    let error = refused.json().unwrap()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("insufficient_quota"), &json!("budget_exceeded")));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("The organization's budget `b`") && message.contains("resets in"), "{message}");
    assert_eq!(error["metadata"]["limit_usd"], "0.003");
    assert_eq!(error["metadata"]["budget"]["id"], id.as_str());
    assert!(error["metadata"]["resets_in_seconds"].as_u64().is_some_and(|seconds| seconds <= 86_400));
    let seen = fleet.upstream.served();
    assert_eq!(seen, served, "nothing was sent that was not paid for");

    let other = fleet.client.post("/api/v1/chat/completions", chat(&json!({}))).await.unwrap();
    let error = other.json().unwrap()["error"].clone();
    assert_eq!((other.status, &error["code"]), (402, &json!(402)), "{error}");
    // Without a budget in the way everything is as before.
    fleet.admin.delete(&fleet.org(&format!("/budgets/{id}?wait=fleet"))).await.unwrap();
    assert_eq!(fleet.client.post(CHAT, chat(&json!({}))).await.unwrap().status, 200);
}

/// C1: a request that can't be paid for is no reason to refuse one that can.
#[tokio::test]
async fn c1_a_request_that_is_too_large_for_the_rest_stands_in_no_smaller_ones_way() {
    let fleet = Fleet::start().await.unwrap();
    budget(&fleet, "0.1", json!({ "over_budget": "reject" })).await;
    for _ in 0..2 {
        let large = fleet.client.post(CHAT, chat(&json!({ "max_tokens": 20_000 }))).await.unwrap();
        assert_eq!(large.status, 402, "{}", large.text());
        // More than the node has before it asks.
        let small = eventually("the smaller one is served", async || {
            let response = fleet.client.post(CHAT, chat(&json!({ "max_tokens": 6000 }))).await?;
            anyhow::ensure!(response.status != 503, "{}", response.text());
            Ok(response)
        });
        let small = small.await.unwrap();
        assert_eq!(small.status, 200, "{}", small.text());
    }
}

/// C1, I6: what is settled is what the upstream billed, and nothing stays held.
#[tokio::test]
async fn i6_every_request_is_settled_once_at_what_it_cost() {
    let fleet = Fleet::start().await.unwrap();
    let (one, other) = (
        budget(&fleet, "1", json!({})).await,
        budget(&fleet, "5", json!({ "name": "c", "window": "total" })).await,
    );
    for (prompt, completion) in [(1000, 50), (10, 0), (3, 4000)] {
        let usage = UsageReport::Tokens { prompt, completion, cached: 0 };
        fleet.upstream.push(Script::ok().usage(usage));
        assert_eq!(fleet.client.post(CHAT, chat(&json!({}))).await.unwrap().status, 200);
    }
    let cost = 1013 * INPUT + 4050 * OUTPUT;
    for id in [one, other] {
        let current = settled(&fleet, &id, cost).await;
        assert_eq!((amount(&current["settled"]), amount(&current["overrun"])), (cost, 0), "{current}");
    }
    let rows = fleet.request_log(3).await.unwrap();
    let sum: i64 = rows
        .iter()
        .filter_map(|row| row["cost_nanos"].as_i64().or_else(|| row["cost_nanos"].as_str()?.parse().ok()))
        .sum();
    assert_eq!(sum, cost);
}

/// B1: without a limit of its own a request gets the one that can be paid for, and is told so.
#[tokio::test]
async fn b1_the_output_is_capped_to_what_can_be_paid_for() {
    let fleet = Fleet::start().await.unwrap();
    let id = budget(&fleet, "0.02", json!({})).await;
    let response = fleet.client.post(CHAT, chat(&json!({}))).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-nemo-edits"), Some("model,cap"));
    let sent = fleet.upstream.last_request().unwrap().json().unwrap();
    let cap = sent["max_tokens"].as_i64().unwrap();
    assert!((16..2000).contains(&cap), "{sent}");
    // A request that asks for less than that is left alone.
    let response = fleet.client.post(CHAT, chat(&json!({ "max_tokens": 20 }))).await.unwrap();
    assert_eq!(
        (response.status, response.header("x-nemo-edits")),
        (200, Some("model")),
        "{}",
        response.text()
    );
    fleet
        .admin
        .patch(&fleet.org(&format!("/budgets/{id}?wait=fleet")), json!({ "over_budget": "reject" }))
        .await
        .unwrap();
    // A node that holds nothing at the moment, and gets no answer in time, says so with a 503, and is asked again.
    let response = eventually("the budget's own answer", async || {
        let response = fleet.client.post(CHAT, chat(&json!({}))).await?;
        anyhow::ensure!(response.status != 503, "{}", response.text());
        Ok(response)
    })
    .await
    .unwrap();
    assert_eq!(
        (response.status, &response.json().unwrap()["error"]["code"]),
        (402, &json!("budget_exceeded"))
    );
}

/// C3, D: a stream is paid for as it goes, and ends with `length` and an error when nothing pays for more.
#[tokio::test]
async fn c3_a_stream_that_outgrows_the_budget_is_stopped_in_the_middle() {
    let fleet = Fleet::start().await.unwrap();
    let id = budget(&fleet, "0.02", json!({})).await;
    let long = "abc ".repeat(4000);
    fleet
        .upstream
        .push(Script::ok().content(&long).pieces(4000).pause(std::time::Duration::from_micros(200)));
    let body = chat(&json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let response = fleet.client.post(CHAT, body).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-edits")), (200, Some("model,cost")));
    assert_ne!(response.end, End::Complete, "never a clean close");
    let chunks = response.chunks().unwrap();
    let [.., last, error] = chunks.as_slice() else { panic!("{}", response.text()) };
    assert_eq!(last["choices"][0]["finish_reason"], "length", "{last}");
    assert_eq!((&last["id"], &last["object"]), (&chunks[0]["id"], &json!("chat.completion.chunk")));
    assert_eq!(error["error"]["code"], "budget_exceeded", "{error}");
    assert!(!response.text().contains("[DONE]"));
    assert!(chunks.len() > 100, "{} chunks were paid for", chunks.len());

    let rows = fleet.request_log(1).await.unwrap();
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["error_code"]),
        (&json!("interrupted"), &json!("budget_exceeded"))
    );
    let content: usize =
        chunks.iter().filter_map(|it| it["choices"][0]["delta"]["content"].as_str()).map(str::len).sum();
    let output = i64::try_from(content.div_ceil(4)).unwrap() * OUTPUT;
    let current = settled(&fleet, &id, output).await;
    assert!(amount(&current["settled"]) < output + 100 * INPUT, "what was seen: {current}");
    assert!(amount(&current["settled"]) <= 20_000_000 && amount(&current["overrun"]) == 0, "{current}");
    let metrics = fleet.metrics().await.unwrap();
    assert!(metrics.contains("nemo_budget_stopped_streams_total 1"), "{metrics}");
    // The upstream did nothing wrong: more of these open no breaker.
    for _ in 0..6 {
        fleet.upstream.push(Script::ok().content("abc ".repeat(4000)).pieces(4000));
        let path = fleet.org(&format!("/budgets/{id}"));
        fleet.client.post(CHAT, chat(&json!({ "stream": true }))).await.unwrap();
        let limit = amount(&fleet.admin.get(&path).await.unwrap()["current"]["settled"]) + 20_000_000;
        let limit_usd = nemo_types::Nanos(limit).to_string();
        fleet.admin.patch(&format!("{path}?wait=fleet"), json!({ "limit_usd": limit_usd })).await.unwrap();
    }
    fleet.upstream.clear();
    let response = fleet.client.post(CHAT, chat(&json!({ "max_tokens": 20 }))).await.unwrap();
    assert!(
        matches!(response.status, 200 | 402),
        "never a cooldown: {} {}",
        response.status,
        response.text()
    );
}

/// C4: a client that leaves pays for what was generated.
#[tokio::test]
async fn c4_a_client_that_leaves_is_charged_for_what_came() {
    let fleet = Fleet::start().await.unwrap();
    let id = budget(&fleet, "1", json!({})).await;
    fleet.upstream.push(
        Script::ok().content("abc ".repeat(500)).pieces(500).pause(std::time::Duration::from_millis(5)),
    );
    let mut exchange =
        fleet.client.open("POST", CHAT, chat(&json!({ "stream": true })).as_bytes()).await.unwrap();
    exchange.read_events(20).await.unwrap();
    drop(exchange);
    let current = settled(&fleet, &id, 18 * OUTPUT).await;
    assert!(amount(&current["settled"]) < 500 * OUTPUT, "{current}");
    let rows = fleet.request_log(1).await.unwrap();
    assert_eq!(rows[0]["outcome"], "cancelled", "{rows:?}");
}

/// D 3: what an attempt without an answer may have cost is charged beside what the next one cost.
#[tokio::test]
async fn an_attempt_without_an_answer_is_charged_at_its_input() {
    let fleet = Fleet::start().await.unwrap();
    fleet.tolerant().await.unwrap();
    let id = budget(&fleet, "1", json!({})).await;
    fleet.upstream.push(Script::reset());
    let usage = UsageReport::Tokens { prompt: 10, completion: 5, cached: 0 };
    fleet.upstream.push(Script::ok().usage(usage));
    let body = chat(&json!({ "nemo_retries": 1 }));
    let response = fleet.client.post(CHAT, &body).await.unwrap();
    assert_eq!(
        (response.status, response.header("x-nemo-attempts")),
        (200, Some("2")),
        "{}",
        response.text()
    );
    let answered = 10 * INPUT + 5 * OUTPUT;
    let current = settled(&fleet, &id, answered + 1).await;
    let lost = amount(&current["settled"]) - answered;
    let bound = i64::try_from(body.len()).unwrap() * INPUT;
    assert!(lost >= bound && lost < bound + 300 * INPUT, "{lost} for at most {bound} and framing");
    // An error that the upstream answers with costs nothing.
    fleet.upstream.push(Script::status(500));
    fleet.upstream.push(Script::ok().usage(usage));
    assert_eq!(fleet.client.post(CHAT, &body).await.unwrap().status, 200);
    let current = settled(&fleet, &id, 2 * answered + lost).await;
    assert_eq!(amount(&current["settled"]), 2 * answered + lost);
}

/// Nothing that can't be bounded is sent where a budget must not be overspent; elsewhere it is.
#[tokio::test]
async fn what_nobody_has_priced_is_refused_by_a_strict_budget_alone() {
    let fleet = Fleet::start().await.unwrap();
    let entry = json!({ "id": "unpriced", "display_name": "unpriced", "owned_by": "tests", "endpoints": ["chat.completions"] });
    fleet.admin.put("/models/unpriced", json!({ "model": entry })).await.unwrap();
    let deployment = json!({ "provider": "custom", "base_url": fleet.upstream.base_url(), "model": "unpriced", "upstream_model": "u",
        "credential_id": fleet.admin.create_credential_named("second", nemo_tests::fleet::UPSTREAM_KEY).await.unwrap() });
    fleet.admin.post("/deployments?wait=fleet", deployment).await.unwrap();
    let id = budget(&fleet, "1", json!({})).await;
    let body = chat(&json!({ "model": "unpriced" }));
    let response = fleet.client.post(CHAT, &body).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!((response.status, &error["code"]), (400, &json!("cost_not_bounded")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("nobody has set its price"), "{error}");
    let tools = chat(&json!({ "web_search_options": {} }));
    let response = fleet.client.post(CHAT, tools).await.unwrap();
    assert_eq!(
        (response.status, &response.json().unwrap()["error"]["code"]),
        (400, &json!("cost_not_bounded"))
    );
    let later = json!({ "model": MODEL, "input": "hi", "background": true }).to_string();
    let response = fleet.client.post("/v1/responses", later).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!((response.status, &error["code"]), (400, &json!("cost_not_bounded")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("`background`"), "{error}");
    assert_eq!(fleet.upstream.served(), 0);
    let path = fleet.org(&format!("/budgets/{id}?wait=fleet"));
    fleet.admin.patch(&path, json!({ "reservation": "estimated" })).await.unwrap();
    let response = fleet.client.post(CHAT, &body).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Section F: a request's own ceiling, without any budget.
#[tokio::test]
async fn nemo_max_cost_is_a_hard_bound() {
    let fleet = Fleet::start().await.unwrap();
    let response = fleet.client.post(CHAT, chat(&json!({ "nemo_max_cost": 0.005 }))).await.unwrap();
    assert_eq!(
        (response.status, response.header("x-nemo-edits")),
        (200, Some("strip,model,cap")),
        "{}",
        response.text()
    );
    let sent = fleet.upstream.last_request().unwrap().json().unwrap();
    assert!((16..500).contains(&sent["max_tokens"].as_i64().unwrap()), "{sent}");
    let response = fleet.client.post(CHAT, chat(&json!({ "nemo_max_cost": 0.0005 }))).await.unwrap();
    let error = response.json().unwrap()["error"].clone();
    assert_eq!(
        (response.status, &error["code"], &error["param"]),
        (400, &json!("max_cost_exceeded"), &json!("nemo_max_cost"))
    );
}

/// I14: other endpoints and forms hold and settle by their own units.
#[tokio::test]
async fn embeddings_are_held_for_and_settled_too() {
    let fleet = Fleet::start().await.unwrap();
    let id = budget(&fleet, "0.5", json!({})).await;
    let body = json!({ "model": nemo_tests::fleet::EMBEDDING_MODEL, "input": "some text" });
    let response = fleet.client.post("/v1/embeddings", body.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let tokens = response.json().unwrap()["usage"]["prompt_tokens"].as_i64().unwrap();
    let current = settled(&fleet, &id, tokens * INPUT).await;
    assert_eq!(amount(&current["settled"]), tokens * INPUT);
}

/// I3: the limit that is reserved for is the one that the upstream reads, whatever the client calls it.
#[tokio::test]
async fn i3_a_limit_goes_upstream_as_what_is_read_there() {
    let fleet = Fleet::start().await.unwrap();
    budget(&fleet, "0.02", json!({})).await;
    let both = chat(&json!({ "max_completion_tokens": 20, "max_tokens": 32_000 }));
    let response = fleet.client.post(CHAT, both).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-edits")), (200, Some("model,limit")));
    let sent = fleet.upstream.last_request().unwrap().json().unwrap();
    assert_eq!((&sent["max_tokens"], sent.get("max_completion_tokens")), (&json!(20), None), "{sent}");
    let newer = chat(&json!({ "max_completion_tokens": 4_000 }));
    let response = fleet.client.post(CHAT, newer).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-edits")), (200, Some("model,cap,limit")));
    let sent = fleet.upstream.last_request().unwrap().json().unwrap();
    let cap = sent["max_tokens"].as_i64().unwrap();
    assert!((16..2000).contains(&cap) && sent.get("max_completion_tokens").is_none(), "{sent}");
}

/// I3: text is text, whatever it begins with.
#[tokio::test]
async fn i3_text_that_looks_like_a_file_is_held_for() {
    let fleet = Fleet::start().await.unwrap();
    budget(&fleet, "0.5", json!({})).await;
    let text = format!("data: {}", "{} ".repeat(100_000));
    let body = chat(&json!({ "max_tokens": 20, "messages": [{ "role": "user", "content": text }] }));
    let response = fleet.client.post(CHAT, body).await.unwrap();
    // 503 where the control plane takes longer to say so than the request waits.
    assert!([402, 503].contains(&response.status), "{}", response.text());
    assert_eq!(fleet.upstream.served(), 0);
}
