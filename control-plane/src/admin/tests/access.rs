//! Who may do what. Covers R000-16.

use nemo_proto::{Timestamp, admin as pb};
use nemo_types::OrgId;
use time::Duration;

use super::{World, kind, world};
use crate::admin::{Action, AdminError, Call, ErrorKind, Role, validate};

/// One operation of each action, by a caller, in an organization with that team.
async fn attempt(
    world: &World,
    caller: &Call,
    org_id: &str,
    team_id: &str,
    action: Action,
) -> Result<(), AdminError> {
    let (org_id, name) = (org_id.to_owned(), format!("n {}", OrgId::generate()));
    let admin = &world.admin;
    match action {
        Action::Read => {
            admin.list_keys(caller, pb::ListKeysRequest { org_id, ..Default::default() }).await.map(drop)
        }
        Action::IssueKeys => {
            let team_id = team_id.to_owned();
            let request = pb::IssueKeyRequest { org_id, team_id, name, ..Default::default() };
            admin.issue_key(caller, request).await.map(drop)
        }
        Action::Write => admin.create_team(caller, pb::CreateTeamRequest { org_id, name }).await.map(drop),
        Action::ManageAccess => {
            let email = format!("{}@example.com", OrgId::generate());
            let request =
                pb::CreateMemberRequest { org_id, email, role: "viewer".into(), ..Default::default() };
            admin.create_member(caller, request).await.map(drop)
        }
        other => unreachable!("{other} is tested in tests/it/roles.rs"),
    }
}

const ACTIONS: [Action; 4] = [Action::Read, Action::IssueKeys, Action::Write, Action::ManageAccess];

#[tokio::test]
async fn each_role_may_do_what_the_matrix_says_and_nothing_else() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let matrix = [
        (Role::Owner, [true, true, true, true]),
        (Role::Admin, [true, true, true, false]),
        (Role::Member, [true, true, false, false]),
        (Role::Viewer, [true, false, false, false]),
    ];
    for (role, allowed) in matrix {
        let caller = Call::for_test(org_id.parse().unwrap(), role);
        for (action, allowed) in ACTIONS.into_iter().zip(allowed) {
            match attempt(&world, &caller, &org_id, &team_id, action).await {
                Ok(()) => assert!(allowed, "{role} could {action}"),
                Err(error) => {
                    assert!(!allowed, "{role} could not {action}: {error}");
                    assert_eq!(error.kind, ErrorKind::PermissionDenied);
                    assert!(error.message.contains(role.name()), "{error}");
                }
            }
        }
    }
    for action in ACTIONS {
        attempt(&world, &world.operator, &org_id, &team_id, action).await.unwrap();
    }
}

#[tokio::test]
async fn an_owner_may_nothing_in_another_organization_and_learns_nothing_about_it() {
    let world = world().await;
    let (own, other) = (world.org().await, world.org().await);
    let team_id = world.team(&other).await;
    let caller = Call::for_test(own.parse().unwrap(), Role::Owner);
    for action in ACTIONS {
        let existing = attempt(&world, &caller, &other, &team_id, action).await.unwrap_err();
        assert_eq!(existing.kind, ErrorKind::PermissionDenied);
        let missing = OrgId::generate().to_string();
        assert_eq!(attempt(&world, &caller, &missing, &team_id, action).await.unwrap_err(), existing);
    }
    // Ids of other organizations' things are as unknown as ids of nothing.
    let request = |id: &str| pb::GetTeamRequest { org_id: own.clone(), id: id.into() };
    assert_eq!(kind(world.admin.get_team(&caller, request(&team_id)).await), ErrorKind::NotFound);
    let request = pb::IssueKeyRequest { org_id: own, team_id, name: "k".into(), ..Default::default() };
    assert_eq!(kind(world.admin.issue_key(&caller, request).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_belongs_to_the_installation_is_the_operators_alone() {
    let world = world().await;
    let org_id = world.org().await;
    let owner = Call::for_test(org_id.parse().unwrap(), Role::Owner);
    let admin = &world.admin;
    let denied = ErrorKind::PermissionDenied;
    let create = pb::CreateOrganizationRequest { name: "x".into() };
    assert_eq!(kind(admin.create_organization(&owner, create).await), denied);
    // It sees the organizations that it is in, and no others.
    world.org().await;
    let listed = admin.list_organizations(&owner, Default::default()).await.unwrap().organizations;
    assert_eq!(listed.iter().map(|org| &org.id).collect::<Vec<_>>(), [&org_id]);
    let delete = pb::DeleteOrganizationRequest { id: org_id.clone() };
    assert_eq!(kind(admin.delete_organization(&owner, delete).await), denied);
    let disable = pb::UpdateOrganizationRequest { id: org_id.clone(), disabled: Some(true), name: None };
    assert_eq!(kind(admin.update_organization(&owner, disable).await), denied);
    assert_eq!(kind(admin.list_credentials(&owner, Default::default()).await), denied);
    assert_eq!(kind(admin.list_deployments(&owner, Default::default()).await), denied);
    assert_eq!(kind(admin.list_model_groups(&owner, Default::default()).await), denied);
    assert_eq!(kind(admin.list_settings(&owner, Default::default()).await), denied);
    assert_eq!(kind(admin.list_admin_tokens(&owner, Default::default()).await), denied);
    let token = pb::CreateAdminTokenRequest { name: "x".into(), ..Default::default() };
    assert_eq!(kind(admin.create_admin_token(&owner, token).await), denied);
    let put = pb::PutModelRequest { model: Some(super::model("m", 1)), confirm_unusual_price: true };
    assert_eq!(kind(admin.put_model(&owner, put).await), denied);
    assert_eq!(kind(admin.delete_model(&owner, pb::DeleteModelRequest { id: "m".into() }).await), denied);
    assert_eq!(kind(admin.list_nodes(&owner, pb::ListNodesRequest {}).await), denied);
    // Reading the catalog is everybody's.
    admin.list_models(&owner, Default::default()).await.unwrap();
    let rename = pb::UpdateOrganizationRequest { id: org_id, name: Some("New".into()), disabled: None };
    assert_eq!(admin.update_organization(&owner, rename).await.unwrap().name, "New");
}

#[tokio::test]
async fn a_token_is_shown_once_and_stored_as_a_hash() {
    let world = world().await;
    let org_id = world.org().await;
    let (token, bearer) = world.token(&org_id, "admin").await;
    let secret = bearer.trim_start_matches("Bearer ");
    assert!(secret.starts_with("adm-nemo-") && secret.contains(&token.public_id));
    let caller = world.admin.authenticate(Some(&bearer)).await.unwrap();
    let org = org_id.parse().unwrap();
    assert_eq!((caller.role_in(org), caller.is_operator()), (Some(Role::Admin), false));
    assert_eq!((caller.actor().kind(), caller.actor().id()), ("admin_token", token.id));

    let mut superuser = world.store.superuser().await;
    let dump: String = sqlx::query_scalar("SELECT string_agg(t::text, ' ') FROM admin_tokens t")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert!(dump.contains(&token.public_id) && !dump.contains(&secret["adm-nemo-".len() + 16..]), "{dump}");
}

#[tokio::test]
async fn the_operators_token_has_no_organization() {
    let world = world().await;
    let (token, bearer) = world.token("", "").await;
    assert_eq!((token.org_id.as_str(), token.role.as_str()), ("", "operator"));
    let caller = world.admin.authenticate(Some(&bearer)).await.unwrap();
    assert!(caller.is_operator());
    let caller = Call::from(caller);
    world.admin.list_organizations(&caller, Default::default()).await.unwrap();
    let wrong = pb::CreateAdminTokenRequest { name: "x".into(), role: "owner".into(), ..Default::default() };
    assert_eq!(super::wrong_member(world.admin.create_admin_token(&caller, wrong).await), "role");
}

#[tokio::test]
async fn tokens_that_are_missing_wrong_deleted_or_expired_are_all_refused_alike() {
    let world = world().await;
    let org_id = world.org().await;
    let (_, good) = world.token(&org_id, "owner").await;
    let (gone, deleted) = world.token(&org_id, "owner").await;
    let delete = pb::DeleteAdminTokenRequest { org_id: org_id.clone(), id: gone.id };
    world.admin.delete_admin_token(&world.operator, delete).await.unwrap();
    let (_, expired) = world.token(&org_id, "owner").await;
    let mut superuser = world.store.superuser().await;
    let public_id = expired["Bearer adm-nemo-".len()..][..16].to_owned();
    sqlx::query("UPDATE admin_tokens SET expires_at = now() - interval '1 s' WHERE public_id = $1")
        .bind(public_id)
        .execute(&mut superuser)
        .await
        .unwrap();
    // The public part is right, the secret is not.
    let mut forged = good.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    let unknown = format!("Bearer {}", nemo_types::AdminToken::mint().unwrap().text.expose());
    let key = format!("Bearer {}", nemo_types::ApiKey::mint().unwrap().text.expose());

    let no_bearer = good.replace("Bearer ", "Basic ");
    for header in [None, Some(""), Some("Bearer"), Some("Bearer x"), Some(&*no_bearer), Some(&*key)] {
        let error = world.admin.authenticate(header).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthenticated, "{header:?}");
    }
    let refusals = [&deleted, &expired, &forged, &unknown].map(|header| header.as_str());
    for header in refusals {
        let error = world.admin.authenticate(Some(header)).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Unauthenticated, "the token is unknown or expired")
        );
    }
    world.admin.authenticate(Some(&good)).await.unwrap();
    world.admin.authenticate(Some(&good.replace("Bearer", "bearer"))).await.unwrap();
}

#[tokio::test]
async fn tokens_of_a_disabled_organization_rest() {
    let world = world().await;
    let org_id = world.org().await;
    let (_, bearer) = world.token(&org_id, "owner").await;
    for (disabled, expected) in [(true, Some(ErrorKind::PermissionDenied)), (false, None)] {
        let request =
            pb::UpdateOrganizationRequest { id: org_id.clone(), disabled: Some(disabled), name: None };
        world.admin.update_organization(&world.operator, request).await.unwrap();
        assert_eq!(world.admin.authenticate(Some(&bearer)).await.err().map(|error| error.kind), expected);
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_our_fault_and_not_the_tokens() {
    let world = world().await;
    let (_, bearer) = world.token("", "").await;
    world.store.close().await;
    assert_eq!(kind(world.admin.authenticate(Some(&bearer)).await), ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_expiry_of_a_token_must_lie_ahead() {
    let world = world().await;
    let past = Timestamp::from(validate::now() - Duration::HOUR);
    let request =
        pb::CreateAdminTokenRequest { name: "x".into(), expires_at: Some(past), ..Default::default() };
    assert_eq!(
        super::wrong_member(world.admin.create_admin_token(&world.operator, request).await),
        "expires_at"
    );
}

#[tokio::test]
async fn members_are_known_by_address_and_have_one_role() {
    let world = world().await;
    let org_id = world.org().await;
    let create = |email: &str, role: &str| pb::CreateMemberRequest {
        org_id: org_id.clone(),
        email: email.into(),
        role: role.into(),
        ..Default::default()
    };
    let member =
        world.admin.create_member(&world.operator, create("Ann@Example.com", "member")).await.unwrap();
    assert_eq!((member.email.as_str(), member.role.as_str()), ("ann@example.com", "member"));
    let again =
        world.admin.create_member(&world.operator, create("ann@example.com", "viewer")).await.unwrap_err();
    assert_eq!((again.kind, again.field.as_deref()), (ErrorKind::AlreadyExists, Some("email")));
    let wrong = world.admin.create_member(&world.operator, create("b@example.com", "root")).await;
    assert_eq!(super::wrong_member(wrong), "role");

    let update =
        pb::UpdateMemberRequest { org_id: org_id.clone(), id: member.id.clone(), role: "admin".into() };
    assert_eq!(world.admin.update_member(&world.operator, update).await.unwrap().role, "admin");
    let delete = pb::DeleteMemberRequest { org_id: org_id.clone(), id: member.id.clone() };
    world.admin.delete_member(&world.operator, delete.clone()).await.unwrap();
    assert_eq!(kind(world.admin.delete_member(&world.operator, delete).await), ErrorKind::NotFound);
    let list = pb::ListMembersRequest { org_id, ..Default::default() };
    assert!(world.admin.list_members(&world.operator, list).await.unwrap().members.is_empty());
}

#[tokio::test]
async fn lists_are_read_page_by_page_without_gap_or_repetition() {
    let world = world().await;
    let org_id = world.org().await;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(world.team(&org_id).await);
    }
    let (mut listed, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request =
            pb::ListTeamsRequest { org_id: org_id.clone(), page_size: 3, page_token, ..Default::default() };
        let answer = world.admin.list_teams(&world.operator, request).await.unwrap();
        listed.extend(answer.teams.into_iter().map(|team| team.id));
        (page_token, pages) = (answer.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, pages), (made, 3));
    let request = pb::ListTeamsRequest { org_id: org_id.clone(), page_size: 1001, ..Default::default() };
    assert_eq!(super::wrong_member(world.admin.list_teams(&world.operator, request).await), "page_size");
    let request = pb::ListTeamsRequest { org_id, page_token: "x".into(), ..Default::default() };
    assert_eq!(super::wrong_member(world.admin.list_teams(&world.operator, request).await), "page_token");
}

#[tokio::test]
async fn an_organization_that_does_not_exist_is_told_to_the_operator() {
    let world = world().await;
    let request = pb::CreateTeamRequest { org_id: OrgId::generate().to_string(), name: "t".into() };
    let error = world.admin.create_team(&world.operator, request).await.unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::NotFound, Some("org_id")));
    let request = pb::CreateTeamRequest { org_id: "acme".into(), name: "t".into() };
    assert_eq!(super::wrong_member(world.admin.create_team(&world.operator, request).await), "org_id");
}

/// Last use is for finding tokens that nobody needs; it must not cost a write per request.
#[tokio::test]
async fn the_last_use_of_a_token_is_noted_once_in_a_while() {
    let world = world().await;
    let (token, bearer) = world.token("", "").await;
    assert_eq!(token.last_used_at, None);
    let used = async || {
        let request = pb::ListAdminTokensRequest::default();
        let listed = world.admin.list_admin_tokens(&world.operator, request).await.unwrap().admin_tokens;
        listed.into_iter().find(|one| one.id == token.id).unwrap().last_used_at
    };
    world.admin.authenticate(Some(&bearer)).await.unwrap();
    let first = used().await;
    assert!(first.is_some());
    world.admin.authenticate(Some(&bearer)).await.unwrap();
    assert_eq!(used().await, first);
    let mut superuser = world.store.superuser().await;
    let back = "UPDATE admin_tokens SET last_used_at = now() - interval '6 min'";
    sqlx::query(back).execute(&mut superuser).await.unwrap();
    world.admin.authenticate(Some(&bearer)).await.unwrap();
    assert!(used().await >= first);
    // A token that is refused was not used.
    sqlx::query("UPDATE admin_tokens SET last_used_at = NULL").execute(&mut superuser).await.unwrap();
    let forged = format!("{}{}", &bearer[..bearer.len() - 1], if bearer.ends_with('A') { 'B' } else { 'A' });
    world.admin.authenticate(Some(&forged)).await.unwrap_err();
    assert_eq!(used().await, None);
}

/// A member by address becomes a member by subject; one issuer's subjects are nobody at another.
#[tokio::test]
async fn a_member_is_bound_to_the_first_subject_that_has_its_address() {
    use crate::store::members::{self, Person};
    let world = world().await;
    let org_id = world.org().await;
    for (email, subject) in [("ada@example.com", ""), ("", "robot")] {
        let (org_id, email, subject) = (org_id.clone(), email.into(), subject.into());
        let request = pb::CreateMemberRequest { org_id, email, subject, role: "member".into() };
        world.admin.create_member(&world.operator, request).await.unwrap();
    }
    let find = async |issuer: &str, subject: &str, email: Option<&str>| {
        let mut tx = world.store.store.system().await.unwrap();
        let person = Person { issuer, subject, email };
        let found = members::of_person(&mut tx, person).await.unwrap();
        let new: Vec<_> = found.iter().filter(|one| one.by_email).map(|one| one.id).collect();
        members::bind(&mut tx, &new, person).await.unwrap();
        tx.commit().await.unwrap();
        found.len()
    };
    let ada = Some("ada@example.com");
    assert_eq!(find("https://a", "u1", None).await, 0);
    assert_eq!(find("https://a", "u1", ada).await, 1);
    assert_eq!(find("https://a", "u1", None).await, 1, "by subject now");
    assert_eq!(find("https://a", "u1", Some("new@example.com")).await, 1, "whatever the address becomes");
    assert_eq!(find("https://a", "u2", ada).await, 0, "the address counts no more");
    assert_eq!(find("https://b", "u1", None).await, 0, "another issuer's u1 is somebody else");
    assert_eq!(find("https://b", "x9", ada).await, 1, "a new issuer starts with the address again");
    assert_eq!(find("https://b", "x9", None).await, 1);
    // A subject that an administrator wrote is for whichever issuer is configured.
    assert_eq!(find("https://a", "robot", None).await, 1);
    assert_eq!(find("https://b", "robot", None).await, 1);
}
