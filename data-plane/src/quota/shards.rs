//! A map that is read by every request and written when a budget or a limit is first met: readers take no lock and
//! write nothing that others read. Writers copy one shard.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

const SHARDS: usize = 64;
/// Entries of one shard; see [`Shards::get_or_insert`].
const MAX_ENTRIES: usize = 4096;

type Map<K, V> = HashMap<K, Arc<V>, BuildHasherDefault<IdHasher>>;

/// For ids of our own making, which are mostly random: two multiplications. Nobody from outside chooses them.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Lengths of what always is as long.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[derive(Debug)]
pub struct Shards<K, V> {
    maps: Vec<ArcSwap<Map<K, V>>>,
    /// Held by writers only.
    writing: Mutex<()>,
}

impl<K: Copy + Eq + Hash, V> Default for Shards<K, V> {
    fn default() -> Self {
        let map = |_| ArcSwap::from_pointee(HashMap::default());
        Self { maps: (0..SHARDS).map(map).collect(), writing: Mutex::new(()) }
    }
}

impl<K: Copy + Eq + Hash, V> Shards<K, V> {
    fn shard(&self, key: &K) -> &ArcSwap<Map<K, V>> {
        // Bits in the middle: the map itself goes by the lower and the uppermost ones.
        let hash = BuildHasherDefault::<IdHasher>::default().hash_one(key);
        let at = usize::try_from((hash >> 40) % SHARDS as u64).unwrap_or(0);
        &self.maps[at]
    }

    pub fn with<T>(&self, key: &K, look: impl FnOnce(&Arc<V>) -> T) -> Option<T> {
        self.shard(key).load().get(key).map(look)
    }

    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.with(key, Arc::clone)
    }

    /// `None`: there is no room, and whoever asks must do without.
    pub fn get_or_insert(&self, key: K, make: impl FnOnce() -> V) -> Option<Arc<V>> {
        if let Some(found) = self.get(&key) {
            return Some(found);
        }
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = self.shard(&key);
        let map = shard.load();
        if let Some(found) = map.get(&key) {
            return Some(found.clone());
        }
        if map.len() >= MAX_ENTRIES {
            return None;
        }
        let value = Arc::new(make());
        let mut map = Map::clone(&map);
        map.insert(key, value.clone());
        shard.store(Arc::new(map));
        Some(value)
    }

    pub fn for_each(&self, mut look: impl FnMut(&K, &Arc<V>)) {
        for map in &self.maps {
            map.load().iter().for_each(|(key, value)| look(key, value));
        }
    }

    /// Copies only shards of which something goes.
    pub fn retain(&self, mut keep: impl FnMut(&K, &Arc<V>) -> bool) {
        for shard in &self.maps {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let map = shard.load();
            let gone: Vec<K> =
                map.iter().filter(|(key, value)| !keep(key, value)).map(|(key, _)| *key).collect();
            if gone.is_empty() {
                continue;
            }
            let mut map = Map::clone(&map);
            gone.iter().for_each(|key| drop(map.remove(key)));
            shard.store(Arc::new(map));
        }
    }

    pub fn len(&self) -> usize {
        self.maps.iter().map(|map| map.load().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
