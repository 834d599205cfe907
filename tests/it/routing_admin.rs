//! What routing decides by, written over the real ports and read from a file: chains, required tags, loads, settings.
//! What is refused is refused with the member, and what is published stays.

use nemo_tests::{
    eventually,
    fleet::{Fleet, MODEL},
};
use serde_json::{Value, json};

use super::{chat::chat, cli::Cli, docs};

/// A problem document and the member that it names.
async fn refused(fleet: &Fleet, method: &str, path: &str, body: &Value) -> (Value, String) {
    let answer = fleet.admin.call(method, path, Some(body)).await.unwrap();
    assert_eq!(answer.status, 400, "{method} {path} {body}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json().unwrap();
    let error = problem["errors"][0].clone();
    assert!(error["expected"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    (problem, error["field"].as_str().unwrap_or_default().to_owned())
}

/// A model of the catalog with one deployment that nobody listens behind; the deployment's id.
async fn serve(fleet: &Fleet, id: &str, model: Value) -> String {
    let mut entry = json!({ "id": id, "owned_by": "tests", "endpoints": ["chat.completions"] });
    entry.as_object_mut().unwrap().extend(model.as_object().unwrap().clone());
    fleet.admin.put(&format!("/models/{id}"), json!({ "model": entry })).await.unwrap();
    let deployment = json!({
        "provider": "custom", "base_url": "http://127.0.0.1:9/v1", "model": id, "rpm": 60, "tpm": 90_000
    });
    let made = fleet.admin.post("/deployments", deployment).await.unwrap();
    assert_eq!((&made["rpm"], &made["tpm"]), (&json!(60), &json!(90_000)));
    made["id"].as_str().unwrap().to_owned()
}

fn link(deployment: &str) -> Value {
    json!({ "deployments": [{ "deployment_id": deployment, "weight": 1 }] })
}

async fn revision(fleet: &Fleet) -> Value {
    fleet.admin.get("/nodes").await.unwrap()["nodes"][0]["revision"].clone()
}

/// R004-8, R004-22: bad input is a problem that names its member, and the published configuration stays as it is.
#[tokio::test]
async fn what_can_not_be_routed_is_refused_with_its_member_and_the_published_snapshot_stays() {
    let fleet = Fleet::start().await.unwrap();
    let sees = serve(&fleet, "it-sees", json!({ "tags": ["vision"], "context_window": 100_000 })).await;
    let blind = serve(&fleet, "it-blind", json!({ "tags": ["code"], "context_window": 1_000 })).await;
    let vectors = serve(&fleet, "it-vectors", json!({ "endpoints": ["embeddings"] })).await;
    let path = fleet.org("/model-groups");
    for (body, member) in [
        (json!({ "name": "g", "links": [link(&sees)], "strategy": "fastest" }), "strategy"),
        (json!({ "name": "g", "links": [link(&sees)], "required_tags": ["it-nope"] }), "required_tags[0]"),
        (
            json!({ "name": "g", "links": [link(&sees), link(&blind)], "required_tags": ["vision"] }),
            "links[1]",
        ),
        (json!({ "name": "g", "links": [link(&sees), link(&vectors)] }), "links[1]"),
        (json!({ "name": "g", "links": [] }), "links"),
        (json!({ "name": "g", "links": [{ "deployments": [] }] }), "links[0].deployments"),
        (
            json!({ "name": "g", "links": [{ "deployments": [{ "deployment_id": sees, "weight": 0 }] }] }),
            "links[0].deployments",
        ),
        (
            json!({ "name": "g", "links": [{ "deployments": [
                { "deployment_id": sees, "weight": 1 }, { "deployment_id": sees, "weight": 2 },
            ] }] }),
            "links[0].deployments[1].deployment_id",
        ),
    ] {
        assert_eq!(refused(&fleet, "POST", &path, &body).await.1, member, "{body}");
    }
    let settings = fleet.org("/settings");
    for (key, value) in [
        ("routing.strategy", "\"fastest\""),
        ("routing.retries", "99"),
        ("cooldown.window_ms", "0"),
        ("routing.max_cost_usd", "1"),
        ("routing.unsupported", "\"ignore\""),
        ("routing.unsupported", "1"),
    ] {
        let (problem, member) =
            refused(&fleet, "PUT", &format!("{settings}/{key}"), &json!({ "value": value })).await;
        assert_eq!(member, "value", "{problem}");
    }
    let (_, member) =
        refused(&fleet, "PUT", &format!("{settings}/routing.tricks"), &json!({ "value": "1" })).await;
    assert_eq!(member, "key");
    let key = json!({ "team_id": fleet.team_id, "name": "k", "default_tags": ["it-nope"] });
    assert_eq!(refused(&fleet, "POST", &fleet.org("/keys"), &key).await.1, "default_tags[0]");

    // Nothing of it was written, and requests go on.
    let groups = fleet.admin.get(&path).await.unwrap();
    assert_eq!(groups["model_groups"], json!([]), "{groups}");
    let client = fleet.client.clone();
    assert_eq!(client.post("/v1/chat/completions", chat("hi")).await.unwrap().status, 200);

    // A chain that is weaker further down is accepted, and says so.
    let body = json!({ "name": "it-weaker", "strategy": "least-busy", "links": [link(&sees), link(&blind)] });
    let made = fleet.admin.post(&path, body).await.unwrap();
    let warnings = made["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|text| text.as_str().unwrap().contains("1000 tokens")), "{made}");
    assert!(warnings.iter().any(|text| text.as_str().unwrap().contains("vision")), "{made}");
    // The catalog can't take away what a group needs.
    let group = format!("{path}/{}", made["id"].as_str().unwrap());
    let require = json!({ "links": { "links": [link(&sees)] }, "required_tags": { "names": ["vision"] } });
    fleet.admin.patch(&group, require).await.unwrap();
    let lost = json!({ "model": { "id": "it-sees", "owned_by": "tests", "tags": ["code"] } });
    let (problem, member) = refused(&fleet, "PUT", "/models/it-sees", &lost).await;
    assert_eq!(member, "model.tags");
    assert!(problem["detail"].as_str().unwrap().contains("it-weaker"), "{problem}");
}

/// R004-6, R004-20: a strategy, a tag and a setting reach the nodes with the next revision, without a restart.
#[tokio::test]
async fn settings_and_groups_of_an_organization_reach_its_nodes() {
    let fleet = Fleet::start().await.unwrap();
    let before = revision(&fleet).await;
    let deployments = fleet.admin.get(&format!("/deployments?model={MODEL}")).await.unwrap();
    let id = deployments["deployments"][0]["id"].as_str().unwrap();
    let body = json!({ "name": "it-busy", "strategy": "least-busy", "required_tags": ["code"], "links": [link(id)] });
    fleet.admin.post(&fleet.org("/model-groups"), body).await.unwrap();
    let put = json!({ "value": "\"cost-based\"" });
    fleet.admin.put(&fleet.org("/settings/routing.strategy"), put).await.unwrap();
    let client = fleet.client.clone();
    for (model, strategy) in [("it-busy", "least-busy"), (MODEL, "cost-based")] {
        eventually("the strategy is in force", async || {
            let answer = client.post("/v1/chat/completions", chat("hi").replace(MODEL, model)).await?;
            anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            let used = answer.header("x-nemo-strategy").unwrap_or_default();
            anyhow::ensure!(used == strategy, "{model}: {used}, expected {strategy}");
            Ok(())
        })
        .await
        .unwrap();
    }
    assert_ne!(revision(&fleet).await, before);
}

/// R004-31: the example chain of the documentation is what it says, and applying it twice changes nothing.
#[tokio::test]
async fn the_example_chain_of_the_documentation_applies() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let file = docs::root().join("docs/examples/fallback-chain.toml");
    let apply = async |option: &str| {
        let mut command = cli.command(["apply", "-f", file.to_str().unwrap(), option]);
        for name in ["VERTEX_ACCESS_TOKEN", "ANTHROPIC_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "OPENAI_API_KEY"]
        {
            command.env(name, "not-a-real-key-000");
        }
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = apply("--yes").await;
    assert_eq!(code, Some(0), "{out} {err}");
    for line in
        ["+ model group assistant", "required_tags: vision, function-calling", "+ setting cooldown.window_ms"]
    {
        assert!(out.contains(line), "{line} is not in\n{out}");
    }
    // The last fallback is the smallest.
    assert!(err.contains("128000 tokens of context"), "{err}");

    let group = cli.json(&["groups", "get", "assistant"]).await;
    assert_eq!(group["strategy"], "latency-based");
    let deployments = cli.json(&["deployments", "list"]).await;
    let name = |id: &Value| {
        let found = deployments.as_array().unwrap().iter().find(|deployment| deployment["id"] == *id);
        found.unwrap()["name"].as_str().unwrap().trim_start_matches("file:").to_owned()
    };
    let chain: Vec<String> = group["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(|link| name(&link["deployments"][0]["deployment_id"]))
        .collect();
    let expected = [
        "vertex/gemini-2.5-flash",
        "anthropic/claude-3.5-sonnet",
        "bedrock/claude-3-haiku",
        "openai/gpt-4o-mini",
    ];
    assert_eq!(chain, expected);
    let value = async |key: &str| cli.json(&["settings", "get", key]).await["value"].clone();
    assert_eq!(
        (value("cooldown.window_ms").await, value("routing.retries").await),
        (json!("5000"), json!("3"))
    );
    let (code, out, err) = apply("--dry-run").await;
    assert_eq!((code, out.trim()), (Some(0), "no changes"), "{err}");
}
