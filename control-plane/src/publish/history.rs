//! What is published now, and the last deltas that led to it. Pure; owned by the publisher.
//!
//! A node that holds any revision of the ring is brought up to date with the composition of the deltas since; one
//! that holds something else gets the full set. Nobody buffers for a slow node: it skips what lies between.

use std::{collections::VecDeque, sync::Arc};

use nemo_snapshot::{Checksum, Delta, ResourceSet};

/// Most deltas kept.
pub const RING_STEPS: usize = 1024;
/// Most bytes of deltas kept. A node further behind is cheaper to serve with the full set.
pub const RING_BYTES: usize = 32 << 20;

/// One revision, whole and compiled without error.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Zero before the first one.
    pub revision: u64,
    pub checksum: Checksum,
    pub set: ResourceSet,
}

impl Published {
    pub fn new(revision: u64, set: ResourceSet) -> Self {
        Self { revision, checksum: set.checksum(), set }
    }
}

/// What a node needs to hold the published revision.
#[derive(Clone, Debug)]
pub enum Update {
    /// Nothing: it holds it.
    Current,
    /// The changes since what it holds.
    Delta { base_revision: u64, delta: Delta, to: Arc<Published> },
    /// Everything.
    Full { to: Arc<Published> },
    /// It holds a newer revision than this replica has published.
    Ahead,
}

/// One published change.
struct Step {
    base_revision: u64,
    base_checksum: Checksum,
    delta: Delta,
    bytes: usize,
}

pub struct History {
    published: Arc<Published>,
    /// Oldest first; each step's base is the step before.
    ring: VecDeque<Step>,
    ring_bytes: usize,
    max_steps: usize,
    max_bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self::with_bounds(RING_STEPS, RING_BYTES)
    }
}

impl History {
    pub fn with_bounds(max_steps: usize, max_bytes: usize) -> Self {
        let published = Arc::new(Published::default());
        Self { published, ring: VecDeque::new(), ring_bytes: 0, max_steps, max_bytes }
    }

    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// `next` follows from what is published by `delta`.
    pub fn advance(&mut self, next: Arc<Published>, delta: Delta) {
        let bytes = delta.encoded_len();
        let (base_revision, base_checksum) = (self.published.revision, self.published.checksum);
        self.ring.push_back(Step { base_revision, base_checksum, delta, bytes });
        self.ring_bytes += bytes;
        while self.ring.len() > self.max_steps || self.ring_bytes > self.max_bytes {
            let Some(dropped) = self.ring.pop_front() else { break };
            self.ring_bytes -= dropped.bytes;
        }
        self.published = next;
    }

    /// `next` has nothing to do with what was published before: the first load, or a restored database.
    pub fn restart(&mut self, next: Arc<Published>) {
        self.ring.clear();
        self.ring_bytes = 0;
        self.published = next;
    }

    /// What a node that holds this revision with this checksum needs. Revision zero holds nothing.
    pub fn update(&self, held_revision: u64, held_checksum: Option<Checksum>) -> Update {
        let full = || Update::Full { to: self.published.clone() };
        if held_revision == 0 {
            return full();
        }
        if held_revision > self.published.revision {
            return Update::Ahead;
        }
        if held_revision == self.published.revision {
            return if held_checksum == Some(self.published.checksum) { Update::Current } else { full() };
        }
        let Ok(first) = self.ring.binary_search_by_key(&held_revision, |step| step.base_revision) else {
            return full();
        };
        if held_checksum != Some(self.ring[first].base_checksum) {
            return full();
        }
        let mut delta = Delta::default();
        self.ring.range(first..).for_each(|step| delta.then(&step.delta));
        Update::Delta { base_revision: held_revision, delta, to: self.published.clone() }
    }
}

#[cfg(test)]
mod tests;
