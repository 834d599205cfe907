//! Keys, and secrets of keys, that were switched off after the revision that this node serves: they came ahead of the
//! push that says so.
//!
//! Part of [`super::Live`], so that a request reads them without a lock; kept by [`super::SnapshotHandle`] until a
//! revision that knows of them is in force. Secrets are taken out of the snapshot itself ([`Revoked::withdraw_from`]):
//! what they cost is paid when they come, not by requests.

use std::{collections::HashMap, sync::Arc};

use nemo_proto::config::{Revocation, revocation};
use nemo_snapshot::{
    KeyRecord,
    tenancy::{Disabled, Tenancy},
};
use nemo_types::{OrgId, PublicId, TeamId, TokenHash};

/// More are not held beside a snapshot. A push follows each within a second, so this many are only ever waiting when
/// pushes are refused, and then the newest are left to the push.
pub const MAX_REVOKED: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Key(PublicId),
    Team(TeamId),
    Organization(OrgId),
    /// By its hash.
    Secret(PublicId, [u8; 32]),
}

impl Target {
    fn of(revocation: &Revocation) -> Option<Self> {
        match revocation.target.as_ref()? {
            revocation::Target::PublicId(id) => id.parse().ok().map(Self::Key),
            revocation::Target::TeamId(id) => TeamId::from_bytes(id).map(Self::Team),
            revocation::Target::OrgId(id) => OrgId::from_bytes(id).map(Self::Organization),
            revocation::Target::Secret(secret) => {
                let hash = TokenHash::from_bytes(&secret.secret_hash)?;
                Some(Self::Secret(secret.public_id.parse().ok()?, *hash.as_bytes()))
            }
        }
    }
}

/// What is revoked, and since which revision.
#[derive(Clone, Debug, Default)]
pub struct Revoked(HashMap<Target, u64, ahash::RandomState>);

impl Revoked {
    /// Whether this key, or what it belongs to, was revoked.
    pub fn disabled(&self, key: &KeyRecord) -> Option<Disabled> {
        // As good as always.
        if self.0.is_empty() {
            return None;
        }
        let has = |target| self.0.contains_key(&target);
        if has(Target::Key(key.public_id)) {
            return Some(Disabled::Key);
        }
        if has(Target::Team(key.team_id)) {
            return Some(Disabled::Team);
        }
        has(Target::Organization(key.org_id)).then_some(Disabled::Organization)
    }

    /// Takes the secrets out of a snapshot that still has them.
    pub(super) fn withdraw_from(&self, tenancy: &mut Arc<Tenancy>) {
        for target in self.0.keys() {
            if let Target::Secret(public_id, hash) = target
                && let Some(hash) = TokenHash::from_bytes(hash)
            {
                // Of a set of tries, so what is copied is little.
                Arc::make_mut(tenancy).withdraw(public_id, &hash);
            }
        }
    }

    /// False when there was nothing to note: it is known, it is no target that this build knows, or it is full.
    pub(super) fn note(&mut self, revocation: &Revocation) -> bool {
        let Some(target) = Target::of(revocation) else { return false };
        if self.0.len() >= MAX_REVOKED && !self.0.contains_key(&target) {
            return false;
        }
        let held = self.0.entry(target).or_insert(0);
        std::mem::replace(held, revocation.revision.max(*held)) < revocation.revision
    }

    /// Forgets what the snapshot of this revision says itself.
    pub(super) fn settle(&mut self, revision: u64) {
        self.0.retain(|_, since| *since > revision);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
