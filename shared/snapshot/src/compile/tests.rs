use std::sync::Arc;

mod limits;

use bytes::Bytes;
use nemo_proto::{common, config::*};
use nemo_types::{
    ApiKey as Token, CredentialId, DeploymentId, KeyId, Keyring, ModelGroupId, OrgId, SettingId, TeamId,
};

use super::*;
use crate::Strategy;

struct World {
    set: ResourceSet,
    org: OrgId,
    team: TeamId,
}

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

impl World {
    fn new() -> Self {
        let (org, team) = (OrgId::generate(), TeamId::generate());
        let mut world = Self { set: ResourceSet::new(), org, team };
        world.organization(org);
        let it = Team { id: bytes(team.as_bytes()), org_id: bytes(org.as_bytes()), ..Team::default() };
        world.put(resource::Kind::Team(it));
        world
    }

    fn put(&mut self, kind: resource::Kind) {
        let mut delta = Delta::default();
        delta.upsert(Resource { kind: Some(kind) }).unwrap();
        self.set.apply(&delta);
    }

    fn organization(&mut self, org: OrgId) {
        let it = Organization { id: bytes(org.as_bytes()), name: "org".into(), disabled: false };
        self.put(resource::Kind::Organization(it));
    }

    fn key(&mut self, change: impl FnOnce(&mut ApiKey)) -> nemo_types::token::Minted {
        let minted = Token::mint().unwrap();
        let mut it = ApiKey {
            id: bytes(KeyId::generate().as_bytes()),
            team_id: bytes(self.team.as_bytes()),
            public_id: minted.public_id.to_string(),
            secret_hash: Bytes::copy_from_slice(minted.hash.as_bytes()),
            ..ApiKey::default()
        };
        change(&mut it);
        self.put(resource::Kind::ApiKey(it));
        minted
    }

    fn model(&mut self, id: &str, aliases: &[&str], providers: &[(&str, &str)]) {
        let offering = |(provider, upstream): &(&str, &str)| Offering {
            provider: (*provider).into(),
            upstream_model: (*upstream).into(),
            price: Some(common::PriceSheet {
                id: format!("{provider}/{id}"),
                input: Some(1),
                ..Default::default()
            }),
        };
        self.put(resource::Kind::Model(Model {
            id: id.into(),
            owned_by: "openai".into(),
            aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
            offerings: providers.iter().map(offering).collect(),
            ..Model::default()
        }));
    }

    fn deployment(
        &mut self,
        provider: &str,
        model: &str,
        change: impl FnOnce(&mut Deployment),
    ) -> DeploymentId {
        let id = DeploymentId::generate();
        let mut it = Deployment {
            id: bytes(id.as_bytes()),
            name: format!("{provider}/{model}"),
            provider: provider.into(),
            base_url: "http://127.0.0.1:1/v1".into(),
            model: model.into(),
            upstream_model: model.into(),
            weight: 1,
            ..Deployment::default()
        };
        change(&mut it);
        self.put(resource::Kind::Deployment(it));
        id
    }

    fn group(&mut self, name: &str, owner: Option<OrgId>, links: &[&[DeploymentId]]) {
        let link = |members: &&[DeploymentId]| Link {
            deployments: members
                .iter()
                .map(|id| LinkDeployment { deployment_id: bytes(id.as_bytes()), weight: 1 })
                .collect(),
        };
        self.put(resource::Kind::ModelGroup(ModelGroup {
            id: bytes(ModelGroupId::generate().as_bytes()),
            org_id: owner.map(|org| bytes(org.as_bytes())).unwrap_or_default(),
            name: name.into(),
            links: links.iter().map(link).collect(),
            ..ModelGroup::default()
        }));
    }

    fn compile(&self) -> Snapshot {
        compile(&self.set, 7).unwrap()
    }

    fn rejected(&self) -> Vec<String> {
        compile(&self.set, 7).unwrap_err().iter().map(ToString::to_string).collect()
    }
}

fn pool(snapshot: &Snapshot, org: OrgId, name: &str) -> Vec<Vec<DeploymentId>> {
    let Some(group) = snapshot.routing.resolve(org, name) else { return Vec::new() };
    group.links.iter().map(|link| link.members.iter().map(|member| member.deployment.id).collect()).collect()
}

/// R003-2, R003-3, R002-6, R002-7, B12.
#[test]
fn every_form_of_a_model_name_resolves() {
    let mut world = World::new();
    world.model(
        "gpt-5.2",
        &["gpt-5.2-2025-12-11"],
        &[("openai", "gpt-5.2"), ("openrouter", "openai/gpt-5.2")],
    );
    world.model("gemini-3-flash-preview", &[], &[("google-ai-studio", "gemini-3-flash-preview")]);
    let direct = world.deployment("openai", "gpt-5.2", |_| {});
    let router = world.deployment("openrouter", "gpt-5.2", |it| it.upstream_model = "openai/gpt-5.2".into());
    let gemini = world.deployment("google-ai-studio", "gemini-3-flash-preview", |_| {});
    let snapshot = world.compile();

    for name in ["gpt-5.2", "gpt-5.2-2025-12-11"] {
        assert_eq!(pool(&snapshot, world.org, name), [vec![direct, router]], "{name}");
    }
    for name in ["openai/gpt-5.2", "openai/gpt-5.2-2025-12-11"] {
        assert_eq!(pool(&snapshot, world.org, name), [vec![direct], vec![router]], "{name}");
    }
    for name in ["openrouter/gpt-5.2", "openrouter/openai/gpt-5.2"] {
        assert_eq!(pool(&snapshot, world.org, name), [vec![router], vec![direct]], "{name}");
    }
    for name in ["gemini/gemini-3-flash-preview", "google-ai-studio/gemini-3-flash-preview"] {
        assert_eq!(pool(&snapshot, world.org, name), [vec![gemini]], "{name}");
    }
    for name in ["groq/gpt-5.2", "gpt-5", ""] {
        assert!(snapshot.routing.resolve(world.org, name).is_none(), "{name}");
    }
    assert_eq!(snapshot.routing.nearest(world.org, "gpt-52", 3), [Arc::from("gpt-5.2")]);
}

#[test]
fn a_prefix_without_deployment_falls_to_whoever_serves_the_model() {
    let mut world = World::new();
    world.model("gpt-5.2", &[], &[("openai", "gpt-5.2"), ("openrouter", "openai/gpt-5.2")]);
    let router = world.deployment("openrouter", "gpt-5.2", |it| it.upstream_model = "openai/gpt-5.2".into());
    assert_eq!(pool(&world.compile(), world.org, "openai/gpt-5.2"), [vec![router]]);
}

/// R000-16: one tenant never sees another's deployments.
#[test]
fn an_organizations_own_deployments_serve_it_alone() {
    let mut world = World::new();
    let other = OrgId::generate();
    world.organization(other);
    world.model("gpt-5.2", &[], &[("openai", "gpt-5.2")]);
    let shared = world.deployment("openai", "gpt-5.2", |_| {});
    let org = world.org;
    let own = world.deployment("azure", "gpt-5.2", |it| it.org_id = bytes(org.as_bytes()));
    world.group("fast", Some(org), &[&[own], &[shared]]);
    let snapshot = world.compile();
    assert_eq!(pool(&snapshot, org, "gpt-5.2"), [vec![shared, own]]);
    assert_eq!(pool(&snapshot, other, "gpt-5.2"), [vec![shared]]);
    assert_eq!(pool(&snapshot, org, "fast"), [vec![own], vec![shared]]);
    assert!(snapshot.routing.resolve(other, "fast").is_none());
    let names =
        |org| snapshot.routing.visible(org).iter().map(|group| group.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(Some(org)), ["fast", "gpt-5.2"]);
    assert_eq!(names(Some(other)), ["gpt-5.2"]);
    assert_eq!(names(None), ["gpt-5.2"]);
}

#[test]
fn another_tenants_resources_are_rejected_wherever_they_are_named() {
    let mut world = World::new();
    let other = OrgId::generate();
    world.organization(other);
    world.model("m", &[], &[]);
    let foreign = world.deployment("openai", "m", |it| it.org_id = bytes(other.as_bytes()));
    let org = world.org;
    world.group("mine", Some(org), &[&[foreign]]);
    world.group("operators", None, &[&[foreign]]);
    let key = Keyring::generate_key().unwrap();
    let sealed = Keyring::parse(key.expose()).unwrap().seal(b"", b"secret").unwrap();
    let credential = CredentialId::generate();
    world.put(resource::Kind::Credential(Credential {
        id: bytes(credential.as_bytes()),
        org_id: bytes(other.as_bytes()),
        sealed: Bytes::copy_from_slice(sealed.as_bytes()),
        ..Credential::default()
    }));
    world.deployment("openai", "m", |it| it.credential_id = bytes(credential.as_bytes()));
    let rejected = world.rejected();
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(rejected.iter().all(|text| text.contains("another organization")), "{rejected:?}");
}

#[test]
fn switched_off_deployments_are_in_no_pool() {
    let mut world = World::new();
    world.model("m", &[], &[]);
    world.deployment("a", "m", |it| it.disabled = true);
    world.deployment("b", "m", |it| it.weight = 0);
    assert!(world.compile().routing.resolve(world.org, "m").is_none());
    let on = world.deployment("c", "m", |_| {});
    assert_eq!(pool(&world.compile(), world.org, "m"), [vec![on]]);
}

#[test]
fn keys_inherit_what_is_switched_off_above_them() {
    let mut world = World::new();
    let minted = world.key(|_| {});
    let (org, team) = (world.org, world.team);
    let state = |world: &World| {
        let tenancy = world.compile().tenancy;
        tenancy.disabled(tenancy.key(&minted.public_id).unwrap())
    };
    assert_eq!(state(&world), None);
    let it =
        Team { id: bytes(team.as_bytes()), org_id: bytes(org.as_bytes()), disabled: true, ..Team::default() };
    world.put(resource::Kind::Team(it));
    assert_eq!(state(&world), Some(crate::tenancy::Disabled::Team));
}

#[test]
fn a_rotated_secret_works_until_its_overlap_ends() {
    let mut world = World::new();
    let old = Token::mint().unwrap();
    let minted = world.key(|it| {
        it.previous_secret_hash = Bytes::copy_from_slice(old.hash.as_bytes());
        it.previous_valid_until_unix_ms = Some(1000);
    });
    let snapshot = world.compile();
    let record = snapshot.tenancy.key(&minted.public_id).unwrap();
    assert!(record.verify(&minted.hash, 5000));
    assert!(record.verify(&old.hash, 999) && !record.verify(&old.hash, 1000));
    assert!(!record.verify(&Token::mint().unwrap().hash, 0));
}

/// I5: everything wrong is named, nothing is half compiled.
#[test]
fn broken_references_are_rejected_by_name() {
    let mut world = World::new();
    world.key(|it| it.team_id = bytes(TeamId::generate().as_bytes()));
    world.key(|it| it.secret_hash = Bytes::from_static(b"short"));
    world.model("m", &[], &[]);
    world.deployment("a", "unknown", |_| {});
    world.deployment("b", "m", |it| it.base_url = "ftp://host".into());
    world.deployment("b", "m", |it| it.base_url = "https://-x.example/v1".into());
    world.deployment("b", "m", |it| it.base_url = "http://host?key=x".into());
    world.deployment("c", "m", |it| it.credential_id = bytes(CredentialId::generate().as_bytes()));
    world.put(resource::Kind::Setting(Setting {
        id: bytes(SettingId::generate().as_bytes()),
        key: "routing.strategy".into(),
        value: "\"fastest\"".into(),
        ..Setting::default()
    }));
    let rejected = world.rejected().join("\n");
    for part in [
        "no such team",
        "32 bytes",
        "no model \"unknown\"",
        "base_url: not an http or https URL: expected http(s)://host",
        "base_url: its host is neither",
        "base_url: has a query",
        "no such credential",
        "fastest",
    ] {
        assert!(rejected.contains(part), "{part} not in:\n{rejected}");
    }
}

#[test]
fn prices_come_from_the_deployment_else_the_catalog() {
    let mut world = World::new();
    world.model("m", &[], &[("openai", "m")]);
    let listed = world.deployment("openai", "m", |_| {});
    let own = world.deployment("openai", "m", |it| {
        it.price = Some(common::PriceSheet { id: "own".into(), ..Default::default() });
    });
    let unknown = world.deployment("custom", "m", |_| {});
    let snapshot = world.compile();
    let price = |id| {
        let found = snapshot.routing.deployments().iter().find(|deployment| deployment.id == id).unwrap();
        found.price.as_ref().map(|price| price.id.to_string())
    };
    assert_eq!(price(listed).as_deref(), Some("openai/m"));
    assert_eq!(price(own).as_deref(), Some("own"));
    assert_eq!(price(unknown), None);
}

/// What a delta makes of a set, and what it is.
fn step(world: &mut World, delta: &Delta) -> (ResourceSet, Result<Snapshot, Vec<super::Rejection>>) {
    let (before, previous) = (world.set.clone(), world.compile());
    world.set.apply(delta);
    let after = recompile(&previous, &before, &world.set, delta, 8);
    (before, after)
}

fn name(kind: Kind, id: &[u8; 16]) -> ResourceKey {
    ResourceKey { kind, id: bytes(id) }
}

#[test]
fn recompiling_a_delta_gives_what_compiling_the_set_gives() {
    let mut world = World::new();
    world.model("m", &[], &[]);
    world.deployment("a", "m", |_| {});
    let limited = world.key(|it| it.allowed_models = vec!["m".into()]);
    let same = world.key(|it| it.allowed_models = vec!["m".into()]);
    let before = world.compile();
    assert_eq!(before.tenancy.policies(), 1, "equal policies are held once");
    let policy = |minted: &nemo_types::token::Minted| &before.tenancy.key(&minted.public_id).unwrap().policy;
    assert!(Arc::ptr_eq(policy(&limited), policy(&same)));

    let (other_org, other_team) = (OrgId::generate(), TeamId::generate());
    let key_id = KeyId::generate();
    let minted = Token::mint().unwrap();
    let key = |change: fn(&mut ApiKey)| {
        let mut it = ApiKey {
            id: bytes(key_id.as_bytes()),
            team_id: bytes(other_team.as_bytes()),
            public_id: minted.public_id.to_string(),
            secret_hash: Bytes::copy_from_slice(minted.hash.as_bytes()),
            ..ApiKey::default()
        };
        change(&mut it);
        resource::Kind::ApiKey(it)
    };
    let org = |disabled| {
        let it = Organization { id: bytes(other_org.as_bytes()), name: "o".into(), disabled };
        resource::Kind::Organization(it)
    };
    let team = |disabled| {
        let (id, org_id) = (bytes(other_team.as_bytes()), bytes(other_org.as_bytes()));
        resource::Kind::Team(Team { id, org_id, disabled, ..Team::default() })
    };
    let steps: Vec<(Vec<resource::Kind>, Vec<ResourceKey>)> = vec![
        (vec![org(false), team(false), key(|_| {})], vec![]),
        (vec![key(|it| it.disabled = true)], vec![]),
        (vec![key(|it| it.allowed_cidrs = vec!["10.0.0.0/8".into()]), team(true)], vec![]),
        (vec![team(false), org(true)], vec![]),
        (vec![key(|it| it.metadata = "{}".into())], vec![]),
        (vec![], vec![name(Kind::ApiKey, key_id.as_bytes())]),
        (vec![key(|_| {})], vec![]),
        (
            vec![],
            vec![
                name(Kind::Organization, other_org.as_bytes()),
                name(Kind::Team, other_team.as_bytes()),
                name(Kind::ApiKey, key_id.as_bytes()),
            ],
        ),
    ];
    for (at, (upserts, removals)) in steps.into_iter().enumerate() {
        let mut delta = Delta::default();
        let routed = !removals.is_empty();
        upserts.into_iter().for_each(|kind| delta.upsert(Resource { kind: Some(kind) }).unwrap());
        removals.into_iter().for_each(|key| delta.remove(key));
        let previous = world.compile();
        let (_, after) = step(&mut world, &delta);
        let (after, whole) = (after.unwrap(), world.compile());
        assert_eq!(after.tenancy.dump(), whole.tenancy.dump(), "step {at}");
        assert_eq!(after.checksum, whole.checksum);
        assert!(routed || after.routing.deployments().len() == previous.routing.deployments().len());
    }
    let delta = {
        let mut delta = Delta::default();
        delta.upsert(Resource { kind: Some(org(false)) }).unwrap();
        delta
    };
    let (before_set, previous) = (world.set.clone(), world.compile());
    world.set.apply(&delta);
    let after = recompile(&previous, &before_set, &world.set, &delta, 9).unwrap();
    assert!(Arc::ptr_eq(&previous.routing, &after.routing), "an untouched section is shared");
    assert_eq!(after.routing.strategy(world.org), Strategy::SimpleShuffle);
}

/// I5: also what a delta alone can't tell to be wrong.
#[test]
fn i5_a_delta_that_leaves_orphans_is_rejected_with_the_reasons() {
    let mut world = World::new();
    let minted = world.key(|_| {});
    let (org, team) = (world.org, world.team);
    let twin = ApiKey {
        id: bytes(KeyId::generate().as_bytes()),
        team_id: bytes(team.as_bytes()),
        public_id: minted.public_id.to_string(),
        secret_hash: Bytes::copy_from_slice(minted.hash.as_bytes()),
        ..ApiKey::default()
    };
    let mut duplicate = Delta::default();
    duplicate.upsert(Resource { kind: Some(resource::Kind::ApiKey(twin)) }).unwrap();
    let removal = |key| {
        let mut delta = Delta::default();
        delta.remove(key);
        delta
    };
    for (delta, part) in [
        (removal(name(Kind::Team, team.as_bytes())), "no such team"),
        (removal(name(Kind::Organization, org.as_bytes())), "no such organization"),
        (duplicate, "same public id"),
    ] {
        let kept = world.set.clone();
        let rejections = step(&mut world, &delta).1.unwrap_err();
        assert!(rejections.iter().any(|it| it.to_string().contains(part)), "{part} not in {rejections:?}");
        world.set = kept;
    }
}

/// One changed key costs what it changes, however many keys there are.
#[test]
fn one_changed_key_copies_as_little_of_many_as_of_few() {
    let mut copied = Vec::new();
    for total in [1_000_usize, 50_000] {
        let mut world = World::new();
        let mut many = Delta::default();
        for at in 0..total {
            let it = ApiKey {
                id: bytes(KeyId::generate().as_bytes()),
                team_id: bytes(world.team.as_bytes()),
                public_id: format!("{at:016}"),
                secret_hash: Bytes::from(vec![7; 32]),
                ..ApiKey::default()
            };
            many.upsert(Resource { kind: Some(resource::Kind::ApiKey(it)) }).unwrap();
        }
        world.set.apply(&many);
        let (key, item) = many.upserts.iter().nth(total / 2).unwrap();
        let Some(resource::Kind::ApiKey(mut it)) = item.decode().kind else { panic!("{key:?}") };
        it.disabled = true;
        let mut delta = Delta::default();
        delta.upsert(Resource { kind: Some(resource::Kind::ApiKey(it)) }).unwrap();
        let previous = world.compile();
        let before = world.set.clone();
        world.set.apply(&delta);
        let after = recompile(&previous, &before, &world.set, &delta, 8).unwrap();
        let (set, tenancy) = (world.set.unshared(&before), after.tenancy.unshared(&previous.tenancy));
        assert!(Arc::ptr_eq(&after.routing, &previous.routing));
        copied.push((set.0 + tenancy.0, set.1 + tenancy.1));
    }
    assert!(copied.iter().all(|(nodes, entries)| *nodes <= 20 && *entries <= 100), "{copied:?}");
}
