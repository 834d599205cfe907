//! The rows of one revision: an ordered map of resources that knows its checksum.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use nemo_proto::config::{Kind, Resource, ResourceName, resource};
use prost::Message as _;

use crate::{Checksum, Delta};

/// Identity of a resource: its kind and its id (16 UUID bytes; for a model its id in UTF-8).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ResourceKey {
    pub kind: Kind,
    pub id: Bytes,
}

impl ResourceKey {
    /// `None` when the resource has no kind, or an id that its kind can't have.
    pub fn of(resource: &Resource) -> Option<Self> {
        use resource::Kind as R;
        let (kind, id) = match resource.kind.as_ref()? {
            R::Organization(it) => (Kind::Organization, &it.id),
            R::Team(it) => (Kind::Team, &it.id),
            R::ApiKey(it) => (Kind::ApiKey, &it.id),
            R::Credential(it) => (Kind::Credential, &it.id),
            R::Deployment(it) => (Kind::Deployment, &it.id),
            R::ModelGroup(it) => (Kind::ModelGroup, &it.id),
            R::Setting(it) => (Kind::Setting, &it.id),
            R::Model(it) => return Self::model(&it.id),
        };
        (id.len() == 16).then(|| Self { kind, id: id.clone() })
    }

    /// `None` for the empty id.
    pub fn model(id: &str) -> Option<Self> {
        (!id.is_empty()).then(|| Self { kind: Kind::Model, id: Bytes::copy_from_slice(id.as_bytes()) })
    }

    pub fn to_name(&self) -> ResourceName {
        ResourceName { kind: self.kind.into(), id: self.id.clone() }
    }

    /// `None` when the name is of no kind that this build knows, or has no id.
    pub fn from_name(name: &ResourceName) -> Option<Self> {
        let kind = Kind::try_from(name.kind).ok().filter(|kind| *kind != Kind::Unspecified)?;
        (!name.id.is_empty()).then(|| Self { kind, id: name.id.clone() })
    }

    /// For people: `team 0193…`, `model gpt-5.2`.
    pub fn describe(&self) -> String {
        let kind = match self.kind {
            Kind::Unspecified => "resource",
            Kind::Organization => "organization",
            Kind::Team => "team",
            Kind::ApiKey => "key",
            Kind::Credential => "credential",
            Kind::Deployment => "deployment",
            Kind::Model => "model",
            Kind::ModelGroup => "model group",
            Kind::Setting => "setting",
        };
        let id = match (self.kind, nemo_types::OrgId::from_bytes(&self.id)) {
            (Kind::Model, _) | (_, None) => String::from_utf8_lossy(&self.id).into_owned(),
            (_, Some(id)) => id.to_string(),
        };
        format!("{kind} {id}")
    }
}

#[derive(Clone, Debug)]
struct Entry {
    resource: Arc<Resource>,
    hash: Checksum,
}

/// All resources of one revision. A clone shares the resources.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    entries: BTreeMap<ResourceKey, Entry>,
    checksum: Checksum,
}

impl ResourceSet {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.entries.get(key).map(|entry| &entry.resource)
    }

    /// In key order.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &Arc<Resource>)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.resource))
    }

    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Upserts, then removals; applying the same delta twice changes nothing more.
    pub fn apply(&mut self, delta: &Delta) {
        for (key, resource) in &delta.upserts {
            let hash = Checksum::of(&resource.encode_to_vec());
            let entry = Entry { resource: resource.clone(), hash };
            if let Some(old) = self.entries.insert(key.clone(), entry) {
                self.checksum.remove(old.hash);
            }
            self.checksum.add(hash);
        }
        for key in &delta.removals {
            if let Some(old) = self.entries.remove(key) {
                self.checksum.remove(old.hash);
            }
        }
    }

    /// The delta that makes this set out of the empty one.
    pub fn full(&self) -> Delta {
        let upserts = self.iter().map(|(key, resource)| (key.clone(), resource.clone())).collect();
        Delta { upserts, ..Delta::default() }
    }
}
