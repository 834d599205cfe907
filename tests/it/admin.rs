//! The admin API as an operator's tools meet it: REST and gRPC on the same operations.

use nemo_proto::admin::{
    ListOrganizationsRequest, ListTeamsRequest, key_service_client::KeyServiceClient,
    tenancy_service_client::TenancyServiceClient,
};
use nemo_tests::fleet::Fleet;
use serde_json::json;
use tonic::{Request, metadata::MetadataValue};

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Errors are problem documents that name the field and what was expected; nothing is half written.
#[tokio::test]
async fn bad_writes_are_problems_that_name_the_field() {
    let fleet = Fleet::start().await.unwrap();
    let keys = fleet.org("/keys");
    for (method, path, body, field) in [
        ("POST", "/organizations", json!({ "name": "" }), "name"),
        ("POST", "/organizations", json!({ "nmae": "x" }), "nmae"),
        ("POST", keys.as_str(), json!({ "team_id": "no-id", "name": "k" }), "team_id"),
        (
            "POST",
            keys.as_str(),
            json!({ "team_id": fleet.team_id, "name": "k", "expires_at": "2001-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (
            "POST",
            "/deployments",
            json!({ "provider": "custom", "base_url": "ftp://x", "model": "test-model" }),
            "base_url",
        ),
        (
            "POST",
            "/deployments",
            json!({ "provider": "custom", "base_url": "http://x", "model": "nope" }),
            "model",
        ),
    ] {
        let response = fleet.admin.call(method, path, Some(&body)).await.unwrap();
        let text = response.text();
        assert!((400..500).contains(&response.status), "{method} {path} {body}: {} {text}", response.status);
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{text}");
        assert!(text.contains(field), "{method} {path} {body}: {text}");
    }
}

/// One organization's own deployment must not keep any change from the fleet: what no node can call is not stored, and a
/// host that is called like the end of a provider's path is a host.
#[tokio::test]
async fn a_base_url_that_no_node_can_call_is_refused() {
    let fleet = Fleet::start().await.unwrap();
    let path = fleet.org("/deployments");
    let body = |provider: &str, base_url: &str| {
        let model = nemo_tests::fleet::MODEL;
        json!({ "provider": provider, "base_url": base_url, "model": model, "upstream_model": "m" })
    };
    let made = fleet.admin.post(&path, body("cohere", "https://v1")).await.unwrap();
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    for url in ["https://-x.example/v1", "https://10.0.0.999/v1", "https://a..b/v1"] {
        for (method, path, body) in
            [("POST", &path, body("custom", url)), ("PATCH", &one, json!({ "base_url": url }))]
        {
            let response = fleet.admin.call(method, path, Some(&body)).await.unwrap();
            let text = response.text();
            assert_eq!(response.status, 400, "{method} {url}: {text}");
            assert!(text.contains("base_url") && text.contains("http(s)://host"), "{method} {url}: {text}");
        }
    }
    // The node takes what was accepted, and goes on.
    let path = fleet.org("/teams?wait=fleet");
    let answer = fleet.admin.call("POST", &path, Some(&json!({ "name": "later" }))).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test]
async fn without_a_token_the_admin_api_is_closed() {
    let fleet = Fleet::start().await.unwrap();
    for token in ["", "adm-nemo-wrong", fleet.key.as_str()] {
        let admin = nemo_tests::admin::Admin::new(fleet.rest_addr(), token);
        let response = admin.call("GET", "/organizations", None).await.unwrap();
        assert_eq!(response.status, 401, "{token:?} {}", response.text());
    }
}

/// The same operations over gRPC, with reflection and health.
#[tokio::test]
async fn grpc_speaks_the_same_operations() {
    let fleet = Fleet::start().await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", fleet.grpc_addr()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let token = fleet.admin.token();
    let mut tenancy = TenancyServiceClient::new(channel.clone());
    let listed =
        tenancy.list_organizations(with_token(ListOrganizationsRequest::default(), token)).await.unwrap();
    let listed = listed.into_inner().organizations;
    assert!(listed.iter().any(|org| org.id == fleet.org_id), "{listed:?}");
    let request = ListTeamsRequest { org_id: fleet.org_id.clone(), ..Default::default() };
    let teams = tenancy.list_teams(with_token(request, token)).await.unwrap().into_inner().teams;
    assert_eq!(teams.len(), 1);
    let refused = tenancy.list_organizations(ListOrganizationsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);

    let request = nemo_proto::admin::IssueKeyRequest {
        org_id: fleet.org_id.clone(),
        team_id: fleet.team_id.clone(),
        name: "over grpc".into(),
        ..Default::default()
    };
    let issued =
        KeyServiceClient::new(channel).issue_key(with_token(request, token)).await.unwrap().into_inner();
    let client = fleet.client_with(Some(&issued.secret));
    fleet.settled(&client).await.unwrap();
}

/// R000-16: a token of one organization sees nothing of another.
#[tokio::test]
async fn i9_a_tenants_token_ends_at_its_organization() {
    let fleet = Fleet::start().await.unwrap();
    let other = fleet.admin.post("/organizations", json!({ "name": "other" })).await.unwrap();
    let other = other["id"].as_str().unwrap();
    let path = format!("/organizations/{other}/admin-tokens");
    let issued = fleet.admin.post(&path, json!({ "name": "theirs", "role": "owner" })).await.unwrap();
    let theirs = nemo_tests::admin::Admin::new(fleet.rest_addr(), issued["token"].as_str().unwrap());
    assert_eq!(theirs.get(&format!("/organizations/{other}/teams")).await.unwrap()["teams"], json!([]));
    for path in [
        fleet.org("/teams"),
        fleet.org("/keys"),
        fleet.org("/requests"),
        fleet.org(&format!("/keys/{}", fleet.key_id)),
        "/credentials".into(),
        "/nodes".into(),
    ] {
        let response = theirs.call("GET", &path, None).await.unwrap();
        assert!(matches!(response.status, 403 | 404), "{path}: {} {}", response.status, response.text());
    }
    let write = theirs.call("DELETE", &fleet.org(&format!("/keys/{}", fleet.key_id)), None).await.unwrap();
    assert!(matches!(write.status, 403 | 404), "{}", write.text());
    assert_eq!(fleet.client.post("/v1/chat/completions", super::chat::chat("hi")).await.unwrap().status, 200);
}
