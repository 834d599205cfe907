//! What strategies do to a fleet over minutes: simulated upstreams, the node's real statistics and breakers, virtual time.
//! Each test shows that a strategy does what its name says, and what another one would have done.

use std::{cmp::Reverse, collections::BinaryHeap, num::NonZeroU32};

use nemo_snapshot::{Deployment, Strategy};

use super::fixture::{Fixture, price};
use crate::{
    health::{
        DeploymentStats, FailureClass,
        breaker::{Admission, Breaker, BreakerPolicy, Ticket},
    },
    routing::{Ask, Cause, Gate, Health, HealthView, draw::Draw},
};

/// Tokens of every answer.
const TOKENS: u64 = 100;
const MINUTE: u64 = 60_000;

/// An upstream at one time.
#[derive(Clone, Copy)]
struct Weather {
    ttft_ms: u64,
    per_token_us: u64,
    /// Of 1000 requests, so many fail with a 500.
    failing: u64,
    /// Requests of any minute, beyond which it answers 429.
    rpm: u64,
}

const POLICY: BreakerPolicy = BreakerPolicy { threshold: 3, window_ms: 5_000, max_ms: 300_000 };

const FINE: Weather = Weather { ttft_ms: 200, per_token_us: 5_000, failing: 0, rpm: u64::MAX };
const SLOW: Weather = Weather { ttft_ms: 2_000, per_token_us: 50_000, ..FINE };
const DOWN: Weather = Weather { failing: 1_000, ..FINE };

/// One upstream as the node sees it, and what it really does.
#[derive(Default)]
struct Upstream {
    stats: DeploymentStats,
    breaker: Breaker,
    /// When requests came in, of the last minute.
    arrivals: std::collections::VecDeque<u64>,
    in_flight: u64,
    most_in_flight: u64,
}

/// What happened in one stretch of time.
#[derive(Clone, Debug, Default)]
struct Stretch {
    /// Answers by slot.
    answered: Vec<u64>,
    /// Attempts that failed, by slot.
    failed: Vec<u64>,
    /// Requests that got no answer.
    lost: u64,
    /// Sum of the time to the last token of all answers.
    took_ms: u64,
}

impl Stretch {
    fn answers(&self) -> u64 {
        self.answered.iter().sum()
    }

    /// Thousandths of the answers.
    fn share(&self, slot: usize) -> u64 {
        self.answered[slot] * 1000 / self.answers().max(1)
    }

    fn mean_ms(&self) -> u64 {
        self.took_ms / self.answers().max(1)
    }
}

struct World<'a> {
    fixture: &'a Fixture,
    upstreams: Vec<Upstream>,
    /// What is under way: its end, the upstream, and how to tell.
    under_way: BinaryHeap<Reverse<(u64, usize, u64, bool)>>,
    now: u64,
    requests: u64,
    draw: Draw,
}

struct View<'a>(&'a [Upstream], u64);

impl HealthView for View<'_> {
    fn of(&self, deployment: &Deployment) -> Health {
        let Upstream { stats, breaker, .. } = &self.0[deployment.slot];
        let read = stats.read(self.1);
        let gate = match breaker.admission(self.1) {
            Admission::Ready => Gate::Ready,
            Admission::Probe => Gate::Probe,
            Admission::Cooling { remaining_ms, .. } => {
                let remaining_ms = u32::try_from(remaining_ms).unwrap();
                Gate::Cooling { remaining_ms, cause: Cause::Server }
            }
        };
        Health {
            gate,
            in_flight: read.in_flight,
            ttft_us: read.ttft_us,
            per_token_us: read.per_token_us,
            rpm_used: read.rpm_used,
            tpm_used: read.tpm_used,
            success_permille: read.success_permille,
        }
    }
}

impl<'a> World<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        Self {
            fixture,
            upstreams: fixture.deployments.iter().map(|_| Upstream::default()).collect(),
            under_way: BinaryHeap::new(),
            now: MINUTE,
            requests: 0,
            draw: Draw::new(0x5eed, 7),
        }
    }

    /// Lets time pass with so many requests per minute, each at a random time; the weather may depend on the slot.
    fn run(
        &mut self,
        strategy: Strategy,
        (rpm, for_ms): (u64, u64),
        weather: impl Fn(usize) -> Weather,
    ) -> Stretch {
        let slots = self.upstreams.len();
        let mut stretch = Stretch { answered: vec![0; slots], failed: vec![0; slots], ..Stretch::default() };
        let ask = Ask { output_tokens: Some(TOKENS), ..self.fixture.ask(strategy) };
        let mut arrivals: Vec<u64> =
            (0..rpm * for_ms / MINUTE).map(|_| self.now + self.draw.below(for_ms)).collect();
        arrivals.sort_unstable();
        let end = self.now + for_ms;
        for arrival in arrivals {
            self.until(arrival);
            self.request(&ask, &weather, &mut stretch);
        }
        self.until(end);
        stretch
    }

    /// Ends what is over.
    fn until(&mut self, now: u64) {
        while let Some(Reverse((end, slot, streamed_us, first))) = self.under_way.peek().copied() {
            if end > now {
                break;
            }
            self.under_way.pop();
            let upstream = &mut self.upstreams[slot];
            if first {
                // The wait came with the event; what follows is the streaming of the rest.
                upstream.stats.first_byte(u32::try_from(streamed_us).unwrap(), end);
            } else {
                upstream.stats.succeeded(TOKENS, streamed_us, end);
                upstream.stats.ended();
                upstream.in_flight -= 1;
            }
        }
        self.now = now;
    }

    fn request(&mut self, ask: &Ask<'_>, weather: &impl Fn(usize) -> Weather, stretch: &mut Stretch) {
        self.requests += 1;
        let decided = self.fixture.decide(ask, &View(&self.upstreams, self.now), self.requests);
        let picks = decided.map(|decision| decision.picks).unwrap_or_default();
        for slot in picks.iter().map(|pick| pick.deployment.slot) {
            let Ok(ticket) = self.upstreams[slot].breaker.begin(self.now) else { continue };
            match self.attempt(slot, ticket, weather(slot)) {
                Some(took_ms) => {
                    stretch.answered[slot] += 1;
                    stretch.took_ms += took_ms;
                    return;
                }
                None => stretch.failed[slot] += 1,
            }
        }
        stretch.lost += 1;
    }

    /// How long the answer takes, in milliseconds; `None`: it failed at once.
    fn attempt(&mut self, slot: usize, ticket: Ticket, weather: Weather) -> Option<u64> {
        let (now, upstream) = (self.now, &mut self.upstreams[slot]);
        upstream.stats.begun(now);
        while upstream.arrivals.front().is_some_and(|at| at + MINUTE <= now) {
            upstream.arrivals.pop_front();
        }
        let limited = upstream.arrivals.len() as u64 >= weather.rpm;
        if limited || self.draw.below(1_000) < weather.failing {
            let class = if limited { FailureClass::RateLimited } else { FailureClass::Server };
            let jitter = self.draw.next();
            upstream.stats.failed();
            upstream.stats.ended();
            upstream.breaker.failed((ticket, class, None), POLICY, now, jitter);
            return None;
        }
        upstream.arrivals.push_back(now);
        upstream.in_flight += 1;
        upstream.most_in_flight = upstream.most_in_flight.max(upstream.in_flight);
        upstream.breaker.succeeded(ticket);
        // A tenth more or less.
        let ttft_us = weather.ttft_ms * (900 + self.draw.below(200));
        let streamed_us = weather.per_token_us * TOKENS;
        let (first, last) = (now + ttft_us / 1000, now + (ttft_us + streamed_us) / 1000);
        self.under_way.push(Reverse((first, slot, ttft_us, true)));
        self.under_way.push(Reverse((last, slot, streamed_us, false)));
        Some(last - now)
    }
}

fn slow_at(sick: usize) -> impl Fn(usize) -> Weather {
    move |slot| if slot == sick { SLOW } else { FINE }
}

/// One of four turns ten times slower for five minutes.
#[test]
fn latency_based_leaves_a_slow_endpoint_and_comes_back() {
    let fixture = Fixture::pool(&[1; 4]);
    let mut world = World::new(&fixture);
    let mut run = |load, sick: usize| world.run(Strategy::LatencyBased, load, slow_at(sick));
    let before = run((1_200, 2 * MINUTE), usize::MAX);
    assert!((150..350).contains(&before.share(2)), "an even share before: {before:?}");
    let turning = run((1_200, MINUTE / 2), 2);
    let during = run((1_200, 5 * MINUTE), 2);
    assert!(turning.share(2) < 150, "within half a minute: {turning:?}");
    assert!(during.share(2) < 25 && during.answered[2] > 0, "left, and looked after: {during:?}");
    assert!(during.mean_ms() < before.mean_ms() * 5 / 4, "clients hardly notice: {during:?} {before:?}");
    run((1_200, 5 * MINUTE), usize::MAX);
    let after = run((1_200, 2 * MINUTE), usize::MAX);
    assert!((150..350).contains(&after.share(2)), "it has come back: {after:?}");
    // The same with chance alone: a quarter of the clients wait ten times as long.
    let shuffled = World::new(&fixture).run(Strategy::SimpleShuffle, (1_200, 5 * MINUTE), slow_at(2));
    assert!(shuffled.mean_ms() > during.mean_ms() * 2, "{shuffled:?}");
}

/// Endpoints that allow 600, 300 and 60 requests per minute, and 750 that come.
#[test]
fn usage_based_stays_below_the_limits_that_chance_exceeds() {
    const LIMITS: [u64; 3] = [600, 300, 60];
    let fixture = Fixture::new(&[3], |slot, deployment, _| {
        deployment.rpm = NonZeroU32::new(LIMITS[slot].try_into().unwrap());
    });
    let weather = |slot: usize| Weather { rpm: LIMITS[slot], ..FINE };
    let run = |strategy| {
        let mut world = World::new(&fixture);
        world.run(strategy, (750, 2 * MINUTE), weather);
        world.run(strategy, (750, 8 * MINUTE), weather)
    };
    let (by_usage, by_chance) = (run(Strategy::UsageBased), run(Strategy::SimpleShuffle));
    let refused = |stretch: &Stretch| stretch.failed.iter().sum::<u64>();
    assert!(refused(&by_usage) * 10 < refused(&by_chance), "{by_usage:?} {by_chance:?}");
    assert!(refused(&by_usage) * 100 < by_usage.answers(), "hardly any 429: {by_usage:?}");
    assert_eq!(by_usage.lost, 0);
    for (slot, limit) in LIMITS.iter().enumerate() {
        let fair = limit * 1000 / 960;
        assert!(by_usage.share(slot).abs_diff(fair) < 60, "{slot}: {} of {fair}", by_usage.share(slot));
    }
}

/// One of four takes ten times as long: with chance alone its queue is ten times as long too.
#[test]
fn least_busy_keeps_the_queue_of_a_slow_endpoint_short() {
    let fixture = Fixture::pool(&[1; 4]);
    let run = |strategy| {
        let mut world = World::new(&fixture);
        world.run(strategy, (2_400, 4 * MINUTE), slow_at(1));
        let stretch = world.run(strategy, (2_400, 4 * MINUTE), slow_at(1));
        (world.upstreams[1].most_in_flight, stretch)
    };
    let ((short, least_busy), (long, by_chance)) = (run(Strategy::LeastBusy), run(Strategy::SimpleShuffle));
    assert!(
        least_busy.share(1) < 80 && (200..300).contains(&by_chance.share(1)),
        "{least_busy:?} {by_chance:?}"
    );
    assert!(short * 3 < long, "{short} and {long} at once");
    assert!(least_busy.mean_ms() * 3 / 2 < by_chance.mean_ms(), "{least_busy:?} {by_chance:?}");
}

#[test]
fn cost_based_takes_the_cheapest_until_it_cools_and_again_when_it_is_back() {
    let fixture = Fixture::new(&[3], |slot, deployment, _| deployment.price = price([3, 1, 2][slot], 5));
    let mut world = World::new(&fixture);
    let fine = world.run(Strategy::CostBased, (600, 2 * MINUTE), |_| FINE);
    assert_eq!(fine.answered, [0, 1_200, 0]);
    let down = world.run(Strategy::CostBased, (600, 2 * MINUTE), |slot| if slot == 1 { DOWN } else { FINE });
    assert_eq!((down.answered[0], down.answered[1], down.lost), (0, 0, 0), "{down:?}");
    assert!(down.failed[1] < 12, "three that open the breaker, and a probe now and then: {down:?}");
    // The longest cooldown so far is over within these.
    world.run(Strategy::CostBased, (600, 3 * MINUTE), |_| FINE);
    let back = world.run(Strategy::CostBased, (600, MINUTE), |_| FINE);
    assert_eq!(back.answered, [0, 600, 0]);
}

#[test]
fn simple_shuffle_shares_evenly_among_the_healthy() {
    let fixture = Fixture::pool(&[1; 4]);
    let mut world = World::new(&fixture);
    let sick = |slot: usize| if slot == 3 { DOWN } else { FINE };
    let stretch = world.run(Strategy::SimpleShuffle, (1_200, 4 * MINUTE), sick);
    assert_eq!((stretch.answered[3], stretch.lost), (0, 0));
    assert!(stretch.failed[3] < 20, "{stretch:?}");
    assert!((0..3).all(|slot| stretch.share(slot).abs_diff(333) < 30), "{stretch:?}");
    world.run(Strategy::SimpleShuffle, (1_200, 6 * MINUTE), |_| FINE);
    let healed = world.run(Strategy::SimpleShuffle, (1_200, 2 * MINUTE), |_| FINE);
    assert!(healed.share(3).abs_diff(250) < 30, "{healed:?}");
}

#[test]
fn weighted_keeps_its_shares_and_fills_a_gap_in_proportion() {
    let fixture = Fixture::pool(&[6, 3, 1]);
    let mut world = World::new(&fixture);
    let fine = world.run(Strategy::Weighted, (1_200, 4 * MINUTE), |_| FINE);
    let expected = [600, 300, 100];
    assert!((0..3).all(|slot| fine.share(slot).abs_diff(expected[slot]) < 25), "{fine:?}");
    let sick = |slot: usize| if slot == 0 { DOWN } else { FINE };
    let gap = world.run(Strategy::Weighted, (1_200, 4 * MINUTE), sick);
    assert!(gap.lost == 0 && gap.share(1).abs_diff(750) < 30 && gap.share(2).abs_diff(250) < 30, "{gap:?}");
}

/// Alike but for one that is slow, one that is dear, and one of which every third request fails.
#[test]
fn balanced_prefers_who_is_good_in_all_respects() {
    let fixture = Fixture::new(&[4], |slot, deployment, _| {
        deployment.price = if slot == 2 { price(10, 40) } else { price(1, 4) };
    });
    let weather = |slot: usize| match slot {
        1 => SLOW,
        3 => Weather { failing: 333, ..FINE },
        _ => FINE,
    };
    let mut world = World::new(&fixture);
    world.run(Strategy::Balanced, (1_200, MINUTE), weather);
    let settled = world.run(Strategy::Balanced, (1_200, 6 * MINUTE), weather);
    assert!(settled.share(0) > 650, "{settled:?}");
    assert!(
        (1..=2).all(|slot| (5..100).contains(&settled.share(slot))),
        "little, and never nothing: {settled:?}"
    );
    assert!(settled.share(3) < 250 && settled.lost == 0, "{settled:?}");
    world.run(Strategy::Balanced, (1_200, 6 * MINUTE), |_| FINE);
    let healed = world.run(Strategy::Balanced, (1_200, 2 * MINUTE), |_| FINE);
    assert!((1..=3).step_by(2).all(|slot| healed.share(slot).abs_diff(healed.share(0)) < 60), "{healed:?}");
    assert!(healed.share(2) < 60, "still dear: {healed:?}");
}
