//! The table as requests and the control plane use it, on a clock that is set by hand.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use nemo_proto::quota::{
    BudgetGrant, BudgetReport, Exhausted, LeaseDirective, LeaseReport, RateAssignment, Recall,
};
use nemo_snapshot::{Budget, BudgetKind, NoLease, OverBudget, RateLimit, ReservationBound, Scope};
use nemo_types::{BudgetId, LeaseId, Nanos, RateLimitId};

use super::*;

mod refusals;

const TTL: Duration = Duration::from_secs(3600);

fn budget(no_lease: NoLease) -> Arc<Budget> {
    Arc::new(Budget {
        id: BudgetId::generate(),
        name: "b".into(),
        scope: Scope::Organization,
        kind: BudgetKind::Limit,
        over_budget: OverBudget::Reject,
        no_lease,
        bound: ReservationBound::Strict,
    })
}

fn deny() -> Arc<Budget> {
    budget(NoLease::Deny)
}

struct Node {
    clock: Clock,
    table: QuotaTable,
}

impl Node {
    fn new() -> Self {
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(1000));
        Self { table: QuotaTable::new(clock.clone(), QuotaMetrics::default()), clock }
    }

    /// One report, and this as its answer.
    fn exchange(&self, full: bool, directive: LeaseDirective) -> LeaseReport {
        let report = self.table.report(full);
        self.table.apply(&LeaseDirective { answers: report.seq, ..directive });
        report
    }

    fn grant(&self, grants: Vec<BudgetGrant>) -> LeaseReport {
        self.exchange(false, LeaseDirective { grants, ..LeaseDirective::default() })
    }

    fn renew(&self) -> LeaseReport {
        self.exchange(false, LeaseDirective::default())
    }

    fn reserve(&self, budget: &Arc<Budget>, nanos: i64) -> Result<Hold, Denied> {
        self.table.reserve(std::slice::from_ref(budget), Nanos(nanos))
    }
}

fn grant(budget: &Budget, lease: LeaseId, total: i64) -> BudgetGrant {
    BudgetGrant {
        lease_id: Bytes::copy_from_slice(lease.as_bytes()),
        budget_id: Bytes::copy_from_slice(budget.id.as_bytes()),
        window_start_unix_s: 86_400,
        granted_total: total,
        ttl_ms: u32::try_from(TTL.as_millis()).unwrap(),
        valid_after_ms: 0,
        valid_for_ms: 0,
    }
}

fn of(report: &LeaseReport, lease: LeaseId) -> Option<&BudgetReport> {
    report.budgets.iter().find(|it| it.lease_id == lease.as_bytes()[..])
}

#[test]
fn a_hold_is_all_or_nothing_over_its_budgets_and_settles_where_it_reserved() {
    let (node, lease) = (Node::new(), [(); 2].map(|()| LeaseId::generate()));
    let (rich, poor) = (deny(), deny());
    node.grant(vec![grant(&rich, lease[0], 100), grant(&poor, lease[1], 40)]);
    let both = [poor.clone(), rich.clone()];
    let denied = node.table.reserve(&both, Nanos(50)).unwrap_err();
    assert!(matches!(denied, Denied::Short { affordable: Nanos(40), .. }), "{denied:?}");
    assert_eq!(node.table.affordable(&both), Nanos(40));
    assert_eq!(node.table.affordable(std::slice::from_ref(&rich)), Nanos(100), "nothing stayed reserved");
    let mut hold = node.table.reserve(&both, Nanos(30)).unwrap();
    hold.sent();
    assert_eq!(node.table.affordable(&both), Nanos(10));
    let charges = hold.settle(Nanos(7));
    let mut expected = [(rich.id, lease[0]), (poor.id, lease[1])];
    expected.sort();
    let made = charges.iter().map(|it| (it.budget, it.lease.unwrap())).collect::<Vec<_>>();
    assert_eq!(made, expected);
    assert!(charges.iter().all(|it| it.nanos == Nanos(7) && it.window_start_unix_s == 86_400));
    assert_eq!(node.table.affordable(&both), Nanos(33));
}

/// C2: whatever becomes of a request, its reservation ends.
#[test]
fn c2_a_dropped_hold_refunds_before_it_was_sent_and_is_charged_afterwards() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    node.grant(vec![grant(&budget, lease, 100)]);
    drop(node.reserve(&budget, 60).unwrap());
    assert_eq!(node.table.affordable(std::slice::from_ref(&budget)), Nanos(100));
    let mut hold = node.reserve(&budget, 60).unwrap();
    hold.sent();
    drop(hold);
    assert_eq!(node.table.affordable(std::slice::from_ref(&budget)), Nanos(40));
    assert_eq!(of(&node.renew(), lease).unwrap().spent_total, 60);
}

#[test]
fn an_extension_is_all_or_nothing_and_may_continue_in_another_lease() {
    let (node, budget) = (Node::new(), deny());
    let [first, second] = [(); 2].map(|()| LeaseId::generate());
    node.grant(vec![BudgetGrant { valid_for_ms: 10_000, ..grant(&budget, first, 50) }]);
    let mut hold = node.reserve(&budget, 20).unwrap();
    hold.extend(Nanos(20)).unwrap();
    assert!(matches!(hold.extend(Nanos(20)), Err(Denied::Short { affordable: Nanos(10), .. })));
    assert_eq!(hold.reserved(), Nanos(40));
    // The window ends; its lease is handed back but for what is held.
    node.clock.advance(Duration::from_secs(11));
    let next = BudgetGrant { window_start_unix_s: 172_800, ..grant(&budget, second, 500) };
    let report = node.grant(vec![next]);
    let line = of(&report, first).unwrap();
    assert_eq!((line.done, line.returned_total, line.reserved), (true, 10, 40));
    hold.extend(Nanos(60)).unwrap();
    let at_bound: Vec<_> = hold.charges().iter().map(|it| (it.lease.unwrap(), it.nanos.0)).collect();
    assert_eq!(at_bound, [(first, 40), (second, 60)]);
    let charges: Vec<_> = hold
        .settle(Nanos(130))
        .iter()
        .map(|it| (it.lease.unwrap(), it.window_start_unix_s, it.nanos.0))
        .collect();
    assert_eq!(
        charges,
        [(first, 86_400, 40), (second, 172_800, 90)],
        "the last one bears what is above the bound"
    );
    assert_eq!(node.table.affordable(&[budget]), Nanos(410));
}

/// I13, D7: nothing is spent of what the control plane may have given to somebody else.
#[test]
fn i13_a_lease_expires_by_this_clock_and_never_comes_back() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    node.grant(vec![grant(&budget, lease, 100)]);
    let hold = node.reserve(&budget, 30).unwrap();
    let late = node.table.report(false);
    node.clock.advance(TTL - Duration::from_secs(37));
    drop(node.reserve(&budget, 1).unwrap());
    node.clock.advance(Duration::from_secs(2));
    assert!(matches!(node.reserve(&budget, 1), Err(Denied::NoLease { .. })), "the margin is kept");
    // The answer to what was asked an hour ago renews nothing, and neither does a new one revive it.
    node.table.apply(&LeaseDirective { answers: late.seq, ..LeaseDirective::default() });
    assert!(node.reserve(&budget, 1).is_err());
    let report = node.renew();
    assert_eq!(of(&report, lease).map(|it| (it.done, it.returned_total)), Some((true, 70)));
    assert!(node.reserve(&budget, 1).is_err());
    node.grant(vec![grant(&budget, lease, 150)]);
    assert!(node.reserve(&budget, 1).is_err(), "more of a dead lease is handed back");
    drop(hold);
    assert_eq!(of(&node.renew(), lease).unwrap().returned_total, 150);
    assert!(!node.table.is_empty() || of(&node.renew(), lease).is_none());
}

/// D7: an answer counts from when its report was sent, however long it was under way.
#[test]
fn i13_leases_live_from_when_the_answered_report_was_sent() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    let asked = node.table.report(true);
    node.clock.advance(TTL / 2);
    let grants = vec![grant(&budget, lease, 100)];
    node.table.apply(&LeaseDirective { answers: asked.seq, grants, ..LeaseDirective::default() });
    assert!(node.reserve(&budget, 1).is_ok());
    node.clock.advance(TTL / 2 - Duration::from_secs(30));
    assert!(node.reserve(&budget, 1).is_err());
}

#[test]
fn doubled_and_reordered_directives_change_nothing() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    node.grant(vec![grant(&budget, lease, 200)]);
    for total in [100, 200, 150] {
        node.table.apply(&LeaseDirective {
            grants: vec![grant(&budget, lease, total)],
            ..LeaseDirective::default()
        });
    }
    assert_eq!(node.table.affordable(std::slice::from_ref(&budget)), Nanos(200));
    // It ends, and the message that granted it comes once more.
    let mut hold = node.reserve(&budget, 200).unwrap();
    hold.sent();
    hold.settle(Nanos(200));
    node.table.drain();
    node.renew();
    node.renew();
    assert!(node.table.is_empty());
    node.grant(vec![grant(&budget, lease, 200)]);
    assert_eq!(node.table.affordable(&[budget]), Nanos(0));
}

#[test]
fn a_recall_hands_back_what_is_not_reserved_and_says_so_at_once() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    node.grant(vec![grant(&budget, lease, 100)]);
    let hold = node.reserve(&budget, 30).unwrap();
    while node.table.urgent().now_or_never().is_some() {}
    let recall = Recall { lease_id: Bytes::copy_from_slice(lease.as_bytes()), keep: 25 };
    node.table.apply(&LeaseDirective { recalls: vec![recall.clone(), recall], ..LeaseDirective::default() });
    assert!(node.table.urgent().now_or_never().is_some());
    let line = of(&node.renew(), lease).cloned().unwrap();
    assert_eq!((line.returned_total, line.reserved, line.done), (45, 30, false));
    assert_eq!(node.table.affordable(std::slice::from_ref(&budget)), Nanos(25));
    drop(hold);
    assert_eq!(node.table.affordable(&[budget]), Nanos(55));
}

/// Two nodes that take the end of a budget from each other must not do so for ever.
#[test]
fn who_is_recalled_asks_for_nothing_in_advance_and_keeps_what_its_waiting_requests_need() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    node.grant(vec![grant(&budget, lease, 100_000)]);
    for _ in 0..50 {
        let mut hold = node.reserve(&budget, 1000).unwrap();
        hold.sent();
        hold.settle(Nanos(1000));
        node.clock.advance(Duration::from_secs(1));
    }
    let recalls = vec![Recall { lease_id: Bytes::copy_from_slice(lease.as_bytes()), keep: 0 }];
    assert!(of(&node.renew(), lease).unwrap().wants > 0);
    node.exchange(false, LeaseDirective { recalls: recalls.clone(), ..LeaseDirective::default() });
    assert_eq!(of(&node.renew(), lease).unwrap().wants, 0);
    assert!(matches!(node.reserve(&budget, 700), Err(Denied::Short { .. })));
    let grants = vec![grant(&budget, lease, 100_700)];
    let report = node.exchange(false, LeaseDirective { grants, recalls, ..LeaseDirective::default() });
    let line = of(&report, lease).unwrap();
    assert_eq!((line.wants, line.needs), (700, 700));
    assert!(node.reserve(&budget, 700).is_ok(), "it came for this request");
    node.clock.advance(Duration::from_secs(31));
    assert!(of(&node.renew(), lease).unwrap().wants > 0);
}

/// A 402 costs no round trip, and yet money that comes back is found.
#[test]
fn an_exhausted_budget_is_remembered_while_its_need_is_still_told() {
    let (node, budget) = (Node::new(), deny());
    let denied = node.reserve(&budget, 10).unwrap_err();
    assert!(matches!(denied, Denied::NoLease { .. }));
    assert!(node.table.urgent().now_or_never().is_some());
    let exhausted = Exhausted {
        budget_id: Bytes::copy_from_slice(budget.id.as_bytes()),
        window_start_unix_s: 86_400,
        limit: 1000,
        settled: 990,
        outstanding: 10,
        resets_in_ms: 60_000,
        retry_after_ms: 5000,
        eases_in_ms: 0,
    };
    let directive = LeaseDirective { exhausted: vec![exhausted], ..LeaseDirective::default() };
    let report = node.exchange(false, directive);
    let line = &report.budgets[0];
    assert_eq!((&line.lease_id[..], line.wants, line.needs), (&[][..], 10, 10));
    assert_eq!(node.table.retry_in(), Some(Duration::from_secs(5)));
    node.clock.advance(Duration::from_secs(1));
    match node.reserve(&budget, 10).unwrap_err() {
        Denied::Exhausted { limit, settled, resets_in, retry_after, .. } => {
            assert_eq!((limit, settled), (Nanos(1000), Nanos(990)));
            assert_eq!(resets_in, Some(Duration::from_secs(59)));
            assert_eq!(retry_after, Some(Duration::from_secs(4)));
        }
        other => panic!("{other:?}"),
    }
    assert!(node.table.urgent().now_or_never().is_none(), "nobody is asked for it at once");
    assert!(node.renew().budgets[0].wants >= 10, "but with the next report");
    node.clock.advance(Duration::from_secs(4));
    assert!(matches!(node.reserve(&budget, 10), Err(Denied::NoLease { .. })), "worth asking again");
    node.grant(vec![grant(&budget, LeaseId::generate(), 10)]);
    assert!(node.reserve(&budget, 10).is_ok());
}

#[test]
fn a_refusal_tells_what_was_spent_here_since_it_was_noted() {
    let (node, budget) = (Node::new(), deny());
    node.grant(vec![grant(&budget, LeaseId::generate(), 100)]);
    let exhausted = Exhausted {
        budget_id: Bytes::copy_from_slice(budget.id.as_bytes()),
        window_start_unix_s: 86_400,
        limit: 100,
        outstanding: 100,
        ..Exhausted::default()
    };
    node.exchange(false, LeaseDirective { exhausted: vec![exhausted], ..LeaseDirective::default() });
    let mut hold = node.reserve(&budget, 80).unwrap();
    hold.sent();
    hold.settle(Nanos(80));
    match node.reserve(&budget, 30).unwrap_err() {
        Denied::Exhausted { limit, settled, .. } => assert_eq!((limit, settled), (Nanos(100), Nanos(80))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_waits_is_woken_by_a_grant_a_refund_and_an_answer_that_there_is_nothing() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    let denied = node.reserve(&budget, 10).unwrap_err();
    let mut waits = Box::pin(node.table.wanted(&denied));
    assert!(waits.as_mut().now_or_never().is_none());
    node.grant(vec![grant(&budget, lease, 10)]);
    assert!(waits.now_or_never().is_some());
    assert!(node.table.wanted(&denied).now_or_never().is_some(), "it had come before the wait began");
    let hold = node.reserve(&budget, 10).unwrap();
    let denied = node.reserve(&budget, 10).unwrap_err();
    let mut waits = Box::pin(node.table.wanted(&denied));
    assert!(waits.as_mut().now_or_never().is_none());
    drop(hold);
    assert!(waits.now_or_never().is_some());
}

#[test]
fn a_budget_that_allows_it_is_charged_without_a_lease() {
    let (node, budget) = (Node::new(), budget(NoLease::Allow));
    let mut hold = node.reserve(&budget, 10).unwrap();
    hold.sent();
    hold.extend(Nanos(5)).unwrap();
    assert_eq!(hold.charges()[0].nanos, Nanos(15));
    let charges = hold.settle(Nanos(7));
    assert_eq!((charges.len(), charges[0].lease, charges[0].nanos), (1, None, Nanos(7)));
    assert!(node.renew().budgets[0].wants >= 10, "a lease is asked for all the same");
}

/// What is asked for: an outage's worth of spending, and at least what requests wait for.
#[test]
fn wants_follow_the_spending() {
    let (node, budget, lease) = (Node::new(), deny(), LeaseId::generate());
    node.grant(vec![grant(&budget, lease, 10_000_000)]);
    for _ in 0..100 {
        let mut hold = node.reserve(&budget, 1000).unwrap();
        hold.sent();
        hold.settle(Nanos(1000));
        node.clock.advance(Duration::from_secs(1));
    }
    let line = of(&node.renew(), lease).cloned().unwrap();
    assert!((900..=1000).contains(&line.spend_rate), "{line:?}");
    assert_eq!((line.spent_total, line.wants), (100_000, 0), "there is enough");
    let hold = node.reserve(&budget, 9_800_000).unwrap();
    let line = of(&node.renew(), lease).cloned().unwrap();
    assert!(line.wants > 600_000, "{line:?}");
    drop(hold);
}

#[test]
fn an_idle_lease_goes_back_but_what_came_unasked() {
    let (node, budget, other) = (Node::new(), deny(), deny());
    let [standby, asked] = [(); 2].map(|()| LeaseId::generate());
    node.grant(vec![grant(&budget, standby, 10)]);
    node.reserve(&other, 5).unwrap_err();
    node.grant(vec![grant(&budget, standby, 100), grant(&other, asked, 100)]);
    node.clock.advance(Duration::from_secs(301));
    let report = node.renew();
    assert_eq!(of(&report, standby).unwrap().returned_total, 90);
    assert_eq!(of(&report, asked).unwrap().returned_total, 100);
    assert_eq!(node.table.affordable(&[budget]), Nanos(10));
}

/// I12: what nobody uses is forgotten.
#[test]
fn i12_accounts_and_meters_of_the_past_are_dropped() {
    let node = Node::new();
    for _ in 0..100 {
        node.reserve(&deny(), 10).unwrap_err();
        node.table.admit(&[limit(10, 0, None)], 0).unwrap();
    }
    assert_eq!((node.table.inner.accounts.len(), node.table.inner.meters.len()), (100, 100));
    for _ in 0..10 {
        node.clock.advance(Duration::from_secs(200));
        node.renew();
    }
    assert_eq!((node.table.inner.accounts.len(), node.table.inner.meters.len()), (0, 0));
    assert!(
        node.renew().budgets.is_empty() && node.renew().rates.is_empty(),
        "an idle node has nothing to say"
    );
}

fn limit(requests: u64, tokens: u64, concurrent: Option<u32>) -> Arc<RateLimit> {
    Arc::new(RateLimit {
        id: RateLimitId::generate(),
        name: "r".into(),
        scope: Scope::Organization,
        model: "".into(),
        requests_per_minute: requests.try_into().ok(),
        tokens_per_minute: tokens.try_into().ok(),
        concurrent,
    })
}

/// C22: neither parallel calls nor the edge of a window get more than the limit.
#[test]
fn c22_a_minutes_worth_passes_at_once_and_then_the_pace() {
    let (node, limit) = (Node::new(), limit(6, 0, None));
    let admit = || node.table.admit(std::slice::from_ref(&limit), 100);
    assert_eq!((0..10).filter(|_| admit().is_ok()).count(), 6);
    let limited = admit().unwrap_err();
    assert_eq!((limited.what, limited.retry_after), (What::Requests, Duration::from_secs(10)));
    let view = limited.view.requests.unwrap();
    assert_eq!((view.limit, view.remaining, view.reset), (6, 0, Duration::from_secs(60)));
    assert_eq!(limited.view.tokens, None);
    node.clock.advance(Duration::from_secs(10));
    assert!(admit().is_ok() && admit().is_err());
}

/// C21: a refused request costs nothing, of any limit, and a slot comes back with the request's end.
#[test]
fn c21_all_limits_are_checked_before_any_is_charged() {
    let (node, wide, narrow) = (Node::new(), limit(3, 0, None), limit(0, 0, Some(1)));
    let both = [wide.clone(), narrow];
    let pass = node.table.admit(&both, 1).unwrap();
    for _ in 0..10 {
        assert_eq!(node.table.admit(&both, 1).unwrap_err().what, What::Concurrent);
    }
    assert_eq!(pass.view().requests.unwrap().remaining, 2);
    drop(pass);
    drop(node.table.admit(&both, 1).unwrap());
    assert_eq!(node.table.view(&[wide]).requests.unwrap().remaining, 1);
}

/// C21: the same of one that is refused after it was let through.
#[test]
fn c21_what_is_refused_later_is_given_back() {
    let (node, limit) = (Node::new(), limit(6, 600, None));
    let admit = || node.table.admit(std::slice::from_ref(&limit), 100);
    let left = || {
        let view = node.table.view(std::slice::from_ref(&limit));
        (view.requests.unwrap().remaining, view.tokens.unwrap().remaining)
    };
    let _first = admit().unwrap();
    for _ in 0..20 {
        let mut pass = admit().unwrap();
        assert_eq!(left(), (4, 400));
        let info = allocation_counter::measure(|| pass.refund());
        assert_eq!((left(), info.count_total), ((5, 500), 0));
    }
    // Of one that was let through long ago nothing is left to give back.
    let mut late = admit().unwrap();
    node.clock.advance(Duration::from_secs(120));
    late.refund();
    assert_eq!(left(), (6, 600));
}

/// C22: an estimate is charged first, and corrected by what it was.
#[test]
fn c22_tokens_are_charged_by_estimate_and_corrected() {
    let (node, limit) = (Node::new(), limit(0, 1000, None));
    let admit = |tokens| node.table.admit(std::slice::from_ref(&limit), tokens);
    let remaining = || node.table.view(std::slice::from_ref(&limit)).tokens.unwrap().remaining;
    assert_eq!(admit(1001).unwrap_err().what, What::Tokens, "it never passes");
    let mut pass = admit(600).unwrap();
    let limited = admit(600).unwrap_err();
    assert_eq!(limited.what, What::Tokens);
    assert!((11..=13).contains(&limited.retry_after.as_secs()), "{limited:?}");
    pass.settle_tokens(100);
    assert_eq!(remaining(), 900);
    let mut pass = admit(600).unwrap();
    pass.settle_tokens(800);
    assert!((99..=100).contains(&remaining()), "{}", remaining());
}

#[test]
fn a_node_takes_its_part_of_a_limit_and_what_was_used_stays_used() {
    let (node, limit) = (Node::new(), limit(60, 0, Some(4)));
    let admit = || node.table.admit(std::slice::from_ref(&limit), 0);
    node.exchange(true, LeaseDirective { nodes: 2, ..LeaseDirective::default() });
    let passed: Vec<_> = (0..100).filter_map(|_| admit().ok()).collect();
    assert_eq!(passed.len(), 2, "slots of this node");
    drop(passed);
    assert_eq!((0..100).filter(|_| admit().is_ok()).count(), 28, "half a limit in all");
    let share = |ppm, concurrent| RateAssignment {
        limit_id: Bytes::copy_from_slice(limit.id.as_bytes()),
        requests_ppm: ppm,
        tokens_ppm: 0,
        concurrent,
    };
    let report = node
        .exchange(false, LeaseDirective { rates: vec![share(1_000_000, 4)], ..LeaseDirective::default() });
    assert!(report.rates[0].requests_per_minute > 30 && report.rates[0].refused > 100, "{report:?}");
    assert_eq!((0..100).filter(|_| admit().is_ok()).count(), 30, "the other half");
    // A share that is nearly nothing still lets one through when its time has come.
    node.exchange(false, LeaseDirective { rates: vec![share(1000, 1)], ..LeaseDirective::default() });
    assert!(admit().is_err());
    node.clock.advance(Duration::from_secs(3601));
    assert_eq!((0..100).filter(|_| admit().is_ok()).count(), 1);
}

/// Hot counters must not be torn by threads: what is granted is never exceeded, and nothing is lost.
#[test]
fn i3_threads_together_never_reserve_more_than_was_granted() {
    let (node, budgets) = (Node::new(), [deny(), deny(), deny()]);
    let leases = [(); 3].map(|()| LeaseId::generate());
    let grants = budgets.iter().zip(leases).map(|(budget, lease)| grant(budget, lease, 10_000));
    node.grant(grants.collect());
    let (table, budgets) = (&node.table, &budgets);
    let spent: i64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|seed| {
                scope.spawn(move || {
                    let (mut random, mut spent) = (fastrand::Rng::with_seed(seed), 0);
                    for _ in 0..5000 {
                        let bound = random.i64(1..50);
                        let Ok(mut hold) = table.reserve(budgets, Nanos(bound)) else { continue };
                        if random.bool() {
                            hold.sent();
                            let cost = random.i64(0..=bound.min(3));
                            hold.settle(Nanos(cost));
                            spent += cost;
                        }
                    }
                    spent
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(spent <= 10_000);
    assert_eq!(table.affordable(budgets), Nanos(10_000 - spent));
}

/// I3 costs a request less than a microsecond and no allocation.
#[test]
fn a_reservation_over_three_budgets_and_two_limits_allocates_nothing() {
    let (node, budgets) = (Node::new(), [deny(), deny(), deny()]);
    let grants = budgets.iter().map(|budget| grant(budget, LeaseId::generate(), 1 << 50));
    node.grant(grants.collect());
    let limits = [limit(1_000_000, 1_000_000, None), limit(1_000_000, 1_000_000, Some(9))];
    let once = || {
        let mut pass = node.table.admit(&limits, 10).unwrap();
        let mut hold = node.table.reserve(&budgets, Nanos(50)).unwrap();
        hold.sent();
        let charges = hold.settle(Nanos(20));
        pass.settle_tokens(7);
        charges.len()
    };
    once();
    let info = allocation_counter::measure(|| assert_eq!(once(), 3));
    assert_eq!(info.count_total, 0, "{info:?}");
}
