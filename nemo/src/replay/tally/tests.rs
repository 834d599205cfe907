use nemo_data_plane::{
    nemo_llm::Endpoint,
    routing::{
        record::{ChainKind, Record},
        replay::{Choices, Logged},
    },
};
use nemo_proto::{
    common::PriceSheet,
    config::{Deployment, Model, ModelGroup, Resource, resource},
};
use nemo_snapshot::{Delta, ResourceSet, Strategy};
use nemo_types::OrgId;

use super::*;

fn policy(deployments: &[(DeploymentId, &str, i64)], first: DeploymentId) -> Policy {
    let mut delta = Delta::default();
    let mut put = |kind| delta.upsert(Resource { kind: Some(kind) }).unwrap();
    put(resource::Kind::Model(Model { id: "m".into(), tags: vec!["code".into()], ..Model::default() }));
    for (id, name, price) in deployments {
        put(resource::Kind::Deployment(Deployment {
            id: id.as_bytes().to_vec().into(),
            name: (*name).into(),
            provider: "openai".into(),
            base_url: "http://127.0.0.1:1/v1".into(),
            model: "m".into(),
            upstream_model: "m".into(),
            weight: 1,
            price: Some(PriceSheet { id: "p".into(), input: Some(*price), ..PriceSheet::default() }),
            ..Deployment::default()
        }));
    }
    let id = first.as_bytes().to_vec().into();
    let member = nemo_proto::config::LinkDeployment { deployment_id: id, weight: 1 };
    let link = nemo_proto::config::Link { deployments: vec![member] };
    put(resource::Kind::ModelGroup(ModelGroup {
        id: DeploymentId::generate().as_bytes().to_vec().into(),
        name: "smart".into(),
        links: vec![link],
        ..ModelGroup::default()
    }));
    let mut set = ResourceSet::new();
    set.apply(&delta);
    Policy::new(&nemo_snapshot::compile(&set, 1).unwrap())
}

fn record(tags: &[&str]) -> Record {
    Record {
        strategy: Strategy::SimpleShuffle,
        asked_strategy: Strategy::SimpleShuffle,
        strategy_asked: false,
        seed: 1,
        names: vec!["smart".into()],
        chain: ChainKind::Group,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        implied: Vec::new(),
        input_tokens: 1,
        least_input_tokens: 1,
        output_tokens: None,
        fallbacks: true,
        preferences: None,
        max_cost: None,
        max_cost_asked: false,
        picks: Vec::new(),
        why: None,
        eliminated: Vec::new(),
        eliminated_more: 0,
        seen: Vec::new(),
        rest_cooling: false,
        cut: false,
    }
}

fn outcome(policy: &Policy, record: &Record) -> Outcome {
    let logged = Logged { org: OrgId::generate(), endpoint: Endpoint::ChatCompletions, record };
    policy.decide(&logged, Choices::Policy).unwrap()
}

#[test]
fn shares_costs_and_refusals_are_summed_up_by_the_first_choice() {
    let (cheap, dear) = (DeploymentId::generate(), DeploymentId::generate());
    let both = [(cheap, "cheap", 1_000_000_000), (dear, "dear", 9_000_000_000)];
    let (before, after) = (policy(&both, dear), policy(&both, cheap));
    let mut tally = Tally::default();
    let logged = LoggedDecision {
        request_id: "r".into(),
        input_tokens: Some(1000),
        output_tokens: Some(0),
        cost_nanos: Some(9_000_000),
        ..LoggedDecision::default()
    };
    let plain = record(&[]);
    let (was, would_be) = (outcome(&before, &plain), outcome(&after, &plain));
    tally.add(&logged, &before, Some(&after), &was, Ok(&would_be));
    // The same again: what was recorded counts, whatever the price says now.
    let same = LoggedDecision { cost_nanos: Some(5), ..logged.clone() };
    tally.add(&same, &before, Some(&before), &was, Ok(&was));
    // No model has the tag.
    let vision = record(&["vision"]);
    let refused = outcome(&after, &vision);
    tally.add(&logged, &before, Some(&after), &was, Ok(&refused));
    tally.add(&logged, &before, None, &was, Err(&"there was no deployment east yet".to_owned()));

    assert_eq!((tally.compared, tally.not_compared, tally.changed), (3, 1, 2));
    let shares: Vec<_> = tally.shares.values().map(|it| (&*it.deployment, it.before, it.after)).collect();
    assert_eq!(shares, [("cheap", 0, 1), ("dear", 3, 1)]);
    assert_eq!((tally.refused_after, tally.tag_refusals_after, tally.tag_refusals_before), (1, 1, 0));
    assert_eq!((tally.priced, tally.unpriced), (2, 1));
    assert_eq!((tally.cost_nanos_before, tally.cost_nanos_after), (9_000_005, 1_000_005));
    let examples: Vec<_> = tally.examples.iter().map(|it| (&*it.before, &*it.after)).collect();
    assert_eq!(examples, [("dear", "cheap"), ("dear", "refused: none has the tags")]);
}
