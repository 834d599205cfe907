//! Resources become a [`Snapshot`], or a list of [`Rejection`]s and nothing at all (I5).
//!
//! Run by the control plane before a revision is published, and by every node before it is applied.

mod limits;
mod routing;
mod tenancy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use nemo_proto::config::{self, Kind};
use nemo_types::OrgId;

use crate::{Delta, ResourceKey, ResourceSet, Routing, Snapshot};

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

/// Compiles what routing reads and nothing else: keys and teams may be missing.
///
/// # Errors
/// As [`compile`].
pub fn compile_routing(set: &ResourceSet) -> Result<Routing, Vec<Rejection>> {
    let mut compiler = Compiler::new(set);
    let routing = routing::compile(&mut compiler);
    if compiler.rejections.is_empty() { Ok(routing) } else { Err(compiler.rejections) }
}

/// Compiles what `delta` touches and takes the rest from `previous`, which was compiled from `before`. `set` already
/// holds the delta.
///
/// # Errors
/// As [`compile`].
pub fn recompile(
    previous: &Snapshot,
    before: &ResourceSet,
    set: &ResourceSet,
    delta: &Delta,
    revision: u64,
) -> Result<Snapshot, Vec<Rejection>> {
    let mut compiler = Compiler::new(set);
    let mut snapshot = Snapshot { revision, checksum: set.checksum(), ..previous.clone() };
    let tenants = [Kind::Organization, Kind::Team, Kind::ApiKey, Kind::Budget, Kind::RateLimit];
    if delta.touches(&tenants) {
        let updated = tenancy::update(&previous.tenancy, before, set, delta);
        snapshot.tenancy = Arc::new(updated.unwrap_or_else(|| tenancy::compile(&mut compiler)));
    }
    // An organization that goes may leave something behind; one that comes or changes its name concerns no route.
    let orphans = delta.removals.iter().any(|key| key.kind == Kind::Organization);
    let routing = [Kind::Credential, Kind::Deployment, Kind::Model, Kind::ModelGroup, Kind::Setting];
    if orphans || delta.touches(&routing) {
        snapshot.routing = Arc::new(routing::compile(&mut compiler));
    }
    compiler.finish(snapshot)
}

/// More are not collected: one broken parent would otherwise be reported once per child.
pub const MAX_REJECTIONS: usize = 100;

/// What is compiled, and what was found wrong with it.
struct Compiler<'a> {
    set: &'a ResourceSet,
    rejections: Vec<Rejection>,
}

impl<'a> Compiler<'a> {
    fn new(set: &'a ResourceSet) -> Self {
        Self { set, rejections: Vec::new() }
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
        let known = self.set.find(Kind::Organization, org_id).and_then(|_| OrgId::from_bytes(org_id));
        match known {
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
