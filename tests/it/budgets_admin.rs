//! Budgets and rate limits as an operator sets them: soon in force on every node, bound at three levels, and gone when
//! they are deleted. Covers R001-10 and B11.

use std::time::{Duration, Instant};

use nemo_tests::{
    client::Response,
    eventually,
    fleet::{Fleet, text},
};
use serde_json::{Value, json};

use super::{chat::chat, cli::Cli};

/// A change is on a node within a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// Less than any request can cost at most.
const TINY: &str = "0.000001";

async fn ask(fleet: &Fleet) -> Response {
    fleet.client.post("/v1/chat/completions", &chat("hi")).await.unwrap()
}

fn code(response: &Response) -> String {
    response.json().unwrap()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// Waits for this status, and returns the answer and how long it took.
async fn becomes(fleet: &Fleet, status: u16) -> (Response, Duration) {
    let begun = Instant::now();
    let answer = eventually("the change is in force", async || {
        let answer = ask(fleet).await;
        anyhow::ensure!(answer.status == status, "{} {}", answer.status, answer.text());
        Ok(answer)
    })
    .await
    .unwrap();
    (answer, begun.elapsed())
}

async fn budget(fleet: &Fleet, name: &str, mut more: Value) -> String {
    more["name"] = json!(name);
    for (member, value) in [("limit_usd", TINY), ("window", "day"), ("over_budget", "reject")] {
        if more.get(member).is_none() {
            more[member] = json!(value);
        }
    }
    text(&fleet.admin.post(&fleet.org("/budgets"), more).await.unwrap(), "id").unwrap()
}

#[tokio::test]
async fn budgets_of_key_team_and_organization_all_bind_and_free_the_key_when_deleted() {
    let fleet = Fleet::start().await.unwrap();
    assert_eq!(ask(&fleet).await.status, 200);
    for (name, subject) in [
        ("key", json!({ "key_id": fleet.key_id })),
        ("team", json!({ "team_id": fleet.team_id })),
        ("organization", json!({})),
    ] {
        let id = budget(&fleet, name, subject).await;
        let (refused, took) = becomes(&fleet, 402).await;
        assert_eq!(code(&refused), "budget_exceeded");
        assert!(refused.text().contains(name), "it says which: {}", refused.text());
        assert!(took < SOON, "{name}: in force after {took:?}");
        // Nothing was sent, so nothing is spent.
        let budget = fleet.admin.get(&fleet.org(&format!("/budgets/{id}"))).await.unwrap();
        assert_eq!(budget["current"]["settled"]["nanos"], 0, "{budget}");
        fleet.admin.delete(&fleet.org(&format!("/budgets/{id}"))).await.unwrap();
        let (_, took) = becomes(&fleet, 200).await;
        assert!(took < SOON, "{name}: freed after {took:?}");
    }
}

/// Another key of the same team passes the budget of the first.
#[tokio::test]
async fn the_budget_of_one_key_leaves_others_alone_and_can_be_switched_off_and_raised() {
    let fleet = Fleet::start().await.unwrap();
    let (_, secret) = fleet.issue_key(json!({ "name": "beside" })).await.unwrap();
    let beside = fleet.client_with(Some(&secret));
    let id = budget(&fleet, "key", json!({ "key_id": fleet.key_id })).await;
    becomes(&fleet, 402).await;
    eventually("the other key passes", async || {
        let answer = beside.post("/v1/chat/completions", &chat("hi")).await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    })
    .await
    .unwrap();
    let path = fleet.org(&format!("/budgets/{id}"));
    fleet.admin.patch(&path, json!({ "disabled": true })).await.unwrap();
    becomes(&fleet, 200).await;
    fleet.admin.patch(&path, json!({ "disabled": false })).await.unwrap();
    becomes(&fleet, 402).await;
    fleet.admin.patch(&path, json!({ "limit_usd": "10" })).await.unwrap();
    becomes(&fleet, 200).await;
}

/// What was spent shows, thresholds that it crossed were told, and the limit can't go below it.
#[tokio::test]
async fn a_budget_shows_what_was_spent_and_tells_its_thresholds() {
    let fleet = Fleet::start().await.unwrap();
    let id = budget(&fleet, "watched", json!({ "limit_usd": "0.05", "thresholds": [1, 90] })).await;
    let path = fleet.org(&format!("/budgets/{id}"));
    fleet.admin.patch(&format!("{path}?wait=fleet"), json!({ "name": "watched" })).await.unwrap();
    becomes(&fleet, 200).await;
    let spent = eventually("requests are settled, and what they crossed is told", async || {
        // Each costs a fraction of a percent.
        ask(&fleet).await;
        let current = fleet.admin.get(&path).await?["current"].clone();
        let settled = current["settled"]["nanos"].as_i64().unwrap_or_default();
        anyhow::ensure!(settled > 0, "{current}");
        anyhow::ensure!(current["crossings"][0]["percent"] == 1, "{current}");
        Ok(current)
    })
    .await
    .unwrap();
    let nanos = |member: &str| spent[member]["nanos"].as_i64().unwrap();
    assert_eq!(nanos("limit"), 50_000_000);
    assert_eq!(
        nanos("remaining"),
        nanos("limit") - nanos("settled") - nanos("overrun") - nanos("outstanding"),
        "{spent}"
    );
    assert_eq!(spent["crossings"].as_array().unwrap().len(), 1, "90 percent are not reached: {spent}");
    let below = fleet.admin.call("PATCH", &path, Some(&json!({ "limit_usd": "0" }))).await.unwrap();
    assert_eq!(below.status, 400, "{}", below.text());
    assert!(below.text().contains("limit_usd") && below.text().contains("at least"), "{}", below.text());
    let leases = fleet.admin.get(&format!("{path}/leases")).await.unwrap();
    let lease = &leases["leases"][0];
    assert!(lease["state"] == "active" && !lease["node_id"].as_str().unwrap().is_empty(), "{leases}");
    // Its node lives, so what it holds is not given twice.
    let release = format!("{path}/leases/{}/release", lease["id"].as_str().unwrap());
    let refused = fleet.admin.call("POST", &release, Some(&json!({}))).await.unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text());
}

#[tokio::test]
async fn a_rate_limit_is_in_force_soon_and_gone_when_deleted() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "name": "slow", "key_id": fleet.key_id, "requests_per_minute": 1 });
    let made = fleet.admin.post(&fleet.org("/rate-limits?wait=fleet"), request).await.unwrap();
    let (refused, took) = becomes(&fleet, 429).await;
    assert!(took < SOON, "in force after {took:?}");
    assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
    let path = fleet.org(&format!("/rate-limits/{}", made["id"].as_str().unwrap()));
    fleet.admin.delete(&path).await.unwrap();
    let (_, took) = becomes(&fleet, 200).await;
    assert!(took < SOON, "freed after {took:?}");
}

/// The nouns of the command line.
#[tokio::test]
async fn budgets_and_limits_are_managed_from_the_command_line() {
    let fleet = Fleet::start().await.unwrap();
    let (cli, org) = (Cli::new(&fleet), fleet.org_id.as_str());
    let scope = ["--org", org];
    let create = ["budgets", "create", "ci", "--limit", "2.50", "--window", "rolling", "--hours", "6"];
    let rest = ["--key", "first", "--threshold", "80", "--over-budget", "reject"];
    let made = cli.json(&[&create[..], &rest[..], &scope[..]].concat()).await;
    assert_eq!((&made["limit_nanos"], &made["window_hours"]), (&json!(2_500_000_000_i64), &json!(6)));
    assert_eq!((&made["key_id"], &made["thresholds"]), (&json!(fleet.key_id), &json!([80])));
    let table = cli.text(&["budgets", "list", "--org", org]).await;
    for part in ["ci", "key", "rolling 6 h", "2.5", "enabled"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let changed =
        cli.json(&["budgets", "update", "ci", "--limit", "3", "--threshold", "0", "--org", org]).await;
    assert_eq!((&changed["limit_usd"], &changed["thresholds"]), (&json!("3"), &json!([])));
    assert_eq!(cli.json(&["budgets", "show", "ci", "--org", org]).await["limit_usd"], "3");
    cli.text(&["budgets", "leases", "ci", "--org", org]).await;
    let refusal = cli.refusal(1, &["budgets", "update", "ci", "--limit", "-5", "--org", org]).await;
    assert!(refusal.contains("limit_usd"), "{refusal}");

    let create = ["limits", "create", "pace", "--requests", "60", "--model", "test-*", "--org", org];
    assert_eq!(cli.json(&create).await["requests_per_minute"], 60);
    let update = ["limits", "update", "pace", "--requests", "0", "--concurrent", "4", "--org", org];
    let changed = cli.json(&update).await;
    assert_eq!((&changed["requests_per_minute"], &changed["concurrent"]), (&Value::Null, &json!(4)));
    assert!(cli.text(&["limits", "list", "--org", org]).await.contains("pace"));
    for noun in ["budgets", "limits"] {
        let name = if noun == "budgets" { "ci" } else { "pace" };
        assert!(cli.text(&[noun, "delete", name, "--org", org]).await.starts_with("deleted "));
        assert_eq!(cli.json(&[noun, "list", "--org", org]).await, json!([]));
    }
}

/// R000-9: budgets and limits of a file come, change, and go with --prune.
#[tokio::test]
async fn a_file_brings_budgets_and_limits_and_prune_takes_them_away() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let path = fleet.dir().join("limits.toml");
    let file = path.to_str().unwrap();
    let write = |text: String| std::fs::write(&path, text).unwrap();
    let apply = async |options: &[&str]| cli.json(&[&["apply", "-f", file, "--yes"], options].concat()).await;
    let kinds = |report: &Value| -> Vec<String> {
        let changes = report["changes"].as_array().unwrap().iter();
        changes
            .map(|it| {
                format!(
                    "{} {} {}",
                    it["action"].as_str().unwrap(),
                    it["kind"].as_str().unwrap(),
                    it["name"].as_str().unwrap()
                )
            })
            .collect()
    };
    let declared = |limit: &str, window: &str| {
        format!(
            "[[organizations]]\nname = \"acme\"\n\n[[keys]]\nname = \"ci\"\norganization = \"acme\"\nteam = \"build\"\n\n\
             [[budgets]]\nname = \"ci\"\norganization = \"acme\"\nteam = \"build\"\nkey = \"ci\"\n\
             limit = \"{limit}\"\nwindow = \"{window}\"\nthresholds = [80]\n\n\
             [[limits]]\nname = \"pace\"\norganization = \"acme\"\nrequests_per_minute = 60\n"
        )
    };
    write(declared("5.00", "day"));
    let made = kinds(&apply(&[]).await);
    for change in ["create budget ci", "create rate limit pace", "create key ci"] {
        assert!(made.iter().any(|made| made == change), "{change} is not in {made:?}");
    }
    assert_eq!(kinds(&apply(&[]).await), Vec::<String>::new(), "a second time it finds nothing");
    write(declared("7.5", "day"));
    assert_eq!(kinds(&apply(&[]).await), ["change budget ci"]);
    // A window is for life: another one is another budget.
    write(declared("7.5", "week"));
    assert_eq!(kinds(&apply(&[]).await), ["remove budget ci", "create budget ci"]);
    write("[[organizations]]\nname = \"acme\"\n".to_owned());
    assert_eq!(kinds(&apply(&[]).await), Vec::<String>::new(), "nothing goes unless asked for");
    assert_eq!(kinds(&apply(&["--prune"]).await), ["remove budget ci", "remove rate limit pace"]);
}
