use proptest::prelude::*;

use super::*;
use crate::{Measure, Unit, Usage};

fn sheet() -> PriceSheet {
    PriceSheet {
        id: "test".into(),
        input: Some(NanosPerMillion(2_500_000_000)),
        output: Some(NanosPerMillion(10_000_000_000)),
        cache_read: Some(NanosPerMillion(1_250_000_000)),
        cache_write: None,
        ..PriceSheet::default()
    }
}

fn unit(unit: Unit, quality: &str, price: i64) -> UnitPrice {
    UnitPrice { unit, quality: quality.into(), size: "".into(), price: NanosPerMillion(price) }
}

#[test]
fn units_are_priced_by_the_closest_price() {
    let units = [unit(Unit::Images, "", 40_000_000_000_000), unit(Unit::Images, "hd", 80_000_000_000_000)];
    let sheet = PriceSheet { units: units.into(), ..PriceSheet::default() };
    let images = |quality: &str| [Measure { quality: quality.into(), ..Measure::new(Unit::Images, 2) }];
    assert_eq!(sheet.cost_of(None, &images("hd")), Some(Nanos(160_000_000)));
    assert_eq!(sheet.cost_of(None, &images("standard")), Some(Nanos(80_000_000)));
    // Reported beside them, with no price of their own.
    let usage = Usage { input: Some(10), output: Some(10), ..Usage::default() };
    assert_eq!(sheet.cost_of(Some(&usage), &images("hd")), Some(Nanos(160_000_000)));
}

#[test]
fn what_has_no_price_for_its_unit_costs_nobody_knows_what() {
    let seconds = [Measure::new(Unit::AudioMilliseconds, 1000)];
    assert_eq!(sheet().cost_of(None, &seconds), None);
    assert_eq!(PriceSheet::default().cost_of(None, &seconds), None);
    assert_eq!(sheet().cost_of(None, &[]), None);
    let free = PriceSheet { units: [unit(Unit::Requests, "", 0)].into(), ..PriceSheet::default() };
    assert_eq!(free.cost_of(None, &[Measure::new(Unit::Requests, 1)]), Some(Nanos::ZERO));
}

#[test]
fn image_and_audio_tokens_are_billed_once_at_their_own_price() {
    let units = [
        unit(Unit::ImageInputTokens, "", 10_000_000_000),
        unit(Unit::ImageOutputTokens, "", 40_000_000_000),
        unit(Unit::AudioInputTokens, "", 6_000_000_000),
    ];
    let sheet = PriceSheet { units: units.into(), ..sheet() };
    let usage = Usage { input: Some(100), output: Some(1000), audio_input: Some(20), ..Usage::default() };
    let measures = [Measure::new(Unit::ImageInputTokens, 50), Measure::new(Unit::ImageOutputTokens, 1000)];
    // 30 text, 50 image and 20 audio tokens in, 1000 image tokens out.
    assert_eq!(sheet.cost_of(Some(&usage), &measures), Some(Nanos(75_000 + 500_000 + 120_000 + 40_000_000)));
}

#[test]
fn cached_tokens_are_billed_once_at_their_own_price() {
    let usage = Usage { input: Some(1000), cache_read: Some(600), output: Some(50), ..Usage::default() };
    // 400 * 2500 + 600 * 1250 + 50 * 10000 nano-USD
    assert_eq!(sheet().cost(&usage), Some(Nanos(1_000_000 + 750_000 + 500_000)));
}

#[test]
fn rounds_up_once() {
    let sheet = PriceSheet { input: Some(NanosPerMillion(1)), output: Some(NanosPerMillion(1)), ..sheet() };
    let usage = Usage { input: Some(1), output: Some(1), ..Usage::default() };
    assert_eq!(sheet.cost(&usage), Some(Nanos(1)));
}

#[test]
fn unknown_is_none_and_never_zero() {
    let usage = Usage { input: Some(10), output: Some(10), ..Usage::default() };
    assert_eq!(PriceSheet { output: None, ..sheet() }.cost(&usage), None);
    assert_eq!(sheet().cost(&Usage::default()), None);
    let free = PriceSheet { input: Some(NanosPerMillion(0)), output: Some(NanosPerMillion(0)), ..sheet() };
    assert_eq!(free.cost(&usage), Some(Nanos::ZERO));
}

#[test]
fn contradicting_counts_have_no_cost() {
    let usage = Usage { input: Some(10), cache_read: Some(11), output: Some(1), ..Usage::default() };
    assert_eq!(sheet().cost(&usage), None);
}

proptest! {
    #[test]
    fn cost_is_never_negative_and_grows_with_usage(
        input in 0_u64..10_000_000, cached in 0_u64..10_000_000, output in 0_u64..10_000_000, more in 0_u64..1000,
    ) {
        let usage = |output| Usage {
            input: Some(input + cached), cache_read: Some(cached), output: Some(output), ..Usage::default()
        };
        let (less, more) = (sheet().cost(&usage(output)).unwrap(), sheet().cost(&usage(output + more)).unwrap());
        prop_assert!(less >= Nanos::ZERO && more >= less);
    }
}

fn per_million(dollars_times_1000: i64) -> Option<NanosPerMillion> {
    Some(NanosPerMillion(dollars_times_1000 * 1_000_000))
}

fn full() -> PriceSheet {
    PriceSheet {
        id: "full".into(),
        input: per_million(3_000),
        output: per_million(15_000),
        cache_read: per_million(300),
        cache_write: per_million(3_750),
        cache_write_1h: per_million(6_000),
        reasoning: per_million(20_000),
        units: [unit(Unit::WebSearches, "", 10_000_000_000_000)].into(),
        steps: [
            PriceStep {
                above_input_tokens: 200_000,
                input: per_million(6_000),
                output: per_million(22_500),
                ..PriceStep::default()
            },
            PriceStep {
                service_tier: "priority".into(),
                input: per_million(5_000),
                output: per_million(30_000),
                reasoning: per_million(30_000),
                ..PriceStep::default()
            },
            PriceStep { service_tier: "flex".into(), input: per_million(1_500), ..PriceStep::default() },
        ]
        .into(),
    }
}

/// C 7, C 8: every part of the usage vector at its own price, once.
#[test]
fn every_part_of_the_vector_is_billed_once_at_its_own_price() {
    let usage = Usage {
        input: Some(1_000),
        output: Some(500),
        cache_read: Some(400),
        cache_write: Some(300),
        cache_write_1h: Some(100),
        reasoning: Some(200),
        ..Usage::default()
    };
    // 300 x 3 + 400 x 0.3 + 200 x 3.75 + 100 x 6 + 300 x 15 + 200 x 20 micro-dollars.
    let expected = Nanos(900_000 + 120_000 + 750_000 + 600_000 + 4_500_000 + 4_000_000);
    assert_eq!(full().cost(&usage), Some(expected));
    // What has no price of its own falls back to what it is a part of.
    let plain =
        PriceSheet { input: per_million(3_000), output: per_million(15_000), ..PriceSheet::default() };
    assert_eq!(plain.cost(&usage), Some(Nanos(3_000_000 + 7_500_000)));
    let written = PriceSheet { cache_write: per_million(3_750), ..plain };
    assert_eq!(written.cost(&usage), Some(Nanos(2_100_000 + 1_125_000 + 7_500_000)));
}

/// C 8.
#[test]
fn long_prompts_and_service_tiers_have_their_own_prices() {
    let usage = |input| Usage { input: Some(input), output: Some(1_000), ..Usage::default() };
    let cost = |tier: &str, input| full().cost_in(tier, Some(&usage(input)), &[]).unwrap().0;
    assert_eq!(cost("", 200_000), 600_000_000 + 15_000_000, "the threshold itself is not above");
    assert_eq!(cost("", 200_001), 1_200_006_000 + 22_500_000);
    assert_eq!(cost("default", 1_000), 3_000_000 + 15_000_000);
    assert_eq!(cost("priority", 1_000), 5_000_000 + 30_000_000);
    assert_eq!(cost("flex", 1_000), 1_500_000 + 15_000_000, "what a step leaves out is the sheet's");
    assert_eq!(cost("flex", 200_001), 1_200_006_000 + 22_500_000, "the highest threshold wins");
    // Cached tokens count for the length of a prompt; their price is the sheet's where the step has none.
    let cached = Usage { cache_read: Some(200_000), ..usage(200_001) };
    assert_eq!(full().cost(&cached), Some(Nanos(6_000 + 60_000_000 + 22_500_000)));
}

/// D 4: a tool is billed on top of the answer, and a tool without a price makes the cost unknown.
#[test]
fn tools_are_billed_by_the_call_beside_the_tokens() {
    let usage = Usage { input: Some(1_000), output: Some(0), ..Usage::default() };
    let searches = |count| [Measure::new(Unit::WebSearches, count)];
    assert_eq!(full().cost_of(Some(&usage), &searches(3)), Some(Nanos(3_000_000 + 30_000_000)));
    assert_eq!(sheet().cost_of(Some(&usage), &searches(3)), None);
    assert_eq!(sheet().cost_of(Some(&usage), &searches(0)), Some(Nanos(2_500_000)));
    assert_eq!(full().cost_of(None, &searches(3)), None, "the tokens are unknown still");
    let free = PriceSheet { units: full().units, ..PriceSheet::default() };
    assert_eq!(free.cost_of(Some(&usage), &searches(1)), None, "a price for searches is none for tokens");
}

#[test]
fn a_price_for_requests_is_paid_by_every_call_once() {
    let priced = PriceSheet { units: [unit(Unit::Requests, "", 5_000_000_000_000)].into(), ..sheet() };
    let usage = Usage { input: Some(1_000), output: Some(0), ..Usage::default() };
    assert_eq!(priced.cost(&usage), Some(Nanos(5_000_000 + 2_500_000)));
    assert_eq!(
        priced.cost_of(Some(&usage), &[Measure::new(Unit::Requests, 1)]),
        Some(Nanos(5_000_000 + 2_500_000))
    );
    assert_eq!(priced.cost_of(None, &[]), None, "the tokens are unknown still");
    let by_call = PriceSheet { units: priced.units, ..PriceSheet::default() };
    assert_eq!(by_call.cost(&usage), Some(Nanos(5_000_000)));
}

#[test]
fn more_parts_than_there_is_of_the_whole_have_no_cost() {
    let whole = Usage { input: Some(10), output: Some(10), ..Usage::default() };
    for usage in [
        Usage { reasoning: Some(11), ..whole },
        Usage { cache_read: Some(6), cache_write: Some(5), ..whole },
        Usage { cache_write: Some(4), cache_write_1h: Some(5), ..whole },
        Usage { cache_write_1h: Some(1), ..whole },
        Usage { audio_input: Some(11), ..whole },
        Usage { audio_output: Some(6), reasoning: Some(5), ..whole },
    ] {
        assert_eq!(full().cost(&usage), None, "{usage:?}");
    }
    assert_eq!(full().cost_of(Some(&whole), &[Measure::new(Unit::ImageInputTokens, 11)]), None);
}

#[test]
fn no_call_earns_money() {
    let usage = Usage { input: Some(10), output: Some(10), ..Usage::default() };
    let negative = PriceSheet { input: Some(NanosPerMillion(-1)), ..sheet() };
    assert_eq!(negative.cost(&usage), None);
}

#[test]
fn the_bound_takes_the_highest_price_that_could_hold() {
    // 1000 at the price of a cache write for an hour, 500 at priority's for output.
    assert_eq!(full().upper_bound(1_000, 500, &[]), Some(Nanos(6_000_000 + 15_000_000)));
    assert_eq!(full().upper_bound(0, 0, &[]), Some(Nanos::ZERO));
    assert_eq!(full().upper_bound(0, 0, &[Measure::new(Unit::WebSearches, 2)]), Some(Nanos(20_000_000)));
    assert_eq!(full().upper_bound(0, 0, &[Measure::new(Unit::FileSearches, 1)]), None);
    assert_eq!(PriceSheet { output: None, ..sheet() }.upper_bound(1, 1, &[]), None);
    assert_eq!(PriceSheet { output: None, ..sheet() }.upper_bound(1, 0, &[]), Some(Nanos(2_500)));
    assert_eq!(full().upper_bound(u64::MAX, 0, &[]), None, "beyond all money");
}

fn price() -> impl Strategy<Value = Option<NanosPerMillion>> {
    prop::option::weighted(0.8, (0_i64..50_000_000_000).prop_map(NanosPerMillion))
}

fn step() -> impl Strategy<Value = PriceStep> {
    let tier = prop::sample::select(vec!["", "flex", "priority"]);
    (0_u64..3000, tier, [price(), price(), price(), price(), price(), price()]).prop_map(
        |(above_input_tokens, tier, [input, output, cache_read, cache_write, cache_write_1h, reasoning])| {
            let service_tier = tier.into();
            PriceStep {
                above_input_tokens,
                service_tier,
                input,
                output,
                cache_read,
                cache_write,
                cache_write_1h,
                reasoning,
            }
        },
    )
}

fn any_sheet() -> impl Strategy<Value = PriceSheet> {
    let quality = prop::sample::select(vec!["", "high"]);
    let units = (prop::sample::select(Unit::ALL.to_vec()), quality, 0_i64..1_000_000_000_000)
        .prop_map(|(of, quality, price)| unit(of, quality, price));
    (step(), proptest::collection::vec(units, 0..5), proptest::collection::vec(step(), 0..4)).prop_map(
        |(of, units, steps)| PriceSheet {
            id: "any".into(),
            input: of.input,
            output: of.output,
            cache_read: of.cache_read,
            cache_write: of.cache_write,
            cache_write_1h: of.cache_write_1h,
            reasoning: of.reasoning,
            units: units.into(),
            steps: steps.into(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// D 1, D 2: what is reserved covers whatever the answer then says, in every tier.
    #[test]
    fn no_usage_within_the_counts_costs_more_than_the_bound(
        sheet in any_sheet(),
        tier in prop::sample::select(vec!["", "default", "flex", "priority"]),
        (input, output) in (0_u64..5000, 0_u64..5000),
        parts in prop::array::uniform6(prop::option::of(0_u64..1500)),
        (more_input, more_output) in (0_u64..2000, 0_u64..2000),
        measured in proptest::collection::vec((prop::sample::select(Unit::ALL.to_vec()), 0_u64..20, any::<bool>()), 0..4),
        told in any::<bool>(),
    ) {
        let [cache_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output] = parts;
        let usage = Usage {
            input: Some(input), output: Some(output),
            cache_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output,
        };
        let within: Vec<_> = measured.iter().map(|(unit, most, _)| Measure::new(*unit, *most)).collect();
        let consumed: Vec<_> = measured.iter().map(|(unit, most, high)| Measure {
            quality: if *high { "high".into() } else { "".into() },
            ..Measure::new(*unit, most.saturating_sub(u64::from(told)))
        }).collect();
        let cost = sheet.cost_in(tier, Some(&usage), &consumed);
        let bound = sheet.upper_bound(input + more_input, output + more_output, &within);
        if let Some((cost, bound)) = cost.zip(bound) {
            prop_assert!(Nanos::ZERO <= cost && cost <= bound, "{cost} of at most {bound}");
        }
        // The bound is no excuse: what has a price for text in and out has a bound.
        if sheet.input.is_some() && sheet.output.is_some() && !within.iter().any(|measure| measure.unit.is_tool()) {
            prop_assert!(bound.is_some());
        }
    }
}
