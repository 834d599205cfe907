//! Each strategy picks as often as it says: chi-squared over fixed seeds. What a strategy does to a fleet over time is in
//! [`super::simulation`].

use std::num::NonZeroU32;

use nemo_llm::{Preferences, preferences::Sort};
use nemo_snapshot::Strategy;

use super::fixture::{Fixture, assert_shares, health, price, slots};
use crate::routing::{Ask, Health, Quiet};

const DRAWS: u64 = 10_000;

fn with(edit: impl FnOnce(&mut Health)) -> Health {
    let mut health = Health::QUIET;
    edit(&mut health);
    health
}

/// Whatever the strategy, every candidate of a small pool is somewhere in the order, and once.
#[test]
fn no_strategy_loses_or_doubles_a_candidate() {
    let fixture = Fixture::pool(&[1, 2, 3, 4, 5, 6, 7]);
    let view =
        health((0..7).zip(0..7).map(|(slot, busy)| (slot, with(|it| it.in_flight = 3 * busy))).collect());
    for strategy in Strategy::ALL {
        for seed in 0..200 {
            let decision = fixture.decide(&fixture.ask(strategy), &view, seed).unwrap();
            let mut picks = slots(&decision);
            picks.sort_unstable();
            assert_eq!((picks, decision.strategy), ((0..7).collect(), strategy));
        }
    }
}

/// R004-2: uniform, whatever the weights.
#[test]
fn simple_shuffle_is_uniform() {
    let fixture = Fixture::pool(&[1, 50, 1, 7]);
    let firsts = fixture.firsts(&fixture.ask(Strategy::SimpleShuffle), &Quiet, DRAWS);
    assert_shares(&firsts, &[1.0; 4]);
}

/// And so is what comes second, when the first one fails.
#[test]
fn simple_shuffle_spreads_the_load_of_a_failed_one_evenly() {
    let fixture = Fixture::pool(&[1; 4]);
    let ask = fixture.ask(Strategy::SimpleShuffle);
    let mut seconds = vec![0; 4];
    for seed in 0..DRAWS {
        let picks = slots(&fixture.decide(&ask, &Quiet, seed).unwrap());
        if picks[0] == 2 {
            seconds[picks[1]] += 1;
        }
    }
    assert_shares(&seconds, &[1.0, 1.0, 0.0, 1.0]);
}

#[test]
fn weighted_is_in_proportion_to_the_weights() {
    let fixture = Fixture::pool(&[5, 3, 1, 1]);
    let firsts = fixture.firsts(&fixture.ask(Strategy::Weighted), &Quiet, DRAWS);
    assert_shares(&firsts, &[5.0, 3.0, 1.0, 1.0]);
}

/// A pool that is drawn from, not looked at in whole: half of the weight still gets half of the requests.
#[test]
fn weighted_holds_in_large_pools() {
    let weights: Vec<u32> = (0..200).map(|slot| if slot == 7 { 199 } else { 1 }).collect();
    let fixture = Fixture::pool(&weights);
    let firsts = fixture.firsts(&fixture.ask(Strategy::Weighted), &Quiet, DRAWS);
    let rest = firsts.iter().sum::<u64>() - firsts[7];
    assert_shares(&[firsts[7], rest], &[1.0, 1.0]);
    assert!(firsts.iter().all(|count| *count > 5), "nobody is left out");
}

#[test]
fn simple_shuffle_is_uniform_over_large_pools() {
    let fixture = Fixture::pool(&[1; 200]);
    let firsts = fixture.firsts(&fixture.ask(Strategy::SimpleShuffle), &Quiet, 2 * DRAWS);
    // 199 degrees of freedom: 267 is the 0.1 % quantile.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let chi: f64 = firsts.iter().map(|count| (*count as f64 - 100.0).powi(2) / 100.0).sum();
    assert!(chi < 267.0, "{chi}");
}

/// B10, R004-3: of two drawn the idler one. With four it is first if it is drawn (1/2), the busiest never.
#[test]
fn least_busy_takes_the_idler_of_two() {
    let fixture = Fixture::pool(&[1; 4]);
    let busy = [4, 1, 3, 0].map(|in_flight| with(|it| it.in_flight = in_flight));
    let view = health(busy.into_iter().enumerate().collect());
    let firsts = fixture.firsts(&fixture.ask(Strategy::LeastBusy), &view, DRAWS);
    // Of the six pairs: {3, any} three, {1, 0} and {1, 2} two, {2, 0} one.
    assert_shares(&firsts, &[0.0, 2.0, 1.0, 3.0]);
    let idle = fixture.firsts(&fixture.ask(Strategy::LeastBusy), &Quiet, DRAWS);
    assert_shares(&idle, &[1.0; 4]);
}

/// R004-4: in proportion to what is left, in requests; tokens count where they are scarcer.
#[test]
fn usage_based_is_in_proportion_to_the_headroom() {
    let fixture = Fixture::new(&[4], |slot, deployment, _| {
        deployment.rpm = NonZeroU32::new([1024, 512, 1024, 64][slot]);
        // 512 requests of 100 + 28 tokens.
        deployment.tpm = (slot == 2).then_some(NonZeroU32::new(65_536).unwrap());
    });
    let view = health(vec![
        (0, with(|it| it.rpm_used = 256)),
        (1, with(|it| it.rpm_used = 256)),
        (2, with(|it| it.tpm_used = 16_384)),
        (3, with(|it| it.rpm_used = 64)),
    ]);
    let ask = Ask { output_tokens: Some(28), ..fixture.ask(Strategy::UsageBased) };
    // 768, 256 and 384 requests are left, and none.
    assert_shares(&fixture.firsts(&ask, &view, DRAWS), &[768.0, 256.0, 384.0, 0.0]);
    assert!(
        (0..100).all(|seed| slots(&fixture.decide(&ask, &view, seed).unwrap())[3] == 3),
        "last, not left out"
    );
}

#[test]
fn usage_based_takes_an_unknown_limit_for_an_average_one() {
    let fixture = Fixture::new(&[3], |slot, deployment, _| {
        deployment.rpm = [NonZeroU32::new(256), NonZeroU32::new(768), None][slot];
    });
    let view = health(vec![(2, with(|it| it.rpm_used = 128))]);
    let ask = fixture.ask(Strategy::UsageBased);
    assert_shares(&fixture.firsts(&ask, &view, DRAWS), &[256.0, 768.0, 512.0 - 128.0]);
    // Nobody advertises anything: twice the busiest's use, so who was used less gets more.
    let fixture = Fixture::pool(&[1; 3]);
    let view = health(vec![(0, with(|it| it.rpm_used = 128)), (1, with(|it| it.rpm_used = 64))]);
    let ask = fixture.ask(Strategy::UsageBased);
    assert_shares(&fixture.firsts(&ask, &view, DRAWS), &[128.0, 192.0, 256.0]);
    assert_shares(&fixture.firsts(&ask, &Quiet, DRAWS), &[1.0; 3]);
}

/// R004-5: 200 ms and 512 tokens at 2 ms are 1.2 s; that within an eighth shares the load, one in 32 goes anywhere.
#[test]
fn latency_based_takes_the_soonest_expected_answer() {
    let fixture = Fixture::pool(&[1; 4]);
    let timed = |ttft_ms: u32, per_token_us| {
        with(|it| (it.ttft_us, it.per_token_us) = (ttft_ms * 1_000, per_token_us))
    };
    let view = health(vec![
        (0, timed(200, 2_000)),
        (1, timed(1_200, 100)),
        (2, timed(50, 20_000)),
        (3, timed(4_000, 100)),
    ]);
    let ask = fixture.ask(Strategy::LatencyBased);
    let elsewhere = 1.0 / 32.0 / 4.0;
    let best = (1.0 - 1.0 / 32.0) / 2.0 + elsewhere;
    assert_shares(&fixture.firsts(&ask, &view, DRAWS), &[best, best, elsewhere, elsewhere]);
    // A short answer: the first token decides.
    let ask = Ask { output_tokens: Some(1), ..ask };
    let best = 1.0 - 1.0 / 32.0 + elsewhere;
    let firsts = fixture.firsts(&ask, &view, DRAWS);
    assert_shares(&firsts, &[elsewhere, elsewhere, best, elsewhere]);
    let expected = [2, 0, 1, 3];
    let in_order = (0..1_000).filter(|seed| slots(&fixture.decide(&ask, &view, *seed).unwrap()) == expected);
    assert!(in_order.count() > 950, "the others follow in order");
}

#[test]
fn latency_based_tries_what_it_does_not_know() {
    let fixture = Fixture::pool(&[1; 3]);
    let ask = fixture.ask(Strategy::LatencyBased);
    assert_shares(&fixture.firsts(&ask, &Quiet, DRAWS), &[1.0; 3]);
    let timed = |ttft_us| with(|it| (it.ttft_us, it.per_token_us) = (ttft_us, 1_000));
    let view = health(vec![(0, timed(100_000)), (1, timed(9_000_000))]);
    let anywhere = 3.0 / 4.0 / 32.0 / 3.0;
    let best = 3.0 / 4.0 * 31.0 / 32.0 + anywhere;
    assert_shares(&fixture.firsts(&ask, &view, DRAWS), &[best, anywhere, 0.25 + anywhere]);
}

/// R004-5: by this request's shape. Equal prices share, unknown ones come last.
#[test]
fn cost_based_takes_the_cheapest_for_this_request() {
    let fixture = Fixture::new(&[5], |slot, deployment, _| {
        deployment.price = [price(1, 30), price(3, 3), price(3, 3), None, price(50, 60)][slot].clone();
    });
    let ask = Ask { output_tokens: Some(400), ..fixture.ask(Strategy::CostBased) };
    assert_shares(&fixture.firsts(&ask, &Quiet, DRAWS), &[0.0, 1.0, 1.0, 0.0, 0.0]);
    for seed in 0..100 {
        assert_eq!(slots(&fixture.decide(&ask, &Quiet, seed).unwrap())[2..], [0, 4, 3]);
        // A long prompt with a short answer.
        let ask = Ask { input_tokens: 100_000, output_tokens: Some(10), ..ask };
        assert_eq!(slots(&fixture.decide(&ask, &Quiet, seed).unwrap())[0], 0);
    }
}

/// R003-11: alike ones share evenly; each of the four respects costs load, and nobody loses all of it.
#[test]
fn balanced_weighs_uptime_throughput_latency_and_price() {
    let alike = with(|it| (it.ttft_us, it.per_token_us) = (65_536, 4_096));
    let fixture = Fixture::new(&[3], |_, deployment, _| deployment.price = price(1, 4));
    let ask = fixture.ask(Strategy::Balanced);
    let firsts =
        |worse: Health| fixture.firsts(&ask, &health(vec![(0, alike), (1, worse), (2, alike)]), DRAWS);
    assert_shares(&firsts(alike), &[1.0; 3]);
    for (worse, share) in [
        // Twice the time to the first token is 1.3 times worse on the whole, four times 1.9, and that squared.
        (Health { ttft_us: 131_072, ..alike }, 1.0 / 1.69),
        (Health { per_token_us: 16_384, ..alike }, 1.0 / 3.61),
        (Health { success_permille: 800, ..alike }, 0.8_f64.powi(4)),
        (Health { success_permille: 0, ..alike }, 0.05_f64.powi(4)),
    ] {
        assert_shares(&firsts(worse), &[1.0, share, 1.0]);
    }
    let priced = Fixture::new(&[3], |slot, deployment, _| {
        deployment.price = [price(1, 1), price(4, 4), None][slot].clone();
    });
    // Four times the price is 2.2 times worse; a price that nobody knows counts the same.
    let firsts = priced.firsts(&priced.ask(Strategy::Balanced), &Quiet, DRAWS);
    assert_shares(&firsts, &[1.0, 1.0 / 4.84, 1.0 / 4.84]);
}

#[test]
fn balanced_spares_who_is_near_its_limits() {
    let fixture = Fixture::new(&[3], |_, deployment, _| deployment.rpm = NonZeroU32::new(1024));
    let view = health(vec![(1, with(|it| it.rpm_used = 960)), (2, with(|it| it.rpm_used = 1024))]);
    let firsts = fixture.firsts(&fixture.ask(Strategy::Balanced), &view, DRAWS);
    assert_shares(&firsts, &[1.0, 1.0 / 8.0, 1.0 / 64.0]);
}

/// E.6: `sort` wins over the strategy, and what it sorts by is its own.
#[test]
fn sort_is_a_strategy() {
    let fixture = Fixture::new(&[3], |slot, deployment, _| {
        deployment.price = [price(9, 9), price(1, 1), price(9, 9)][slot].clone();
    });
    let timed = |ttft_us, per_token_us| with(|it| (it.ttft_us, it.per_token_us) = (ttft_us, per_token_us));
    let view =
        health(vec![(0, timed(10_000, 900_000)), (1, timed(900_000, 900_000)), (2, timed(900_000, 10_000))]);
    for (sort, strategy, first) in [
        (Sort::Price, Strategy::CostBased, 1),
        (Sort::Latency, Strategy::LatencyBased, 0),
        (Sort::Throughput, Strategy::LatencyBased, 2),
    ] {
        let preferences = Preferences { sort: Some(sort), ..Preferences::default() };
        let ask = Ask { preferences: Some(&preferences), ..fixture.ask(Strategy::SimpleShuffle) };
        assert_eq!(fixture.decide(&ask, &view, 1).unwrap().strategy, strategy);
        let firsts = fixture.firsts(&ask, &view, 1_000);
        assert!(firsts[first] > 950, "{sort:?} {firsts:?}");
    }
}
