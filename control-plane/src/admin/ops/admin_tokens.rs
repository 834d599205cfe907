//! Tokens for the admin API. The token itself is in the answer of its creation and nowhere else.

use nemo_proto::admin::{
    self as pb, CreateAdminTokenRequest, CreateAdminTokenResponse, DeleteAdminTokenRequest,
    DeleteAdminTokenResponse, GetAdminTokenRequest, ListAdminTokensRequest, ListAdminTokensResponse,
    UpdateAdminTokenRequest,
};
use nemo_types::{AdminToken, AdminTokenId};

use super::list_filter;
use crate::{
    admin::{Action, Admin, AdminError, Call, Written, page_token, validate},
    store::admin_tokens::{self, NewAdminToken},
};

/// Role of a token without organization.
const OPERATOR: &str = "operator";

impl Admin {
    pub async fn create_admin_token(
        &self,
        call: &Call,
        request: CreateAdminTokenRequest,
    ) -> Result<Written<CreateAdminTokenResponse>, AdminError> {
        validate::name("name", &request.name)?;
        let expires_at = validate::expiry("expires_at", request.expires_at)?;
        let role = match (request.org_id.as_str(), request.role.as_str()) {
            ("", "" | OPERATOR) => OPERATOR,
            ("", _) => {
                let message = "a token without organization is the operator's";
                return Err(AdminError::invalid("role", message, "nothing, or an org_id too"));
            }
            (_, role) => validate::role("role", role)?.name(),
        };
        let minted = AdminToken::mint()?;
        let action = "admin_token.create";
        let mut write = self.write_owner(call, Action::ManageAccess, &request.org_id, action).await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let new = NewAdminToken {
            id: AdminTokenId::generate().0,
            name: &request.name,
            role,
            public_id: minted.public_id.as_str(),
            secret_hash: minted.hash.as_bytes(),
            expires_at,
        };
        let made: pb::AdminToken = admin_tokens::insert(&mut write.tx, new).await?.into();
        let token = write.reveal(&minted.text);
        let answer = CreateAdminTokenResponse { admin_token: Some(made.clone()), token };
        write.done_with(&made, answer).await
    }

    pub async fn get_admin_token(
        &self,
        call: &Call,
        request: GetAdminTokenRequest,
    ) -> Result<pb::AdminToken, AdminError> {
        let id: AdminTokenId = validate::id("id", &request.id)?;
        let mut tx = self.owner(call, Action::ManageAccess, &request.org_id).await?;
        let row = admin_tokens::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("admin token", id))
    }

    /// Renames it. Role and expiry are fixed: another role is another token.
    pub async fn update_admin_token(
        &self,
        call: &Call,
        request: UpdateAdminTokenRequest,
    ) -> Result<Written<pb::AdminToken>, AdminError> {
        let id: AdminTokenId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let action = "admin_token.update";
        let mut write = self.write_owner(call, Action::ManageAccess, &request.org_id, action).await?;
        let row = admin_tokens::get(&mut write.tx, id.0).await?;
        let before: pb::AdminToken = write.found(row, id)?;
        let Some(name) = &request.name else { return write.done(before).await };
        let row = admin_tokens::rename(&mut write.tx, id.0, name).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("admin token", id))?.into()).await
    }

    pub async fn list_admin_tokens(
        &self,
        call: &Call,
        request: ListAdminTokensRequest,
    ) -> Result<ListAdminTokensResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        let role = match request.role.as_str() {
            "" => None,
            OPERATOR => Some(OPERATOR),
            role => Some(validate::role("role", role)?.name()),
        };
        let mut tx = self.owner(call, Action::ManageAccess, &request.org_id).await?;
        let listed = admin_tokens::list(&mut tx, role, page, &filter).await?;
        Ok(ListAdminTokensResponse {
            admin_tokens: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    /// Takes effect with the next request.
    pub async fn delete_admin_token(
        &self,
        call: &Call,
        request: DeleteAdminTokenRequest,
    ) -> Result<Written<DeleteAdminTokenResponse>, AdminError> {
        let id: AdminTokenId = validate::id("id", &request.id)?;
        let action = "admin_token.delete";
        let mut write = self.write_owner(call, Action::ManageAccess, &request.org_id, action).await?;
        let before = admin_tokens::get(&mut write.tx, id.0).await?;
        write.found::<pb::AdminToken>(before, id)?;
        admin_tokens::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}
