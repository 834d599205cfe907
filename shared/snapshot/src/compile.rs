//! Resources become a [`Snapshot`], or a list of [`Rejection`]s and nothing at all (I5).
//!
//! Run by the control plane before a revision is published, and by every node before it is applied.

mod routing;
mod tenancy;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use nemo_proto::config::{self, Kind, resource};
use nemo_types::{OrgId, TeamId};

use crate::{Delta, ResourceKey, ResourceSet, Snapshot};

/// Why a resource can't be served, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{field}: {message}", resource.as_ref().map(|key| key.describe() + ", ").unwrap_or_default())]
pub struct Rejection {
    pub resource: Option<ResourceKey>,
    pub field: String,
    pub message: String,
}

impl Rejection {
    pub fn new(resource: Option<ResourceKey>, field: &str, message: impl Into<String>) -> Self {
        Self { resource, field: field.into(), message: message.into() }
    }
}

impl From<&Rejection> for config::Rejection {
    fn from(rejection: &Rejection) -> Self {
        Self {
            resource: rejection.resource.as_ref().map(ResourceKey::to_name),
            field: rejection.field.clone(),
            message: rejection.message.clone(),
        }
    }
}

/// Compiles everything.
///
/// # Errors
/// All reasons why the set can't be served, at most [`MAX_REJECTIONS`].
pub fn compile(set: &ResourceSet, revision: u64) -> Result<Snapshot, Vec<Rejection>> {
    let mut compiler = Compiler::new(set);
    let tenancy = Arc::new(tenancy::compile(&mut compiler));
    let routing = Arc::new(routing::compile(&mut compiler));
    compiler.finish(Snapshot { revision, checksum: set.checksum(), tenancy, routing })
}

/// Compiles the sections that `delta` touches and takes the others from `previous`. `set` already holds the delta.
///
/// # Errors
/// As [`compile`].
pub fn recompile(
    previous: &Snapshot,
    set: &ResourceSet,
    delta: &Delta,
    revision: u64,
) -> Result<Snapshot, Vec<Rejection>> {
    let mut compiler = Compiler::new(set);
    let touched =
        |kinds: &[Kind]| delta.upserts.keys().chain(&delta.removals).any(|key| kinds.contains(&key.kind));
    let mut snapshot = Snapshot { revision, checksum: set.checksum(), ..previous.clone() };
    if touched(&[Kind::Organization, Kind::Team, Kind::ApiKey]) {
        snapshot.tenancy = Arc::new(tenancy::compile(&mut compiler));
    }
    let routing = [
        Kind::Organization,
        Kind::Credential,
        Kind::Deployment,
        Kind::Model,
        Kind::ModelGroup,
        Kind::Setting,
    ];
    if touched(&routing) {
        snapshot.routing = Arc::new(routing::compile(&mut compiler));
    }
    compiler.finish(snapshot)
}

/// More are not collected: one broken parent would otherwise be reported once per child.
pub const MAX_REJECTIONS: usize = 100;

/// The resources by kind, and what was found wrong with them.
struct Compiler<'a> {
    organizations: HashMap<OrgId, &'a config::Organization>,
    teams: HashMap<TeamId, &'a config::Team>,
    keys: Vec<&'a config::ApiKey>,
    credentials: Vec<&'a config::Credential>,
    deployments: Vec<&'a config::Deployment>,
    models: Vec<&'a config::Model>,
    groups: Vec<&'a config::ModelGroup>,
    settings: Vec<&'a config::Setting>,
    rejections: Vec<Rejection>,
}

impl<'a> Compiler<'a> {
    fn new(set: &'a ResourceSet) -> Self {
        let mut compiler = Self {
            organizations: HashMap::new(),
            teams: HashMap::new(),
            keys: Vec::new(),
            credentials: Vec::new(),
            deployments: Vec::new(),
            models: Vec::new(),
            groups: Vec::new(),
            settings: Vec::new(),
            rejections: Vec::new(),
        };
        for (_, resource) in set.iter() {
            compiler.sort_in(resource);
        }
        compiler
    }

    fn sort_in(&mut self, resource: &'a config::Resource) {
        use resource::Kind as R;
        match resource.kind.as_ref() {
            Some(R::Organization(it)) => {
                OrgId::from_bytes(&it.id).map(|id| self.organizations.insert(id, it));
            }
            Some(R::Team(it)) => {
                TeamId::from_bytes(&it.id).map(|id| self.teams.insert(id, it));
            }
            Some(R::ApiKey(it)) => self.keys.push(it),
            Some(R::Credential(it)) => self.credentials.push(it),
            Some(R::Deployment(it)) => self.deployments.push(it),
            Some(R::Model(it)) => self.models.push(it),
            Some(R::ModelGroup(it)) => self.groups.push(it),
            Some(R::Setting(it)) => self.settings.push(it),
            None => {}
        }
    }

    fn reject(&mut self, kind: Kind, id: &[u8], field: &str, message: impl Into<String>) {
        if self.rejections.len() < MAX_REJECTIONS {
            let key = ResourceKey { kind, id: bytes::Bytes::copy_from_slice(id) };
            self.rejections.push(Rejection::new(Some(key), field, message));
        }
    }

    /// The owner named by an `org_id` field: `Ok(None)` for the operator.
    fn owner(&mut self, kind: Kind, id: &[u8], org_id: &[u8]) -> Result<Option<OrgId>, ()> {
        if org_id.is_empty() {
            return Ok(None);
        }
        match OrgId::from_bytes(org_id).filter(|org| self.organizations.contains_key(org)) {
            Some(org) => Ok(Some(org)),
            None => {
                self.reject(kind, id, "org_id", "no such organization");
                Err(())
            }
        }
    }

    fn finish(self, snapshot: Snapshot) -> Result<Snapshot, Vec<Rejection>> {
        if self.rejections.is_empty() { Ok(snapshot) } else { Err(self.rejections) }
    }
}
