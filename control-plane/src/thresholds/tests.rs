//! Crossings against a real PostgreSQL, by windows whose totals the tests set.

use nemo_types::{BudgetId, OrgId};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use super::*;
use crate::store::testing::{self, TestStore};

struct World {
    store: TestStore,
    superuser: PgConnection,
    org: OrgId,
    now: OffsetDateTime,
}

impl World {
    async fn new() -> Self {
        let store = testing::store().await;
        let (superuser, org) = (store.superuser().await, store.org().await);
        Self { store, superuser, org, now: testing::now() }
    }

    async fn sql(&mut self, sql: String) {
        self.superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    /// A budget of $1.00 with a window that is open for ever.
    async fn budget(&mut self, thresholds: &str) -> BudgetId {
        let (id, org) = (BudgetId::generate(), self.org);
        self.sql(format!(
            "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind, thresholds)
                 VALUES ('{id}', '{org}', 'b {id}', 1000000000, 'total', '{thresholds}');
             INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos)
                 VALUES ('{id}', '{org}', 'epoch', 1000000000)"
        ))
        .await;
        id
    }

    async fn set(&mut self, budget: BudgetId, columns: &str) {
        self.sql(format!("UPDATE budget_windows SET {columns} WHERE budget_id = '{budget}'")).await;
    }

    async fn run(&self) -> usize {
        run_once(&self.store, self.now).await.unwrap()
    }

    /// Type and percent of every event so far.
    async fn events(&mut self) -> Vec<(String, Option<i64>)> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT event_type, body FROM webhook_events ORDER BY id")
                .fetch_all(&mut self.superuser)
                .await
                .unwrap();
        let percent = |body: &str| serde_json::from_str::<Value>(body).unwrap()["data"]["percent"].as_i64();
        rows.into_iter().map(|(event_type, body)| (event_type, percent(&body))).collect()
    }
}

fn threshold(percent: i64) -> (String, Option<i64>) {
    (BUDGET_THRESHOLD.to_owned(), Some(percent))
}

#[tokio::test]
async fn each_threshold_is_told_once_when_the_spend_reaches_it() {
    let mut world = World::new().await;
    let budget = world.budget("{50,80,120}").await;
    assert_eq!(world.run().await, 0);
    world.set(budget, "settled_nanos = 499999999, outstanding_nanos = 400000000").await;
    assert_eq!(world.run().await, 0, "what nodes hold is not spent");
    world.set(budget, "settled_nanos = 500000000").await;
    assert_eq!((world.run().await, world.run().await), (1, 0));
    // Several at once, what was overrun included; nothing is left either.
    world.set(budget, "settled_nanos = 1000000000, overrun_nanos = 200000000, outstanding_nanos = 0").await;
    assert_eq!((world.run().await, world.run().await), (3, 0));
    let exhausted = (BUDGET_EXHAUSTED.to_owned(), None);
    assert_eq!(world.events().await, [threshold(50), threshold(80), threshold(120), exhausted]);
}

#[tokio::test]
async fn two_replicas_at_once_tell_each_crossing_once() {
    let mut world = World::new().await;
    for _ in 0..20 {
        let budget = world.budget("{10,20}").await;
        world.set(budget, "settled_nanos = 300000000").await;
    }
    let (one, two) = tokio::join!(world.run(), world.run());
    assert_eq!(one + two, 40);
    assert_eq!(world.events().await.len(), 40);
}

#[tokio::test]
async fn a_threshold_is_news_again_when_the_spend_was_below_it() {
    let mut world = World::new().await;
    let budget = world.budget("{80}").await;
    world.set(budget, "settled_nanos = 900000000").await;
    assert_eq!(world.run().await, 1);
    // Aged out of a rolling window.
    world.set(budget, "settled_nanos = 100000000").await;
    assert_eq!(world.run().await, 0);
    world.set(budget, "settled_nanos = 900000000").await;
    assert_eq!(world.run().await, 1);
    // The limit was raised.
    world.set(budget, "limit_nanos = 2000000000").await;
    assert_eq!(world.run().await, 0);
    world.set(budget, "settled_nanos = 1700000000").await;
    assert_eq!(world.run().await, 1);
    assert_eq!(world.events().await, [threshold(80), threshold(80), threshold(80)]);
}

#[tokio::test]
async fn a_budget_whose_rest_is_too_small_is_exhausted_once() {
    let mut world = World::new().await;
    let budget = world.budget("{}").await;
    world.set(budget, "settled_nanos = 900000000, starved_at = now(), outstanding_nanos = 100000000").await;
    assert_eq!(world.run().await, 0, "another node holds the rest");
    world.set(budget, "outstanding_nanos = 0").await;
    assert_eq!((world.run().await, world.run().await), (1, 0));
    // Nobody asks for a while, then somebody does again: nothing new.
    world.now += time::Duration::hours(1);
    assert_eq!(world.run().await, 0);
    world.set(budget, "starved_at = now() + interval '1 hour'").await;
    assert_eq!(world.run().await, 0);
    world.set(budget, "limit_nanos = 3000000000, starved_at = NULL").await;
    assert_eq!(world.run().await, 0);
    world.set(budget, "settled_nanos = 3000000000").await;
    assert_eq!(world.run().await, 1);
}

#[tokio::test]
async fn switched_off_budgets_ended_windows_and_limits_of_nothing_tell_nothing() {
    let mut world = World::new().await;
    let (off, ended, nothing) =
        (world.budget("{1}").await, world.budget("{1}").await, world.budget("{1}").await);
    world.set(off, "settled_nanos = 1000000000").await;
    world.sql(format!("UPDATE budgets SET disabled = true WHERE id = '{off}'")).await;
    world.set(ended, "settled_nanos = 1000000000, window_end = now() - interval '2 hours'").await;
    world.set(nothing, "limit_nanos = 0").await;
    assert_eq!(world.run().await, 0);
}
