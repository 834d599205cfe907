//! Organizations. Making, listing, switching and deleting them is the operator's; an administrator may rename its own.

use nemo_proto::admin::{
    CreateOrganizationRequest, DeleteOrganizationRequest, DeleteOrganizationResponse, GetOrganizationRequest,
    ListOrganizationsRequest, ListOrganizationsResponse, Organization, UpdateOrganizationRequest,
};
use nemo_types::OrgId;

use super::deleted;
use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::organizations,
};

impl Admin {
    pub async fn create_organization(
        &self,
        caller: &Caller,
        request: CreateOrganizationRequest,
    ) -> Result<Organization, AdminError> {
        validate::name("name", &request.name)?;
        caller.check_operator()?;
        let mut tx = self.store.system().await?;
        let row = organizations::insert(&mut tx, OrgId::generate().0, &request.name).await?;
        tx.commit().await?;
        Ok(row.into())
    }

    pub async fn get_organization(
        &self,
        caller: &Caller,
        request: GetOrganizationRequest,
    ) -> Result<Organization, AdminError> {
        let id: OrgId = validate::id("id", &request.id)?;
        caller.check(Action::Read, id)?;
        let mut tx = self.store.tenant(id).await?;
        let row = organizations::get(&mut tx).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("organization", id))
    }

    pub async fn list_organizations(
        &self,
        caller: &Caller,
        request: ListOrganizationsRequest,
    ) -> Result<ListOrganizationsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        caller.check_operator()?;
        let mut tx = self.store.system().await?;
        let listed = organizations::list(&mut tx, page).await?;
        Ok(ListOrganizationsResponse {
            organizations: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_organization(
        &self,
        caller: &Caller,
        request: UpdateOrganizationRequest,
    ) -> Result<Organization, AdminError> {
        let id: OrgId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        caller.check(Action::Write, id)?;
        if request.disabled.is_some() {
            caller.check_operator().map_err(|error| error.with_field("disabled"))?;
        }
        let mut tx = self.store.tenant(id).await?;
        let row = organizations::update(&mut tx, request.name.as_deref(), request.disabled).await?;
        tx.commit().await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("organization", id))
    }

    /// Deletes the organization with everything that it owns. Its request log stays.
    pub async fn delete_organization(
        &self,
        caller: &Caller,
        request: DeleteOrganizationRequest,
    ) -> Result<DeleteOrganizationResponse, AdminError> {
        let id: OrgId = validate::id("id", &request.id)?;
        caller.check_operator()?;
        let mut tx = self.store.system().await?;
        let found = organizations::delete(&mut tx, id.0).await?;
        tx.commit().await?;
        deleted(found, "organization", id)?;
        Ok(DeleteOrganizationResponse {})
    }
}
