//! Budgets and rate limits on the tenants that they limit. Covers R001-10 and I5.

use nemo_proto::config::{Budget, BudgetKind, RateLimit};
use nemo_types::{BudgetId, RateLimitId, token::Minted};

use super::*;

fn budget(org: OrgId, id: BudgetId, change: impl FnOnce(&mut Budget)) -> resource::Kind {
    let mut it = Budget { id: bytes(id.as_bytes()), org_id: bytes(org.as_bytes()), ..Budget::default() };
    change(&mut it);
    resource::Kind::Budget(it)
}

fn rate(org: OrgId, id: RateLimitId, change: impl FnOnce(&mut RateLimit)) -> resource::Kind {
    let (id, org_id) = (bytes(id.as_bytes()), bytes(org.as_bytes()));
    let mut it = RateLimit { id, org_id, requests_per_minute: Some(60), ..RateLimit::default() };
    change(&mut it);
    resource::Kind::RateLimit(it)
}

/// Names of the budgets and of the rate limits that bind the key, organization's first.
fn bounds(snapshot: &Snapshot, minted: &Minted) -> (Vec<String>, Vec<String>) {
    let bounds = snapshot.tenancy.bounds(snapshot.tenancy.key(&minted.public_id).unwrap());
    let budgets = bounds.budgets().map(|it| it.name.to_string());
    (budgets.collect(), bounds.rates().map(|it| it.name.to_string()).collect())
}

/// The id of the key that `minted` is for.
fn key_id(world: &World, minted: &Minted) -> KeyId {
    let snapshot = world.compile();
    snapshot.tenancy.key(&minted.public_id).unwrap().id
}

#[test]
fn a_key_is_bound_by_its_own_limits_its_teams_and_its_organizations() {
    let mut world = World::new();
    let (mine, beside) = (world.key(|_| {}), world.key(|_| {}));
    let (org, team, key) = (world.org, world.team, key_id(&world, &mine));
    world.put(budget(org, BudgetId::generate(), |it| it.name = "organization".into()));
    world.put(budget(org, BudgetId::generate(), |it| {
        (it.name, it.team_id) = ("team".into(), bytes(team.as_bytes()));
    }));
    world.put(budget(org, BudgetId::generate(), |it| {
        (it.name, it.key_id) = ("key".into(), bytes(key.as_bytes()));
    }));
    world.put(rate(org, RateLimitId::generate(), |it| {
        (it.name, it.key_id) = ("key rate".into(), bytes(key.as_bytes()));
    }));
    let snapshot = world.compile();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = (names(&["organization", "team", "key"]), names(&["key rate"]));
    assert_eq!(bounds(&snapshot, &mine), expected);
    assert_eq!(bounds(&snapshot, &beside), (names(&["organization", "team"]), names(&[])));
}

#[test]
fn limits_that_can_not_be_served_are_rejected_by_name() {
    let mut world = World::new();
    let other = OrgId::generate();
    world.organization(other);
    let minted = world.key(|_| {});
    let (org, team, key) = (world.org, world.team, key_id(&world, &minted));
    let (gone, id) = (bytes(TeamId::generate().as_bytes()), BudgetId::generate);
    world.put(budget(OrgId::generate(), id(), |_| {}));
    world.put(budget(org, id(), |it| it.team_id = gone.clone()));
    world.put(budget(org, id(), |it| it.key_id = gone.clone()));
    world.put(budget(other, id(), |it| it.team_id = bytes(team.as_bytes())));
    world.put(budget(other, id(), |it| it.key_id = bytes(key.as_bytes())));
    world.put(budget(org, id(), |it| {
        (it.team_id, it.key_id) = (bytes(team.as_bytes()), bytes(key.as_bytes()));
    }));
    world.put(budget(org, id(), |it| it.over_budget = 99));
    world.put(budget(org, id(), |it| {
        (it.budget_kind, it.team_id) = (BudgetKind::Credit.into(), bytes(team.as_bytes()));
    }));
    world.put(rate(org, RateLimitId::generate(), |it| it.requests_per_minute = Some(0)));
    world.put(rate(org, RateLimitId::generate(), |it| it.concurrent = Some(0)));
    let rejected = world.rejected();
    assert_eq!(rejected.len(), 10, "{rejected:?}");
    for (part, times) in [
        ("no such organization", 1),
        ("no such team", 1),
        ("no such key", 1),
        ("belongs to another organization", 2),
        ("not on both", 1),
        ("99 is not known to this release", 1),
        ("credit is an organization's", 1),
        ("zero would refuse everything", 2),
    ] {
        assert_eq!(rejected.iter().filter(|it| it.contains(part)).count(), times, "{part} in {rejected:?}");
    }
}

#[test]
fn recompiling_changed_limits_gives_what_compiling_the_set_gives() {
    let mut world = World::new();
    let minted = world.key(|_| {});
    let (org, team, key) = (world.org, world.team, key_id(&world, &minted));
    let (one, two, speed) = (BudgetId::generate(), BudgetId::generate(), RateLimitId::generate());
    let on_team = |it: &mut Budget| it.team_id = bytes(team.as_bytes());
    let on_key = |it: &mut Budget| it.key_id = bytes(key.as_bytes());
    let (second, minted_second) = (KeyId::generate(), Token::mint().unwrap());
    let second_key = resource::Kind::ApiKey(ApiKey {
        id: bytes(second.as_bytes()),
        team_id: bytes(team.as_bytes()),
        public_id: minted_second.public_id.to_string(),
        secret_hash: Bytes::copy_from_slice(minted_second.hash.as_bytes()),
        ..ApiKey::default()
    });
    let with_key = BudgetId::generate();
    let removed = |kind, id: &[u8; 16]| name(kind, id);
    let steps: Vec<(Vec<resource::Kind>, Vec<ResourceKey>)> = vec![
        (vec![budget(org, one, |_| {}), rate(org, speed, |_| {})], vec![]),
        (vec![budget(org, two, on_team)], vec![]),
        // From the organization to the key, and another policy.
        (vec![budget(org, one, |it| (on_key(it), it.no_lease = 1).1)], vec![]),
        (vec![rate(org, speed, |it| it.concurrent = Some(4))], vec![]),
        (vec![], vec![removed(Kind::Budget, two.as_bytes())]),
        // With the key that it is on, both ways.
        (vec![second_key, budget(org, with_key, |it| it.key_id = bytes(second.as_bytes()))], vec![]),
        (vec![], vec![removed(Kind::Budget, with_key.as_bytes()), removed(Kind::ApiKey, second.as_bytes())]),
        (vec![], vec![removed(Kind::Budget, one.as_bytes()), removed(Kind::RateLimit, speed.as_bytes())]),
    ];
    for (at, (upserts, removals)) in steps.into_iter().enumerate() {
        let mut delta = Delta::default();
        upserts.into_iter().for_each(|kind| delta.upsert(Resource { kind: Some(kind) }).unwrap());
        removals.into_iter().for_each(|key| delta.remove(key));
        let (previous, before) = (world.compile(), world.set.clone());
        world.set.apply(&delta);
        let incremental = super::super::tenancy::update(&previous.tenancy, &before, &world.set, &delta);
        let incremental = incremental.unwrap_or_else(|| panic!("step {at} was compiled from nothing"));
        assert_eq!(incremental.dump(), world.compile().tenancy.dump(), "step {at}");
    }
    assert_eq!(world.compile().tenancy.limits().count(), 0, "nothing is left of what was removed");
}

/// I5: limits never outlive what they are on.
#[test]
fn i5_a_delta_that_leaves_limits_behind_is_rejected() {
    let mut world = World::new();
    let minted = world.key(|_| {});
    let (org, key) = (world.org, key_id(&world, &minted));
    world.put(budget(org, BudgetId::generate(), |it| it.key_id = bytes(key.as_bytes())));
    let mut without = Delta::default();
    without.remove(name(Kind::ApiKey, key.as_bytes()));
    let rejections = step(&mut world, &without).1.unwrap_err();
    assert!(rejections.iter().any(|it| it.to_string().contains("no such key")), "{rejections:?}");
}

/// A key that goes to a team of another organization does not take the budget of its former one along.
#[test]
fn i5_a_key_that_changes_its_organization_leaves_its_limits_behind_and_is_rejected() {
    let mut world = World::new();
    let minted = world.key(|_| {});
    let (org, key) = (world.org, key_id(&world, &minted));
    world.put(budget(org, BudgetId::generate(), |it| it.key_id = bytes(key.as_bytes())));
    let (other_org, other_team) = (OrgId::generate(), TeamId::generate());
    let mut moved = Delta::default();
    for kind in [
        resource::Kind::Organization(Organization {
            id: bytes(other_org.as_bytes()),
            ..Organization::default()
        }),
        resource::Kind::Team(Team {
            id: bytes(other_team.as_bytes()),
            org_id: bytes(other_org.as_bytes()),
            ..Team::default()
        }),
        resource::Kind::ApiKey(ApiKey {
            id: bytes(key.as_bytes()),
            team_id: bytes(other_team.as_bytes()),
            public_id: minted.public_id.to_string(),
            secret_hash: Bytes::copy_from_slice(minted.hash.as_bytes()),
            ..ApiKey::default()
        }),
    ] {
        moved.upsert(Resource { kind: Some(kind) }).unwrap();
    }
    let rejections = step(&mut world, &moved).1.unwrap_err();
    assert!(rejections.iter().any(|it| it.to_string().contains("another organization")), "{rejections:?}");
}

/// The work of a changed budget follows the change, however many there are.
#[test]
fn one_changed_budget_copies_as_little_of_many_as_of_few() {
    let mut copied = Vec::new();
    for total in [1_000_usize, 20_000] {
        let mut world = World::new();
        let (org, mut many) = (world.org, Delta::default());
        let mut last = None;
        for at in 0..total {
            let key = KeyId::generate();
            let it = ApiKey {
                id: bytes(key.as_bytes()),
                team_id: bytes(world.team.as_bytes()),
                public_id: format!("{at:016}"),
                secret_hash: Bytes::from(vec![7; 32]),
                ..ApiKey::default()
            };
            many.upsert(Resource { kind: Some(resource::Kind::ApiKey(it)) }).unwrap();
            let id = BudgetId::generate();
            let kind = budget(org, id, |it| it.key_id = bytes(key.as_bytes()));
            many.upsert(Resource { kind: Some(kind) }).unwrap();
            last = Some((id, key));
        }
        world.set.apply(&many);
        let (id, key) = last.unwrap();
        let mut delta = Delta::default();
        let changed = budget(org, id, |it| (it.key_id = bytes(key.as_bytes()), it.no_lease = 1).1);
        delta.upsert(Resource { kind: Some(changed) }).unwrap();
        let (previous, before) = (world.compile(), world.set.clone());
        world.set.apply(&delta);
        let after = recompile(&previous, &before, &world.set, &delta, 8).unwrap();
        let (set, tenancy) = (world.set.unshared(&before), after.tenancy.unshared(&previous.tenancy));
        assert!(Arc::ptr_eq(&after.routing, &previous.routing));
        copied.push((set.0 + tenancy.0, set.1 + tenancy.1));
    }
    assert!(copied.iter().all(|(nodes, entries)| *nodes <= 20 && *entries <= 100), "{copied:?}");
}
