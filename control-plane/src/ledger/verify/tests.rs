//! Every total that is not the sum of its entries is named, and none that is.

use time::macros::{date, datetime};
use tokio::task::JoinSet;

use super::*;
use crate::store::{
    testing::{journal, now},
    testing_money::{GRANTED, Money, charged_row, execute, money, of, young_row},
    usage_ingest::KnownDays,
};

/// Requests, a forfeited lease with a late event, a credit with purchases, a rolling budget.
async fn world() -> Money {
    let money = money(3).await;
    let rows = (0..5).map(|_| young_row(&money, 100)).collect();
    money.store.store.ingest_usage(&journal(), rows, &KnownDays::default()).await.unwrap();
    let (budget, lease) = money.budgets[2];
    let org = money.org;
    let mut superuser = money.store.superuser().await;
    let left = GRANTED - 500;
    execute(
        &mut superuser,
        &format!(
            "UPDATE budget_leases SET forfeited_nanos = {left}, state = 'closed', closed_at = now() WHERE lease_id = '{lease}';
             UPDATE budget_windows SET outstanding_nanos = 0, settled_nanos = settled_nanos + {left}
                 WHERE budget_id = '{budget}';
             INSERT INTO ledger_entries (kind, org_id, budget_id, window_start, lease_id, nanos, source)
                 VALUES ('forfeit', '{org}', '{budget}', to_timestamp(0), '{lease}', {left}, 'lease');
             INSERT INTO budgets (id, org_id, name, kind, limit_nanos, window_kind)
                 VALUES ('00000000-0000-7000-8000-0000000000c1', '{org}', 'credit', 'credit', 0, 'total');
             INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos)
                 VALUES ('00000000-0000-7000-8000-0000000000c1', '{org}', to_timestamp(0), 70);
             INSERT INTO ledger_entries (kind, org_id, budget_id, window_start, nanos, source) VALUES
                 ('purchase', '{org}', '00000000-0000-7000-8000-0000000000c1', to_timestamp(0), 100, 'p1'),
                 ('fee', '{org}', '00000000-0000-7000-8000-0000000000c1', to_timestamp(0), 4, 'p1'),
                 ('refund', '{org}', '00000000-0000-7000-8000-0000000000c1', to_timestamp(0), -30, 'r1');
             INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind, window_hours)
                 VALUES ('00000000-0000-7000-8000-0000000000c2', '{org}', 'rolling', 1000, 'rolling', 24);
             INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos, rolling_hours, settled_nanos,
                                         aged_nanos, overrun_nanos)
                 VALUES ('00000000-0000-7000-8000-0000000000c2', '{org}', to_timestamp(0), 1000, 24, 20, 30, 2);
             INSERT INTO budget_slots (budget_id, org_id, hour, settled_nanos, overrun_nanos)
                 VALUES ('00000000-0000-7000-8000-0000000000c2', '{org}', 1, 5, 2),
                        ('00000000-0000-7000-8000-0000000000c2', '{org}', 2, 15, 0);
             INSERT INTO ledger_entries (kind, org_id, budget_id, window_start, nanos, source) VALUES
                 ('settle', '{org}', '00000000-0000-7000-8000-0000000000c2', to_timestamp(0), 60, 's1'),
                 ('adjust', '{org}', '00000000-0000-7000-8000-0000000000c2', to_timestamp(0), -10, 's1'),
                 ('overrun', '{org}', '00000000-0000-7000-8000-0000000000c2', to_timestamp(0), 2, 's1');"
        ),
    )
    .await;
    // After the lease was forfeited: settle and adjust.
    let late = charged_row(org, now(), 11, vec![of(budget, Some(lease), 11)]);
    money.store.store.ingest_usage(&journal(), vec![late], &KnownDays::default()).await.unwrap();
    money
}

async fn found(money: &Money) -> Vec<Difference> {
    verify(&money.store.store).await.unwrap().differences
}

#[tokio::test]
async fn what_adds_up_is_told_with_counts_and_sums() {
    let money = world().await;
    let report = verify(&money.store.store).await.unwrap();
    assert!(report.is_fine(), "{:#?}", report.differences);
    assert_eq!((report.windows, report.leases, report.requests, report.charges), (5, 3, 6, 16));
    assert_eq!(report.charged, Nanos(5 * 3 * 100 + 11));
    let kinds: Vec<_> = report.kinds.iter().map(|it| (it.kind.as_str(), it.entries, it.nanos.0)).collect();
    let forfeit = ("forfeit", 1, 999_500);
    assert_eq!(
        kinds,
        [
            ("adjust", 2, -21),
            ("fee", 1, 4),
            forfeit,
            ("overrun", 1, 2),
            ("purchase", 1, 100),
            ("refund", 1, -30),
            ("settle", 5, 1571)
        ]
    );
    assert_eq!(report.log_from, None);
}

/// Each total in turn is changed behind the bank's back: exactly that is named, with both numbers.
#[tokio::test]
async fn every_total_that_was_tampered_with_is_named() {
    let money = world().await;
    let (budget, lease) = money.budgets[0];
    let rolling = "00000000-0000-7000-8000-0000000000c2";
    let credit = "00000000-0000-7000-8000-0000000000c1";
    let window = |column: &str, id: &str| {
        format!("UPDATE budget_windows SET {column} = {column} + 7 WHERE budget_id = '{id}'")
    };
    let of_lease =
        |column: &str| format!("UPDATE budget_leases SET {column} = {column} + 7 WHERE lease_id = '{lease}'");
    let own = budget.to_string();
    let cases: Vec<(String, &[What], String)> = vec![
        (window("settled_nanos", &own), &[What::WindowSettled], own.clone()),
        (window("overrun_nanos", &own), &[What::WindowOverrun], own.clone()),
        (window("outstanding_nanos", &own), &[What::WindowOutstanding], own.clone()),
        (window("limit_nanos", credit), &[What::CreditLimit], credit.to_owned()),
        (window("aged_nanos", rolling), &[What::WindowSettled], rolling.to_owned()),
        (
            format!("UPDATE budget_slots SET settled_nanos = settled_nanos + 7 WHERE budget_id = '{rolling}' AND hour = 1"),
            &[What::RollingSettled],
            rolling.to_owned(),
        ),
        (
            format!("UPDATE budget_slots SET overrun_nanos = overrun_nanos + 7 WHERE budget_id = '{rolling}' AND hour = 1"),
            &[What::RollingOverrun],
            rolling.to_owned(),
        ),
        // What is spent or forfeited is no longer outstanding.
        (of_lease("spent_nanos"), &[What::WindowOutstanding, What::LeaseSpent], own.clone()),
        (of_lease("forfeited_nanos"), &[What::WindowOutstanding, What::LeaseForfeited], own.clone()),
        (of_lease("overrun_nanos"), &[What::LeaseOverrun], own.clone()),
        (
            format!("DELETE FROM budget_windows WHERE budget_id = '{credit}'; DELETE FROM budget_windows WHERE budget_id = '{rolling}'"),
            &[What::WindowMissing],
            rolling.to_owned(),
        ),
        (
            "DELETE FROM request_log WHERE request_id = (SELECT request_id FROM request_log ORDER BY request_id LIMIT 1)".to_owned(),
            &[What::RequestLog, What::RequestLog, What::RequestLog],
            String::new(),
        ),
        (
            format!("DELETE FROM ledger_entries WHERE budget_id = '{own}' AND kind = 'settle'"),
            &[What::WindowSettled, What::LeaseSpent, What::RequestLog],
            own.clone(),
        ),
        (
            format!(
                "INSERT INTO usage_unlogged (request_id, org_id, reason, cost_nanos)
                     VALUES (gen_random_uuid(), '{}', 'unsettled', 9)",
                money.org
            ),
            &[What::Unsettled],
            String::new(),
        ),
    ];
    let mut superuser = money.store.superuser().await;
    // Leases are not to go with their window.
    execute(&mut superuser, "SET session_replication_role = replica").await;
    for (sql, expected, budget) in cases {
        // Seen by the verification, so it has to be committed; put right again from a copy.
        let table = ["budget_windows", "request_log", "ledger_entries"]
            .into_iter()
            .find(|it| sql.contains(&format!("DELETE FROM {it}")));
        let save = table.map(|it| format!("CREATE TABLE saved AS TABLE {it};")).unwrap_or_default();
        execute(&mut superuser, &format!("{save} {sql}")).await;
        let differences = found(&money).await;
        let whats: Vec<What> = differences.iter().map(|it| it.what).collect();
        assert_eq!(whats, expected, "{sql}: {differences:#?}");
        if !budget.is_empty() {
            for difference in &differences {
                assert_eq!(difference.budget_id.map(|id| id.to_string()).as_deref(), Some(&*budget), "{sql}");
                assert!(difference.to_string().contains(&budget), "{difference}");
            }
        }
        for difference in &differences {
            assert_ne!(difference.expected, difference.found, "{sql}");
            assert_eq!(difference.org_id, money.org, "{sql}");
        }
        let restore = match table {
            Some(it) => format!("DELETE FROM {it}; INSERT INTO {it} SELECT * FROM saved; DROP TABLE saved"),
            None if sql.contains("INSERT") => "DELETE FROM usage_unlogged".to_owned(),
            None => sql.replace("+ 7", "- 7"),
        };
        execute(&mut superuser, &restore).await;
        assert_eq!(found(&money).await, [], "after {sql}");
    }
}

/// The snapshot is one: money that moves meanwhile is in it with its entries or without both.
#[tokio::test]
async fn the_ledger_adds_up_at_every_moment_under_load() {
    let money = money(3).await;
    let mut writers = JoinSet::new();
    for writer in 0..3 {
        let store = money.store.store.clone();
        let batches: Vec<Vec<_>> =
            (0..30).map(|_| (0..10).map(|at| young_row(&money, 100 + at)).collect()).collect();
        writers.spawn(async move {
            let journal = crate::store::usage_ingest::Journal { node_id: format!("n{writer}"), epoch: 1 };
            for batch in batches {
                store.ingest_usage(&journal, batch, &KnownDays::default()).await.unwrap();
            }
        });
    }
    let mut checks = 0;
    while !writers.is_empty() {
        money.adds_up().await;
        checks += 1;
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
    }
    assert!(checks > 1);
    let report = verify(&money.store.store).await.unwrap();
    assert_eq!((report.requests, report.charges), (900, 2700));
}

#[tokio::test]
async fn after_retention_the_log_may_only_have_less_than_the_ledger() {
    let money = money(1).await;
    let rows = [9, 1, 0].map(|ago| money.row(now() - time::Duration::days(ago), 10)).to_vec();
    money.store.store.ingest_usage(&journal(), rows, &KnownDays::default()).await.unwrap();
    let mut superuser = money.store.superuser().await;
    // As if the budget had been there for long.
    execute(&mut superuser, "UPDATE budgets SET created_at = now() - interval '20 days'").await;
    let before = (now() - time::Duration::days(5)).date();
    money.store.store.drop_expired(crate::store::retention::Kept::RequestLog, before).await.unwrap();
    while money.store.store.drop_expired(crate::store::retention::Kept::RequestLog, before).await.unwrap()
        != crate::store::retention::Dropped::Nothing
    {}
    let report = verify(&money.store.store).await.unwrap();
    assert!(report.is_fine() && report.log_from == Some(before), "{report:#?}");
    assert_eq!((report.requests, report.settled), (2, Nanos(30)));
    // More than was booked can't be explained by what is gone.
    execute(
        &mut superuser,
        "UPDATE ledger_entries SET nanos = 5; UPDATE budget_windows SET settled_nanos = 5;
         UPDATE budget_leases SET spent_nanos = 5, granted_nanos = granted_nanos - 25",
    )
    .await;
    let differences = found(&money).await;
    assert_eq!(differences.iter().map(|it| it.what).collect::<Vec<_>>(), [What::RequestLog]);
}

#[tokio::test]
async fn the_nightly_check_counts_what_it_finds() {
    let money = world().await;
    let metrics = LedgerMetrics::default();
    assert!(check(&money.store.store, &metrics).await.unwrap().is_fine());
    assert_eq!(metrics.differences.get(), 0);
    execute(
        &mut money.store.superuser().await,
        "UPDATE budget_windows SET overrun_nanos = overrun_nanos + 1",
    )
    .await;
    assert!(!check(&money.store.store, &metrics).await.unwrap().is_fine());
    let count = |verdict| metrics.checks.get_or_create(&Labels { verdict }).get();
    assert_eq!((count(Verdict::Fine), count(Verdict::Differs), count(Verdict::Failed)), (1, 1, 0));
    // Every window, and the hours of the rolling one.
    assert_eq!(metrics.differences.get(), 6);
    money.store.store.close().await;
    assert!(check(&money.store.store, &metrics).await.is_err());
    assert_eq!(metrics.checks.get_or_create(&Labels { verdict: Verdict::Failed }).get(), 1);
}

#[test]
fn a_check_is_due_once_a_night() {
    let last = date!(2026 - 11 - 20);
    assert!(!is_due(datetime!(2026-11-20 23:00 UTC), last));
    assert!(!is_due(datetime!(2026-11-21 02:59 UTC), last));
    assert!(is_due(datetime!(2026-11-21 03:00 UTC), last));
    assert!(!is_due(datetime!(2026-11-21 04:00 UTC), date!(2026 - 11 - 21)));
}

#[test]
fn sums_that_are_more_than_an_amount_stop_at_its_bounds() {
    assert_eq!((nanos("12"), nanos("-3.0")), (Nanos(12), Nanos(-3)));
    assert_eq!(
        (nanos("99999999999999999999"), nanos("-99999999999999999999")),
        (Nanos(i64::MAX), Nanos(i64::MIN))
    );
}
