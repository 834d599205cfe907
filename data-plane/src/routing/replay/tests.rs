//! Decisions over real snapshots, logged and made again: whatever the pool, the strategy and the health.

use nemo_llm::{Preferences, Sort};
use nemo_proto::{
    common::PriceSheet,
    config::{self, Deployment as WireDeployment, Link, LinkDeployment, Model, Resource, Setting, resource},
};
use nemo_snapshot::{Delta, ResourceSet, Strategy, compile};
use nemo_types::Nanos;
use proptest::{prelude::*, strategy::Strategy as _};

use super::*;
use crate::routing::{
    Cause, Gate, Health, Packed,
    record::{self, Asked},
};

/// Two models with tags, two groups of which the second requires one; `size` deployments, every third of the other model.
fn set(size: usize) -> ResourceSet {
    let mut delta = Delta::default();
    let mut put = |kind| delta.upsert(Resource { kind: Some(kind) }).unwrap();
    for (id, tags, window) in [("plain", vec!["code"], 1000), ("seeing", vec!["code", "vision"], 100_000)] {
        let tags = tags.into_iter().map(str::to_owned).collect();
        put(resource::Kind::Model(Model { id: id.into(), tags, context_window: window, ..Model::default() }));
    }
    let ids: Vec<bytes::Bytes> =
        (0..size).map(|_| bytes::Bytes::copy_from_slice(DeploymentId::generate().as_bytes())).collect();
    for (at, id) in ids.iter().enumerate() {
        let price = i64::try_from(at % 7).unwrap() * 1_000_000_000;
        put(resource::Kind::Deployment(WireDeployment {
            id: id.clone(),
            name: format!("d{at}"),
            provider: ["openai", "groq"][at % 2].into(),
            base_url: "http://127.0.0.1:1/v1".into(),
            model: if at % 3 == 0 { "seeing" } else { "plain" }.into(),
            upstream_model: "m".into(),
            weight: u32::try_from(at % 4).unwrap(),
            disabled: at % 11 == 10,
            rpm: (at % 2 == 0).then_some(1000),
            price: (at % 5 != 4).then(|| PriceSheet {
                id: "p".into(),
                input: Some(price),
                ..PriceSheet::default()
            }),
            ..WireDeployment::default()
        }));
    }
    for (name, required, chunk) in [("first", vec![], size.div_ceil(2)), ("second", vec!["vision"], size)] {
        let members = ids.chunks(chunk.max(1)).map(|ids| {
            let deployments =
                ids.iter().map(|id| LinkDeployment { deployment_id: id.clone(), weight: 1 }).collect();
            Link { deployments }
        });
        put(resource::Kind::ModelGroup(config::ModelGroup {
            id: bytes::Bytes::copy_from_slice(DeploymentId::generate().as_bytes()),
            name: name.into(),
            links: members.collect(),
            required_tags: required.into_iter().map(str::to_owned).collect(),
            ..config::ModelGroup::default()
        }));
    }
    let mut set = ResourceSet::new();
    set.apply(&delta);
    set
}

fn policy(set: &ResourceSet) -> Policy {
    Policy::new(&compile(set, 1).unwrap())
}

/// What a request asked, and how the world looked.
#[derive(Clone, Debug)]
struct Case {
    size: usize,
    strategy: usize,
    chain: u8,
    tags: usize,
    fallbacks: bool,
    input: u64,
    max_cost: Option<i64>,
    preferences: Option<u8>,
    seed: u64,
    /// Share of deployments that cool down, in tenths; and what the others look like.
    cooling: u64,
    noise: u64,
}

fn cases() -> impl proptest::strategy::Strategy<Value = Case> {
    let world = (1..150_usize, 0..11_u64, any::<u64>(), any::<u64>());
    let ask = (0..Strategy::ALL.len(), 0..3_u8, 0..3_usize, any::<bool>(), 0..3000_u64);
    (world, ask, proptest::option::of(1..10_000_000_i64), proptest::option::of(0..4_u8)).prop_map(
        |((size, cooling, noise, seed), (strategy, chain, tags, fallbacks, input), max_cost, preferences)| {
            Case {
                size,
                strategy,
                chain,
                tags,
                fallbacks,
                input,
                max_cost,
                preferences,
                seed,
                cooling,
                noise,
            }
        },
    )
}

impl Case {
    /// Some health for each deployment, always the same.
    fn health(&self, deployment: &Deployment) -> Health {
        let id = u64::from_le_bytes(deployment.id.as_bytes()[8..].try_into().unwrap());
        let mut rng = fastrand::Rng::with_seed(id ^ self.noise);
        if rng.u64(..10) < self.cooling {
            let gate = Gate::Cooling { remaining_ms: rng.u32(1..60_000), cause: Cause::RateLimited };
            return Health { gate, ..Health::QUIET };
        }
        match self.noise % 3 {
            0 => Health::QUIET,
            1 => Packed(rng.u64(..) & 0xffff_ffff_ffff_0000).unpack(),
            _ => Health { in_flight: rng.u32(..40), ttft_us: rng.u32(..900_000), ..Health::QUIET },
        }
    }

    fn preferences(&self) -> Option<Preferences> {
        let wanted = |sort| Preferences { sort, ..Preferences::default() };
        Some(match self.preferences? {
            0 => wanted(Some(Sort::Price)),
            1 => Preferences { order: vec!["groq".into()], ..wanted(None) },
            2 => Preferences { only: vec!["openai".into()], ..wanted(Some(Sort::Latency)) },
            _ => Preferences { ignore: vec!["groq".into()], allow_fallbacks: Some(false), ..wanted(None) },
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// R004-29.
    #[test]
    fn a_logged_decision_comes_out_as_it_was(case in cases()) {
        let policy = policy(&set(case.size));
        let org = OrgId::generate();
        let group = |name| policy.routing.resolve(org, name).unwrap().clone();
        let (first, others) = (group("first"), [group("first"), group("second")]);
        let (links, chain): (_, Vec<Box<str>>) = match case.chain {
            0 => (Chain::Group(&first), vec![]),
            // Said twice, which counts once.
            1 => (Chain::Models(&others), vec!["second".into(), "first".into()]),
            _ => (Chain::Instead { primary: &first, fallbacks: &others[1..] }, vec!["second".into(), "second".into()]),
        };
        let preferences = case.preferences();
        let tag = |tags: &[&str]| policy.routing.tag_set(tags.iter().copied()).unwrap();
        let ask = Ask {
            endpoint: Endpoint::ChatCompletions,
            links,
            strategy: Strategy::ALL[case.strategy],
            tags: tag([&[][..], &["code"], &["vision"]][case.tags]),
            implied: tag([&[][..], &["function-calling"], &["vision"]][case.tags]),
            input_tokens: case.input,
            least_input_tokens: case.input / 2,
            output_tokens: Some(100),
            fallbacks: case.fallbacks,
            preferences: preferences.as_ref(),
            max_cost: case.max_cost.map(Nanos),
        };
        let outcome = decide(&policy.served, &ask, &|it: &Deployment| case.health(it), case.seed);
        let asked = Asked { ask: &ask, model: "first", chain: &chain, strategy_asked: true, max_cost_asked: true };
        let tags = &policy.routing.tags;
        let bytes = record::begin(&asked, tags, outcome.as_ref().map_err(|none| &**none));
        prop_assert!(bytes.len() < 8192, "{} bytes", bytes.len());
        let record = Record::decode(&record::finish(bytes, std::iter::empty())).unwrap();
        let logged = Logged { org, endpoint: Endpoint::ChatCompletions, record: &record };
        for choices in [Choices::Recorded, Choices::Policy] {
            let again = policy.decide(&logged, choices).unwrap();
            prop_assert_eq!(difference(&record, &again), None);
            prop_assert_eq!(&again, &outcome);
        }
    }
}

/// What the request did not choose itself is the other policy's to choose; what it did choose stays.
#[test]
fn another_policy_chooses_what_the_request_did_not() {
    let before = set(4);
    let policy_before = policy(&before);
    let mut changed = before.clone();
    let mut delta = Delta::default();
    let setting = Setting {
        id: bytes::Bytes::copy_from_slice(DeploymentId::generate().as_bytes()),
        key: "routing.strategy".into(),
        value: "\"cost-based\"".into(),
        ..Setting::default()
    };
    delta.upsert(Resource { kind: Some(resource::Kind::Setting(setting)) }).unwrap();
    changed.apply(&delta);
    let after = policy(&changed);
    let org = OrgId::generate();
    let first = policy_before.routing.resolve(org, "first").unwrap().clone();
    for strategy_asked in [false, true] {
        let ask = Ask {
            endpoint: Endpoint::ChatCompletions,
            links: Chain::Group(&first),
            strategy: Strategy::LeastBusy,
            tags: TagSet::EMPTY,
            implied: TagSet::EMPTY,
            input_tokens: 1,
            least_input_tokens: 1,
            output_tokens: None,
            fallbacks: true,
            preferences: None,
            max_cost: None,
        };
        let outcome = decide(&policy_before.served, &ask, &crate::routing::Quiet, 7);
        let asked = Asked { ask: &ask, model: "first", chain: &[], strategy_asked, max_cost_asked: false };
        let bytes =
            record::begin(&asked, &policy_before.routing.tags, outcome.as_ref().map_err(|none| &**none));
        let record = Record::decode(&bytes).unwrap();
        let logged = Logged { org, endpoint: Endpoint::ChatCompletions, record: &record };
        let strategy = |choices| after.decide(&logged, choices).unwrap().unwrap().strategy;
        assert_eq!(strategy(Choices::Recorded), Strategy::LeastBusy);
        let chosen = if strategy_asked { Strategy::LeastBusy } else { Strategy::CostBased };
        assert_eq!(strategy(Choices::Policy), chosen);
    }
}

#[test]
fn what_the_policy_does_not_know_is_told_by_name() {
    let policy = policy(&set(2));
    let wire = nemo_proto::usage::Decision {
        version: 1,
        deployments: vec![1; 16].into(),
        strategy: 1,
        names: vec!["first".into(), "gone".into()],
        chain: 1,
        tags: vec!["nope".into()],
        picks: vec![0],
        ..Default::default()
    };
    let record = Record::decode(&prost::Message::encode_to_vec(&wire)).unwrap();
    let org = OrgId::generate();
    let refused = |record: &Record| {
        let logged = Logged { org, endpoint: Endpoint::ChatCompletions, record };
        policy.decide(&logged, Choices::Recorded).unwrap_err()
    };
    assert_eq!(refused(&record), Unresolved::Model("gone".into()));
    let error = refused(&Record { names: vec!["first".into()], ..record });
    assert!(error.to_string().contains("nope"), "{error}");
}
