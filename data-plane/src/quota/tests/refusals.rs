//! How long the word holds that a budget is exhausted.

use super::*;

fn nothing_left(budget: &Budget) -> LeaseDirective {
    let exhausted = Exhausted {
        budget_id: Bytes::copy_from_slice(budget.id.as_bytes()),
        window_start_unix_s: 86_400,
        limit: 1000,
        settled: 1000,
        ..Exhausted::default()
    };
    LeaseDirective { exhausted: vec![exhausted], ..LeaseDirective::default() }
}

/// Nobody tells a node of money that it does not ask for: what it heard long ago is no reason for a 402.
#[test]
fn who_has_stopped_asking_for_an_exhausted_budget_asks_again_before_it_refuses() {
    let (node, budget) = (Node::new(), deny());
    let exhausted = |denied| matches!(denied, Denied::Exhausted { .. });
    node.reserve(&budget, 10).unwrap_err();
    node.exchange(false, nothing_left(&budget));
    for _ in 0..3 {
        // As long as clients come back the control plane is asked after it with every report.
        node.clock.advance(Duration::from_secs(8));
        assert!(exhausted(node.reserve(&budget, 10).unwrap_err()));
        assert!(node.renew().budgets[0].wants >= 10);
    }
    while node.table.urgent().now_or_never().is_some() {}
    node.clock.advance(Duration::from_secs(300));
    let denied = node.reserve(&budget, 10).unwrap_err();
    assert!(matches!(denied, Denied::NoLease { .. }), "{denied:?}");
    assert!(node.table.urgent().now_or_never().is_some(), "asked at once");
    let denied = node.reserve(&budget, 10).unwrap_err();
    assert!(matches!(denied, Denied::NoLease { .. }), "the next one waits for the same answer: {denied:?}");
    let mut waits = Box::pin(node.table.wanted(&denied));
    assert!(waits.as_mut().now_or_never().is_none(), "there is none yet");
    node.exchange(false, nothing_left(&budget));
    assert!(waits.now_or_never().is_some());
    assert!(exhausted(node.reserve(&budget, 10).unwrap_err()), "still nothing");
    node.clock.advance(Duration::from_secs(300));
    node.reserve(&budget, 10).unwrap_err();
    node.grant(vec![grant(&budget, LeaseId::generate(), 10)]);
    assert!(node.reserve(&budget, 10).is_ok());
}

/// What is allowed without a lease is for when nobody can be asked.
#[test]
fn an_exhausted_budget_that_allows_it_is_asked_after_before_more_is_spent_of_it() {
    let (node, budget) = (Node::new(), budget(NoLease::Allow));
    drop(node.reserve(&budget, 10).unwrap());
    node.exchange(false, nothing_left(&budget));
    assert!(matches!(node.reserve(&budget, 10), Err(Denied::Exhausted { .. })));
    node.clock.advance(Duration::from_secs(300));
    assert!(matches!(node.reserve(&budget, 10), Err(Denied::NoLease { .. })), "worth a moment");
    assert!(node.reserve(&budget, 10).is_ok(), "nobody answers");
    node.exchange(false, nothing_left(&budget));
    assert!(matches!(node.reserve(&budget, 10), Err(Denied::Exhausted { .. })));
}

/// What ages out of a rolling window is worth a question when its hour is over.
#[test]
fn a_rolling_window_is_exhausted_until_the_next_hour_leaves_it() {
    let (node, budget) = (Node::new(), deny());
    node.reserve(&budget, 10).unwrap_err();
    let mut said = nothing_left(&budget);
    said.exhausted[0].eases_in_ms = 5000;
    node.exchange(false, said);
    match node.reserve(&budget, 10).unwrap_err() {
        Denied::Exhausted { eases_in, resets_in: None, retry_after: None, .. } => {
            assert_eq!(eases_in, Some(Duration::from_secs(5)));
        }
        other => panic!("{other:?}"),
    }
    node.clock.advance(Duration::from_secs(5));
    assert!(matches!(node.reserve(&budget, 10), Err(Denied::NoLease { .. })), "asked at once");
}

fn answer(budget: &Budget, left: i64) -> LeaseDirective {
    let mut directive = nothing_left(budget);
    (directive.exhausted[0].settled, directive.exhausted[0].retry_after_ms) = (1000 - left, 5000);
    directive
}

/// That a large request can't be paid for is no reason to refuse a small one.
#[test]
fn c1_what_was_said_of_a_large_request_is_not_said_of_a_small_one() {
    let (node, budget) = (Node::new(), deny());
    node.grant(vec![grant(&budget, LeaseId::generate(), 50)]);
    let large = node.reserve(&budget, 2000).unwrap_err();
    let mut waits = Box::pin(node.table.wanted(&large));
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(node.renew().budgets[0].least, 1950);
    node.exchange(false, answer(&budget, 600));
    assert!(waits.as_mut().now_or_never().is_some());
    assert!(matches!(node.reserve(&budget, 2000), Err(Denied::Exhausted { .. })));
    while node.table.urgent().now_or_never().is_some() {}
    let denied = node.reserve(&budget, 600).unwrap_err();
    assert!(matches!(denied, Denied::NoLease { .. } | Denied::Short { .. }), "there are 600: {denied:?}");
    assert!(node.table.urgent().now_or_never().is_some(), "asked at once");
    let report = node.renew();
    assert!(report.budgets.iter().any(|it| (it.needs, it.least) == (2000, 600)), "{report:?}");
    let mut waits = Box::pin(node.table.wanted(&denied));
    node.exchange(false, answer(&budget, 600));
    assert!(waits.as_mut().now_or_never().is_none(), "the answer to the large one came late");
    node.exchange(false, answer(&budget, 599));
    assert!(waits.now_or_never().is_some());
    assert!(matches!(node.reserve(&budget, 600), Err(Denied::Exhausted { .. })));
}

/// Who can't wait for the next answer is told the last one, which is that it is exhausted, and not that nobody knows.
#[test]
fn what_may_come_back_is_asked_after_and_exhausted_until_somebody_says_otherwise() {
    let (node, budget) = (Node::new(), deny());
    let retry = |node: &Node| match node.reserve(&budget, 10) {
        Err(Denied::Exhausted { retry_after, .. }) => retry_after.map(|after| after.as_millis()),
        other => panic!("{other:?}"),
    };
    let asked = |node: &Node| node.table.urgent().now_or_never().is_some();
    node.reserve(&budget, 10).unwrap_err();
    let mut said = nothing_left(&budget);
    said.exhausted[0].retry_after_ms = 50;
    node.exchange(false, said.clone());
    while asked(&node) {}
    assert_eq!((retry(&node), asked(&node)), (Some(50), false));
    node.clock.advance(Duration::from_millis(60));
    assert_eq!((retry(&node), asked(&node)), (Some(100), true), "and asked");
    assert_eq!((retry(&node), asked(&node)), (Some(100), false), "once");
    let denied = node.reserve(&budget, 10).unwrap_err();
    assert!(node.table.wanted(&denied).now_or_never().is_none());
    node.exchange(false, said);
    assert!(node.table.wanted(&denied).now_or_never().is_some(), "answered before it was waited for");
    for _ in 0..19 {
        node.clock.advance(Duration::from_millis(100));
        retry(&node);
    }
    node.clock.advance(Duration::from_millis(200));
    assert!(matches!(node.reserve(&budget, 10), Err(Denied::NoLease { .. })), "silence for two seconds");
}

/// What is too little for anybody on one node may be enough together with what others have left over.
#[test]
fn what_is_of_no_use_here_goes_back_when_there_is_no_more() {
    let cap = Arc::new(Budget { over_budget: OverBudget::Cap, ..Budget::clone(&deny()) });
    let told = |least: i64| {
        let (node, lease) = (Node::new(), LeaseId::generate());
        node.grant(vec![grant(&cap, lease, 50)]);
        node.table.reserve_or_less(std::slice::from_ref(&cap), Nanos(400), || Nanos(least)).unwrap_err();
        let report = node.renew();
        let line = of(&report, lease).unwrap();
        assert_eq!((line.needs, line.least, line.partial), (350, (least - 50).max(1), true));
        node.exchange(false, answer(&cap, 0));
        of(&node.renew(), lease).unwrap().returned_total
    };
    assert_eq!((told(51), told(50)), (50, 0));
}

/// Only of budgets that allow answers to be cut short.
#[test]
fn where_answers_are_not_cut_short_nothing_less_is_asked_for() {
    let (node, budget) = (Node::new(), deny());
    node.table.reserve_or_less(std::slice::from_ref(&budget), Nanos(400), || Nanos(10)).unwrap_err();
    let report = node.renew();
    assert_eq!(
        (report.budgets[0].needs, report.budgets[0].least, report.budgets[0].partial),
        (400, 400, false)
    );
}

/// While others ask on.
#[test]
fn the_need_of_one_request_is_forgotten_when_it_does_not_come_again() {
    let (node, budget) = (Node::new(), deny());
    let told = |report: LeaseReport| (report.budgets[0].needs, report.budgets[0].least);
    for nanos in [5, 700, 30] {
        node.reserve(&budget, nanos).unwrap_err();
    }
    assert_eq!(told(node.renew()), (700, 5));
    for (seconds, expected) in [(1, (700, 5)), (1, (700, 30)), (7, (700, 30)), (1, (30, 30))] {
        node.clock.advance(Duration::from_secs(seconds));
        node.reserve(&budget, 30).unwrap_err();
        assert_eq!(told(node.renew()), expected);
    }
}

/// Others may need it, and are not heard here.
#[test]
fn what_nobody_asks_for_any_more_goes_back_when_there_is_no_more() {
    let cap = Arc::new(Budget { over_budget: OverBudget::Cap, ..Budget::clone(&deny()) });
    let (node, lease) = (Node::new(), LeaseId::generate());
    node.grant(vec![grant(&cap, lease, 50)]);
    node.table.reserve_or_less(std::slice::from_ref(&cap), Nanos(400), || Nanos(10)).unwrap_err();
    let returned = || {
        node.exchange(false, answer(&cap, 0));
        of(&node.renew(), lease).unwrap().returned_total
    };
    assert_eq!(returned(), 0, "of use to whoever asked a moment ago");
    node.clock.advance(Duration::from_secs(3));
    assert_eq!(returned(), 50);
}

/// An answer that is cut short to what is there need not wait for what will not come.
#[test]
fn what_can_be_done_with_what_is_there_goes_by_the_word_that_there_is_no_more() {
    let cap = Arc::new(Budget { over_budget: OverBudget::Cap, ..Budget::clone(&deny()) });
    let (node, lease) = (Node::new(), LeaseId::generate());
    let denied =
        || node.table.reserve_or_less(std::slice::from_ref(&cap), Nanos(400), || Nanos(50)).unwrap_err();
    let waits = Box::pin(node.table.wanted(&denied()));
    let grants = vec![grant(&cap, lease, 60)];
    node.exchange(false, LeaseDirective { grants, ..answer(&cap, 0) });
    assert!(waits.now_or_never().is_some());
    while node.table.urgent().now_or_never().is_some() {}
    for _ in 0..3 {
        assert!(matches!(denied(), Denied::Exhausted { .. }));
    }
    assert!(node.table.urgent().now_or_never().is_none(), "nobody is asked");
    assert_eq!(node.table.affordable(std::slice::from_ref(&cap)), Nanos(60));
}
