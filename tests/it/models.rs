//! Model lists: the tenant's, and the public catalog.

use nemo_tests::fleet::{EMBEDDING_MODEL, Fleet, MODEL};
use serde_json::{Value, json};

fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

/// E.7, R001-4.
#[tokio::test]
async fn models_are_listed_with_limits_and_exact_prices() {
    let fleet = Fleet::start().await.unwrap();
    let list = fleet.client.get("/v1/models").await.unwrap().json().unwrap();
    assert_eq!(list["object"], "list");
    let names = ids(&list);
    assert!(names.contains(&MODEL.to_owned()) && names.contains(&EMBEDDING_MODEL.to_owned()), "{names:?}");
    let model = fleet.client.get(&format!("/v1/models/{MODEL}")).await.unwrap().json().unwrap();
    assert_eq!((model["object"].as_str(), model["owned_by"].as_str()), (Some("model"), Some("tests")));
    assert_eq!(model["context_length"], 128_000);
    assert_eq!(model["pricing"]["prompt"], "0.0000025");
    assert_eq!(model["tags"], json!(["code"]));
    // Ids contain slashes.
    let prefixed = fleet.client.get(&format!("/v1/models/custom/{MODEL}")).await.unwrap();
    assert_eq!(prefixed.status, 200, "{}", prefixed.text());
    assert_eq!(prefixed.json().unwrap()["canonical_slug"], MODEL);
}

/// R004-32: without a key, cacheable, without tenant data.
#[tokio::test]
async fn the_public_catalog_needs_no_key_and_has_an_etag() {
    let fleet = Fleet::start().await.unwrap();
    let own = json!({
        "name": "own", "provider": "custom", "base_url": fleet.upstream.base_url(),
        "model": MODEL, "upstream_model": "own-upstream",
    });
    let deployment = fleet.admin.post(&fleet.org("/deployments"), own).await.unwrap();
    let group = json!({ "name": "secret-project", "links": [{ "deployments": [
        { "deployment_id": deployment["id"], "weight": 1 },
    ]}]});
    fleet.admin.post(&fleet.org("/model-groups"), group).await.unwrap();
    nemo_tests::eventually("the group is served", async || {
        let names = ids(&fleet.client.get("/v1/models").await?.json()?);
        anyhow::ensure!(names.contains(&"secret-project".to_owned()), "{names:?}");
        Ok(())
    })
    .await
    .unwrap();

    let public = fleet.client_with(None);
    let first = public.get("/api/public/models").await.unwrap();
    assert_eq!(first.status, 200);
    let names = ids(&first.json().unwrap());
    assert!(names.contains(&MODEL.to_owned()) && !names.contains(&"secret-project".to_owned()), "{names:?}");
    assert!(first.header("cache-control").unwrap().contains("public"));
    let etag = first.header("etag").unwrap();
    let again = public.clone().header("if-none-match", etag).get("/api/public/models").await.unwrap();
    assert_eq!((again.status, again.body.len()), (304, 0));
    let other = public.header("if-none-match", "\"other\"").get("/api/public/models").await.unwrap();
    assert_eq!(other.status, 200);
}

/// R001-3, R001-2: 404 with the nearest names.
#[tokio::test]
async fn an_unknown_model_is_a_404_that_names_the_nearest() {
    let fleet = Fleet::start().await.unwrap();
    let request = json!({ "model": "tset-model", "messages": [] });
    let response = fleet.client.post("/v1/chat/completions", request.to_string()).await.unwrap();
    assert_eq!(response.status, 404);
    let error = &response.json().unwrap()["error"];
    assert_eq!((error["code"].as_str(), error["param"].as_str()), (Some("model_not_found"), Some("model")));
    assert!(error["message"].as_str().unwrap().contains(MODEL), "{error}");
    let one = fleet.client.get("/v1/models/tset-model").await.unwrap();
    assert_eq!(one.status, 404);
}

/// B12: groups of an organization's own, and prefixed names.
#[tokio::test]
async fn groups_and_prefixed_names_resolve() {
    let fleet = Fleet::start().await.unwrap();
    let prefixed =
        json!({ "model": format!("custom/{MODEL}"), "messages": [{ "role": "user", "content": "hi" }] });
    let response = fleet.client.post("/v1/chat/completions", prefixed.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let listed = fleet.admin.get("/deployments?model=test-model").await.unwrap();
    let id = listed["deployments"][0]["id"].as_str().unwrap();
    let group =
        json!({ "name": "fast", "links": [{ "deployments": [{ "deployment_id": id, "weight": 1 }] }] });
    fleet.admin.post(&fleet.org("/model-groups"), group).await.unwrap();
    nemo_tests::eventually("the group answers", async || {
        let request = json!({ "model": "fast", "messages": [{ "role": "user", "content": "hi" }] });
        let response = fleet.client.post("/v1/chat/completions", request.to_string()).await?;
        anyhow::ensure!(response.status == 200, "{}", response.text());
        Ok(())
    })
    .await
    .unwrap();
    nemo_tests::eventually("its row names the group", async || {
        // Beside the rows of those that came before the nodes knew it.
        let rows = fleet.request_log(2).await?;
        let found = rows.iter().any(|row| row["requested_model"] == "fast" && row["model"] == "fast");
        anyhow::ensure!(found, "{rows:?}");
        Ok(())
    })
    .await
    .unwrap();
}
