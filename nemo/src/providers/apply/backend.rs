//! The admin operations that applying needs, in process (at the start of `nemo standalone`) or over the network
//! (`nemo apply`). One list, two implementations.

use std::cell::Cell;

use nemo_control_plane::admin::{Admin, AdminError, Call, ErrorKind};
use nemo_proto::admin as pb;
use tonic::{Code, Request, Status, metadata::MetadataValue};

use crate::admin_client::{AdminClient, PAGE, explain};

/// Why an operation was refused, as far as applying minds.
#[derive(Debug)]
pub struct Refused {
    pub in_use: bool,
    pub not_found: bool,
    pub error: anyhow::Error,
}

impl From<Refused> for anyhow::Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl From<AdminError> for Refused {
    fn from(error: AdminError) -> Self {
        let (in_use, not_found) = (error.kind == ErrorKind::InUse, error.kind == ErrorKind::NotFound);
        Self { in_use, not_found, error: error.into() }
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let (in_use, not_found) =
            (status.code() == Code::FailedPrecondition, status.code() == Code::NotFound);
        Self { in_use, not_found, error: explain(status) }
    }
}

/// In this process, as the operator.
pub struct Local<'a> {
    admin: &'a Admin,
    call: Call,
}

impl<'a> Local<'a> {
    pub fn new(admin: &'a Admin) -> Self {
        Self { admin, call: Call::local_operator() }
    }
}

/// Over the network.
pub struct Remote {
    client: AdminClient,
    /// The next write returns when the fleet has applied it.
    wait: Cell<bool>,
}

impl Remote {
    pub fn new(client: AdminClient) -> Self {
        Self { client, wait: Cell::new(false) }
    }

    pub fn wait_from_now_on(&self) {
        self.wait.set(true);
    }

    fn write<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.wait.get() {
            request.metadata_mut().insert("x-nemo-wait", MetadataValue::from_static("fleet"));
        }
        request
    }
}

macro_rules! operations {
    (
        reads { $($read:ident($read_request:ident) -> $read_answer:ident by $read_service:ident;)* }
        writes { $($write:ident($write_request:ident) -> $write_answer:ident by $write_service:ident;)* }
    ) => {
        /// The operations, named as in the admin API.
        pub trait Backend {
            $(fn $read(&self, request: pb::$read_request)
                -> impl Future<Output = Result<pb::$read_answer, Refused>>;)*
            $(fn $write(&self, request: pb::$write_request)
                -> impl Future<Output = Result<pb::$write_answer, Refused>>;)*
        }

        impl Backend for Local<'_> {
            $(async fn $read(&self, request: pb::$read_request) -> Result<pb::$read_answer, Refused> {
                Ok(Box::pin(self.admin.$read(&self.call, request)).await?)
            })*
            $(async fn $write(&self, request: pb::$write_request) -> Result<pb::$write_answer, Refused> {
                Ok(Box::pin(self.admin.$write(&self.call, request)).await?.into_answer())
            })*
        }

        impl Backend for Remote {
            $(async fn $read(&self, request: pb::$read_request) -> Result<pb::$read_answer, Refused> {
                Ok(Box::pin(self.client.$read_service().$read(request)).await?.into_inner())
            })*
            $(async fn $write(&self, request: pb::$write_request) -> Result<pb::$write_answer, Refused> {
                Ok(Box::pin(self.client.$write_service().$write(self.write(request))).await?.into_inner())
            })*
        }
    };
}

operations! {
    reads {
        list_organizations(ListOrganizationsRequest) -> ListOrganizationsResponse by tenancy;
        list_teams(ListTeamsRequest) -> ListTeamsResponse by tenancy;
        list_keys(ListKeysRequest) -> ListKeysResponse by keys;
        list_models(ListModelsRequest) -> ListModelsResponse by catalog;
        list_credentials(ListCredentialsRequest) -> ListCredentialsResponse by providers;
        list_deployments(ListDeploymentsRequest) -> ListDeploymentsResponse by providers;
        list_settings(ListSettingsRequest) -> ListSettingsResponse by settings;
        list_budgets(ListBudgetsRequest) -> ListBudgetsResponse by budgets;
        list_rate_limits(ListRateLimitsRequest) -> ListRateLimitsResponse by rate_limits;
        list_model_groups(ListModelGroupsRequest) -> ListModelGroupsResponse by model_groups;
    }
    writes {
        create_organization(CreateOrganizationRequest) -> Organization by tenancy;
        create_team(CreateTeamRequest) -> Team by tenancy;
        issue_key(IssueKeyRequest) -> IssueKeyResponse by keys;
        update_key(UpdateKeyRequest) -> Key by keys;
        create_budget(CreateBudgetRequest) -> Budget by budgets;
        update_budget(UpdateBudgetRequest) -> Budget by budgets;
        delete_budget(DeleteBudgetRequest) -> DeleteBudgetResponse by budgets;
        create_rate_limit(CreateRateLimitRequest) -> RateLimit by rate_limits;
        update_rate_limit(UpdateRateLimitRequest) -> RateLimit by rate_limits;
        delete_rate_limit(DeleteRateLimitRequest) -> DeleteRateLimitResponse by rate_limits;
        put_model(PutModelRequest) -> Model by catalog;
        delete_model(DeleteModelRequest) -> DeleteModelResponse by catalog;
        create_credential(CreateCredentialRequest) -> Credential by providers;
        update_credential(UpdateCredentialRequest) -> Credential by providers;
        delete_credential(DeleteCredentialRequest) -> DeleteCredentialResponse by providers;
        create_deployment(CreateDeploymentRequest) -> Deployment by providers;
        update_deployment(UpdateDeploymentRequest) -> Deployment by providers;
        delete_deployment(DeleteDeploymentRequest) -> DeleteDeploymentResponse by providers;
        create_model_group(CreateModelGroupRequest) -> ModelGroup by model_groups;
        update_model_group(UpdateModelGroupRequest) -> ModelGroup by model_groups;
        put_setting(PutSettingRequest) -> Setting by settings;
        delete_setting(DeleteSettingRequest) -> DeleteSettingResponse by settings;
        delete_model_group(DeleteModelGroupRequest) -> DeleteModelGroupResponse by model_groups;
    }
}

/// Every page of a list.
///
/// # Errors
/// When a page cannot be had.
pub async fn all<T, E>(
    mut fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), E>,
) -> Result<Vec<T>, E> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = fetch(token).await?;
        items.extend(page);
        if next.is_empty() {
            return Ok(items);
        }
        token = next;
    }
}

/// Everything of one kind: `every!(backend.list_teams -> teams, ListTeamsRequest { org_id })`.
macro_rules! every {
    ($backend:expr, $method:ident -> $items:ident, $request:ident { $($field:ident),* }) => {
        $crate::providers::apply::backend::all(async |page_token| {
            let page_size = $crate::providers::apply::backend::PAGE_SIZE;
            let request = pb::$request { $($field: $field.to_owned(),)* page_size, page_token, ..Default::default() };
            let page = $backend.$method(request).await?;
            Ok::<_, $crate::providers::apply::backend::Refused>((page.$items, page.next_page_token))
        })
        .await
    };
}
pub(super) use every;

pub(super) const PAGE_SIZE: u32 = PAGE;
