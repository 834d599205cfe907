//! The table of REST operations. Each line is one operation: router and OpenAPI document are both made of it, so they
//! can't differ. Request and answer messages are those of the gRPC method of the same name.
//!
//! To add one: a line in [`TABLE`]. A test asks for a line for every gRPC method.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
    routing::{MethodRouter, delete, get, patch, post, put},
};
use nemo_proto::admin as pb;

use super::{answer, input};
use crate::admin::{Admin, AdminError};

/// What an operation does, as far as HTTP is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `POST` to the collection; answers 201 with `Location`.
    Create,
    /// `PUT` of the whole entity.
    Put,
    /// `PATCH`: members that are absent stay as they are.
    Update,
    /// `POST` that does something with an entity.
    Act,
    /// `GET` of one entity.
    Read,
    /// `GET` whose parameters are in the query.
    List,
    /// `DELETE`; answers 204.
    Delete,
}

impl Kind {
    pub(super) fn is_write(self) -> bool {
        !matches!(self, Self::Read | Self::List)
    }

    pub(super) fn has_body(self) -> bool {
        matches!(self, Self::Create | Self::Put | Self::Update | Self::Act)
    }

    /// As in the document, lower case.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Create | Self::Act => "post",
            Self::Put => "put",
            Self::Update => "patch",
            Self::Read | Self::List => "get",
            Self::Delete => "delete",
        }
    }
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Belongs to the installation.
    Global,
    /// `/organizations/{org_id}`: belongs to an organization.
    Org,
    /// Twice: with `/organizations/{org_id}`, and without for what the operator owns.
    Owned,
}

const ORG: &str = "/organizations/{org_id}";

impl Scope {
    /// Prefix of the path and of what is unlike in the operation id.
    pub(super) fn variants(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Global => &[("", "")],
            Self::Org => &[(ORG, "")],
            Self::Owned => &[(ORG, ""), ("", "operator_")],
        }
    }
}

/// One line of the table.
pub(super) struct Operation {
    pub kind: Kind,
    pub scope: Scope,
    /// Below the scope's prefix.
    pub path: &'static str,
    /// Function of [`Admin`], and the gRPC method in snake case.
    pub name: &'static str,
    pub request: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub route: fn() -> MethodRouter<Arc<Admin>>,
}

impl Operation {
    /// Full paths below `/admin/v1` in axum's form, each with its operation id.
    pub(super) fn paths(&self) -> impl Iterator<Item = (String, String)> {
        self.scope.variants().iter().map(|(prefix, unlike)| {
            let (verb, rest) = self.name.split_once('_').unwrap_or((self.name, ""));
            (format!("{prefix}{}", self.path), format!("{verb}_{unlike}{rest}"))
        })
    }
}

/// Method and handler of one operation. The members in brackets are those that the path gives.
macro_rules! route {
    (Create $($rest:tt)*) => { post(route!(@write Create $($rest)*)) };
    (Put $($rest:tt)*) => { put(route!(@write Put $($rest)*)) };
    (Update $($rest:tt)*) => { patch(route!(@write Update $($rest)*)) };
    (Act $($rest:tt)*) => { post(route!(@write Act $($rest)*)) };
    (Delete $($rest:tt)*) => { delete(route!(@write Delete $($rest)*)) };
    (Read $($rest:tt)*) => { get(route!(@read Read $($rest)*)) };
    (List $($rest:tt)*) => { get(route!(@read List $($rest)*)) };
    (@write $kind:ident $operation:ident $request:ident $members:tt) => {
        async |State(admin): State<Arc<Admin>>, request: Request| -> Result<Response, AdminError> {
            let (input, message) = route!(@input $kind $request admin request $members);
            let written = admin.$operation(&input.call, message).await?;
            answer::written(&admin, &input, Kind::$kind, written).await
        }
    };
    (@read $kind:ident $operation:ident $request:ident $members:tt) => {
        async |State(admin): State<Arc<Admin>>, request: Request| -> Result<Response, AdminError> {
            let (input, message) = route!(@input $kind $request admin request $members);
            answer::found(&route!(@call $operation admin input message))
        }
    };
    (@call $operation:ident $admin:ident $input:ident $message:ident) => {
        $admin.$operation(&$input.call, $message).await?
    };
    (@input $kind:ident $request:ident $admin:ident $http:ident $members:tt) => {
        input::read::<pb::$request>(&$admin, $http, Kind::$kind, stringify!($request), route!(@members $members))
            .await?
    };
    (@members [$member:ident in $outer:ident]) => {
        |message, visit| {
            if let Some(outer) = &mut message.$outer {
                visit(stringify!($member), concat!(stringify!($outer), ".", stringify!($member)), &mut outer.$member);
            }
        }
    };
    (@members [$($member:ident)*]) => {
        |_message, _visit| {$(
            _visit(stringify!($member), stringify!($member), &mut _message.$member);
        )*}
    };
}

macro_rules! table {
    ($($tag:literal: { $(
        $kind:ident $scope:ident $path:literal $operation:ident($request:ident) $members:tt $summary:literal;
    )* })*) => {
        /// Every operation, in the order of the document.
        pub(super) static TABLE: &[Operation] = &[$($(
            Operation {
                kind: Kind::$kind,
                scope: Scope::$scope,
                path: $path,
                name: stringify!($operation),
                request: stringify!($request),
                tag: $tag,
                summary: $summary,
                route: || route!($kind $operation $request $members),
            },
        )*)*];
    };
}

table! {
    "Organizations": {
        Create Global "/organizations" create_organization(CreateOrganizationRequest) [] "Create an organization";
        List Global "/organizations" list_organizations(ListOrganizationsRequest) [] "List organizations";
        Read Global "/organizations/{id}" get_organization(GetOrganizationRequest) [id] "Get an organization";
        Update Global "/organizations/{id}" update_organization(UpdateOrganizationRequest) [id] "Change an organization";
        Delete Global "/organizations/{id}" delete_organization(DeleteOrganizationRequest) [id]
            "Delete an organization with everything that it owns";
    }
    "Teams": {
        Create Org "/teams" create_team(CreateTeamRequest) [org_id] "Create a team";
        List Org "/teams" list_teams(ListTeamsRequest) [org_id] "List teams";
        Read Org "/teams/{id}" get_team(GetTeamRequest) [org_id id] "Get a team";
        Update Org "/teams/{id}" update_team(UpdateTeamRequest) [org_id id] "Change a team";
        Delete Org "/teams/{id}" delete_team(DeleteTeamRequest) [org_id id] "Delete a team and its keys";
    }
    "Members": {
        Create Org "/members" create_member(CreateMemberRequest) [org_id] "Add a member";
        List Org "/members" list_members(ListMembersRequest) [org_id] "List members";
        Read Org "/members/{id}" get_member(GetMemberRequest) [org_id id] "Get a member";
        Update Org "/members/{id}" update_member(UpdateMemberRequest) [org_id id] "Change a member's role";
        Delete Org "/members/{id}" delete_member(DeleteMemberRequest) [org_id id] "Remove a member";
    }
    "Keys": {
        Create Org "/keys" issue_key(IssueKeyRequest) [org_id] "Issue a virtual key";
        List Org "/keys" list_keys(ListKeysRequest) [org_id] "List keys";
        Read Org "/keys/{id}" get_key(GetKeyRequest) [org_id id] "Get a key";
        Update Org "/keys/{id}" update_key(UpdateKeyRequest) [org_id id] "Change a key";
        Act Org "/keys/{id}/rotate" rotate_key(RotateKeyRequest) [org_id id] "Give a key a new secret";
        Delete Org "/keys/{id}" delete_key(DeleteKeyRequest) [org_id id] "Delete a key";
    }
    "Admin tokens": {
        Create Owned "/admin-tokens" create_admin_token(CreateAdminTokenRequest) [org_id] "Create an admin token";
        List Owned "/admin-tokens" list_admin_tokens(ListAdminTokensRequest) [org_id] "List admin tokens";
        Read Owned "/admin-tokens/{id}" get_admin_token(GetAdminTokenRequest) [org_id id] "Get an admin token";
        Update Owned "/admin-tokens/{id}" update_admin_token(UpdateAdminTokenRequest) [org_id id]
            "Rename an admin token";
        Delete Owned "/admin-tokens/{id}" delete_admin_token(DeleteAdminTokenRequest) [org_id id]
            "Delete an admin token";
    }
    "Credentials": {
        Create Owned "/credentials" create_credential(CreateCredentialRequest) [org_id] "Create a provider credential";
        List Owned "/credentials" list_credentials(ListCredentialsRequest) [org_id] "List provider credentials";
        Read Owned "/credentials/{id}" get_credential(GetCredentialRequest) [org_id id] "Get a provider credential";
        Update Owned "/credentials/{id}" update_credential(UpdateCredentialRequest) [org_id id]
            "Change a provider credential";
        Delete Owned "/credentials/{id}" delete_credential(DeleteCredentialRequest) [org_id id]
            "Delete a provider credential";
    }
    "Deployments": {
        Create Owned "/deployments" create_deployment(CreateDeploymentRequest) [org_id] "Create a deployment";
        List Owned "/deployments" list_deployments(ListDeploymentsRequest) [org_id] "List deployments";
        Read Owned "/deployments/{id}" get_deployment(GetDeploymentRequest) [org_id id] "Get a deployment";
        Update Owned "/deployments/{id}" update_deployment(UpdateDeploymentRequest) [org_id id] "Change a deployment";
        Delete Owned "/deployments/{id}" delete_deployment(DeleteDeploymentRequest) [org_id id] "Delete a deployment";
    }
    "Model groups": {
        Create Owned "/model-groups" create_model_group(CreateModelGroupRequest) [org_id] "Create a model group";
        List Owned "/model-groups" list_model_groups(ListModelGroupsRequest) [org_id] "List model groups";
        Read Owned "/model-groups/{id}" get_model_group(GetModelGroupRequest) [org_id id] "Get a model group";
        Update Owned "/model-groups/{id}" update_model_group(UpdateModelGroupRequest) [org_id id]
            "Change a model group";
        Delete Owned "/model-groups/{id}" delete_model_group(DeleteModelGroupRequest) [org_id id]
            "Delete a model group";
    }
    "Budgets": {
        Create Org "/budgets" create_budget(CreateBudgetRequest) [org_id] "Create a budget";
        List Org "/budgets" list_budgets(ListBudgetsRequest) [org_id] "List budgets, and how they stand";
        Read Org "/budgets/{id}" get_budget(GetBudgetRequest) [org_id id] "Get a budget, and how it stands";
        Update Org "/budgets/{id}" update_budget(UpdateBudgetRequest) [org_id id] "Change a budget";
        Delete Org "/budgets/{id}" delete_budget(DeleteBudgetRequest) [org_id id] "Delete a budget";
        List Org "/budgets/{id}/leases" list_budget_leases(ListBudgetLeasesRequest) [org_id id]
            "List what nodes hold of a budget";
        Act Org "/budgets/{budget_id}/leases/{lease_id}/release" release_lease(ReleaseLeaseRequest)
            [org_id budget_id lease_id] "Give back what is held or was charged for a lost node";
    }
    "Rate limits": {
        Create Org "/rate-limits" create_rate_limit(CreateRateLimitRequest) [org_id] "Create a rate limit";
        List Org "/rate-limits" list_rate_limits(ListRateLimitsRequest) [org_id] "List rate limits";
        Read Org "/rate-limits/{id}" get_rate_limit(GetRateLimitRequest) [org_id id] "Get a rate limit";
        Update Org "/rate-limits/{id}" update_rate_limit(UpdateRateLimitRequest) [org_id id] "Change a rate limit";
        Delete Org "/rate-limits/{id}" delete_rate_limit(DeleteRateLimitRequest) [org_id id] "Delete a rate limit";
    }
    "Settings": {
        List Owned "/settings" list_settings(ListSettingsRequest) [org_id] "List settings";
        Read Owned "/settings/{key}" get_setting(GetSettingRequest) [org_id key] "Get a setting";
        Put Owned "/settings/{key}" put_setting(PutSettingRequest) [org_id key] "Set a setting";
        Delete Owned "/settings/{key}" delete_setting(DeleteSettingRequest) [org_id key]
            "Take a setting back to its default";
    }
    "Cooldowns": {
        List Owned "/cooldowns" list_cooldowns(ListCooldownsRequest) [org_id]
            "List what the fleet keeps away from";
        Put Owned "/cooldowns/{deployment_id}" set_cooldown(SetCooldownRequest) [org_id deployment_id]
            "Keep requests away from a deployment for a while";
        Delete Owned "/cooldowns/{deployment_id}" clear_cooldown(ClearCooldownRequest) [org_id deployment_id]
            "Lift a cooldown";
    }
    "Models": {
        List Global "/models" list_models(ListModelsRequest) [] "List the models of the catalog";
        Read Global "/models/{*id}" get_model(GetModelRequest) [id] "Get a model";
        Put Global "/models/{*id}" put_model(PutModelRequest) [id in model] "Create a model or replace it";
        Delete Global "/models/{*id}" delete_model(DeleteModelRequest) [id] "Delete a model";
    }
    "Prices": {
        Create Global "/prices" create_price(CreatePriceRequest) [] "Set the price of a model from a time on";
        List Global "/prices" list_prices(ListPricesRequest) [] "List the history of prices";
        Read Global "/prices/{*id}" get_price(GetPriceRequest) [id] "Get a price";
        Delete Global "/prices/{*id}" delete_price(DeletePriceRequest) [id] "Call off a price that is scheduled";
        List Owned "/deployments/{id}/prices" list_deployment_prices(ListDeploymentPricesRequest) [org_id id]
            "List the history of a deployment's own prices";
        Act Global "/catalog/sync" sync_catalog(SyncCatalogRequest) [] "Bring the catalog in step with its sources";
        List Global "/catalog/changes" list_catalog_changes(ListCatalogChangesRequest) []
            "List what the catalog sync has changed and what it holds";
        Act Global "/catalog/changes/{id}/decision" decide_catalog_change(DecideCatalogChangeRequest) [id]
            "Approve or reject a change that is held";
        List Global "/catalog/runs" list_catalog_runs(ListCatalogRunsRequest) [] "List the runs of the catalog sync";
        Act Global "/rerate" rerate(RerateRequest) [] "Compute what logged requests cost at other prices";
    }
    "Requests": {
        List Org "/requests" list_requests(ListRequestsRequest) [org_id] "Search the request log";
        Read Org "/requests/{id}" get_request(GetRequestRequest) [org_id id] "Get one request";
        List Global "/decisions" list_decisions(ListDecisionsRequest) []
            "List what was decided about requests, oldest first";
        List Global "/routing-config" list_routing_config(ListRoutingConfigRequest) []
            "List what routing read at a revision";
    }
    "Usage": {
        List Owned "/usage" query_usage(QueryUsageRequest) [org_id]
            "Sum up spend, tokens, requests, errors and latency";
    }
    "Ledger": {
        List Owned "/ledger" list_ledger(ListLedgerRequest) [org_id] "List what happened to money, newest first";
        List Global "/ledger/verification" verify_ledger(VerifyLedgerRequest) []
            "Add the ledger up and compare it with all totals";
    }
    "Credits": {
        Read Org "/credits" get_credits(GetCreditsRequest) [org_id] "Get the balance";
        List Org "/credits/quote" quote_purchase(QuotePurchaseRequest) [org_id] "Tell what a purchase costs";
        Create Org "/credits/movements" create_credit_movement(CreateCreditMovementRequest) [org_id]
            "Give credit or take it back";
        List Org "/credits/movements" list_credit_movements(ListCreditMovementsRequest) [org_id]
            "List what moved the balance, newest first";
        Read Org "/credits/movements/{id}" get_credit_movement(GetCreditMovementRequest) [org_id id]
            "Get what moved the balance";
        List Global "/payment-events" list_payment_events(ListPaymentEventsRequest) []
            "List what the payment provider told, newest first";
    }
    "Webhooks": {
        Create Org "/webhooks" create_webhook(CreateWebhookRequest) [org_id] "Create a webhook";
        List Org "/webhooks" list_webhooks(ListWebhooksRequest) [org_id] "List webhooks";
        Read Org "/webhooks/{id}" get_webhook(GetWebhookRequest) [org_id id] "Get a webhook";
        Update Org "/webhooks/{id}" update_webhook(UpdateWebhookRequest) [org_id id] "Change a webhook";
        Act Org "/webhooks/{id}/rotate" rotate_webhook(RotateWebhookRequest) [org_id id]
            "Give a webhook a new secret";
        Act Org "/webhooks/{id}/test" test_webhook(TestWebhookRequest) [org_id id] "Send a webhook a test event";
        Delete Org "/webhooks/{id}" delete_webhook(DeleteWebhookRequest) [org_id id]
            "Delete a webhook and its deliveries";
        List Org "/webhook-deliveries" list_webhook_deliveries(ListWebhookDeliveriesRequest) [org_id]
            "List deliveries, newest first";
        Read Org "/webhook-deliveries/{id}" get_webhook_delivery(GetWebhookDeliveryRequest) [org_id id]
            "Get a delivery";
        Act Org "/webhook-deliveries/{id}/redeliver" redeliver_webhook(RedeliverWebhookRequest) [org_id id]
            "Deliver again";
    }
    "Audit log": {
        List Owned "/audit" list_audit(ListAuditRequest) [org_id] "Search the audit log";
        List Global "/audit/verification" verify_audit(VerifyAuditRequest) [] "Check the audit log's chain";
    }
    "Fleet": {
        List Global "/nodes" list_nodes(ListNodesRequest) [] "List the nodes";
    }
}
