//! Why each request went where it went: the decision in the request log, over the API and on the terminal.

use std::time::Duration;

use nemo_tests::{
    eventually,
    eventually::yes,
    fleet::{Fleet, MODEL},
    links::Links,
    script::Script,
};
use serde_json::{Value, json};

use super::{chat::chat, cli::Cli};

const PATH: &str = "/v1/chat/completions";

fn request(extra: &Value) -> String {
    let mut request = json!({ "model": "chained", "messages": [{ "role": "user", "content": "hi" }] });
    request.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    request.to_string()
}

async fn world(count: usize) -> (Fleet, Links) {
    let fleet = Fleet::start().await.unwrap();
    fleet.admin.put("/settings/routing.backoff_ms", json!({ "value": "20" })).await.unwrap();
    let links = Links::start(&fleet.admin, "chained", count, None).await.unwrap();
    Links::settled(&fleet.client, "chained").await.unwrap();
    (fleet, links)
}

/// The row of the request that the client called so.
async fn row(fleet: &Fleet, name: &str) -> Value {
    let path = fleet.org(&format!("/requests?client_request_id={name}"));
    let listed = eventually("the request is logged", async || {
        let listed = fleet.admin.get(&path).await?;
        anyhow::ensure!(listed["requests"].as_array().is_some_and(|rows| !rows.is_empty()), "{listed}");
        Ok::<_, anyhow::Error>(listed)
    });
    let listed = listed.await.unwrap();
    let [row] = &listed["requests"].as_array().unwrap()[..] else {
        panic!("{name} is logged twice: {listed}")
    };
    assert_eq!(row["decision"], Value::Null, "a list is light");
    fleet.admin.get(&fleet.org(&format!("/requests/{}", row["id"].as_str().unwrap()))).await.unwrap()
}

/// R004-28: however a request ends, it has one row, and one that was routed has its decision.
#[tokio::test]
async fn every_request_has_its_row_and_every_routed_one_its_decision() {
    let (fleet, links) = world(2).await;
    let client = |name: &str| fleet.client.clone().header("x-request-id", name);
    let upstream = &links.upstreams[0];

    assert_eq!(client("whole").post(PATH, request(&json!({}))).await.unwrap().status, 200);
    assert_eq!(client("stream").post(PATH, request(&json!({ "stream": true }))).await.unwrap().status, 200);
    // Never routed.
    assert_eq!(client("unknown").post(PATH, chat("hi").replace(MODEL, "nothing")).await.unwrap().status, 404);
    assert_eq!(client("broken").post(PATH, "{").await.unwrap().status, 400);
    // Routed, but nowhere.
    let embed = json!({ "model": MODEL, "input": "x" }).to_string();
    assert_eq!(client("endpoint").post("/v1/embeddings", embed).await.unwrap().status, 400);
    let tags = request(&json!({ "nemo_tags": ["vision"] }));
    assert_eq!(client("tags").post(PATH, tags).await.unwrap().status, 400);
    // Refused by the upstream, for the client's own fault.
    upstream.push(Script::status(400));
    assert_eq!(client("rejected").post(PATH, request(&json!({}))).await.unwrap().status, 400);
    // One link after the other fails.
    upstream.push(Script::status(503));
    assert_eq!(client("fallback").post(PATH, request(&json!({}))).await.unwrap().status, 200);
    let failing = request(&json!({ "nemo_retries": 0 }));
    links.upstreams.iter().for_each(|upstream| upstream.push(Script::status(500)));
    assert_eq!(client("failed").post(PATH, failing).await.unwrap().status, 502);
    // The client leaves while the upstream has its request.
    upstream.push(Script::ok().delay(Duration::from_secs(600)));
    let (leaver, body, before) = (client("left"), request(&json!({})), upstream.served());
    tokio::select! {
        answer = leaver.post(PATH, body) => panic!("{answer:?}"),
        asked = eventually("it is under way", async || yes(upstream.served() > before)) => asked.unwrap(),
    }

    for (name, outcome, status, attempts, refusal) in [
        ("whole", "ok", 200, Some(vec![200]), ""),
        ("stream", "ok", 200, Some(vec![200]), ""),
        ("unknown", "error", 404, None, ""),
        ("broken", "error", 400, None, ""),
        ("endpoint", "error", 400, Some(vec![]), "endpoint"),
        ("tags", "error", 400, Some(vec![]), "tags"),
        ("rejected", "error", 400, Some(vec![400]), ""),
        ("fallback", "ok", 200, Some(vec![503, 200]), ""),
        ("failed", "error", 502, Some(vec![500, 500]), ""),
        ("left", "cancelled", 499, Some(vec![0]), ""),
    ] {
        let row = row(&fleet, name).await;
        assert_eq!(
            (row["outcome"].as_str(), row["http_status"].as_u64()),
            (Some(outcome), Some(status)),
            "{row}"
        );
        let decision = &row["decision"];
        let Some(attempts) = attempts else {
            assert_eq!(*decision, Value::Null, "{name} was never routed: {row}");
            continue;
        };
        let tried: Vec<_> = decision["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["status"].as_u64().unwrap())
            .collect();
        assert_eq!((tried, decision["refusal"].as_str()), (attempts, Some(refusal)), "{name}: {row}");
        assert_eq!(decision["unreadable"], "", "{row}");
        assert_eq!(
            decision["candidates"].as_array().unwrap().is_empty(),
            !refusal.is_empty(),
            "{name}: {row}"
        );
    }
    let log = fleet.admin.get(&fleet.org("/requests?model=chained")).await.unwrap();
    assert_eq!(log["requests"].as_array().unwrap().len(), 7, "one row each: {log}");
}

/// R004-28, R004-30: what the answer says and what a person reads.
#[tokio::test]
async fn a_decision_names_candidates_reasons_attempts_and_overhead() {
    let (fleet, links) = world(2).await;
    links.upstreams[0].push(Script::status(503));
    let body = request(&json!({ "nemo_tags": ["code"], "max_tokens": 64 }));
    let client = fleet.client.clone().header("x-request-id", "told").header("x-nemo-strategy", "least-busy");
    assert_eq!(client.post(PATH, body).await.unwrap().status, 200);
    let row = row(&fleet, "told").await;
    let decision = &row["decision"];
    for (member, value) in [
        ("strategy", json!("least-busy")),
        ("strategy_from", json!("request")),
        ("names", json!(["chained"])),
        ("chain", json!("group")),
        ("tags", json!(["code"])),
        ("output_tokens", json!(64)),
        ("first_link_only", json!(false)),
        ("retries", json!(1)),
        ("cut", json!(false)),
    ] {
        assert_eq!(decision[member], value, "{member} in {row}");
    }
    assert!(decision["seed"].as_str().unwrap().parse::<u64>().is_ok(), "{row}");
    let candidates = decision["candidates"].as_array().unwrap();
    let links: Vec<_> = candidates.iter().map(|it| it["link"].as_u64().unwrap()).collect();
    assert_eq!(links, [0, 1], "{row}");
    let [first, second] = &decision["attempts"].as_array().unwrap()[..] else { panic!("{row}") };
    assert_eq!((&first["deployment_id"], &first["status"]), (&candidates[0]["deployment_id"], &json!(503)));
    assert_eq!((&second["deployment_id"], &second["status"]), (&row["deployment_id"], &json!(200)));
    assert!(second["took_us"].as_u64() > Some(0) && first["error"] != "", "{row}");
    assert!(second["started_us"].as_u64() >= first["took_us"].as_u64(), "{row}");

    let cli = Cli::new(&fleet);
    let id = row["id"].as_str().unwrap();
    let text = cli.text(&["requests", "show", id, "--org", &fleet.org_id]).await;
    println!("{text}");
    let name = candidates[0]["deployment"].as_str().unwrap();
    for expected in [
        "least-busy (by request)",
        "candidates, in order",
        &format!("1. {name}"),
        "attempts",
        "503",
        "retries    1",
        "in the gateway before dispatch",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let shown = cli.json(&["requests", "show", id, "--org", &fleet.org_id]).await;
    assert_eq!(shown["decision"], *decision);
}
