//! The audit log as the operations write and show it. Covers R000-16, I10.

use nemo_proto::admin as pb;
use sqlx::Executor as _;

use super::{World, kind, model, world};
use crate::admin::{Call, ErrorKind, Role};

const CANARY: &str = "sk-canary-0123456789";

async fn entries(world: &World, request: pb::ListAuditRequest) -> Vec<pb::AuditEntry> {
    world.admin.list_audit(&world.operator, request).await.unwrap().entries
}

/// The part of it that requests are routed by.
async fn the_life_of_upstreams(world: &World, call: &Call, org_id: &str) {
    let (admin, org_id) = (&world.admin, org_id.to_owned());
    let text = |text: &str| text.to_owned();
    admin
        .put_model(call, pb::PutModelRequest { model: Some(model("m", 1)), confirm_unusual_price: true })
        .await
        .unwrap();
    let request = pb::CreateCredentialRequest {
        org_id: org_id.clone(),
        name: text("c"),
        provider: text("openai"),
        secret: text(CANARY),
    };
    let credential_id = admin.create_credential(call, request).await.unwrap().id.clone();
    let request = pb::UpdateCredentialRequest {
        org_id: org_id.clone(),
        id: credential_id.clone(),
        name: None,
        secret: Some(format!("{CANARY}-2")),
    };
    admin.update_credential(call, request).await.unwrap();
    let request = pb::CreateDeploymentRequest {
        org_id: org_id.clone(),
        provider: text("openai"),
        model: text("m"),
        credential_id: credential_id.clone(),
        ..Default::default()
    };
    let id = admin.create_deployment(call, request).await.unwrap().id.clone();
    let request = pb::UpdateDeploymentRequest {
        org_id: org_id.clone(),
        id: id.clone(),
        weight: Some(7),
        ..Default::default()
    };
    admin.update_deployment(call, request).await.unwrap();

    let member = pb::LinkDeployment { deployment_id: id.clone(), weight: 1 };
    let links = vec![pb::Link { deployments: vec![member] }];
    let request = pb::CreateModelGroupRequest {
        org_id: org_id.clone(),
        name: text("g"),
        strategy: text(""),
        links,
        ..Default::default()
    };
    let group = admin.create_model_group(call, request).await.unwrap().id.clone();
    let request = pb::UpdateModelGroupRequest {
        org_id: org_id.clone(),
        id: group.clone(),
        name: Some(text("h")),
        ..Default::default()
    };
    admin.update_model_group(call, request).await.unwrap();
    admin
        .delete_model_group(call, pb::DeleteModelGroupRequest { org_id: org_id.clone(), id: group })
        .await
        .unwrap();
    admin.delete_deployment(call, pb::DeleteDeploymentRequest { org_id: org_id.clone(), id }).await.unwrap();
    let request = pb::DeleteCredentialRequest { org_id: org_id.clone(), id: credential_id };
    admin.delete_credential(call, request).await.unwrap();
    admin.delete_model(call, pb::DeleteModelRequest { id: text("m") }).await.unwrap();
}

/// One of everything is made, changed and deleted.
async fn a_whole_life(world: &World, call: &Call) -> Vec<String> {
    let admin = &world.admin;
    let text = |text: &str| text.to_owned();
    let mut secrets = vec![text(CANARY)];
    let request = pb::CreateOrganizationRequest { name: text("Acme") };
    let org_id = admin.create_organization(call, request).await.unwrap().id.clone();
    let request =
        pb::UpdateOrganizationRequest { id: org_id.clone(), name: Some(text("New")), disabled: None };
    admin.update_organization(call, request).await.unwrap();

    let request = pb::CreateTeamRequest { org_id: org_id.clone(), name: text("t") };
    let team_id = admin.create_team(call, request).await.unwrap().id.clone();
    let (org, id) = (org_id.clone(), team_id.clone());
    let request = pb::UpdateTeamRequest { org_id: org, id, name: None, disabled: Some(true) };
    admin.update_team(call, request).await.unwrap();

    let request = pb::CreateMemberRequest {
        org_id: org_id.clone(),
        email: text("ann@example.com"),
        role: text("viewer"),
        ..Default::default()
    };
    let id = admin.create_member(call, request).await.unwrap().id.clone();
    let request = pb::UpdateMemberRequest { org_id: org_id.clone(), id: id.clone(), role: text("admin") };
    admin.update_member(call, request).await.unwrap();
    let request = pb::DeleteMemberRequest { org_id: org_id.clone(), id };
    admin.delete_member(call, request).await.unwrap();

    let request = pb::IssueKeyRequest {
        org_id: org_id.clone(),
        team_id: team_id.clone(),
        name: text("k"),
        ..Default::default()
    };
    let issued = admin.issue_key(call, request).await.unwrap().into_answer();
    let id = issued.key.unwrap().id;
    let request = pb::UpdateKeyRequest {
        org_id: org_id.clone(),
        id: id.clone(),
        disabled: Some(true),
        ..Default::default()
    };
    admin.update_key(call, request).await.unwrap();
    let request = pb::RotateKeyRequest { org_id: org_id.clone(), id: id.clone(), overlap_seconds: 60 };
    let rotated = admin.rotate_key(call, request).await.unwrap().into_answer();
    admin.delete_key(call, pb::DeleteKeyRequest { org_id: org_id.clone(), id }).await.unwrap();
    secrets.extend([issued.secret, rotated.secret]);

    let request = pb::CreateAdminTokenRequest {
        org_id: org_id.clone(),
        name: text("x"),
        role: text("owner"),
        expires_at: None,
    };
    let made = admin.create_admin_token(call, request).await.unwrap().into_answer();
    let id = made.admin_token.unwrap().id;
    let (org, name) = (org_id.clone(), Some(text("y")));
    let request = pb::UpdateAdminTokenRequest { org_id: org, id: id.clone(), name };
    admin.update_admin_token(call, request).await.unwrap();
    let request = pb::DeleteAdminTokenRequest { org_id: org_id.clone(), id };
    admin.delete_admin_token(call, request).await.unwrap();
    secrets.push(made.token);

    the_life_of_upstreams(world, call, &org_id).await;

    let (key, value) = (text("routing.strategy"), text("\"simple-shuffle\""));
    admin
        .put_setting(call, pb::PutSettingRequest { org_id: org_id.clone(), key: key.clone(), value })
        .await
        .unwrap();
    admin.delete_setting(call, pb::DeleteSettingRequest { org_id: org_id.clone(), key }).await.unwrap();
    admin.delete_team(call, pb::DeleteTeamRequest { org_id: org_id.clone(), id: team_id }).await.unwrap();
    admin.delete_organization(call, pb::DeleteOrganizationRequest { id: org_id }).await.unwrap();
    secrets
}

const ACTIONS: [&str; 28] = [
    "organization.create",
    "organization.update",
    "team.create",
    "team.update",
    "member.create",
    "member.update",
    "member.delete",
    "key.issue",
    "key.update",
    "key.rotate",
    "key.delete",
    "admin_token.create",
    "admin_token.update",
    "admin_token.delete",
    "model.put",
    "credential.create",
    "credential.update",
    "deployment.create",
    "deployment.update",
    "model_group.create",
    "model_group.update",
    "model_group.delete",
    "deployment.delete",
    "credential.delete",
    "model.delete",
    "setting.put",
    "setting.delete",
    "team.delete",
];

#[tokio::test]
async fn every_write_is_in_the_audit_log_with_who_from_where_what_before_and_after() {
    let world = world().await;
    let (_, bearer) = world.token("", "").await;
    let caller = world.admin.authenticate(Some(&bearer)).await.unwrap();
    let token_id = caller.actor().id();
    let call = Call { remote_addr: Some("192.0.2.7".parse().unwrap()), ..caller.into() };
    a_whole_life(&world, &call).await;

    let all = entries(&world, pb::ListAuditRequest { actor: token_id.clone(), ..Default::default() }).await;
    let actions: Vec<_> = all.iter().rev().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions[..28], ACTIONS);
    assert_eq!(actions[28..], ["organization.delete"]);
    for entry in &all {
        assert_eq!((entry.actor_kind.as_str(), entry.actor_name.as_str()), ("admin_token", "test"));
        assert_eq!((entry.actor_id.as_str(), entry.remote_addr.as_str()), (token_id.as_str(), "192.0.2.7"));
        let (target, verb) = entry.action.split_once('.').unwrap();
        assert_eq!(entry.target_kind, target);
        let created = matches!(verb, "create" | "issue") || (verb == "put");
        assert_eq!(entry.before.is_empty(), created, "{entry:?}");
        assert_eq!(entry.after.is_empty(), verb == "delete", "{entry:?}");
        for image in [&entry.before, &entry.after].into_iter().filter(|image| !image.is_empty()) {
            let image: serde_json::Value = serde_json::from_str(image).unwrap();
            let id = if target == "setting" { &image["key"] } else { &image["id"] };
            assert_eq!(*id, entry.target_id, "{entry:?}");
        }
        assert_eq!(entry.org_id.is_empty(), target == "model", "{entry:?}");
    }
    let rename = all.iter().find(|entry| entry.action == "organization.update").unwrap();
    assert!(rename.before.contains("\"name\":\"Acme\"") && rename.after.contains("\"name\":\"New\""));
    let verified = world.admin.verify_audit(&world.operator, Default::default()).await.unwrap();
    // And the token that was made before.
    assert!(verified.ok && verified.entries == 30, "{verified:?}");
}

/// Covers I10.
#[tokio::test]
async fn no_secret_and_no_hash_of_one_is_in_the_audit_log() {
    let world = world().await;
    let secrets = a_whole_life(&world, &world.operator).await;
    let log: String = sqlx::query_scalar("SELECT string_agg(a::text, ' ') FROM audit_log a")
        .fetch_one(&mut world.store.superuser().await)
        .await
        .unwrap();
    assert!(log.contains("organization.delete"));
    assert_eq!(secrets.len(), 4);
    for secret in secrets {
        // Public parts of keys and tokens are meant to be seen.
        let secret = secret.trim_start_matches("sk-nemo-").trim_start_matches("adm-nemo-");
        let hidden = if secret == CANARY { secret } else { &secret[16..] };
        assert!(!log.contains(hidden), "{log}");
    }
    for word in ["secret", "hash\"", "sealed"] {
        assert!(!log.contains(word), "{word} in {log}");
    }
}

#[tokio::test]
async fn the_audit_log_can_be_searched_and_read_page_by_page() {
    let world = world().await;
    let (own, other) = (world.org().await, world.org().await);
    for _ in 0..3 {
        world.team(&own).await;
    }
    let team = world.team(&other).await;
    let list = |request: pb::ListAuditRequest| entries(&world, request);
    let of = |org_id: &str| pb::ListAuditRequest { org_id: org_id.into(), ..Default::default() };
    assert_eq!(list(of(&own)).await.len(), 4);
    assert_eq!(list(of("")).await.len(), 6);
    let teams = pb::ListAuditRequest { action: "team.".into(), ..of(&own) };
    assert_eq!(list(teams).await.len(), 3);
    let created = pb::ListAuditRequest { action: "organization.create".into(), ..of("") };
    assert_eq!(list(created).await.len(), 2);
    assert!(list(pb::ListAuditRequest { action: "team".into(), ..of("") }).await.is_empty());
    let target = pb::ListAuditRequest { target_id: team.clone(), target_kind: "team".into(), ..of("") };
    assert_eq!(list(target).await.len(), 1);
    assert!(list(pb::ListAuditRequest { target_id: team, ..of(&own) }).await.is_empty());
    let by_name = pb::ListAuditRequest { actor: "local operator".into(), ..of("") };
    assert_eq!(list(by_name).await.len(), 6);
    let at = list(of("")).await[2].at;
    assert_eq!(list(pb::ListAuditRequest { after: at, ..of("") }).await.len(), 3);
    assert_eq!(list(pb::ListAuditRequest { before: at, ..of("") }).await.len(), 3);

    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListAuditRequest { page_size: 4, page_token, ..of("") };
        let page = world.admin.list_audit(&world.operator, request).await.unwrap();
        seen.extend(page.entries.into_iter().map(|entry| entry.seq));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
    let wrong = pb::ListAuditRequest { page_token: "x".into(), ..of("") };
    assert_eq!(super::wrong_member(world.admin.list_audit(&world.operator, wrong).await), "page_token");
}

#[tokio::test]
async fn an_organization_reads_its_own_part_of_the_audit_log_and_nobody_elses() {
    let world = world().await;
    let (own, other) = (world.org().await, world.org().await);
    let owner = Call::for_test(own.parse().unwrap(), Role::Owner);
    let of = |org_id: &str| pb::ListAuditRequest { org_id: org_id.into(), ..Default::default() };
    let listed = world.admin.list_audit(&owner, of(&own)).await.unwrap().entries;
    assert!(listed.iter().all(|entry| entry.org_id == own) && listed.len() == 1, "{listed:?}");
    for org_id in [&*other, ""] {
        assert_eq!(kind(world.admin.list_audit(&owner, of(org_id)).await), ErrorKind::PermissionDenied);
    }
    let viewer = Call::for_test(own.parse().unwrap(), Role::Viewer);
    assert_eq!(kind(world.admin.list_audit(&viewer, of(&own)).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(world.admin.verify_audit(&owner, Default::default()).await), ErrorKind::PermissionDenied);
    // The log outlives the organization.
    let delete = pb::DeleteOrganizationRequest { id: own.clone() };
    world.admin.delete_organization(&world.operator, delete).await.unwrap();
    assert_eq!(entries(&world, of(&own)).await.len(), 2);
}

#[tokio::test]
async fn verification_over_the_api_names_the_entry_and_takes_what_was_noted() {
    let world = world().await;
    let org_id = world.org().await;
    world.team(&org_id).await;
    let verify = async |noted: Option<&pb::VerifyAuditResponse>| {
        let request = noted.map_or_else(Default::default, |noted| pb::VerifyAuditRequest {
            noted_seq: noted.head_seq,
            noted_hash: noted.head_hash.clone(),
        });
        world.admin.verify_audit(&world.operator, request).await.unwrap()
    };
    let first = verify(None).await;
    assert!(
        first.ok && first.fault_seq == 0 && first.head_seq == 2 && first.head_hash.len() == 64,
        "{first:?}"
    );
    assert!(verify(Some(&first)).await.ok);
    for wrong in [("x", "noted_hash"), ("", "noted_hash")] {
        let request = pb::VerifyAuditRequest { noted_seq: 1, noted_hash: wrong.0.into() };
        assert_eq!(super::wrong_member(world.admin.verify_audit(&world.operator, request).await), wrong.1);
    }
    let mut superuser = world.store.superuser().await;
    superuser.execute("SET session_replication_role = replica").await.unwrap();
    superuser.execute("UPDATE audit_log SET actor_name = 'Bob' WHERE seq = 2").await.unwrap();
    let second = verify(None).await;
    assert!(
        !second.ok && second.fault_seq == 2 && second.fault.contains("entry 2 was changed"),
        "{second:?}"
    );
}
