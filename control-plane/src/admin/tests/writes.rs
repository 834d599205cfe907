//! The one write path: all or nothing, revision, etag, validation.

use futures_util::{StreamExt as _, stream};
use nemo_proto::admin as pb;
use sqlx::Executor as _;

use super::{kind, model, world};
use crate::{
    admin::{AdminError, Call, ErrorKind, IfMatch, Written, entity::etag_of},
    store::testing::TestStore,
};

/// A call of the operator that expects this version.
fn expecting(etag: &str) -> Call {
    Call { if_match: Some(IfMatch::parse(etag.as_bytes()).unwrap()), ..Call::local_operator() }
}

fn validating() -> Call {
    Call { validate_only: true, ..Call::local_operator() }
}

/// Everything that a write could leave behind, as text.
async fn dump(store: &TestStore) -> String {
    let sql = "SELECT concat_ws(' ', (SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM teams t), \
               (SELECT string_agg(k::text, ' ' ORDER BY k::text) FROM api_keys k), \
               (SELECT string_agg(m::text, ' ' ORDER BY m::text) FROM members m), \
               (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM admin_tokens a), \
               (SELECT string_agg(c::text, ' ' ORDER BY c::text) FROM credentials c), \
               (SELECT string_agg(o::text, ' ' ORDER BY o::text) FROM organizations o), \
               (SELECT string_agg(l::text, ' ' ORDER BY l::text) FROM audit_log l), \
               (SELECT string_agg(i::text, ' ' ORDER BY i::text) FROM idempotency_keys i), \
               (SELECT string_agg(f::text, ' ' ORDER BY f::text) FROM config_changes f), \
               (SELECT revision::text FROM config_revision), (SELECT h::text FROM audit_head h))";
    sqlx::query_scalar(sql).fetch_one(&mut store.superuser().await).await.unwrap()
}

#[tokio::test]
async fn a_write_whose_audit_entry_fails_does_not_happen() {
    let world = world().await;
    let org_id = world.org().await;
    let before = dump(&world.store).await;
    let sql = "ALTER TABLE audit_log ADD CONSTRAINT never CHECK (action <> 'team.create') NOT VALID";
    world.store.superuser().await.execute(sql).await.unwrap();
    let request = pb::CreateTeamRequest { org_id, name: "t".into() };
    assert_eq!(kind(world.admin.create_team(&world.operator, request).await), ErrorKind::Internal);
    assert_eq!(dump(&world.store).await, before);
}

#[tokio::test]
async fn a_write_answers_with_the_revision_that_has_it() {
    let world = world().await;
    let revision = async || world.store.config_snapshot().await.unwrap().revision().await.unwrap();
    let org =
        world.admin.create_organization(&world.operator, pb::CreateOrganizationRequest { name: "A".into() });
    let org = org.await.unwrap();
    assert_eq!(org.config_version, Some(revision().await));
    let request = pb::CreateTeamRequest { org_id: org.id.clone(), name: "t".into() };
    let team = world.admin.create_team(&world.operator, request).await.unwrap();
    assert_eq!(team.config_version, org.config_version.map(|revision| revision + 1));
    assert_eq!(team.config_version, Some(revision().await));
    // Members are not published: the answer names what there is.
    let request = pb::CreateMemberRequest {
        org_id: org.id.clone(),
        email: "a@example.com".into(),
        role: "viewer".into(),
        ..Default::default()
    };
    let member = world.admin.create_member(&world.operator, request).await.unwrap();
    assert_eq!(member.config_version, team.config_version);
    let request = pb::DeleteTeamRequest { org_id: org.id.clone(), id: team.id.clone() };
    let deleted = world.admin.delete_team(&world.operator, request).await.unwrap();
    assert_eq!(deleted.config_version, Some(revision().await));
    assert!(deleted.config_version > member.config_version);
}

#[tokio::test]
async fn an_update_or_deletion_with_an_outdated_etag_changes_nothing() {
    let world = world().await;
    let org_id = world.org().await;
    let request = pb::CreateTeamRequest { org_id: org_id.clone(), name: "t".into() };
    let team = world.admin.create_team(&world.operator, request).await.unwrap().into_answer();
    let get = pb::GetTeamRequest { org_id: org_id.clone(), id: team.id.clone() };
    let first = etag_of(&team).unwrap();
    assert_eq!(etag_of(&world.admin.get_team(&world.operator, get.clone()).await.unwrap()).unwrap(), first);

    let rename = |name: &str| pb::UpdateTeamRequest {
        org_id: org_id.clone(),
        id: team.id.clone(),
        name: Some(name.into()),
        disabled: None,
    };
    let renamed = world.admin.update_team(&expecting(&first), rename("u")).await.unwrap().into_answer();
    let second = etag_of(&renamed).unwrap();
    assert_ne!(second, first);

    let before = dump(&world.store).await;
    let delete = pb::DeleteTeamRequest { org_id: org_id.clone(), id: team.id.clone() };
    let late: [AdminError; 2] = [
        world.admin.update_team(&expecting(&first), rename("v")).await.unwrap_err(),
        world.admin.delete_team(&expecting(&first), delete.clone()).await.unwrap_err(),
    ];
    for error in late {
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::PreconditionFailed, Some("if-match")));
        assert!(error.message.contains(&second), "{error}");
    }
    assert_eq!(dump(&world.store).await, before);
    world.admin.update_team(&expecting("*"), rename("w")).await.unwrap();
    let now = world.admin.get_team(&world.operator, get).await.unwrap();
    world.admin.delete_team(&expecting(&etag_of(&now).unwrap()), delete).await.unwrap();
    let gone = world.admin.update_team(&expecting("*"), rename("x")).await;
    assert_eq!(kind(gone), ErrorKind::NotFound);
}

#[tokio::test]
async fn of_two_updates_of_one_version_one_is_done() {
    let world = world().await;
    let org_id = world.org().await;
    let id = world.team(&org_id).await;
    let get = pb::GetTeamRequest { org_id: org_id.clone(), id: id.clone() };
    let call = expecting(&etag_of(&world.admin.get_team(&world.operator, get).await.unwrap()).unwrap());
    let updates = (0..8).map(|number| {
        let name = Some(format!("name {number}"));
        let request = pb::UpdateTeamRequest { org_id: org_id.clone(), id: id.clone(), name, disabled: None };
        world.admin.update_team(&call, request)
    });
    let done = futures_util::future::join_all(updates).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    for error in done.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind, ErrorKind::PreconditionFailed, "{error}");
    }
}

#[tokio::test]
async fn what_is_put_can_be_required_to_exist_in_a_version() {
    let world = world().await;
    let put = |input| pb::PutModelRequest { model: Some(model("m", input)), confirm_unusual_price: true };
    let missing = world.admin.put_model(&expecting("*"), put(1)).await;
    assert_eq!(kind(missing), ErrorKind::PreconditionFailed);
    let first = world.admin.put_model(&world.operator, put(1)).await.unwrap();
    let etag = etag_of(&first.answer).unwrap();
    world.admin.put_model(&expecting(&etag), put(2)).await.unwrap();
    assert_eq!(kind(world.admin.put_model(&expecting(&etag), put(3)).await), ErrorKind::PreconditionFailed);
    let (key, value) = ("routing.strategy".to_owned(), "\"simple-shuffle\"".to_owned());
    let setting = pb::PutSettingRequest { org_id: String::new(), key, value };
    assert_eq!(
        kind(world.admin.put_setting(&expecting("*"), setting.clone()).await),
        ErrorKind::PreconditionFailed
    );
    world.admin.put_setting(&world.operator, setting.clone()).await.unwrap();
    world.admin.put_setting(&expecting("*"), setting).await.unwrap();
}

#[tokio::test]
async fn a_validation_answers_in_full_and_leaves_no_trace() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let before = dump(&world.store).await;
    let call = validating();
    let create = pb::CreateTeamRequest { org_id: org_id.clone(), name: "new".into() };
    let team = world.admin.create_team(&call, create.clone()).await.unwrap();
    assert_eq!((team.name.as_str(), team.config_version), ("new", None));
    let issue = pb::IssueKeyRequest {
        org_id: org_id.clone(),
        team_id: team_id.clone(),
        name: "k".into(),
        ..Default::default()
    };
    let issued: Written<pb::IssueKeyResponse> = world.admin.issue_key(&call, issue).await.unwrap();
    assert_eq!(issued.secret, "", "there is no key that it could open anything with");
    let update = pb::UpdateTeamRequest {
        org_id: org_id.clone(),
        id: team_id.clone(),
        name: None,
        disabled: Some(true),
    };
    assert!(world.admin.update_team(&call, update).await.unwrap().disabled);
    let delete = pb::DeleteTeamRequest { org_id: org_id.clone(), id: team_id };
    world.admin.delete_team(&call, delete).await.unwrap();
    assert_eq!(dump(&world.store).await, before);

    // What would fail fails, also what only the database can tell.
    world.admin.create_team(&world.operator, create.clone()).await.unwrap();
    let taken = world.admin.create_team(&call, create).await.unwrap_err();
    assert_eq!((taken.kind, taken.field.as_deref()), (ErrorKind::AlreadyExists, Some("name")));
    let nameless = pb::CreateTeamRequest { org_id, name: String::new() };
    assert_eq!(super::wrong_member(world.admin.create_team(&call, nameless).await), "name");
}

/// All writers take the same lock first, so they can't wait for each other in a circle.
#[tokio::test]
async fn mixed_writes_at_the_same_time_never_deadlock_and_leave_one_chain() {
    let world = world().await;
    let (stays, goes) = (world.org().await, world.org().await);
    let (team_id, id) = (world.team(&stays).await, world.team(&goes).await);
    world.model("m").await;
    let admin = &world.admin;
    let writer = async |number: usize| -> Result<(), AdminError> {
        let (call, org_id) = (&world.operator, stays.clone());
        let name = format!("w{number}");
        match number % 6 {
            0 => {
                let request =
                    pb::IssueKeyRequest { org_id, team_id: team_id.clone(), name, ..Default::default() };
                admin.issue_key(call, request).await.map(drop)
            }
            1 => {
                let (email, role) = (format!("{name}@example.com"), "viewer".to_owned());
                let request = pb::CreateMemberRequest { org_id, email, role, ..Default::default() };
                admin.create_member(call, request).await.map(drop)
            }
            2 => {
                let id = team_id.clone();
                let request = pb::UpdateTeamRequest { org_id, id, name: Some(name), disabled: None };
                admin.update_team(call, request).await.map(drop)
            }
            3 => {
                let request = pb::CreateDeploymentRequest {
                    org_id,
                    provider: "openai".into(),
                    model: "m".into(),
                    ..Default::default()
                };
                admin.create_deployment(call, request).await.map(drop)
            }
            4 if number == 4 => {
                let request = pb::DeleteOrganizationRequest { id: goes.clone() };
                admin.delete_organization(call, request).await.map(drop)
            }
            4 => {
                let request = pb::PutModelRequest {
                    model: Some(model("m", i64::try_from(number).unwrap())),
                    confirm_unusual_price: true,
                };
                admin.put_model(call, request).await.map(drop)
            }
            _ => {
                let (org_id, id) = (goes.clone(), id.clone());
                let request = pb::UpdateTeamRequest { org_id, id, name: Some(name), disabled: None };
                admin.update_team(call, request).await.map(drop)
            }
        }
    };
    // More at once would wait for a connection rather than for each other.
    let numbered = |number| async move { (number, writer(number).await) };
    let done: Vec<_> = stream::iter(0..36).map(numbered).buffer_unordered(12).collect().await;
    for (number, done) in &done {
        // Writes to the organization that goes may come too late, and no other may fail.
        let late = number % 6 == 5 && matches!(done, Err(error) if matches!(error.kind, ErrorKind::NotFound));
        assert!(done.is_ok() || late, "{number}: {done:?}");
    }
    let verified = admin.verify_audit(&world.operator, Default::default()).await.unwrap();
    let written = done.iter().filter(|(_, done)| done.is_ok()).count();
    assert!(verified.ok, "{verified:?}");
    // Two organizations, two teams and the model were there before.
    assert_eq!(verified.entries, u64::try_from(written).unwrap() + 5);
}
