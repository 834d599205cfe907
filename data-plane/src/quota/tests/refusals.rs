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
