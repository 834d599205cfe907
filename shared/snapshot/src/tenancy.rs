//! Who may send requests: keys by public id, the teams and organizations that they belong to, their policies, and what
//! limits them.
//!
//! Every change costs what it changes: a key points up to its team and the team to its organization, so that
//! switching an organization off touches one entry, not its keys.

use std::sync::Arc;

use nemo_types::{KeyId, OrgId, Presented, PublicId, TeamId, TokenHash, Verified};

use crate::{Bounds, Budget, KeyPolicy, Limits, RateLimit, Scope, Trie};

/// The section of a snapshot that authentication reads. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub struct Tenancy {
    keys: Trie<PublicId, Arc<KeyRecord>>,
    teams: Trie<TeamId, Team>,
    organizations: Trie<OrgId, Organization>,
    /// Equal policies once, with the number of keys that have them.
    policies: Trie<u128, (Arc<KeyPolicy>, u32)>,
    /// By the id of an organization, team or key: those that have any.
    limits: Trie<[u8; 16], Arc<Limits>>,
    /// Of keys that are not limited.
    unlimited: Arc<KeyPolicy>,
}

#[derive(Clone, Copy, Debug)]
struct Team {
    org: OrgId,
    disabled: bool,
    /// Keys of this team: it can't go before they are gone.
    keys: u32,
}

#[derive(Clone, Copy, Debug)]
struct Organization {
    disabled: bool,
    teams: u32,
}

/// What is switched off, seen from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disabled {
    Key,
    Team,
    Organization,
}

/// A virtual key. A million of them are held at once: what several share is behind a pointer, what few have too.
#[derive(Debug)]
pub struct KeyRecord {
    pub id: KeyId,
    pub public_id: PublicId,
    pub org_id: OrgId,
    pub team_id: TeamId,
    pub hash: TokenHash,
    /// The hash before the last rotation and until when (Unix milliseconds) it is honoured.
    pub previous: Option<Box<(TokenHash, i64)>>,
    /// Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<i64>,
    pub policy: Arc<KeyPolicy>,
    /// The key itself; [`Tenancy::disabled`] tells about those above it too.
    pub(crate) disabled: bool,
    pub(crate) verified: Verified,
}

impl KeyRecord {
    /// True when the presented secret is the current one, or the one before within its overlap.
    pub fn accepts(&self, presented: &Presented<'_>, now_ms: i64) -> bool {
        if self.verified.knows(presented) {
            return true;
        }
        let hash = presented.hash();
        if self.hash == hash {
            self.verified.remember(presented);
            return true;
        }
        // Not remembered: it is good for a time only.
        self.verify(&hash, now_ms)
    }

    /// True when `hash` is that of the current secret, or of the one before within its overlap.
    pub fn verify(&self, hash: &TokenHash, now_ms: i64) -> bool {
        self.hash == *hash
            || self.previous.as_deref().is_some_and(|(previous, until)| previous == hash && now_ms < *until)
    }
}

/// Field and message of what does not fit.
pub(crate) type Misfit = (&'static str, String);

fn misfit<T>(field: &'static str, message: &str) -> Result<T, Misfit> {
    Err((field, message.to_owned()))
}

impl Tenancy {
    pub fn key(&self, public_id: &PublicId) -> Option<&Arc<KeyRecord>> {
        self.keys.get(public_id)
    }

    /// Whether the key, or what it belongs to, is switched off.
    pub fn disabled(&self, key: &KeyRecord) -> Option<Disabled> {
        if key.disabled {
            return Some(Disabled::Key);
        }
        if self.teams.get(&key.team_id).is_none_or(|team| team.disabled) {
            return Some(Disabled::Team);
        }
        let organization = self.organizations.get(&key.org_id);
        organization.is_none_or(|org| org.disabled).then_some(Disabled::Organization)
    }

    /// The budgets and rate limits of the key, its team and its organization.
    pub fn bounds(&self, key: &KeyRecord) -> Bounds<'_> {
        Bounds {
            organization: self.limits.get(key.org_id.as_bytes()),
            team: self.limits.get(key.team_id.as_bytes()),
            key: self.limits.get(key.id.as_bytes()),
        }
    }

    /// Every organization, team and key that has limits of its own: what they are, in no order that means anything.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limits>> {
        self.limits.iter().map(|(_, limits)| limits)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Different policies other than the one that limits nothing.
    pub fn policies(&self) -> usize {
        self.policies.len()
    }

    pub(crate) fn put_organization(&mut self, id: OrgId, disabled: bool) {
        let teams = self.organizations.get(&id).map_or(0, |org| org.teams);
        self.organizations.insert(id, Organization { disabled, teams });
    }

    pub(crate) fn put_team(&mut self, id: TeamId, org: OrgId, disabled: bool) -> Result<(), Misfit> {
        let Some(owner) = self.organizations.get(&org).copied() else {
            return misfit("org_id", "no such organization");
        };
        let keys = match self.teams.get(&id) {
            Some(held) if held.org != org => return misfit("org_id", "a team stays in its organization"),
            Some(held) => held.keys,
            None => {
                self.organizations.insert(org, Organization { teams: owner.teams + 1, ..owner });
                0
            }
        };
        self.teams.insert(id, Team { org, disabled, keys });
        Ok(())
    }

    /// The organization of a team.
    pub(crate) fn team_org(&self, id: &TeamId) -> Option<OrgId> {
        self.teams.get(id).map(|team| team.org)
    }

    pub(crate) fn put_key(&mut self, record: KeyRecord) -> Result<(), Misfit> {
        let Some(team) = self.teams.get(&record.team_id).copied() else {
            return misfit("team_id", "no such team");
        };
        if self.keys.get(&record.public_id).is_some() {
            return misfit("public_id", "another key has the same public id");
        }
        self.teams.insert(record.team_id, Team { keys: team.keys + 1, ..team });
        if record.policy.digest != 0 {
            let users = self.policies.get(&record.policy.digest).map_or(0, |(_, users)| *users);
            self.policies.insert(record.policy.digest, (record.policy.clone(), users + 1));
        }
        self.keys.insert(record.public_id, Arc::new(record));
        Ok(())
    }

    /// The secret with this hash opens the key no more. False: it did not.
    pub fn withdraw(&mut self, public_id: &PublicId, hash: &TokenHash) -> bool {
        let Some(key) = self.keys.get(public_id) else { return false };
        let current = key.hash == *hash;
        let previous = key.previous.as_deref().is_some_and(|(previous, _)| previous == hash);
        if !current && !previous {
            return false;
        }
        let record = KeyRecord {
            hash: if current { TokenHash::NONE } else { key.hash },
            previous: key.previous.clone().filter(|_| !previous),
            policy: key.policy.clone(),
            verified: Verified::default(),
            ..**key
        };
        self.keys.insert(*public_id, Arc::new(record));
        true
    }

    /// The policy of this digest, if some key has it.
    pub(crate) fn policy(&self, digest: u128) -> Option<Arc<KeyPolicy>> {
        if digest == 0 {
            return Some(self.unlimited.clone());
        }
        self.policies.get(&digest).map(|(policy, _)| policy.clone())
    }

    pub(crate) fn remove_key(&mut self, public_id: &PublicId) {
        let Some(record) = self.keys.remove(public_id) else { return };
        if let Some(team) = self.teams.get(&record.team_id).copied() {
            self.teams.insert(record.team_id, Team { keys: team.keys.saturating_sub(1), ..team });
        }
        let digest = record.policy.digest;
        match self.policies.get(&digest) {
            Some((_, 0 | 1)) => drop(self.policies.remove(&digest)),
            Some((policy, users)) => {
                let left = (policy.clone(), users - 1);
                self.policies.insert(digest, left);
            }
            None => {}
        }
    }

    pub(crate) fn has_organization(&self, id: &OrgId) -> bool {
        self.organizations.get(id).is_some()
    }

    /// The budgets and rate limits that are on the organization, team or key of this id.
    pub(crate) fn limits_on(&self, id: &[u8]) -> Option<&Arc<Limits>> {
        self.limits.get(id.try_into().ok()?)
    }

    pub(crate) fn put_budget(&mut self, org: OrgId, budget: Budget) {
        let on = budget.scope.subject(org);
        self.change_limits(on, |limits| {
            limits.budgets.retain(|held| held.id != budget.id);
            let at = limits.budgets.partition_point(|held| held.id < budget.id);
            limits.budgets.insert(at, Arc::new(budget));
        });
    }

    pub(crate) fn put_rate(&mut self, org: OrgId, rate: RateLimit) {
        let on = rate.scope.subject(org);
        self.change_limits(on, |limits| {
            limits.rates.retain(|held| held.id != rate.id);
            let at = limits.rates.partition_point(|held| held.id < rate.id);
            limits.rates.insert(at, Arc::new(rate));
        });
    }

    /// Takes the budget or rate limit of this id off what it is on.
    pub(crate) fn remove_limit(&mut self, scope: Scope, org: OrgId, id: &[u8]) {
        self.change_limits(scope.subject(org), |limits| {
            limits.budgets.retain(|held| held.id.as_bytes() != id);
            limits.rates.retain(|held| held.id.as_bytes() != id);
        });
    }

    /// What nobody else holds is changed in place: a full compile copies nothing.
    fn change_limits(&mut self, on: [u8; 16], change: impl FnOnce(&mut Limits)) {
        let mut limits = self.limits.remove(&on).unwrap_or_default();
        change(Arc::make_mut(&mut limits));
        if !limits.is_empty() {
            self.limits.insert(on, limits);
        }
    }

    /// False while it has keys.
    pub(crate) fn remove_team(&mut self, id: &TeamId) -> bool {
        let Some(team) = self.teams.get(id).copied() else { return true };
        if team.keys > 0 {
            return false;
        }
        self.teams.remove(id);
        if let Some(org) = self.organizations.get(&team.org).copied() {
            self.organizations.insert(team.org, Organization { teams: org.teams.saturating_sub(1), ..org });
        }
        true
    }

    /// False while it has teams.
    pub(crate) fn remove_organization(&mut self, id: &OrgId) -> bool {
        match self.organizations.get(id) {
            Some(org) if org.teams > 0 => false,
            Some(_) => self.organizations.remove(id).is_some(),
            None => true,
        }
    }
}

#[cfg(test)]
impl Tenancy {
    /// Nodes and entries that were copied to make this section out of `other`.
    pub(crate) fn unshared(&self, other: &Self) -> (usize, usize) {
        let parts = [
            self.keys.unshared(&other.keys),
            self.teams.unshared(&other.teams),
            self.organizations.unshared(&other.organizations),
            self.policies.unshared(&other.policies),
            self.limits.unshared(&other.limits),
        ];
        parts.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Everything in it, in a form that can be compared.
    pub(crate) fn dump(&self) -> Vec<String> {
        let keys = self.keys.iter().map(|(_, key)| format!("{key:?} {:?}", self.disabled(key)));
        let teams = self.teams.iter().map(|it| format!("{it:?}"));
        let organizations = self.organizations.iter().map(|it| format!("{it:?}"));
        let policies = self.policies.iter().map(|it| format!("{it:?}"));
        let limits = self.limits.iter().map(|it| format!("{it:?}"));
        let mut all: Vec<_> = keys.chain(teams).chain(organizations).chain(policies).chain(limits).collect();
        all.sort();
        all
    }
}
