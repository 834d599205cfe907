//! The policy of a `nemo.toml`, laid over a revision: its model groups and settings replace those of the same name, and
//! what it says about deployments changes those that exist. Everything else stays.

use std::{collections::BTreeSet, path::Path};

use anyhow::bail;
use bytes::Bytes;
use nemo_proto::config::{Deployment, Kind, Link, LinkDeployment, ModelGroup, Resource, Setting, resource};
use nemo_snapshot::{Delta, ResourceSet};
use nemo_types::ModelGroupId;

use crate::providers::{
    DesiredGroup, FILE,
    file::policy::{self, ChangedDeployment, PolicyFile},
};

/// A policy that is not in force.
#[derive(Debug)]
pub struct Candidate {
    file: PolicyFile,
    /// Names of deployments that some revision had.
    found: BTreeSet<String>,
    /// Those that the file has.
    named: BTreeSet<String>,
    /// Revisions that it was laid over, or should have been.
    tried: usize,
}

impl Candidate {
    /// # Errors
    /// When the file can't be read, or has something that is unknown.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(policy::policy(path)?))
    }

    fn new(file: PolicyFile) -> Self {
        let members = file.groups.iter().flat_map(|group| group.links.iter().flatten());
        let members = members.map(|(name, _)| bare(name));
        let named = members.chain(file.deployments.iter().map(|it| &*it.name)).map(str::to_owned).collect();
        Self { file, found: BTreeSet::new(), named, tried: 0 }
    }

    /// Sections of the file that say nothing about where a request goes.
    pub fn ignored(&self) -> &[&'static str] {
        &self.file.ignored
    }

    /// # Errors
    /// When the file names deployments that no revision had.
    pub(super) fn check_names(&self) -> anyhow::Result<()> {
        let unknown: Vec<_> = self.named.difference(&self.found).map(String::as_str).collect();
        if unknown.is_empty() || self.tried == 0 {
            return Ok(());
        }
        bail!("there was no deployment {} at any of these revisions", unknown.join(", "))
    }

    /// The revision with this policy.
    ///
    /// # Errors
    /// When the revision lacks a deployment or an organization that the file names.
    pub(super) fn over(&mut self, set: &ResourceSet) -> Result<ResourceSet, String> {
        self.tried += 1;
        let deployments = operators_deployments(set);
        // One that came from a file carries a prefix.
        let find = |name: &str| {
            let of_file = format!("{FILE}{name}");
            let found = deployments.iter().find(|it| it.name == of_file);
            found.or_else(|| deployments.iter().find(|it| it.name == name))
        };
        self.found.extend(self.named.iter().filter(|name| find(name).is_some()).cloned());
        let missing = self.named.iter().filter(|name| find(name).is_none());
        let missing: Vec<_> = missing.map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(format!("there was no deployment {} yet", missing.join(", ")));
        }
        let mut kinds = Vec::new();
        for changed in &self.file.deployments {
            kinds.extend(find(&changed.name).map(|it| resource::Kind::Deployment(with(it.clone(), changed))));
        }
        for group in &self.file.groups {
            let id = |name: &str| find(bare(name)).map(|it| it.id.clone());
            kinds.push(resource::Kind::ModelGroup(replaced(set, group, id)));
        }
        for setting in &self.file.settings {
            let owner =
                setting.organization.as_deref().map_or(Ok(Bytes::new()), |name| organization(set, name))?;
            kinds.push(resource::Kind::Setting(set_to(set, owner, &setting.key, &setting.value)));
        }
        let mut delta = Delta::default();
        for kind in kinds {
            delta.upsert(Resource { kind: Some(kind) }).map_err(|error| error.to_string())?;
        }
        let mut set = set.clone();
        set.apply(&delta);
        Ok(set)
    }
}

/// Without the prefix of what files declare.
fn bare(name: &str) -> &str {
    name.strip_prefix(FILE).unwrap_or(name)
}

fn operators_deployments(set: &ResourceSet) -> Vec<Deployment> {
    let deployments = set.items(Kind::Deployment).filter_map(|item| match item.decode().kind {
        Some(resource::Kind::Deployment(it)) if it.org_id.is_empty() => Some(it),
        _ => None,
    });
    deployments.collect()
}

fn organization(set: &ResourceSet, name: &str) -> Result<Bytes, String> {
    let found = set.items(Kind::Organization).find_map(|item| match item.decode().kind {
        Some(resource::Kind::Organization(it)) if it.name == name => Some(it.id),
        _ => None,
    });
    found.ok_or_else(|| format!("there was no organization {name:?} yet"))
}

fn with(mut deployment: Deployment, changed: &ChangedDeployment) -> Deployment {
    deployment.weight = changed.weight.unwrap_or(deployment.weight);
    deployment.rpm = changed.rpm.or(deployment.rpm);
    deployment.tpm = changed.tpm.or(deployment.tpm);
    if let Some(price) = &changed.price {
        let sheet = deployment.price.get_or_insert_default();
        (sheet.input, sheet.output) = (price.input, price.output);
        (sheet.cache_read, sheet.cache_write) = (price.cache_read, price.cache_write);
    }
    deployment
}

fn new_id() -> Bytes {
    Bytes::copy_from_slice(ModelGroupId::generate().as_bytes())
}

fn replaced(set: &ResourceSet, group: &DesiredGroup, find: impl Fn(&str) -> Option<Bytes>) -> ModelGroup {
    let known = set.items(Kind::ModelGroup).find_map(|item| match item.decode().kind {
        Some(resource::Kind::ModelGroup(it)) if it.org_id.is_empty() && it.name == group.name => Some(it.id),
        _ => None,
    });
    let link = |members: &Vec<(String, u32)>| {
        let members = members.iter().filter_map(|(name, weight)| {
            Some(LinkDeployment { deployment_id: find(name)?, weight: *weight })
        });
        Link { deployments: members.collect() }
    };
    ModelGroup {
        id: known.unwrap_or_else(new_id),
        org_id: Bytes::new(),
        name: group.name.clone(),
        strategy: group.strategy.clone(),
        required_tags: group.required_tags.clone(),
        links: group.links.iter().map(link).collect(),
    }
}

fn set_to(set: &ResourceSet, org_id: Bytes, key: &str, value: &str) -> Setting {
    let known = set.items(Kind::Setting).find_map(|item| match item.decode().kind {
        Some(resource::Kind::Setting(it)) if it.org_id == org_id && it.key == key => Some(it.id),
        _ => None,
    });
    let id = known.unwrap_or_else(new_id);
    Setting { id, org_id, key: key.to_owned(), value: value.to_owned() }
}

#[cfg(test)]
mod tests;
