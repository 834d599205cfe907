//! A persistent hash map: a clone is one pointer, and a change copies one path instead of the whole.
//!
//! This is what makes the work of a change follow the change: with a million keys a revision that touches one of
//! them copies a handful of nodes, and shares the rest with the revision before. Used by [`crate::ResourceSet`] and
//! [`crate::Tenancy`]; values that nobody else holds are changed in place, so that loading a whole set copies nothing.

use std::{fmt, hash::Hash, slice, sync::Arc};

/// Bits of the hash that one level uses.
const BITS: u32 = 4;
const FANOUT: usize = 1 << BITS;
/// A fuller leaf becomes a branch, unless the hash has no bits left.
const LEAF: usize = 32;
/// How far a leaf grows at a time: doubling would waste a quarter of what a node holds.
const GROWTH: usize = 4;

enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    Branch(Box<[Arc<Self>; FANOUT]>),
}

impl<K: Clone, V: Clone> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(entries.clone()),
            Self::Branch(children) => Self::Branch(children.clone()),
        }
    }
}

/// See the module's documentation.
pub struct Trie<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

impl<K, V> Clone for Trie<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl<K, V> fmt::Debug for Trie<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trie({} entries)", self.len)
    }
}

/// The same in every process and for every map: keys are ids that the control plane makes, not a client's choice.
fn hash<K: Hash>(key: &K) -> u64 {
    ahash::RandomState::with_seeds(
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
    )
    .hash_one(key)
}

fn slot(hash: u64, shift: u32) -> usize {
    usize::try_from((hash >> shift) % FANOUT as u64).unwrap_or(0)
}

impl<K, V> Trie<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In no order that means anything.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { open: vec![&self.root], leaf: [].iter() }
    }
}

impl<K: Hash + Eq, V> Trie<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        let (hash, mut shift, mut node) = (hash(key), 0, &self.root);
        loop {
            match node.as_ref() {
                Node::Leaf(entries) => {
                    return entries.iter().find(|(held, _)| held == key).map(|(_, value)| value);
                }
                Node::Branch(children) => node = &children[slot(hash, shift)],
            }
            shift += BITS;
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Trie<K, V> {
    /// Returns the value that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = hash(&key);
        let (node, shift) = leaf(&mut self.root, hash)?;
        let Node::Leaf(entries) = Arc::make_mut(node) else { return None };
        if let Some((_, held)) = entries.iter_mut().find(|(held, _)| *held == key) {
            return Some(std::mem::replace(held, value));
        }
        if entries.len() == entries.capacity() {
            entries.reserve_exact(GROWTH);
        }
        entries.push((key, value));
        self.len += 1;
        if entries.len() > LEAF && shift + BITS <= u64::BITS {
            let branch = split(std::mem::take(entries), shift);
            *node = Arc::new(branch);
        }
        None
    }

    /// Returns the value that was there. What is not there is not looked for in copies.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let (node, _) = leaf(&mut self.root, hash(key))?;
        let Node::Leaf(entries) = Arc::make_mut(node) else { return None };
        let at = entries.iter().position(|(held, _)| held == key)?;
        self.len -= 1;
        Some(entries.swap_remove(at).1)
    }
}

/// The leaf where this hash belongs, and how many of its bits led there. What others share on the way is copied.
/// Always there; an option, because nothing in here may panic.
fn leaf<K: Clone, V: Clone>(
    mut node: &mut Arc<Node<K, V>>,
    hash: u64,
) -> Option<(&mut Arc<Node<K, V>>, u32)> {
    let mut shift = 0;
    while matches!(node.as_ref(), Node::Branch(_)) {
        let Node::Branch(children) = Arc::make_mut(node) else { return None };
        node = &mut children[slot(hash, shift)];
        shift += BITS;
    }
    Some((node, shift))
}

/// One leaf becomes a branch of leaves.
fn split<K: Hash, V>(entries: Vec<(K, V)>, shift: u32) -> Node<K, V> {
    let mut leaves: [Vec<(K, V)>; FANOUT] = std::array::from_fn(|_| Vec::new());
    for entry in entries {
        let leaf = &mut leaves[slot(hash(&entry.0), shift)];
        if leaf.len() == leaf.capacity() {
            leaf.reserve_exact(GROWTH);
        }
        leaf.push(entry);
    }
    Node::Branch(Box::new(leaves.map(|leaf| Arc::new(Node::Leaf(leaf)))))
}

/// Every entry once.
pub struct Iter<'a, K, V> {
    open: Vec<&'a Arc<Node<K, V>>>,
    leaf: slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            match self.open.pop()?.as_ref() {
                Node::Leaf(entries) => self.leaf = entries.iter(),
                Node::Branch(children) => self.open.extend(children.iter()),
            }
        }
    }
}

#[cfg(test)]
impl<K, V> Trie<K, V> {
    /// Nodes of this map that `other` does not share, and how many entries they hold themselves: the work that made
    /// the one of the other.
    pub(crate) fn unshared(&self, other: &Self) -> (usize, usize) {
        fn walk<K, V>(new: &Arc<Node<K, V>>, old: Option<&Arc<Node<K, V>>>, sum: &mut (usize, usize)) {
            if old.is_some_and(|old| Arc::ptr_eq(new, old)) {
                return;
            }
            sum.0 += 1;
            match (new.as_ref(), old.map(AsRef::as_ref)) {
                (Node::Leaf(entries), _) => sum.1 += entries.len(),
                (Node::Branch(new), Some(Node::Branch(old))) => {
                    new.iter().zip(old.iter()).for_each(|(new, old)| walk(new, Some(old), sum));
                }
                (Node::Branch(new), _) => new.iter().for_each(|new| walk(new, None, sum)),
            }
        }
        let mut sum = (0, 0);
        walk(&self.root, Some(&other.root), &mut sum);
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A key whose hash is the same as that of all others.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct Colliding(u16);

    impl Hash for Colliding {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            0_u8.hash(state);
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_hash_map_holds(steps in proptest::collection::vec((any::<bool>(), 0..600_u16, any::<u8>()), 0..2000)) {
            let (mut trie, mut map) = (Trie::default(), HashMap::new());
            let mut kept = Vec::new();
            for (at, (put, key, value)) in steps.into_iter().enumerate() {
                if at % 500 == 250 {
                    kept.push((trie.clone(), map.clone()));
                }
                if put {
                    prop_assert_eq!(trie.insert(key, value), map.insert(key, value));
                } else {
                    prop_assert_eq!(trie.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(trie.len(), map.len());
            }
            kept.push((trie, map));
            // Versions that were kept have not changed with what came after.
            for (trie, map) in kept {
                let listed: HashMap<u16, u8> = trie.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(&listed, &map);
                for key in 0..600 {
                    prop_assert_eq!(trie.get(&key), map.get(&key));
                }
            }
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let mut trie = Trie::default();
        (0..200).for_each(|at| assert_eq!(trie.insert(Colliding(at), at), None));
        (0..200).for_each(|at| assert_eq!(trie.get(&Colliding(at)), Some(&at)));
        assert_eq!(trie.remove(&Colliding(100)), Some(100));
        assert_eq!((trie.len(), trie.get(&Colliding(100))), (199, None));
    }

    /// The work of a change follows the change: what is copied hardly depends on how much there is.
    #[test]
    fn one_change_copies_one_path() {
        for total in [1_000_u32, 200_000] {
            let mut trie = Trie::default();
            (0..total).for_each(|at| assert!(trie.insert(at, at).is_none()));
            let before = trie.clone();
            trie.insert(total / 2, 0);
            let (nodes, entries) = trie.unshared(&before);
            assert!(nodes <= 6 && entries <= LEAF, "{total}: {nodes} nodes, {entries} entries");
            trie.remove(&(total / 3));
            let (nodes, entries) = trie.unshared(&before);
            assert!(nodes <= 12 && entries <= 2 * LEAF, "{total}: {nodes} nodes, {entries} entries");
            let copied = trie.clone();
            assert!(trie.remove(&total).is_none() && trie.unshared(&copied) == (0, 0));
        }
    }
}
