//! Who is a candidate, who is not, and what a request is told when nobody is.

use std::sync::Arc;

use nemo_llm::{
    Endpoint, Preferences,
    preferences::{MaxPrice, Sort},
};
use nemo_snapshot::{Strategy, TagSet};
use nemo_types::{Nanos, NanosPerMillion};

use super::fixture::{Fixture, group, health, model, price, slots};
use crate::routing::{Ask, Cause, Ceiling, Chain, Gate, Health, Quiet, Reason, Why};

const VISION: TagSet = TagSet(1);
const LONG: TagSet = TagSet(2);

fn cooling(remaining_ms: u32) -> Health {
    Health { gate: Gate::Cooling { remaining_ms, cause: Cause::RateLimited }, ..Health::QUIET }
}

fn preferences(edit: impl FnOnce(&mut Preferences)) -> Preferences {
    let mut preferences = Preferences::default();
    edit(&mut preferences);
    preferences
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

/// R004-19, R004-22, C26: all tags, in every link; a link that lacks one is skipped and never the last resort.
#[test]
fn a_link_without_the_tags_is_skipped_and_never_used() {
    let fixture = Fixture::new(&[1, 1, 1], |slot, deployment, _| {
        model(deployment).tag_set = [VISION, VISION.union(LONG), LONG][slot];
    });
    let ask = Ask { tags: VISION.union(LONG), ..fixture.ask(Strategy::SimpleShuffle) };
    let decision = fixture.decide(&ask, &Quiet, 1).unwrap();
    assert_eq!((slots(&decision), decision.picks[0].link), (vec![1], 1));
    let reasons: Vec<_> = decision.eliminated.iter().map(|it| (it.link, it.reason)).collect();
    assert_eq!(reasons, [(0, Reason::TagsMissing(LONG)), (2, Reason::TagsMissing(VISION))]);
    // The one that fits is down: an error, not a model that can't see.
    let none = fixture.decide(&ask, &health(vec![(1, cooling(4_000))]), 1).unwrap_err();
    assert!(none.decision.picks.is_empty());
    assert!(matches!(none.why, Why::Cooling { soonest_ms: 4_000..=4_500 }), "{:?}", none.why);
}

#[test]
fn tags_of_the_group_are_required_too_and_only_there() {
    let fixture = Fixture::new(&[2], |slot, deployment, _| {
        model(deployment).tag_set = [VISION, LONG][slot];
    });
    let picky =
        Arc::new(nemo_snapshot::ModelGroup { required_tags: LONG, ..group(fixture.group.links.clone()) });
    let chain = [picky, fixture.group.clone()];
    let ask = Ask { links: Chain::Models(&chain), ..fixture.ask(Strategy::SimpleShuffle) };
    let decision = fixture.decide(&ask, &Quiet, 3).unwrap();
    assert_eq!((slots(&decision)[0], decision.picks[0].link), (1, 0));
    assert_eq!((slots(&decision)[1], decision.picks[1].link), (0, 1), "the second group does not ask for it");
}

/// B9: what the request implies is asked of models that somebody described.
#[test]
fn implied_tags_are_not_asked_of_a_model_without_any() {
    let fixture = Fixture::new(&[2], |slot, deployment, _| {
        model(deployment).tag_set = [LONG, TagSet::EMPTY][slot];
    });
    let ask = Ask { implied: VISION, ..fixture.ask(Strategy::SimpleShuffle) };
    assert_eq!(slots(&fixture.decide(&ask, &Quiet, 1).unwrap()), [1]);
    let ask = Ask { tags: VISION, implied: TagSet::EMPTY, ..ask };
    assert_eq!(fixture.decide(&ask, &Quiet, 1).unwrap_err().why, Why::Tags);
}

#[test]
fn a_window_that_is_too_small_is_skipped_and_an_unknown_one_is_tried() {
    let fixture = Fixture::new(&[1, 1, 1], |slot, deployment, _| {
        model(deployment).context_window = [8_000, 0, 128_000][slot];
    });
    let ask = |tokens| Ask { least_input_tokens: tokens, ..fixture.ask(Strategy::SimpleShuffle) };
    assert_eq!(slots(&fixture.decide(&ask(8_000), &Quiet, 1).unwrap()), [0, 1, 2]);
    let decision = fixture.decide(&ask(8_001), &Quiet, 1).unwrap();
    assert_eq!(slots(&decision), [1, 2]);
    assert_eq!(decision.eliminated[0].reason, Reason::ContextTooSmall { needed: 8_001, window: 8_000 });
    let known = Fixture::new(&[2], |slot, deployment, _| {
        model(deployment).context_window = [8_000, 32_000][slot];
    });
    let ask = Ask { links: Chain::Group(&known.group), ..ask(40_000) };
    let none = known.decide(&ask, &Quiet, 1).unwrap_err();
    assert_eq!(none.why, Why::Context { needed: 40_000, largest: 32_000 });
}

#[test]
fn endpoints_are_those_of_model_and_provider() {
    let fixture = Fixture::new(&[3], |slot, deployment, _| match slot {
        0 => model(deployment).endpoints = vec!["chat.completions".into()],
        1 => model(deployment).endpoints = vec!["embeddings".into()],
        _ => deployment.provider = "nobody-knows-it".into(),
    });
    let ask = Ask { endpoint: Endpoint::Embeddings, ..fixture.ask(Strategy::LeastBusy) };
    let mut served = slots(&fixture.decide(&ask, &Quiet, 1).unwrap());
    served.sort_unstable();
    assert_eq!(served, [1, 2], "a provider that is not in the table is tried with everything");
    let only = Fixture::new(&[1], |_, deployment, _| model(deployment).endpoints = vec!["embeddings".into()]);
    let none = only.decide(&only.ask(Strategy::SimpleShuffle), &Quiet, 1).unwrap_err();
    assert_eq!(none.why, Why::Endpoint);
}

#[test]
fn what_is_switched_off_is_nobodys_fault_but_ours() {
    let off = Fixture::new(&[2], |slot, deployment, weight| match slot {
        0 => deployment.disabled = true,
        _ => *weight = 0,
    });
    let none = off.decide(&off.ask(Strategy::Weighted), &Quiet, 1).unwrap_err();
    assert_eq!(none.why, Why::Off);
    assert!(none.decision.eliminated.iter().all(|it| it.reason == Reason::Disabled));
    let empty = Fixture::new(&[], |_, _, _| ());
    assert_eq!(empty.decide(&empty.ask(Strategy::Weighted), &Quiet, 1).unwrap_err().why, Why::Off);
}

#[test]
fn when_all_that_fit_are_cooling_the_soonest_is_told() {
    let fixture = Fixture::new(&[2, 1], |slot, deployment, _| {
        model(deployment).tag_set = [VISION, VISION, LONG][slot];
    });
    let ask = Ask { tags: VISION, ..fixture.ask(Strategy::SimpleShuffle) };
    let none = fixture.decide(&ask, &health(vec![(0, cooling(9_000)), (1, cooling(16))]), 1).unwrap_err();
    assert_eq!(none.why, Why::Cooling { soonest_ms: 16 });
    assert_eq!(none.decision.eliminated.len(), 3);
    assert_eq!(none.decision.seen.len(), 2);
}

#[test]
fn a_cooling_pool_is_passed_over_and_a_probe_comes_first_at_most_once() {
    let fixture = Fixture::new(&[4, 1], |_, _, _| ());
    let probe = Health { gate: Gate::Probe, ..Health::QUIET };
    let view = health(vec![(0, probe), (1, probe), (2, cooling(5_000))]);
    let ask = fixture.ask(Strategy::SimpleShuffle);
    let mut first = [0; 5];
    for seed in 0..3_000 {
        let picks = slots(&fixture.decide(&ask, &view, seed).unwrap());
        assert!(picks.len() == 4 && !picks.contains(&2) && picks[3] == 4, "{picks:?}");
        assert!(picks[0] == 3 || picks[1] == 3, "two probes before a healthy one: {picks:?}");
        first[picks[0]] += 1;
    }
    assert!(first[0] > 900 && first[1] > 900 && first[3] > 900, "each gets its share: {first:?}");
}

/// B12, E.6.
#[test]
fn preferences_choose_among_providers() {
    let providers = ["openai", "groq", "mistral", "together"];
    let fixture = Fixture::new(&[4], |slot, deployment, _| deployment.provider = providers[slot].into());
    let decided = |edit: fn(&mut Preferences), seed| {
        let preferences = preferences(edit);
        let ask = Ask { preferences: Some(&preferences), ..fixture.ask(Strategy::SimpleShuffle) };
        fixture.decide(&ask, &Quiet, seed).map(|it| slots(&it)).map_err(|none| none.why)
    };
    for seed in 0..100 {
        let picks = decided(|it| it.order = names(&["Mistral", "groq/fast"]), seed).unwrap();
        assert_eq!((&picks[..2], picks.len()), (&[2, 1][..], 4));
        assert_eq!(
            decided(|it| (it.order, it.allow_fallbacks) = (names(&["mistral", "groq"]), Some(false)), seed),
            Ok(vec![2, 1])
        );
        assert_eq!(decided(|it| it.only = names(&["groq"]), seed), Ok(vec![1]));
        let picks = decided(|it| it.ignore = names(&["groq", "d0"]), seed).unwrap();
        assert!(picks.len() == 2 && !picks.contains(&1) && !picks.contains(&0), "{picks:?}");
        assert_eq!(decided(|it| it.only = names(&["cohere"]), seed), Err(Why::Excluded));
    }
}

/// `openai/gpt-5.2` puts OpenAI's deployments first, unless the request names providers itself.
#[test]
fn the_links_of_a_catalog_model_are_one_pool_for_a_request_with_preferences() {
    let mut fixture = Fixture::new(&[1, 2], |slot, deployment, _| {
        deployment.provider = ["openai", "groq", "mistral"][slot].into();
    });
    let described = fixture.deployments[0].model.clone();
    Arc::get_mut(&mut fixture.group).unwrap().model = Some(described);
    let plain = fixture.decide(&fixture.ask(Strategy::SimpleShuffle), &Quiet, 5).unwrap();
    assert_eq!((slots(&plain)[0], plain.picks[1].link), (0, 1));
    let ordered = preferences(|it| it.order = names(&["mistral"]));
    let ask = Ask { preferences: Some(&ordered), fallbacks: false, ..fixture.ask(Strategy::SimpleShuffle) };
    assert_eq!(slots(&fixture.decide(&ask, &Quiet, 5).unwrap())[0], 2);
    let sorted = preferences(|it| it.sort = Some(Sort::Latency));
    let fast = Health { ttft_us: 1_000, ..Health::QUIET };
    let slow = Health { ttft_us: 900_000, ..Health::QUIET };
    let ask = Ask { preferences: Some(&sorted), ..ask };
    let view = health(vec![(0, slow), (1, fast), (2, slow)]);
    let firsts = fixture.firsts(&ask, &view, 1_000);
    assert!(firsts[1] > 950, "{firsts:?}");
}

#[test]
fn without_fallbacks_there_is_the_first_link_alone() {
    let fixture = Fixture::new(&[2, 3], |_, _, _| ());
    let ask = Ask { fallbacks: false, ..fixture.ask(Strategy::SimpleShuffle) };
    assert_eq!(fixture.decide(&ask, &Quiet, 1).unwrap().picks.len(), 2);
    let view = health(vec![(0, cooling(1_000)), (1, cooling(1_000))]);
    assert!(matches!(fixture.decide(&ask, &view, 1).unwrap_err().why, Why::Cooling { .. }));
}

#[test]
fn chains_of_the_request_go_group_after_group() {
    let fixture = Fixture::new(&[1, 1], |_, _, _| ());
    let link = |at: usize| fixture.group.links[at].clone();
    let (one, other) = (Arc::new(group(vec![link(1)])), fixture.group.clone());
    let ask = |links| Ask { links, ..fixture.ask(Strategy::SimpleShuffle) };
    let chain = [one.clone(), other.clone()];
    // Nobody is tried twice.
    let decision = fixture.decide(&ask(Chain::Models(&chain)), &Quiet, 1).unwrap();
    assert_eq!(slots(&decision), [1, 0]);
    // The group's own fallback (slot 1) gives way to the request's.
    let own = Arc::new(group(vec![link(0), link(1)]));
    let decision = fixture.decide(&ask(Chain::Instead { primary: &own, fallbacks: &[] }), &Quiet, 1).unwrap();
    assert_eq!(slots(&decision), [0]);
    let chain = [one];
    let decision =
        fixture.decide(&ask(Chain::Instead { primary: &own, fallbacks: &chain }), &Quiet, 1).unwrap();
    assert_eq!((slots(&decision), decision.picks[1].link), (vec![0, 1], 1));
    assert_eq!(fixture.decide(&ask(Chain::Models(&[])), &Quiet, 1).unwrap_err().why, Why::Off);
}

#[test]
fn ceilings_of_price_and_cost_leave_out_what_is_above_or_unknown() {
    let fixture = Fixture::new(&[3], |slot, deployment, _| {
        deployment.price = [price(1, 2), price(10, 30), None][slot].clone();
    });
    let dollars = |dollars: i64| Some(NanosPerMillion(dollars * 1_000_000_000));
    let reasons = |ask: &Ask<'_>| {
        let decision = fixture.decide(ask, &Quiet, 1).unwrap();
        assert_eq!(slots(&decision), [0]);
        let mut reasons: Vec<_> = decision.eliminated.iter().map(|it| it.reason).collect();
        reasons.sort_by_key(|reason| matches!(reason, Reason::PriceUnknown(_)));
        reasons
    };
    let both = |ceiling| vec![Reason::TooExpensive(ceiling), Reason::PriceUnknown(ceiling)];
    let capped = preferences(|it| it.max_price = MaxPrice { completion: dollars(29), ..MaxPrice::default() });
    let ask = Ask { preferences: Some(&capped), ..fixture.ask(Strategy::CostBased) };
    assert_eq!(reasons(&ask), both(Ceiling::Completion));
    let capped = preferences(|it| it.max_price = MaxPrice { prompt: dollars(1), ..MaxPrice::default() });
    let ask = Ask { preferences: Some(&capped), ..ask };
    assert_eq!(reasons(&ask), both(Ceiling::Prompt));
    // 100 tokens in and 1000 out: 2.1 thousandths of a dollar, or 31.
    let ask = Ask {
        preferences: None,
        max_cost: Some(Nanos(2_100_000)),
        output_tokens: Some(1_000),
        ..fixture.ask(Strategy::CostBased)
    };
    assert_eq!(reasons(&ask), both(Ceiling::Cost));
    let ask = Ask { max_cost: Some(Nanos(2_099_999)), ..ask };
    assert_eq!(fixture.decide(&ask, &Quiet, 1).unwrap_err().why, Why::TooExpensive(Ceiling::Cost));
}
