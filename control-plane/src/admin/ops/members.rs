//! People of an organization and their roles.

use nemo_proto::admin::{
    CreateMemberRequest, DeleteMemberRequest, DeleteMemberResponse, GetMemberRequest, ListMembersRequest,
    ListMembersResponse, Member, UpdateMemberRequest,
};
use nemo_types::MemberId;

use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Role, Written, page_token, validate},
    store::{Filter, TenantTx, members},
};

impl Admin {
    pub async fn create_member(
        &self,
        call: &Call,
        request: CreateMemberRequest,
    ) -> Result<Written<Member>, AdminError> {
        let known_by = known_by(&request)?;
        let role = validate::role("role", &request.role)?;
        let mut write =
            self.write_tenant(call, Action::ManageAccess, &request.org_id, "member.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let id = MemberId::generate().0;
        let row = members::insert(&mut write.tx, id, known_by.columns(), role.name()).await?;
        write.done(row.into()).await
    }

    pub async fn get_member(&self, call: &Call, request: GetMemberRequest) -> Result<Member, AdminError> {
        let id: MemberId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = members::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("member", id))
    }

    pub async fn list_members(
        &self,
        call: &Call,
        request: ListMembersRequest,
    ) -> Result<ListMembersResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = Filter {
            name: validate::filter("email", request.email.to_lowercase())?,
            name_prefix: validate::filter("email_prefix", request.email_prefix.to_lowercase())?,
            created_after: validate::time("created_after", request.created_after)?,
            created_before: validate::time("created_before", request.created_before)?,
        };
        let role = match request.role.as_str() {
            "" => None,
            role => Some(validate::role("role", role)?.name()),
        };
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = members::list(&mut tx, role, page, &filter).await?;
        Ok(ListMembersResponse {
            members: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_member(
        &self,
        call: &Call,
        request: UpdateMemberRequest,
    ) -> Result<Written<Member>, AdminError> {
        let id: MemberId = validate::id("id", &request.id)?;
        let role = validate::role("role", &request.role)?;
        let mut write =
            self.write_tenant(call, Action::ManageAccess, &request.org_id, "member.update").await?;
        let before = members::get(&mut write.tx, id.0).await?;
        write.found::<Member>(before, id)?;
        self.spare_last_owner(call, &mut write.tx, id, Some(role)).await?;
        let row = members::set_role(&mut write.tx, id.0, role.name()).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("member", id))?.into()).await
    }

    pub async fn delete_member(
        &self,
        call: &Call,
        request: DeleteMemberRequest,
    ) -> Result<Written<DeleteMemberResponse>, AdminError> {
        let id: MemberId = validate::id("id", &request.id)?;
        let mut write =
            self.write_tenant(call, Action::ManageAccess, &request.org_id, "member.delete").await?;
        let before = members::get(&mut write.tx, id.0).await?;
        write.found::<Member>(before, id)?;
        self.spare_last_owner(call, &mut write.tx, id, None).await?;
        members::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }

    /// An organization that has owners keeps one: who else could let people in? The operator could, so it may do
    /// without. `role` is what the member is to become; `None`: it is to be deleted.
    async fn spare_last_owner(
        &self,
        call: &Call,
        tx: &mut TenantTx,
        id: MemberId,
        role: Option<Role>,
    ) -> Result<(), AdminError> {
        if role == Some(Role::Owner) || call.caller.is_operator() || !members::is_last_owner(tx, id.0).await?
        {
            return Ok(());
        }
        Err(AdminError {
            expected: Some("another owner first".to_owned()),
            ..AdminError::new(ErrorKind::InUse, "this is the organization's last owner")
        })
    }
}

/// What a new member is known by, checked.
struct KnownBy {
    email: Option<String>,
    subject: Option<String>,
}

impl KnownBy {
    fn columns(&self) -> members::KnownBy<'_> {
        members::KnownBy { email: self.email.as_deref(), subject: self.subject.as_deref() }
    }
}

fn known_by(request: &CreateMemberRequest) -> Result<KnownBy, AdminError> {
    let subject = match request.subject.as_str() {
        "" => None,
        subject => Some(validate::subject("subject", subject)?),
    };
    let email = match request.email.as_str() {
        "" if subject.is_some() => None,
        email => Some(validate::email("email", email)?),
    };
    Ok(KnownBy { email, subject })
}
