//! The admin services: token from the metadata, operation of [`crate::admin::ops`], answer. Nothing is decided here.
//!
//! Called by operators and organizations; put together by `app.rs`.

use std::sync::Arc;

use nemo_proto::admin::{
    self as pb, catalog_service_server::*, fleet_admin_service_server::*, key_service_server::*,
    model_group_service_server::*, provider_service_server::*, request_log_service_server::*,
    setting_service_server::*, tenancy_service_server::*,
};
use tonic::{Request, Response, Status, server::NamedService, service::RoutesBuilder};

use crate::admin::{Admin, AdminError, Caller};

/// As the REST API: no admin request is large.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// All admin services on one set of operations.
#[derive(Clone, Debug)]
pub struct AdminGrpc(Arc<Admin>);

impl AdminGrpc {
    pub fn new(admin: Arc<Admin>) -> Self {
        Self(admin)
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, AdminError> {
        let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.0.authenticate(value).await
    }
}

/// Implements one service: every method is authentication and the operation of the same name.
macro_rules! service {
    ($service:ident { $($method:ident($request:ident) -> $response:ident;)* }) => {
        #[tonic::async_trait]
        impl $service for AdminGrpc {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                let caller = self.caller(&request).await?;
                Ok(Response::new(self.0.$method(&caller, request.into_inner()).await?))
            })*
        }
    };
}

service! { TenancyService {
    create_organization(CreateOrganizationRequest) -> Organization;
    get_organization(GetOrganizationRequest) -> Organization;
    list_organizations(ListOrganizationsRequest) -> ListOrganizationsResponse;
    update_organization(UpdateOrganizationRequest) -> Organization;
    delete_organization(DeleteOrganizationRequest) -> DeleteOrganizationResponse;
    create_team(CreateTeamRequest) -> Team;
    get_team(GetTeamRequest) -> Team;
    list_teams(ListTeamsRequest) -> ListTeamsResponse;
    update_team(UpdateTeamRequest) -> Team;
    delete_team(DeleteTeamRequest) -> DeleteTeamResponse;
    create_member(CreateMemberRequest) -> Member;
    list_members(ListMembersRequest) -> ListMembersResponse;
    update_member(UpdateMemberRequest) -> Member;
    delete_member(DeleteMemberRequest) -> DeleteMemberResponse;
    create_admin_token(CreateAdminTokenRequest) -> CreateAdminTokenResponse;
    list_admin_tokens(ListAdminTokensRequest) -> ListAdminTokensResponse;
    delete_admin_token(DeleteAdminTokenRequest) -> DeleteAdminTokenResponse;
} }

service! { KeyService {
    issue_key(IssueKeyRequest) -> IssueKeyResponse;
    get_key(GetKeyRequest) -> Key;
    list_keys(ListKeysRequest) -> ListKeysResponse;
    update_key(UpdateKeyRequest) -> Key;
    rotate_key(RotateKeyRequest) -> IssueKeyResponse;
    delete_key(DeleteKeyRequest) -> DeleteKeyResponse;
} }

service! { ProviderService {
    create_credential(CreateCredentialRequest) -> Credential;
    get_credential(GetCredentialRequest) -> Credential;
    list_credentials(ListCredentialsRequest) -> ListCredentialsResponse;
    update_credential(UpdateCredentialRequest) -> Credential;
    delete_credential(DeleteCredentialRequest) -> DeleteCredentialResponse;
    create_deployment(CreateDeploymentRequest) -> Deployment;
    get_deployment(GetDeploymentRequest) -> Deployment;
    list_deployments(ListDeploymentsRequest) -> ListDeploymentsResponse;
    update_deployment(UpdateDeploymentRequest) -> Deployment;
    delete_deployment(DeleteDeploymentRequest) -> DeleteDeploymentResponse;
} }

service! { ModelGroupService {
    create_model_group(CreateModelGroupRequest) -> ModelGroup;
    get_model_group(GetModelGroupRequest) -> ModelGroup;
    list_model_groups(ListModelGroupsRequest) -> ListModelGroupsResponse;
    update_model_group(UpdateModelGroupRequest) -> ModelGroup;
    delete_model_group(DeleteModelGroupRequest) -> DeleteModelGroupResponse;
} }

service! { CatalogService {
    put_model(PutModelRequest) -> Model;
    get_model(GetModelRequest) -> Model;
    list_models(ListModelsRequest) -> ListModelsResponse;
    delete_model(DeleteModelRequest) -> DeleteModelResponse;
} }

service! { SettingService {
    put_setting(PutSettingRequest) -> Setting;
    list_settings(ListSettingsRequest) -> ListSettingsResponse;
    delete_setting(DeleteSettingRequest) -> DeleteSettingResponse;
} }

service! { RequestLogService {
    get_request(GetRequestRequest) -> RequestRecord;
    list_requests(ListRequestsRequest) -> ListRequestsResponse;
} }

#[tonic::async_trait]
impl FleetAdminService for AdminGrpc {
    async fn list_nodes(
        &self,
        request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        let caller = self.caller(&request).await?;
        Ok(Response::new(self.0.list_nodes(&caller, request.into_inner())?))
    }
}

/// Adds every admin service.
pub fn add_to(routes: &mut RoutesBuilder, admin: &Arc<Admin>) {
    let admin = AdminGrpc::new(admin.clone());
    macro_rules! add {
        ($($server:ident),*) => {$(
            routes.add_service($server::new(admin.clone()).max_decoding_message_size(MAX_REQUEST_BYTES));
        )*};
    }
    add!(
        TenancyServiceServer,
        KeyServiceServer,
        ProviderServiceServer,
        ModelGroupServiceServer,
        CatalogServiceServer,
        SettingServiceServer,
        RequestLogServiceServer,
        FleetAdminServiceServer
    );
}

/// Full names of the services, for health.
pub fn names() -> [&'static str; 8] {
    [
        <TenancyServiceServer<AdminGrpc> as NamedService>::NAME,
        <KeyServiceServer<AdminGrpc> as NamedService>::NAME,
        <ProviderServiceServer<AdminGrpc> as NamedService>::NAME,
        <ModelGroupServiceServer<AdminGrpc> as NamedService>::NAME,
        <CatalogServiceServer<AdminGrpc> as NamedService>::NAME,
        <SettingServiceServer<AdminGrpc> as NamedService>::NAME,
        <RequestLogServiceServer<AdminGrpc> as NamedService>::NAME,
        <FleetAdminServiceServer<AdminGrpc> as NamedService>::NAME,
    ]
}

#[cfg(test)]
mod tests;
