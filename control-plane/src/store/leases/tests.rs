//! The bank in PostgreSQL: the contract of every bank, and what only a database can do wrong. Covers I3, R001-7.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use nemo_proto::quota::BudgetReport;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

use super::*;
use crate::{
    ledger::Kind,
    quota::{
        bank::contract::{self, START, USD, World, granted, node, report, settings, wants},
        books::{LostLease, WindowRow},
    },
    store::testing::{self, TestStore},
};
use nemo_types::{Nanos, OrgId};

struct InDatabase {
    store: TestStore,
    bank: SqlBank,
    clock: Arc<AtomicI64>,
    org: OrgId,
}

impl InDatabase {
    async fn new() -> Self {
        let store = testing::store().await;
        let org = store.org().await;
        let clock = Arc::new(AtomicI64::new(START));
        let bank = SqlBank::new(store.store.clone(), settings()).with_clock(clock.clone());
        Self { store, bank, clock, org }
    }

    async fn run(&self, sql: String) {
        self.store.superuser().await.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
}

#[tonic::async_trait]
impl World for InDatabase {
    fn bank(&self) -> &dyn Bank {
        &self.bank
    }

    fn now(&self) -> Millis {
        self.clock.load(Ordering::Relaxed)
    }

    fn set_now(&self, now: Millis) {
        self.clock.store(now, Ordering::Relaxed);
    }

    async fn budget(&self, kind: &str, hours: Option<i64>, limit: i64, lost: LostLease) -> BudgetId {
        let id = BudgetId::generate();
        let hours = hours.map_or("NULL".to_owned(), |hours| hours.to_string());
        let lost = if lost == LostLease::Charge { "charge" } else { "release" };
        let (org, at) = (self.org, self.now());
        self.run(format!(
            "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind, window_hours, lost_lease, created_at) \
             VALUES ('{id}', '{org}', '{id}', {limit}, '{kind}', {hours}, '{lost}', to_timestamp({at} / 1000.0))"
        ))
        .await;
        id
    }

    async fn set_limit(&self, budget: BudgetId, limit: i64) {
        // `clock_timestamp()` marks what is called back; the bank's clock stands elsewhere.
        let now = self.now();
        self.run(format!(
            "UPDATE budgets SET limit_nanos = {limit} WHERE id = '{budget}'; \
             UPDATE budget_windows SET limit_nanos = {limit} WHERE budget_id = '{budget}'; \
             UPDATE budget_windows SET starved_at = to_timestamp({now} / 1000.0) \
                 WHERE budget_id = '{budget}' AND starved_at IS NOT NULL"
        ))
        .await;
    }

    async fn windows(&self) -> Vec<WindowRow> {
        let mut tx = self.store.system().await.unwrap();
        let keys: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT budget_id, extract(epoch FROM window_start)::bigint FROM budget_windows ORDER BY 1, 2",
        )
        .fetch_all(tx.conn())
        .await
        .unwrap();
        let keys: Vec<WindowKey> =
            keys.into_iter().map(|(id, start)| WindowKey { budget: BudgetId(id), start }).collect();
        rows::windows(tx.conn(), &keys).await.unwrap().into_values().collect()
    }

    async fn leases(&self) -> Vec<LeaseRow> {
        let mut tx = self.store.system().await.unwrap();
        let ids: Vec<Uuid> =
            sqlx::query_scalar("SELECT lease_id FROM budget_leases").fetch_all(tx.conn()).await.unwrap();
        let ids: Vec<LeaseId> = ids.into_iter().map(LeaseId).collect();
        rows::leases(tx.conn(), &ids).await.unwrap()
    }

    async fn entries(&self, budget: BudgetId) -> Vec<Entry> {
        let mut tx = self.store.system().await.unwrap();
        let rows = sqlx::query(
            "SELECT kind, window_start, lease_id, nanos FROM ledger_entries WHERE budget_id = $1 ORDER BY id",
        )
        .bind(budget.0)
        .fetch_all(tx.conn())
        .await
        .unwrap();
        let entry = |row: sqlx::postgres::PgRow| {
            let kind: String = row.get(0);
            let lease: Option<Uuid> = row.get(2);
            Entry::of_window(
                kind.parse::<Kind>().unwrap(),
                self.org,
                (budget, row.get(1)),
                lease.map(LeaseId),
                Nanos(row.get(3)),
            )
        };
        rows.into_iter().map(entry).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_in_postgresql_keeps_the_contract() {
    contract::run(&InDatabase::new().await).await;
}

/// I3 and the sums under real concurrency: nodes that ask, hand back and settle at once, over the same few budgets in
/// reports of different order, while leases are expired and the limit moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i3_budgets_are_never_overspent_by_grants_that_meet() {
    const NODES: u64 = 8;
    const ROUNDS: u64 = 25;
    let world = InDatabase::new().await;
    let mut budgets = Vec::new();
    for _ in 0..5 {
        budgets.push(world.budget("total", None, USD, LostLease::Charge).await);
    }
    let spent = Arc::new(AtomicU64::new(0));
    let nodes = (0..NODES).map(|number| {
        let (bank, mut budgets, spent) = (world.bank.clone(), budgets.clone(), spent.clone());
        async move {
            let node = node(&format!("node-{number}"), 1);
            // A report is sorted by the bank; what a node has is not.
            let by = usize::try_from(number).unwrap() % budgets.len();
            budgets.rotate_left(by);
            let mut held: HashMap<BudgetId, (LeaseId, i64, i64)> = HashMap::new();
            for round in 0..ROUNDS {
                let mut ask = Vec::new();
                for budget in &budgets {
                    let mut it = wants(*budget, 20_000_000, 3_000_000);
                    if let Some((lease, granted, used)) = held.get_mut(budget) {
                        it.lease_id = bytes::Bytes::copy_from_slice(lease.as_bytes());
                        // Every third time half of what is left goes back.
                        if round % 3 == 2 {
                            *used += (*granted - *used) / 2;
                            it.returned_total = *used;
                        }
                    }
                    ask.push(it);
                }
                let answer = bank.report(&node, &report(ask)).await.unwrap();
                let mut charges = Vec::new();
                for budget in &budgets {
                    if let Some(grant) = granted(&answer.directive, *budget) {
                        let id = LeaseId::from_bytes(&grant.lease_id).unwrap();
                        held.entry(*budget).or_insert((id, 0, 0)).1 = grant.granted_total;
                    }
                    let Some((lease, _, _)) = held.get(budget) else { continue };
                    charges.push(SettledCharge {
                        budget_id: *budget,
                        window_start: 0,
                        lease_id: Some(*lease),
                        nanos: 500_000,
                        at: START,
                    });
                }
                spent.fetch_add(charges.len() as u64 * 500_000, Ordering::Relaxed);
                let half = charges.len() / 2;
                charges.rotate_left(half);
                bank.settle(&format!("{number}-{round}"), &charges).await.unwrap();
            }
        }
    });
    let group: Vec<_> =
        nodes.map(|it| Box::pin(it) as futures_util::future::BoxFuture<'static, ()>).collect();
    let (tasks, bank) = (nemo_runtime::TaskGroup::new(), world.bank.clone());
    let finished: Vec<_> = group
        .into_iter()
        .map(|work| {
            let (done, waits) = tokio::sync::oneshot::channel();
            tasks.spawn("node", async move {
                work.await;
                let _ = done.send(());
            });
            waits
        })
        .collect();
    let mut most = 0;
    let mut all = futures_util::future::try_join_all(finished);
    loop {
        tokio::select! {
            done = &mut all => {
                done.expect("no node gave up");
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                bank.expire().await.unwrap();
                for window in world.windows().await {
                    most = most.max(window.outstanding);
                    // Nothing but grants counts: what was overrun came from settling more than was granted.
                    assert!(window.settled + window.outstanding <= USD, "{window:?}");
                }
            }
        }
    }
    assert!(most > 0);
    let dynamic: &dyn World = &world;
    dynamic.check().await;
    let settled: i64 = world.windows().await.iter().map(|it| it.settled + it.overrun).sum();
    assert_eq!(u64::try_from(settled).unwrap(), spent.load(Ordering::Relaxed), "exact sums");
}

/// The guard in the database itself: a grant that passes the limit is refused, whatever the caller had worked out.
#[tokio::test]
async fn i3_the_database_refuses_a_grant_beyond_the_limit() {
    let world = InDatabase::new().await;
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    world.bank.report(&node("guard", 1), &report(vec![wants(budget, 1000, 1000)])).await.unwrap();
    let key = WindowKey { budget, start: 0 };
    let mut tx = world.store.system().await.unwrap();
    let before = rows::lock(tx.conn(), &[key]).await.unwrap();
    let leases = world.leases().await;
    let old: HashMap<LeaseId, LeaseRow> = leases.iter().map(|it| (it.id, it.clone())).collect();
    let mut rows = Rows::of(before.clone());
    leases.into_iter().for_each(|lease| rows.insert(lease));
    let id = *old.keys().next().unwrap();
    let (window, lease) = rows.both(id).unwrap();
    lease.granted += USD;
    window.outstanding += USD;
    let refused = rows::save(tx.conn(), (&before, &old), &rows, 0).await.unwrap_err();
    assert!(refused.to_string().contains("I3"), "{refused}");
}

#[tokio::test]
async fn leases_go_with_their_budget_and_its_last_events_lead_to_nothing() {
    let world = InDatabase::new().await;
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    let node = node("deleted", 1);
    let answer = world.bank.report(&node, &report(vec![wants(budget, 1000, 1000)])).await.unwrap();
    let grant = granted(&answer.directive, budget).unwrap().clone();
    world.run(format!("DELETE FROM budgets WHERE id = '{budget}'")).await;
    assert!(world.leases().await.is_empty() && world.windows().await.is_empty());
    let charge = SettledCharge {
        budget_id: budget,
        window_start: 0,
        lease_id: LeaseId::from_bytes(&grant.lease_id),
        nanos: 5,
        at: START,
    };
    assert!(world.bank.settle("deleted", &[charge]).await.unwrap().is_empty());
    let answer = world.bank.report(&node, &report(vec![wants(budget, 1000, 1000)])).await.unwrap();
    assert!(answer.directive.grants.is_empty());
}

/// Many nodes connect at once, and ask meanwhile: each has one open lease of each budget, and the sums hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_connect_at_once_are_each_given_one_lease_of_each_budget() {
    const NODES: usize = 4;
    let world = InDatabase::new().await;
    let mut budgets = Vec::new();
    for _ in 0..=standby::AT_ONCE {
        budgets.push(world.budget("day", None, 100 * USD, LostLease::Charge).await);
    }
    let (tasks, (trigger, drain)) = (nemo_runtime::TaskGroup::new(), nemo_runtime::drain::channel());
    tasks.spawn("standby", world.bank.clone().stand_by(drain));
    while !world.bank.memory.standby.is_attended() {
        tokio::task::yield_now().await;
    }
    let nodes = (0..NODES).map(|number| {
        let (bank, budgets) = (&world.bank, &budgets);
        async move {
            let node = node(&format!("connects-{number}"), 1);
            let (later, mut given) = mpsc::channel(64);
            let connects = LeaseReport { full: true, ..report(Vec::new()) };
            let first = bank.report_in_parts(&node, &connects, &later).await.unwrap();
            assert!(first.directive.grants.is_empty(), "the answer does not wait for them");
            // In the way of those that are given, from the last to the first.
            let mut held = HashSet::new();
            for budget in budgets.iter().rev().step_by(7) {
                let asks = report(vec![wants(*budget, 1000, 1000)]);
                let answer = bank.report_in_parts(&node, &asks, &later).await.unwrap();
                held.extend(answer.directive.grants.into_iter().map(|grant| grant.budget_id));
            }
            while held.len() < budgets.len() {
                let given = tokio::time::timeout(Duration::from_secs(30), given.recv()).await;
                held.extend(given.unwrap().unwrap().grants.into_iter().map(|grant| grant.budget_id));
            }
        }
    });
    futures_util::future::join_all(nodes).await;
    trigger.start();
    let dynamic: &dyn World = &world;
    dynamic.check().await;
    let leases = world.leases().await;
    let open: HashSet<(String, BudgetId)> =
        leases.iter().map(|it| (it.node_id.to_string(), it.key.budget)).collect();
    assert_eq!((leases.len(), open.len()), (NODES * budgets.len(), NODES * budgets.len()));
}

#[tokio::test]
async fn a_lease_that_was_ended_elsewhere_is_called_back_within_a_minute() {
    let world = InDatabase::new().await;
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    let node = node("remembered", 1);
    let answer = world.bank.report(&node, &report(vec![wants(budget, 1000, 1000)])).await.unwrap();
    let lease_id = granted(&answer.directive, budget).unwrap().lease_id.clone();
    let spends =
        || report(vec![BudgetReport { lease_id: lease_id.clone(), spent_total: 10, ..wants(budget, 0, 0) }]);
    // By another replica.
    world.run("UPDATE budget_leases SET state = 'held', held_at = now()".to_owned()).await;
    let answer = world.bank.report(&node, &spends()).await.unwrap();
    assert!(answer.directive.recalls.is_empty(), "leases that were just granted are not looked up");
    world.set_now(START + 60_000);
    let answer = world.bank.report(&node, &spends()).await.unwrap();
    assert_eq!(answer.directive.recalls.len(), 1);
    assert_eq!(answer.directive.recalls[0].lease_id, lease_id);
}
