//! Cooldowns over a fleet: two control planes on a real etcd, a node at each, and upstreams that trip (R004-15, R004-24,
//! B5, C12, C26, I11). Every number of the fleet's behaviour that the documents promise is measured here.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nemo_tests::{
    admin::{Admin, Tenant, text},
    client::{Client, Response},
    eventually,
    eventually::yes,
    fleet::{Fleet, MODEL},
    propagation::{Pair, connected, percentiles},
    replicas::Replicas,
    script::Script,
};
use serde_json::{Value, json};

use super::cli::Cli;

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }).to_string()
}

async fn ask(client: &Client, model: &str) -> Response {
    client.post(CHAT, chat(model)).await.unwrap()
}

/// Value of a metric without labels.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

async fn cooldowns(replicas: &Replicas, node: usize) -> f64 {
    metric(&replicas.metrics(node).await.unwrap(), "nemo_cooldowns")
}

/// Writes a cooldown. The control plane gives up what etcd does not take within a second, and answers 503 though etcd
/// may have taken it: then it is written again, until the answer is the `expected` one, or 404 where it was lifted.
async fn write(admin: &Admin, method: &str, path: &str, body: Option<Value>, expected: u16) -> Response {
    let mut unsure = false;
    let answer = eventually("the coordinator takes it", async || {
        let answer = admin.call(method, path, body.as_ref()).await?;
        unsure |= answer.status == 503;
        let lifted = method == "DELETE" && answer.status == 404;
        let ends = !unsure || lifted || answer.status == expected;
        anyhow::ensure!(ends, "{} {}", answer.status, answer.text());
        Ok(answer)
    });
    let answer = answer.await.unwrap();
    assert!(unsure || answer.status == expected, "{} {}", answer.status, answer.text());
    answer
}

async fn set(admin: &Admin, path: &str, duration_ms: u64) {
    write(admin, "PUT", path, Some(json!({ "duration_ms": duration_ms })), 200).await;
}

async fn known(replicas: &Replicas, key: &str, model: &str) {
    for node in 0..replicas.nodes.len() {
        let client = replicas.client(node, key);
        eventually("the node knows the model", async || {
            let models = client.get("/v1/models").await?.text();
            anyhow::ensure!(models.contains(model), "{models}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

async fn second_tenant(replicas: &Replicas) -> (Tenant, String) {
    let tenant = replicas.admin(0).create_tenant("others", "theirs").await.unwrap();
    let issued = replicas.admin(0).issue_key(&tenant, json!({ "name": "theirs" })).await.unwrap();
    replicas.known_everywhere(&issued.1).await.unwrap();
    (tenant, issued.1)
}

async fn deployment(replicas: &Replicas) -> String {
    let listed = replicas.admin(0).get("/deployments").await.unwrap();
    text(&listed["deployments"][0], "id").unwrap()
}

/// R004-15, and the bound of architecture section 9: a cooldown that one node reports stops the others within a second
/// (99th percentile), through etcd and two control planes.
#[tokio::test]
async fn a_cooldown_stops_the_other_node_within_a_second() {
    let pair = Pair::start().await.unwrap();
    let mut walks = Vec::new();
    let walking = async {
        loop {
            walks.push(pair.walk().await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let took = tokio::select! {
        took = pair.trip(100) => took.unwrap(),
        () = walking => unreachable!("the walks have no end"),
    };
    // The other node has heard of every one, and asks none of them.
    let before = pair.replicas.upstream.served();
    for (model, _) in &took {
        let refused = ask(&pair.replicas.client(1, &pair.key), model).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        let wait: u64 = refused.header("retry-after").expect("until when").parse().unwrap();
        assert!((1..=150).contains(&wait), "{wait}");
    }
    assert_eq!(pair.replicas.upstream.served(), before, "nobody was asked");
    let (median, p99) = percentiles(&took);
    // A machine that stands still is not the fleet's doing. Of both the greatest but one.
    walks.sort_unstable();
    let stood_still = walks.iter().rev().nth(1).copied().unwrap_or_default();
    println!(
        "cooldown from node to node over etcd, {} samples: p50 {median:?}, p99 {p99:?}; {} walks, up to {stood_still:?}",
        took.len(),
        walks.len()
    );
    assert!(p99 < Duration::from_secs(1) + stood_still, "p99 {p99:?}, walk {stood_still:?}: {took:?}");
}

/// A tenant that makes an endpoint fail can't take it away from the others, on whatever node.
#[tokio::test]
async fn one_organizations_failing_endpoint_still_serves_the_others() {
    let Pair { replicas, key, etcd: _etcd } = Pair::start().await.unwrap();
    let (_, theirs) = second_tenant(&replicas).await;
    replicas.upstream.push(Script::status(429).header("retry-after", "120").unwrap());
    let tripped = ask(&replicas.client(0, &key), MODEL).await;
    assert!(matches!(tripped.status, 429 | 503), "{}", tripped.status);
    eventually("the other node has heard", async || yes(cooldowns(&replicas, 1).await > 0.0)).await.unwrap();
    for node in 0..2 {
        assert_eq!(ask(&replicas.client(node, &key), MODEL).await.status, 503, "node {node}");
        assert_eq!(ask(&replicas.client(node, &theirs), MODEL).await.status, 200, "node {node}");
    }
    let listed = replicas.admin(1).get(&replicas.org("/cooldowns")).await.unwrap();
    let found = &listed["cooldowns"][0];
    assert_eq!((&found["cause"], &found["org_id"]), (&json!("rate_limited"), &json!(replicas.tenant.org_id)));
}

/// 5xx of one node may be that node's own trouble: it takes the second to make it the fleet's.
#[tokio::test]
async fn server_errors_of_one_node_are_its_own_and_of_two_the_fleets() {
    let Pair { mut replicas, key, etcd: _etcd } = Pair::start().await.unwrap();
    for (key, value) in [("cooldown.window_ms", "60000"), ("routing.retries", "0")] {
        let path = format!("/settings/{key}?wait=fleet");
        replicas.admin(0).put(&path, json!({ "value": value })).await.unwrap();
    }
    replicas.add_node().await.unwrap();
    replicas.serve("broken", "broken!status=500").await.unwrap();
    known(&replicas, &key, "broken").await;
    let trip = async |node: usize| {
        let client = replicas.client(node, &key);
        eventually("the node's breaker is open", async || {
            ask(&client, "broken").await;
            let metrics = replicas.metrics(node).await?;
            anyhow::ensure!(metric(&metrics, "nemo_breakers_open") > 0.0, "still closed");
            Ok(())
        })
        .await
        .unwrap();
    };
    trip(0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cooldowns(&replicas, 2).await < 1.0, "one node's word is not enough");
    trip(1).await;
    eventually("the third node has heard", async || yes(cooldowns(&replicas, 2).await > 0.0)).await.unwrap();
    let before = replicas.upstream.served();
    assert_eq!(ask(&replicas.client(2, &key), "broken").await.status, 503);
    assert_eq!(replicas.upstream.served(), before);
}

/// R004-24: after the window one request finds out for all of them.
#[tokio::test]
async fn one_probe_after_the_cooldown_finds_out_whether_it_works_again() {
    let fleet = Fleet::start().await.unwrap();
    for (key, value) in [("cooldown.window_ms", "3000"), ("routing.retries", "0")] {
        fleet.admin.put(&format!("/settings/{key}?wait=fleet"), json!({ "value": value })).await.unwrap();
    }
    fleet.upstream.push(Script::status(429));
    assert!(matches!(ask(&fleet.client, MODEL).await.status, 429 | 503));
    assert_eq!(ask(&fleet.client, MODEL).await.status, 503);
    let held = async |held: bool| {
        eventually("the node holds it, or nothing", async || {
            let text = fleet.metrics().await?;
            let counts = ["nemo_cooldowns", "nemo_breakers_open"].map(|name| metric(&text, name));
            anyhow::ensure!(counts.iter().all(|count| (*count > 0.0) == held), "{counts:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    // The fleet's word is there, so that none comes later.
    held(true).await;
    held(false).await;
    let before = fleet.upstream.served();
    // Under way when the last of the others is asked.
    fleet.upstream.push(Script::ok().delay(Duration::from_secs(3)));
    let asked: Vec<_> = (0..6).map(|_| ask(&fleet.client, MODEL)).collect();
    let mut answered: Vec<_> =
        futures_util::future::join_all(asked).await.iter().map(|answer| answer.status).collect();
    answered.sort_unstable();
    assert_eq!(answered, [200, 503, 503, 503, 503, 503], "one probe");
    assert_eq!(fleet.upstream.served(), before + 1);
    assert_eq!(ask(&fleet.client, MODEL).await.status, 200, "it works again, for everybody");
}

/// By hand: for one organization, for all, lifted again; all of it in the audit log.
#[tokio::test]
async fn an_administrator_can_keep_requests_away_and_let_them_come_back() {
    let Pair { replicas, key, etcd: _etcd } = Pair::start().await.unwrap();
    let (_, theirs) = second_tenant(&replicas).await;
    let deployment = deployment(&replicas).await;
    let path = replicas.org(&format!("/cooldowns/{deployment}"));
    let body = json!({ "duration_ms": 600_000, "reason": "incident 42" });
    let made = write(&replicas.admin(0), "PUT", &path, Some(body), 200).await.json().unwrap();
    assert_eq!((&made["cause"], &made["reason"]), (&json!("manual"), &json!("incident 42")));
    let statuses = async |expected: [u16; 2]| {
        for node in 0..2 {
            eventually("the node does as it is told", async || {
                let ours = ask(&replicas.client(node, &key), MODEL).await.status;
                let others = ask(&replicas.client(node, &theirs), MODEL).await.status;
                anyhow::ensure!([ours, others] == expected, "{ours} {others}");
                Ok(())
            })
            .await
            .unwrap();
        }
    };
    statuses([503, 200]).await;
    write(&replicas.admin(1), "PUT", &path, Some(json!({ "duration_ms": 1000 })), 409).await;
    let all = format!("/cooldowns/{deployment}");
    set(&replicas.admin(1), &all, 900_000).await;
    statuses([503, 503]).await;
    let seen = replicas.admin(0).get(&replicas.org("/cooldowns")).await.unwrap();
    assert_eq!(seen["cooldowns"].as_array().map(Vec::len), Some(2), "{seen}");
    let first = write(&replicas.admin(0), "DELETE", &all, None, 204).await.status;
    statuses([503, 200]).await;
    let second = write(&replicas.admin(1), "DELETE", &path, None, 204).await.status;
    statuses([200, 200]).await;
    let gone = replicas.admin(1).call("DELETE", &path, None).await.unwrap();
    assert_eq!(gone.status, 404, "{}", gone.text());
    let audit = replicas.admin(0).get("/audit?target_kind=cooldown").await.unwrap();
    let mut actions: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|it| it["action"].as_str().unwrap()).collect();
    actions.sort_unstable();
    // What was given up is in no log, even if etcd took it.
    let mut expected = vec!["cooldown.clear"; [first, second].iter().filter(|it| **it == 204).count()];
    expected.extend(["cooldown.set"; 2]);
    assert_eq!(actions, expected, "{audit}");
}

/// What is wrong with a request is said by the name of the member, and nothing cools down.
#[tokio::test]
async fn a_cooldown_that_makes_no_sense_is_refused() {
    let fleet = Fleet::start().await.unwrap();
    let listed = fleet.admin.get("/deployments").await.unwrap();
    let id = text(&listed["deployments"][0], "id").unwrap();
    let nobody = "019acb51-7d3e-7c40-9d0a-3c1f2b4a5d6e";
    for (path, body, status, field) in [
        (format!("/cooldowns/{id}"), json!({}), 400, "duration_ms"),
        (format!("/cooldowns/{id}"), json!({ "duration_ms": 604_800_001 }), 400, "duration_ms"),
        (format!("/cooldowns/{id}"), json!({ "duration_ms": 1, "reason": "\u{7}" }), 400, "reason"),
        (format!("/cooldowns/{nobody}"), json!({ "duration_ms": 1000 }), 404, "deployment_id"),
        (format!("/organizations/{nobody}/cooldowns/{id}"), json!({ "duration_ms": 1000 }), 404, "org_id"),
    ] {
        let refused = fleet.admin.call("PUT", &path, Some(&body)).await.unwrap();
        let told: Value = refused.json().unwrap();
        let named = told["errors"][0]["field"].as_str();
        assert_eq!((refused.status, named), (status, Some(field)), "{path} {body} {told}");
    }
    let listed = fleet.admin.get("/cooldowns").await.unwrap();
    assert_eq!(listed["cooldowns"].as_array().map(Vec::len), Some(0), "{listed}");
}

/// The same on the command line.
#[tokio::test]
async fn cooldowns_are_set_listed_and_cleared_on_the_command_line() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let name = fleet.admin.get("/deployments?model=test-model").await.unwrap();
    let name = text(&name["deployments"][0], "name").unwrap();
    let set = ["cooldowns", "set", &name, "--for", "10m", "--reason", "incident", "--org", "tests"];
    let set: Value = cli.json(&set).await;
    assert_eq!((&set["cause"], &set["remaining_ms"]), (&json!("manual"), &json!(600_000)), "{set}");
    let theirs = cli.json(&["cooldowns", "list", "--org", "tests"]).await;
    assert_eq!(
        (&theirs[0]["deployment"], &theirs[0]["reason"]),
        (&json!(name), &json!("incident")),
        "{theirs}"
    );
    let table = cli.text(&["cooldowns", "list"]).await;
    assert!(table.contains(&name) && table.contains("incident"), "{table}");
    let nothing = cli.refusal(1, &["cooldowns", "clear", &name, "--yes"]).await;
    assert!(nothing.contains("there is no cooldown"), "nothing is in force for everybody: {nothing}");
    cli.text(&["cooldowns", "clear", &name, "--yes", "--org", "tests"]).await;
    assert_eq!(cli.json(&["cooldowns", "list"]).await, json!([]));
}

/// A node that comes back, to whatever control plane, holds the whole board; so does a control plane that comes back.
#[tokio::test]
async fn who_reconnects_is_told_everything() {
    let Pair { mut replicas, key, etcd: _etcd } = Pair::start().await.unwrap();
    let all = format!("/cooldowns/{}", deployment(&replicas).await);
    replicas.nodes[1].kill().await.unwrap();
    set(&replicas.admin(0), &all, 900_000).await;
    replicas.restart_node(1).await.unwrap();
    replicas.known_everywhere(&key).await.unwrap();
    eventually("the node has heard", async || yes(cooldowns(&replicas, 1).await > 0.0)).await.unwrap();
    assert_eq!(ask(&replicas.client(1, &key), MODEL).await.status, 503);
    // Lifted while the node was away: it must not hold on to it.
    replicas.control_planes[1].kill().await.unwrap();
    assert_eq!(ask(&replicas.client(1, &key), MODEL).await.status, 503, "it keeps the last board");
    write(&replicas.admin(0), "DELETE", &all, None, 204).await;
    replicas.restart_control_plane(1).await.unwrap();
    eventually("the node serves again", async || {
        let status = ask(&replicas.client(1, &key), MODEL).await.status;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// I11: etcd dies, hangs, and comes back, under load: no request fails, no admin call that does not need it, and
/// cooldowns work again afterwards.
#[tokio::test]
async fn i11_losing_etcd_fails_no_request() {
    let Pair { replicas, key, mut etcd } = Pair::start().await.unwrap();
    let all = format!("/cooldowns/{}", deployment(&replicas).await);
    let (stop, served, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let load = async |node: usize| {
        let client = replicas.client(node, &key);
        while !stop.load(Relaxed) {
            let answer = client.post(CHAT, chat(MODEL)).await;
            match answer {
                Ok(answer) if answer.status == 200 => served.fetch_add(1, Relaxed),
                other => {
                    println!("failed: {:?}", other.map(|answer| (answer.status, answer.text())));
                    failed.fetch_add(1, Relaxed)
                }
            };
        }
    };
    let admin_works = async || {
        for control_plane in 0..2 {
            let admin = replicas.admin(control_plane);
            let started = Instant::now();
            let made = admin.post(&replicas.org("/teams"), json!({ "name": "t" })).await.unwrap();
            admin.get(&replicas.org("/cooldowns")).await.unwrap();
            admin.delete(&replicas.org(&format!("/teams/{}", text(&made, "id").unwrap()))).await.unwrap();
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        }
    };
    let load_goes_on = async || {
        let before = served.load(Relaxed);
        eventually("requests are served", async || yes(served.load(Relaxed) > before + 50)).await.unwrap();
    };
    let script = async {
        etcd.kill().await.unwrap();
        connected(&replicas, false).await.unwrap();
        admin_works().await;
        load_goes_on().await;
        let refused =
            replicas.admin(0).call("PUT", &all, Some(&json!({ "duration_ms": 1000 }))).await.unwrap();
        assert_eq!(refused.status, 503, "it says that it can't: {}", refused.text());
        etcd.restart().await.unwrap();
        connected(&replicas, true).await.unwrap();
        etcd.freeze().unwrap();
        connected(&replicas, false).await.unwrap();
        admin_works().await;
        load_goes_on().await;
        etcd.thaw().unwrap();
        connected(&replicas, true).await.unwrap();
        stop.store(true, Relaxed);
    };
    tokio::join!(script, load(0), load(0), load(1), load(1));
    let (served, failed) = (served.load(Relaxed), failed.load(Relaxed));
    println!("etcd killed and frozen under load: {served} requests served, {failed} failed");
    assert_eq!(failed, 0);
    set(&replicas.admin(0), &all, 600_000).await;
    eventually("cooldowns work again", async || {
        let status = ask(&replicas.client(1, &key), MODEL).await.status;
        anyhow::ensure!(status == 503, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}
