//! `kill -9` of data plane, control plane and PostgreSQL at each step of a request, with real processes: what the upstream
//! has served is what is logged, charged and settled, once each (I6, C2 to C4, R000-16).
//!
//! `NEMO_CHAOS_ROUNDS` says how often something is killed under load.

#![expect(clippy::disallowed_methods, reason = "each task is waited for by its test")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use nemo_tests::{
    client::Client,
    eventually::eventually_within,
    fleet::{Fleet, MODEL, Pairing, UPSTREAM_MODEL},
    postgres::Server,
    script::Script,
};
use serde_json::{Value, json};
use sqlx::Connection as _;

use super::cli::Cli;

const CHAT: &str = "/v1/chat/completions";
const WORKERS: usize = 8;
const ROUNDS: usize = 5;
/// Starting everything again on a busy machine, and shipping what was left.
const PATIENCE: Duration = Duration::from_secs(90);

fn body(mark: &str, stream: bool) -> String {
    let messages = [json!({ "role": "user", "content": mark })];
    json!({ "model": MODEL, "stream": stream, "max_tokens": 40, "messages": messages }).to_string()
}

fn marked(fleet: &Fleet, mark: &str) -> Client {
    fleet.client.clone().header("x-request-id", mark)
}

/// How often each request reached the upstream.
fn served(fleet: &Fleet) -> HashMap<String, usize> {
    assert_eq!(fleet.upstream.dropped_records(), 0);
    let mut served = HashMap::new();
    for request in fleet.upstream.requests() {
        let body = request.json().unwrap();
        *served.entry(body["messages"][0]["content"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    served
}

#[derive(Debug)]
struct Row {
    mark: String,
    outcome: String,
    attempts: i32,
    cost: Option<i64>,
    charges: Vec<(String, i64)>,
}

async fn rows(fleet: &Fleet) -> anyhow::Result<Vec<Row>> {
    let mut connection = sqlx::PgConnection::connect(fleet.database.url()).await?;
    let sql = "SELECT client_request_id, outcome, attempts, cost_nanos, charges FROM request_log";
    type Columns = (String, String, i32, Option<i64>, Option<String>);
    let found: Vec<Columns> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
    let row = |(mark, outcome, attempts, cost, charges): Columns| {
        let charges: Vec<Value> = charges.map_or(Vec::new(), |text| serde_json::from_str(&text).unwrap());
        let charges = charges
            .iter()
            .map(|it| (it["budget"].as_str().unwrap().to_owned(), it["nanos"].as_i64().unwrap()));
        Row { mark, outcome, attempts, cost, charges: charges.collect() }
    };
    Ok(found.into_iter().map(row).collect())
}

/// Settled and overrun of each budget, and what is held of it.
async fn windows(fleet: &Fleet) -> anyhow::Result<BTreeMap<String, (i64, i64)>> {
    let mut connection = sqlx::PgConnection::connect(fleet.database.url()).await?;
    let sql = "SELECT budget_id::text, sum(settled_nanos + overrun_nanos)::bigint, \
               sum(outstanding_nanos)::bigint FROM budget_windows GROUP BY budget_id";
    let found: Vec<(String, i64, i64)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
    Ok(found.into_iter().map(|(budget, spent, held)| (budget, (spent, held))).collect())
}

/// Two budgets over each other, both hard, and wide enough for all that is sent. Their ids, and the version of the
/// configuration that has both.
async fn budgets(fleet: &Fleet) -> (Vec<String>, String) {
    let whole = json!({ "name": "whole", "limit_usd": "1000", "window": "total" });
    let daily = json!({ "name": "daily", "limit_usd": "500", "window": "day", "team_id": fleet.team_id });
    let (mut ids, mut version) = (Vec::new(), String::new());
    for budget in [whole, daily] {
        let made = fleet.admin.call("POST", &fleet.org("/budgets?wait=fleet"), Some(&budget)).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.text());
        version = made.header("x-nemo-config-version").unwrap().to_owned();
        ids.push(nemo_tests::fleet::text(&made.json().unwrap(), "id").unwrap());
    }
    (ids, version)
}

/// The gateway as it is paired, and the server below it.
struct World {
    fleet: Fleet,
    server: Server,
    budgets: Vec<String>,
    /// Of the configuration that has them.
    version: String,
}

impl World {
    async fn start() -> Self {
        let server = Server::start_crashable().await.unwrap();
        let pairing = Pairing::from_env().unwrap();
        let fleet = Fleet::start_on(&server, pairing, "info", &[]).await.unwrap();
        fleet.tolerant().await.unwrap();
        let (budgets, version) = budgets(&fleet).await;
        Self { fleet, server, budgets, version }
    }

    fn kill_data_plane(&mut self) {
        drop(self.fleet.data_plane.take());
    }

    /// Nothing in a standalone gateway: there it is the same process.
    fn kill_control_plane(&mut self) {
        drop(self.fleet.control_plane.take());
    }

    async fn start_again(&mut self) {
        let fleet = &mut self.fleet;
        if fleet.pairing == Pairing::Standalone {
            if fleet.data_plane.is_none() {
                fleet.start_standalone().await.unwrap();
            }
            return;
        }
        if fleet.control_plane.is_none() {
            fleet.start_control_plane().await.unwrap();
        }
        if fleet.data_plane.is_none() {
            fleet.start_data_plane().unwrap();
            fleet.data_plane_ready().await.unwrap();
        }
    }

    /// Waits until the node has the budgets, of which its last-good file may not know yet, and leases.
    async fn warm(&mut self, step: &str) {
        self.start_again().await;
        let fleet = &self.fleet;
        let attempt = std::sync::atomic::AtomicU64::new(0);
        eventually_within(PATIENCE, "the node has leases", async || {
            let mark = format!("{step}-{}", attempt.fetch_add(1, Relaxed));
            let current = marked(fleet, &mark).header("x-nemo-min-config-version", &self.version);
            let response = current.post(CHAT, body(&mark, false)).await?;
            anyhow::ensure!(response.status == 200, "{}", response.text());
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Rows are what was served, once each; settled is what the rows are charged, once each.
    async fn check(&self) -> Vec<Row> {
        let fleet = &self.fleet;
        let served = served(fleet);
        let rows = eventually_within(PATIENCE, "every request that was served is logged", async || {
            let rows = rows(fleet).await?;
            let sent = rows.iter().filter(|row| row.attempts > 0 || row.outcome == "lost");
            let logged: HashSet<_> = sent.map(|row| row.mark.as_str()).collect();
            let missing: Vec<_> = served.keys().filter(|mark| !logged.contains(mark.as_str())).collect();
            anyhow::ensure!(missing.is_empty(), "{} of {}: {missing:?}", missing.len(), served.len());
            Ok(rows)
        });
        let rows = rows.await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.fleet.logs()));
        let mut seen = HashSet::new();
        for row in &rows {
            assert!(seen.insert(row.mark.as_str()), "{row:?} is there twice");
            let count = served.get(&row.mark).copied().unwrap_or(0);
            assert!(count <= 1, "{row:?} was served {count} times");
            // One that was about to be sent when its node died is charged as it was reserved.
            let sent = row.attempts > 0 && row.outcome != "lost";
            assert!(count == 1 || !sent || row.cost.unwrap_or(0) == 0, "{row:?} was never served");
            for (budget, nanos) in &row.charges {
                assert!(self.budgets.contains(budget) && Some(*nanos) == row.cost, "{row:?}");
            }
        }
        let charged = self.budgets.iter().map(|budget| {
            let of = rows.iter().flat_map(|row| &row.charges).filter(|(it, _)| it == budget);
            (budget.clone(), of.map(|(_, nanos)| nanos).sum::<i64>())
        });
        let charged: BTreeMap<_, _> = charged.collect();
        let settled = windows(fleet).await.unwrap().into_iter().map(|(budget, (spent, _))| (budget, spent));
        assert_eq!(
            settled.collect::<BTreeMap<_, _>>(),
            charged,
            "settled and overrun are what rows are charged"
        );
        let verified = fleet.admin.get("/ledger/verification").await.unwrap();
        assert_eq!(verified["ok"], true, "{verified}");
        rows
    }

    /// The node stops in order: nothing is held of any budget then, whatever was killed before.
    async fn hand_back(&mut self) {
        let process = self.fleet.data_plane.take().unwrap();
        process.stop().await.unwrap();
        let freed = eventually_within(PATIENCE, "all leases end", async || {
            let held = windows(&self.fleet).await?;
            anyhow::ensure!(held.values().all(|(_, held)| *held == 0), "{held:?}");
            Ok(())
        });
        freed.await.unwrap();
    }
}

/// One request at a time, killed where it hurts.
#[tokio::test]
async fn i6_kill_9_at_each_step_of_a_request_bills_it_once() {
    let mut world = World::start().await;

    // Before it is sent: its body is not complete.
    let fleet = &world.fleet;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nx-request-id: early\r\n\
         content-type: application/json\r\ncontent-length: 500\r\n\r\n{{",
        fleet.key
    );
    let client = fleet.client.clone();
    let early = tokio::spawn(async move { client.send_raw(head.as_bytes()).await.map(drop) });
    eventually_within(PATIENCE, "the node has it", async || {
        let metrics = fleet.metrics().await?;
        anyhow::ensure!(metrics.contains("nemo_requests_in_flight 1\n"));
        Ok(())
    })
    .await
    .unwrap();
    world.kill_data_plane();
    assert!(early.await.unwrap().is_err(), "nobody answers");
    world.warm("step0").await;

    // While the upstream thinks.
    world.fleet.upstream.push(Script::ok().delay(Duration::from_secs(600)));
    let client = marked(&world.fleet, "thinking");
    let waiting = tokio::spawn(async move { client.post(CHAT, body("thinking", false)).await });
    eventually_within(PATIENCE, "the upstream has it", async || {
        nemo_tests::eventually::yes(served(&world.fleet).contains_key("thinking"))
    })
    .await
    .unwrap();
    world.kill_data_plane();
    assert!(waiting.await.unwrap().is_err(), "nobody answers");
    world.warm("step1").await;

    // In the middle of a stream.
    world.fleet.upstream.push(Script::ok().pieces(50).pause(Duration::from_millis(200)));
    let client = marked(&world.fleet, "streaming");
    let mut stream = client.open("POST", CHAT, body("streaming", true).as_bytes()).await.unwrap();
    stream.read_events(2).await.unwrap();
    world.kill_data_plane();
    world.warm("step2").await;

    // After the answer, before the control plane knows; both die.
    world.kill_control_plane();
    let answered = marked(&world.fleet, "answered").post(CHAT, body("answered", false)).await.unwrap();
    assert_eq!(answered.status, 200);
    world.kill_data_plane();
    world.warm("step3").await;

    // While PostgreSQL is away.
    let answering = tokio::spawn({
        let client = marked(&world.fleet, "crashing");
        async move { client.post(CHAT, body("crashing", false)).await }
    });
    world.server.crash().await.unwrap();
    let answer = answering.await.unwrap();
    let answer = answer.unwrap_or_else(|error| panic!("{error:#}\n{}", world.fleet.logs()));
    assert_eq!(answer.status, 200);

    let rows = world.check().await;
    let outcome = |mark: &str| rows.iter().find(|row| row.mark == mark).map(|row| row.outcome.as_str());
    assert_eq!(outcome("early"), None, "it never was a request");
    assert_eq!((outcome("thinking"), outcome("streaming")), (Some("lost"), Some("lost")));
    assert_eq!((outcome("answered"), outcome("crashing")), (Some("ok"), Some("ok")));
    let lost = rows.iter().filter(|row| row.outcome == "lost");
    assert!(lost.clone().all(|row| row.cost.unwrap_or(0) > 0 && row.charges.len() == 2), "{rows:?}");
    world.hand_back().await;
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    /// More answers since then than there are workers.
    async fn answered_since(&self, before: u64) {
        eventually_within(PATIENCE, "requests are answered", async || {
            let answered = self.answered.load(Relaxed) - before;
            anyhow::ensure!(answered > WORKERS as u64, "{answered}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

async fn work(client: Client, load: Arc<Load>) {
    while !load.stop.load(Relaxed) {
        let number = load.sent.fetch_add(1, Relaxed);
        let mark = format!("chaos-{number}");
        let client = client.clone().header("x-request-id", &mark);
        match client.post(CHAT, body(&mark, number.is_multiple_of(3))).await {
            Ok(response) if response.status == 200 => _ = load.answered.fetch_add(1, Relaxed),
            _ => {
                load.refused.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Under load, again and again.
#[tokio::test]
async fn i6_kill_9_of_anything_at_any_step_bills_every_request_once() {
    let rounds = std::env::var("NEMO_CHAOS_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(ROUNDS);
    let mut world = World::start().await;
    let slow = Script::ok().delay(Duration::from_millis(20)).pieces(4).pause(Duration::from_millis(15));
    world.fleet.upstream.script_model(UPSTREAM_MODEL, slow);
    let load = Arc::new(Load::default());
    let workers: Vec<_> =
        (0..WORKERS).map(|_| tokio::spawn(work(world.fleet.client.clone(), load.clone()))).collect();
    for round in 0..rounds {
        let before = load.answered.load(Relaxed);
        // At another moment each time, and under load.
        tokio::time::sleep(Duration::from_millis(300 + 137 * (round as u64 % 7))).await;
        load.answered_since(before).await;
        match round % 5 {
            0 => world.kill_data_plane(),
            1 => world.kill_control_plane(),
            2 => world.server.crash().await.unwrap(),
            3 => {
                world.kill_control_plane();
                tokio::time::sleep(Duration::from_millis(300)).await;
                world.kill_data_plane();
            }
            _ => {
                world.kill_data_plane();
                world.server.crash().await.unwrap();
            }
        }
        world.start_again().await;
    }
    let before = load.answered.load(Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    load.answered_since(before).await;
    load.stop.store(true, Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let rows = world.check().await;
    let verified = Cli::new(&world.fleet).command(["ledger", "verify"]).output().await.unwrap();
    let text = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{text}{}", String::from_utf8_lossy(&verified.stderr));
    let lost = rows.iter().filter(|row| row.outcome == "lost").count();
    let (answered, refused) = (load.answered.load(Relaxed), load.refused.load(Relaxed));
    println!(
        "{rounds} kills: {} requests sent, {answered} answered, {refused} not; {} served upstream, {} rows, {lost} of them lost\n{text}",
        load.sent.load(Relaxed),
        served(&world.fleet).len(),
        rows.len(),
    );
    world.hand_back().await;
}
