//! The admin services: token from the metadata, operation of [`crate::admin::ops`], answer. Nothing is decided here.
//!
//! Called by operators and organizations; put together by `app.rs`.

use std::sync::Arc;

use nemo_proto::admin::{
    self as pb, audit_service_server::*, budget_service_server::*, catalog_service_server::*,
    cooldown_admin_service_server::*, credit_service_server::*, fleet_admin_service_server::*,
    key_service_server::*, ledger_service_server::*, model_group_service_server::*,
    provider_service_server::*, rate_limit_service_server::*, request_log_service_server::*,
    setting_service_server::*, tenancy_service_server::*, usage_query_service_server::*,
    webhook_service_server::*,
};
use nemo_runtime::http_server::Peer;
use tonic::{
    Request, Response, Status, metadata::MetadataValue, server::NamedService, service::RoutesBuilder,
};

use crate::admin::{
    Admin, AdminError, Call, Written,
    call::{CONFIG_VERSION, ETAG, IDEMPOTENCY_REPLAYED},
    entity::etag_of,
    fleet_wait::{self, PATIENCE, WAIT},
};

/// As the REST API: no admin request is large.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// All admin services on one set of operations.
#[derive(Clone, Debug)]
pub struct AdminGrpc(Arc<Admin>);

impl AdminGrpc {
    pub fn new(admin: Arc<Admin>) -> Self {
        Self(admin)
    }

    async fn call<T>(&self, request: &Request<T>) -> Result<Call, AdminError> {
        let metadata = request.metadata();
        let value = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let caller = self.0.authenticate(value).await?;
        // In process there is none.
        let remote_addr = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        Call::with_options(caller, remote_addr, |name| {
            metadata.get(name).map(|value| value.as_encoded_bytes())
        })
    }
}

/// An answer with its metadata.
trait IntoResponse<T> {
    /// The revision that it made, if it is the answer of a write.
    fn config_version(&self) -> Option<u64> {
        None
    }

    fn into_response(self) -> Response<T>;
}

/// The message, and its etag if it is an entity.
impl<T: prost::Message + 'static> IntoResponse<T> for T {
    fn into_response(self) -> Response<T> {
        let etag = etag_of(&self).and_then(|etag| etag.parse().ok());
        let mut response = Response::new(self);
        if let Some(etag) = etag {
            response.metadata_mut().insert(ETAG, etag);
        }
        response
    }
}

impl<T: prost::Message + 'static> IntoResponse<T> for Written<T> {
    fn config_version(&self) -> Option<u64> {
        self.config_version
    }

    fn into_response(self) -> Response<T> {
        let mut response = self.answer.into_response();
        let metadata = response.metadata_mut();
        if let Some(revision) = self.config_version {
            metadata.insert(CONFIG_VERSION, revision.into());
        }
        if self.replayed {
            metadata.insert(IDEMPOTENCY_REPLAYED, MetadataValue::from_static("true"));
        }
        response
    }
}

/// Implements one service: every method is authentication and the operation of the same name.
macro_rules! service {
    ($service:ident { $($method:ident($request:ident) -> $response:ident;)* }) => {
        #[tonic::async_trait]
        impl $service for AdminGrpc {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                let call = self.call(&request).await?;
                let wait = fleet_wait::asked(request.metadata().get(WAIT).map(|value| value.as_encoded_bytes()))?;
                let answer = self.0.$method(&call, request.into_inner()).await?;
                // A read, or a request that was only checked, has written nothing.
                if let Some(version) = answer.config_version().filter(|_| wait) {
                    self.0.wait_for_fleet(version, PATIENCE).await?;
                }
                Ok(answer.into_response())
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
    get_member(GetMemberRequest) -> Member;
    list_members(ListMembersRequest) -> ListMembersResponse;
    update_member(UpdateMemberRequest) -> Member;
    delete_member(DeleteMemberRequest) -> DeleteMemberResponse;
    create_admin_token(CreateAdminTokenRequest) -> CreateAdminTokenResponse;
    get_admin_token(GetAdminTokenRequest) -> AdminToken;
    list_admin_tokens(ListAdminTokensRequest) -> ListAdminTokensResponse;
    update_admin_token(UpdateAdminTokenRequest) -> AdminToken;
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

service! { BudgetService {
    create_budget(CreateBudgetRequest) -> Budget;
    get_budget(GetBudgetRequest) -> Budget;
    list_budgets(ListBudgetsRequest) -> ListBudgetsResponse;
    update_budget(UpdateBudgetRequest) -> Budget;
    delete_budget(DeleteBudgetRequest) -> DeleteBudgetResponse;
    list_budget_leases(ListBudgetLeasesRequest) -> ListBudgetLeasesResponse;
    release_lease(ReleaseLeaseRequest) -> BudgetLease;
} }

service! { RateLimitService {
    create_rate_limit(CreateRateLimitRequest) -> RateLimit;
    get_rate_limit(GetRateLimitRequest) -> RateLimit;
    list_rate_limits(ListRateLimitsRequest) -> ListRateLimitsResponse;
    update_rate_limit(UpdateRateLimitRequest) -> RateLimit;
    delete_rate_limit(DeleteRateLimitRequest) -> DeleteRateLimitResponse;
} }

service! { CatalogService {
    put_model(PutModelRequest) -> Model;
    get_model(GetModelRequest) -> Model;
    list_models(ListModelsRequest) -> ListModelsResponse;
    delete_model(DeleteModelRequest) -> DeleteModelResponse;
    create_price(CreatePriceRequest) -> ModelPrice;
    get_price(GetPriceRequest) -> ModelPrice;
    list_prices(ListPricesRequest) -> ListPricesResponse;
    delete_price(DeletePriceRequest) -> DeletePriceResponse;
    list_deployment_prices(ListDeploymentPricesRequest) -> ListDeploymentPricesResponse;
    rerate(RerateRequest) -> RerateResponse;
    sync_catalog(SyncCatalogRequest) -> SyncCatalogResponse;
    list_catalog_changes(ListCatalogChangesRequest) -> ListCatalogChangesResponse;
    decide_catalog_change(DecideCatalogChangeRequest) -> CatalogChange;
    list_catalog_runs(ListCatalogRunsRequest) -> ListCatalogRunsResponse;
} }

service! { SettingService {
    put_setting(PutSettingRequest) -> Setting;
    get_setting(GetSettingRequest) -> Setting;
    list_settings(ListSettingsRequest) -> ListSettingsResponse;
    delete_setting(DeleteSettingRequest) -> DeleteSettingResponse;
} }

service! { CooldownAdminService {
    set_cooldown(SetCooldownRequest) -> Cooldown;
    list_cooldowns(ListCooldownsRequest) -> ListCooldownsResponse;
    clear_cooldown(ClearCooldownRequest) -> ClearCooldownResponse;
} }

service! { LedgerService {
    list_ledger(ListLedgerRequest) -> ListLedgerResponse;
    verify_ledger(VerifyLedgerRequest) -> VerifyLedgerResponse;
} }

service! { CreditService {
    get_credits(GetCreditsRequest) -> Credits;
    create_credit_movement(CreateCreditMovementRequest) -> CreditMovement;
    get_credit_movement(GetCreditMovementRequest) -> CreditMovement;
    list_credit_movements(ListCreditMovementsRequest) -> ListCreditMovementsResponse;
    quote_purchase(QuotePurchaseRequest) -> PurchaseQuote;
    list_payment_events(ListPaymentEventsRequest) -> ListPaymentEventsResponse;
} }

service! { WebhookService {
    create_webhook(CreateWebhookRequest) -> CreateWebhookResponse;
    get_webhook(GetWebhookRequest) -> Webhook;
    list_webhooks(ListWebhooksRequest) -> ListWebhooksResponse;
    update_webhook(UpdateWebhookRequest) -> Webhook;
    rotate_webhook(RotateWebhookRequest) -> CreateWebhookResponse;
    delete_webhook(DeleteWebhookRequest) -> DeleteWebhookResponse;
    test_webhook(TestWebhookRequest) -> WebhookDelivery;
    list_webhook_deliveries(ListWebhookDeliveriesRequest) -> ListWebhookDeliveriesResponse;
    get_webhook_delivery(GetWebhookDeliveryRequest) -> WebhookDelivery;
    redeliver_webhook(RedeliverWebhookRequest) -> WebhookDelivery;
} }

service! { AuditService {
    list_audit(ListAuditRequest) -> ListAuditResponse;
    verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
} }

service! { RequestLogService {
    get_request(GetRequestRequest) -> RequestRecord;
    list_requests(ListRequestsRequest) -> ListRequestsResponse;
    list_decisions(ListDecisionsRequest) -> ListDecisionsResponse;
    list_routing_config(ListRoutingConfigRequest) -> ListRoutingConfigResponse;
} }

service! { UsageQueryService {
    query_usage(QueryUsageRequest) -> QueryUsageResponse;
} }

#[tonic::async_trait]
impl FleetAdminService for AdminGrpc {
    async fn list_nodes(
        &self,
        request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        let call = self.call(&request).await?;
        Ok(Response::new(self.0.list_nodes(&call, request.into_inner()).await?))
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
        BudgetServiceServer,
        RateLimitServiceServer,
        CatalogServiceServer,
        SettingServiceServer,
        CooldownAdminServiceServer,
        RequestLogServiceServer,
        UsageQueryServiceServer,
        FleetAdminServiceServer,
        LedgerServiceServer,
        CreditServiceServer,
        WebhookServiceServer,
        AuditServiceServer
    );
}

/// Full names of the services, for health.
pub fn names() -> [&'static str; 16] {
    [
        <TenancyServiceServer<AdminGrpc> as NamedService>::NAME,
        <KeyServiceServer<AdminGrpc> as NamedService>::NAME,
        <ProviderServiceServer<AdminGrpc> as NamedService>::NAME,
        <ModelGroupServiceServer<AdminGrpc> as NamedService>::NAME,
        <BudgetServiceServer<AdminGrpc> as NamedService>::NAME,
        <RateLimitServiceServer<AdminGrpc> as NamedService>::NAME,
        <CatalogServiceServer<AdminGrpc> as NamedService>::NAME,
        <SettingServiceServer<AdminGrpc> as NamedService>::NAME,
        <CooldownAdminServiceServer<AdminGrpc> as NamedService>::NAME,
        <RequestLogServiceServer<AdminGrpc> as NamedService>::NAME,
        <UsageQueryServiceServer<AdminGrpc> as NamedService>::NAME,
        <CreditServiceServer<AdminGrpc> as NamedService>::NAME,
        <WebhookServiceServer<AdminGrpc> as NamedService>::NAME,
        <FleetAdminServiceServer<AdminGrpc> as NamedService>::NAME,
        <LedgerServiceServer<AdminGrpc> as NamedService>::NAME,
        <AuditServiceServer<AdminGrpc> as NamedService>::NAME,
    ]
}

#[cfg(test)]
mod tests;
