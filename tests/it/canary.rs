//! Nothing of what passes stays behind: words that stand for secrets and prompts are sent through every path that
//! handles them, and then looked for in the logs (at their most talkative), on disk and in the database.

use nemo_tests::{
    fleet::{Fleet, MODEL, Pairing, UPSTREAM_KEY},
    script::{Ending, Script},
};
use serde_json::json;

use super::chat::chat;

const PROMPT: &str = "canary-prompt-91c2";
const COMPLETION: &str = "canary-completion-7d04";
const COOKIE: &str = "canary-cookie-5a5a";
const REFUSAL: &str = "canary-refusal-33e1";

fn streamed(content: &str) -> String {
    chat(content).replacen('{', r#"{"stream":true,"#, 1)
}

/// No prompt, no completion and no secret is stored or logged (I10).
#[tokio::test]
async fn i10_no_prompt_and_no_secret_is_kept() {
    let fleet = Fleet::start_logging(Pairing::from_env().unwrap(), "trace").await.unwrap();
    let client = fleet.client.clone().header("cookie", COOKIE).header("x-nemo-retries", "0");
    let post = async |body: String| client.post("/v1/chat/completions", body).await;

    // An answer, a stream, a stream that breaks, a refusal, a fault, an answer that is none.
    fleet.upstream.push(Script::ok().content(COMPLETION));
    assert_eq!(post(chat(PROMPT)).await.unwrap().status, 200);
    fleet.upstream.push(Script::ok().content(COMPLETION));
    assert_eq!(post(streamed(PROMPT)).await.unwrap().status, 200);
    fleet.upstream.push(Script::ok().content(COMPLETION).ending(Ending::Reset(700)));
    let _broken = post(streamed(PROMPT)).await;
    for status in [400, 500] {
        let message = json!({ "error": { "message": REFUSAL, "type": "x", "code": null } });
        fleet.upstream.push(Script::status(status).body(message.to_string()));
        assert!(post(chat(PROMPT)).await.unwrap().status >= 400);
    }
    fleet.upstream.push(Script::replay("application/json", format!("{COMPLETION} {{")));
    let _garbage = post(chat(PROMPT)).await;
    // Bodies that are refused here.
    let broken = format!("{{\"model\":\"{MODEL}\",\"messages\":[{{\"content\":\"{PROMPT}\"}}],,}}");
    assert_eq!(post(broken).await.unwrap().status, 400);
    // A key that is wrong by a letter, and an admin that sends a secret in a request that is refused.
    let wrong = format!("{}x", fleet.key);
    let refused = fleet.client_with(Some(&wrong)).post("/v1/chat/completions", chat(PROMPT)).await.unwrap();
    assert_eq!(refused.status, 401);
    let credential = json!({ "name": "", "provider": "custom", "secret": UPSTREAM_KEY });
    let refused = fleet.admin.call("POST", "/credentials", Some(&credential)).await.unwrap();
    assert!((400..500).contains(&refused.status), "{}", refused.status);
    fleet.request_log(6).await.unwrap();

    let logs = fleet.logs();
    assert!(logs.contains("TRACE"), "the processes log at their most talkative");
    let token = fleet.admin.token();
    for secret in [PROMPT, COMPLETION, COOKIE, REFUSAL, UPSTREAM_KEY, &fleet.key, token] {
        // The first start shows the token that it made, for the operator to keep.
        let mut lines = logs.lines().filter(|line| !line.starts_with("  Admin token "));
        if let Some(line) = lines.find(|line| line.contains(secret)) {
            panic!("{secret} in the log: {line}");
        }
        for file in walk(fleet.dir()) {
            // Whoever may read the data directory administers the gateway: that is what this file is for.
            if secret == token && file.ends_with("admin-token") {
                continue;
            }
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
