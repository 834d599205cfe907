//! The two planes and what happens when one is away (I4, I5).

use std::time::Duration;

use anyhow::Context as _;
use nemo_tests::{
    eventually,
    eventually::{eventually_within, yes},
    fleet::{Fleet, MODEL, Pairing},
    script::Script,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::watch;

use super::{chat::chat, drain::draining};

/// I4: control plane and database are gone, the node is restarted, and it serves.
#[tokio::test]
async fn i4_a_restarted_node_serves_without_control_plane_and_database() {
    let mut fleet = Fleet::start_as(Pairing::Fleet).await.unwrap();
    assert_eq!(fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap().status, 200);
    let saved = fleet.dir().join("node/snapshot/last-good.bin");
    let served = fleet.client.get("/v1/models").await.unwrap().text();
    eventually("the last-good file is written", async || yes(saved.exists())).await.unwrap();
    fleet.request_log(1).await.unwrap();
    // Debounced: the newest set is on disk after an orderly stop.
    fleet.control_plane.take().unwrap().stop().await.unwrap();
    fleet.data_plane.take().unwrap().stop().await.unwrap();
    fleet.start_data_plane().unwrap();
    fleet.data_plane_ready().await.unwrap();
    assert_eq!(fleet.client.get("/v1/models").await.unwrap().text(), served);
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());

    // And its usage arrives once the control plane is back.
    fleet.start_control_plane().await.unwrap();
    fleet.request_log(2).await.unwrap();
}

/// I4, also when everything is killed without notice.
#[tokio::test]
async fn i4_kill_9_of_both_planes_loses_no_configuration() {
    let mut fleet = Fleet::start_as(Pairing::Fleet).await.unwrap();
    let saved = fleet.dir().join("node/snapshot/last-good.bin");
    let before = fleet.client.get("/v1/models").await.unwrap().text();
    // Between two files there is a pause of twenty times what the disk took.
    eventually_within(Duration::from_secs(60), "the newest set is saved", async || {
        let header = std::fs::read(&saved)?;
        anyhow::ensure!(header.starts_with(b"NEMOLG"), "another format");
        let revision = header.get(8..16).context("no revision")?.try_into().map(u64::from_be_bytes)?;
        let published = fleet.admin.get("/nodes").await?["published_revision"].as_u64();
        anyhow::ensure!(Some(revision) == published, "{revision} of {published:?}");
        Ok(())
    })
    .await
    .unwrap();
    for process in [fleet.control_plane.take(), fleet.data_plane.take()].into_iter().flatten() {
        process.signal(Signal::KILL).unwrap();
        process.wait_exit().await.unwrap();
    }
    fleet.start_data_plane().unwrap();
    fleet.data_plane_ready().await.unwrap();
    assert_eq!(fleet.client.get("/v1/models").await.unwrap().text(), before);
}

/// The fleet list tells each node's revision, and it catches up after a change.
#[tokio::test]
async fn nodes_report_the_revision_that_they_serve() {
    let fleet = Fleet::start().await.unwrap();
    fleet.issue_key(json!({ "name": "one more" })).await.unwrap();
    eventually("the node has caught up", async || {
        let nodes = fleet.admin.get("/nodes").await?;
        let node = &nodes["nodes"][0];
        anyhow::ensure!(node["connected"] == true, "{nodes}");
        anyhow::ensure!(node["revision"] == nodes["published_revision"] && node["lag"] == 0, "{nodes}");
        anyhow::ensure!(node["revision"].as_u64() > Some(0), "{nodes}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Rows that somebody broke by hand hold every later revision back: whoever waits for one is told why, not kept.
#[tokio::test]
async fn waiting_for_a_revision_that_cannot_be_served_ends_at_once_with_the_reason() {
    let fleet = Fleet::start().await.unwrap();
    let mut database = <sqlx::PgConnection as sqlx::Connection>::connect(fleet.database.url()).await.unwrap();
    sqlx::query("UPDATE deployments SET base_url = 'nonsense'").execute(&mut database).await.unwrap();
    let begun = std::time::Instant::now();
    let body = json!({ "name": "late" });
    let answer = fleet.admin.call("POST", &fleet.org("/teams?wait=fleet"), Some(&body)).await.unwrap();
    assert_eq!(answer.status, 504, "{}", answer.text());
    let text = answer.text();
    assert!(text.contains("written as config version") && text.contains("base_url"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let teams = fleet.admin.get(&fleet.org("/teams")).await.unwrap();
    assert!(teams.to_string().contains("\"late\""), "the write is done: {teams}");
}

/// SIGTERM lets a running stream end, ships its usage, and leaves nothing behind.
#[tokio::test]
async fn a_drain_finishes_streams_and_ships_usage() {
    let mut fleet = Fleet::start().await.unwrap();
    let (gate, shut) = watch::channel(false);
    fleet.upstream.push(Script::ok().pieces(10).pause(Duration::from_millis(100)).gate(2, &shut));
    let request = json!({
        "model": MODEL, "stream": true, "messages": [{ "role": "user", "content": "hi" }],
    });
    let mut exchange =
        fleet.client.open("POST", "/v1/chat/completions", request.to_string().as_bytes()).await.unwrap();
    exchange.read_events(1).await.unwrap();
    let process = fleet.data_plane.take().unwrap();
    process.signal(Signal::TERM).unwrap();
    draining(&fleet).await;
    gate.send(true).unwrap();
    let response = exchange.finish().await.unwrap();
    assert!(response.text().ends_with("data: [DONE]\n\n"), "{}", response.text());
    let status = process.wait_exit().await.unwrap();
    assert!(status.success(), "{status} {}", process.log());
    if fleet.pairing == Pairing::Standalone {
        fleet.start_standalone().await.unwrap();
    }
    let row = fleet.request_log(1).await.unwrap().remove(0);
    assert_eq!(row["outcome"], "ok", "{row}");
}

/// Several in-flight requests on one HTTP/1.1 connection after the other: keep-alive works through the gateway.
#[tokio::test]
async fn metrics_count_what_happened() {
    let fleet = Fleet::start().await.unwrap();
    for _ in 0..3 {
        fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    }
    let lines = [
        r#"nemo_requests_total{endpoint="chat.completions",outcome="ok"} 3"#,
        "nemo_requests_in_flight 0",
        r#"nemo_responses_total{status="200"} 3"#,
    ];
    // A request ends after its client has all of the answer.
    eventually("the last request has ended", async || {
        let metrics = fleet.metrics().await?;
        let missing: Vec<_> = lines.iter().filter(|line| !metrics.contains(**line)).collect();
        anyhow::ensure!(missing.is_empty(), "{missing:?} not in\n{metrics}");
        anyhow::ensure!(metrics.ends_with("# EOF\n"), "{metrics}");
        Ok(())
    })
    .await
    .unwrap();
}
