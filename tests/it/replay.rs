//! `nemo replay`: logged decisions come out as they were, what is damaged is found, and what another policy would
//! change is shown.

use std::sync::Arc;

use nemo_proto::usage::{Decision, EliminationReason};
use nemo_tests::{
    eventually::eventually_within,
    fleet::{Fleet, UPSTREAM_KEY},
    upstream::Upstream,
};
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::cli::Cli;

const PATH: &str = "/v1/chat/completions";
const STRATEGIES: [&str; 7] =
    ["simple-shuffle", "least-busy", "usage-based", "latency-based", "cost-based", "weighted", "balanced"];
const WORKERS: usize = 12;

/// A group of four deployments in two links, of which one fails.
struct World {
    fleet: Arc<Fleet>,
    group: String,
    /// east, west, shaky, backup
    ids: Vec<String>,
    _upstreams: Vec<Upstream>,
}

async fn deployment(
    fleet: &Fleet,
    name: &str,
    upstream: &Upstream,
    credential: &str,
    model: &str,
    usd: i64,
) -> String {
    let price = json!({ "input": usd * 1_000_000_000, "output": usd * 4_000_000_000_i64 });
    let request = json!({
        "name": name, "provider": "custom", "base_url": upstream.base_url(), "credential_id": credential,
        "model": "test-model", "upstream_model": model, "price": price, "weight": 1,
    });
    fleet.admin.post("/deployments", request).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn world() -> World {
    let fleet = Fleet::start().await.unwrap();
    let admin = &fleet.admin;
    let credential = json!({ "name": "replay", "provider": "custom", "secret": UPSTREAM_KEY });
    let credential = admin.post("/credentials", credential).await.unwrap()["id"].as_str().unwrap().to_owned();
    let (mut upstreams, mut ids) = (Vec::new(), Vec::new());
    for (name, model, usd) in [
        ("east", "gpt-4o-mini", 4),
        ("west", "gpt-4o-mini", 2),
        ("shaky", "gpt-4o-mini!status=503", 1),
        ("backup", "gpt-4o-mini", 8),
    ] {
        let upstream =
            Upstream::builder().api_key(Some(UPSTREAM_KEY.into())).record_limit(10).start().await.unwrap();
        ids.push(deployment(&fleet, name, &upstream, &credential, model, usd).await);
        upstreams.push(upstream);
    }
    for (key, value) in [
        ("routing.backoff_ms", "1"),
        ("cooldown.failures", "2"),
        ("cooldown.window_ms", "200"),
        ("cooldown.max_ms", "200"),
    ] {
        admin.put(&format!("/settings/{key}"), json!({ "value": value })).await.unwrap();
    }
    let group = json!({ "name": "smart", "strategy": "simple-shuffle", "links": links(&ids, [1, 2, 1]) });
    let group = admin.post("/model-groups", group).await.unwrap()["id"].as_str().unwrap().to_owned();
    eventually_within(std::time::Duration::from_secs(30), "the group is served", async || {
        let response = fleet.client.get("/v1/models").await?;
        anyhow::ensure!(response.text().contains("\"smart\""), "{}", response.text());
        Ok::<_, anyhow::Error>(())
    })
    .await
    .unwrap();
    World { fleet: Arc::new(fleet), group, ids, _upstreams: upstreams }
}

fn links(ids: &[String], weights: [u32; 3]) -> Value {
    let members: Vec<_> = ids
        .iter()
        .zip(weights)
        .map(|(id, weight)| json!({ "deployment_id": id, "weight": weight }))
        .collect();
    json!([{ "deployments": members }, { "deployments": [{ "deployment_id": ids[3], "weight": 1 }] }])
}

/// Requests of many kinds, all of which reach a decision.
fn body(at: usize) -> String {
    let mut body =
        json!({ "model": "smart", "messages": [{ "role": "user", "content": "h".repeat(at % 400) }] });
    let extra = match at % 11 {
        0 => json!({ "nemo_strategy": STRATEGIES[at / 11 % 7] }),
        1 => json!({ "nemo_tags": ["code"] }),
        2 => json!({ "nemo_tags": ["vision"] }),
        3 => json!({ "models": ["test-model", "smart"] }),
        4 => json!({ "nemo_fallbacks": ["test-model"], "nemo_retries": 1 }),
        5 => json!({ "provider": { "sort": "price", "allow_fallbacks": at.is_multiple_of(2) } }),
        6 => json!({ "stream": true, "max_tokens": 100 }),
        7 => json!({ "nemo_max_cost": "0.000001" }),
        8 => json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }),
        _ => json!({}),
    };
    body.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
    body.to_string()
}

impl World {
    /// Sends so many requests, twelve at a time, while strategies, weights and settings change.
    async fn load(&self, requests: usize, changes: usize) {
        let mut workers = JoinSet::new();
        for worker in 0..WORKERS {
            let fleet = self.fleet.clone();
            workers.spawn(async move {
                for at in (worker..requests).step_by(WORKERS) {
                    let response = fleet.client.post(PATH, body(at)).await.unwrap();
                    assert!(
                        [200, 400, 502, 503].contains(&response.status),
                        "{} {}",
                        response.status,
                        response.text()
                    );
                }
            });
        }
        let (fleet, ids, group) = (self.fleet.clone(), self.ids.clone(), self.group.clone());
        let changing = async move {
            for at in 0..changes {
                let weights = [1 + u32::try_from(at % 5).unwrap(), 2, 1];
                let change =
                    json!({ "strategy": STRATEGIES[at % 7], "links": { "links": links(&ids, weights) } });
                fleet.admin.patch(&format!("/model-groups/{group}"), change).await.unwrap();
                let retries = json!({ "value": (at % 3).to_string() });
                fleet.admin.put("/settings/routing.retries", retries).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(150)).await;
            }
        };
        changing.await;
        while let Some(done) = workers.join_next().await {
            done.unwrap();
        }
        self.logged(requests).await;
    }

    /// Waits until the log has exactly so many rows.
    async fn logged(&self, requests: usize) {
        let mut connection = self.database().await;
        let mut count = async || -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM request_log").fetch_one(&mut connection).await.unwrap()
        };
        let wanted = i64::try_from(requests).unwrap();
        for _ in 0..300 {
            if count().await >= wanted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(count().await, wanted, "count(log) is not count(requests)");
    }

    async fn database(&self) -> PgConnection {
        PgConnection::connect(self.fleet.database.url()).await.unwrap()
    }
}

/// R004-29: ten thousand decisions of every strategy, over many revisions and with deployments that cool down and come
/// back, come out to the last one; and what another strategy would change is shown.
#[tokio::test]
async fn ten_thousand_decisions_come_out_as_they_were() {
    const REQUESTS: usize = 10_000;
    let world = world().await;
    world.load(REQUESTS, 40).await;
    let cli = Cli::new(&world.fleet);
    let report = cli.json(&["replay", "--since", "1h"]).await;
    assert_eq!(
        (report["requests"].as_u64(), report["reproduced"].as_u64()),
        (Some(10_000), Some(10_000)),
        "{report}"
    );
    assert_eq!((report["failed"].as_u64(), report["not_routed"].as_u64()), (Some(0), Some(0)), "{report}");
    assert!(report["revisions"].as_u64().unwrap() > 20, "{report}");

    // The run was what it should be: decisions by every strategy, some that saw a deployment cooling, some refused.
    let mut database = world.database().await;
    let strategies: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT strategy) FROM request_log WHERE strategy <> ''")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(strategies, 7);
    let largest: i32 = sqlx::query_scalar("SELECT max(octet_length(decision)) FROM request_log")
        .fetch_one(&mut database)
        .await
        .unwrap();
    let mean: i32 = sqlx::query_scalar("SELECT avg(octet_length(decision))::int FROM request_log")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert!(largest < 1000 && mean < 300, "{mean} bytes, the largest {largest}");
    let records: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT decision FROM request_log WHERE decision IS NOT NULL")
            .fetch_all(&mut database)
            .await
            .unwrap();
    let decisions: Vec<_> = records.iter().map(|it| Decision::decode(&**it).unwrap()).collect();
    let count = |of: fn(&Decision) -> bool| decisions.iter().filter(|it| of(it)).count();
    let cooling = count(|it| it.eliminated.iter().any(|it| it.reason() == EliminationReason::Cooling));
    let fell_back = count(|it| it.attempts.len() > 1);
    let refused = count(|it| it.refusal.is_some());
    assert!(cooling > 1000 && fell_back > 5 && refused > 500, "{cooling} {fell_back} {refused}");

    compare(&world, &cli, REQUESTS).await;
}

/// What the file changes, and that the log is the measure of it.
async fn compare(world: &World, cli: &Cli<'_>, requests: usize) {
    let file = world.fleet.dir().join("candidate.toml");
    let text = "[[model_groups]]\nname = \"smart\"\nstrategy = \"cost-based\"\nlinks = [[\"east\", \"west\"], [\"backup\"]]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let report = cli.json(&["replay", "--since", "1h", "--with", file]).await;
    let tally = &report["candidate"];
    assert_eq!(tally["compared"].as_u64(), Some(requests as u64), "{tally}");
    assert!(tally["changed"].as_u64().unwrap() > 100, "{tally}");
    let shares = tally["shares"].as_array().unwrap();
    let share = |name: &str, when: &str| {
        let found = shares.iter().find(|it| it["deployment"] == name);
        found.and_then(|it| it[when].as_u64()).unwrap_or(0)
    };
    // Cheapest first: the shaky one is gone, the cheaper of the others has it nearly all.
    assert_eq!(share("shaky", "after"), 0, "{tally}");
    assert!(
        share("west", "after") > share("west", "before") && share("west", "after") > share("east", "after"),
        "{tally}"
    );
    let sum = |when: &str| shares.iter().map(|it| it[when].as_u64().unwrap()).sum::<u64>();
    let (before, after) =
        (tally["refused_before"].as_u64().unwrap(), tally["refused_after"].as_u64().unwrap());
    assert_eq!((sum("before") + before, sum("after") + after), (requests as u64, requests as u64), "{tally}");
    assert!(tally["tag_refusals_before"].as_u64().unwrap() > 100, "{tally}");
    assert!(tally["cost_nanos_after"].as_i64() < tally["cost_nanos_before"].as_i64(), "{tally}");
    assert_eq!(tally["examples"].as_array().unwrap().len(), 10);

    println!("{}", cli.text(&["replay", "--since", "1h", "--with", file]).await);
    let text = cli.text(&["replay", "--since", "1h", "--limit", "500", "--with", file]).await;
    for expected in
        ["500 decisions came out", "FIRST CHOICE", "west", "re-priced", "nothing about latency or quality"]
    {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

/// A record that is damaged, one that says something else, and one of a revision that nobody knows: each is told.
#[tokio::test]
async fn a_decision_that_does_not_come_out_is_told_and_the_command_fails() {
    let world = world().await;
    world.load(60, 2).await;
    let cli = Cli::new(&world.fleet);
    assert_eq!(cli.json(&["replay"]).await["reproduced"], 60);
    let mut database = world.database().await;
    let ids: Vec<sqlx::types::Uuid> = sqlx::query_scalar(
        "SELECT request_id FROM request_log WHERE http_status = 200 ORDER BY request_id LIMIT 4",
    )
    .fetch_all(&mut database)
    .await
    .unwrap();
    for (id, change) in ids.iter().zip([
        "decision = substring(decision for 20)",
        // Another deployment: ids begin at the fifth byte.
        "decision = set_byte(decision, 8, 255 - get_byte(decision, 8))",
        "config_revision = 1000000",
        "decision = NULL",
    ]) {
        let sql = format!("UPDATE request_log SET {change} WHERE request_id = $1");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).execute(&mut database).await.unwrap();
    }
    let output = cli.run(&["replay", "--json"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["requests"].as_u64(), report["not_routed"].as_u64()), (Some(60), Some(1)), "{report}");
    let told = report["failures"].as_array().unwrap();
    let reason = |at: usize| {
        let found = told.iter().find(|it| it["request_id"] == ids[at].to_string());
        found.map(|it| it["reason"].as_str().unwrap().to_owned())
    };
    assert!(reason(0).unwrap().contains("damaged"), "{report}");
    assert!(reason(1).unwrap().contains("picks were"), "{report}");
    assert!(reason(2).unwrap().contains("1000000 is not in the history"), "{report}");
    assert_eq!((report["failed"].as_u64(), told.len()), (Some(3), 3), "{report}");
    let text = String::from_utf8(cli.run(&["replay"]).await.stdout).unwrap();
    assert!(text.contains(&ids[0].to_string()) && text.contains("did not"), "{text}");
}

#[tokio::test]
async fn a_file_that_means_nothing_is_refused_before_anything_is_read() {
    let world = world().await;
    let cli = Cli::new(&world.fleet);
    let file = world.fleet.dir().join("candidate.toml");
    for (text, expected) in [
        ("[[model_groups]]\nname = \"smart\"\nstrategy = \"fastest\"\nlinks = [[\"east\"]]", "fastest"),
        ("[[model_groups]]\nname = \"smart\"\nweigth = 1\nlinks = [[\"east\"]]", "weigth"),
        ("[routing]\nretries = 99", "routing.retries"),
    ] {
        std::fs::write(&file, text).unwrap();
        let refusal = cli.refusal(1, &["replay", "--with", file.to_str().unwrap()]).await;
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    world.load(20, 0).await;
    std::fs::write(&file, "[[model_groups]]\nname = \"smart\"\nlinks = [[\"nowhere\"]]").unwrap();
    let refusal = cli.refusal(1, &["replay", "--with", file.to_str().unwrap()]).await;
    assert!(refusal.contains("no deployment nowhere"), "{refusal}");
}
