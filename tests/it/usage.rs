//! The request log: one row per request, through the whole path.

use std::collections::HashSet;

use nemo_tests::{
    fleet::{Fleet, MODEL, UPSTREAM_MODEL},
    script::Script,
};
use serde_json::json;

use super::chat::chat;

/// R004-29, R004-30.
#[tokio::test]
async fn a_request_leaves_one_row_with_what_happened() {
    let fleet = Fleet::start().await.unwrap();
    let client =
        fleet.client.clone().header("x-request-id", "mine-1").header("x-nemo-metadata", r#"{"team":"red"}"#);
    let response = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(response.status, 200);
    let row = fleet.request_log(1).await.unwrap().remove(0);
    for (member, value) in [
        ("org_id", json!(fleet.org_id)),
        ("team_id", json!(fleet.team_id)),
        ("key_id", json!(fleet.key_id)),
        ("endpoint", json!("chat.completions")),
        ("requested_model", json!(MODEL)),
        ("model", json!(MODEL)),
        ("provider", json!("custom")),
        ("upstream_model", json!(UPSTREAM_MODEL)),
        ("outcome", json!("ok")),
        ("http_status", json!(200)),
        ("finish_reason", json!("stop")),
        ("usage_estimated", json!(false)),
        ("cost_source", json!("priced")),
        ("attempts", json!(1)),
        ("strategy", json!("simple-shuffle")),
        ("client_request_id", json!("mine-1")),
        ("cost_usd", json!(response.header("x-nemo-cost-usd").unwrap())),
    ] {
        assert_eq!(row[member], value, "{member} in {row}");
    }
    let metadata: serde_json::Value = serde_json::from_str(row["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(metadata, json!({ "team": "red" }));
    assert_eq!(row["request_bytes"].as_u64(), Some(chat("hi").len() as u64));
    assert_eq!(row["response_bytes"].as_u64(), Some(response.body.len() as u64));
    assert!(row["total_us"].as_u64() >= row["upstream_us"].as_u64(), "{row}");
    let one =
        fleet.admin.get(&fleet.org(&format!("/requests/{}", row["id"].as_str().unwrap()))).await.unwrap();
    assert_eq!(one, row);
}

#[tokio::test]
async fn every_request_is_logged_exactly_once() {
    let fleet = Fleet::start().await.unwrap();
    let total = 200;
    let mut requests = tokio::task::JoinSet::new();
    for at in 0..total {
        let client = fleet.client.clone();
        if at % 10 == 0 {
            fleet.upstream.push(Script::status(500));
        }
        requests.spawn(async move { client.post("/v1/chat/completions", chat("hi")).await.unwrap().status });
    }
    let statuses = requests.join_all().await;
    let failed = statuses.iter().filter(|status| **status == 502).count();
    let listed = nemo_tests::eventually("all rows", async || {
        let listed = fleet.admin.get(&format!("{}?page_size=1000", fleet.org("/requests"))).await?;
        let rows = listed["requests"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(rows.len() >= total, "{}", rows.len());
        Ok(rows)
    })
    .await
    .unwrap();
    let ids: HashSet<_> = listed.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((listed.len(), ids.len()), (total, total));
    assert_eq!(listed.iter().filter(|row| row["http_status"] == 502).count(), failed);
    assert_eq!(fleet.upstream.served(), total as u64);
}

#[tokio::test]
async fn the_log_can_be_filtered_and_paged() {
    let fleet = Fleet::start().await.unwrap();
    for at in 0..5 {
        if at == 2 {
            fleet.upstream.push(Script::status(500));
        }
        fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    }
    fleet.request_log(5).await.unwrap();
    let path = fleet.org("/requests");
    let errors = fleet.admin.get(&format!("{path}?outcome=error")).await.unwrap();
    assert_eq!(errors["requests"].as_array().unwrap().len(), 1);
    let mut seen = HashSet::new();
    let mut token = String::new();
    for _ in 0..5 {
        let page = fleet.admin.get(&format!("{path}?page_size=2&page_token={token}")).await.unwrap();
        for row in page["requests"].as_array().unwrap() {
            assert!(seen.insert(row["id"].as_str().unwrap().to_owned()));
        }
        token = page["next_page_token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
}

/// No prompt, no completion and no secret is stored or logged (I10).
#[tokio::test]
async fn i10_no_prompt_and_no_secret_is_kept() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::ok().content("canary-completion"));
    fleet.client.post("/v1/chat/completions", chat("canary-prompt")).await.unwrap();
    fleet.request_log(1).await.unwrap();
    let logs = fleet.logs();
    let secrets = ["canary-prompt", "canary-completion", nemo_tests::fleet::UPSTREAM_KEY, fleet.key.as_str()];
    for secret in secrets {
        assert!(!logs.contains(secret), "{secret} in the log");
        for file in walk(fleet.dir()) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(
                !bytes.windows(secret.len()).any(|it| it == secret.as_bytes()),
                "{secret} in {}",
                file.display()
            );
        }
        let found = database_contains(&fleet, secret).await.unwrap();
        assert_eq!(found, None, "{secret} in the database");
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// The first table that holds the text in any column.
async fn database_contains(fleet: &Fleet, text: &str) -> anyhow::Result<Option<String>> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(fleet.database.url()).await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&mut connection)
    .await?;
    assert!(tables.iter().any(|table| table.contains("request_log")), "{tables:?}");
    for table in tables {
        let query = format!("SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%' || $1 || '%'");
        let hits: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(text).fetch_one(&mut connection).await?;
        if hits > 0 {
            return Ok(Some(table));
        }
    }
    Ok(None)
}
