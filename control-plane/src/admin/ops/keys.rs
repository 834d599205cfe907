//! Virtual keys: issue, rotate, disable, expire, delete [R000-3]. A secret is in the answer of the call that made it and
//! nowhere else; stored is its hash.

use nemo_proto::admin::{
    DeleteKeyRequest, DeleteKeyResponse, GetKeyRequest, IssueKeyRequest, IssueKeyResponse, Key,
    ListKeysRequest, ListKeysResponse, RotateKeyRequest, UpdateKeyRequest,
};
use nemo_types::{ApiKey, KeyId, PublicId, TeamId};
use time::Duration;

use super::{convert, list_filter};
use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Written, key_policy, page_token, validate},
    store::{
        TenantTx,
        api_keys::{self, ApiKeyChange, NewApiKey},
        catalog, teams,
    },
};

/// How long an old secret may outlive its rotation at most.
const MAX_OVERLAP_SECONDS: u32 = 7 * 24 * 3600;

impl Admin {
    pub async fn issue_key(
        &self,
        call: &Call,
        request: IssueKeyRequest,
    ) -> Result<Written<IssueKeyResponse>, AdminError> {
        let team: TeamId = validate::id("team_id", &request.team_id)?;
        validate::name("name", &request.name)?;
        key_policy::models("allowed_models", &request.allowed_models)?;
        key_policy::endpoints("allowed_endpoints", &request.allowed_endpoints)?;
        let allowed_cidrs = key_policy::cidrs("allowed_cidrs", &request.allowed_cidrs)?;
        key_policy::tags("default_tags", &request.default_tags)?;
        key_policy::metadata("metadata", &request.metadata)?;
        let expires_at = validate::expiry("expires_at", request.expires_at)?;
        let minted = ApiKey::mint()?;
        let mut write = self.write_tenant(call, Action::IssueKeys, &request.org_id, "key.issue").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        if teams::get(&mut write.tx, team.0).await?.is_none() {
            return Err(AdminError::not_found("team", team).with_field("team_id"));
        }
        known_tags(&mut write.tx, "default_tags", &request.default_tags).await?;
        let new = NewApiKey {
            id: KeyId::generate().0,
            team_id: team.0,
            name: &request.name,
            public_id: minted.public_id.as_str(),
            secret_hash: minted.hash.as_bytes(),
            expires_at,
            allowed_models: &request.allowed_models,
            allowed_endpoints: &request.allowed_endpoints,
            allowed_cidrs: &allowed_cidrs,
            default_tags: &request.default_tags,
            metadata: &request.metadata,
        };
        let row = api_keys::insert(&mut write.tx, new).await?;
        let key = convert::key(row, validate::now());
        let answer = IssueKeyResponse { key: Some(key.clone()), secret: write.reveal(&minted.text) };
        write.done_with(&key, answer).await
    }

    pub async fn get_key(&self, call: &Call, request: GetKeyRequest) -> Result<Key, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = api_keys::get(&mut tx, id.0).await?.ok_or_else(|| AdminError::not_found("key", id))?;
        Ok(convert::key(row, validate::now()))
    }

    pub async fn list_keys(
        &self,
        call: &Call,
        request: ListKeysRequest,
    ) -> Result<ListKeysResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let team = match request.team_id.as_str() {
            "" => None,
            text => Some(validate::id::<TeamId>("team_id", text)?.0),
        };
        let filter = list_filter!(request);
        let now = validate::now();
        let state = key_state(&request.state)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = api_keys::list(&mut tx, team, state, now, page, &filter).await?;
        Ok(ListKeysResponse {
            keys: listed.rows.into_iter().map(|row| convert::key(row, now)).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_key(
        &self,
        call: &Call,
        request: UpdateKeyRequest,
    ) -> Result<Written<Key>, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let allowed_cidrs = check_policy(&request)?;
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
            allowed_endpoints: request.allowed_endpoints.as_ref().map(|allowed| allowed.names.as_slice()),
            allowed_cidrs: allowed_cidrs.as_deref(),
            default_tags: request.default_tags.as_ref().map(|tags| tags.names.as_slice()),
            metadata: request.metadata.as_deref(),
        };
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "key.update").await?;
        let before = api_keys::get(&mut write.tx, id.0).await?;
        write.found::<Key>(before.map(|row| convert::key(row, validate::now())), id)?;
        if let Some(tags) = &request.default_tags {
            known_tags(&mut write.tx, "default_tags.names", &tags.names).await?;
        }
        let row = api_keys::update(&mut write.tx, id.0, change).await?;
        let row = row.ok_or_else(|| AdminError::not_found("key", id))?;
        write.done(convert::key(row, validate::now())).await
    }

    pub async fn rotate_key(
        &self,
        call: &Call,
        request: RotateKeyRequest,
    ) -> Result<Written<IssueKeyResponse>, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        let overlap = request.overlap_seconds;
        if overlap > MAX_OVERLAP_SECONDS {
            let expected = format!("0 to {MAX_OVERLAP_SECONDS} (7 days)");
            return Err(AdminError::invalid("overlap_seconds", format!("{overlap} is too long"), expected));
        }
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "key.rotate").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let row = api_keys::get(&mut write.tx, id.0).await?;
        let before: Key = write.found(row.map(|row| convert::key(row, validate::now())), id)?;
        let public_id: PublicId = before.public_id.parse().map_err(|_| {
            tracing::error!(key = %id, "a stored key has a malformed public id");
            AdminError::new(ErrorKind::Internal, "the key is damaged: delete it and issue another")
        })?;
        let minted = ApiKey::remint(public_id)?;
        let now = validate::now();
        let until = (overlap > 0).then(|| now + Duration::seconds(overlap.into()));
        let row = api_keys::rotate(&mut write.tx, id.0, minted.hash.as_bytes(), until).await?;
        let key = convert::key(row.ok_or_else(|| AdminError::not_found("key", id))?, now);
        let answer = IssueKeyResponse { key: Some(key.clone()), secret: write.reveal(&minted.text) };
        write.done_with(&key, answer).await
    }

    pub async fn delete_key(
        &self,
        call: &Call,
        request: DeleteKeyRequest,
    ) -> Result<Written<DeleteKeyResponse>, AdminError> {
        let id: KeyId = validate::id("id", &request.id)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "key.delete").await?;
        let before = api_keys::get(&mut write.tx, id.0).await?;
        write.found::<Key>(before.map(|row| convert::key(row, validate::now())), id)?;
        api_keys::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}

/// Checks what is to become of a key's policy. The networks come back in the form in which they are kept.
fn check_policy(request: &UpdateKeyRequest) -> Result<Option<Vec<String>>, AdminError> {
    if let Some(allowed) = &request.allowed_models {
        key_policy::models("allowed_models.names", &allowed.names)?;
    }
    if let Some(allowed) = &request.allowed_endpoints {
        key_policy::endpoints("allowed_endpoints.names", &allowed.names)?;
    }
    if let Some(tags) = &request.default_tags {
        key_policy::tags("default_tags.names", &tags.names)?;
    }
    if let Some(metadata) = &request.metadata {
        key_policy::metadata("metadata", metadata)?;
    }
    let networks = request.allowed_cidrs.as_ref().map(|allowed| &allowed.networks);
    networks.map(|networks| key_policy::cidrs("allowed_cidrs.networks", networks)).transpose()
}

/// Every request of a key with a tag that no model has would be refused.
async fn known_tags(tx: &mut TenantTx, field: &str, tags: &[String]) -> Result<(), AdminError> {
    if tags.is_empty() {
        return Ok(());
    }
    let known = catalog::tags(tx).await?;
    match tags.iter().position(|tag| known.binary_search(tag).is_err()) {
        None => Ok(()),
        Some(at) => Err(AdminError::invalid(
            format!("{field}[{at}]"),
            format!("no model of the catalog has the tag {:?}", tags[at]),
            format!("one of: {}", known.join(", ")),
        )),
    }
}

/// A state to look for; `None`: any.
fn key_state(text: &str) -> Result<Option<&'static str>, AdminError> {
    if text.is_empty() {
        return Ok(None);
    }
    let known = ["active", "disabled", "expired"].into_iter().find(|state| *state == text);
    let unknown = || {
        AdminError::invalid("state", format!("{text:?} is not a state"), "one of: active, disabled, expired")
    };
    known.map(Some).ok_or_else(unknown)
}
