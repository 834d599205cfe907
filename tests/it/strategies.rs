//! Strategies from the outside: whom requests reach, per organization, per group and per request (R004-3 to R004-6, B10,
//! B12, E.6). How evenly they share, and what they do over time, is tested in the data plane's `routing`.

use std::collections::BTreeMap;

use nemo_tests::{client::Client, script::Script};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::tags::Stage;

/// Model `m` at two providers, of which `groq` is the cheaper.
async fn two_providers() -> (Stage, [String; 2]) {
    let stage = Stage::start().await;
    stage.model("m", &["code"], 128_000).await;
    let dear = stage.deployment("custom", "m", Some((9, 9))).await;
    let cheap = stage.deployment("groq", "m", Some((1, 1))).await;
    stage.group("settled", &[&[&dear, &cheap]]).await;
    (stage, [dear, cheap])
}

/// How often each upstream model is asked for in so many requests.
async fn shares(stage: &Stage, client: &Client, body: &Value, requests: usize) -> BTreeMap<String, usize> {
    for _ in 0..requests {
        let response = stage.ask_as(client, body.clone()).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let mut counts = BTreeMap::new();
    for model in stage.asked() {
        *counts.entry(model).or_default() += 1;
    }
    counts
}

fn all_to(model: &str, requests: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(model.to_owned(), requests)])
}

/// R004-3: streams that are held count, not requests that came.
#[tokio::test]
async fn least_busy_sends_requests_where_fewer_are_under_way() {
    let (stage, _) = two_providers().await;
    let client = stage.fleet.client.clone().header("x-nemo-strategy", "least-busy");
    let (held_up, shut) = watch::channel(false);
    stage.fleet.upstream.script_model("custom-m", Script::ok().pieces(3).gate(2, &shut));
    let held = json!({
        "model": "m", "stream": true, "messages": [{ "role": "user", "content": "hi" }],
        "provider": { "only": ["custom"] },
    });
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream =
            client.open("POST", "/v1/chat/completions", held.to_string().as_bytes()).await.unwrap();
        stream.read_events(1).await.unwrap();
        streams.push(stream);
    }
    let asked = stage.fleet.upstream.requests().len();
    assert_eq!(asked, 3);
    stage.fleet.upstream.clear();
    let counts = shares(&stage, &client, &json!({ "model": "m" }), 10).await;
    assert_eq!(counts, all_to("groq-m", 10));
    drop((streams, held_up));
}

#[tokio::test]
async fn price_decides_where_the_request_or_its_group_says_so() {
    let (stage, [dear, cheap]) = two_providers().await;
    let member = |id: &str, weight: u32| json!({ "deployment_id": id, "weight": weight });
    let group = json!({
        "name": "thrifty", "strategy": "cost-based",
        "links": [{ "deployments": [member(&dear, 100), member(&cheap, 1)] }],
    });
    stage.fleet.admin.post(&stage.fleet.org("/model-groups?wait=fleet"), group).await.unwrap();
    let client = stage.fleet.client.clone();
    for (client, body) in [
        (client.clone(), json!({ "model": "thrifty" })),
        (client.clone().header("x-nemo-strategy", "cost-based"), json!({ "model": "m" })),
        (client.clone(), json!({ "model": "m", "nemo_strategy": "cost-based" })),
        (client.clone(), json!({ "model": "m", "provider": { "sort": "price" } })),
    ] {
        assert_eq!(shares(&stage, &client, &body, 8).await, all_to("groq-m", 8), "{body}");
    }
    // And back again, for one request.
    let counts =
        shares(&stage, &client, &json!({ "model": "thrifty", "nemo_strategy": "simple-shuffle" }), 30).await;
    assert_eq!(counts.len(), 2, "{counts:?}");
    let ordered = json!({ "model": "groq/m", "provider": { "order": ["custom"] } });
    assert_eq!(shares(&stage, &client, &ordered, 8).await, all_to("custom-m", 8));
}

#[tokio::test]
async fn weights_count_for_the_strategy_weighted_alone() {
    let (stage, [dear, cheap]) = two_providers().await;
    let member = |id: &str, weight: u32| json!({ "deployment_id": id, "weight": weight });
    let links = json!([{ "deployments": [member(&dear, 9), member(&cheap, 1)] }]);
    let group = json!({ "name": "canary", "strategy": "weighted", "links": links });
    stage.fleet.admin.post(&stage.fleet.org("/model-groups?wait=fleet"), group).await.unwrap();
    let client = stage.fleet.client.clone();
    let weighted = shares(&stage, &client, &json!({ "model": "canary" }), 200).await;
    // Outside of this once in a thousand million runs.
    assert!((150..200).contains(&weighted["custom-m"]), "{weighted:?}");
    let uniform = json!({ "model": "canary", "nemo_strategy": "simple-shuffle" });
    let uniform = shares(&stage, &client, &uniform, 60).await;
    // Outside of this once in ten million.
    assert!((10..50).contains(&uniform["custom-m"]), "{uniform:?}");
}

/// R004-6.
#[tokio::test]
async fn two_organizations_route_the_same_model_in_two_ways() {
    let (stage, _) = two_providers().await;
    let admin = &stage.fleet.admin;
    let tenant = admin.create_tenant("frugal", "team").await.unwrap();
    let path = format!("/organizations/{}/settings/routing.strategy?wait=fleet", tenant.org_id);
    admin.put(&path, json!({ "value": "\"cost-based\"" })).await.unwrap();
    let (_, secret) = admin.issue_key(&tenant, json!({ "name": "frugal" })).await.unwrap();
    let frugal = stage.fleet.client_with(Some(&secret));
    stage.fleet.settled(&frugal).await.unwrap();
    let body = json!({ "model": "m" });
    assert_eq!(shares(&stage, &frugal, &body, 12).await, all_to("groq-m", 12));
    let response = stage.ask_as(&frugal, body.clone()).await;
    assert_eq!(response.header("x-nemo-strategy"), Some("cost-based"));
    stage.asked();
    let others = shares(&stage, &stage.fleet.client, &body, 30).await;
    assert_eq!(others.len(), 2, "{others:?}");
    let response = stage.ask(body).await;
    assert_eq!(response.header("x-nemo-strategy"), Some("simple-shuffle"));
}
