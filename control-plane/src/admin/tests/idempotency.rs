//! Idempotency keys: one request that is sent twice is one request.

use futures_util::future::join_all;
use nemo_proto::admin as pb;

use super::{World, kind, world};
use crate::{
    admin::{Call, ErrorKind, IdempotencyKey, Role},
    store::idempotency,
};

fn keyed(key: &str) -> Call {
    with_key(Call::local_operator(), key)
}

fn with_key(call: Call, key: &str) -> Call {
    Call { idempotency_key: Some(IdempotencyKey::parse(key.as_bytes()).unwrap()), ..call }
}

async fn count(world: &World, table: &'static str) -> i64 {
    let sql = match table {
        "teams" => "SELECT count(*) FROM teams",
        "api_keys" => "SELECT count(*) FROM api_keys",
        "audit_log" => "SELECT count(*) FROM audit_log",
        _ => "SELECT count(*) FROM idempotency_keys",
    };
    sqlx::query_scalar(sql).fetch_one(&mut world.store.superuser().await).await.unwrap()
}

async fn expire(world: &World) {
    sqlx::query("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'")
        .execute(&mut world.store.superuser().await)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_same_create_again_gets_the_same_answer_secret_included() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let request = pb::IssueKeyRequest { org_id, team_id, name: "k".into(), ..Default::default() };
    let first = world.admin.issue_key(&keyed("a"), request.clone()).await.unwrap();
    let entries = count(&world, "audit_log").await;
    let again = world.admin.issue_key(&keyed("a"), request.clone()).await.unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!(again.answer, first.answer);
    assert_eq!(again.config_version, first.config_version);
    assert_eq!((count(&world, "api_keys").await, count(&world, "audit_log").await), (1, entries));

    // Stored is nothing of it in clear.
    let dump: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT convert_to(i::text, 'UTF8') || sealed FROM idempotency_keys i")
            .fetch_all(&mut world.store.superuser().await)
            .await
            .unwrap();
    let secret = first.secret.trim_start_matches("sk-nemo-").as_bytes();
    assert_eq!(dump.len(), 1);
    assert!(!dump[0].windows(16).any(|window| window == &secret[16..32]));

    // Another key is another request.
    let other = world.admin.issue_key(&keyed("b"), request).await.unwrap();
    assert_ne!(other.answer, first.answer);
}

#[tokio::test]
async fn a_key_that_belongs_to_another_request_is_refused_and_named() {
    let world = world().await;
    let org_id = world.org().await;
    let team = |name: &str| pb::CreateTeamRequest { org_id: org_id.clone(), name: name.into() };
    world.admin.create_team(&keyed("key-1"), team("one")).await.unwrap();
    let error = world.admin.create_team(&keyed("key-1"), team("two")).await.unwrap_err();
    assert_eq!(
        (error.kind, error.field.as_deref()),
        (ErrorKind::IdempotencyKeyReused, Some("idempotency-key"))
    );
    assert!(error.message.contains("key-1"), "{error}");
    // So is the same key for another kind of entity.
    let member = pb::CreateMemberRequest {
        org_id: org_id.clone(),
        email: "a@example.com".into(),
        role: "viewer".into(),
        ..Default::default()
    };
    assert_eq!(
        kind(world.admin.create_member(&keyed("key-1"), member).await),
        ErrorKind::IdempotencyKeyReused
    );
    assert_eq!(count(&world, "teams").await, 1);
    // In another organization it is another key.
    let other = pb::CreateTeamRequest { org_id: world.org().await, name: "one".into() };
    assert!(!world.admin.create_team(&keyed("key-1"), other).await.unwrap().replayed);
}

#[tokio::test]
async fn twenty_creates_with_one_key_at_the_same_time_make_one() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let request = pb::IssueKeyRequest { org_id, team_id, name: "k".into(), ..Default::default() };
    let call = keyed("a");
    let answers = join_all((0..20).map(|_| world.admin.issue_key(&call, request.clone()))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(count(&world, "api_keys").await, 1);
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.answer == answers[0].answer));
}

#[tokio::test]
async fn another_caller_does_not_get_the_answer() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let request =
        pb::IssueKeyRequest { org_id: org_id.clone(), team_id, name: "k".into(), ..Default::default() };
    let member = || Call::for_test(org_id.parse().unwrap(), Role::Member);
    let first = world.admin.issue_key(&with_key(member(), "a"), request.clone()).await.unwrap();
    // A test's call is a token of its own.
    let second = world.admin.issue_key(&with_key(member(), "a"), request).await.unwrap();
    assert!(!second.replayed);
    assert_ne!(first.secret, second.secret);
}

#[tokio::test]
async fn a_create_that_failed_or_was_only_validated_is_not_remembered() {
    let world = world().await;
    let org_id = world.org().await;
    let team = |name: &str| pb::CreateTeamRequest { org_id: org_id.clone(), name: name.into() };
    world.admin.create_team(&world.operator, team("taken")).await.unwrap();
    assert_eq!(kind(world.admin.create_team(&keyed("a"), team("taken")).await), ErrorKind::AlreadyExists);
    let validating = Call { validate_only: true, ..keyed("a") };
    world.admin.create_team(&validating, team("free")).await.unwrap();
    assert_eq!(count(&world, "idempotency_keys").await, 0);
    assert!(!world.admin.create_team(&keyed("a"), team("free")).await.unwrap().replayed);
}

#[tokio::test]
async fn after_a_day_a_key_is_free_again_and_its_record_is_purged() {
    let world = world().await;
    let org_id = world.org().await;
    let team = |name: &str| pb::CreateTeamRequest { org_id: org_id.clone(), name: name.into() };
    world.admin.create_team(&keyed("a"), team("one")).await.unwrap();
    let hours: i32 = sqlx::query_scalar(
        "SELECT round(extract(epoch FROM expires_at - now()) / 3600)::int FROM idempotency_keys",
    )
    .fetch_one(&mut world.store.superuser().await)
    .await
    .unwrap();
    assert_eq!(hours, 24);
    assert_eq!(idempotency::purge(&world.store).await.unwrap(), 0);
    expire(&world).await;
    assert!(!world.admin.create_team(&keyed("a"), team("two")).await.unwrap().replayed);
    expire(&world).await;
    assert_eq!(idempotency::purge(&world.store).await.unwrap(), 1);
    assert_eq!(count(&world, "idempotency_keys").await, 0);
}

#[tokio::test]
async fn every_create_takes_a_key() {
    let world = world().await;
    world.model("m").await;
    let call = keyed("a");
    let text = |text: &str| text.to_owned();
    let request = pb::CreateOrganizationRequest { name: text("Acme") };
    let org = world.admin.create_organization(&call, request.clone()).await.unwrap();
    assert!(world.admin.create_organization(&call, request).await.unwrap().replayed);
    let org_id = org.id.clone();
    // Each in an organization of its own: a key is good for one request of an owner.
    macro_rules! twice {
        ($operation:ident, $request:expr) => {{
            let call = keyed(stringify!($operation));
            let request = $request;
            let first = world.admin.$operation(&call, request.clone()).await.unwrap();
            let again = world.admin.$operation(&call, request).await.unwrap();
            assert!(again.replayed && !first.replayed, stringify!($operation));
            assert_eq!(again.answer, first.answer);
            first.into_answer()
        }};
    }
    let team = twice!(create_team, pb::CreateTeamRequest { org_id: org_id.clone(), name: text("t") });
    let (email, role) = (text("a@example.com"), text("viewer"));
    twice!(
        create_member,
        pb::CreateMemberRequest { org_id: org_id.clone(), email, role: role.clone(), ..Default::default() }
    );
    twice!(
        create_admin_token,
        pb::CreateAdminTokenRequest { org_id: org_id.clone(), name: text("x"), role, expires_at: None }
    );
    let (provider, secret) = (text("openai"), text("sk-1"));
    twice!(
        create_credential,
        pb::CreateCredentialRequest {
            org_id: org_id.clone(),
            name: text("c"),
            provider: provider.clone(),
            secret
        }
    );
    let deployment = twice!(
        create_deployment,
        pb::CreateDeploymentRequest {
            org_id: org_id.clone(),
            provider,
            model: text("m"),
            ..Default::default()
        }
    );
    let member = pb::LinkDeployment { deployment_id: deployment.id, weight: 1 };
    let links = vec![pb::Link { deployments: vec![member] }];
    twice!(
        create_model_group,
        pb::CreateModelGroupRequest {
            org_id: org_id.clone(),
            name: text("g"),
            strategy: text(""),
            links,
            ..Default::default()
        }
    );
    let issued = twice!(
        issue_key,
        pb::IssueKeyRequest {
            org_id: org_id.clone(),
            team_id: team.id,
            name: text("k"),
            ..Default::default()
        }
    );
    twice!(
        rotate_key,
        pb::RotateKeyRequest { org_id: org_id.clone(), id: issued.key.unwrap().id, overlap_seconds: 0 }
    );
}
