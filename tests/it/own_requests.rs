//! What became of a request, for the client that made it; spend over time; and the ledger that all of it adds up in.
//! Covers R001-5, R001-10, R000-11, E.6.

use std::process::Command;

use nemo_tests::{
    fleet::{Fleet, MODEL, Pairing},
    script::Script,
    site::binary_path,
};
use serde_json::{Value, json};

use super::chat::chat;

/// At once: the event is on its way, and is waited for.
#[tokio::test]
async fn a_client_asks_for_its_request_right_after_it() {
    let fleet = Fleet::start().await.unwrap();
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let id = response.header("x-request-id").unwrap().to_owned();
    let answer = fleet.client.get(&format!("/v1/requests/{id}")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = answer.json().unwrap();
    let cost = response.header("x-nemo-cost-usd").unwrap();
    for (member, value) in [
        ("id", json!(id)),
        ("object", json!("request")),
        ("endpoint", json!("chat.completions")),
        ("requested_model", json!(MODEL)),
        ("model", json!(MODEL)),
        ("provider", json!("custom")),
        ("outcome", json!("ok")),
        ("http_status", json!(200)),
        ("finish_reason", json!("stop")),
        ("cost_usd", json!(cost)),
        ("cost_source", json!("priced")),
        ("attempts", json!(1)),
        ("stream", json!(false)),
        ("error_code", Value::Null),
    ] {
        assert_eq!(request[member], value, "{member} in {request}");
    }
    let usage = &response.json().unwrap()["usage"];
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(request["usage"][count], usage[count], "{request}");
    }
    assert_eq!(request["attempted"][0]["status"], 200, "{request}");
    assert_eq!(request["decision"]["candidates"][0]["model"], MODEL, "{request}");
    assert!(
        request["timings"]["total_ms"].as_f64() >= request["timings"]["upstream_ms"].as_f64(),
        "{request}"
    );
    // What is the operator's stays there.
    let text = answer.text();
    for secret in ["node_id", "lease", "base_url", "credential", "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }

    let generation = fleet.client.get(&format!("/api/v1/generation?id={id}")).await.unwrap();
    let generation = generation.json().unwrap()["data"].take();
    assert_eq!((generation["id"].as_str(), generation["model"].as_str()), (Some(&*id), Some(MODEL)));
    assert_eq!(generation["total_cost"].to_string(), cost);
    assert_eq!(generation["native_tokens_prompt"], usage["prompt_tokens"]);
    assert_eq!(generation["provider_name"], "custom");
    let prefixed = fleet.client.get(&format!("/api/v1/generation?id=gen-{id}")).await.unwrap();
    assert_eq!(prefixed.status, 200);
}

#[tokio::test]
async fn a_request_is_found_by_the_clients_own_id_too() {
    let fleet = Fleet::start().await.unwrap();
    // A UUID of the client's is no less its own than "trace:7".
    for id in ["trace:7/b", "3b241101-e2bb-4255-8caf-4136c566a962"] {
        let client = fleet.client.clone().header("x-request-id", id);
        let response = client.post("/v1/chat/completions", chat(id)).await.unwrap();
        assert_eq!(response.header("x-request-id"), Some(id));
        let answer = fleet.client.get(&format!("/v1/requests/{id}")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json().unwrap()["client_request_id"], id);
    }
}

#[tokio::test]
async fn a_key_is_told_of_its_own_requests_and_of_no_others() {
    let fleet = Fleet::start().await.unwrap();
    let client = fleet.client.clone().header("x-request-id", "shared-name");
    client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let id = fleet.request_log(1).await.unwrap()[0]["id"].as_str().unwrap().to_owned();
    let (_, secret) = fleet.issue_key(json!({ "name": "other" })).await.unwrap();
    let other = fleet.client_with(Some(&secret));
    fleet.settled(&other).await.unwrap();
    for path in [
        format!("/v1/requests/{id}"),
        "/v1/requests/shared-name".into(),
        format!("/api/v1/generation?id={id}"),
    ] {
        assert_eq!(fleet.client.get(&path).await.unwrap().status, 200, "{path}");
        let refused = other.get(&path).await.unwrap();
        assert_eq!(refused.status, 404, "{path}: {}", refused.text());
        assert_eq!(fleet.client_with(None).get(&path).await.unwrap().status, 401, "{path}");
    }
    let refused = other.get(&format!("/v1/requests/{id}")).await.unwrap().json().unwrap();
    assert_eq!(refused["error"]["code"], "request_not_found");
    // OpenRouter's form, with a number.
    let refused = other.get(&format!("/api/v1/generation?id={id}")).await.unwrap().json().unwrap();
    assert_eq!(refused["error"]["code"], 404);
}

#[tokio::test]
async fn what_is_no_id_is_refused_and_nothing_is_written_through_it() {
    let fleet = Fleet::start().await.unwrap();
    let long = "x".repeat(129);
    for path in
        ["/api/v1/generation".to_owned(), "/api/v1/generation?id=".into(), format!("/v1/requests/{long}")]
    {
        let refused = fleet.client.get(&path).await.unwrap();
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
    }
    assert_eq!(fleet.client.post("/v1/requests/x", "{}").await.unwrap().status, 405);
    // No client's id either, so that there is nothing to wait for.
    let refused = fleet.client.get("/v1/requests/a%20b").await.unwrap();
    assert_eq!(
        (refused.status, &refused.json().unwrap()["error"]["code"]),
        (404, &json!("request_not_found"))
    );
    assert!(refused.first_byte < std::time::Duration::from_millis(3500), "{:?}", refused.first_byte);
}

/// An infrastructure fault is 503 with a hint, never 404: the client would believe that there was no such request.
#[tokio::test]
async fn while_the_control_plane_is_away_the_client_is_told_to_come_again() {
    let mut fleet = Fleet::start_as(Pairing::Fleet).await.unwrap();
    let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let id = response.header("x-request-id").unwrap().to_owned();
    fleet.control_plane.take().unwrap().stop().await.unwrap();
    let refused = fleet.client.get(&format!("/v1/requests/{id}")).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(refused.json().unwrap()["error"]["code"], "request_log_unavailable");
    fleet.start_control_plane().await.unwrap();
    nemo_tests::eventually("the request is found", async || {
        let found = fleet.client.get(&format!("/v1/requests/{id}")).await?;
        anyhow::ensure!(found.status == 200, "{} {}", found.status, found.text());
        Ok(())
    })
    .await
    .unwrap();
}

/// Streams: the cost that no header can carry.
#[tokio::test]
async fn a_streams_cost_is_found_after_it() {
    let fleet = Fleet::start().await.unwrap();
    let body = json!({ "model": MODEL, "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let response = fleet.client.post("/v1/chat/completions", body.to_string()).await.unwrap();
    let id = response.header("x-request-id").unwrap().to_owned();
    let request = fleet.client.get(&format!("/v1/requests/{id}")).await.unwrap().json().unwrap();
    assert_eq!(request["stream"], true, "{request}");
    assert!(request["cost_usd"].as_str().unwrap().parse::<f64>().unwrap() > 0.0, "{request}");
    assert!(request["timings"]["first_byte_ms"].is_number(), "{request}");
}

/// R000-11, R001-10: one call each, within seconds.
#[tokio::test]
async fn spend_per_key_team_organization_and_model_shows_soon_after_the_request() {
    let fleet = Fleet::start().await.unwrap();
    let mut cost = 0_u64;
    for _ in 0..3 {
        let response = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
        cost += nanos(response.header("x-nemo-cost-usd").unwrap());
    }
    for (by, member, value) in [
        ("key", "key_id", fleet.key_id.clone()),
        ("team", "team_id", fleet.team_id.clone()),
        ("org", "org_id", fleet.org_id.clone()),
        ("model", "model", MODEL.to_owned()),
    ] {
        for interval in ["hour", "day"] {
            let path = fleet.org(&format!("/usage?group_by={by}&interval={interval}"));
            let rows = nemo_tests::eventually("the spend shows", async || {
                let rows = fleet.admin.get(&path).await?["rows"].take();
                let requests: u64 =
                    rows.as_array().into_iter().flatten().filter_map(|row| row["requests"].as_u64()).sum();
                anyhow::ensure!(requests == 3, "{rows}");
                Ok(rows)
            })
            .await
            .unwrap();
            let rows = rows.as_array().unwrap();
            assert!(rows.iter().all(|row| row[member] == *value && row["start"].is_string()), "{rows:?}");
            assert_eq!(rows.iter().map(|row| nanos(row["cost_usd"].as_str().unwrap())).sum::<u64>(), cost);
        }
    }
}

/// Requests that cost something, some of them failed, on three budgets: log, ledger and totals agree, and
/// `nemo ledger verify` says so; after somebody has changed a total it names that one, with exit code 1.
#[tokio::test]
async fn the_ledger_adds_up_and_what_does_not_is_named() {
    let fleet = Fleet::start().await.unwrap();
    for (name, member) in [
        ("org", json!({})),
        ("team", json!({ "team_id": fleet.team_id })),
        ("key", json!({ "key_id": fleet.key_id })),
    ] {
        let mut budget = json!({ "name": name, "limit_usd": "1000", "window": "total" });
        budget.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        fleet.admin.post(&fleet.org("/budgets?wait=fleet"), budget).await.unwrap();
    }
    fleet.tolerant().await.unwrap();
    nemo_tests::eventually("requests pass", async || {
        let response = fleet.client.post("/v1/chat/completions", chat("hi")).await?;
        anyhow::ensure!(response.status == 200, "{}", response.text());
        Ok(())
    })
    .await
    .unwrap();
    for at in 0..10 {
        if at % 5 == 0 {
            fleet.upstream.push(Script::status(400));
        }
        fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    }
    fleet.count_requests("ok", 9).await.unwrap();
    let report = fleet.admin.get("/ledger/verification").await.unwrap();
    assert_eq!(report["ok"], true, "{report}");
    assert!(report["charges"].as_u64() >= Some(3 * 9), "{report}");
    assert_eq!(report["settled_nanos"], report["charged_nanos"], "{report}");
    assert!(report["settled_nanos"].as_i64() > Some(0), "{report}");

    let entries = fleet.admin.get(&fleet.org("/ledger?kind=settle&page_size=2")).await.unwrap();
    assert_eq!(entries["entries"].as_array().unwrap().len(), 2, "{entries}");
    let next = entries["next_page_token"].as_str().unwrap();
    let more = fleet
        .admin
        .get(&fleet.org(&format!("/ledger?kind=settle&page_size=2&page_token={next}")))
        .await
        .unwrap();
    assert!(more["entries"][0]["id"].as_u64() < entries["entries"][1]["id"].as_u64(), "{more}");

    let (ok, out) = nemo(&fleet, &["ledger", "verify"]);
    assert!(ok && out.contains("every total is their sum") && out.contains("USD settled"), "{out}");
    let (ok, out) = nemo(&fleet, &["ledger", "list", "--kind", "settle"]);
    assert!(ok && out.contains("settle") && out.contains("usage:"), "{out}");
    let mut database = <sqlx::PgConnection as sqlx::Connection>::connect(fleet.database.url()).await.unwrap();
    sqlx::query("UPDATE budget_windows SET settled_nanos = settled_nanos + 1")
        .execute(&mut database)
        .await
        .unwrap();
    let (ok, out) = nemo(&fleet, &["ledger", "verify"]);
    assert!(!ok && out.contains("3 differences") && out.contains("what is settled of a window"), "{out}");
}

/// Standard output and error together.
fn nemo(fleet: &Fleet, args: &[&str]) -> (bool, String) {
    let output = Command::new(binary_path("nemo").unwrap())
        .args(args)
        .env("NEMO_ADMIN_URL", format!("http://{}", fleet.grpc_addr()))
        .env("NEMO_ADMIN_TOKEN", fleet.admin.token())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Of decimal USD.
fn nanos(usd: &str) -> u64 {
    let (whole, fraction) = usd.split_once('.').unwrap_or((usd, "0"));
    whole.parse::<u64>().unwrap() * 1_000_000_000 + format!("{fraction:0<9}").parse::<u64>().unwrap()
}
