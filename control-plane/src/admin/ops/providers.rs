//! Provider credentials. A secret is sealed before it reaches the store and never comes back (I10).

use nemo_proto::admin::{
    CreateCredentialRequest, Credential, DeleteCredentialRequest, DeleteCredentialResponse,
    GetCredentialRequest, ListCredentialsRequest, ListCredentialsResponse, UpdateCredentialRequest,
};
use nemo_types::{CredentialId, Secret};

use super::{deleted, in_use};
use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::credentials::{self, CredentialChange, NewCredential},
};

impl Admin {
    pub async fn create_credential(
        &self,
        caller: &Caller,
        request: CreateCredentialRequest,
    ) -> Result<Credential, AdminError> {
        validate::name("name", &request.name)?;
        validate::slug("provider", &request.provider)?;
        validate::secret("secret", &request.secret)?;
        let id = CredentialId::generate();
        let secret = self.sealer.seal(id, &Secret::new(request.secret))?;
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        let new = NewCredential {
            id: id.0,
            name: &request.name,
            provider: &request.provider,
            sealed: secret.sealed.as_bytes(),
            hint: &secret.hint,
        };
        let row = credentials::insert(&mut tx, new).await?;
        tx.commit().await?;
        Ok(row.into())
    }

    pub async fn get_credential(
        &self,
        caller: &Caller,
        request: GetCredentialRequest,
    ) -> Result<Credential, AdminError> {
        let id: CredentialId = validate::id("id", &request.id)?;
        let mut tx = self.owner(caller, Action::Read, &request.org_id).await?;
        let row = credentials::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("credential", id))
    }

    pub async fn list_credentials(
        &self,
        caller: &Caller,
        request: ListCredentialsRequest,
    ) -> Result<ListCredentialsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let mut tx = self.owner(caller, Action::Read, &request.org_id).await?;
        let listed = credentials::list(&mut tx, page).await?;
        Ok(ListCredentialsResponse {
            credentials: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_credential(
        &self,
        caller: &Caller,
        request: UpdateCredentialRequest,
    ) -> Result<Credential, AdminError> {
        let id: CredentialId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let secret = match request.secret {
            Some(secret) => {
                validate::secret("secret", &secret)?;
                Some(self.sealer.seal(id, &Secret::new(secret))?)
            }
            None => None,
        };
        let change = CredentialChange {
            name: request.name.as_deref(),
            secret: secret.as_ref().map(|secret| (secret.sealed.as_bytes(), secret.hint.as_str())),
        };
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        let row = credentials::update(&mut tx, id.0, change).await?;
        tx.commit().await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("credential", id))
    }

    pub async fn delete_credential(
        &self,
        caller: &Caller,
        request: DeleteCredentialRequest,
    ) -> Result<DeleteCredentialResponse, AdminError> {
        let id: CredentialId = validate::id("id", &request.id)?;
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        let found = credentials::delete(&mut tx, id.0).await.map_err(|error| {
            in_use(error, "deployments still use this credential: delete or change them first")
        })?;
        tx.commit().await?;
        deleted(found, "credential", id)?;
        Ok(DeleteCredentialResponse {})
    }
}
