//! Requests against leases of a node that no control plane talks to but the test.

use std::sync::Arc;

use nemo_proto::quota::{BudgetGrant, Exhausted, LeaseDirective};
use nemo_snapshot::{BudgetKind, ReservationBound, Scope};
use nemo_types::{BudgetId, LeaseId};
use proptest::prelude::*;

use super::*;
use crate::quota::{Clock, QuotaMetrics};

/// A nano-USD for each token, whichever way, so that money reads as tokens.
const RATE: i64 = 1_000_000;
const INPUT: i64 = 100;

fn budget(over_budget: OverBudget) -> Arc<Budget> {
    Arc::new(Budget {
        id: BudgetId::generate(),
        name: "b".into(),
        scope: Scope::Organization,
        kind: BudgetKind::Limit,
        over_budget,
        no_lease: NoLease::Deny,
        bound: ReservationBound::Strict,
    })
}

fn table() -> QuotaTable {
    QuotaTable::new(Clock::manual(), QuotaMetrics::default())
}

fn answer(table: &QuotaTable, directive: LeaseDirective) {
    let report = table.report(false);
    table.apply(&LeaseDirective { answers: report.seq, ..directive });
}

fn grant(table: &QuotaTable, budget: &Budget, lease: LeaseId, total: i64) {
    let grant = BudgetGrant {
        lease_id: lease.as_bytes().to_vec().into(),
        budget_id: budget.id.as_bytes().to_vec().into(),
        granted_total: total,
        ttl_ms: 3_600_000,
        ..BudgetGrant::default()
    };
    answer(table, LeaseDirective { grants: vec![grant], ..LeaseDirective::default() });
}

fn exhausted(table: &QuotaTable, budget: &Budget) {
    let note = Exhausted {
        budget_id: budget.id.as_bytes().to_vec().into(),
        limit: 1000,
        settled: 900,
        outstanding: 100,
        ..Exhausted::default()
    };
    answer(table, LeaseDirective { exhausted: vec![note], ..LeaseDirective::default() });
}

fn terms(output: u64) -> Terms {
    Terms { fixed: Nanos(INPUT), rate: RATE, output, most: output, hidden: false, must_cap: false }
}

fn request(table: &QuotaTable, budgets: &[&Arc<Budget>], output: u64) -> Request {
    let mut budgets: Budgets = budgets.iter().map(|it| (*it).clone()).collect();
    budgets.sort_unstable_by_key(|it| it.id);
    Request {
        quota: table.clone(),
        budgets,
        ceiling: None,
        mode: Mode::Strict,
        terms: [terms(output), terms(output)].into_iter().collect(),
        choices: 1,
        asked: None,
        can_be_capped: true,
        stream: false,
        patience: Duration::ZERO,
    }
}

fn left(table: &QuotaTable, budget: &Arc<Budget>) -> i64 {
    table.affordable(std::slice::from_ref(budget)).0
}

/// I3: a complete answer is held for in full, and what it did not take comes back.
#[test]
fn i3_a_request_holds_what_it_can_cost_until_it_is_settled() {
    let (table, budget) = (table(), budget(OverBudget::Reject));
    grant(&table, &budget, LeaseId::generate(), 10_000);
    let mut spending = Spending::new(request(&table, &[&budget], 4000)).unwrap();
    spending.hold(false).unwrap();
    assert_eq!((spending.held(), left(&table, &budget)), (Nanos(4100), 5900));
    spending.sent();
    let charges = spending.settle(Nanos(130));
    assert_eq!((charges.len(), charges[0].nanos, left(&table, &budget)), (1, Nanos(130), 9870));
    // One that was never sent costs nothing.
    let mut refused = Spending::new(request(&table, &[&budget], 4000)).unwrap();
    refused.hold(false).unwrap();
    drop(refused);
    assert_eq!(left(&table, &budget), 9870);
}

/// Waiting comes first: a limit on the output is for when there is no more.
#[test]
fn a_request_is_capped_only_when_nothing_more_comes() {
    let (table, budget) = (table(), budget(OverBudget::Cap));
    let lease = LeaseId::generate();
    let mut spending = Spending::new(request(&table, &[&budget], 4000)).unwrap();
    assert!(matches!(spending.hold(false), Err(Refused::Wait(Denied::NoLease { .. }))));
    grant(&table, &budget, lease, 1000);
    assert!(matches!(spending.hold(false), Err(Refused::Wait(Denied::Short { .. }))));
    spending.hold(true).unwrap();
    assert_eq!((spending.output_cap(), spending.held()), (Some(900), Nanos(1000)));
    assert_eq!(left(&table, &budget), 0);
}

#[test]
fn a_budget_that_rejects_does_not_cap() {
    let (table, one, other) = (table(), budget(OverBudget::Reject), budget(OverBudget::Cap));
    grant(&table, &one, LeaseId::generate(), 1000);
    grant(&table, &other, LeaseId::generate(), 100_000);
    let mut spending = Spending::new(request(&table, &[&one, &other], 4000)).unwrap();
    let Err(Refused::No(error)) = spending.hold(true) else { panic!("held") };
    assert_eq!(error.code(), "budget_unavailable");
    assert_eq!((left(&table, &one), left(&table, &other)), (1000, 100_000), "all or nothing");
}

/// B11: an answer of a few tokens is none.
#[test]
fn b11_what_hardly_pays_for_an_answer_is_refused() {
    let (table, budget) = (table(), budget(OverBudget::Cap));
    grant(&table, &budget, LeaseId::generate(), INPUT + 15);
    exhausted(&table, &budget);
    let mut spending = Spending::new(request(&table, &[&budget], 4000)).unwrap();
    let Err(Refused::No(error)) = spending.hold(false) else { panic!("nothing is waited for") };
    assert_eq!((error.kind.row().status, error.code()), (402, "budget_exceeded"));
    // Who asks for no more gets it.
    let mut small = Spending::new(Request { asked: Some(10), ..request(&table, &[&budget], 10) }).unwrap();
    small.hold(false).unwrap();
    assert_eq!(small.output_cap(), None);
}

/// C3: a stream holds what it is about to use, not what it might.
#[test]
fn c3_a_stream_is_held_for_in_steps_and_stopped_at_the_end() {
    let (table, budget) = (table(), budget(OverBudget::Cap));
    let lease = LeaseId::generate();
    grant(&table, &budget, lease, 1000);
    let stream = Request { stream: true, ..request(&table, &[&budget], 1_000_000) };
    let mut spending = Spending::new(stream).unwrap();
    spending.hold(false).unwrap();
    assert_eq!((spending.held(), spending.output_cap()), (Nanos(INPUT + 256), None));
    spending.sent();
    let (mut bytes, mut waits) = (0, 0);
    loop {
        let seen = i64::try_from(most_output_tokens(bytes)).unwrap();
        match spending.cover(bytes, false).0 {
            Cover::Paid => assert!(INPUT + seen <= spending.held().0, "{bytes}: {:?}", spending.held()),
            Cover::Wait(_) if waits == 0 => {
                // More comes, as much as there is.
                grant(&table, &budget, lease, 1500);
                waits += 1;
            }
            Cover::Wait(denied) => {
                assert!(matches!(denied, Denied::Short { .. }));
                let (Cover::Stop(error), _) = spending.cover(bytes, true) else { panic!("paid for") };
                assert_eq!(error.code(), "budget_unavailable");
                break;
            }
            Cover::Stop(error) => panic!("{error:?}"),
        }
        bytes += 10;
    }
    assert!((1300..=1400).contains(&bytes), "nearly everything was of use: {bytes}");
    assert!(spending.held().0 <= 1500);
    assert_eq!(spending.settle(Nanos(400))[0].nanos, Nanos(400));
    assert_eq!(left(&table, &budget), 1100);
}

#[test]
fn unseen_thoughts_are_held_for_from_the_start() {
    let (table, budget) = (table(), budget(OverBudget::Cap));
    grant(&table, &budget, LeaseId::generate(), 100_000);
    let hidden = Terms { hidden: true, ..terms(5000) };
    let stream =
        Request { stream: true, terms: [hidden].into_iter().collect(), ..request(&table, &[&budget], 0) };
    let mut spending = Spending::new(stream).unwrap();
    spending.hold(false).unwrap();
    assert_eq!(spending.held(), Nanos(INPUT + 5000));
    assert!(matches!(spending.cover(4900, false), (Cover::Paid, false)));
}

/// Requirements D 3: each attempt is held for by itself, beside what the one before may have cost.
#[test]
fn every_attempt_is_paid_for_beside_those_that_got_lost() {
    let (table, budget) = (table(), budget(OverBudget::Cap));
    grant(&table, &budget, LeaseId::generate(), 1250);
    let mut spending = Spending::new(request(&table, &[&budget], 1000)).unwrap();
    spending.hold(false).unwrap();
    spending.sent();
    assert_eq!(spending.no_answer(), Nanos(INPUT));
    spending.attempt(1, false).unwrap();
    assert_eq!(spending.held(), Nanos(INPUT + INPUT + 1000));
    spending.no_answer();
    assert!(matches!(spending.attempt(0, false), Err(Refused::Wait(_))));
    assert!(matches!(spending.attempt(0, true), Err(Refused::No(_))));
    assert_eq!(spending.settle(Nanos(2 * INPUT))[0].nanos, Nanos(200));
    assert_eq!(left(&table, &budget), 1050);
}

/// `nemo_max_cost` needs no budget.
#[test]
fn a_ceiling_caps_refuses_and_stops() {
    let table = table();
    let ceiling = |most| Some(Ceiling { most: Nanos(most), field: "nemo_max_cost" });
    let of = |most, stream| {
        Spending::new(Request { ceiling: ceiling(most), stream, ..request(&table, &[], 4000) })
    };
    assert_eq!(of(4100, false).unwrap().output_cap(), None);
    assert_eq!(of(600, false).unwrap().output_cap(), Some(500));
    let refused = of(INPUT + 15, false).err().unwrap();
    assert_eq!((refused.kind.row().status, refused.code()), (400, "max_cost_exceeded"));
    let mut stream = of(600, true).unwrap();
    stream.hold(false).unwrap();
    assert!(matches!(stream.cover(10, false).0, Cover::Paid));
    assert!(matches!(stream.cover(400, false).0, Cover::Paid));
    assert!(stream.held() <= Nanos(600), "the upstream keeps to what is covered");
    assert!(stream.settle(Nanos(5)).is_empty(), "no budget is charged");
}

proptest! {
    /// I3: whatever streams, attempts and endings there are, what is held is within what was granted, and in the end what
    /// was charged and what is left are what was granted.
    #[test]
    fn i3_holds_never_exceed_what_was_granted(
        granted in 200_i64..20_000,
        requests in prop::collection::vec((any::<bool>(), 1_u64..5000, prop::collection::vec(0_u64..500, 0..20)), 1..12),
    ) {
        let (table, budget) = (table(), budget(OverBudget::Cap));
        grant(&table, &budget, LeaseId::generate(), granted);
        exhausted(&table, &budget);
        let (mut open, mut charged) = (Vec::new(), 0);
        for (stream, output, frames) in requests {
            let mut spending =
                Spending::new(Request { stream, asked: Some(output), ..request(&table, &[&budget], output) }).unwrap();
            if spending.hold(true).is_err() {
                continue;
            }
            spending.sent();
            let mut bytes = 0;
            for frame in frames {
                bytes += frame;
                if !matches!(spending.cover(bytes, true).0, Cover::Paid) {
                    break;
                }
            }
            open.push(spending);
            let held: i64 = open.iter().map(|it: &Spending| it.held().0).sum();
            prop_assert!(held + charged <= granted, "{held} and {charged} of {granted}");
            if open.len() > 2 {
                let spending = open.remove(0);
                let cost = Nanos(spending.held().0 / 2);
                charged += spending.settle(cost)[0].nanos.0;
            }
        }
        for spending in open {
            let cost = spending.held();
            charged += spending.settle(cost)[0].nanos.0;
        }
        prop_assert_eq!(left(&table, &budget) + charged, granted);
    }
}
