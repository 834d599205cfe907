//! The proof that a budget is never overspent: 64 clients at once over four nodes on one dollar (C1, I3, R001-7).

#![expect(clippy::disallowed_methods, reason = "each task is waited for by its test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nemo_tests::{
    fleet::{MODEL, UPSTREAM_MODEL, text},
    replicas::Replicas,
    script::Script,
};
use serde_json::{Value, json};
use sqlx::Connection as _;

const NODES: usize = 4;
const CLIENTS: usize = 64;
const LIMIT: i64 = 1_000_000_000;
const INPUT: i64 = 2_500;
const OUTPUT: i64 = 10_000;
/// Tokens of an answer that nothing limits, each of four bytes.
const ANSWER: usize = 250;
/// What is left is too little for any request when none was served for so long.
const QUIET: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(100);

#[derive(Default)]
struct Seen {
    complete: AtomicU64,
    stopped: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    /// Milliseconds since the start at which a request was served last.
    served_at: AtomicU64,
}

/// Asks until the budget is said to be exhausted for good, or until nobody is served any more: what nodes hold apart may
/// together still be something, but no request's worth.
async fn spend(replicas: &Replicas, key: &str, node: usize, body: &str, seen: &Seen, began: Instant) {
    let client = replicas.client(node, key);
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap();
    while began.elapsed() < PATIENCE {
        let response = client.post("/v1/chat/completions", body).await.unwrap();
        match response.status {
            200 => {
                let stopped = response.text().contains("\"error\":{");
                let counter = if stopped { &seen.stopped } else { &seen.complete };
                counter.fetch_add(1, Relaxed);
                seen.served_at.fetch_max(now(), Relaxed);
            }
            402 if response.header("retry-after").is_none() => {
                seen.refused.fetch_add(1, Relaxed);
                return;
            }
            402 | 503 => {
                seen.unavailable.fetch_add(1, Relaxed);
                let quiet = now().saturating_sub(seen.served_at.load(Relaxed));
                if u128::from(quiet) > QUIET.as_millis() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            other => panic!("{other} {}", response.text()),
        }
    }
}

struct Books {
    settled: i64,
    overrun: i64,
    outstanding: i64,
    /// Of the request log.
    rows: i64,
    cost: i64,
    complete_cost: i64,
}

async fn books(replicas: &Replicas) -> Books {
    let mut connection = sqlx::PgConnection::connect(replicas.database.url()).await.unwrap();
    let (settled, overrun, outstanding): (i64, i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(settled_nanos), 0)::bigint, coalesce(sum(overrun_nanos), 0)::bigint, \
         coalesce(sum(outstanding_nanos), 0)::bigint FROM budget_windows",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    let (rows, cost, complete_cost): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE attempts > 0), coalesce(sum(cost_nanos), 0)::bigint, \
         coalesce(sum(cost_nanos) FILTER (WHERE outcome = 'ok'), 0)::bigint FROM request_log",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    Books { settled, overrun, outstanding, rows, cost, complete_cost }
}

/// What the upstream bills for a request that it has answered to the end.
fn billed(request: &Value) -> i64 {
    let limit = ["max_completion_tokens", "max_tokens"].into_iter().find_map(|name| request[name].as_u64());
    let answer = limit.map_or(ANSWER, |limit| ANSWER.min(usize::try_from(limit).unwrap()));
    12 * INPUT + i64::try_from(answer).unwrap() * OUTPUT
}

async fn prove(name: &str, stream: bool) {
    let replicas = Replicas::start(1, NODES).await.unwrap();
    let (_, key) = replicas.issue_key(0, json!({})).await.unwrap();
    let budget = json!({ "name": "dollar", "limit_usd": "1", "window": "total" });
    let made = replicas.admin(0).post(&replicas.org("/budgets?wait=fleet"), budget).await.unwrap();
    let id = text(&made, "id").unwrap();
    replicas.known_everywhere(&key).await.unwrap();
    replicas.upstream.script_model(
        UPSTREAM_MODEL,
        Script::ok()
            .content("abc ".repeat(ANSWER))
            .pieces(ANSWER)
            .pause(Duration::from_millis(u64::from(stream))),
    );
    let body = json!({ "model": MODEL, "stream": stream, "messages": [{ "role": "user", "content": "hi" }] })
        .to_string();

    let (seen, began) = (Arc::new(Seen::default()), Instant::now());
    let replicas = Arc::new(replicas);
    let clients = (0..CLIENTS * NODES).map(|at| {
        let (replicas, key, body, seen) = (replicas.clone(), key.clone(), body.clone(), seen.clone());
        tokio::spawn(async move { spend(&replicas, &key, at % NODES, &body, &seen, began).await })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let took = began.elapsed();

    // The last events and leases arrive.
    let served = i64::try_from(replicas.upstream.served()).unwrap();
    let books = nemo_tests::eventually("everything is settled", async || {
        let books = books(&replicas).await;
        anyhow::ensure!(books.rows >= served, "{} of {served} rows", books.rows);
        anyhow::ensure!(books.settled + books.overrun == books.cost, "{} of {}", books.settled, books.cost);
        Ok(books)
    })
    .await
    .unwrap();
    let complete = replicas.upstream.requests();
    assert_eq!(replicas.upstream.dropped_records(), 0);
    let complete = complete.iter().filter(|it| it.client_gone_at().is_none());
    let bill: i64 = complete.map(|it| billed(&it.json().unwrap())).sum();
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    println!(
        "{name}: {CLIENTS} clients x {NODES} nodes on {} USD: settled {} USD ({:.2} %), overrun {}, outstanding {}, upstream's \
         bill for complete answers {} USD, request log {} USD of {} rows; {} complete, {} stopped, {} told to wait, {} told that it is over; {:.1} s",
        nanos(LIMIT),
        nanos(books.settled),
        percent(books.settled),
        books.overrun,
        nanos(books.outstanding),
        nanos(bill),
        nanos(books.cost),
        books.rows,
        count(&seen.complete),
        count(&seen.stopped),
        count(&seen.unavailable),
        count(&seen.refused),
        took.as_secs_f64(),
    );
    assert!(books.settled + books.overrun <= LIMIT, "overspent: {} and {}", books.settled, books.overrun);
    assert_eq!(books.overrun, 0);
    assert!(books.settled >= LIMIT / 100 * 99, "{} of {LIMIT} were of use", books.settled);
    assert_eq!(books.rows, served, "every request that was sent is in the log, once");
    // A stream that is stopped may have been generated to its end by then, which nobody here can see.
    let unseen =
        i64::try_from(count(&seen.stopped)).unwrap() * (12 * INPUT + i64::try_from(ANSWER).unwrap() * OUTPUT);
    let slack = if stream { unseen } else { 0 };
    assert!((bill - slack..=bill).contains(&books.complete_cost), "the log says what the upstream billed");
    let shown = replicas.admin(0).get(&replicas.org(&format!("/budgets/{id}"))).await.unwrap();
    assert_eq!(shown["current"]["settled"]["nanos"].to_string().trim_matches('"'), books.settled.to_string());
}

fn nanos(nanos: i64) -> String {
    nemo_types::Nanos(nanos).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn percent(nanos: i64) -> f64 {
    nanos as f64 * 100.0 / LIMIT as f64
}

/// Every request may cost as much as its model can say, which is a twenty-fifth of the budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_dollar_is_never_overspent_without_max_tokens() {
    prove("complete answers without max_tokens", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_dollar_is_never_overspent_by_streams() {
    prove("streams", true).await;
}
