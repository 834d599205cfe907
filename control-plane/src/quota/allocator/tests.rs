//! Covers I3, C 3.

use nemo_types::{BudgetId, Nanos, OrgId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::quota::books::WindowKey;

const USD: i64 = Nanos::ONE_USD.0;

fn window(limit: i64, settled: i64, users: i32) -> WindowRow {
    let key = WindowKey { budget: BudgetId(Uuid::nil()), start: 0 };
    let mut window = WindowRow::new(key, OrgId(Uuid::nil()), None, limit, 0);
    (window.settled, window.users) = (settled, users);
    window
}

fn ask(wants: i64, needs: i64) -> Ask {
    Ask { wants, needs, least: needs, ..Ask::default() }
}

fn nanos(slice: Slice) -> i64 {
    match slice {
        Slice::Grant { nanos, .. } => nanos,
        Slice::Nothing => 0,
    }
}

#[test]
fn while_there_is_plenty_a_node_gets_what_lasts_it_through_an_outage() {
    let settings = Settings { min_slice: Nanos(USD / 20), max_slice: Nanos(10 * USD), ..Settings::default() };
    let large = window(10_000 * USD, 0, 4);
    assert_eq!(nanos(slice(&large, ask(1, 0), &settings)), settings.min_slice.0);
    assert_eq!(nanos(slice(&large, ask(USD, 0), &settings)), USD);
    assert_eq!(nanos(slice(&large, ask(500 * USD, 0), &settings)), settings.max_slice.0);
    // 15 minutes at a tenth of a cent per second, less what it has.
    let spends = Ask { wants: 1, spend_rate: USD / 1000, held: USD / 2, ..Ask::default() };
    assert_eq!(nanos(slice(&large, spends, &settings)), 900 * USD / 1000 - USD / 2);
    // One request may need more than any slice.
    assert_eq!(nanos(slice(&large, ask(50 * USD, 50 * USD), &settings)), 50 * USD);
}

#[test]
fn no_node_takes_more_than_its_part_of_half() {
    let settings = Settings::default();
    assert_eq!(nanos(slice(&window(8 * USD, 0, 4), ask(5 * USD, 1), &settings)), USD);
}

#[test]
fn a_request_that_needs_more_than_is_left_gets_a_part_while_there_is_plenty() {
    let settings = Settings::default();
    let cent = window(USD / 100, 0, 1);
    assert_eq!(slice(&cent, ask(USD, USD), &settings), Slice::Nothing, "it can't be cut down");
    let partial = Ask { least: 1, ..ask(USD, USD) };
    assert_eq!(nanos(slice(&cent, partial, &settings)), USD / 200);
    let long = Ask { least: USD / 150, ..ask(USD, USD) };
    assert_eq!(nanos(slice(&cent, long, &settings)), USD / 150, "less would be of no use");
}

#[test]
fn near_the_end_slices_are_single_requests_and_short_lived() {
    let settings = Settings::default();
    let last = window(USD, USD - 1000, 4);
    assert_eq!(slice(&last, ask(USD, 0), &settings), Slice::Nothing, "nobody waits");
    let Slice::Grant { nanos: given, ttl_ms, endgame } = slice(&last, ask(USD, 400), &settings) else {
        panic!()
    };
    assert_eq!((given, endgame), (400, true));
    assert!(ttl_ms < settings.ttl_ms());
    assert_eq!(slice(&last, ask(USD, 1001), &settings), Slice::Nothing, "a part of a request is of no use");
    let part = |least| slice(&last, Ask { least, ..ask(USD, 1001) }, &settings);
    assert_eq!(part(1001), Slice::Nothing);
    assert_eq!(nanos(part(1000)), 1000, "the last of it, to who can use it");
    assert_eq!(nanos(part(1)), 1000);
}

#[test]
fn what_is_given_unasked_is_little() {
    let settings = Settings::default();
    assert_eq!(standby(&window(1000 * USD, 0, 0), 50, &settings), settings.min_slice.0);
    assert_eq!(standby(&window(USD, 0, 0), 50, &settings), USD / 200);
    assert_eq!(standby(&window(USD, USD, 0), 50, &settings), 0);
    assert_eq!(standby(&window(1000, 0, 0), 50, &settings), 0, "not worth the row");
}

proptest! {
    #[test]
    fn a_slice_is_never_more_than_what_is_left_and_never_less_than_what_waits(
        limit in 0_i64..1_000_000 * USD, part in 0_u32..=1000, users in 0_i32..100,
        wants in -1_i64..1_000_000 * USD, needs in -1_i64..100 * USD, rate in 0_i64..USD, held in 0_i64..USD,
        part_of_it in 0_u32..=1000,
    ) {
        let settings = Settings::default();
        let settled = i64::try_from(i128::from(limit) * i128::from(part) / 1000).unwrap();
        let window = window(limit, settled, users);
        let least = i64::try_from(i128::from(needs) * i128::from(part_of_it) / 1000).unwrap();
        let given = nanos(slice(&window, Ask { wants, needs, least, spend_rate: rate, held }, &settings));
        prop_assert!(given >= 0 && given <= window.headroom());
        prop_assert!(given == 0 || given >= needs || (given >= least && needs > window.headroom()));
        prop_assert!(needs <= 0 || needs > window.headroom() || given >= needs);
        prop_assert!(needs <= 0 || window.headroom() == 0 || least > window.headroom() || given > 0);
        let standby = standby(&window, 50, &settings);
        prop_assert!(standby >= 0 && standby.saturating_mul(50) <= limit / 2);
    }
}
