//! Writes over the real ports: who wrote from where, and requests that are repeated at the same time.

use std::collections::HashSet;

use nemo_proto::admin::{CreateTeamRequest, tenancy_service_client::TenancyServiceClient};
use nemo_tests::fleet::Fleet;
use serde_json::{Value, json};

/// Covers R000-16: the audit log names the peer of the connection, whatever headers a client makes up, and is whole.
#[tokio::test]
async fn the_audit_log_tells_who_wrote_what_from_where_and_can_be_checked() {
    let fleet = Fleet::start().await.unwrap();
    let client = fleet
        .admin
        .client
        .clone()
        .header("x-forwarded-for", "203.0.113.9")
        .header("forwarded", "for=203.0.113.9");
    let path = format!("/admin/v1{}", fleet.org("/teams"));
    let body = json!({ "name": "audited" }).to_string();
    let made = client.open("POST", &path, body.as_bytes()).await.unwrap().finish().await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(made.header("x-nemo-config-version").unwrap().parse::<u64>().unwrap() > 0);
    let id = made.json().unwrap()["id"].as_str().unwrap().to_owned();

    let listed = fleet.admin.get(&format!("{}?target_id={id}", fleet.org("/audit"))).await.unwrap();
    let entry = &listed["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["remote_addr"]),
        (&json!("team.create"), &json!("127.0.0.1")),
        "{entry}"
    );
    assert_eq!(entry["actor_kind"], "admin_token");
    let after: Value = serde_json::from_str(entry["after"].as_str().unwrap()).unwrap();
    assert_eq!(after["name"], "audited");
    // The same over gRPC.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", fleet.grpc_addr())).unwrap();
    let mut tenancy = TenancyServiceClient::new(endpoint.connect().await.unwrap());
    let message = CreateTeamRequest { org_id: fleet.org_id.clone(), name: "audited too".into() };
    let mut request = tonic::Request::new(message);
    let token = format!("Bearer {}", fleet.admin.token()).parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request.metadata_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
    let made = tenancy.create_team(request).await.unwrap();
    assert!(made.metadata().get("etag").is_some() && made.metadata().get("x-nemo-config-version").is_some());
    let path = format!("{}?target_id={}", fleet.org("/audit"), made.into_inner().id);
    assert_eq!(fleet.admin.get(&path).await.unwrap()["entries"][0]["remote_addr"], "127.0.0.1");

    let checked = fleet.admin.get("/audit/verification").await.unwrap();
    assert_eq!((&checked["ok"], &checked["fault"]), (&json!(true), &json!("")), "{checked}");
    assert!(checked["entries"].as_u64().unwrap() >= 4, "{checked}");
}

/// A client that gave up waiting and tries again must not end up with two.
#[tokio::test]
async fn twenty_creates_with_one_idempotency_key_make_one() {
    let fleet = Fleet::start().await.unwrap();
    let path = format!("/admin/v1{}", fleet.org("/keys"));
    let body = json!({ "team_id": fleet.team_id, "name": "once" }).to_string();
    let client = fleet.admin.client.clone().header("idempotency-key", "it-20");
    let sent = (0..20).map(|_| async { client.open("POST", &path, body.as_bytes()).await?.finish().await });
    let answers: Vec<_> =
        futures_util::future::join_all(sent).await.into_iter().map(Result::unwrap).collect();
    let secrets: HashSet<String> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 201, "{}", answer.text());
            answer.json().unwrap()["secret"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(secrets.len(), 1);
    let listed = fleet.admin.get(&fleet.org("/keys?name=once")).await.unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
}
