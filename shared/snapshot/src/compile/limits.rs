//! Compiles budgets and rate limits onto the organizations, teams and keys that they limit: all of them, or what a
//! delta touches. Called by [`super::tenancy`], after the tenants themselves.

use std::num::NonZeroU64;

use nemo_proto::config::{
    self, ApiKey, BudgetKind as WireKind, Kind, NoLeasePolicy, OverBudgetPolicy,
    ReservationBound as WireBound, Resource, resource::Kind as R,
};
use nemo_types::{BudgetId, KeyId, OrgId, RateLimitId, TeamId};

use super::Compiler;
use crate::{
    Budget, BudgetKind, Delta, NoLease, OverBudget, RateLimit, ReservationBound, ResourceKey, ResourceSet,
    Scope, Tenancy, tenancy::Misfit,
};

const KINDS: [Kind; 2] = [Kind::Budget, Kind::RateLimit];

/// All of them. What does not fit is rejected.
pub(super) fn compile(compiler: &mut Compiler<'_>, tenancy: &mut Tenancy) {
    for item in KINDS.into_iter().flat_map(|kind| compiler.set.items(kind)) {
        let resource = item.decode();
        if let Err((field, message)) = put(tenancy, compiler.set, &resource)
            && let Some(key) = ResourceKey::of(&resource)
        {
            compiler.reject(key.kind, &key.id, field, message);
        }
    }
}

/// What `delta` changes about limits; its tenants are in `tenancy` already. `None` when something does not fit.
pub(super) fn update(
    tenancy: &mut Tenancy,
    before: &ResourceSet,
    set: &ResourceSet,
    delta: &Delta,
) -> Option<()> {
    let touched = || delta.touched().filter(|key| KINDS.contains(&key.kind));
    // First what was: a limit may go from one team to another.
    for key in touched() {
        if let Some(old) = before.get(key).map(|item| item.decode()) {
            let (org, scope) = Place::of(&old)?.checked().ok()?;
            tenancy.remove_limit(scope, org, &key.id);
        }
    }
    for key in touched() {
        if let Some(item) = delta.upserts.get(key) {
            put(tenancy, set, &item.decode()).ok()?;
        }
    }
    let tenants = [Kind::Organization, Kind::Team, Kind::ApiKey];
    for key in delta.removals.iter().filter(|key| tenants.contains(&key.kind)) {
        // Its limits would be left behind.
        if tenancy.limits_on(&key.id).is_some() {
            return None;
        }
    }
    let mut keys = delta.upserts.keys().filter(|key| key.kind == Kind::ApiKey);
    keys.all(|key| stays(tenancy, set, &key.id)).then_some(())
}

/// Whether everything that limits this key is still of the key's organization.
fn stays(tenancy: &Tenancy, set: &ResourceSet, key: &[u8]) -> bool {
    let Some(limits) = tenancy.limits_on(key) else { return true };
    let budgets = limits.budgets.iter().map(|it| (Kind::Budget, it.id.as_bytes().to_vec()));
    let rates = limits.rates.iter().map(|it| (Kind::RateLimit, it.id.as_bytes().to_vec()));
    budgets.chain(rates).all(|(kind, id)| {
        let resource = set.find(kind, &id).map(|item| item.decode());
        resource.is_some_and(|it| Place::of(&it).is_some_and(|place| place.find(tenancy, set).is_ok()))
    })
}

fn put(tenancy: &mut Tenancy, set: &ResourceSet, resource: &Resource) -> Result<(), Misfit> {
    let Some(place) = Place::of(resource) else { return Ok(()) };
    let (org, scope) = place.find(tenancy, set)?;
    match &resource.kind {
        Some(R::Budget(it)) => tenancy.put_budget(org, budget(it, scope)?),
        Some(R::RateLimit(it)) => tenancy.put_rate(org, rate_limit(it, scope)?),
        _ => {}
    }
    Ok(())
}

/// What a limit says it is on.
struct Place<'a> {
    org_id: &'a [u8],
    team_id: &'a [u8],
    key_id: &'a [u8],
}

impl<'a> Place<'a> {
    /// `None` for what is no limit.
    fn of(resource: &'a Resource) -> Option<Self> {
        Some(match resource.kind.as_ref()? {
            R::Budget(it) => Self { org_id: &it.org_id, team_id: &it.team_id, key_id: &it.key_id },
            R::RateLimit(it) => Self { org_id: &it.org_id, team_id: &it.team_id, key_id: &it.key_id },
            _ => return None,
        })
    }

    /// As it is written; whether it exists is not asked.
    fn checked(&self) -> Result<(OrgId, Scope), Misfit> {
        let org = OrgId::from_bytes(self.org_id).ok_or_else(|| misfit("org_id", "no such organization"))?;
        let scope = match (self.team_id, self.key_id) {
            ([], []) => Scope::Organization,
            (team, []) => {
                Scope::Team(TeamId::from_bytes(team).ok_or_else(|| misfit("team_id", "no such team"))?)
            }
            ([], key) => Scope::Key(KeyId::from_bytes(key).ok_or_else(|| misfit("key_id", "no such key"))?),
            _ => return Err(misfit("key_id", "a limit is on a team or on a key, not on both")),
        };
        Ok((org, scope))
    }

    /// And what it names is there, and the organization's.
    fn find(&self, tenancy: &Tenancy, set: &ResourceSet) -> Result<(OrgId, Scope), Misfit> {
        let (org, scope) = self.checked()?;
        if !tenancy.has_organization(&org) {
            return Err(misfit("org_id", "no such organization"));
        }
        let (field, owner) = match scope {
            Scope::Organization => return Ok((org, scope)),
            Scope::Team(id) => ("team_id", tenancy.team_org(&id)),
            Scope::Key(id) => ("key_id", key(set, &id).and_then(|it| team_org(tenancy, &it))),
        };
        match owner {
            Some(owner) if owner == org => Ok((org, scope)),
            Some(_) => Err(misfit(field, "belongs to another organization")),
            None if field == "team_id" => Err(misfit(field, "no such team")),
            None => Err(misfit(field, "no such key")),
        }
    }
}

fn key(set: &ResourceSet, id: &KeyId) -> Option<ApiKey> {
    match set.find(Kind::ApiKey, id.as_bytes())?.decode().kind? {
        R::ApiKey(it) => Some(it),
        _ => None,
    }
}

fn team_org(tenancy: &Tenancy, key: &ApiKey) -> Option<OrgId> {
    tenancy.team_org(&TeamId::from_bytes(&key.team_id)?)
}

fn misfit(field: &'static str, message: &str) -> Misfit {
    (field, message.to_owned())
}

/// A policy of a newer control plane is not guessed at: what is unknown is refused.
fn known<T: TryFrom<i32>>(field: &'static str, number: i32) -> Result<T, Misfit> {
    T::try_from(number).map_err(|_| (field, format!("{number} is not known to this release")))
}

fn budget(it: &config::Budget, scope: Scope) -> Result<Budget, Misfit> {
    let kind = match known("budget_kind", it.budget_kind)? {
        WireKind::Limit => BudgetKind::Limit,
        WireKind::Credit if scope == Scope::Organization => BudgetKind::Credit,
        WireKind::Credit => return Err(misfit("budget_kind", "credit is an organization's")),
    };
    let over_budget = match known("over_budget", it.over_budget)? {
        OverBudgetPolicy::Cap => OverBudget::Cap,
        OverBudgetPolicy::Reject => OverBudget::Reject,
    };
    let no_lease = match known("no_lease", it.no_lease)? {
        NoLeasePolicy::Deny => NoLease::Deny,
        NoLeasePolicy::Allow => NoLease::Allow,
    };
    let bound = match known("reservation_bound", it.reservation_bound)? {
        WireBound::Strict => ReservationBound::Strict,
        WireBound::Estimated => ReservationBound::Estimated,
    };
    let id = BudgetId::from_bytes(&it.id).ok_or_else(|| misfit("id", "not an id"))?;
    Ok(Budget { id, name: it.name.as_str().into(), scope, kind, over_budget, no_lease, bound })
}

fn rate_limit(it: &config::RateLimit, scope: Scope) -> Result<RateLimit, Misfit> {
    let per_minute = |field: &'static str, value: Option<u64>| match value.map(NonZeroU64::new) {
        None => Ok(None),
        Some(Some(value)) => Ok(Some(value)),
        Some(None) => Err(misfit(field, "zero would refuse everything: switch the key off instead")),
    };
    if it.concurrent == Some(0) {
        return Err(misfit("concurrent", "zero would refuse everything: switch the key off instead"));
    }
    Ok(RateLimit {
        id: RateLimitId::from_bytes(&it.id).ok_or_else(|| misfit("id", "not an id"))?,
        name: it.name.as_str().into(),
        scope,
        model: it.model.as_str().into(),
        requests_per_minute: per_minute("requests_per_minute", it.requests_per_minute)?,
        tokens_per_minute: per_minute("tokens_per_minute", it.tokens_per_minute)?,
        concurrent: it.concurrent,
    })
}
