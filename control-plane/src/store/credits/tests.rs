//! Credits against a real PostgreSQL: once for each source, never more taken back than is there, and the ledger adds up.

use nemo_types::{Nanos, OrgId};
use uuid::Uuid;

use super::*;
use crate::store::{
    organizations,
    testing::{self, TestStore},
};

fn usd(text: &str) -> Nanos {
    Nanos::from_decimal(text).unwrap()
}

fn movement<'a>(org: OrgId, movement: Movement, amount: &str, source: &'a str) -> NewMovement<'a> {
    NewMovement {
        org,
        movement,
        amount: usd(amount),
        fee: Nanos::ZERO,
        tier: "",
        source,
        reason: "",
        payment_id: "",
    }
}

async fn book(store: &TestStore, new: &NewMovement<'_>) -> Applied {
    let mut tx = store.store.system().await.unwrap();
    let applied = apply(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

async fn balance_of(store: &TestStore, org: OrgId) -> Balance {
    let mut tx = store.store.tenant(org).await.unwrap();
    balance(&mut tx).await.unwrap()
}

/// As the quota bank would: spent and held, without going through leases.
async fn stand(store: &TestStore, org: OrgId, settled: &str, outstanding: &str) {
    let sql = "UPDATE budget_windows SET settled_nanos = $2, outstanding_nanos = $3 WHERE org_id = $1";
    let mut superuser = store.superuser().await;
    let query = sqlx::query(sql).bind(org.0).bind(usd(settled).0).bind(usd(outstanding).0);
    assert_eq!(query.execute(&mut superuser).await.unwrap().rows_affected(), 1);
}

async fn ledger_sum(store: &TestStore, org: OrgId, fees: bool) -> i64 {
    let sql = "SELECT coalesce(sum(nanos), 0)::bigint FROM ledger_entries WHERE org_id = $1 AND (kind = 'fee') = $2";
    let mut superuser = store.superuser().await;
    sqlx::query_scalar(sql).bind(org.0).bind(fees).fetch_one(&mut superuser).await.unwrap()
}

#[tokio::test]
async fn an_organization_is_prepaid_from_its_first_credit_on() {
    let store = testing::store().await;
    let (org, other) = (store.org().await, store.org().await);
    assert_eq!(balance_of(&store, org).await, Balance::default());
    let applied = book(&store, &movement(org, Movement::Grant, "5.000000001", "a")).await;
    let Applied::New(row) = applied else { panic!("{applied:?}") };
    assert_eq!((row.kind.as_str(), row.nanos), ("grant", usd("5.000000001").0));
    let balance = balance_of(&store, org).await;
    assert!(balance.budget_id.is_some() && balance.balance() == usd("5.000000001"));
    assert_eq!(balance_of(&store, other).await, Balance::default(), "nobody else's");
    assert_eq!(ledger_sum(&store, org, false).await, usd("5.000000001").0);
}

/// Covers "idempotent by source", under concurrency.
#[tokio::test]
async fn a_source_is_booked_once_whoever_sends_it_at_the_same_time() {
    let store = testing::store().await;
    let org = store.org().await;
    let new = movement(org, Movement::Grant, "7", "invoice-1");
    let all = futures_util::future::join_all((0..8).map(|_| book(&store, &new))).await;
    assert_eq!(all.iter().filter(|applied| matches!(applied, Applied::New(_))).count(), 1);
    let ids: std::collections::BTreeSet<Uuid> = all
        .iter()
        .map(|applied| match applied {
            Applied::New(row) | Applied::Before(row) => row.id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 1, "all are told the same");
    assert_eq!(balance_of(&store, org).await.balance(), usd("7"));
    assert_eq!(ledger_sum(&store, org, false).await, usd("7").0);
    // A source of another organization is another one.
    let other = store.org().await;
    assert!(matches!(book(&store, &NewMovement { org: other, ..new }).await, Applied::New(_)));
}

#[tokio::test]
async fn refunds_take_what_is_neither_spent_nor_held_and_no_more() {
    let store = testing::store().await;
    let org = store.org().await;
    let refused = book(&store, &movement(org, Movement::Refund, "1", "none")).await;
    assert_eq!(refused, Applied::Short { available: Nanos::ZERO });
    book(&store, &movement(org, Movement::Grant, "10", "a")).await;
    stand(&store, org, "3", "2").await;
    let refused = book(&store, &movement(org, Movement::Refund, "5.000000001", "b")).await;
    assert_eq!(refused, Applied::Short { available: usd("5") });
    assert_eq!(balance_of(&store, org).await.limit_nanos, usd("10").0, "nothing was changed");
    // Ten at a time of one dollar each: five fit.
    let sources: Vec<String> = (0..10).map(|at| format!("refund {at}")).collect();
    let refunds: Vec<_> = sources.iter().map(|source| movement(org, Movement::Refund, "1", source)).collect();
    let all = futures_util::future::join_all(refunds.iter().map(|new| book(&store, new))).await;
    assert_eq!(all.iter().filter(|applied| matches!(applied, Applied::New(_))).count(), 5);
    let balance = balance_of(&store, org).await;
    assert_eq!((balance.balance(), balance.available()), (usd("2"), Nanos::ZERO));
    assert_eq!(ledger_sum(&store, org, false).await, balance.limit_nanos);
}

#[tokio::test]
async fn what_was_paid_back_is_booked_even_when_it_is_spent() {
    let store = testing::store().await;
    let org = store.org().await;
    let purchase = NewMovement { fee: usd("4"), ..movement(org, Movement::Purchase, "100", "payment:pi_1") };
    book(&store, &purchase).await;
    stand(&store, org, "60", "0").await;
    let back = NewMovement { fee: usd("4"), ..movement(org, Movement::ForcedRefund, "100", "refund:pi_1") };
    let applied = book(&store, &back).await;
    assert!(matches!(&applied, Applied::New(row) if row.fee_nanos == -usd("4").0), "{applied:?}");
    let balance = balance_of(&store, org).await;
    assert_eq!((balance.balance().0, balance.available()), (-usd("60").0, Nanos::ZERO));
    assert_eq!((ledger_sum(&store, org, false).await, ledger_sum(&store, org, true).await), (0, 0));
}

#[tokio::test]
async fn a_balance_never_overflows() {
    let store = testing::store().await;
    let org = store.org().await;
    let huge = Nanos(i64::MAX / 2);
    let new = |source| NewMovement { amount: huge, ..movement(org, Movement::Grant, "1", source) };
    assert!(matches!(book(&store, &new("a")).await, Applied::New(_)));
    assert_eq!(book(&store, &movement(org, Movement::Grant, "1", "b")).await, Applied::TooMuch);
    assert_eq!(balance_of(&store, org).await.balance(), huge);
}

#[tokio::test]
async fn a_budget_of_the_organizations_own_may_be_called_credit() {
    let store = testing::store().await;
    let org = store.org().await;
    let sql = "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind) VALUES ($1, $2, 'credit', 0, 'day')";
    let mut superuser = store.superuser().await;
    sqlx::query(sql).bind(Uuid::now_v7()).bind(org.0).execute(&mut superuser).await.unwrap();
    book(&store, &movement(org, Movement::Grant, "1", "a")).await;
    assert_eq!(balance_of(&store, org).await.balance(), usd("1"));
}

async fn set(store: &TestStore, org: Option<OrgId>, key: &str, value: &str) {
    let sql = "INSERT INTO settings (id, org_id, key, value) VALUES ($1, $2, $3, $4::jsonb) \
               ON CONFLICT ON CONSTRAINT settings_key_taken DO UPDATE SET value = EXCLUDED.value";
    let org = org.map(|org| org.0);
    let mut superuser = store.superuser().await;
    let query = sqlx::query(sql).bind(Uuid::now_v7()).bind(org).bind(key).bind(value);
    query.execute(&mut superuser).await.unwrap();
}

#[tokio::test]
async fn what_is_required_has_a_balance_and_what_is_not_keeps_only_what_was_booked() {
    let store = testing::store().await;
    let (plain, exempt, booked) = (store.org().await, store.org().await, store.org().await);
    book(&store, &movement(booked, Movement::Grant, "1", "a")).await;
    let require = async || {
        let mut tx = store.store.system().await.unwrap();
        super::require(&mut tx, None).await.unwrap();
        tx.commit().await.unwrap();
        let mut prepaid = Vec::new();
        for org in [plain, exempt, booked] {
            prepaid.push(balance_of(&store, org).await.budget_id.is_some());
        }
        prepaid
    };
    set(&store, None, "credits.required", "true").await;
    set(&store, Some(exempt), "credits.required", "false").await;
    assert_eq!(require().await, [true, false, true]);
    assert_eq!(require().await, [true, false, true], "again");
    set(&store, None, "credits.required", "false").await;
    assert_eq!(require().await, [false, false, true]);
}

/// A payment comes at the moment in which credit is required no more: what was paid stays.
#[tokio::test]
async fn a_balance_that_is_paid_into_is_not_taken_back() {
    let store = testing::store().await;
    let org = store.org().await;
    let require = async || {
        let mut tx = store.store.system().await.unwrap();
        super::require(&mut tx, Some(org.0)).await.unwrap();
        tx.commit().await.unwrap();
    };
    set(&store, Some(org), "credits.required", "true").await;
    require().await;
    set(&store, Some(org), "credits.required", "false").await;
    let mut tx = store.store.system().await.unwrap();
    apply(&mut tx, &movement(org, Movement::Purchase, "20", "payment:pi_1")).await.unwrap();
    let paid = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        tx.commit().await.unwrap();
    };
    tokio::join!(require(), paid);
    let balance = balance_of(&store, org).await;
    assert!(balance.budget_id.is_some(), "the balance is gone");
    assert_eq!(balance.balance(), usd("20"));
}

/// Covers the event `credits.low`: once for each fall, whoever looks.
#[tokio::test]
async fn each_fall_below_the_mark_is_told_once() {
    let store = testing::store().await;
    let (org, other) = (store.org().await, store.org().await);
    for org in [org, other] {
        book(&store, &movement(org, Movement::Grant, "10", "a")).await;
    }
    set(&store, Some(org), "credits.low_balance", "\"5\"").await;
    let told = async || {
        let looks = (0..3).map(|_| crate::credits::job::look(&store.store));
        for looked in futures_util::future::join_all(looks).await {
            looked.unwrap();
        }
        let sql = "SELECT count(*) FROM webhook_events WHERE event_type = 'credits.low'";
        let mut superuser = store.superuser().await;
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut superuser).await.unwrap()
    };
    assert_eq!(told().await, 0);
    stand(&store, org, "5", "0").await;
    assert_eq!(told().await, 0, "not below");
    stand(&store, org, "5.1", "0").await;
    stand(&store, other, "9.9", "0").await;
    assert_eq!(told().await, 1);
    stand(&store, org, "6", "0").await;
    assert_eq!(told().await, 1, "still below");
    book(&store, &movement(org, Movement::Grant, "10", "b")).await;
    assert_eq!(told().await, 1);
    stand(&store, org, "16", "0").await;
    assert_eq!(told().await, 2, "it rose and fell again");
    let sql = "SELECT body FROM webhook_events WHERE event_type = 'credits.low' ORDER BY id DESC LIMIT 1";
    let body: String = sqlx::query_scalar(sql).fetch_one(&mut store.superuser().await).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["data"]["balance_usd"], &body["data"]["below_usd"]), (&json!("4"), &json!("5")));
    set(&store, None, "credits.low_balance", "\"1\"").await;
    assert_eq!(told().await, 3, "the installation's mark holds for whoever has none");
}

#[tokio::test]
async fn what_is_rolled_back_leaves_nothing() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut tx = store.store.system().await.unwrap();
    apply(&mut tx, &movement(org, Movement::Grant, "1", "a")).await.unwrap();
    drop(tx);
    assert_eq!(balance_of(&store, org).await, Balance::default());
    assert_eq!(ledger_sum(&store, org, false).await, 0);
    let mut tx = store.store.system().await.unwrap();
    assert!(organizations::delete(&mut tx, org.0).await.unwrap());
    tx.commit().await.unwrap();
}
