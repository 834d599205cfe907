//! What differs between what is and what shall be. Pure.

use std::collections::HashMap;

use anyhow::Context as _;
use nemo_proto::admin::{
    CreateDeploymentRequest, Deployment, Link, LinkDeployment, Model, UpdateDeploymentRequest,
};

use crate::providers::{DesiredDeployment, DesiredGroup};

/// Equal but for what the control plane adds.
pub(super) fn same_model(known: &Model, wanted: &Model) -> bool {
    let normal = |model: &Model| {
        let mut model = Model { source: String::new(), ..model.clone() };
        if model.display_name.is_empty() {
            model.display_name.clone_from(&model.id);
        }
        for list in [&mut model.tags, &mut model.aliases, &mut model.endpoints] {
            list.sort();
        }
        model
    };
    normal(known) == normal(wanted)
}

pub(super) fn creation(wanted: &DesiredDeployment, credential_id: String) -> CreateDeploymentRequest {
    CreateDeploymentRequest {
        org_id: String::new(),
        name: wanted.name.clone(),
        provider: wanted.provider.clone(),
        base_url: wanted.base_url.clone(),
        credential_id,
        model: wanted.model.clone(),
        upstream_model: wanted.upstream_model.clone(),
        weight: Some(wanted.weight),
        price: wanted.price,
    }
}

/// The change that makes `found` what is wanted; `None` when it is.
pub(super) fn difference(
    found: &Deployment,
    wanted: &DesiredDeployment,
    credential_id: &str,
) -> Option<UpdateDeploymentRequest> {
    let text = |found: &str, wanted: &str| (found != wanted).then(|| wanted.to_owned());
    let change = UpdateDeploymentRequest {
        id: found.id.clone(),
        base_url: text(&found.base_url, &wanted.base_url),
        credential_id: text(&found.credential_id, credential_id),
        upstream_model: text(&found.upstream_model, &wanted.upstream_model),
        weight: (found.weight != wanted.weight).then_some(wanted.weight),
        disabled: found.disabled.then_some(false),
        // An empty price removes the deployment's own.
        price: (found.price != wanted.price).then(|| wanted.price.unwrap_or_default()),
        ..Default::default()
    };
    let unchanged = UpdateDeploymentRequest { id: found.id.clone(), ..Default::default() };
    (change != unchanged).then_some(change)
}

pub(super) fn links(
    wanted: &DesiredGroup,
    deployments: &HashMap<String, String>,
) -> anyhow::Result<Vec<Link>> {
    let mut links = Vec::with_capacity(wanted.links.len());
    for link in &wanted.links {
        let mut pool = Vec::with_capacity(link.len());
        for (name, weight) in link {
            let id = deployments.get(name);
            let id =
                id.with_context(|| format!("model group {}: there is no deployment {name}", wanted.name))?;
            pool.push(LinkDeployment { deployment_id: id.clone(), weight: *weight });
        }
        links.push(Link { deployments: pool });
    }
    Ok(links)
}
