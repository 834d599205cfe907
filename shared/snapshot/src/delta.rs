//! What changed between two revisions, and how it is cut into messages.

use std::collections::{BTreeMap, BTreeSet};

use nemo_proto::config::{Kind, Resource, ResourceName};

use crate::{Rejection, ResourceKey, resource::Item};

/// Resources changed and removed. A key is in one of the two, never in both.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    pub upserts: BTreeMap<ResourceKey, Item>,
    pub removals: BTreeSet<ResourceKey>,
}

/// A part of a delta that fits into one message.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub upserts: Vec<Resource>,
    pub removals: Vec<ResourceName>,
}

impl Delta {
    /// Adds a changed resource.
    ///
    /// # Errors
    /// When it has no kind or an id of the wrong form.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the caller is done with it: what is kept is its encoded form"
    )]
    pub fn upsert(&mut self, resource: Resource) -> Result<(), Rejection> {
        let Some(key) = ResourceKey::of(&resource) else {
            return Err(Rejection::new(None, "id", "the resource has no kind, or an id of the wrong form"));
        };
        self.removals.remove(&key);
        self.upserts.insert(key, Item::new(&resource));
        Ok(())
    }

    pub fn remove(&mut self, key: ResourceKey) {
        self.upserts.remove(&key);
        self.removals.insert(key);
    }

    /// Composes: the result has the effect of `self`, then `next`.
    pub fn then(&mut self, next: &Self) {
        for (key, item) in &next.upserts {
            self.removals.remove(key);
            self.upserts.insert(key.clone(), item.clone());
        }
        for key in &next.removals {
            self.remove(key.clone());
        }
    }

    /// Everything that it touches, upserts first.
    pub fn touched(&self) -> impl Iterator<Item = &ResourceKey> {
        self.upserts.keys().chain(&self.removals)
    }

    pub fn touches(&self, kinds: &[Kind]) -> bool {
        self.touched().any(|key| kinds.contains(&key.kind))
    }

    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }

    /// Size on the wire in bytes, about.
    pub fn encoded_len(&self) -> usize {
        let upserts: usize = self.upserts.values().map(|item| item.encoded().len() + 6).sum();
        upserts + self.removals.iter().map(|key| key.id.len() + 10).sum::<usize>()
    }

    /// At least one chunk, each of at most `max_bytes`, unless a single resource is larger.
    pub fn into_chunks(&self, max_bytes: usize) -> Vec<Chunk> {
        let mut chunks = vec![Chunk::default()];
        let mut size = 0;
        let mut open = |len: usize, chunks: &mut Vec<Chunk>| {
            if size > 0 && size + len > max_bytes {
                chunks.push(Chunk::default());
                size = 0;
            }
            size += len;
        };
        for item in self.upserts.values() {
            open(item.encoded().len() + 6, &mut chunks);
            if let Some(chunk) = chunks.last_mut() {
                chunk.upserts.push(item.decode());
            }
        }
        for key in &self.removals {
            open(key.id.len() + 10, &mut chunks);
            if let Some(chunk) = chunks.last_mut() {
                chunk.removals.push(key.to_name());
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nemo_proto::config::{Organization, resource};
    use proptest::prelude::*;

    use super::*;
    use crate::ResourceSet;

    fn organization(id: u8, name: u8) -> Resource {
        let id = Bytes::from(vec![id; 16]);
        let it = Organization { id, name: format!("org {name}"), disabled: false };
        Resource { kind: Some(resource::Kind::Organization(it)) }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Put(u8, u8),
        Remove(u8),
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            (0..8_u8, 0..4_u8).prop_map(|(id, name)| Change::Put(id, name)),
            (0..8_u8).prop_map(Change::Remove)
        ];
        proptest::collection::vec(change, 0..20)
    }

    fn delta(changes: &[Change]) -> Delta {
        let mut delta = Delta::default();
        for change in changes {
            match change {
                Change::Put(id, name) => delta.upsert(organization(*id, *name)).unwrap(),
                Change::Remove(id) => delta.remove(ResourceKey::of(&organization(*id, 0)).unwrap()),
            }
        }
        delta
    }

    fn applied(deltas: &[&Delta]) -> ResourceSet {
        let mut set = ResourceSet::new();
        deltas.iter().for_each(|delta| set.apply(delta));
        set
    }

    proptest! {
        #[test]
        fn composed_deltas_have_the_effect_of_both(first in changes(), second in changes(), base in changes()) {
            let (base, first, second) = (delta(&base), delta(&first), delta(&second));
            let mut both = first.clone();
            both.then(&second);
            let (stepwise, composed) = (applied(&[&base, &first, &second]), applied(&[&base, &both]));
            prop_assert_eq!(stepwise.checksum(), composed.checksum());
            let listed = |set: &ResourceSet| set.full().upserts;
            prop_assert_eq!(listed(&stepwise), listed(&composed));
        }

        #[test]
        fn the_checksum_depends_on_the_content_alone(changes in changes()) {
            let set = applied(&[&delta(&changes)]);
            let rebuilt = applied(&[&set.full()]);
            prop_assert_eq!(set.checksum(), rebuilt.checksum());
            let again = applied(&[&set.full(), &set.full()]);
            prop_assert_eq!(set.checksum(), again.checksum());
        }

        #[test]
        fn chunks_hold_the_whole_delta_within_the_bound(changes in changes(), max in 30..200_usize) {
            let delta = delta(&changes);
            let chunks = delta.into_chunks(max);
            prop_assert!(!chunks.is_empty());
            let mut again = Delta::default();
            for chunk in chunks {
                for resource in chunk.upserts { again.upsert(resource).unwrap(); }
                for name in chunk.removals { again.remove(ResourceKey::from_name(&name).unwrap()); }
            }
            prop_assert_eq!(applied(&[&delta]).checksum(), applied(&[&again]).checksum());
            prop_assert_eq!(delta.removals, again.removals);
        }
    }

    #[test]
    fn a_resource_without_id_is_refused() {
        let it = Organization { id: Bytes::from_static(b"short"), ..Organization::default() };
        let resource = Resource { kind: Some(resource::Kind::Organization(it)) };
        assert!(Delta::default().upsert(resource).is_err());
    }
}
