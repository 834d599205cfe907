//! Budgets with leases for tests of what money does: made as the bank would, but by hand.

use nemo_types::{BudgetId, LeaseId, Nanos, OrgId};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use time::OffsetDateTime;

use super::{
    testing::{TestStore, now, store, usage_row},
    usage_ingest::Row,
};
use crate::ledger::{Charge, charge};

/// One organization with budgets over all time, each with a lease of a node.
pub(crate) struct Money {
    pub(crate) store: TestStore,
    pub(crate) org: OrgId,
    pub(crate) budgets: Vec<(BudgetId, LeaseId)>,
}

/// What every lease is granted.
pub(crate) const GRANTED: i64 = 1_000_000;

pub(crate) async fn money(budgets: usize) -> Money {
    let store = store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    let mut made = Vec::new();
    for at in 0..budgets {
        let (budget, lease) = (BudgetId::generate(), LeaseId::generate());
        execute(
            &mut superuser,
            &format!(
                "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind)
                     VALUES ('{budget}', '{org}', 'budget {at}', 100000000, 'total');
                 INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos, outstanding_nanos)
                     VALUES ('{budget}', '{org}', to_timestamp(0), 100000000, {GRANTED});
                 INSERT INTO budget_leases (lease_id, budget_id, org_id, window_start, session_id, node_id, epoch,
                                            granted_nanos, ttl_ms)
                     VALUES ('{lease}', '{budget}', '{org}', to_timestamp(0), {at}, 'node-1', 1, {GRANTED}, 1000);"
            ),
        )
        .await;
        made.push((budget, lease));
    }
    Money { store, org, budgets: made }
}

pub(crate) async fn execute(connection: &mut PgConnection, sql: &str) {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}

impl Money {
    /// A request of that time, charged to all budgets.
    pub(crate) fn row(&self, at: OffsetDateTime, nanos: i64) -> Row {
        let charged = self.budgets.iter().map(|(budget, lease)| of(*budget, Some(*lease), nanos)).collect();
        charged_row(self.org, at, nanos, charged)
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT coalesce(({sql}), 0)::bigint"));
        sqlx::query_scalar(sql).fetch_one(&mut self.store.superuser().await).await.unwrap()
    }

    /// Settled, outstanding and overrun of every window together.
    pub(crate) async fn totals(&self) -> (i64, i64, i64) {
        let sum = |column: &str| format!("SELECT sum({column}) FROM budget_windows");
        (
            self.number(&sum("settled_nanos")).await,
            self.number(&sum("outstanding_nanos")).await,
            self.number(&sum("overrun_nanos")).await,
        )
    }

    /// Fails unless everything adds up.
    pub(crate) async fn adds_up(&self) {
        let report = crate::ledger::verify::verify(&self.store.store).await.unwrap();
        assert!(report.is_fine(), "{:#?}", report.differences);
    }
}

pub(crate) fn of(budget_id: BudgetId, lease_id: Option<LeaseId>, nanos: i64) -> Charge {
    Charge { budget_id, window_start: OffsetDateTime::UNIX_EPOCH, lease_id, nanos: Nanos(nanos) }
}

pub(crate) fn charged_row(org: OrgId, at: OffsetDateTime, nanos: i64, charged: Vec<Charge>) -> Row {
    Row { cost_nanos: Some(nanos), charges: charge::to_column(&charged), charged, ..usage_row(org, at) }
}

/// One that starts now.
pub(crate) fn young_row(money: &Money, nanos: i64) -> Row {
    money.row(now(), nanos)
}
