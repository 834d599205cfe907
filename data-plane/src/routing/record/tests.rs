use std::sync::Arc;

use nemo_llm::{Endpoint, Sort};
use nemo_snapshot::{Link, LinkMember, ModelGroup, Strategy, TagSet};
use nemo_types::{Nanos, NanosPerMillion};
use proptest::{prelude::*, strategy::Strategy as Values};

use super::*;
use crate::{
    routing::{Health, Packed, Pick},
    testing,
};

fn group(size: usize) -> Arc<ModelGroup> {
    let members =
        (0..size).map(|_| LinkMember { deployment: testing::deployment("p", "m"), weight: 1 }).collect();
    Arc::new(ModelGroup {
        id: None,
        name: "m".into(),
        strategy: None,
        links: vec![Link { members }],
        required_tags: TagSet::EMPTY,
        model: None,
    })
}

fn ask(group: &ModelGroup) -> Ask<'_> {
    Ask {
        endpoint: Endpoint::ChatCompletions,
        links: Chain::Group(group),
        strategy: Strategy::SimpleShuffle,
        tags: TagSet::EMPTY,
        implied: TagSet::EMPTY,
        least_input_tokens: 900,
        input_tokens: 1200,
        output_tokens: Some(512),
        fallbacks: true,
        preferences: None,
        max_cost: None,
    }
}

fn asked<'a>(ask: &'a Ask<'a>, chain: &'a [Box<str>]) -> Asked<'a> {
    Asked { ask, model: "gpt-5.2", chain, strategy_asked: false, max_cost_asked: false }
}

fn decision(group: &ModelGroup) -> Decision {
    let picks = group.links[0].members.iter();
    let picks = picks.map(|it| Pick { deployment: it.deployment.clone(), link: 0 }).collect();
    Decision { picks, ..Decision::empty(Strategy::SimpleShuffle, 0xfeed_beef_dead_cafe) }
}

fn tags() -> TagNames {
    TagNames::new(["vision", "code", "x"]).unwrap()
}

fn attempt(deployment: DeploymentId) -> Attempted {
    let (started_us, took_us) = (120, 400_000);
    Attempted { deployment, link: 0, status: 200, error: None, started_us, took_us, waited_us: 0 }
}

/// R004-28: a usual request, with one attempt, is far below 300 bytes, and is written without growing.
#[test]
fn a_usual_record_is_small() {
    let group = group(1);
    let decision = decision(&group);
    let begun = begin(&asked(&ask(&group), &[]), &tags(), Ok(&decision));
    let capacity = begun.capacity();
    assert_eq!(capacity, USUAL_BYTES, "grown to {}", begun.len());
    let record = finish(begun, std::iter::once(attempt(decision.picks[0].deployment.id)));
    assert!(record.len() < 100, "{}", record.len());

    let group = super::tests::group(4);
    let decision = super::tests::decision(&group);
    let seen = decision.picks.iter().map(|pick| {
        let (ttft_us, per_token_us, in_flight) = (300_000, 9_000, 12);
        let health =
            Health { ttft_us, per_token_us, in_flight, rpm_used: 240, tpm_used: 90_000, ..Health::QUIET };
        Seen { deployment: pick.deployment.id, health: health.pack() }
    });
    let decision = Decision { seen: seen.collect(), ..decision.clone() };
    let begun = begin(&asked(&ask(&group), &[]), &tags(), Ok(&decision));
    let two = [attempt(decision.picks[0].deployment.id), attempt(decision.picks[1].deployment.id)];
    let record = finish(begun, two.into_iter());
    assert!(record.len() < 300, "{}", record.len());
}

/// Everything that is too much is bounded, and what is left out is said.
#[test]
fn a_record_is_bounded_and_says_when_it_is_cut() {
    let group = group(1);
    let names: Vec<String> = (0..100).map(|n| format!("{n:03}{}", "t".repeat(1000))).collect();
    let tags = TagNames::new(names.iter().map(String::as_str)).unwrap();
    let missing = tags.set(names.iter().map(String::as_str)).unwrap();
    let deployment = group.links[0].members[0].deployment.clone();
    let elimination =
        Elimination { deployment: deployment.clone(), link: 0, reason: Reason::TagsMissing(missing) };
    let eliminated = std::iter::repeat_n(elimination, 3).collect();
    let decision = Decision { eliminated, picks: SmallVec::new(), ..decision(&group) };
    let none = NoCandidate { why: Why::Tags, decision };
    let record = finish(begin(&asked(&ask(&group), &[]), &tags, Err(&none)), std::iter::empty());
    assert!(record.len() < MAX_BYTES, "{}", record.len());
    let record = Record::decode(&record).unwrap();
    assert!(record.cut);
    assert_eq!((record.eliminated.len(), record.eliminated_more), (0, 3));

    let decision = super::tests::decision(&group);
    let endless = std::iter::repeat_n(attempt(deployment.id), 100_000);
    let record = finish(begin(&asked(&ask(&group), &[]), &tags, Ok(&decision)), endless);
    assert!(record.len() < 3 * MAX_BYTES);
    assert!(Record::decode(&record).unwrap().cut);
}

#[test]
fn a_request_that_was_never_routed_has_no_record() {
    assert!(finish(Vec::new(), std::iter::empty()).is_empty());
}

#[test]
fn every_length_of_a_varint_is_known() {
    for bits in 0..64 {
        for value in [1_u64 << bits, (1 << bits) - 1, u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len() as u64, varint_len(value), "{value}");
        }
    }
}

fn preferences() -> impl proptest::strategy::Strategy<Value = Preferences> {
    let list = || proptest::collection::vec("[a-z]{1,8}", 0..4);
    let price = || proptest::option::of(0..i64::MAX);
    let prices = (price(), price(), price(), price());
    let flags = (proptest::option::of(any::<bool>()), any::<bool>(), 0..4_usize);
    (list(), list(), list(), flags, prices).prop_map(|(order, only, ignore, flags, prices)| {
        let boxed = |names: Vec<String>| names.into_iter().map(Into::into).collect();
        let price = |nanos: Option<i64>| nanos.map(NanosPerMillion);
        Preferences {
            order: boxed(order),
            only: boxed(only),
            ignore: boxed(ignore),
            allow_fallbacks: flags.0,
            sort: Sort::ALL.get(flags.2).copied(),
            require_parameters: flags.1,
            max_price: MaxPrice {
                prompt: price(prices.0),
                completion: price(prices.1),
                request: price(prices.2),
                image: price(prices.3),
            },
        }
    })
}

fn reasons() -> impl proptest::strategy::Strategy<Value = Reason> {
    let ceiling = || (0..Ceiling::ALL.len()).prop_map(|at| Ceiling::ALL[at]);
    prop_oneof![
        Just(Reason::Disabled),
        Just(Reason::EndpointNotServed),
        Just(Reason::Excluded),
        (1..8_u128).prop_map(|bits| Reason::TagsMissing(TagSet(bits))),
        any::<(u64, u64)>().prop_map(|(needed, window)| Reason::ContextTooSmall { needed, window }),
        ceiling().prop_map(Reason::TooExpensive),
        ceiling().prop_map(Reason::PriceUnknown),
        (any::<u32>(), 0..Cause::ALL.len())
            .prop_map(|(remaining_ms, at)| Reason::Cooling { remaining_ms, cause: Cause::ALL[at] }),
    ]
}

fn whys() -> impl proptest::strategy::Strategy<Value = Why> {
    prop_oneof![
        Just(Why::Off),
        Just(Why::Endpoint),
        Just(Why::Tags),
        Just(Why::Excluded),
        any::<(u64, u64)>().prop_map(|(needed, largest)| Why::Context { needed, largest }),
        (0..Ceiling::ALL.len()).prop_map(|at| Why::TooExpensive(Ceiling::ALL[at])),
        any::<u32>().prop_map(|soonest_ms| Why::Cooling { soonest_ms }),
    ]
}

/// All that a record can hold, as indices and numbers.
#[derive(Clone, Debug)]
struct Case {
    size: usize,
    why: Option<Why>,
    eliminated: Vec<(usize, u8, Reason)>,
    seen: Vec<(usize, u64)>,
    preferences: Option<Preferences>,
    tags: u128,
    tokens: (u64, Option<u64>),
    max_cost: Option<i64>,
    strategies: (usize, usize),
    flags: (bool, bool, bool, bool),
    chain: Vec<String>,
    chain_kind: u8,
    seed: u64,
    more: u32,
    attempts: usize,
}

fn cases() -> impl proptest::strategy::Strategy<Value = Case> {
    let of = (1..=16_usize, proptest::option::of(whys()), any::<u64>(), any::<u32>(), 0..5_usize);
    let lists = (
        proptest::collection::vec((0..16_usize, any::<u8>(), reasons()), 0..32),
        proptest::collection::vec((0..16_usize, any::<u64>()), 0..32),
        proptest::collection::vec("[a-z/.-]{1,30}", 0..4),
    );
    let ask = (
        proptest::option::of(preferences()),
        0..8_u128,
        any::<(u64, Option<u64>)>(),
        proptest::option::of(1..i64::MAX),
        (0..Strategy::ALL.len(), 0..Strategy::ALL.len()),
        any::<(bool, bool, bool, bool)>(),
        0..3_u8,
    );
    (of, lists, ask).prop_map(|(of, lists, ask)| {
        let (size, why, seed, more, attempts) = of;
        let (eliminated, seen, chain) = lists;
        let (preferences, tags, tokens, max_cost, strategies, flags, chain_kind) = ask;
        Case {
            size,
            why,
            eliminated,
            seen,
            preferences,
            tags,
            tokens,
            max_cost,
            strategies,
            flags,
            chain,
            chain_kind,
            seed,
            more,
            attempts,
        }
    })
}

/// What a case decides among the members of the group.
fn decided(case: &Case, group: &ModelGroup) -> Decision {
    let member = |at: usize| group.links[0].members[at % case.size].deployment.clone();
    let mut decision = decision(group);
    decision.strategy = Strategy::ALL[case.strategies.0];
    decision.seed = case.seed;
    decision.eliminated_more = case.more;
    decision.rest_cooling = case.flags.3;
    let eliminated = case.eliminated.iter();
    decision.eliminated = eliminated
        .map(|(at, link, reason)| Elimination { deployment: member(*at), link: *link, reason: *reason })
        .collect();
    let seen = case
        .seen
        .iter()
        .map(|(at, bits)| Seen { deployment: member(*at).id, health: Packed(*bits).unpack().pack() });
    decision.seen = seen.collect();
    if case.why.is_some() {
        decision.picks.clear();
    }
    decision
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is written by hand is the message of the contract, and nothing is lost on the way.
    #[test]
    fn what_is_recorded_is_read_again(case in cases()) {
        let group = group(case.size);
        let decision = decided(&case, &group);
        let (tags, groups) = (tags(), vec![group.clone()]);
        let links = match case.chain_kind {
            0 => Chain::Group(&group),
            1 => Chain::Models(&groups),
            _ => Chain::Instead { primary: &group, fallbacks: &groups },
        };
        let ask = Ask {
            links,
            strategy: Strategy::ALL[case.strategies.1],
            tags: TagSet(case.tags),
            implied: TagSet(case.tags >> 1),
            least_input_tokens: case.tokens.0 / 2,
            input_tokens: case.tokens.0,
            output_tokens: case.tokens.1,
            fallbacks: case.flags.0,
            preferences: case.preferences.as_ref(),
            max_cost: case.max_cost.map(Nanos),
            ..ask(&group)
        };
        let chain: Vec<Box<str>> = case.chain.iter().map(|name| name.as_str().into()).collect();
        let asked = Asked {
            ask: &ask, model: "gpt-5.2", chain: &chain,
            strategy_asked: case.flags.1, max_cost_asked: case.flags.2,
        };
        let none = case.why.map(|why| NoCandidate { why, decision: decision.clone() });
        let begun = begin(&asked, &tags, none.as_ref().map_or(Ok(&decision), Err));
        let attempts = decision.picks.iter().take(case.attempts).map(|pick| attempt(pick.deployment.id));
        let bytes = finish(begun, attempts);

        // Field by field what the contract's own code makes of it, unknown fields none.
        let message = nemo_proto::usage::Decision::decode(&*bytes).unwrap();
        prop_assert_eq!(message.attempts.len(), case.attempts.min(decision.picks.len()));
        for (at, attempt) in (0..).zip(&message.attempts) {
            prop_assert_eq!((attempt.deployment, attempt.status), (at, 200));
        }
        let again = message.encode_to_vec();
        prop_assert_eq!(&nemo_proto::usage::Decision::decode(&*again).unwrap(), &message);
        // Table and seed are written also when they are empty and zero: the one has a fixed place, the other is never so.
        let table = if message.deployments.is_empty() { 2 } else { 0 };
        let seed = if message.seed == 0 { 9 } else { 0 };
        prop_assert_eq!(again.len() + table + seed, bytes.len());

        let record = Record::decode(&bytes).unwrap();
        prop_assert_eq!((record.strategy, record.asked_strategy), (decision.strategy, ask.strategy));
        prop_assert_eq!(record.seed, case.seed);
        prop_assert_eq!(&record.names[1..], &case.chain[..]);
        prop_assert_eq!(record.chain as u8, case.chain_kind);
        let names: Vec<_> = tags.names(TagSet(case.tags)).collect();
        prop_assert_eq!(&record.tags, &names);
        let implied: Vec<_> = tags.names(TagSet(case.tags >> 1)).collect();
        prop_assert_eq!(&record.implied, &implied);
        prop_assert_eq!((record.input_tokens, record.output_tokens), case.tokens);
        prop_assert_eq!(record.least_input_tokens, case.tokens.0 / 2);
        prop_assert_eq!((record.fallbacks, record.strategy_asked, record.max_cost_asked, record.rest_cooling), case.flags);
        prop_assert_eq!(&record.preferences, &case.preferences);
        prop_assert_eq!(record.max_cost, case.max_cost.map(Nanos));
        prop_assert_eq!(record.why, case.why);
        let picks: Vec<_> = decision.picks.iter().map(|pick| (pick.deployment.id, pick.link)).collect();
        prop_assert_eq!(&record.picks, &picks);
        prop_assert_eq!(record.eliminated_more, case.more);
        prop_assert_eq!(&record.seen[..], &decision.seen[..]);
        let outcome = none.map_or(Ok(decision), |none| Err(Box::new(none)));
        prop_assert_eq!(crate::routing::replay::difference(&record, &outcome), None);
    }

    #[test]
    fn bytes_from_anywhere_are_refused_or_read_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::decode(&bytes);
    }

    /// A record that lost or changed something is not taken for another decision without notice: either it is refused,
    /// or what changed is not part of the decision.
    #[test]
    fn a_record_that_was_cut_short_in_its_table_is_refused(keep in 4..60_usize) {
        let group = group(4);
        let decision = decision(&group);
        let bytes = finish(begin(&asked(&ask(&group), &[]), &tags(), Ok(&decision)), std::iter::empty());
        prop_assert!(Record::decode(&bytes[..keep]).is_err());
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    let bytes = nemo_proto::usage::Decision { version: 9, ..Default::default() }.encode_to_vec();
    assert_eq!(Record::decode(&bytes), Err(RecordError::Version(9)));
    assert_eq!(Record::decode(&[]), Err(RecordError::Version(0)));
}
