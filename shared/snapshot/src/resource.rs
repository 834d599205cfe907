//! The rows of one revision: a map of resources that knows its checksum, shared between revisions.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use nemo_proto::config::{Kind, Resource, ResourceName, resource};
use prost::Message as _;

use crate::{Checksum, Delta, Trie};

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
            R::Budget(it) => (Kind::Budget, &it.id),
            R::RateLimit(it) => (Kind::RateLimit, &it.id),
            R::Model(it) => return Self::model(&it.id),
        };
        // A copy: a slice would keep the whole message alive that it came in.
        (id.len() == UUID).then(|| Self { kind, id: Bytes::copy_from_slice(id) })
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
        (!name.id.is_empty()).then(|| Self { kind, id: Bytes::copy_from_slice(&name.id) })
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
            Kind::Budget => "budget",
            Kind::RateLimit => "rate limit",
        };
        let id = match (self.kind, nemo_types::OrgId::from_bytes(&self.id)) {
            (Kind::Model, _) | (_, None) => String::from_utf8_lossy(&self.id).into_owned(),
            (_, Some(id)) => id.to_string(),
        };
        format!("{kind} {id}")
    }
}

/// A resource as it travels. A clone shares the bytes: a million keys are held once, and without the padding that
/// their messages would have in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Item(Arc<[u8]>);

impl Item {
    pub(crate) fn new(resource: &Resource) -> Self {
        Self(resource.encode_to_vec().into())
    }

    /// The message again.
    pub fn decode(&self) -> Resource {
        // Encoded by `new` and never changed; a default resource has no kind, and is nothing anywhere.
        Resource::decode(&*self.0).unwrap_or_default()
    }

    pub fn encoded(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item({} bytes)", self.0.len())
    }
}

/// Bytes of every id but a model's.
const UUID: usize = 16;
/// Kinds are numbered from 1.
const KINDS: usize = 11;

type ByUuid = Trie<[u8; UUID], Item>;

/// All resources of one revision. A clone is cheap and shares everything; a change copies what it touches.
#[derive(Clone, Default)]
pub struct ResourceSet {
    by_uuid: [ByUuid; KINDS],
    models: Arc<BTreeMap<Box<str>, Item>>,
    checksum: Checksum,
}

impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceSet({} resources, {:?})", self.len(), self.checksum)
    }
}

/// Where a key is looked for; `None` for an id that its kind can't have.
enum Place<'a> {
    Uuid(usize, [u8; UUID]),
    Model(&'a str),
}

impl<'a> Place<'a> {
    fn of(kind: Kind, id: &'a [u8]) -> Option<Self> {
        match kind {
            Kind::Model => std::str::from_utf8(id).ok().map(Self::Model),
            kind => Some(Self::Uuid(kind as usize, id.try_into().ok()?)),
        }
    }
}

impl ResourceSet {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.by_uuid.iter().map(Trie::len).sum::<usize>() + self.models.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &ResourceKey) -> Option<&Item> {
        self.find(key.kind, &key.id)
    }

    /// As [`ResourceSet::get`], by kind and id.
    pub fn find(&self, kind: Kind, id: &[u8]) -> Option<&Item> {
        match Place::of(kind, id)? {
            Place::Uuid(kind, id) => self.by_uuid.get(kind)?.get(&id),
            Place::Model(id) => self.models.get(id),
        }
    }

    /// How many there are of this kind.
    pub fn count(&self, kind: Kind) -> usize {
        if kind == Kind::Model { self.models.len() } else { self.by_uuid[kind as usize].len() }
    }

    /// All of one kind, in no order that means anything; models by id.
    pub fn items(&self, kind: Kind) -> Box<dyn Iterator<Item = &Item> + '_> {
        match kind {
            Kind::Model => Box::new(self.models.values()),
            kind => Box::new(self.by_uuid[kind as usize].iter().map(|(_, item)| item)),
        }
    }

    /// All of one kind, decoded, in the order of their ids. For kinds of which there are few.
    pub(crate) fn sorted(&self, kind: Kind) -> Vec<Resource> {
        if kind == Kind::Model {
            return self.models.values().map(Item::decode).collect();
        }
        let mut found: Vec<_> = self.by_uuid[kind as usize].iter().collect();
        found.sort_unstable_by_key(|(id, _)| **id);
        found.into_iter().map(|(_, item)| item.decode()).collect()
    }

    /// Everything, parents before their children.
    pub fn all(&self) -> impl Iterator<Item = &Item> {
        const ORDER: [Kind; 10] = [
            Kind::Organization,
            Kind::Team,
            Kind::ApiKey,
            Kind::Credential,
            Kind::Deployment,
            Kind::Model,
            Kind::ModelGroup,
            Kind::Setting,
            Kind::Budget,
            Kind::RateLimit,
        ];
        ORDER.into_iter().flat_map(|kind| self.items(kind))
    }

    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Upserts, then removals; applying the same delta twice changes nothing more.
    pub fn apply(&mut self, delta: &Delta) {
        for (key, item) in &delta.upserts {
            let Some(old) = self.put(key, item) else { continue };
            if let Some(old) = old {
                self.checksum.remove(Checksum::of(old.encoded()));
            }
            self.checksum.add(Checksum::of(item.encoded()));
        }
        for key in &delta.removals {
            if let Some(old) = self.take(key) {
                self.checksum.remove(Checksum::of(old.encoded()));
            }
        }
    }

    /// The inner option is what was there before; the outer is `None` for an id that its kind can't have.
    #[expect(clippy::option_option, reason = "two different absences, told apart where it is called")]
    fn put(&mut self, key: &ResourceKey, item: &Item) -> Option<Option<Item>> {
        Some(match Place::of(key.kind, &key.id)? {
            Place::Uuid(kind, id) => self.by_uuid.get_mut(kind)?.insert(id, item.clone()),
            Place::Model(id) => Arc::make_mut(&mut self.models).insert(id.into(), item.clone()),
        })
    }

    fn take(&mut self, key: &ResourceKey) -> Option<Item> {
        match Place::of(key.kind, &key.id)? {
            Place::Uuid(kind, id) => self.by_uuid.get_mut(kind)?.remove(&id),
            Place::Model(id) if self.models.contains_key(id) => Arc::make_mut(&mut self.models).remove(id),
            Place::Model(_) => None,
        }
    }

    /// The delta that makes this set out of the empty one.
    pub fn full(&self) -> Delta {
        let keyed = self.all().filter_map(|item| Some((ResourceKey::of(&item.decode())?, item.clone())));
        Delta { upserts: keyed.collect(), ..Delta::default() }
    }
}

#[cfg(test)]
impl ResourceSet {
    /// Nodes and entries that were copied to make this set out of `other`.
    pub(crate) fn unshared(&self, other: &Self) -> (usize, usize) {
        let pairs = self.by_uuid.iter().zip(&other.by_uuid);
        pairs.map(|(new, old)| new.unshared(old)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}
