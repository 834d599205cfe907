//! The breaker against examples, and against a model over random histories with virtual time.

use proptest::prelude::*;

use super::*;

const POLICY: BreakerPolicy = BreakerPolicy { threshold: 3, window_ms: 5_000, max_ms: 300_000 };

fn fail(breaker: &mut Breaker, class: FailureClass, hint_ms: Option<u64>, now: Millis) -> bool {
    let ticket = breaker.begin(now).unwrap();
    breaker.failed((ticket, class, hint_ms), POLICY, now, 0)
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_starts_the_count_again() {
    let mut breaker = Breaker::default();
    assert!(!fail(&mut breaker, FailureClass::Server, None, 0));
    assert!(!fail(&mut breaker, FailureClass::Timeout, None, 1));
    let ticket = breaker.begin(2).unwrap();
    breaker.succeeded(ticket);
    assert!(breaker.is_pristine());
    assert!(!fail(&mut breaker, FailureClass::Server, None, 3));
    assert!(!fail(&mut breaker, FailureClass::Interrupted, None, 4));
    assert!(fail(&mut breaker, FailureClass::Credential, None, 5));
    let cause = Cause::Failure(FailureClass::Credential);
    assert_eq!(breaker.begin(6), Err((4_999, cause)));
}

/// R004-16: a refusal that says when to come back is believed, and kept to the longest that the policy has.
#[test]
fn a_hint_opens_it_at_once_for_as_long_as_the_upstream_asks() {
    for (hint, expected) in [(Some(1_500), 1_500), (None, 5_000), (Some(86_400_000), 300_000)] {
        let mut breaker = Breaker::default();
        assert!(fail(&mut breaker, FailureClass::RateLimited, hint, 100));
        assert_eq!(breaker.remaining_ms(100), Some(expected), "{hint:?}");
    }
    let mut breaker = Breaker::default();
    assert!(fail(&mut breaker, FailureClass::Connect, None, 0), "nothing answers there");
}

/// R004-24.
#[test]
fn one_probe_after_the_cooldown_closes_it_or_doubles_it() {
    let mut breaker = Breaker::default();
    assert!(fail(&mut breaker, FailureClass::Connect, None, 0));
    assert_eq!(
        breaker.admission(4_999),
        Admission::Cooling { remaining_ms: 1, cause: Cause::Failure(FailureClass::Connect) }
    );
    assert_eq!(breaker.admission(5_000), Admission::Probe);
    let probe = breaker.begin(5_000).unwrap();
    assert!(probe.probe);
    assert!(breaker.begin(5_001).is_err(), "one probe, not two");
    assert!(breaker.failed((probe, FailureClass::Server, None), POLICY, 6_000, 0), "one failure is enough");
    assert_eq!(breaker.remaining_ms(6_000), Some(10_000));
    let probe = breaker.begin(16_000).unwrap();
    breaker.released(probe, 16_500);
    let probe = breaker.begin(16_500).unwrap();
    assert!(probe.probe, "a probe whose client left is somebody else's");
    breaker.succeeded(probe);
    assert_eq!(breaker.admission(16_501), Admission::Ready);
    assert!(fail(&mut breaker, FailureClass::Connect, None, 20_000));
    assert_eq!(breaker.remaining_ms(20_000), Some(5_000), "after a success the first window counts again");
}

#[test]
fn attempts_begun_before_it_opened_neither_open_it_again_nor_close_it() {
    let mut breaker = Breaker::default();
    let early: Vec<_> = (0..10).map(|_| breaker.begin(0).unwrap()).collect();
    assert!(fail(&mut breaker, FailureClass::RateLimited, Some(2_000), 1));
    for ticket in &early[..5] {
        assert!(!breaker.failed((*ticket, FailureClass::Server, None), POLICY, 2, 0));
    }
    breaker.succeeded(early[5]);
    assert_eq!(breaker.remaining_ms(1), Some(2_000));
    breaker.failed((early[6], FailureClass::RateLimited, Some(500)), POLICY, 2, 0);
    assert_eq!(breaker.remaining_ms(1), Some(2_000), "a shorter one never replaces a longer");
    breaker.failed((early[7], FailureClass::RateLimited, Some(9_999)), POLICY, 2, 0);
    assert_eq!(breaker.remaining_ms(2), Some(9_999));
    let probe = breaker.begin(20_000).unwrap();
    assert!(!breaker.failed((early[8], FailureClass::Server, None), POLICY, 20_001, 0));
    breaker.succeeded(early[9]);
    assert!(breaker.begin(20_002).is_err(), "only the probe decides");
    breaker.succeeded(probe);
    assert!(breaker.is_pristine());
}

#[test]
fn what_the_fleet_says_lengthens_and_an_administrator_ends_it() {
    let mut breaker = Breaker::default();
    breaker.cool(8_000, Cause::Manual);
    breaker.cool(3_000, Cause::Failure(FailureClass::Server));
    assert_eq!(breaker.admission(0), Admission::Cooling { remaining_ms: 8_000, cause: Cause::Manual });
    assert_eq!(breaker.admission(8_000), Admission::Probe);
    breaker.reset();
    assert_eq!(breaker.admission(0), Admission::Ready);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Begin,
    /// Ends the n-th attempt that is under way: how.
    End(usize, Option<(FailureClass, Option<u64>)>),
    Leave(usize),
    Cool(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop::sample::select(FailureClass::ALL.to_vec());
    let outcome = prop::option::weighted(0.7, (class, prop::option::of(1_u64..600_000)));
    let step = prop_oneof![
        1 => (0_u64..20_000).prop_map(Step::Wait),
        3 => Just(Step::Begin),
        3 => (0_usize..8, outcome).prop_map(|(at, how)| Step::End(at, how)),
        1 => (0_usize..8).prop_map(Step::Leave),
        1 => (0_u64..60_000).prop_map(Step::Cool),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Whatever happens: no attempt begins during a cooldown, at most one probe is under way, no cooldown gets shorter
    /// unless a probe succeeds, and none is longer than the policy's longest.
    #[test]
    fn a_breaker_keeps_its_word_over_any_history(steps in steps(), seed in any::<u64>()) {
        let (mut breaker, mut now, mut random) = (Breaker::default(), 0_u64, fastrand::Rng::with_seed(seed));
        let mut under_way: Vec<(Ticket, u64)> = Vec::new();
        for step in steps {
            let before = breaker.remaining_ms(now);
            match step {
                Step::Wait(ms) => now += ms,
                Step::Begin => match breaker.begin(now) {
                    Ok(ticket) => {
                        prop_assert!(before.is_none(), "admitted with {before:?} ms to go");
                        if ticket.probe {
                            let held = under_way.iter().any(|(it, at)| {
                                it.probe && it.generation == ticket.generation && now - at < PROBE_PATIENCE_MS
                            });
                            prop_assert!(!held, "a second probe");
                        }
                        under_way.push((ticket, now));
                    }
                    Err((remaining, _)) => prop_assert!(remaining > 0),
                },
                Step::End(at, how) if at < under_way.len() => {
                    let (ticket, _) = under_way.swap_remove(at);
                    match how {
                        None => breaker.succeeded(ticket),
                        Some((class, hint)) => {
                            breaker.failed((ticket, class, hint), POLICY, now, random.u64(..));
                        }
                    }
                    if let Some(before) = before {
                        prop_assert!(breaker.remaining_ms(now) >= Some(before), "{before} got shorter");
                    }
                    prop_assert!(breaker.remaining_ms(now) <= Some(60_000.max(u64::from(POLICY.max_ms))));
                }
                Step::Leave(at) if at < under_way.len() => {
                    let (ticket, _) = under_way.swap_remove(at);
                    breaker.released(ticket, now);
                }
                Step::End(..) | Step::Leave(_) => {}
                Step::Cool(ms) => {
                    breaker.cool(now + ms, Cause::Manual);
                    prop_assert!(breaker.remaining_ms(now).unwrap_or(0) >= ms.max(before.unwrap_or(0)));
                }
            }
        }
    }

    /// Jitter never takes anything away, and adds a fifth at most.
    #[test]
    fn chance_only_adds(hint in prop::option::of(1_u64..200_000), level in 0_u8..40, jitter in any::<u64>()) {
        let exact = cooldown_ms(hint, level, POLICY, 0);
        let jittered = cooldown_ms(hint, level, POLICY, jitter);
        prop_assert!(jittered >= exact && jittered <= (exact + exact / 5).min(300_000));
    }
}
