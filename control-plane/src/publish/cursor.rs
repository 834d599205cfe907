//! What one node holds, what is on its way to it, and what it is sent next. Pure; one per config stream.
//!
//! At most one push is in flight. A refused revision is not recorded as held and not sent again: the node waits for a
//! newer one.

use nemo_proto::config::{Ack, Push};
use nemo_snapshot::{Checksum, Delta};

use super::{Published, Update};

/// Bound of one message; gRPC's default limit is 4 MiB.
pub const MAX_PUSH_BYTES: usize = 3 << 20;

/// Oldest schema that can read what this build sends.
const MIN_SCHEMA_VERSION: u32 = 1;

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
    pub fn plan(&mut self, update: Update) -> Vec<Push> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let (base_revision, delta, to) = match update {
            Update::Current | Update::Ahead => return Vec::new(),
            Update::Delta { base_revision, delta, to } => (base_revision, delta, to),
            Update::Full { to } => (0, to.set.full(), to),
        };
        if self.refused == Some(to.revision) || to.revision == 0 {
            return Vec::new();
        }
        self.last_nonce += 1;
        let (revision, checksum) = (to.revision, to.checksum);
        self.in_flight =
            Some(InFlight { nonce: self.last_nonce, revision, checksum, full: base_revision == 0 });
        messages(self.last_nonce, base_revision, &delta, &to)
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

fn messages(nonce: u64, base_revision: u64, delta: &Delta, to: &Published) -> Vec<Push> {
    let chunks = delta.into_chunks(MAX_PUSH_BYTES);
    let last = chunks.len().saturating_sub(1);
    let push = |(at, chunk): (usize, nemo_snapshot::Chunk)| Push {
        nonce,
        base_revision,
        revision: to.revision,
        upserts: chunk.upserts,
        removals: chunk.removals,
        checksum: to.checksum.to_bytes().to_vec().into(),
        more: at < last,
        min_schema_version: MIN_SCHEMA_VERSION,
    };
    chunks.into_iter().enumerate().map(push).collect()
}

#[cfg(test)]
mod tests;
