//! Tokens for the admin API. The token itself is in the answer of its creation and nowhere else.

use nemo_proto::admin::{
    CreateAdminTokenRequest, CreateAdminTokenResponse, DeleteAdminTokenRequest, DeleteAdminTokenResponse,
    ListAdminTokensRequest, ListAdminTokensResponse,
};
use nemo_types::{AdminToken, AdminTokenId};

use super::deleted;
use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::admin_tokens::{self, NewAdminToken},
};

/// Role of a token without organization.
const OPERATOR: &str = "operator";

impl Admin {
    pub async fn create_admin_token(
        &self,
        caller: &Caller,
        request: CreateAdminTokenRequest,
    ) -> Result<CreateAdminTokenResponse, AdminError> {
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
        let mut tx = self.owner(caller, Action::ManageAccess, &request.org_id).await?;
        let new = NewAdminToken {
            id: AdminTokenId::generate().0,
            name: &request.name,
            role,
            public_id: minted.public_id.as_str(),
            secret_hash: minted.hash.as_bytes(),
            expires_at,
        };
        let row = admin_tokens::insert(&mut tx, new).await?;
        tx.commit().await?;
        Ok(CreateAdminTokenResponse { admin_token: Some(row.into()), token: minted.text.expose().to_owned() })
    }

    pub async fn list_admin_tokens(
        &self,
        caller: &Caller,
        request: ListAdminTokensRequest,
    ) -> Result<ListAdminTokensResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let mut tx = self.owner(caller, Action::ManageAccess, &request.org_id).await?;
        let listed = admin_tokens::list(&mut tx, page).await?;
        Ok(ListAdminTokensResponse {
            admin_tokens: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    /// Takes effect with the next request.
    pub async fn delete_admin_token(
        &self,
        caller: &Caller,
        request: DeleteAdminTokenRequest,
    ) -> Result<DeleteAdminTokenResponse, AdminError> {
        let id: AdminTokenId = validate::id("id", &request.id)?;
        let mut tx = self.owner(caller, Action::ManageAccess, &request.org_id).await?;
        let found = admin_tokens::delete(&mut tx, id.0).await?;
        tx.commit().await?;
        deleted(found, "admin token", id)?;
        Ok(DeleteAdminTokenResponse {})
    }
}
