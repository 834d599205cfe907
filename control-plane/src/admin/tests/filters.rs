//! What lists can be restricted to, and reading one thing of each kind.

use nemo_proto::{Timestamp, admin as pb};
use time::Duration;

use super::{World, kind, world, wrong_member};
use crate::admin::{ErrorKind, validate};

async fn named_team(world: &World, org_id: &str, name: &str) -> pb::Team {
    let request = pb::CreateTeamRequest { org_id: org_id.into(), name: name.into() };
    world.admin.create_team(&world.operator, request).await.unwrap().into_answer()
}

#[tokio::test]
async fn teams_and_organizations_are_found_by_name_beginning_state_and_time() {
    let world = world().await;
    let org_id = world.org().await;
    for name in ["web", "web_api", "Web", "data%"] {
        named_team(&world, &org_id, name).await;
    }
    let off = named_team(&world, &org_id, "off").await;
    let disable = pb::UpdateTeamRequest {
        org_id: org_id.clone(),
        id: off.id.clone(),
        name: None,
        disabled: Some(true),
    };
    world.admin.update_team(&world.operator, disable).await.unwrap();
    let names = async |filter: pb::ListTeamsRequest| {
        let request = pb::ListTeamsRequest { org_id: org_id.clone(), ..filter };
        let teams = world.admin.list_teams(&world.operator, request).await.unwrap().teams;
        teams.into_iter().map(|team| team.name).collect::<Vec<_>>()
    };
    let all = pb::ListTeamsRequest::default;
    assert_eq!(names(pb::ListTeamsRequest { name: "web".into(), ..all() }).await, ["web"]);
    assert_eq!(names(pb::ListTeamsRequest { name_prefix: "web".into(), ..all() }).await, ["web", "web_api"]);
    // No pattern: text is text.
    assert_eq!(names(pb::ListTeamsRequest { name_prefix: "%".into(), ..all() }).await.len(), 0);
    assert_eq!(names(pb::ListTeamsRequest { name_prefix: "data%".into(), ..all() }).await, ["data%"]);
    assert_eq!(names(pb::ListTeamsRequest { disabled: Some(true), ..all() }).await, ["off"]);
    assert_eq!(names(pb::ListTeamsRequest { disabled: Some(false), ..all() }).await.len(), 4);
    let at = off.created_at;
    assert_eq!(names(pb::ListTeamsRequest { created_after: at, ..all() }).await, ["off"]);
    assert_eq!(names(pb::ListTeamsRequest { created_before: at, ..all() }).await.len(), 4);
    let wrong = pb::ListTeamsRequest { org_id: org_id.clone(), name: "\0".into(), ..all() };
    assert_eq!(wrong_member(world.admin.list_teams(&world.operator, wrong).await), "name");

    let count = async |filter: pb::ListOrganizationsRequest| {
        world.admin.list_organizations(&world.operator, filter).await.unwrap().organizations.len()
    };
    let all = pb::ListOrganizationsRequest::default;
    assert_eq!(count(pb::ListOrganizationsRequest { name_prefix: "Ac".into(), ..all() }).await, 1);
    assert_eq!(count(pb::ListOrganizationsRequest { name: "Ac".into(), ..all() }).await, 0);
    assert_eq!(count(pb::ListOrganizationsRequest { disabled: Some(true), ..all() }).await, 0);
}

#[tokio::test]
async fn filters_hold_over_all_pages() {
    let world = world().await;
    let org_id = world.org().await;
    for number in 0..10 {
        named_team(&world, &org_id, &format!("{}-{number}", if number % 2 == 0 { "even" } else { "odd" }))
            .await;
    }
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListTeamsRequest {
            org_id: org_id.clone(),
            name_prefix: "odd-".into(),
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = world.admin.list_teams(&world.operator, request).await.unwrap();
        found.extend(page.teams.into_iter().map(|team| team.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["odd-1", "odd-3", "odd-5", "odd-7", "odd-9"]);
}

#[tokio::test]
async fn keys_are_found_by_state() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let issue = async |name: &str| {
        let request = pb::IssueKeyRequest {
            org_id: org_id.clone(),
            team_id: team_id.clone(),
            name: name.into(),
            expires_at: Some(Timestamp::from(validate::now() + Duration::HOUR)),
            ..Default::default()
        };
        world.admin.issue_key(&world.operator, request).await.unwrap().into_answer().key.unwrap()
    };
    issue("active").await;
    let disabled = issue("disabled").await;
    let request = pb::UpdateKeyRequest {
        org_id: org_id.clone(),
        id: disabled.id,
        disabled: Some(true),
        ..Default::default()
    };
    world.admin.update_key(&world.operator, request).await.unwrap();
    issue("expired").await;
    sqlx::query("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE name = 'expired'")
        .execute(&mut world.store.superuser().await)
        .await
        .unwrap();
    for state in ["active", "disabled", "expired"] {
        let request =
            pb::ListKeysRequest { org_id: org_id.clone(), state: state.into(), ..Default::default() };
        let keys = world.admin.list_keys(&world.operator, request).await.unwrap().keys;
        let found: Vec<_> = keys.iter().map(|key| (key.name.as_str(), key.state.as_str())).collect();
        assert_eq!(found, [(state, state)]);
    }
    let wrong = pb::ListKeysRequest { org_id, state: "gone".into(), ..Default::default() };
    assert_eq!(wrong_member(world.admin.list_keys(&world.operator, wrong).await), "state");
}

#[tokio::test]
async fn credentials_deployments_and_groups_are_found_by_what_they_are() {
    let world = world().await;
    world.model("m").await;
    world.model("n").await;
    let credential = world.credential("", "sk-0123456789ab").await;
    let request = pb::CreateCredentialRequest {
        org_id: String::new(),
        name: "groq".into(),
        provider: "groq".into(),
        secret: "gsk".into(),
    };
    world.admin.create_credential(&world.operator, request).await.unwrap();
    let credentials = async |filter: pb::ListCredentialsRequest| {
        world.admin.list_credentials(&world.operator, filter).await.unwrap().credentials.len()
    };
    let all = pb::ListCredentialsRequest::default;
    assert_eq!(credentials(all()).await, 2);
    assert_eq!(credentials(pb::ListCredentialsRequest { provider: "groq".into(), ..all() }).await, 1);
    assert_eq!(credentials(pb::ListCredentialsRequest { name: "groq".into(), ..all() }).await, 1);

    let request = pb::CreateDeploymentRequest {
        name: "with".into(),
        provider: "openai".into(),
        model: "m".into(),
        credential_id: credential.id.clone(),
        ..Default::default()
    };
    let with = world.admin.create_deployment(&world.operator, request).await.unwrap().into_answer();
    let without = world.deployment("", "n").await;
    let request =
        pb::UpdateDeploymentRequest { id: without.id.clone(), disabled: Some(true), ..Default::default() };
    world.admin.update_deployment(&world.operator, request).await.unwrap();
    let deployments = async |filter: pb::ListDeploymentsRequest| {
        let listed = world.admin.list_deployments(&world.operator, filter).await.unwrap().deployments;
        listed.into_iter().map(|deployment| deployment.id).collect::<Vec<_>>()
    };
    let all = pb::ListDeploymentsRequest::default;
    let by_credential = pb::ListDeploymentsRequest { credential_id: credential.id, ..all() };
    assert_eq!(deployments(by_credential).await, std::slice::from_ref(&with.id));
    assert_eq!(deployments(pb::ListDeploymentsRequest { disabled: Some(true), ..all() }).await, [without.id]);
    assert_eq!(deployments(pb::ListDeploymentsRequest { provider: "openai".into(), ..all() }).await.len(), 2);
    assert_eq!(
        deployments(pb::ListDeploymentsRequest { model: "m".into(), ..all() }).await,
        std::slice::from_ref(&with.id)
    );
    assert_eq!(
        deployments(pb::ListDeploymentsRequest { name_prefix: "wi".into(), ..all() }).await,
        std::slice::from_ref(&with.id)
    );

    for name in ["smart", "small"] {
        let member = pb::LinkDeployment { deployment_id: with.id.clone(), weight: 1 };
        let links = vec![pb::Link { deployments: vec![member] }];
        let request = pb::CreateModelGroupRequest { name: name.into(), links, ..Default::default() };
        world.admin.create_model_group(&world.operator, request).await.unwrap();
    }
    let request = pb::ListModelGroupsRequest { name: "small".into(), ..Default::default() };
    let groups = world.admin.list_model_groups(&world.operator, request).await.unwrap().model_groups;
    assert_eq!((groups.len(), groups[0].links[0].deployments.len()), (1, 1));
}

#[tokio::test]
async fn members_and_tokens_are_found_by_address_name_and_role_and_read_by_id() {
    let world = world().await;
    let org_id = world.org().await;
    for (email, role) in [("ann@example.com", "owner"), ("bob@example.com", "viewer")] {
        let request = pb::CreateMemberRequest {
            org_id: org_id.clone(),
            email: email.into(),
            role: role.into(),
            ..Default::default()
        };
        let made = world.admin.create_member(&world.operator, request).await.unwrap().into_answer();
        let get = pb::GetMemberRequest { org_id: org_id.clone(), id: made.id.clone() };
        assert_eq!(world.admin.get_member(&world.operator, get).await.unwrap(), made);
    }
    let members = async |filter: pb::ListMembersRequest| {
        let request = pb::ListMembersRequest { org_id: org_id.clone(), ..filter };
        world.admin.list_members(&world.operator, request).await.unwrap().members.len()
    };
    let all = pb::ListMembersRequest::default;
    assert_eq!(members(pb::ListMembersRequest { email: "ANN@example.com".into(), ..all() }).await, 1);
    assert_eq!(members(pb::ListMembersRequest { email_prefix: "b".into(), ..all() }).await, 1);
    assert_eq!(members(pb::ListMembersRequest { role: "admin".into(), ..all() }).await, 0);

    let (token, _) = world.token(&org_id, "viewer").await;
    let get = pb::GetAdminTokenRequest { org_id: org_id.clone(), id: token.id.clone() };
    assert_eq!(world.admin.get_admin_token(&world.operator, get.clone()).await.unwrap().name, "test");
    let rename =
        pb::UpdateAdminTokenRequest { org_id: org_id.clone(), id: token.id.clone(), name: Some("ci".into()) };
    assert_eq!(world.admin.update_admin_token(&world.operator, rename).await.unwrap().name, "ci");
    assert_eq!(world.admin.get_admin_token(&world.operator, get).await.unwrap().name, "ci");
    let tokens = async |filter: pb::ListAdminTokensRequest| {
        let request = pb::ListAdminTokensRequest { org_id: org_id.clone(), ..filter };
        world.admin.list_admin_tokens(&world.operator, request).await.unwrap().admin_tokens.len()
    };
    let all = pb::ListAdminTokensRequest::default;
    assert_eq!(tokens(pb::ListAdminTokensRequest { name: "ci".into(), ..all() }).await, 1);
    assert_eq!(tokens(pb::ListAdminTokensRequest { role: "owner".into(), ..all() }).await, 0);
    // Not under another owner.
    let elsewhere = pb::GetAdminTokenRequest { org_id: String::new(), id: token.id };
    assert_eq!(kind(world.admin.get_admin_token(&world.operator, elsewhere).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn one_setting_can_be_read() {
    let world = world().await;
    let key = "routing.strategy".to_owned();
    let get = pb::GetSettingRequest { org_id: String::new(), key: key.clone() };
    assert_eq!(kind(world.admin.get_setting(&world.operator, get.clone()).await), ErrorKind::NotFound);
    let put = pb::PutSettingRequest { org_id: String::new(), key, value: "\"simple-shuffle\"".into() };
    world.admin.put_setting(&world.operator, put).await.unwrap();
    assert_eq!(world.admin.get_setting(&world.operator, get).await.unwrap().value, "\"simple-shuffle\"");
}
