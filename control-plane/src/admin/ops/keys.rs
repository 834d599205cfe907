//! Virtual keys: issue, rotate, disable, expire, delete [R000-3]. A secret is in the answer of the call that made it and
//! nowhere else; stored is its hash.

use nemo_proto::admin::{
    DeleteKeyRequest, DeleteKeyResponse, GetKeyRequest, IssueKeyRequest, IssueKeyResponse, Key,
    ListKeysRequest, ListKeysResponse, RotateKeyRequest, UpdateKeyRequest,
};
use nemo_types::{ApiKey, KeyId, PublicId, TeamId};
use time::Duration;

use super::{convert, deleted};
use crate::{
    admin::{Action, Admin, AdminError, Caller, ErrorKind, page_token, validate},
    store::{
        api_keys::{self, ApiKeyChange, NewApiKey},
        teams,
    },
};

/// How long an old secret may outlive its rotation at most.
const MAX_OVERLAP_SECONDS: u32 = 7 * 24 * 3600;

impl Admin {
    pub async fn issue_key(
        &self,
        caller: &Caller,
        request: IssueKeyRequest,
    ) -> Result<IssueKeyResponse, AdminError> {
        let team: TeamId = validate::id("team_id", &request.team_id)?;
        validate::name("name", &request.name)?;
        validate::allowed_models("allowed_models", &request.allowed_models)?;
        let expires_at = validate::expiry("expires_at", request.expires_at)?;
        let minted = ApiKey::mint()?;
        let mut tx = self.tenant(caller, Action::IssueKeys, &request.org_id).await?;
        if teams::get(&mut tx, team.0).await?.is_none() {
            return Err(AdminError::not_found("team", team).with_field("team_id"));
        }
        let new = NewApiKey {
            id: KeyId::generate().0,
            team_id: team.0,
            name: &request.name,
            public_id: minted.public_id.as_str(),
            secret_hash: minted.hash.as_bytes(),
            expires_at,
            allowed_models: &request.allowed_models,
        };
        let row = api_keys::insert(&mut tx, new).await?;
        tx.commit().await?;
        let key = convert::key(row, validate::now());
        Ok(IssueKeyResponse { key: Some(key), secret: minted.text.expose().to_owned() })
    }

    pub async fn get_key(&self, caller: &Caller, request: GetKeyRequest) -> Result<Key, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
        let row = api_keys::get(&mut tx, id.0).await?.ok_or_else(|| AdminError::not_found("key", id))?;
        Ok(convert::key(row, validate::now()))
    }

    pub async fn list_keys(
        &self,
        caller: &Caller,
        request: ListKeysRequest,
    ) -> Result<ListKeysResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let team = match request.team_id.as_str() {
            "" => None,
            text => Some(validate::id::<TeamId>("team_id", text)?.0),
        };
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
        let listed = api_keys::list(&mut tx, team, page).await?;
        let now = validate::now();
        Ok(ListKeysResponse {
            keys: listed.rows.into_iter().map(|row| convert::key(row, now)).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_key(&self, caller: &Caller, request: UpdateKeyRequest) -> Result<Key, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        if let Some(allowed) = &request.allowed_models {
            validate::allowed_models("allowed_models.names", &allowed.names)?;
        }
        let expires_at = match (request.never_expires, request.expires_at) {
            (true, Some(_)) => {
                let message = "contradicts expires_at";
                return Err(AdminError::invalid("never_expires", message, "one of the two"));
            }
            (true, None) => Some(None),
            (false, at) => validate::expiry("expires_at", at)?.map(Some),
        };
        let change = ApiKeyChange {
            name: request.name.as_deref(),
            disabled: request.disabled,
            expires_at,
            allowed_models: request.allowed_models.as_ref().map(|allowed| allowed.names.as_slice()),
        };
        let mut tx = self.tenant(caller, Action::Write, &request.org_id).await?;
        let row = api_keys::update(&mut tx, id.0, change).await?;
        tx.commit().await?;
        let row = row.ok_or_else(|| AdminError::not_found("key", id))?;
        Ok(convert::key(row, validate::now()))
    }

    pub async fn rotate_key(
        &self,
        caller: &Caller,
        request: RotateKeyRequest,
    ) -> Result<IssueKeyResponse, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        let overlap = request.overlap_seconds;
        if overlap > MAX_OVERLAP_SECONDS {
            let expected = format!("0 to {MAX_OVERLAP_SECONDS} (7 days)");
            return Err(AdminError::invalid("overlap_seconds", format!("{overlap} is too long"), expected));
        }
        let mut tx = self.tenant(caller, Action::Write, &request.org_id).await?;
        let row = api_keys::get(&mut tx, id.0).await?.ok_or_else(|| AdminError::not_found("key", id))?;
        let public_id: PublicId = row.public_id.parse().map_err(|_| {
            tracing::error!(key = %id, "a stored key has a malformed public id");
            AdminError::new(ErrorKind::Internal, "the key is damaged: delete it and issue another")
        })?;
        let minted = ApiKey::remint(public_id)?;
        let now = validate::now();
        let until = (overlap > 0).then(|| now + Duration::seconds(overlap.into()));
        let row = api_keys::rotate(&mut tx, id.0, minted.hash.as_bytes(), until).await?;
        tx.commit().await?;
        let row = row.ok_or_else(|| AdminError::not_found("key", id))?;
        Ok(IssueKeyResponse { key: Some(convert::key(row, now)), secret: minted.text.expose().to_owned() })
    }

    pub async fn delete_key(
        &self,
        caller: &Caller,
        request: DeleteKeyRequest,
    ) -> Result<DeleteKeyResponse, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(caller, Action::Write, &request.org_id).await?;
        let found = api_keys::delete(&mut tx, id.0).await?;
        tx.commit().await?;
        deleted(found, "key", id)?;
        Ok(DeleteKeyResponse {})
    }
}
