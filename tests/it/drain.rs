//! The end of a node in five phases (C30): nothing in flight is cut.

use std::time::{Duration, Instant};

use nemo_tests::{
    client::{Client, End},
    eventually,
    eventually::yes,
    fleet::{Fleet, MODEL, Pairing},
    script::Script,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::watch;

const STREAMS: usize = 500;

fn streamed() -> String {
    json!({ "model": MODEL, "stream": true, "messages": [{ "role": "user", "content": "hi" }] }).to_string()
}

/// Until the node says that it is not ready any more.
pub async fn draining(fleet: &Fleet) {
    let ops = Client::new(fleet.ops_addr());
    eventually("the node says that it drains", async || {
        let ready = ops.get("/readyz").await?;
        anyhow::ensure!((ready.status, ready.text().as_str()) == (503, "draining\n"), "{}", ready.text());
        Ok(())
    })
    .await
    .unwrap();
}

/// SIGTERM under 500 open streams: none is cut, usage is shipped, and the exit code is 0.
#[tokio::test]
async fn sigterm_under_500_streams_cuts_none() {
    let mut fleet = Fleet::start().await.unwrap();
    // None ends before all are open and the port is closed, however slow this machine is.
    let (gate, shut) = watch::channel(false);
    for _ in 0..STREAMS {
        fleet.upstream.push(Script::ok().pieces(12).pause(Duration::from_millis(250)).gate(2, &shut));
    }
    let mut streams = Vec::with_capacity(STREAMS);
    let opening = Instant::now();
    for _ in 0..STREAMS / 50 {
        let batch = (0..50).map(|_| async {
            let mut exchange =
                fleet.client.open("POST", "/v1/chat/completions", streamed().as_bytes()).await?;
            exchange.read_events(1).await?;
            anyhow::Ok(exchange)
        });
        streams.extend(futures_util::future::try_join_all(batch).await.unwrap());
    }
    let opened = opening.elapsed();
    let metrics = fleet.metrics().await.unwrap();
    assert!(metrics.contains(&format!("nemo_requests_in_flight {STREAMS}\n")), "opened within {opened:?}");

    let process = fleet.data_plane.take().unwrap();
    let begin = Instant::now();
    process.signal(Signal::TERM).unwrap();
    draining(&fleet).await;
    eventually("the port is closed", async || yes(fleet.client.get("/v1/models").await.is_err()))
        .await
        .unwrap();
    gate.send(true).unwrap();
    let ends = futures_util::future::join_all(streams.into_iter().map(|stream| stream.finish())).await;
    let finished = begin.elapsed();
    let whole = ends.iter().filter(|end| {
        end.as_ref().is_ok_and(|it| it.end == End::Complete && it.text().ends_with("data: [DONE]\n\n"))
    });
    assert_eq!(whole.count(), STREAMS, "streams that ended whole");
    let status = process.wait_exit().await.unwrap();
    assert!(status.success(), "{status} {}", process.log());
    println!(
        "{STREAMS} streams open within {opened:?}; SIGTERM to last [DONE] {finished:?}, to exit {:?}",
        begin.elapsed()
    );

    if fleet.pairing == Pairing::Standalone {
        fleet.start_standalone().await.unwrap();
    }
    let rows: i64 = fleet.count_requests("ok", STREAMS).await.unwrap();
    assert_eq!(rows, STREAMS as i64, "every stream has its row");
}

/// The phases in order: not ready at once, but still serving until load balancers have noticed; then closed.
#[tokio::test]
async fn a_draining_node_is_unready_first_and_closed_later() {
    const NOTICE: Duration = Duration::from_secs(8);
    let notice = NOTICE.as_millis().to_string();
    let mut fleet = Fleet::start_with(&[("NEMO_DRAIN__NOTICE_MS", &notice)]).await.unwrap();
    let process = fleet.data_plane.take().unwrap();
    let begin = Instant::now();
    process.signal(Signal::TERM).unwrap();
    draining(&fleet).await;
    assert!(begin.elapsed() < NOTICE / 2, "{:?}", begin.elapsed());
    let ops = Client::new(fleet.ops_addr());
    assert_eq!(ops.get("/livez").await.unwrap().status, 200, "liveness is the event loop alone");
    assert_eq!(
        fleet.client.get("/v1/models").await.unwrap().status,
        200,
        "whoever has not noticed is served"
    );
    assert!(process.wait_exit().await.unwrap().success());
    assert!(begin.elapsed() >= NOTICE, "{:?}", begin.elapsed());
    assert!(fleet.client.get("/v1/models").await.is_err());
}
