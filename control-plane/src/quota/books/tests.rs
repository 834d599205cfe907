//! Covers I3, C 1, 2, 6, D 6, 8.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const LIMIT: i64 = 10_000;
const LEASES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Grant(usize, i64),
    /// Hands back up to so much of what the node has not spent, and says so once more.
    HandBack(usize, i64),
    /// A report that was on its way for long.
    OldReport(usize, i64),
    Spend(usize, i64),
    SpendBare(i64),
    Done(usize),
    Hold(usize),
    Close(usize, bool),
    Release(usize),
    SetLimit(i64),
    Hours(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let lease = 0..LEASES;
    prop_oneof![
        4 => (lease.clone(), -5_i64..4000).prop_map(|(at, nanos)| Step::Grant(at, nanos)),
        3 => (lease.clone(), 0_i64..3000).prop_map(|(at, nanos)| Step::HandBack(at, nanos)),
        1 => (lease.clone(), -100_i64..6000).prop_map(|(at, nanos)| Step::OldReport(at, nanos)),
        4 => (lease.clone(), -5_i64..3000).prop_map(|(at, nanos)| Step::Spend(at, nanos)),
        1 => (0_i64..500).prop_map(Step::SpendBare),
        1 => lease.clone().prop_map(Step::Done),
        1 => lease.clone().prop_map(Step::Hold),
        1 => (lease.clone(), any::<bool>()).prop_map(|(at, charge)| Step::Close(at, charge)),
        1 => lease.prop_map(Step::Release),
        1 => (0_i64..2 * LIMIT).prop_map(Step::SetLimit),
        2 => (0_i64..4).prop_map(Step::Hours),
    ]
}

struct World {
    window: WindowRow,
    leases: Vec<LeaseRow>,
    entries: Vec<Entry>,
    now: Millis,
    /// What requests have cost.
    cost: i64,
}

impl World {
    fn new(rolling: bool) -> Self {
        let key = WindowKey { budget: BudgetId(Uuid::nil()), start: 0 };
        let org = OrgId(Uuid::nil());
        let mut window = WindowRow::new(key, org, None, LIMIT, 0);
        window.rolling_hours = rolling.then_some(2);
        let lease = |number: usize| LeaseRow {
            id: LeaseId(Uuid::from_u128(number as u128)),
            key,
            org,
            node_id: "n".into(),
            epoch: 1,
            granted: 0,
            returned: 0,
            spent: 0,
            overrun: 0,
            forfeited: 0,
            reserved: 0,
            state: LeaseState::Active,
            asked: false,
            ttl_ms: 1,
            held_at: None,
            closed_at: None,
        };
        Self { window, leases: (0..LEASES).map(lease).collect(), entries: Vec::new(), now: 0, cost: 0 }
    }

    /// False when a grant broke the limit.
    fn take(&mut self, step: &Step) -> bool {
        let (window, entries, now) = (&mut self.window, &mut self.entries, self.now);
        match *step {
            Step::Grant(at, nanos) => {
                ask(window, &mut self.leases[at], now);
                if grant(window, &mut self.leases[at], nanos) {
                    return window.settled + window.outstanding + window.overrun <= window.limit;
                }
            }
            Step::HandBack(at, nanos) => {
                let lease = &mut self.leases[at];
                let total = lease.returned + nanos;
                hand_back(window, lease, total, now);
                assert_eq!(hand_back(window, lease, total.min(lease.returned), now), 0, "once");
            }
            Step::OldReport(at, back) => {
                let lease = &mut self.leases[at];
                let before = lease.returned;
                hand_back(window, lease, before.saturating_sub(back.abs()), now);
                assert_eq!(lease.returned, before, "an old total changes nothing");
            }
            Step::Spend(at, nanos) => {
                settle(window, Some(&mut self.leases[at]), nanos, now, entries);
                self.cost += nanos.max(0);
            }
            Step::SpendBare(nanos) => {
                settle(window, None, nanos, now, entries);
                self.cost += nanos;
            }
            Step::Done(at) => done(window, &mut self.leases[at], now),
            Step::Hold(at) => hold(window, &mut self.leases[at], now),
            Step::Close(at, charge) => {
                let policy = if charge { LostLease::Charge } else { LostLease::Release };
                close(window, &mut self.leases[at], policy, now, entries);
            }
            Step::Release(at) => {
                release(window, &mut self.leases[at], now, entries);
            }
            Step::SetLimit(limit) => window.limit = limit,
            Step::Hours(hours) => {
                self.now += hours * HOUR_MS;
                if let Some(oldest) = window.oldest_hour(self.now) {
                    let kept = window.slots.split_off(&oldest);
                    for slot in std::mem::replace(&mut window.slots, kept).into_values() {
                        age_out(window, slot);
                    }
                }
            }
        }
        true
    }

    fn sum(&self, of: &[Kind]) -> i64 {
        self.entries.iter().filter(|it| of.contains(&it.kind)).map(|it| it.nanos.0).sum()
    }

    /// What must hold between any two steps.
    fn check(&self) -> Result<(), TestCaseError> {
        let window = &self.window;
        let outstanding: i64 = self.leases.iter().map(LeaseRow::outstanding).sum();
        prop_assert_eq!(window.outstanding, outstanding);
        prop_assert!(window.settled >= 0 && window.overrun >= 0, "{:?}", window);
        let asked = self.leases.iter().filter(|it| it.asked).count();
        prop_assert_eq!(usize::try_from(window.users).unwrap(), asked);
        for lease in &self.leases {
            prop_assert!(lease.outstanding() >= 0 && lease.forfeited >= 0, "{:?}", lease);
            prop_assert!(!lease.is_closed() || lease.outstanding() == 0);
        }
        // No money is made or lost between the totals and the ledger.
        let settled = [Kind::Settle, Kind::Forfeit, Kind::Adjust, Kind::Release];
        prop_assert_eq!(window.settled + window.aged, self.sum(&settled));
        prop_assert_eq!(window.overrun + window.aged_overrun, self.sum(&[Kind::Overrun]));
        // Every request is in the ledger at exactly what it cost.
        prop_assert_eq!(self.cost, self.sum(&[Kind::Settle, Kind::Overrun]));
        if window.rolling_hours.is_some() {
            let slots: i64 = window.slots.values().map(|slot| slot.settled).sum();
            prop_assert_eq!(window.settled, slots);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn i3_no_grant_passes_the_limit_and_no_money_is_lost_or_made(
        rolling in any::<bool>(), steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(rolling);
        for step in &steps {
            prop_assert!(world.take(step), "{:?}", step);
            world.check()?;
        }
        // Everything ends.
        for at in 0..LEASES {
            world.take(&Step::Close(at, true));
        }
        world.check()?;
        prop_assert_eq!(world.window.outstanding, 0);
        prop_assert_eq!(world.window.users, 0);
    }

    /// Events may come before the node's report or after it, and the lease may be closed in between: the same is booked.
    #[test]
    fn the_order_of_events_and_reports_does_not_matter(
        granted in 1_i64..5000, spend in prop::collection::vec(1_i64..800, 0..6), seed in any::<u64>(),
    ) {
        let spent: i64 = spend.iter().sum();
        prop_assume!(spent <= granted);
        let mut steps: Vec<Step> = spend.iter().map(|nanos| Step::Spend(0, *nanos)).collect();
        // What the node's last report says.
        steps.push(Step::HandBack(0, granted - spent));
        steps.push(Step::Done(0));
        let mut world = World::new(false);
        prop_assert!(world.take(&Step::Grant(0, granted)));
        let mut seed = seed;
        while !steps.is_empty() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(seed >> 33).unwrap() % steps.len();
            let step = steps.remove(at);
            // Totals, not differences: `HandBack` says what is back in all.
            prop_assert!(world.take(&step));
            world.check()?;
        }
        prop_assert_eq!((world.window.settled, world.window.overrun), (spent, 0));
        prop_assert_eq!(world.leases[0].state, LeaseState::Closed);
    }
}

#[test]
fn what_an_operator_releases_after_it_aged_out_does_not_come_free_twice() {
    let mut world = World::new(true);
    world.take(&Step::Grant(0, 1000));
    world.take(&Step::Close(0, true));
    world.take(&Step::Hours(3));
    assert_eq!((world.window.settled, world.window.aged), (0, 1000));
    world.take(&Step::Release(0));
    assert_eq!((world.window.settled, world.window.aged), (0, 0));
    world.check().unwrap();
}

#[test]
fn entries_of_one_kind_and_lease_are_merged() {
    let mut world = World::new(false);
    world.take(&Step::Grant(0, 100));
    world.take(&Step::Spend(0, 60));
    world.take(&Step::Spend(0, 60));
    let merged = merged(world.entries);
    let seen: Vec<_> = merged.iter().map(|it| (it.kind, it.nanos.0)).collect();
    assert_eq!(seen, [(Kind::Settle, 100), (Kind::Overrun, 20)]);
}
