//! Money is settled exactly once, whatever comes, how often, and from where at once. Covers I6, C 6.

use nemo_types::{BudgetId, LeaseId};
use time::Duration;
use tokio::task::JoinSet;

use super::*;
use crate::store::{
    retention::{Dropped, Kept},
    testing::{journal, now},
    testing_money::{GRANTED, Money, charged_row, execute, money, of, young_row},
    usage_ingest::{Ingested, KnownDays},
};

async fn ingest(money: &Money, rows: Vec<Row>) -> Ingested {
    money.store.store.ingest_usage(&journal(), rows, &KnownDays::default()).await.unwrap()
}

fn numbered(rows: impl IntoIterator<Item = Row>, first_seq: u64) -> Vec<Row> {
    rows.into_iter().zip(first_seq..).map(|(row, seq)| Row { seq, ..row }).collect()
}

#[tokio::test]
async fn i6_a_batch_that_comes_again_settles_nothing_more() {
    let money = money(3).await;
    let rows = numbered((0..4).map(|_| young_row(&money, 100)), 1);
    let first = ingest(&money, rows.clone()).await;
    let expected = Settled { charges: 12, nanos: 1200, entries: 3, ..Settled::default() };
    assert_eq!((first.inserted, &first.settled), (4, &expected));
    assert_eq!(money.totals().await, (1200, 3 * GRANTED - 1200, 0));
    let more = [rows, numbered([young_row(&money, 7)], 5)].concat();
    let again = ingest(&money, more).await;
    assert_eq!((again.inserted, again.duplicates, again.settled.nanos), (1, 4, 21));
    assert_eq!(money.totals().await, (1221, 3 * GRANTED - 1221, 0));
    assert_eq!(money.number("SELECT sum(spent_nanos) FROM budget_leases").await, 1221);
    money.adds_up().await;
}

#[tokio::test]
async fn i6_batches_that_overlap_at_the_same_time_settle_each_request_once() {
    let money = money(3).await;
    let rows: Vec<Row> = (0..120).map(|at| young_row(&money, at)).collect();
    let mut sides = JoinSet::new();
    for side in 0..4_usize {
        let (store, mut rows) = (money.store.store.clone(), rows.clone());
        if side % 2 == 1 {
            rows.reverse();
        }
        sides.spawn(async move {
            // Two of them are one node that has given up a stream and sends on another.
            let journal = Journal { node_id: format!("node-{}", side / 2), epoch: 1 };
            let (known, mut sum) = (KnownDays::default(), Ingested::default());
            for part in numbered(rows, 1).chunks(7 + side) {
                // A victim of a deadlock is sent again by its node.
                let ingested = loop {
                    match store.ingest_usage(&journal, part.to_vec(), &known).await {
                        Ok(ingested) => break ingested,
                        Err(StoreError::Unavailable(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                };
                sum.add(&ingested);
            }
            sum
        });
    }
    let mut sum = Ingested::default();
    while let Some(side) = sides.join_next().await {
        sum.add(&side.unwrap());
    }
    let nanos = 3 * (0..120).sum::<i64>();
    assert_eq!((sum.inserted, sum.duplicates, sum.settled.nanos), (120, 360, nanos));
    assert_eq!(money.totals().await, (nanos, 3 * GRANTED - nanos, 0));
    money.adds_up().await;
}

/// The commit is all or nothing: a batch that failed is as if it had never come.
#[tokio::test]
async fn a_batch_that_fails_at_its_ledger_entries_leaves_nothing_behind() {
    let money = money(1).await;
    let mut superuser = money.store.superuser().await;
    execute(&mut superuser, "BEGIN; LOCK TABLE ledger_entries IN ACCESS EXCLUSIVE MODE").await;
    let rows = numbered([young_row(&money, 5)], 1);
    let failed = money.store.store.ingest_usage(&journal(), rows.clone(), &KnownDays::default()).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    execute(&mut superuser, "ROLLBACK").await;
    assert_eq!((money.totals().await.0, money.number("SELECT count(*) FROM request_log").await), (0, 0));
    assert_eq!(ingest(&money, rows).await.settled.nanos, 5);
    money.adds_up().await;
}

#[tokio::test]
async fn what_costs_more_than_the_lease_has_is_overrun() {
    let money = money(2).await;
    let settled = ingest(&money, vec![young_row(&money, GRANTED + 5)]).await.settled;
    assert_eq!((settled.nanos, settled.overrun_nanos), (2 * (GRANTED + 5), 10));
    assert_eq!(money.totals().await, (2 * GRANTED, 0, 10));
    money.adds_up().await;
}

/// C 5: what a request is charged is what was reserved for it when nobody knows what it cost.
#[tokio::test]
async fn a_request_of_unknown_cost_is_charged_all_the_same() {
    let money = money(1).await;
    let row = Row { cost_nanos: None, outcome: "lost", ..young_row(&money, 42) };
    assert_eq!(ingest(&money, vec![row]).await.settled.nanos, 42);
    assert_eq!(money.totals().await.0, 42);
    money.adds_up().await;
}

#[tokio::test]
async fn a_row_that_the_database_refuses_is_settled_once() {
    let money = money(2).await;
    let bad = Row { outcome: "nonsense", ..young_row(&money, 10) };
    let rows = numbered([young_row(&money, 1), bad, young_row(&money, 2)], 1);
    for (inserted, nanos) in [(2, 2 * 13), (0, 0)] {
        let ingested = ingest(&money, rows.clone()).await;
        assert_eq!((ingested.inserted, ingested.refused, ingested.settled.nanos), (inserted, 1, nanos));
    }
    assert_eq!(money.totals().await.0, 26);
    // After an upgrade the database may take what it had refused: it is logged, not settled again.
    let mended: Vec<Row> = rows.into_iter().map(|row| Row { outcome: "ok", ..row }).collect();
    let ingested = ingest(&money, mended).await;
    assert_eq!((ingested.inserted, ingested.settled.nanos), (1, 0));
    assert_eq!(money.totals().await.0, 26);
    money.adds_up().await;
}

#[tokio::test]
async fn charges_that_the_bank_refuses_are_kept_and_named_and_block_nobody() {
    let money = money(2).await;
    let mut superuser = money.store.superuser().await;
    execute(&mut superuser, "ALTER TABLE budget_windows ADD CONSTRAINT full_up CHECK (settled_nanos < 1000)")
        .await;
    let rows = numbered([young_row(&money, 1), young_row(&money, 5000), young_row(&money, 2)], 1);
    let ingested = ingest(&money, rows.clone()).await;
    assert_eq!((ingested.inserted, ingested.refused), (2, 1));
    assert_eq!((ingested.settled.nanos, ingested.settled.refused), (6, 2));
    assert_eq!(ingest(&money, rows).await.settled, Settled::default());
    let report = crate::ledger::verify::verify(&money.store.store).await.unwrap();
    let [difference] = &*report.differences else { panic!("{:?}", report.differences) };
    assert_eq!((difference.what.name(), difference.expected), ("unsettled", Nanos(5000)));
}

#[tokio::test]
async fn what_is_charged_to_a_budget_that_is_gone_is_booked_and_holds_up_nothing() {
    let money = money(2).await;
    let (budget, lease) = (BudgetId::generate(), LeaseId::generate());
    let both = vec![of(money.budgets[0].0, Some(money.budgets[0].1), 3), of(budget, Some(lease), 3)];
    let settled = ingest(&money, vec![charged_row(money.org, now(), 3, both)]).await.settled;
    assert_eq!((settled.charges, settled.nanos, settled.unknown), (2, 6, 1));
    assert_eq!(money.totals().await.0, 3);
    let booked = format!("SELECT sum(nanos) FROM ledger_entries WHERE budget_id = '{budget}'");
    assert_eq!(money.number(&booked).await, 3);
    // A budget that is deleted with all its rows while its requests are under way.
    let gone = money.budgets[1].0;
    execute(&mut money.store.superuser().await, &format!("DELETE FROM budgets WHERE id = '{gone}'")).await;
    let settled = ingest(&money, vec![young_row(&money, 4)]).await.settled;
    assert_eq!((settled.nanos, settled.unknown), (8, 1));
    money.adds_up().await;
}

#[tokio::test]
async fn a_lease_that_is_forgotten_and_a_request_without_one_are_charged_to_the_budget() {
    let money = money(1).await;
    let budget = money.budgets[0].0;
    let rows = vec![
        charged_row(money.org, now(), 3, vec![of(budget, Some(LeaseId::generate()), 3)]),
        charged_row(money.org, now(), 4, vec![of(budget, None, 4)]),
    ];
    let settled = ingest(&money, rows).await.settled;
    assert_eq!((settled.nanos, settled.unknown), (7, 0));
    let (total, _, overrun) = money.totals().await;
    assert_eq!(total + overrun, 7);
    money.adds_up().await;
}

/// The day of an event is dropped, and then it comes: for the first time, and again.
#[tokio::test]
async fn what_comes_after_its_day_was_dropped_is_settled_once() {
    let money = money(2).await;
    let (old, ancient) = (now() - Duration::days(9), now() - Duration::days(40));
    // The budgets were there when the requests were.
    let sql = "UPDATE budgets SET created_at = now() - interval '50 days'";
    execute(&mut money.store.superuser().await, sql).await;
    // Ingested in time; its acknowledgement was lost.
    let seen = numbered([money.row(old, 1)], 1);
    ingest(&money, seen.clone()).await;
    let before = (now() - Duration::days(5)).date();
    while money.store.store.drop_expired(Kept::RequestLog, before).await.unwrap() != Dropped::Nothing {}
    assert_eq!(money.number("SELECT count(*) FROM request_log").await, 0);
    let late = [
        money.row(old, 10),
        Row { unlogged: Some(Unlogged::Expired), ..money.row(ancient, 100) },
        young_row(&money, 1000),
    ];
    let rows = [seen, numbered(late, 2)].concat();
    let ingested = ingest(&money, rows.clone()).await;
    assert_eq!((ingested.inserted, ingested.expired, ingested.settled.nanos), (1, 3, 2 * 1110));
    assert_eq!(money.totals().await.0, 2 * 1111);
    for _ in 0..2 {
        let again = ingest(&money, rows.clone()).await;
        assert_eq!((again.inserted, again.settled.nanos), (0, 0));
    }
    assert_eq!(money.totals().await.0, 2 * 1111);
    assert_eq!(money.number("SELECT count(*) FROM usage_unlogged").await, 2);
    money.adds_up().await;
}

/// The clock of a node is two days ahead. Its events are settled; when the days have come, they are logged if they are
/// sent again, and not settled again.
#[tokio::test]
async fn what_is_of_a_time_yet_to_come_is_settled_once() {
    let money = money(2).await;
    let ahead = Row { unlogged: Some(Unlogged::Ahead), ..young_row(&money, 10) };
    let rows = numbered([young_row(&money, 1), ahead], 1);
    let first = ingest(&money, rows.clone()).await;
    assert_eq!((first.inserted, first.ahead, first.expired, first.settled.nanos), (1, 1, 0, 2 * 11));
    let again = ingest(&money, rows.clone()).await;
    assert_eq!((again.inserted, again.ahead, again.duplicates, again.settled.nanos), (0, 1, 1, 0));
    assert_eq!(money.number("SELECT count(*) FROM usage_unlogged WHERE reason = 'ahead'").await, 1);
    money.adds_up().await;
    let come: Vec<Row> = rows.into_iter().map(|row| Row { unlogged: None, ..row }).collect();
    let later = ingest(&money, come).await;
    assert_eq!((later.inserted, later.ahead, later.settled.nanos), (1, 0, 0));
    assert_eq!(money.totals().await.0, 2 * 11);
    money.adds_up().await;
}

/// One by one, because of a row that the database refuses: each moves the cursor, so they go in the order of the journal.
#[tokio::test]
async fn beside_a_row_that_is_refused_those_of_days_that_are_gone_are_settled_too() {
    let money = money(1).await;
    let expired = |days, nanos| Row {
        unlogged: Some(Unlogged::Expired),
        ..money.row(now() - Duration::days(days), nanos)
    };
    let bad = Row { outcome: "nonsense", ..young_row(&money, 100) };
    let rows = numbered([expired(35, 1), expired(40, 10), bad], 1);
    let ingested = ingest(&money, rows).await;
    assert_eq!((ingested.expired, ingested.refused, ingested.settled.nanos), (2, 1, 111));
    assert_eq!(money.totals().await.0, 111);
}

#[tokio::test]
async fn charges_that_make_no_sense_are_counted() {
    let money = money(1).await;
    let row = Row { malformed_charges: 2, ..young_row(&money, 3) };
    let settled = ingest(&money, vec![row]).await.settled;
    assert_eq!((settled.refused, settled.nanos), (2, 3));
}
