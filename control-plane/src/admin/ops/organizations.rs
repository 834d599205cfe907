//! Organizations. Making, switching and deleting them is the operator's; an administrator may rename its own, and
//! everybody sees those that it is in.

use nemo_proto::admin::{
    CreateOrganizationRequest, DeleteOrganizationRequest, DeleteOrganizationResponse, GetOrganizationRequest,
    ListOrganizationsRequest, ListOrganizationsResponse, Organization, UpdateOrganizationRequest,
};
use nemo_types::OrgId;

use super::{credits::welcome, list_filter};
use crate::{
    admin::{Action, Admin, AdminError, Call, Written, page_token, validate},
    store::organizations,
};

impl Admin {
    pub async fn create_organization(
        &self,
        call: &Call,
        request: CreateOrganizationRequest,
    ) -> Result<Written<Organization>, AdminError> {
        validate::name("name", &request.name)?;
        let mut write = self.write_system(call, "organization.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let id = OrgId::generate();
        let row = organizations::insert(&mut write.tx, id.0, &request.name).await?;
        welcome(&mut write.tx, id).await?;
        write.done(row.into()).await
    }

    pub async fn get_organization(
        &self,
        call: &Call,
        request: GetOrganizationRequest,
    ) -> Result<Organization, AdminError> {
        let id: OrgId = validate::id("id", &request.id)?;
        call.check(Action::Read, id)?;
        let mut tx = self.store.tenant(id).await?;
        let row = organizations::get(&mut tx).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("organization", id))
    }

    pub async fn list_organizations(
        &self,
        call: &Call,
        request: ListOrganizationsRequest,
    ) -> Result<ListOrganizationsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        // Whoever is in some organizations sees those.
        let only = call.caller.organizations().map(|ids| ids.into_iter().map(|id| id.0).collect::<Vec<_>>());
        let mut tx = self.store.system().await?;
        let listed = organizations::list(&mut tx, only.as_deref(), request.disabled, page, &filter).await?;
        Ok(ListOrganizationsResponse {
            organizations: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_organization(
        &self,
        call: &Call,
        request: UpdateOrganizationRequest,
    ) -> Result<Written<Organization>, AdminError> {
        let id: OrgId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        call.check(Action::Write, id)?;
        if request.disabled.is_some() {
            call.check_operator().map_err(|error| error.with_field("disabled"))?;
        }
        let action = "organization.update";
        let mut write = self.write_tenant(call, Action::Write, &request.id, action).await.map_err(by_id)?;
        let before = organizations::get(&mut write.tx).await?;
        write.found::<Organization>(before, id)?;
        let row = organizations::update(&mut write.tx, request.name.as_deref(), request.disabled).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("organization", id))?.into()).await
    }

    /// Deletes the organization with everything that it owns. Its request log stays.
    pub async fn delete_organization(
        &self,
        call: &Call,
        request: DeleteOrganizationRequest,
    ) -> Result<Written<DeleteOrganizationResponse>, AdminError> {
        let id: OrgId = validate::id("id", &request.id)?;
        let mut write = self.write_system(call, "organization.delete").await?;
        let before = organizations::find(&mut write.tx, id.0).await?;
        write.found::<Organization>(before, id)?;
        organizations::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}

/// Here the member that names the organization is called `id`.
fn by_id(error: AdminError) -> AdminError {
    AdminError { field: error.field.map(|_| "id".to_owned()), ..error }
}
