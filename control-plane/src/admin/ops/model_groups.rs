//! Model groups: a name that clients send, its primary pool and its fallback chain.

use std::collections::{HashMap, HashSet};

use nemo_proto::admin::{
    CreateModelGroupRequest, DeleteModelGroupRequest, DeleteModelGroupResponse, GetModelGroupRequest, Link,
    ListModelGroupsRequest, ListModelGroupsResponse, ModelGroup, UpdateModelGroupRequest,
};
use nemo_types::{DeploymentId, ModelGroupId};
use uuid::Uuid;

use super::list_filter;
use crate::{
    admin::{Action, Admin, AdminError, Call, Written, key_policy, page_token, validate},
    store::{
        OwnerTx, deployments,
        model_groups::{self, NewLinkDeployment},
    },
};

/// Bounds of one group: more is a mistake, and every entry is compiled on every node.
const MAX_LINKS: usize = 16;
const MAX_POOL: usize = 256;

/// A link whose ids and weights were checked, its deployments not yet.
type CheckedLink = Vec<(Uuid, i64)>;

impl Admin {
    pub async fn create_model_group(
        &self,
        call: &Call,
        request: CreateModelGroupRequest,
    ) -> Result<Written<ModelGroup>, AdminError> {
        validate::model_name("name", &request.name)?;
        validate::strategy("strategy", &request.strategy)?;
        key_policy::tags("required_tags", &request.required_tags)?;
        let links = check_links("links", &request.links)?;
        let id = ModelGroupId::generate();
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "model_group.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let (name, strategy, tags) = (&request.name, &request.strategy, &request.required_tags);
        model_groups::insert(&mut write.tx, id.0, name, strategy, tags).await?;
        put_links(&mut write.tx, id, "links", links).await?;
        let after = written(&mut write.tx, id).await?;
        write.done(after).await
    }

    pub async fn get_model_group(
        &self,
        call: &Call,
        request: GetModelGroupRequest,
    ) -> Result<ModelGroup, AdminError> {
        let id: ModelGroupId = validate::id("id", &request.id)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let row = model_groups::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("model group", id))
    }

    pub async fn list_model_groups(
        &self,
        call: &Call,
        request: ListModelGroupsRequest,
    ) -> Result<ListModelGroupsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let listed = model_groups::list(&mut tx, page, &filter).await?;
        Ok(ListModelGroupsResponse {
            model_groups: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_model_group(
        &self,
        call: &Call,
        request: UpdateModelGroupRequest,
    ) -> Result<Written<ModelGroup>, AdminError> {
        let id: ModelGroupId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::model_name("name", name)?;
        }
        if let Some(strategy) = &request.strategy {
            validate::strategy("strategy", strategy)?;
        }
        let tags = request.required_tags.as_ref().map(|tags| tags.names.as_slice());
        if let Some(tags) = tags {
            key_policy::tags("required_tags.names", tags)?;
        }
        let links = request.links.map(|links| check_links("links.links", &links.links)).transpose()?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "model_group.update").await?;
        let before = model_groups::get(&mut write.tx, id.0).await?;
        write.found::<ModelGroup>(before, id)?;
        let (name, strategy) = (request.name.as_deref(), request.strategy.as_deref());
        model_groups::update(&mut write.tx, id.0, name, strategy, tags).await?;
        if let Some(links) = links {
            put_links(&mut write.tx, id, "links.links", links).await?;
        }
        let after = written(&mut write.tx, id).await?;
        write.done(after).await
    }

    pub async fn delete_model_group(
        &self,
        call: &Call,
        request: DeleteModelGroupRequest,
    ) -> Result<Written<DeleteModelGroupResponse>, AdminError> {
        let id: ModelGroupId = validate::id("id", &request.id)?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "model_group.delete").await?;
        let before = model_groups::get(&mut write.tx, id.0).await?;
        write.found::<ModelGroup>(before, id)?;
        model_groups::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}

async fn written(tx: &mut OwnerTx, id: ModelGroupId) -> Result<ModelGroup, AdminError> {
    let row = model_groups::get(tx, id.0).await?;
    row.map(Into::into).ok_or_else(|| AdminError::not_found("model group", id))
}

/// What can be checked without the database.
fn check_links(field: &str, links: &[Link]) -> Result<Vec<CheckedLink>, AdminError> {
    if links.is_empty() {
        return Err(AdminError::invalid(field, "empty", "at least one link: the primary pool"));
    }
    validate::at_most(field, links.len(), MAX_LINKS)?;
    let check = |(at, link)| check_link(&format!("{field}[{at}].deployments"), link);
    links.iter().enumerate().map(check).collect()
}

fn check_link(field: &str, link: &Link) -> Result<CheckedLink, AdminError> {
    validate::at_most(field, link.deployments.len(), MAX_POOL)?;
    let mut seen = HashSet::new();
    let mut pool = CheckedLink::new();
    for (at, member) in link.deployments.iter().enumerate() {
        let id: DeploymentId = validate::id(&format!("{field}[{at}].deployment_id"), &member.deployment_id)?;
        let weight = validate::weight(&format!("{field}[{at}].weight"), member.weight)?;
        if !seen.insert(id) {
            let field = format!("{field}[{at}].deployment_id");
            return Err(AdminError::invalid(field, "appears twice in this link", "each deployment once"));
        }
        pool.push((id.0, weight));
    }
    // Also catches a pool whose weights were all forgotten.
    if pool.iter().all(|(_, weight)| *weight == 0) {
        let expected = format!("at least one deployment with a weight from 1 to {}", validate::MAX_WEIGHT);
        return Err(AdminError::invalid(field, "nothing to choose from", expected));
    }
    Ok(pool)
}

/// Checks that the deployments exist and are the owner's or the operator's, and writes the links.
async fn put_links(
    tx: &mut OwnerTx,
    id: ModelGroupId,
    field: &str,
    links: Vec<CheckedLink>,
) -> Result<(), AdminError> {
    let ids: Vec<Uuid> = links.iter().flatten().map(|(id, _)| *id).collect();
    let owners: HashMap<Uuid, Uuid> = deployments::usable(tx, &ids).await?.into_iter().collect();
    let mut new = Vec::with_capacity(links.len());
    for (link_at, link) in links.into_iter().enumerate() {
        let mut pool = Vec::with_capacity(link.len());
        for (at, (deployment_id, weight)) in link.into_iter().enumerate() {
            let owner = *owners.get(&deployment_id).ok_or_else(|| {
                let field = format!("{field}[{link_at}].deployments[{at}].deployment_id");
                AdminError::not_found("deployment", deployment_id).with_field(field)
            })?;
            pool.push(NewLinkDeployment { deployment_id, owner, weight });
        }
        new.push(pool);
    }
    Ok(model_groups::put_links(tx, id.0, &new).await?)
}
