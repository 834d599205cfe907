//! Budgets of translated requests: what a stream may cost, and what is settled (C1, C3, C4, D; I6).

use std::time::Duration;

use nemo_tests::{
    client::End,
    eventually,
    script::{Script, UsageReport},
    upstream::PROMPT_TOKENS,
};
use serde_json::{Value, json};

use super::{
    budget::{amount, budget, settled},
    dialects::{PIECES, Speaks, UPSTREAMS, events, fleet, row},
};

/// Nano-USD for a token of the models of [`fleet`].
const INPUT: i64 = 5_000;
const OUTPUT: i64 = 10_000;

fn cost(logged: &Value) -> i64 {
    let cost = &logged["cost_nanos"];
    cost.as_i64().or_else(|| cost.as_str()?.parse().ok()).unwrap_or(0)
}

/// C3, D: nothing pays for more, and so the client gets its dialect's end for a limit and an error, the upstream is let go,
/// and what has come is billed: also where the upstream counts at the end only.
#[tokio::test]
async fn c3_a_translated_stream_that_outgrows_the_budget_is_stopped_in_the_middle() {
    let fleet = fleet().await;
    let id = budget(&fleet, "0.02", json!({})).await;
    let path = fleet.org(&format!("/budgets/{id}"));
    let mut sum = 0;
    for client in [Speaks::Chat, Speaks::Messages, Speaks::Google, Speaks::Responses] {
        for (model, _) in UPSTREAMS.into_iter().filter(|(model, _)| is_of_interest(client, model)) {
            let what = format!("{client:?} {model}");
            let limit_usd = nemo_types::Nanos(sum + 20_000_000).to_string();
            fleet
                .admin
                .patch(&format!("{path}?wait=fleet"), json!({ "limit_usd": limit_usd }))
                .await
                .unwrap();
            let script = Script::ok().content("abc ".repeat(4000)).pieces(4000);
            fleet.upstream.push(script.pause(Duration::from_micros(200)));
            let extra = match client {
                Speaks::Chat => json!({ "stream_options": { "include_usage": true } }),
                Speaks::Messages => json!({ "max_tokens": 4096 }),
                _ => json!({}),
            };
            let response = client.ask(&fleet.client, model, true, &extra).await;
            let text = response.text();
            assert_eq!(response.status, 200, "{what}: {text}");
            assert_ne!(response.end, End::Complete, "{what}: never a clean close");
            let events = events(&response);
            let [.., error] = events.as_slice() else { panic!("{what}: {text}") };
            assert!(error.to_string().contains("budget"), "{what}: {error}");
            assert!(limited(client, &events), "{what}: {}", tail(&text));
            for end in ["[DONE]", "message_stop", "response.completed", "\"STOP\""] {
                assert!(!text.contains(end), "{what}: {end} in {}", tail(&text));
            }
            let said = client.streamed_text(&events).len();
            assert!(said > 4 * 100 && said < 4 * 4000, "{what}: {said} bytes were paid for");
            let sent = fleet.upstream.last_request().unwrap();
            eventually("the upstream is let go", async || {
                anyhow::ensure!(sent.client_gone_at().is_some(), "{what}: {:?}", sent.ended());
                Ok(())
            })
            .await
            .unwrap();
            let logged = row(&fleet, &response).await;
            assert_eq!(
                (&logged["outcome"], &logged["error_code"]),
                (&json!("interrupted"), &json!("budget_exceeded")),
                "{what}"
            );
            // A token for four bytes is what they are estimated at.
            let output = i64::try_from(said.div_ceil(4)).unwrap() * OUTPUT;
            let billed = cost(&logged);
            assert!(billed >= output, "{what}: {billed} for at least {output}: {logged}");
            assert!(billed <= 20_000_000, "{what}: {logged}");
            sum += billed;
            let current = settled(&fleet, &id, sum).await;
            assert_eq!(
                (amount(&current["settled"]), amount(&current["overrun"])),
                (sum, 0),
                "{what}: {current}"
            );
        }
    }
}

/// Every upstream for one client, and two of them, SSE and Amazon's frames, for the others; where nothing is translated is
/// tested elsewhere.
fn is_of_interest(client: Speaks, model: &str) -> bool {
    let framing = matches!(model, "at-openai" | "at-bedrock");
    !is_native(client, model) && (framing || matches!(client, Speaks::Chat))
}

/// The upstream speaks this client's dialect.
fn is_native(client: Speaks, model: &str) -> bool {
    matches!(
        (client, model),
        (Speaks::Chat | Speaks::Responses, "at-openai")
            | (Speaks::Messages, "at-anthropic")
            | (Speaks::Google, "at-google")
    )
}

/// What had begun was ended in the client's dialect, by the limit of the output where it has a place for that.
fn limited(client: Speaks, events: &[Value]) -> bool {
    events.iter().any(|event| match client {
        Speaks::Chat => event["choices"][0]["finish_reason"] == "length",
        // Why it ends is told together with the usage, which nobody knows here: the block is closed, and the error follows.
        Speaks::Messages => event["type"] == "content_block_stop",
        // The same in its last chunk, which an error takes the place of.
        Speaks::Google => event["error"]["code"] == 402,
        // What it says of its limit stands in the event that ends it, which must not come.
        Speaks::Responses => event["error"]["code"] == "budget_exceeded",
    })
}

fn tail(text: &str) -> &str {
    &text[text.floor_char_boundary(text.len().saturating_sub(2000))..]
}

/// C4: a client that leaves pays for what was generated, whatever the upstream had counted until then.
#[tokio::test]
async fn c4_a_client_that_leaves_a_translated_stream_is_charged_for_what_came() {
    let fleet = fleet().await;
    for model in ["at-anthropic", "at-google", "at-bedrock", "at-cohere"] {
        let script = Script::ok().content("abc ".repeat(500)).pieces(500);
        fleet.upstream.push(script.pause(Duration::from_millis(5)));
        let body =
            json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }], "stream": true });
        let path = "/v1/chat/completions";
        let mut exchange = fleet.client.open("POST", path, body.to_string().as_bytes()).await.unwrap();
        exchange.read_events(20).await.unwrap();
        let request = exchange.header("x-request-id").unwrap().to_owned();
        drop(exchange);
        let path = fleet.org(&format!("/requests/{request}"));
        let logged = eventually("the row", async || fleet.admin.get(&path).await).await.unwrap();
        assert_eq!(logged["outcome"], "cancelled", "{model}: {logged}");
        let billed = cost(&logged);
        assert!((15 * OUTPUT..500 * OUTPUT).contains(&billed), "{model}: {logged}");
    }
}

/// C1, I6: what a translated answer has cost is settled at what its upstream counted, in every convention, and nothing
/// stays held.
#[tokio::test]
async fn i6_translated_requests_are_settled_once_at_what_they_cost() {
    let fleet = fleet().await;
    let id = budget(&fleet, "5", json!({})).await;
    let mut sum = 0;
    for client in Speaks::ALL {
        for (model, _) in UPSTREAMS {
            for stream in [false, true] {
                let response = client.ask(&fleet.client, model, stream, &json!({})).await;
                assert_eq!(response.status, 200, "{client:?} {model}: {}", response.text());
                sum +=
                    i64::try_from(PROMPT_TOKENS).unwrap() * INPUT + i64::try_from(PIECES).unwrap() * OUTPUT;
            }
        }
    }
    let report = UsageReport::Tokens { prompt: 1000, completion: 10, cached: 900 };
    for model in ["at-anthropic", "at-google", "at-bedrock"] {
        fleet.upstream.push(Script::ok().usage(report));
        assert_eq!(Speaks::Chat.ask(&fleet.client, model, false, &json!({})).await.status, 200);
        sum += 100 * INPUT + 900 * 500 + 10 * OUTPUT;
    }
    let current = settled(&fleet, &id, sum).await;
    assert_eq!((amount(&current["settled"]), amount(&current["overrun"])), (sum, 0), "{current}");
    let current = eventually("nothing is held", async || {
        let budget = fleet.admin.get(&fleet.org(&format!("/budgets/{id}"))).await?;
        let held = amount(&budget["current"]["reserved"]);
        anyhow::ensure!(held == 0, "{held}: {budget}");
        Ok(budget["current"].clone())
    })
    .await
    .unwrap();
    assert_eq!(amount(&current["settled"]), sum, "{current}");
}
