//! Which candidate is asked next after a failure, and after which wait (requirements B2, R004-13 to R004-17). Pure: time
//! and chance come from the caller, [`super::attempts`].
//!
//! The order: a rate-limited candidate with a short hint once more, after that hint; then every candidate that was not
//! asked yet, at once; then, within the organization's number of retries and with capped exponential backoff and full
//! jitter, those again whose failure may have been a passing one.

use std::{collections::VecDeque, time::Duration};

use nemo_snapshot::RoutingPolicy;

/// Bounds of the waits, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub retries: u8,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// A longer hint is not waited for.
    pub hint_wait: Duration,
}

impl Limits {
    /// `wanted`: what the request asks for, which was checked against the organization's ceiling.
    pub fn new(policy: &RoutingPolicy, wanted: Option<u8>) -> Self {
        let millis = |millis: u32| Duration::from_millis(millis.into());
        Self {
            retries: wanted.unwrap_or(policy.retries).min(policy.max_retries),
            backoff_base: millis(policy.backoff_base_ms),
            backoff_max: millis(policy.backoff_max_ms),
            hint_wait: millis(policy.hint_wait_ms),
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Index of the candidate.
    pub pick: usize,
    pub wait: Duration,
}

/// The state of one request that has failed at least once.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    /// The first candidate that was not asked yet.
    untried: usize,
    candidates: usize,
    /// Candidates that may be asked again, with their hints, in the order in which they failed.
    again: VecDeque<(usize, Duration)>,
    retried: u8,
    /// Bit per candidate: its hint was waited for.
    hinted: u32,
}

impl Plan {
    /// To be made when the first of `candidates` has failed.
    pub fn new(limits: Limits, candidates: usize) -> Self {
        Self { limits, untried: 1, candidates, again: VecDeque::new(), retried: 0, hinted: 0 }
    }

    /// How many candidates were not asked yet, the first of them.
    pub fn untried(&self) -> std::ops::Range<usize> {
        self.untried..self.candidates
    }

    /// B2: how long to wait for the same candidate after its 429, once, when its hint is short and fits the deadline.
    /// Never shorter than the hint; the jitter keeps those who were refused together from coming back together.
    pub fn wait_for_hint(
        &mut self,
        pick: usize,
        hint: Option<Duration>,
        left: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let hint = hint.filter(|hint| *hint <= self.limits.hint_wait)?;
        let bit = 1_u32.checked_shl(u32::try_from(pick).ok()?)?;
        let wait = hint + up_to((hint / 4).max(MIN_JITTER), rng);
        if self.hinted & bit != 0 || wait >= left {
            return None;
        }
        self.hinted |= bit;
        Some(wait)
    }

    /// The candidate `failed`; with `again`, it may be asked again, not before its hint. `left` tells how much time a
    /// candidate would have; `None`: it is not to be asked.
    pub fn next(
        &mut self,
        (failed, again): (usize, Option<Duration>),
        left: impl Fn(usize) -> Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Option<Next> {
        if let Some(hint) = again {
            self.again.push_back((failed, hint));
        }
        while self.untried < self.candidates {
            let pick = self.untried;
            self.untried += 1;
            if left(pick).is_some_and(|left| !left.is_zero()) {
                return Some(Next { pick, wait: Duration::ZERO });
            }
        }
        while self.retried < self.limits.retries {
            let (pick, hint) = self.again.pop_front()?;
            let wait = backoff(&self.limits, self.retried, rng).max(hint);
            // A hint beyond the deadline, or beyond every wait of ours, is not slept for.
            if hint <= self.limits.backoff_max && left(pick).is_some_and(|left| wait < left) {
                self.retried += 1;
                return Some(Next { pick, wait });
            }
        }
        None
    }
}

const MIN_JITTER: Duration = Duration::from_millis(20);

fn up_to(most: Duration, rng: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(rng.u64(0..=u64::try_from(most.as_micros()).unwrap_or(u64::MAX)))
}

/// Full jitter: anything from nothing to the capped exponential.
fn backoff(limits: &Limits, retry: u8, rng: &mut fastrand::Rng) -> Duration {
    let factor = 1_u32.checked_shl(retry.into()).unwrap_or(u32::MAX);
    up_to(limits.backoff_base.saturating_mul(factor).min(limits.backoff_max), rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NONE: Option<Duration> = None;
    const ZERO: Option<Duration> = Some(Duration::ZERO);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn limits(retries: u8) -> Limits {
        Limits { retries, backoff_base: millis(250), backoff_max: millis(8000), hint_wait: millis(2000) }
    }

    fn rng() -> fastrand::Rng {
        fastrand::Rng::with_seed(7)
    }

    /// The candidates in the order in which they are asked when all fail alike.
    fn order(retries: u8, candidates: usize, again: Option<Duration>) -> Vec<usize> {
        let (mut plan, mut rng, mut asked) = (Plan::new(limits(retries), candidates), rng(), vec![0]);
        while let Some(next) = plan.next((*asked.last().unwrap(), again), |_| Some(HOUR), &mut rng) {
            asked.push(next.pick);
        }
        asked
    }

    #[test]
    fn every_candidate_is_asked_before_any_is_asked_again() {
        assert_eq!(order(0, 3, ZERO), [0, 1, 2]);
        assert_eq!(order(2, 3, ZERO), [0, 1, 2, 0, 1]);
        assert_eq!(order(2, 1, ZERO), [0, 0, 0]);
        assert_eq!(order(5, 2, ZERO), [0, 1, 0, 1, 0, 1, 0]);
        assert_eq!(order(5, 2, NONE), [0, 1], "a fault that stays is not met twice");
    }

    /// R004-17: full jitter, doubling, capped. Each tenth of the range gets its tenth of the draws.
    #[test]
    fn backoff_is_uniform_below_a_capped_exponential() {
        let mut rng = rng();
        for (retry, ceiling) in [(0, 250), (1, 500), (4, 4000), (5, 8000), (6, 8000), (40, 8000), (255, 8000)]
        {
            let mut tenths = [0_u32; 10];
            for _ in 0..20_000 {
                let wait = backoff(&limits(5), retry, &mut rng);
                assert!(wait <= millis(ceiling), "{wait:?} after retry {retry}");
                let tenth = wait.as_micros() * 10 / (u128::from(ceiling) * 1000 + 1);
                tenths[usize::try_from(tenth).unwrap()] += 1;
            }
            // 2000 each; the standard deviation is 42.
            assert!(tenths.iter().all(|count| (1800..2200).contains(count)), "retry {retry}: {tenths:?}");
        }
    }

    /// B2.
    #[test]
    fn a_short_hint_is_waited_for_once() {
        let (mut plan, mut rng) = (Plan::new(limits(2), 2), rng());
        for _ in 0..1000 {
            let mut plan = Plan::new(limits(2), 2);
            let wait = plan.wait_for_hint(0, Some(millis(1000)), HOUR, &mut rng).unwrap();
            assert!(wait >= millis(1000) && wait <= millis(1250), "{wait:?}");
        }
        assert!(plan.wait_for_hint(0, None, HOUR, &mut rng).is_none(), "no hint, no wait");
        assert!(plan.wait_for_hint(0, Some(millis(2001)), HOUR, &mut rng).is_none(), "too long");
        assert!(
            plan.wait_for_hint(0, Some(millis(1000)), millis(1000), &mut rng).is_none(),
            "beyond the deadline"
        );
        assert!(plan.wait_for_hint(0, Some(millis(10)), HOUR, &mut rng).is_some());
        assert!(plan.wait_for_hint(0, Some(millis(10)), HOUR, &mut rng).is_none(), "once");
        assert!(plan.wait_for_hint(1, Some(millis(10)), HOUR, &mut rng).is_some(), "each");
    }

    /// C14.
    #[test]
    fn a_hint_beyond_the_deadline_moves_on_instead_of_sleeping() {
        let mut rng = rng();
        let left = |_| Some(millis(3000));
        let mut plan = Plan::new(limits(2), 1);
        assert_eq!(plan.next((0, Some(millis(5000))), left, &mut rng), None);
        let mut plan = Plan::new(limits(2), 1);
        let next = plan.next((0, Some(millis(2000))), left, &mut rng).unwrap();
        assert_eq!(next, Next { pick: 0, wait: millis(2000) }, "never before the hint");
        let mut plan = Plan::new(limits(2), 2);
        assert_eq!(plan.next((0, Some(millis(5000))), left, &mut rng).unwrap().pick, 1);
        let next = plan.next((1, ZERO), left, &mut rng).unwrap();
        assert_eq!(next.pick, 1, "the other one, whose hint fits");
    }

    #[test]
    fn who_is_not_to_be_asked_is_passed_over() {
        let mut rng = rng();
        let mut plan = Plan::new(limits(2), 4);
        let open = |pick: usize| (pick == 2).then_some(HOUR);
        assert_eq!(plan.next((0, ZERO), open, &mut rng).unwrap().pick, 2);
        assert_eq!(plan.next((2, ZERO), |_| NONE, &mut rng), None);
    }

    /// In virtual time, with upstreams that fail after a while or hint at one: whatever they do, the last attempt begins
    /// before the deadline, and nothing sleeps beyond it.
    #[tokio::test(start_paused = true)]
    async fn no_sleep_outlasts_the_deadline() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let begin = tokio::time::Instant::now();
            let (retries, candidates) = (rng.u8(0..=10), rng.usize(1..=6));
            let deadline = begin + millis(rng.u64(1..20_000));
            let mut plan = Plan::new(limits(retries), candidates);
            let (mut at, mut attempts) = (0, 1);
            loop {
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                assert!(!left.is_zero(), "seed {seed}: an attempt without time");
                // As dispatch does: the wait for an answer ends with the deadline.
                tokio::time::sleep(millis(rng.u64(0..3000)).min(left)).await;
                let now = tokio::time::Instant::now();
                let left = deadline.saturating_duration_since(now);
                let hint = rng.bool().then(|| millis(rng.u64(0..10_000)));
                let next = match plan.wait_for_hint(at, hint, left, &mut rng) {
                    Some(wait) => Some(Next { pick: at, wait }),
                    None => plan.next((at, hint.or(ZERO)), |_| Some(left), &mut rng),
                };
                let Some(next) = next else { break };
                assert!(next.wait < left, "seed {seed}: {:?} of {left:?}", next.wait);
                tokio::time::sleep(next.wait).await;
                (at, attempts) = (next.pick, attempts + 1);
            }
            assert!(tokio::time::Instant::now() <= deadline + millis(1), "seed {seed}");
            assert!(attempts <= 2 * candidates + usize::from(retries), "seed {seed}: {attempts}");
        }
    }
}
