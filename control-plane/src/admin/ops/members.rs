//! People of an organization and their roles.

use nemo_proto::admin::{
    CreateMemberRequest, DeleteMemberRequest, DeleteMemberResponse, ListMembersRequest, ListMembersResponse,
    Member, UpdateMemberRequest,
};
use nemo_types::MemberId;

use super::deleted;
use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::members,
};

impl Admin {
    pub async fn create_member(
        &self,
        caller: &Caller,
        request: CreateMemberRequest,
    ) -> Result<Member, AdminError> {
        let email = validate::email("email", &request.email)?;
        let role = validate::role("role", &request.role)?;
        let mut tx = self.tenant(caller, Action::ManageAccess, &request.org_id).await?;
        let row = members::insert(&mut tx, MemberId::generate().0, &email, role.name()).await?;
        tx.commit().await?;
        Ok(row.into())
    }

    pub async fn list_members(
        &self,
        caller: &Caller,
        request: ListMembersRequest,
    ) -> Result<ListMembersResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
        let listed = members::list(&mut tx, page).await?;
        Ok(ListMembersResponse {
            members: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_member(
        &self,
        caller: &Caller,
        request: UpdateMemberRequest,
    ) -> Result<Member, AdminError> {
        let id: MemberId = validate::id("id", &request.id)?;
        let role = validate::role("role", &request.role)?;
        let mut tx = self.tenant(caller, Action::ManageAccess, &request.org_id).await?;
        let row = members::set_role(&mut tx, id.0, role.name()).await?;
        tx.commit().await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("member", id))
    }

    pub async fn delete_member(
        &self,
        caller: &Caller,
        request: DeleteMemberRequest,
    ) -> Result<DeleteMemberResponse, AdminError> {
        let id: MemberId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(caller, Action::ManageAccess, &request.org_id).await?;
        let found = members::delete(&mut tx, id.0).await?;
        tx.commit().await?;
        deleted(found, "member", id)?;
        Ok(DeleteMemberResponse {})
    }
}
