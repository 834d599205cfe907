//! Payments against a real PostgreSQL: whatever comes how often, each is booked once or not at all. Covers R000-13,
//! R001-8 and the bad input for payments.

use nemo_types::{Nanos, OrgId, Secret};
use serde_json::{Value, json};

use super::{
    event::{CREDIT, ORG},
    signature::tests::{SECRET, sign},
    *,
};
use crate::store::{
    credits::Balance,
    testing::{self, TestStore},
};

const NOW: i64 = 1_800_000_000;

struct World {
    store: TestStore,
    payments: Payments,
    org: OrgId,
}

async fn world() -> World {
    let store = testing::store().await;
    let org = store.org().await;
    World { store, payments: Payments::new(&Secret::new(SECRET)).unwrap().unwrap(), org }
}

impl World {
    async fn send(&self, event: &Value) -> Result<Taken, Refused> {
        let body = event.to_string();
        let header = format!("t={NOW},v1={}", sign(SECRET, NOW, body.as_bytes()));
        self.payments.receive(&self.store.store, Some(&header), body.as_bytes(), NOW).await
    }

    async fn outcome(&self, event: &Value) -> Outcome {
        self.send(event).await.unwrap().outcome
    }

    async fn reason(&self, event: &Value) -> String {
        match self.send(event).await {
            Err(Refused::Event(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn balance(&self) -> Balance {
        let mut tx = self.store.store.tenant(self.org).await.unwrap();
        credits::balance(&mut tx).await.unwrap()
    }

    async fn usd(&self) -> String {
        self.balance().await.balance().to_string()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.store.superuser().await).await.unwrap()
    }

    fn intent(&self, event: &str, payment: &str, cents: i64, credit: &str) -> Value {
        let metadata = json!({ ORG: self.org.to_string(), CREDIT: credit });
        let object =
            json!({ "id": payment, "amount_received": cents, "currency": "usd", "metadata": metadata });
        json!({ "id": event, "type": "payment_intent.succeeded", "data": { "object": object } })
    }

    fn session(&self, event: &str, payment: &str, cents: i64, credit: &str) -> Value {
        let metadata = json!({ ORG: self.org.to_string(), CREDIT: credit });
        let object = json!({
            "id": "cs_1", "payment_intent": payment, "payment_status": "paid", "amount_total": cents,
            "currency": "usd", "metadata": metadata,
        });
        json!({ "id": event, "type": "checkout.session.completed", "data": { "object": object } })
    }
}

fn refund(event: &str, payment: &str, back: i64, of: i64) -> Value {
    let object = json!({ "payment_intent": payment, "amount_refunded": back, "amount": of, "currency": "usd",
                         "metadata": { ORG: "x" } });
    json!({ "id": event, "type": "charge.refunded", "data": { "object": object } })
}

#[tokio::test]
async fn one_hundred_and_four_dollars_become_exactly_one_hundred_of_credit() {
    let world = world().await;
    assert_eq!(world.outcome(&world.intent("evt_1", "pi_1", 10_400, "100.00")).await, Outcome::Booked);
    assert_eq!(world.usd().await, "100");
    let sql = "SELECT kind || ' ' || nanos || ' ' || (budget_id IS NULL) FROM ledger_entries ORDER BY id";
    let entries: Vec<String> =
        sqlx::query_scalar(sql).fetch_all(&mut world.store.superuser().await).await.unwrap();
    assert_eq!(entries, ["purchase 100000000000 false", "fee 4000000000 true"]);
}

#[tokio::test]
async fn events_and_payments_that_come_again_are_booked_once() {
    let world = world().await;
    let (session, intent) =
        (world.session("evt_1", "pi_1", 10_400, "100"), world.intent("evt_2", "pi_1", 10_400, "100"));
    let sends = (0..6).map(|at| world.send(if at % 2 == 0 { &session } else { &intent }));
    let all = futures_util::future::join_all(sends).await;
    let booked = all.iter().filter(|taken| taken.as_ref().unwrap().outcome == Outcome::Booked);
    assert_eq!(booked.count(), 1, "{all:?}");
    assert_eq!(world.usd().await, "100");
    assert_eq!(world.outcome(&session).await, Outcome::Duplicate);
    assert_eq!(world.count("SELECT count(*) FROM credit_movements").await, 1);
    assert_eq!(world.count("SELECT sum(received)::bigint FROM payment_events").await, 7);
    // Another payment is another one.
    assert_eq!(world.outcome(&world.intent("evt_3", "pi_2", 104, "1")).await, Outcome::Booked);
    assert_eq!(world.usd().await, "101");
}

#[tokio::test]
async fn what_was_paid_must_be_credit_and_fee() {
    let world = world().await;
    for (at, cents) in [10_399, 10_401, 10_000, 104, 1_040_000].into_iter().enumerate() {
        let event = world.intent(&format!("evt_{at}"), &format!("pi_{at}"), cents, "100");
        let reason = world.reason(&event).await;
        assert!(reason.contains("cost 104 USD"), "{reason}");
    }
    assert!(
        world
            .reason(&world.intent("evt_a", "pi_a", 104, "1.005"))
            .await
            .contains("no credit that can be bought")
    );
    assert_eq!(world.balance().await, Balance::default());
    assert_eq!(world.count("SELECT count(*) FROM ledger_entries").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM payments").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM payment_events WHERE outcome = 'refused'").await, 6);
}

#[tokio::test]
async fn an_event_that_was_refused_is_booked_when_its_cause_is_mended() {
    let world = world().await;
    let event = world.intent("evt_1", "pi_1", 10_200, "100");
    assert!(world.reason(&event).await.contains("pay-as-you-go"));
    let mut tx = world.store.store.system().await.unwrap();
    billing::put(&mut tx, uuid::Uuid::now_v7(), Some(world.org.0), "billing.tier", "\"monthly\"")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.outcome(&event).await, Outcome::Booked);
    assert_eq!(world.outcome(&event).await, Outcome::Duplicate);
    assert_eq!(world.usd().await, "100");
}

#[tokio::test]
async fn what_is_not_signed_or_was_signed_long_ago_books_nothing_and_leaves_no_trace() {
    let world = world().await;
    let body = world.intent("evt_1", "pi_1", 10_400, "100").to_string();
    let header = |secret: &str, at: i64| format!("t={at},v1={}", sign(secret, at, body.as_bytes()));
    for (header, now) in [
        (None, NOW),
        (Some(header("whsec_somebody_elses", NOW)), NOW),
        (Some(header(SECRET, NOW - 301)), NOW),
        (Some(header(SECRET, NOW)), NOW + 3600),
        (Some("t=1".to_owned()), NOW),
    ] {
        let sent = world.payments.receive(&world.store.store, header.as_deref(), body.as_bytes(), now).await;
        assert!(matches!(sent, Err(Refused::Unsigned(_))), "{header:?}: {sent:?}");
    }
    assert_eq!(world.count("SELECT count(*) FROM payment_events").await, 0);
    assert_eq!(world.balance().await, Balance::default());
}

#[tokio::test]
async fn unknown_organizations_and_other_currencies_are_refused() {
    let world = world().await;
    let mut event = world.intent("evt_1", "pi_1", 10_400, "100");
    event["data"]["object"]["metadata"][ORG] = json!(OrgId::generate().to_string());
    assert!(world.reason(&event).await.contains("no organization"));
    let mut event = world.intent("evt_2", "pi_1", 10_400, "100");
    event["data"]["object"]["currency"] = json!("eur");
    assert!(world.reason(&event).await.contains("eur"));
    assert_eq!(
        world.outcome(&json!({ "id": "evt_3", "type": "customer.created", "data": { "object": {} } })).await,
        Outcome::Ignored
    );
    assert_eq!(world.count("SELECT count(*) FROM payment_events WHERE org_id IS NULL").await, 3);
}

#[tokio::test]
async fn a_payment_is_booked_for_one_organization_only() {
    let world = world().await;
    assert_eq!(world.outcome(&world.intent("evt_1", "pi_1", 10_400, "100")).await, Outcome::Booked);
    let mut event = world.intent("evt_2", "pi_1", 10_400, "100");
    event["data"]["object"]["metadata"][ORG] = json!(world.store.org().await.to_string());
    assert!(world.reason(&event).await.contains("another organization"));
}

#[tokio::test]
async fn refunds_take_credit_and_fee_back_in_proportion_and_once() {
    let world = world().await;
    let early = refund("evt_0", "pi_1", 5_200, 10_400);
    assert!(world.reason(&early).await.contains("not booked"), "before the payment itself");
    assert_eq!(world.outcome(&world.intent("evt_1", "pi_1", 10_400, "100")).await, Outcome::Booked);
    assert_eq!(world.outcome(&early).await, Outcome::Booked);
    assert_eq!(world.usd().await, "50");
    assert_eq!(
        world.outcome(&refund("evt_2", "pi_1", 5_200, 10_400)).await,
        Outcome::Duplicate,
        "in another event"
    );
    assert_eq!(world.outcome(&refund("evt_3", "pi_1", 10_400, 10_400)).await, Outcome::Booked);
    assert_eq!(world.usd().await, "0");
    assert_eq!(
        world.outcome(&refund("evt_4", "pi_1", 5_200, 10_400)).await,
        Outcome::Duplicate,
        "out of order"
    );
    assert_eq!(world.count("SELECT sum(nanos)::bigint FROM ledger_entries WHERE kind = 'fee'").await, 0);
    assert_eq!(world.count("SELECT sum(nanos)::bigint FROM ledger_entries WHERE kind <> 'fee'").await, 0);
    // Odd parts leave nothing behind either.
    assert_eq!(world.outcome(&world.intent("evt_5", "pi_2", 104, "1.00")).await, Outcome::Booked);
    for (at, back) in [1, 2, 50, 103, 104].into_iter().enumerate() {
        let event = refund(&format!("evt_1{at}"), "pi_2", back, 104);
        assert_eq!(world.outcome(&event).await, Outcome::Booked, "{back}");
    }
    assert_eq!(world.usd().await, "0");
    assert_eq!(world.count("SELECT sum(nanos)::bigint FROM ledger_entries WHERE kind = 'fee'").await, 0);
}

#[tokio::test]
async fn a_payment_that_came_back_after_it_was_spent_leaves_a_debt() {
    let world = world().await;
    assert_eq!(world.outcome(&world.intent("evt_1", "pi_1", 10_400, "100")).await, Outcome::Booked);
    let sql = "UPDATE budget_windows SET settled_nanos = 30000000000";
    sqlx::query(sql).execute(&mut world.store.superuser().await).await.unwrap();
    assert_eq!(world.outcome(&refund("evt_2", "pi_1", 10_400, 10_400)).await, Outcome::Booked);
    assert_eq!((world.usd().await.as_str(), world.balance().await.available()), ("-30", Nanos::ZERO));
}
