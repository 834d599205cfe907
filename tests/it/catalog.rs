//! The catalog sync from a source to a served request: a changed price, a new model and a vanished one (R004-33).

use std::sync::{Arc, Mutex};

use axum::{Router, extract::State, http::HeaderMap, routing::get};
use nemo_tests::{admin::text, eventually, fleet::Fleet};
use serde_json::{Value, json};

/// What the sources say at the moment.
#[derive(Clone, Default)]
struct Said {
    registry: Arc<Mutex<String>>,
    provider: Arc<Mutex<String>>,
    /// How the provider was asked.
    authorization: Arc<Mutex<String>>,
}

impl Said {
    fn registry(&self, models: &Value) {
        *self.registry.lock().unwrap() =
            json!({ "openai": { "models": models }, "nobody": { "models": {} } }).to_string();
    }

    fn provider(&self, ids: &[&str]) {
        let data: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "object": "model" })).collect();
        *self.provider.lock().unwrap() = json!({ "object": "list", "data": data }).to_string();
    }

    /// Its address.
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    async fn serve(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let registry = async |State(said): State<Said>| said.registry.lock().unwrap().clone();
        let provider = async |State(said): State<Said>, headers: HeaderMap| {
            let shown = headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
            shown.clone_into(&mut said.authorization.lock().unwrap());
            said.provider.lock().unwrap().clone()
        };
        let router = Router::new()
            .route("/api.json", get(registry))
            .route("/v1/models", get(provider))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        addr
    }
}

fn model(input: f64, output: f64) -> Value {
    json!({
        "name": "A model", "tool_call": true, "cost": { "input": input, "output": output },
        "limit": { "context": 128_000, "output": 16_000 },
        "modalities": { "input": ["text"], "output": ["text"] },
    })
}

fn changes(answer: &Value) -> Vec<(String, String, String)> {
    let of = |change: &Value, name: &str| change[name].as_str().unwrap_or_default().to_owned();
    let all = answer["changes"].as_array().into_iter().flatten();
    let mut all: Vec<_> = all.map(|it| (of(it, "model"), of(it, "kind"), of(it, "state"))).collect();
    all.sort();
    all
}

fn told(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    expected.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

#[tokio::test]
async fn a_changed_price_is_written_a_new_model_is_served_and_a_vanished_one_waits_for_approval() {
    let said = Said::default();
    let sources = said.serve().await;
    said.registry(
        &json!({ "sync-a": model(1.0, 2.0), "sync-b": model(1.0, 2.0), "sync-c": model(1.0, 2.0) }),
    );
    said.provider(&["sync-a", "sync-b", "sync-c"]);
    let setting = format!("providers,models.dev=http://{sources}/api.json");
    let fleet =
        Fleet::start_with_control(&[("NEMO_CATALOG_SOURCES", &setting), ("NEMO_CATALOG_SYNC_HOURS", "1000")])
            .await
            .unwrap();
    let admin = &fleet.admin;
    let sync =
        async |dry_run: bool| admin.post("/catalog/sync", json!({ "dry_run": dry_run })).await.unwrap();
    // The first run at start may have been faster; it knew the registry alone, and everything was new to it.
    eventually("the first run", async || {
        let runs = admin.get("/catalog/runs").await?;
        anyhow::ensure!(runs["runs"].as_array().is_some_and(|runs| !runs.is_empty()), "{runs}");
        Ok(())
    })
    .await
    .unwrap();
    let stored = admin.get("/models/sync-a").await.unwrap();
    assert_eq!((&stored["source"], &stored["context_window"]), (&json!("discovered"), &json!(128000)));
    assert_eq!(stored["offerings"][0]["price"]["input"], 1_000_000_000_i64);

    // The operator's account with a provider: one deployment that other models of the provider are deployed like.
    let credential = json!({ "name": "openai", "provider": "openai", "secret": "sk-of-the-operator" });
    let credential = admin.post("/credentials", credential).await.unwrap();
    let deployment = json!({
        "provider": "openai", "base_url": format!("http://{sources}/v1"), "credential_id": text(&credential, "id").unwrap(),
        "model": "sync-a", "upstream_model": "sync-a",
    });
    admin.post("/deployments", deployment).await.unwrap();

    // A changed price, a tenfold one, a new model, and one that is gone.
    said.registry(
        &json!({ "sync-a": model(0.8, 2.0), "sync-b": model(1.0, 20.0), "sync-d": model(3.0, 4.0) }),
    );
    said.provider(&["sync-a", "sync-b", "sync-d"]);
    let expected = told(&[
        ("sync-a", "price_changed", "applied"),
        ("sync-b", "price_changed", "held"),
        ("sync-c", "offering_vanished", "held"),
        ("sync-d", "model_added", "applied"),
    ]);
    let dry = sync(true).await;
    assert_eq!((changes(&dry), &dry["run_id"]), (expected.clone(), &json!("")), "{dry}");
    assert_eq!(
        admin.get("/models/sync-a").await.unwrap()["offerings"][0]["price"]["input"],
        1_000_000_000_i64
    );
    let done = sync(false).await;
    assert_eq!(changes(&done), expected, "{done}");
    assert_eq!((&done["applied"], &done["held"]), (&json!(2), &json!(2)));
    assert_eq!(*said.authorization.lock().unwrap(), "Bearer sk-of-the-operator");
    let names: Vec<_> = done["sources"].as_array().unwrap().iter().map(|source| &source["name"]).collect();
    assert!(names.contains(&&json!("providers:openai")) && names.contains(&&json!("models.dev")), "{done}");

    let a = admin.get("/models/sync-a").await.unwrap();
    assert_eq!(a["offerings"][0]["price"]["input"], 800_000_000_i64);
    let from = a["provenance"].as_array().unwrap();
    let price = from.iter().find(|field| field["field"] == "price").unwrap();
    assert_eq!((&price["source"], &price["provider"]), (&json!("models.dev"), &json!("openai")));
    assert_eq!(
        admin.get("/models/sync-b").await.unwrap()["offerings"][0]["price"]["output"],
        2_000_000_000_i64
    );
    let deployments = admin.get("/deployments?model=sync-d").await.unwrap();
    assert_eq!(
        deployments["deployments"][0]["upstream_model"], "sync-d",
        "usable without being set up: {deployments}"
    );
    eventually("the new model to be served", async || {
        let listed = fleet.client.get("/v1/models").await?.text();
        anyhow::ensure!(listed.contains("\"sync-d\""), "{listed}");
        Ok(())
    })
    .await
    .unwrap();

    // The same again is nothing new; what is held stays held, once.
    let again = sync(false).await;
    assert_eq!((&again["applied"], &again["held"]), (&json!(0), &json!(0)), "{again}");
    let held = admin.get("/catalog/changes?state=held").await.unwrap();
    let held = held["changes"].as_array().unwrap().clone();
    assert_eq!(held.len(), 2, "{held:?}");
    let id = |model: &str| text(held.iter().find(|it| it["model"] == model).unwrap(), "id").unwrap();
    let decide = async |model: &str, approve: bool| {
        let path = format!("/catalog/changes/{}/decision", id(model));
        admin.post(&path, json!({ "approve": approve })).await.unwrap()
    };
    assert_eq!(decide("sync-c", true).await["state"], "approved");
    assert_eq!(decide("sync-b", false).await["state"], "rejected");
    let gone = admin.get("/models/sync-c").await.unwrap_err().to_string();
    assert!(gone.contains("404"), "{gone}");
    assert_eq!(changes(&sync(true).await), [], "what was rejected is not proposed again");
    let twice = format!("/catalog/changes/{}/decision", id("sync-b"));
    let twice = admin.post(&twice, json!({ "approve": true })).await.unwrap_err().to_string();
    assert!(twice.contains("rejected"), "{twice}");

    // What an operator wrote stays as it is.
    admin
        .post("/prices", json!({ "model": "sync-a", "provider": "openai", "price": { "input": 5 } }))
        .await
        .unwrap_err();
    let own = json!({ "model": "sync-a", "provider": "openai", "price": { "input": 700_000_000, "output": 1 },
        "confirm_unusual_price": true });
    admin.post("/prices", own).await.unwrap();
    said.registry(
        &json!({ "sync-a": model(0.9, 2.0), "sync-b": model(1.0, 20.0), "sync-d": model(3.0, 4.0) }),
    );
    assert_eq!(changes(&sync(false).await), []);

    // A source that has nothing to say is told, and changes nothing.
    *said.registry.lock().unwrap() = "<html>".to_owned();
    let broken = sync(false).await;
    let source = broken["sources"].as_array().unwrap().iter().find(|it| it["name"] == "models.dev").unwrap();
    assert!(source["error"].as_str().unwrap().contains("no JSON"), "{broken}");
    assert_eq!(changes(&broken), []);
}
