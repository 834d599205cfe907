use nemo_proto::config::{Model, Organization};

use super::*;

fn deployment(name: &str) -> (Bytes, resource::Kind) {
    let id = new_id();
    let it = Deployment {
        id: id.clone(),
        name: name.into(),
        provider: "openai".into(),
        base_url: "http://127.0.0.1:1/v1".into(),
        model: "m".into(),
        upstream_model: "m".into(),
        weight: 1,
        ..Deployment::default()
    };
    (id, resource::Kind::Deployment(it))
}

fn set(kinds: Vec<resource::Kind>) -> ResourceSet {
    let mut delta = Delta::default();
    for kind in kinds {
        delta.upsert(Resource { kind: Some(kind) }).unwrap();
    }
    let mut set = ResourceSet::new();
    set.apply(&delta);
    set
}

fn candidate(text: &str) -> Candidate {
    Candidate::new(policy::parse("candidate.toml", text).unwrap())
}

fn only_group(set: &ResourceSet, name: &str) -> ModelGroup {
    let groups: Vec<_> = set
        .items(Kind::ModelGroup)
        .filter_map(|item| match item.decode().kind {
            Some(resource::Kind::ModelGroup(it)) if it.name == name => Some(it),
            _ => None,
        })
        .collect();
    let [group] = groups.try_into().unwrap();
    group
}

#[test]
fn groups_settings_and_weights_are_laid_over_what_has_their_names() {
    let (east, first) = deployment("file:east");
    let (west, second) = deployment("west");
    let link = Link { deployments: vec![LinkDeployment { deployment_id: west.clone(), weight: 1 }] };
    let group = ModelGroup { id: new_id(), name: "smart".into(), links: vec![link], ..ModelGroup::default() };
    let acme = new_id();
    let org = Organization { id: acme.clone(), name: "acme".into(), disabled: false };
    // An organization's group of that name is its own affair.
    let own = ModelGroup { id: new_id(), org_id: org.id.clone(), name: "other".into(), ..group.clone() };
    let model = Model { id: "m".into(), ..Model::default() };
    let set = set(vec![
        first,
        second,
        resource::Kind::Model(model),
        resource::Kind::Organization(org),
        resource::Kind::ModelGroup(group.clone()),
        resource::Kind::ModelGroup(own),
    ]);
    let text = "
        [[model_groups]]
        name = \"smart\"
        strategy = \"weighted\"
        links = [[\"east\", { deployment = \"west\", weight = 3 }]]
        [[deployments]]
        name = \"west\"
        provider = \"openai\"
        model = \"m\"
        weight = 7
        price = { input = \"2.50\" }
        [routing]
        retries = 1
        [[organizations]]
        name = \"acme\"
        routing = { strategy = \"least-busy\" }
        [[keys]]
        name = \"ci\"
    ";
    let mut candidate = candidate(text);
    assert_eq!(candidate.ignored(), ["keys"]);
    let changed = candidate.over(&set).unwrap();
    candidate.check_names().unwrap();
    let smart = only_group(&changed, "smart");
    assert_eq!((smart.id, &*smart.strategy), (group.id, "weighted"));
    let members: Vec<_> =
        smart.links[0].deployments.iter().map(|it| (it.deployment_id.clone(), it.weight)).collect();
    assert_eq!(members, [(east, 1), (west.clone(), 3)]);
    let Some(resource::Kind::Deployment(west)) = changed.find(Kind::Deployment, &west).unwrap().decode().kind
    else {
        panic!("no deployment")
    };
    assert_eq!((west.weight, west.price.unwrap().input), (7, Some(2_500_000_000)));
    assert_eq!(changed.count(Kind::Setting), 2);
    let snapshot = nemo_snapshot::compile(&changed, 1).unwrap();
    let acme = nemo_types::OrgId::from_bytes(&acme).unwrap();
    let policy = snapshot.routing.policy(acme);
    assert_eq!((policy.strategy, policy.retries), (nemo_snapshot::Strategy::LeastBusy, 1));
    let others = snapshot.routing.policy(nemo_types::OrgId::generate());
    assert_eq!((others.strategy, others.retries), (nemo_snapshot::Strategy::SimpleShuffle, 1));
}

#[test]
fn what_is_unknown_is_an_error_that_names_it() {
    for (text, expected) in [
        ("tricks = 1", "tricks"),
        ("[[model_groups]]\nname = \"a\"\nlinks = [[\"x\"]]\nspeed = 1", "speed"),
        ("[[model_groups]]\nname = \"a\"\nlinks = []", "empty link"),
        ("[[model_groups]]\nname = \"a\"\nstrategy = \"fastest\"\nlinks = [[\"x\"]]", "fastest"),
        ("[[deployments]]\nname = \"a\"\nweigth = 1", "weigth"),
        (
            "[[deployments]]\nname = \"a\"\nprovider = \"p\"\nmodel = \"m\"\nprice = { input = \"cheap\" }",
            "cheap",
        ),
        ("[routing]\ntricks = 1", "tricks"),
        ("[routing]\nretries = 99", "routing.retries"),
    ] {
        let error = policy::parse("candidate.toml", text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_name_that_no_revision_had_ends_the_run_one_that_came_later_does_not() {
    let text = "[[model_groups]]\nname = \"a\"\nlinks = [[\"east\", \"nowhere\"]]";
    let mut candidate = candidate(text);
    let (_, east) = deployment("east");
    let error = candidate.over(&set(vec![east.clone()])).unwrap_err();
    assert!(error.contains("nowhere") && !error.contains("east"), "{error}");
    assert!(candidate.check_names().unwrap_err().to_string().contains("nowhere"));
    let (_, nowhere) = deployment("nowhere");
    candidate.over(&set(vec![east, nowhere])).unwrap();
    candidate.check_names().unwrap();
}
