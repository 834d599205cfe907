//! The admin services over gRPC, without a network in between.

use nemo_proto::admin::{
    CreateOrganizationRequest, CreateTeamRequest, IssueKeyRequest, ListNodesRequest, ListRequestsRequest,
    fleet_admin_service_client::FleetAdminServiceClient, key_service_client::KeyServiceClient,
    request_log_service_client::RequestLogServiceClient, tenancy_service_client::TenancyServiceClient,
};
use tonic::{Code, Request, service::Routes};

use super::*;
use crate::admin::tests::world;

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn operations_errors_and_tokens_travel_over_grpc() {
    let world = world().await;
    let mut routes = RoutesBuilder::default();
    add_to(&mut routes, &world.admin);
    let routes: Routes = routes.routes();
    let mut tenancy = TenancyServiceClient::new(routes.clone());
    let mut keys = KeyServiceClient::new(routes.clone());

    let create = CreateOrganizationRequest { name: "Acme".into() };
    let refused = tenancy.create_organization(create.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let request = pb::CreateAdminTokenRequest { name: "operator".into(), ..Default::default() };
    let token = world.admin.create_admin_token(&world.operator, request).await.unwrap().into_answer().token;
    let org = tenancy.create_organization(with_token(create, &token)).await.unwrap().into_inner();
    let create = CreateTeamRequest { org_id: org.id.clone(), name: "t".into() };
    let team = tenancy.create_team(with_token(create.clone(), &token)).await.unwrap().into_inner();

    let taken = tenancy.create_team(with_token(create, &token)).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let nameless = CreateTeamRequest { org_id: org.id.clone(), name: String::new() };
    let invalid = tenancy.create_team(with_token(nameless, &token)).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument);
    assert_eq!(invalid.metadata().get("nemo-error-field").unwrap(), "name");
    assert!(invalid.message().contains("1 to 128 characters"), "{}", invalid.message());

    let issue =
        IssueKeyRequest { org_id: org.id.clone(), team_id: team.id, name: "k".into(), ..Default::default() };
    let issued = keys.issue_key(with_token(issue, &token)).await.unwrap().into_inner();
    assert!(issued.secret.starts_with("sk-nemo-"));

    let mut log = RequestLogServiceClient::new(routes.clone());
    let list = ListRequestsRequest { org_id: org.id, ..Default::default() };
    assert!(log.list_requests(with_token(list, &token)).await.unwrap().into_inner().requests.is_empty());
    let mut fleet = FleetAdminServiceClient::new(routes);
    assert!(
        fleet
            .list_nodes(with_token(ListNodesRequest {}, &token))
            .await
            .unwrap()
            .into_inner()
            .nodes
            .is_empty()
    );
}

/// What REST has as headers is metadata here: etag, revision, precondition, idempotency key, validation.
#[tokio::test]
async fn the_options_and_outcomes_of_a_write_travel_as_metadata() {
    let world = world().await;
    let mut routes = RoutesBuilder::default();
    add_to(&mut routes, &world.admin);
    let mut tenancy = TenancyServiceClient::new(routes.routes());
    let request = pb::CreateAdminTokenRequest { name: "operator".into(), ..Default::default() };
    let token = world.admin.create_admin_token(&world.operator, request).await.unwrap().into_answer().token;
    let with = |message: pb::UpdateOrganizationRequest, name: &'static str, value: &str| {
        let mut request = with_token(message, &token);
        request.metadata_mut().insert(name, value.parse().unwrap());
        request
    };

    let create = |value: &str| {
        let mut request = with_token(CreateOrganizationRequest { name: "Acme".into() }, &token);
        request.metadata_mut().insert("idempotency-key", value.parse().unwrap());
        request
    };
    let made = tenancy.create_organization(create("a")).await.unwrap();
    let revision = made.metadata().get("x-nemo-config-version").unwrap().to_str().unwrap().to_owned();
    assert!(revision.parse::<u64>().unwrap() > 0);
    let etag = made.metadata().get("etag").unwrap().to_str().unwrap().to_owned();
    let again = tenancy.create_organization(create("a")).await.unwrap();
    assert_eq!(again.metadata().get("idempotency-replayed").unwrap(), "true");
    let id = made.into_inner().id;
    assert_eq!(again.into_inner().id, id);
    let get = pb::GetOrganizationRequest { id: id.clone() };
    let read = tenancy.get_organization(with_token(get, &token)).await.unwrap();
    assert_eq!(read.metadata().get("etag").unwrap(), etag.as_str());
    assert!(read.metadata().get("x-nemo-config-version").is_none());

    let rename = pb::UpdateOrganizationRequest { id, name: Some("New".into()), disabled: None };
    let tried =
        tenancy.update_organization(with(rename.clone(), "x-nemo-validate-only", "true")).await.unwrap();
    assert!(tried.metadata().get("x-nemo-config-version").is_none());
    let done = tenancy.update_organization(with(rename.clone(), "if-match", &etag)).await.unwrap();
    assert_ne!(done.metadata().get("etag").unwrap(), etag.as_str());
    let late = tenancy.update_organization(with(rename.clone(), "if-match", &etag)).await.unwrap_err();
    assert!(matches!(late.code(), Code::Aborted | Code::FailedPrecondition), "{late}");
    assert_eq!(late.metadata().get("nemo-error-field").unwrap(), "if-match");
    let wrong = tenancy.update_organization(with(rename, "x-nemo-validate-only", "maybe")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
}

#[test]
fn every_admin_service_is_served_and_named() {
    let declared: Vec<_> = names().into();
    let described = String::from_utf8_lossy(nemo_proto::DESCRIPTORS).into_owned();
    for name in &declared {
        let (package, service) = name.rsplit_once('.').unwrap();
        assert_eq!(package, "nemo.admin.v1");
        assert!(described.contains(service), "{name}");
    }
    assert_eq!(declared.len(), declared.iter().collect::<std::collections::HashSet<_>>().len());
}
