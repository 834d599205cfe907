//! Several control planes on one database and several nodes: what switches off, what is waited for, and what goes on
//! when one of them is gone (issue: priority lane, `wait=fleet`, replicas).

use std::time::{Duration, Instant};

use nemo_tests::{
    client::Client,
    eventually,
    eventually::yes,
    replicas::{Layout, Replicas},
    script::Script,
};
use serde_json::{Value, json};

use super::chat::chat;

/// Newest version of the configuration that a write answered with.
async fn write(
    replicas: &Replicas,
    control_plane: usize,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, u64) {
    let answer = replicas.admin(control_plane).call(method, path, Some(&body)).await.unwrap();
    let version = answer.header("x-nemo-config-version").and_then(|text| text.parse().ok());
    assert!(answer.status < 300 || version.is_none(), "{} {}", answer.status, answer.text());
    (answer.status, version.unwrap_or(0))
}

#[tokio::test]
async fn writers_and_nodes_carry_on_when_a_control_plane_is_killed() {
    let mut replicas = Replicas::start(2, 2).await.unwrap();
    let (_, first) = replicas.issue_key(0, json!({})).await.unwrap();
    replicas.known_everywhere(&first).await.unwrap();

    // One order over both: every write is newer than all before it, whoever took it.
    let mut last = 0;
    for at in 0..10 {
        let body = json!({ "name": format!("team {at}") });
        let (status, version) = write(&replicas, at % 2, "POST", &replicas.org("/teams"), body).await;
        assert!(status < 300 && version > last, "{status}: {version} after {last}");
        last = version;
    }

    replicas.control_planes[0].kill().await.unwrap();
    assert_eq!(
        replicas.client(0, &first).post("/v1/chat/completions", chat("hi")).await.unwrap().status,
        200
    );
    let (id, second) = replicas.issue_key(1, json!({})).await.unwrap();
    replicas.known_everywhere(&second).await.unwrap();
    let (status, version) =
        write(&replicas, 1, "PATCH", &replicas.org(&format!("/keys/{id}")), json!({ "disabled": true }))
            .await;
    assert!(status < 300 && version > last);
    for node in 0..2 {
        let client = replicas.client(node, &second);
        eventually("the node refuses the key", async || {
            yes(client.get("/v1/models").await.unwrap().status == 401)
        })
        .await
        .unwrap();
    }
    // The usage of both nodes arrives over the replica that is left.
    assert_eq!(
        replicas.client(1, &first).post("/v1/chat/completions", chat("hi")).await.unwrap().status,
        200
    );
    let admin = replicas.admin(1);
    eventually("the request log has both", async || {
        let listed = admin.get(&replicas.org("/requests")).await?;
        anyhow::ensure!(listed["requests"].as_array().map(Vec::len) >= Some(2), "{listed}");
        Ok(())
    })
    .await
    .unwrap();
}

/// A key that is switched off, or whose secret was replaced, stops on every node long before the next push is due, under load. The figure of the
/// issue is 250 ms at the 99th percentile on a machine of its own; a shared one is given more here.
#[tokio::test]
async fn a_revoked_key_stops_on_every_node_at_once() {
    const KEYS: usize = 200;
    const NODES: usize = 3;
    let replicas = Replicas::start(2, NODES).await.unwrap();
    let (_, loader) = replicas.issue_key(0, json!({})).await.unwrap();
    let mut keys = Vec::new();
    for at in 0..KEYS {
        keys.push(replicas.issue_key(at % 2, json!({})).await.unwrap());
    }
    replicas.known_everywhere(&loader).await.unwrap();
    replicas.known_everywhere(&keys.last().unwrap().1).await.unwrap();

    let load = async {
        loop {
            for node in 0..NODES {
                replicas.upstream.push(Script::ok());
                let answer = replicas.client(node, &loader).post("/v1/chat/completions", chat("hi")).await;
                assert_eq!(answer.unwrap().status, 200);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let measure = async {
        let mut waits: Vec<Duration> = Vec::new();
        for (at, (id, key)) in keys.iter().enumerate() {
            let path = replicas.org(&format!("/keys/{id}"));
            let admin = replicas.admin(at % 2);
            match at % 3 {
                0 => admin.delete(&path).await.unwrap(),
                1 => admin.patch(&path, json!({ "disabled": true })).await.unwrap(),
                // Without an overlap: the secret that was stolen stops as quickly.
                _ => admin.post(&format!("{path}/rotate"), json!({})).await.unwrap(),
            };
            let answered = Instant::now();
            let clients: Vec<Client> = (0..NODES).map(|node| replicas.client(node, key)).collect();
            let refused = clients.iter().map(|client| async {
                while client.get("/v1/models").await.unwrap().status != 401 {}
                answered.elapsed()
            });
            waits.extend(futures_util::future::join_all(refused).await);
        }
        waits.sort();
        waits
    };
    let waits = tokio::select! {
        waits = measure => waits,
        () = load => unreachable!("the load has no end"),
    };
    assert_eq!(waits.len(), KEYS * NODES);
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!(
        "revocation to refusal on each of {NODES} nodes, {} samples: p50 {:?} p99 {:?} max {:?}",
        waits.len(),
        at(50),
        at(99),
        at(100)
    );
    assert!(at(99) < Duration::from_secs(2), "p99 {:?}", at(99));
    // They came on the lane of their own, not with the pushes that said the same later.
    for node in 0..NODES {
        let metrics = replicas.metrics(node).await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("nemo_config_revocations_total "));
        let ahead: usize = line.unwrap().parse().unwrap();
        assert!(ahead >= KEYS / 2, "node {node}: {ahead} of {KEYS} ahead of a push");
    }
}

/// Until each control plane lists so many nodes as connected, with what they serve: those at the other one are then in
/// the database, where whoever waits for the fleet finds them.
async fn all_listed(replicas: &Replicas, count: usize) {
    for at in 0..replicas.control_planes.len() {
        eventually("all nodes are listed, with what they serve", async || {
            let nodes = replicas.admin(at).get("/nodes").await?["nodes"].clone();
            let complete = |node: &&Value| {
                let text = |member: &str| node[member].as_str().unwrap_or_default().to_owned();
                node["connected"] == true
                    && node["revision"].as_u64() > Some(0)
                    && node["lag"] == 0
                    && !text("version").is_empty()
                    && text("connected_at").starts_with("20")
            };
            let listed = nodes.as_array().map_or(0, |nodes| nodes.iter().filter(complete).count());
            anyhow::ensure!(listed == count, "control plane {at}: {nodes}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// Each node is connected to one of the control planes; both list both, and the one that is left goes on to.
#[tokio::test]
async fn every_control_plane_lists_the_nodes_of_the_whole_fleet() {
    let mut replicas = Replicas::start(2, 4).await.unwrap();
    let leaving = replicas.nodes[3].process.take().unwrap();
    let listed = async |at: usize| replicas.admin(at).get("/nodes").await.unwrap()["nodes"].clone();
    all_listed(&replicas, 4).await;
    leaving.stop().await.unwrap();
    let begun = Instant::now();
    for at in 0..2 {
        eventually("the node that said goodbye is listed as gone", async || {
            let nodes = listed(at).await;
            let states =
                nodes.as_array().map(|nodes| nodes.iter().filter(|node| node["connected"] == true).count());
            anyhow::ensure!(states == Some(3) && nodes.as_array().map(Vec::len) == Some(4), "{nodes}");
            Ok(())
        })
        .await
        .unwrap();
    }
    // Nobody waited for its lease, of which at least 7 s were left.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_disabled_team_and_a_deleted_organization_stop_all_their_keys() {
    let replicas = Replicas::start(1, 2).await.unwrap();
    let admin = replicas.admin(0);
    let (_, key) = replicas.issue_key(0, json!({})).await.unwrap();
    replicas.known_everywhere(&key).await.unwrap();
    let team = replicas.org(&format!("/teams/{}", replicas.tenant.team_id));
    let stops = async |message: &str| {
        for node in 0..2 {
            eventually("the key stops", async || {
                let answer = replicas.client(node, &key).get("/v1/models").await?;
                anyhow::ensure!(answer.status == 401 && answer.text().contains(message), "{}", answer.text());
                Ok(())
            })
            .await
            .unwrap();
        }
    };
    admin.patch(&team, json!({ "disabled": true })).await.unwrap();
    stops("team").await;
    admin.patch(&team, json!({ "disabled": false })).await.unwrap();
    replicas.known_everywhere(&key).await.unwrap();
    admin.delete(&format!("/organizations/{}", replicas.tenant.org_id)).await.unwrap();
    stops("").await;
}

/// After the answer there is nothing to wait for on any node; a dead node holds it up until its lease runs out, and
/// no longer.
#[tokio::test]
async fn wait_fleet_answers_when_every_live_node_serves_what_was_written() {
    let mut replicas = Replicas::start(2, 3).await.unwrap();
    // One that is not listed yet would not be waited for.
    all_listed(&replicas, 3).await;
    let keys = replicas.org("/keys?wait=fleet");
    for at in 0..10 {
        let body = json!({ "name": format!("key {at}"), "team_id": replicas.tenant.team_id });
        let answer = replicas.admin(at % 2).call("POST", &keys, Some(&body)).await.unwrap();
        assert!(answer.status < 300, "{} {}", answer.status, answer.text());
        let secret = answer.json().unwrap()["secret"].as_str().unwrap().to_owned();
        for node in 0..3 {
            let status = replicas.client(node, &secret).get("/v1/models").await.unwrap().status;
            assert_eq!(status, 200, "node {node} at once");
        }
    }
    replicas.nodes[2].kill().await.unwrap();
    let begun = Instant::now();
    let body = json!({ "name": "late", "team_id": replicas.tenant.team_id });
    let answer = replicas.admin(0).call("POST", &keys, Some(&body)).await.unwrap();
    assert!(answer.status < 300, "{} {}", answer.status, answer.text());
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    // When it is back it catches up before it counts.
    replicas.restart_node(2).await.unwrap();
    let secret = answer.json().unwrap()["secret"].as_str().unwrap().to_owned();
    replicas.known_everywhere(&secret).await.unwrap();
}

/// A write's answer names its version; a request that asks for it is held until the node has it, the new key included.
#[tokio::test]
async fn a_request_waits_briefly_for_the_version_that_it_asks_for() {
    // As long as the slowest machine may take to tell a node.
    let node_settings = vec![("NEMO_TIMEOUTS__CONFIG_WAIT_MS".to_owned(), "20000".to_owned())];
    let layout = Layout { node_settings, ..Layout::default() };
    let mut replicas = Replicas::start_as(1, 2, layout).await.unwrap();
    for at in 0..5 {
        let body = json!({ "name": format!("key {at}"), "team_id": replicas.tenant.team_id });
        let answer = replicas.admin(0).call("POST", &replicas.org("/keys"), Some(&body)).await.unwrap();
        let version = answer.header("x-nemo-config-version").unwrap().to_owned();
        let secret = answer.json().unwrap()["secret"].as_str().unwrap().to_owned();
        for node in 0..2 {
            let client = replicas.client(node, &secret).header("x-nemo-min-config-version", &version);
            let answer = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    // A version that never comes, at a node with the default of a second.
    replicas.nodes[0].kill().await.unwrap();
    replicas.nodes[0].site.node_settings.clear();
    replicas.restart_node(0).await.unwrap();
    let (_, key) = replicas.issue_key(0, json!({})).await.unwrap();
    replicas.known_everywhere(&key).await.unwrap();
    let begun = Instant::now();
    let client = replicas.client(0, &key).header("x-nemo-min-config-version", "999999999");
    let answer = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    let waited = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
}
