//! The aggregator against examples and random reports, in virtual time.

use proptest::prelude::*;

use super::*;

const POLICY: Policy = Policy {
    cooldown_ms: 5_000,
    longest_ms: 300_000,
    min_attempts: 20,
    error_percent: 50,
    window_ms: 30_000,
};

fn pair() -> Pair {
    (OrgId::generate(), DeploymentId::generate())
}

fn seen(node: &str, cause: Cause) -> Seen<'_> {
    Seen { node, cause, attempts: 0, failures: 0, opened_ms: None, hint_ms: None }
}

fn opened(node: &str, cause: Cause) -> Seen<'_> {
    Seen { opened_ms: Some(5_000), attempts: 3, failures: 3, ..seen(node, cause) }
}

fn counted(node: &str, attempts: u32, failures: u32) -> Seen<'_> {
    Seen { attempts, failures, ..seen(node, Cause::ServerError) }
}

#[test]
fn a_rate_limit_of_one_node_is_enough_and_lasts_as_long_as_the_upstream_says() {
    for (cause, hint_ms, expected) in [
        (Cause::RateLimited, Some(42_000), 42_000),
        (Cause::RateLimited, None, 5_000),
        (Cause::Credential, None, 5_000),
        (Cause::RateLimited, Some(86_400_000), 300_000),
    ] {
        let report = Seen { hint_ms, opened_ms: Some(1_000), ..seen("a", cause) };
        let found = Aggregator::default().observe(pair(), report, POLICY, 0, 0);
        assert_eq!(found, Finding::Cool { cause, for_ms: expected, generation: 1 });
    }
}

#[test]
fn a_server_error_takes_two_nodes_within_the_window() {
    let (mut aggregator, pair) = (Aggregator::default(), pair());
    let report = |aggregator: &mut Aggregator, node, now| {
        aggregator.observe(pair, opened(node, Cause::ServerError), POLICY, now, 0)
    };
    assert_eq!(report(&mut aggregator, "a", 0), Finding::Suspect { for_ms: 30_000 });
    assert_eq!(report(&mut aggregator, "a", 10_000), Finding::Suspect { for_ms: 30_000 }, "the same node");
    assert!(matches!(report(&mut aggregator, "b", 50_000), Finding::Suspect { .. }), "too late");
    let found = report(&mut aggregator, "c", 60_000);
    assert_eq!(found, Finding::Cool { cause: Cause::ServerError, for_ms: 5_000, generation: 1 });
    let other = (OrgId::generate(), pair.1);
    let found = aggregator.observe(other, opened("b", Cause::ServerError), POLICY, 60_001, 0);
    assert!(matches!(found, Finding::Suspect { .. }), "another organization's evidence is its own");
}

#[test]
fn a_node_at_another_replica_counts() {
    let (mut aggregator, pair) = (Aggregator::default(), pair());
    let told = ("b", Cause::Timeout);
    assert_eq!(aggregator.suspected(pair, told, POLICY, 0, 0), Finding::Nothing);
    assert_eq!(aggregator.suspected(pair, told, POLICY, 1, 0), Finding::Nothing, "one node, told twice");
    let found = aggregator.observe(pair, opened("a", Cause::Timeout), POLICY, 2, 0);
    assert!(matches!(found, Finding::Cool { .. }));
    let (mut aggregator, pair) = (Aggregator::default(), self::pair());
    let first = aggregator.observe(pair, opened("a", Cause::Timeout), POLICY, 0, 0);
    assert!(matches!(first, Finding::Suspect { .. }));
    assert!(matches!(aggregator.suspected(pair, told, POLICY, 1, 0), Finding::Cool { .. }));
    assert_eq!(aggregator.suspected(pair, ("c", Cause::Timeout), POLICY, 2, 0), Finding::Nothing);
}

#[test]
fn a_share_of_failures_counts_only_among_enough_attempts_of_the_window() {
    let (mut aggregator, pair) = (Aggregator::default(), pair());
    let mut report = |seen, now| aggregator.observe(pair, seen, POLICY, now, 0);
    assert_eq!(report(counted("a", 19, 19), 0), Finding::Nothing, "too few");
    assert_eq!(report(counted("a", 40, 0), 1_000), Finding::Nothing);
    assert_eq!(report(counted("b", 40, 30), 2_000), Finding::Nothing, "49 of 99");
    assert!(matches!(report(counted("b", 2, 2), 3_000), Finding::Cool { for_ms: 5_000, .. }), "51 of 101");
    assert_eq!(report(counted("a", 19, 19), 3_001), Finding::Nothing, "counted anew, and it cools already");
    assert_eq!(
        report(counted("a", 19, 19), 40_000),
        Finding::Nothing,
        "what is older than the window is gone"
    );
}

/// Failure C12, R004-24.
#[test]
fn cooldowns_on_each_others_heels_double_and_a_good_time_ends_that() {
    let (mut aggregator, pair) = (Aggregator::default(), pair());
    let mut now = 0;
    let mut lengths = Vec::new();
    for _ in 0..8 {
        let report = Seen { opened_ms: Some(1), ..seen("a", Cause::RateLimited) };
        match aggregator.observe(pair, report, POLICY, now, 0) {
            Finding::Cool { for_ms, .. } => lengths.push(for_ms),
            other => panic!("{other:?}"),
        }
        now += lengths.last().unwrap() + 10;
    }
    assert_eq!(lengths, [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
    now += 600_000;
    let report = Seen { opened_ms: Some(1), ..seen("a", Cause::RateLimited) };
    let found = aggregator.observe(pair, report, POLICY, now, 0);
    assert!(matches!(found, Finding::Cool { for_ms: 5_000, generation: 1, .. }), "{found:?}");
}

#[test]
fn what_other_replicas_decided_and_administrators_lifted_counts_here_too() {
    let (mut aggregator, pair) = (Aggregator::default(), pair());
    aggregator.cooled(pair, 5_000, 3, 0);
    let report = || Seen { opened_ms: Some(1), ..seen("a", Cause::RateLimited) };
    let found = aggregator.observe(pair, report(), POLICY, 5_001, 0);
    assert_eq!(found, Finding::Cool { cause: Cause::RateLimited, for_ms: 40_000, generation: 4 });
    aggregator.forgive(pair);
    let found = aggregator.observe(pair, report(), POLICY, 5_002, 0);
    assert!(matches!(found, Finding::Cool { for_ms: 5_000, .. }));
    aggregator.forgive_all(pair.1);
    assert!(aggregator.pairs.is_empty());
}

proptest! {
    /// Whatever is reported: a cooldown is never longer than the policy's longest, never shorter than the node's own,
    /// and one node's 5xx without enough counts never is one.
    #[test]
    fn no_report_leads_to_more_than_it_may(
        reports in prop::collection::vec(
            (0_u8..3, 0_u64..10_000, 0_u32..5, prop::option::of(0_u64..300_000), prop::option::of(1_u64..900_000)),
            1..100,
        ),
        jitter in any::<u64>(),
    ) {
        let (mut aggregator, pair, mut now) = (Aggregator::default(), pair(), 0);
        for (cause, wait, failures, opened_ms, hint_ms) in reports {
            now += wait;
            let cause = [Cause::RateLimited, Cause::ServerError, Cause::Timeout][usize::from(cause)];
            let report = Seen { attempts: failures, failures, opened_ms, hint_ms, ..seen("only", cause) };
            match aggregator.observe(pair, report, POLICY, now, jitter) {
                Finding::Cool { for_ms, generation, .. } => {
                    prop_assert!(for_ms >= opened_ms.unwrap_or(1) && for_ms <= POLICY.longest_ms);
                    prop_assert!(generation > 0);
                }
                Finding::Suspect { for_ms } => {
                    prop_assert!(cause != Cause::RateLimited && for_ms >= POLICY.window_ms);
                }
                Finding::Nothing => prop_assert!(opened_ms.is_none()),
            }
        }
        aggregator.sweep(now + 10_000_000);
        prop_assert!(aggregator.pairs.is_empty());
    }
}
