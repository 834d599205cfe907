//! What one node holds, what is on its way to it, and what it is sent next. Pure; one per config stream.
//!
//! At most one push is in flight. A refused revision is not recorded as held and not sent again: the node waits for a
//! newer one.

use nemo_proto::config::{Ack, Push};
use std::vec;

use nemo_snapshot::{Checksum, Item, Kind, ResourceKey, ResourceSet};

use super::{Published, Update};

/// Bound of one message; gRPC's default limit is 4 MiB.
pub const MAX_PUSH_BYTES: usize = 3 << 20;

/// Oldest schema that can read what this build sends when nothing newer is in it.
const MIN_SCHEMA_VERSION: u32 = 2;
/// First schema that knows what limits money and rates. A node of an older one must not serve without those limits: it
/// refuses the push, and says why.
const LIMITS_SCHEMA_VERSION: u32 = 4;

#[derive(Clone, Copy, Debug)]
struct Held {
    revision: u64,
    checksum: Option<Checksum>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    nonce: u64,
    revision: u64,
    checksum: Checksum,
    full: bool,
}

/// What an acknowledgement meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node holds this revision now.
    Applied(u64),
    /// The node refused this revision.
    Refused(u64),
    /// It answers no push that is in flight.
    Stale,
}

pub struct Cursor {
    held: Held,
    in_flight: Option<InFlight>,
    refused: Option<u64>,
    /// The next push is a full set, whatever the node says it holds.
    resync: bool,
    last_nonce: u64,
}

impl Cursor {
    /// Of a node that says it holds this.
    pub fn new(held_revision: u64, held_checksum: &[u8]) -> Self {
        let held = Held { revision: held_revision, checksum: Checksum::from_bytes(held_checksum) };
        Self { held, in_flight: None, refused: None, resync: false, last_nonce: 0 }
    }

    pub fn held(&self) -> (u64, Option<Checksum>) {
        if self.resync { (0, None) } else { (self.held.revision, self.held.checksum) }
    }

    pub fn is_waiting_for_ack(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Forgets what the node holds: the next push is the full set.
    pub fn forget_held(&mut self) {
        self.resync = true;
    }

    /// The messages of one push, or none when there is nothing to send to this node now.
    pub fn plan(&mut self, update: Update) -> Messages {
        if self.in_flight.is_some() {
            return Messages::default();
        }
        let (base_revision, items, removals, to) = match update {
            Update::Current | Update::Ahead => return Messages::default(),
            Update::Delta { base_revision, delta, to } => {
                let items: Vec<Item> = delta.upserts.into_values().collect();
                (base_revision, items, delta.removals.into_iter().collect(), to)
            }
            // Pointers: what the items hold is shared by all nodes that are sent the same.
            Update::Full { to } => (0, to.set.all().cloned().collect(), Vec::new(), to),
        };
        if self.refused == Some(to.revision) || to.revision == 0 {
            return Messages::default();
        }
        self.last_nonce += 1;
        let (revision, checksum) = (to.revision, to.checksum);
        self.in_flight =
            Some(InFlight { nonce: self.last_nonce, revision, checksum, full: base_revision == 0 });
        Messages::new(self.last_nonce, base_revision, items, removals, &to)
    }

    /// Books the node's answer.
    pub fn acknowledge(&mut self, ack: &Ack) -> Outcome {
        let Some(in_flight) = self.in_flight.filter(|push| push.nonce == ack.nonce) else {
            return Outcome::Stale;
        };
        self.in_flight = None;
        if ack.applied {
            self.held = Held { revision: in_flight.revision, checksum: Some(in_flight.checksum) };
            self.refused = None;
            self.resync = false;
            return Outcome::Applied(in_flight.revision);
        }
        // A refused delta puts in doubt what the node holds, so the next push is the full set. After a refused full
        // set its content is at fault; deltas are cheaper again.
        self.resync = !in_flight.full || ack.revision != self.held.revision;
        self.refused = Some(in_flight.revision);
        Outcome::Refused(in_flight.revision)
    }
}

fn min_schema_version(set: &ResourceSet) -> u32 {
    let limited = [Kind::Budget, Kind::RateLimit].into_iter().any(|kind| set.count(kind) > 0);
    if limited { LIMITS_SCHEMA_VERSION } else { MIN_SCHEMA_VERSION }
}

/// The messages of one push, made one by one as they are sent: a full set of a million keys is never held a second
/// time for each node that needs it.
#[derive(Default)]
pub struct Messages {
    head: Push,
    items: vec::IntoIter<Item>,
    removals: vec::IntoIter<ResourceKey>,
    done: bool,
}

impl Messages {
    fn new(
        nonce: u64,
        base_revision: u64,
        items: Vec<Item>,
        removals: Vec<ResourceKey>,
        to: &Published,
    ) -> Self {
        let head = Push {
            nonce,
            base_revision,
            revision: to.revision,
            checksum: to.checksum.to_bytes().to_vec().into(),
            min_schema_version: min_schema_version(&to.set),
            ..Push::default()
        };
        Self { head, items: items.into_iter(), removals: removals.into_iter(), done: false }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.done || self.head.nonce == 0
    }
}

/// What a resource's or a name's own head takes in a message, about.
const OVERHEAD: usize = 6;

impl Iterator for Messages {
    type Item = Push;

    fn next(&mut self) -> Option<Push> {
        if self.is_empty() {
            return None;
        }
        let mut push = self.head.clone();
        let mut size = 0;
        // The first always fits: a message of nothing would lead nowhere.
        let mut fits = |len: usize| {
            let fits = size == 0 || size + len <= MAX_PUSH_BYTES;
            if fits {
                size += len;
            }
            fits
        };
        while let Some(item) = self.items.as_slice().first()
            && fits(item.encoded().len() + OVERHEAD)
        {
            push.upserts.extend(self.items.next().map(|item| item.decode()));
        }
        while self.items.as_slice().is_empty()
            && let Some(key) = self.removals.as_slice().first()
            && fits(key.id.len() + OVERHEAD)
        {
            push.removals.extend(self.removals.next().map(|key| key.to_name()));
        }
        push.more = !(self.items.as_slice().is_empty() && self.removals.as_slice().is_empty());
        self.done = !push.more;
        Some(push)
    }
}

#[cfg(test)]
mod tests;
