//! What money and rates cost a request: `cargo bench -p nemo-data-plane --bench quota`, or with `--profile dist` as it is
//! shipped. Prints nanoseconds, the median of many short rounds and the best: of a request alone, and of as many threads
//! as there are cores over the same budgets.

use std::{hint::black_box, io::Write as _, sync::Arc, time::Instant};

use bytes::Bytes;
use nemo_data_plane::quota::{Clock, QuotaMetrics, QuotaTable};
use nemo_proto::quota::{BudgetGrant, LeaseDirective};
use nemo_snapshot::{Budget, BudgetKind, NoLease, OverBudget, RateLimit, ReservationBound, Scope};
use nemo_types::{BudgetId, LeaseId, Nanos, RateLimitId};

const ROUNDS: usize = 201;
const PER_ROUND: u32 = 2000;

struct Fixture {
    table: QuotaTable,
    budgets: Vec<Arc<Budget>>,
    limits: Vec<Arc<RateLimit>>,
}

fn main() {
    let fixture = Fixture::new();
    let mut out = std::io::stdout().lock();
    let mut line = |name: &str, (median, best): (u128, u128)| {
        let _ = writeln!(out, "{name:<48}{median:>6} ns  (best {best})");
    };
    line("reserve and settle, 3 budgets", measure(|| fixture.money()));
    line("admit, settle tokens and leave, 2 limits", measure(|| fixture.rates()));
    line("both", measure(|| (fixture.rates(), fixture.money())));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let together = std::thread::scope(|scope| {
        let work = || measure(|| (fixture.rates(), fixture.money()));
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).max()
    });
    line(&format!("both, on {threads} threads at once"), together.unwrap_or_default());
}

impl Fixture {
    fn new() -> Self {
        let table = QuotaTable::new(Clock::monotonic(), QuotaMetrics::default());
        // Among many others.
        let all: Vec<_> = (0..1000).map(|_| budget()).collect();
        let seq = table.report(true).seq;
        let grants = all.iter().map(|it| grant(it)).collect();
        table.apply(&LeaseDirective { answers: seq, grants, ..LeaseDirective::default() });
        let budgets = all[500..503].to_vec();
        Self { table, budgets, limits: vec![limit(), limit()] }
    }

    fn money(&self) {
        if let Ok(mut hold) = self.table.reserve(black_box(&self.budgets), Nanos(50_000)) {
            black_box(hold.charges());
            hold.sent();
            black_box(hold.settle(Nanos(20)));
        }
    }

    fn rates(&self) {
        if let Ok(mut pass) = self.table.admit(black_box(&self.limits), 100) {
            pass.settle_tokens(70);
        }
    }
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget {
        id: BudgetId::generate(),
        name: "b".into(),
        scope: Scope::Organization,
        kind: BudgetKind::Limit,
        over_budget: OverBudget::Cap,
        no_lease: NoLease::Deny,
        bound: ReservationBound::Strict,
    })
}

fn grant(budget: &Budget) -> BudgetGrant {
    BudgetGrant {
        lease_id: Bytes::copy_from_slice(LeaseId::generate().as_bytes()),
        budget_id: Bytes::copy_from_slice(budget.id.as_bytes()),
        window_start_unix_s: 0,
        granted_total: 1 << 58,
        ttl_ms: 3_600_000,
        valid_after_ms: 0,
        valid_for_ms: 0,
    }
}

fn limit() -> Arc<RateLimit> {
    Arc::new(RateLimit {
        id: RateLimitId::generate(),
        name: "r".into(),
        scope: Scope::Organization,
        model: "".into(),
        requests_per_minute: 1_000_000_000_000.try_into().ok(),
        tokens_per_minute: 1_000_000_000_000_000.try_into().ok(),
        concurrent: Some(1000),
    })
}

/// Median and best, in nanoseconds.
fn measure<T>(mut once: impl FnMut() -> T) -> (u128, u128) {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..PER_ROUND {
                black_box(once());
            }
            start.elapsed().as_nanos() / u128::from(PER_ROUND)
        })
        .collect();
    rounds.sort_unstable();
    (rounds[ROUNDS / 2], rounds[0])
}
