//! What holds for every decision, whatever configuration, request, health and seed.

use std::{cell::RefCell, collections::HashSet, num::NonZeroU32, sync::Arc};

use nemo_llm::{Endpoint, Preferences};
use nemo_snapshot::{Deployment, Strategy, TagSet};
use nemo_types::Nanos;
use proptest::prelude::*;

use super::fixture::{Fixture, group, model, price};
use crate::routing::{
    Ask, Cause, Chain, Decision, Gate, Health, HealthView, NoCandidate, Reason, Why, draw::Draw,
};

/// Numbers as a node has them: unsteady, and different at every look.
struct Live {
    draw: RefCell<Draw>,
    /// Of 100 looks, so many find a deployment cooling.
    cooling: u64,
}

impl Live {
    fn new(seed: u64, cooling: u64) -> Self {
        Self { draw: RefCell::new(Draw::new(seed, 1)), cooling }
    }
}

impl HealthView for Live {
    fn of(&self, _: &Deployment) -> Health {
        let mut draw = self.draw.borrow_mut();
        if draw.below(4) == 0 {
            return Health::QUIET;
        }
        let mut number = |bits: u64| u32::try_from(draw.below(1 << bits)).unwrap();
        let mut health = Health {
            gate: Gate::Ready,
            in_flight: number(6),
            ttft_us: number(24),
            per_token_us: number(18),
            rpm_used: number(10),
            tpm_used: number(20),
            success_permille: u16::try_from(number(10).min(1000)).unwrap(),
        };
        let remaining_ms = number(16);
        if draw.below(100) < self.cooling {
            let cause = Cause::ALL[draw.index(Cause::ALL.len())];
            health.gate = Gate::Cooling { remaining_ms, cause };
        } else if draw.below(8) == 0 {
            health.gate = Gate::Probe;
        }
        health
    }
}

fn fixture(links: &[usize], seed: u64) -> Fixture {
    Fixture::new(links, |slot, deployment, weight| {
        let mut draw = Draw::new(seed, u8::try_from(slot % 256).unwrap());
        let mut one_in = |of: u64| draw.below(of) == 0;
        deployment.disabled = one_in(20);
        *weight = u32::from(!one_in(20)) * (1 + u32::from(one_in(3)) * 9);
        deployment.price = if one_in(4) { None } else { price(1 + i64::from(one_in(2)), 5) };
        deployment.rpm = NonZeroU32::new(if one_in(2) { 600 } else { 0 });
        deployment.provider = if one_in(3) { "groq" } else { "openai" }.into();
        let unserved = one_in(6);
        let window = [0, 64, 4_096][usize::from(one_in(2)) + usize::from(one_in(2))];
        let tags = TagSet(u128::from(!one_in(6)) | u128::from(!one_in(3)) << 1);
        let model = model(deployment);
        model.endpoints = if unserved { vec!["embeddings".into()] } else { Vec::new() };
        model.context_window = window;
        model.tag_set = tags;
    })
}

/// Independent of the code under test, and slower.
fn fits(deployment: &Deployment, weight: u32, ask: &Ask<'_>) -> bool {
    let served = deployment.model.endpoints.is_empty();
    let window = deployment.model.context_window;
    let implied = if deployment.model.tag_set.is_empty() { 0 } else { ask.implied.0 };
    let wanted = ask.preferences.is_none_or(|it| it.only.is_empty() || &*deployment.provider == "groq");
    let affordable = ask.max_cost.is_none_or(|most| {
        deployment.price.as_ref().is_some_and(|price| {
            let input = i128::from(ask.input_tokens) * i128::from(price.input.unwrap().0);
            let output = i128::from(ask.output_tokens.unwrap_or(0)) * i128::from(price.output.unwrap().0);
            (input + output + 999_999) / 1_000_000 <= i128::from(most.0)
        })
    });
    !deployment.disabled
        && weight > 0
        && served
        && (ask.tags.0 | implied) & !deployment.model.tag_set.0 == 0
        && (window == 0 || ask.least_input_tokens <= window)
        && wanted
        && affordable
}

type Outcome = Result<Decision, Box<NoCandidate>>;

fn inner(outcome: &Outcome) -> &Decision {
    match outcome {
        Ok(decision) => decision,
        Err(none) => &none.decision,
    }
}

fn check(fixture: &Fixture, ask: &Ask<'_>, outcome: &Outcome) -> Result<(), TestCaseError> {
    let decision = inner(outcome);
    prop_assert!(decision.picks.len() <= Decision::MAX_PICKS);
    prop_assert!(decision.eliminated.len() <= Decision::MAX_ELIMINATED);
    prop_assert!(decision.seen.len() <= 64 + 32 + 15 * 16, "{}", decision.seen.len());
    prop_assert!(decision.picks.windows(2).all(|pair| pair[0].link <= pair[1].link));
    let mut once = HashSet::new();
    let view = decision.recorded();
    for pick in &decision.picks {
        prop_assert!(once.insert(pick.deployment.id), "picked twice");
        let link = &fixture.group.links[usize::from(pick.link)];
        let member = link.members.iter().find(|it| it.deployment.id == pick.deployment.id).unwrap();
        prop_assert!(fits(&pick.deployment, member.weight, ask), "{:?} for {ask:?}", pick.deployment);
        let gate = view.of(&pick.deployment).gate;
        prop_assert!(!matches!(gate, Gate::Cooling { .. }), "{gate:?}");
    }
    // Whoever is eliminated for another reason than its health does not fit.
    for it in &decision.eliminated {
        let link = &fixture.group.links[usize::from(it.link)];
        let member = link.members.iter().find(|member| member.deployment.id == it.deployment.id).unwrap();
        let cooling = matches!(it.reason, Reason::Cooling { .. });
        prop_assert_eq!(fits(&it.deployment, member.weight, ask), cooling, "{:?}", it.reason);
    }
    if let Err(none) = outcome {
        let members = || fixture.group.links.iter().flat_map(|link| &link.members);
        let any = members().any(|it| fits(&it.deployment, it.weight, ask));
        prop_assert_eq!(
            matches!(none.why, Why::Cooling { .. }),
            any && ask.fallbacks || any_first(fixture, ask)
        );
        let looked_at = decision.eliminated.len() + decision.eliminated_more as usize;
        let all = if ask.fallbacks {
            members().count()
        } else {
            fixture.group.links.first().map_or(0, |it| it.members.len())
        };
        prop_assert_eq!(looked_at, all, "refused without having looked at all");
    }
    Ok(())
}

fn any_first(fixture: &Fixture, ask: &Ask<'_>) -> bool {
    let first = fixture.group.links.first();
    first.is_some_and(|link| link.members.iter().any(|it| fits(&it.deployment, it.weight, ask)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// R004-12: a decision from the record is the decision that was made, though the health was another at every look.
    #[test]
    fn a_replay_gives_the_same_decision_and_nobody_unfit_is_picked(
        links in proptest::collection::vec(prop_oneof![8 => 1_usize..12, 1 => 30_usize..160], 0..5),
        strategy in 0..Strategy::ALL.len(),
        (content, health, seed) in any::<(u64, u64, u64)>(),
        (tags, implied) in (0_u128..4, 0_u128..4),
        (fallbacks, only, capped) in any::<(bool, bool, bool)>(),
        cooling in prop_oneof![Just(0_u64), Just(30), Just(95), Just(100)],
        output_tokens in proptest::option::of(0_u64..2_000),
    ) {
        let fixture = fixture(&links, content);
        let preferences = Preferences { only: vec!["groq".into()], ..Preferences::default() };
        let ask = Ask {
            tags: TagSet(tags),
            implied: TagSet(implied),
            fallbacks,
            output_tokens,
            least_input_tokens: content % 128,
            preferences: only.then_some(&preferences),
            max_cost: capped.then_some(Nanos(5_000_000)),
            ..fixture.ask(Strategy::ALL[strategy])
        };
        let made = fixture.decide(&ask, &Live::new(health, cooling), seed);
        check(&fixture, &ask, &made)?;
        let replayed = fixture.decide(&ask, &inner(&made).recorded(), seed);
        prop_assert_eq!(&made, &replayed);
        // From the replay's own record once more, and with other numbers where nothing was recorded.
        prop_assert_eq!(&made, &fixture.decide(&ask, &inner(&replayed).recorded(), seed));
    }

    #[test]
    fn the_same_inputs_give_the_same_decision(
        strategy in 0..Strategy::ALL.len(), size in 1_usize..100, (content, seed) in any::<(u64, u64)>(),
    ) {
        let fixture = fixture(&[size, 3], content);
        let ask = fixture.ask(Strategy::ALL[strategy]);
        let decided = || fixture.decide(&ask, &Live::new(content, 20), seed);
        prop_assert_eq!(decided(), decided());
    }

    /// Groups of a chain may share deployments: each is looked at once, and tried once.
    #[test]
    fn chains_that_overlap_replay_too(
        size in 2_usize..40, (content, health, seed) in any::<(u64, u64, u64)>(), cooling in 0_u64..100,
    ) {
        let fixture = fixture(&[size, 4, 2], content);
        let links = &fixture.group.links;
        let chain = [
            Arc::new(group(vec![links[1].clone(), links[0].clone()])),
            Arc::new(group(vec![links[0].clone(), links[2].clone(), links[1].clone()])),
        ];
        for links in [Chain::Models(&chain), Chain::Instead { primary: &fixture.group, fallbacks: &chain }] {
            let ask = Ask { links, endpoint: Endpoint::ChatCompletions, ..fixture.ask(Strategy::Balanced) };
            let made = fixture.decide(&ask, &Live::new(health, cooling), seed);
            let decision = inner(&made);
            let once: HashSet<_> = decision.picks.iter().map(|pick| pick.deployment.id).collect();
            prop_assert_eq!(once.len(), decision.picks.len());
            prop_assert_eq!(&made, &fixture.decide(&ask, &decision.recorded(), seed));
        }
    }
}

/// Time and record stay bounded in a pool of thousands, and one healthy deployment among them is found.
#[test]
fn large_pools_are_sampled_and_the_last_healthy_one_is_found() {
    let fixture = Fixture::new(&[2_000, 500], |_, _, _| ());
    for strategy in Strategy::ALL {
        let ask = fixture.ask(strategy);
        let busy = |_: &Deployment| Health { in_flight: 3, ..Health::QUIET };
        let decision = fixture.decide(&ask, &busy, 9).unwrap();
        assert_eq!(decision.picks.len(), Decision::MAX_PICKS);
        assert!(decision.seen.len() <= 48, "{}", decision.seen.len());
        assert_eq!(decision.picks.last().unwrap().link, 1, "there is room for the next link");
        let one_left = |deployment: &Deployment| match deployment.slot {
            1_234 => Health::QUIET,
            _ => Health { gate: Gate::Cooling { remaining_ms: 700, cause: Cause::Server }, ..Health::QUIET },
        };
        let decision = fixture.decide(&ask, &one_left, 9).unwrap();
        assert_eq!(decision.picks.iter().map(|pick| pick.deployment.slot).collect::<Vec<_>>(), [1_234]);
        assert!(decision.rest_cooling && decision.seen.len() == 65, "{}", decision.seen.len());
        assert_eq!(fixture.decide(&ask, &decision.recorded(), 9).as_ref(), Ok(&decision));
        assert_eq!(decision.eliminated.len() + decision.eliminated_more as usize, 2_499);
    }
}
