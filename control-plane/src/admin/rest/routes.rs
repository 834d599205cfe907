//! The table of paths. Each line names the operation, its request message, and which of its members the path gives.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, patch, post, put},
};
use nemo_proto::admin::*;

use super::extract::{Auth, Body, Ids, Parameters};
use crate::admin::{Admin, AdminError};

/// One handler. `create` answers 201, `change` 200, `read` and `remove` take no body (`remove` answers 204), `list`
/// takes its members from the query.
macro_rules! op {
    (create $operation:ident($request:ident) $($member:ident)*) => {
        op!(@body CREATED $operation($request) $($member)*)
    };
    (change $operation:ident($request:ident) $($member:ident)*) => {
        op!(@body OK $operation($request) $($member)*)
    };
    (@body $status:ident $operation:ident($request:ident) $($member:ident)*) => {
        async |State(admin): State<Arc<Admin>>, Auth(caller): Auth, ids: Ids, Body(body): Body<$request>| {
            let answer = admin.$operation(&caller, op!(@fill ids, body, $($member)*)).await?;
            Ok::<_, AdminError>((StatusCode::$status, Json(answer)))
        }
    };
    (list $operation:ident($request:ident) $($member:ident)*) => {
        async |State(admin): State<Arc<Admin>>, Auth(caller): Auth, ids: Ids, query: Parameters<$request>| {
            let answer = admin.$operation(&caller, op!(@fill ids, query.0, $($member)*)).await?;
            Ok::<_, AdminError>(Json(answer))
        }
    };
    (read $operation:ident($request:ident) $($member:ident)*) => {
        async |State(admin): State<Arc<Admin>>, Auth(caller): Auth, ids: Ids| {
            let request = op!(@fill ids, $request::default(), $($member)*);
            Ok::<_, AdminError>(Json(admin.$operation(&caller, request).await?))
        }
    };
    (remove $operation:ident($request:ident) $($member:ident)*) => {
        async |State(admin): State<Arc<Admin>>, Auth(caller): Auth, ids: Ids| {
            admin.$operation(&caller, op!(@fill ids, $request::default(), $($member)*)).await?;
            Ok::<_, AdminError>(StatusCode::NO_CONTENT)
        }
    };
    (@fill $ids:ident, $request:expr, $($member:ident)*) => {
        $ids.fill($request, |_request| [$((stringify!($member), &mut _request.$member)),*])?
    };
}

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .merge(organizations())
        .nest("/organizations/{org_id}", organization().merge(owned()))
        .merge(owned())
        .merge(catalog())
        .route("/nodes", get(nodes))
}

fn organizations() -> Router<Arc<Admin>> {
    Router::new()
        .route(
            "/organizations",
            post(op!(create create_organization(CreateOrganizationRequest)))
                .get(op!(list list_organizations(ListOrganizationsRequest))),
        )
        .route(
            "/organizations/{id}",
            get(op!(read get_organization(GetOrganizationRequest) id))
                .patch(op!(change update_organization(UpdateOrganizationRequest) id))
                .delete(op!(remove delete_organization(DeleteOrganizationRequest) id)),
        )
}

/// What only organizations have.
fn organization() -> Router<Arc<Admin>> {
    Router::new()
        .route(
            "/teams",
            post(op!(create create_team(CreateTeamRequest) org_id))
                .get(op!(list list_teams(ListTeamsRequest) org_id)),
        )
        .route(
            "/teams/{id}",
            get(op!(read get_team(GetTeamRequest) org_id id))
                .patch(op!(change update_team(UpdateTeamRequest) org_id id))
                .delete(op!(remove delete_team(DeleteTeamRequest) org_id id)),
        )
        .route(
            "/members",
            post(op!(create create_member(CreateMemberRequest) org_id))
                .get(op!(list list_members(ListMembersRequest) org_id)),
        )
        .route(
            "/members/{id}",
            patch(op!(change update_member(UpdateMemberRequest) org_id id))
                .delete(op!(remove delete_member(DeleteMemberRequest) org_id id)),
        )
        .route(
            "/keys",
            post(op!(create issue_key(IssueKeyRequest) org_id))
                .get(op!(list list_keys(ListKeysRequest) org_id)),
        )
        .route(
            "/keys/{id}",
            get(op!(read get_key(GetKeyRequest) org_id id))
                .patch(op!(change update_key(UpdateKeyRequest) org_id id))
                .delete(op!(remove delete_key(DeleteKeyRequest) org_id id)),
        )
        .route("/keys/{id}/rotate", post(op!(change rotate_key(RotateKeyRequest) org_id id)))
        .route("/requests", get(op!(list list_requests(ListRequestsRequest) org_id)))
        .route("/requests/{id}", get(op!(read get_request(GetRequestRequest) org_id id)))
}

/// What organizations and the operator both have: the same paths with and without `/organizations/{org_id}`.
fn owned() -> Router<Arc<Admin>> {
    Router::new()
        .route(
            "/admin-tokens",
            post(op!(create create_admin_token(CreateAdminTokenRequest) org_id))
                .get(op!(list list_admin_tokens(ListAdminTokensRequest) org_id)),
        )
        .route(
            "/admin-tokens/{id}",
            axum::routing::delete(op!(remove delete_admin_token(DeleteAdminTokenRequest) org_id id)),
        )
        .route(
            "/credentials",
            post(op!(create create_credential(CreateCredentialRequest) org_id))
                .get(op!(list list_credentials(ListCredentialsRequest) org_id)),
        )
        .route(
            "/credentials/{id}",
            get(op!(read get_credential(GetCredentialRequest) org_id id))
                .patch(op!(change update_credential(UpdateCredentialRequest) org_id id))
                .delete(op!(remove delete_credential(DeleteCredentialRequest) org_id id)),
        )
        .route(
            "/deployments",
            post(op!(create create_deployment(CreateDeploymentRequest) org_id))
                .get(op!(list list_deployments(ListDeploymentsRequest) org_id)),
        )
        .route(
            "/deployments/{id}",
            get(op!(read get_deployment(GetDeploymentRequest) org_id id))
                .patch(op!(change update_deployment(UpdateDeploymentRequest) org_id id))
                .delete(op!(remove delete_deployment(DeleteDeploymentRequest) org_id id)),
        )
        .route(
            "/model-groups",
            post(op!(create create_model_group(CreateModelGroupRequest) org_id))
                .get(op!(list list_model_groups(ListModelGroupsRequest) org_id)),
        )
        .route(
            "/model-groups/{id}",
            get(op!(read get_model_group(GetModelGroupRequest) org_id id))
                .patch(op!(change update_model_group(UpdateModelGroupRequest) org_id id))
                .delete(op!(remove delete_model_group(DeleteModelGroupRequest) org_id id)),
        )
        .route("/settings", get(op!(list list_settings(ListSettingsRequest) org_id)))
        .route(
            "/settings/{key}",
            put(op!(change put_setting(PutSettingRequest) org_id key))
                .delete(op!(remove delete_setting(DeleteSettingRequest) org_id key)),
        )
}

fn catalog() -> Router<Arc<Admin>> {
    Router::new().route("/models", get(op!(list list_models(ListModelsRequest)))).route(
        "/models/{*id}",
        put(put_model)
            .get(op!(read get_model(GetModelRequest) id))
            .delete(op!(remove delete_model(DeleteModelRequest) id)),
    )
}

/// The id is a member of a member.
async fn put_model(
    State(admin): State<Arc<Admin>>,
    Auth(caller): Auth,
    ids: Ids,
    Body(request): Body<PutModelRequest>,
) -> Result<Json<Model>, AdminError> {
    let model = request.model.map(|model| ids.fill(model, |model| [("id", &mut model.id)])).transpose();
    let request = PutModelRequest { model: model.map_err(|error| error.with_field("model.id"))? };
    Ok(Json(admin.put_model(&caller, request).await?))
}

/// The registry is in memory, so the operation is no future.
async fn nodes(
    State(admin): State<Arc<Admin>>,
    Auth(caller): Auth,
) -> Result<Json<ListNodesResponse>, AdminError> {
    admin.list_nodes(&caller, ListNodesRequest {}).map(Json)
}
