//! Provider credentials. A secret is sealed before it reaches the store and never comes back (I10).

use nemo_proto::admin::{
    CreateCredentialRequest, Credential, DeleteCredentialRequest, DeleteCredentialResponse,
    GetCredentialRequest, ListCredentialsRequest, ListCredentialsResponse, UpdateCredentialRequest,
};
use nemo_types::{CredentialId, Secret};

use super::{in_use, list_filter};
use crate::{
    admin::{Action, Admin, AdminError, Call, Written, page_token, validate},
    store::credentials::{self, CredentialChange, NewCredential},
};

impl Admin {
    pub async fn create_credential(
        &self,
        call: &Call,
        request: CreateCredentialRequest,
    ) -> Result<Written<Credential>, AdminError> {
        validate::name("name", &request.name)?;
        validate::slug("provider", &request.provider)?;
        validate::secret("secret", &request.provider, &request.secret)?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "credential.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let id = CredentialId::generate();
        let secret = self.sealer.seal(id, &Secret::new(request.secret))?;
        let new = NewCredential {
            id: id.0,
            name: &request.name,
            provider: &request.provider,
            sealed: secret.sealed.as_bytes(),
            hint: &secret.hint,
        };
        let row = credentials::insert(&mut write.tx, new).await?;
        write.done(row.into()).await
    }

    pub async fn get_credential(
        &self,
        call: &Call,
        request: GetCredentialRequest,
    ) -> Result<Credential, AdminError> {
        let id: CredentialId = validate::id("id", &request.id)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let row = credentials::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("credential", id))
    }

    pub async fn list_credentials(
        &self,
        call: &Call,
        request: ListCredentialsRequest,
    ) -> Result<ListCredentialsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        let provider = validate::filter("provider", request.provider)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let listed = credentials::list(&mut tx, provider.as_deref(), page, &filter).await?;
        Ok(ListCredentialsResponse {
            credentials: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_credential(
        &self,
        call: &Call,
        request: UpdateCredentialRequest,
    ) -> Result<Written<Credential>, AdminError> {
        let id: CredentialId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "credential.update").await?;
        let before = credentials::get(&mut write.tx, id.0).await?;
        let before: Credential = write.found(before, id)?;
        let secret = match request.secret {
            Some(secret) => {
                validate::secret("secret", &before.provider, &secret)?;
                Some(self.sealer.seal(id, &Secret::new(secret))?)
            }
            None => None,
        };
        let change = CredentialChange {
            name: request.name.as_deref(),
            secret: secret.as_ref().map(|secret| (secret.sealed.as_bytes(), secret.hint.as_str())),
        };
        let row = credentials::update(&mut write.tx, id.0, change).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("credential", id))?.into()).await
    }

    pub async fn delete_credential(
        &self,
        call: &Call,
        request: DeleteCredentialRequest,
    ) -> Result<Written<DeleteCredentialResponse>, AdminError> {
        let id: CredentialId = validate::id("id", &request.id)?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "credential.delete").await?;
        let before = credentials::get(&mut write.tx, id.0).await?;
        write.found::<Credential>(before, id)?;
        credentials::delete(&mut write.tx, id.0).await.map_err(|error| {
            in_use(error, "deployments still use this credential: delete or change them first")
        })?;
        write.deleted().await
    }
}
