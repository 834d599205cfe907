//! Compiles keys, teams and organizations, and with [`limits`] what limits them: all of it, or what a delta touches.
//! Called by [`super`].

use nemo_proto::config::{ApiKey, Kind, Resource, resource::Kind as R};
use nemo_types::{KeyId, OrgId, PublicId, TeamId, TokenHash, Verified};

use super::{Compiler, limits};
use crate::{
    Delta, KeyPolicy, ResourceKey, ResourceSet,
    tenancy::{KeyRecord, Misfit, Tenancy},
};

/// From nothing. What does not fit is rejected.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Tenancy {
    let mut tenancy = Tenancy::default();
    // Parents first.
    for kind in [Kind::Organization, Kind::Team, Kind::ApiKey] {
        for item in compiler.set.items(kind) {
            let resource = item.decode();
            if let Err((field, message)) = put(&mut tenancy, &resource)
                && let Some(key) = ResourceKey::of(&resource)
            {
                compiler.reject(key.kind, &key.id, field, message);
            }
        }
    }
    limits::compile(compiler, &mut tenancy);
    tenancy
}

/// What `delta` makes of `previous`, which was compiled from `before`: the work follows the delta. `set` already holds
/// the delta. `None` when something does not fit; compiling the whole says what.
pub(super) fn update(
    previous: &Tenancy,
    before: &ResourceSet,
    set: &ResourceSet,
    delta: &Delta,
) -> Option<Tenancy> {
    let mut tenancy = previous.clone();
    // First what was: a public id may go from one key to another.
    for key in delta.touched().filter(|key| key.kind == Kind::ApiKey) {
        if let Some(R::ApiKey(old)) = before.get(key).and_then(|item| item.decode().kind) {
            tenancy.remove_key(&old.public_id.parse().ok()?);
        }
    }
    // In the order of their kinds: parents first.
    let upserts = delta.upserts.iter().filter(|(key, _)| key.kind <= Kind::ApiKey);
    for (_, item) in upserts {
        put(&mut tenancy, &item.decode()).ok()?;
    }
    let removals = |kind| delta.removals.iter().filter(move |key| key.kind == kind);
    for key in removals(Kind::Team) {
        if !tenancy.remove_team(&TeamId::from_bytes(&key.id)?) {
            return None;
        }
    }
    for key in removals(Kind::Organization) {
        if !tenancy.remove_organization(&OrgId::from_bytes(&key.id)?) {
            return None;
        }
    }
    limits::update(&mut tenancy, before, set, delta)?;
    Some(tenancy)
}

fn put(tenancy: &mut Tenancy, resource: &Resource) -> Result<(), Misfit> {
    match &resource.kind {
        Some(R::Organization(it)) => {
            let id = OrgId::from_bytes(&it.id).ok_or(("id", "not an id".to_owned()))?;
            tenancy.put_organization(id, it.disabled);
            Ok(())
        }
        Some(R::Team(it)) => {
            let id = TeamId::from_bytes(&it.id).ok_or(("id", "not an id".to_owned()))?;
            if it.org_id.is_empty() {
                return Err(("org_id", "a team belongs to an organization".to_owned()));
            }
            let org = OrgId::from_bytes(&it.org_id).ok_or(("org_id", "no such organization".to_owned()))?;
            tenancy.put_team(id, org, it.disabled)
        }
        Some(R::ApiKey(it)) => {
            let record = record(tenancy, it)?;
            tenancy.put_key(record)
        }
        _ => Ok(()),
    }
}

fn record(tenancy: &Tenancy, key: &ApiKey) -> Result<KeyRecord, Misfit> {
    let wrong = |field: &'static str, message: &str| (field, message.to_owned());
    let team_id = TeamId::from_bytes(&key.team_id).ok_or_else(|| wrong("team_id", "not an id"))?;
    let org_id = tenancy.team_org(&team_id).ok_or_else(|| wrong("team_id", "no such team"))?;
    let public_id: PublicId =
        key.public_id.parse().map_err(|_| wrong("public_id", "not 16 letters and digits"))?;
    let hash = TokenHash::from_bytes(&key.secret_hash).ok_or_else(|| wrong("secret_hash", "not 32 bytes"))?;
    let previous = match (key.previous_secret_hash.is_empty(), key.previous_valid_until_unix_ms) {
        (true, _) | (_, None) => None,
        (false, Some(until)) => {
            let hash = TokenHash::from_bytes(&key.previous_secret_hash);
            Some(Box::new((hash.ok_or_else(|| wrong("previous_secret_hash", "not 32 bytes"))?, until)))
        }
    };
    let digest = KeyPolicy::digest(key);
    let policy = match tenancy.policy(digest) {
        Some(policy) => policy,
        None => KeyPolicy::compile(key, digest)?.into(),
    };
    Ok(KeyRecord {
        id: KeyId::from_bytes(&key.id).ok_or_else(|| wrong("id", "not an id"))?,
        public_id,
        org_id,
        team_id,
        hash,
        previous,
        expires_at_ms: key.expires_at_unix_ms,
        policy,
        disabled: key.disabled,
        verified: Verified::default(),
    })
}
