//! Tokens of a real OpenID provider at the admin API, over REST and gRPC. Covers R000-16 and R000-9's "RBAC".

use nemo_proto::admin::{
    ListOrganizationsRequest, ListTeamsRequest, tenancy_service_client::TenancyServiceClient,
};
use nemo_tests::{admin::text, control::ControlPlane, eventually, oidc::Issuer};
use serde_json::{Value, json};
use tonic::{Code, Request};

const AUDIENCE: &str = "nemo-admin";
const ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];

fn people() -> Value {
    json!({
        "alice": { "email": "Alice@Example.com", "email_verified": true, "groups": ["staff"] },
        "bob": { "email": "bob@example.com", "email_verified": true, "groups": ["staff", "support"] },
        "mallory": { "email": "alice@example.com", "email_verified": false },
        "alices-heir": { "email": "alice@example.com", "email_verified": true },
        "root": { "groups": ["platform"] },
        "robot": {},
    })
}

async fn control_plane(issuer: &Issuer, options: &[&str]) -> ControlPlane {
    let own = ["--oidc-issuer", issuer.url(), "--oidc-audience", AUDIENCE];
    ControlPlane::start(&[&own, options].concat()).await.unwrap()
}

async fn running() -> (Issuer, ControlPlane) {
    let mut issuer = Issuer::new(&people()).unwrap();
    issuer.start().await.unwrap();
    let control = control_plane(&issuer, &[]).await;
    (issuer, control)
}

/// An organization with these members (address, role).
async fn organization(control: &ControlPlane, members: &[(&str, &str)]) -> String {
    let org = control.admin.post("/organizations", json!({ "name": "acme" })).await.unwrap();
    let org = text(&org, "id").unwrap();
    for (email, role) in members {
        let path = format!("/organizations/{org}/members");
        control.admin.post(&path, json!({ "email": email, "role": role })).await.unwrap();
    }
    org
}

/// Status and body of reading the organization's teams.
async fn ask(control: &ControlPlane, token: &str, org: &str) -> (u16, Value) {
    let path = format!("/organizations/{org}/teams");
    let response = control.with_token(token).call("GET", &path, None).await.unwrap();
    let body = response.json().unwrap();
    (response.status, body)
}

async fn ask_grpc(control: &ControlPlane, token: &str, org: &str) -> Code {
    let uri = format!("http://{}", control.grpc_addr());
    let channel = tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    let mut request = Request::new(ListTeamsRequest { org_id: org.into(), ..Default::default() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    match TenancyServiceClient::new(channel).list_teams(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// Until the control plane has the issuer's keys.
async fn ready(control: &ControlPlane, token: &str, org: &str) {
    eventually("the issuer's keys", async || {
        let (status, body) = ask(control, token, org).await;
        anyhow::ensure!(status == 200, "{status} {body}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_member_is_known_by_its_verified_address_and_from_then_on_by_its_subject() {
    let (issuer, control) = running().await;
    let org = organization(&control, &[("alice@example.com", "viewer"), ("bob@example.com", "owner")]).await;
    let alice = issuer.token("alice", AUDIENCE, "RS256").await.unwrap();
    ready(&control, &alice, &org).await;
    assert_eq!(ask_grpc(&control, &alice, &org).await, Code::Ok);
    for algorithm in ALGORITHMS {
        let token = issuer.token("alice", AUDIENCE, algorithm).await.unwrap();
        assert_eq!(ask(&control, &token, &org).await.0, 200, "{algorithm}");
        assert_eq!(ask_grpc(&control, &token, &org).await, Code::Ok, "{algorithm}");
    }
    let members = format!("/organizations/{org}/members");
    let listed = control.admin.get(&members).await.unwrap();
    let subjects: Vec<_> = listed["members"].as_array().unwrap().iter().map(|one| &one["subject"]).collect();
    assert_eq!(subjects, [&json!("alice"), &json!("")]);

    // Whoever gets the address later, or only claims it, is somebody else.
    for other in ["alices-heir", "mallory"] {
        let token = issuer.token(other, AUDIENCE, "RS256").await.unwrap();
        let (status, problem) = ask(&control, &token, &org).await;
        assert_eq!(status, 403, "{other}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("in no organization"), "{problem}");
        assert_eq!(ask_grpc(&control, &token, &org).await, Code::PermissionDenied);
    }
    // A viewer may not write, whatever the door.
    let path = format!("/organizations/{org}/teams");
    let written =
        control.with_token(&alice).call("POST", &path, Some(&json!({ "name": "x" }))).await.unwrap();
    assert_eq!(written.status, 403, "{}", written.text());
}

#[tokio::test]
async fn tokens_that_are_forged_expired_or_for_others_are_refused() {
    let (issuer, control) = running().await;
    let org = organization(&control, &[("alice@example.com", "owner")]).await;
    let good = issuer.token("alice", AUDIENCE, "ES256").await.unwrap();
    ready(&control, &good, &org).await;

    // All of them are signed with keys that the issuer publishes.
    let mut past = issuer.twin(issuer.url(), -3600).unwrap();
    past.start().await.unwrap();
    let mut future = issuer.twin(issuer.url(), 3600).unwrap();
    future.start().await.unwrap();
    let mut elsewhere = issuer.twin("http://127.0.0.1:1", 0).unwrap();
    elsewhere.start().await.unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let none_signed = format!("eyJhbGciOiJub25lIn0.{}.{}", parts[1], parts[2]);
    let other = issuer.token("bob", AUDIENCE, "ES256").await.unwrap();
    let other: Vec<&str> = other.split('.').collect();
    let refused = [
        ("expired", past.token("alice", AUDIENCE, "RS256").await.unwrap(), "expired"),
        ("not valid yet", future.token("alice", AUDIENCE, "RS256").await.unwrap(), "not valid yet"),
        ("for others", issuer.token("alice", "another-api", "RS256").await.unwrap(), "audience"),
        ("of another issuer", elsewhere.token("alice", AUDIENCE, "RS256").await.unwrap(), "issuer"),
        ("unsigned", none, "algorithm"),
        ("unsigned with a signature", none_signed, "algorithm"),
        ("with another's claims", format!("{}.{}.{}", parts[0], other[1], parts[2]), "signature"),
        ("with another's signature", format!("{}.{}.{}", parts[0], parts[1], other[2]), "signature"),
        ("garbage", "a.b.c".to_owned(), "token"),
    ];
    for (what, token, says) in &refused {
        let (status, problem) = ask(&control, token, &org).await;
        assert_eq!(status, 401, "{what}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{what}: {problem}");
        assert_eq!(ask_grpc(&control, token, &org).await, Code::Unauthenticated, "{what}");
    }
    assert_eq!(ask(&control, &good, &org).await.0, 200);
}

#[tokio::test]
async fn a_key_that_the_issuer_makes_is_used_and_one_that_it_withdraws_is_not() {
    let (mut issuer, control) = running().await;
    let org = organization(&control, &[("alice@example.com", "owner")]).await;
    let old = issuer.token("alice", AUDIENCE, "RS256").await.unwrap();
    ready(&control, &old, &org).await;
    issuer.stop();
    issuer.forget_keys().unwrap();
    issuer.start().await.unwrap();
    let new = issuer.token("alice", AUDIENCE, "RS256").await.unwrap();
    ready(&control, &new, &org).await;
    let (status, problem) = ask(&control, &old, &org).await;
    assert_eq!(status, 401, "{problem}");
}

/// Faults that are not the caller's are 503 (C).
#[tokio::test]
async fn an_issuer_that_is_away_is_no_fault_of_the_token() {
    let mut issuer = Issuer::new(&people()).unwrap();
    let control = control_plane(&issuer, &[]).await;
    let org = organization(&control, &[("alice@example.com", "owner")]).await;
    // Signed where the control plane does not look: started itself, the issuer might just be asked for its keys.
    let mut elsewhere = issuer.twin(issuer.url(), 0).unwrap();
    elsewhere.start().await.unwrap();
    let token = elsewhere.token("alice", AUDIENCE, "RS256").await.unwrap();

    let (status, problem) = ask(&control, &token, &org).await;
    assert_eq!(status, 503, "{problem}");
    assert_eq!(ask_grpc(&control, &token, &org).await, Code::Unavailable);
    // Admin tokens need no issuer.
    control.admin.get("/organizations").await.unwrap();

    issuer.start().await.unwrap();
    ready(&control, &token, &org).await;
    issuer.stop();
    assert_eq!(ask(&control, &token, &org).await.0, 200, "the keys that are known stay usable");
}

#[tokio::test]
async fn a_person_in_two_organizations_has_its_role_in_each() {
    let (issuer, control) = running().await;
    let first = organization(&control, &[("bob@example.com", "viewer")]).await;
    let second = organization(&control, &[("bob@example.com", "admin")]).await;
    let third = organization(&control, &[]).await;
    let token = issuer.token("bob", AUDIENCE, "EdDSA").await.unwrap();
    ready(&control, &token, &first).await;
    let bob = control.with_token(&token);
    for (org, status) in [(&first, 403), (&second, 201), (&third, 403)] {
        let path = format!("/organizations/{org}/teams");
        let written = bob.call("POST", &path, Some(&json!({ "name": "x" }))).await.unwrap();
        assert_eq!(written.status, status, "{}", written.text());
    }
    let listed = bob.get("/organizations").await.unwrap();
    let ids: Vec<_> = listed["organizations"].as_array().unwrap().iter().map(|org| &org["id"]).collect();
    assert_eq!(ids, [&json!(first), &json!(second)]);

    // A disabled organization rests; the other goes on.
    let path = format!("/organizations/{second}");
    control.admin.patch(&path, json!({ "disabled": true })).await.unwrap();
    assert_eq!(ask(&control, &token, &second).await.0, 403);
    assert_eq!(ask(&control, &token, &first).await.0, 200);
}

#[tokio::test]
async fn groups_have_roles_and_workloads_are_known_by_subject() {
    let (issuer, mut control) = running().await;
    let org = organization(&control, &[]).await;
    let roles = format!("platform=operator;staff=viewer@{org};support=member@{org}");
    control
        .restart(&["--oidc-issuer", issuer.url(), "--oidc-audience", AUDIENCE, "--oidc-roles", &roles])
        .await
        .unwrap();
    let alice = issuer.token("alice", AUDIENCE, "RS256").await.unwrap();
    ready(&control, &alice, &org).await;
    let team =
        control.admin.post(&format!("/organizations/{org}/teams"), json!({ "name": "t" })).await.unwrap();
    let keys = format!("/organizations/{org}/keys");
    let issue = json!({ "team_id": team["id"], "name": "k" });
    let status =
        async |token: &str| control.with_token(token).call("POST", &keys, Some(&issue)).await.unwrap().status;
    // Of two groups the higher role counts.
    let bob = issuer.token("bob", AUDIENCE, "RS256").await.unwrap();
    assert_eq!((status(&alice).await, status(&bob).await), (403, 201));

    let root = issuer.token("root", AUDIENCE, "RS256").await.unwrap();
    control.with_token(&root).post("/organizations", json!({ "name": "new" })).await.unwrap();
    let uri = format!("http://{}", control.grpc_addr());
    let channel = tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    let mut request = Request::new(ListOrganizationsRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {root}").parse().unwrap());
    let listed = TenancyServiceClient::new(channel).list_organizations(request).await.unwrap();
    assert!(listed.into_inner().organizations.len() >= 2);

    let robot = issuer.token("robot", AUDIENCE, "RS256").await.unwrap();
    assert_eq!(ask(&control, &robot, &org).await.0, 403);
    let member = json!({ "subject": "robot", "role": "member" });
    control.admin.post(&format!("/organizations/{org}/members"), member).await.unwrap();
    assert_eq!((ask(&control, &robot, &org).await.0, status(&robot).await), (200, 201));
}

/// Somebody must stay who can let people in.
#[tokio::test]
async fn the_last_owner_stays() {
    let (issuer, control) = running().await;
    let org = organization(&control, &[("alice@example.com", "owner"), ("bob@example.com", "owner")]).await;
    let token = issuer.token("alice", AUDIENCE, "RS256").await.unwrap();
    ready(&control, &token, &org).await;
    let alice = control.with_token(&token);
    let listed = alice.get(&format!("/organizations/{org}/members")).await.unwrap();
    let id = |email: &str| {
        let one = listed["members"].as_array().unwrap().iter().find(|one| one["email"] == email);
        format!("/organizations/{org}/members/{}", one.unwrap()["id"].as_str().unwrap())
    };
    let (own, other) = (id("alice@example.com"), id("bob@example.com"));
    alice.delete(&other).await.unwrap();
    for (method, body) in [("DELETE", None), ("PATCH", Some(json!({ "role": "admin" })))] {
        let refused = alice.call(method, &own, body.as_ref()).await.unwrap();
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(refused.text().contains("last owner"), "{}", refused.text());
    }
    alice.patch(&own, json!({ "role": "owner" })).await.unwrap();
    control.admin.delete(&own).await.unwrap();
}
