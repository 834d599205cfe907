//! `nemo-bench grants`: slices of many budgets for many nodes, through the real gRPC service and one PostgreSQL.
//!
//! Prints how long it takes until every node has its standby lease of every budget when all connect at once (a cold
//! start), how long one report interval's work takes when all nodes report at the same moment, and how long a request
//! waits whose node has to ask.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use nemo_proto::common::NodeInfo;
use nemo_proto::quota::{
    BudgetReport, LeaseDirective, LeaseReport, quota_service_client::QuotaServiceClient,
};
use nemo_runtime::grpc::{self, NodeToken};
use nemo_tests::control::ControlPlane;
use nemo_tests::site::NODE_TOKEN;
use nemo_types::{BudgetId, OrgId, Secret};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, service::interceptor::InterceptedService};

use super::proc::cpu_time;

/// What nodes report in, by default.
const INTERVAL: Duration = Duration::from_secs(2);
/// Of each budget: 1,000 USD.
const LIMIT: i64 = 1_000_000_000_000;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 10_000)]
    budgets: usize,
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// Budgets that a node has spent of since its last report.
    #[arg(long, default_value_t = 1000)]
    active: usize,
    /// Of these: budgets that it wants more of.
    #[arg(long, default_value_t = 50)]
    asking: usize,
    /// Report intervals that are measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Single requests that wait, one after the other, while all nodes report.
    #[arg(long, default_value_t = 200)]
    urgent: usize,
}

/// A node's end of the stream, and what it holds.
struct Node {
    number: usize,
    reports: mpsc::Sender<LeaseReport>,
    directives: Streaming<LeaseDirective>,
    seq: u64,
    /// By budget: the lease, what was granted, what was spent.
    held: HashMap<Bytes, (Bytes, i64, i64)>,
}

/// # Errors
/// When something does not start, or money is granted that is not there.
pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let control = ControlPlane::start_alone(&[]).await?;
    let mut database = PgConnection::connect(control.database.url()).await?;
    let budgets = prepare(&mut database, args.budgets).await?;

    let began = Instant::now();
    let nodes = (0..args.nodes).map(|number| connect(&control, number));
    let mut nodes = futures_util::future::try_join_all(nodes).await?;
    let answered = began.elapsed();
    futures_util::future::try_join_all(nodes.iter_mut().map(|node| node.hear_of(args.budgets))).await?;
    let cold = (answered, began.elapsed());
    let leases: usize = nodes.iter().map(|node| node.held.len()).sum();
    anyhow::ensure!(leases == args.budgets * args.nodes, "{leases} standby leases");

    // As autovacuum does, which the test server has not.
    sqlx::query("VACUUM ANALYZE budget_windows, budget_leases, quota_sessions")
        .execute(&mut database)
        .await?;

    let mut rounds = Vec::new();
    let cpu_before = cpu(&control, &mut database).await?;
    for round in 0..args.rounds {
        let began = Instant::now();
        let reports = nodes.iter_mut().map(|node| node.report_interval(&budgets, round, args));
        futures_util::future::try_join_all(reports).await?;
        rounds.push(began.elapsed());
    }
    let cpu_after = cpu(&control, &mut database).await?;

    let alone = ask_one_by_one(&mut nodes[0], &budgets, args.urgent).await?;
    let (first, others) = nodes.split_first_mut().context("no nodes")?;
    let busy = async {
        let reports = others.iter_mut().map(|node| node.report_interval(&budgets, args.rounds, args));
        futures_util::future::try_join_all(reports).await
    };
    let (busy, meanwhile) = tokio::join!(busy, ask_one_by_one(first, &budgets, args.urgent));
    busy?;

    let overspent: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM budget_windows w WHERE settled_nanos + outstanding_nanos + overrun_nanos > limit_nanos \
         OR outstanding_nanos <> (SELECT sum(granted_nanos - returned_nanos - spent_nanos - forfeited_nanos) \
                                  FROM budget_leases l WHERE l.budget_id = w.budget_id)",
    )
    .fetch_one(&mut database)
    .await?;
    anyhow::ensure!(overspent == 0, "{overspent} windows don't add up");
    let each = |(control, postgres): (Duration, Duration)| {
        (
            control / u32::try_from(rounds.len()).unwrap_or(1),
            postgres / u32::try_from(rounds.len()).unwrap_or(1),
        )
    };
    let used = each((cpu_after.0 - cpu_before.0, cpu_after.1 - cpu_before.1));
    print(args, cold, &mut rounds, used, (alone, meanwhile?))
}

fn print(
    args: &Args,
    (answered, cold): (Duration, Duration),
    rounds: &mut [Duration],
    (control, postgres): (Duration, Duration),
    (alone, meanwhile): (Vec<Duration>, Vec<Duration>),
) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let leases = args.budgets * args.nodes;
    writeln!(
        out,
        "grants: {} budgets, {} nodes, one control plane, one PostgreSQL",
        args.budgets, args.nodes
    )?;
    writeln!(
        out,
        "  cold start    {:>8.2} s   {leases} standby leases ({:.0} per second); every node has its first answer after {:.2} s",
        cold.as_secs_f64(),
        leases as f64 / cold.as_secs_f64(),
        answered.as_secs_f64()
    )?;
    rounds.sort_unstable();
    let worst = rounds.last().copied().unwrap_or_default();
    let median = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
    writeln!(
        out,
        "  one interval  {:>8.2} s   median of {}, worst {:.2} s; every node reports {} budgets and wants more of {} \
         (goal: {} s)",
        median.as_secs_f64(),
        rounds.len(),
        worst.as_secs_f64(),
        args.active,
        args.asking,
        INTERVAL.as_secs()
    )?;
    writeln!(
        out,
        "                {:>8.2} s   of CPU per interval in the control plane, {:.2} s in PostgreSQL",
        control.as_secs_f64(),
        postgres.as_secs_f64()
    )?;
    for (name, mut took) in [("alone", alone), ("while all report", meanwhile)] {
        took.sort_unstable();
        let at =
            |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
        writeln!(
            out,
            "  one request   {:>8.2} ms  until its grant, {name}: p50; p99 {:.2} ms",
            at(50),
            at(99)
        )?;
    }
    Ok(if worst < INTERVAL { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn prepare(database: &mut PgConnection, count: usize) -> anyhow::Result<Vec<Bytes>> {
    let org = OrgId::generate();
    sqlx::query("INSERT INTO organizations (id, name) VALUES ($1, 'bench')")
        .bind(org.0)
        .execute(&mut *database)
        .await?;
    let ids: Vec<BudgetId> = (0..count).map(|_| BudgetId::generate()).collect();
    sqlx::query(
        "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind) \
         SELECT id, $1, id::text, $2, 'day' FROM unnest($3::uuid[]) AS new (id)",
    )
    .bind(org.0)
    .bind(LIMIT)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .execute(&mut *database)
    .await?;
    sqlx::query("ANALYZE budgets").execute(database).await?;
    Ok(ids.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect())
}

/// CPU time of the control plane, and of every process of the server.
async fn cpu(control: &ControlPlane, database: &mut PgConnection) -> anyhow::Result<(Duration, Duration)> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(database).await?;
    let postgres = pids.into_iter().map(|pid| cpu_time(pid.unsigned_abs()).unwrap_or_default()).sum();
    Ok((cpu_time(control.process.pid())?, postgres))
}

/// Connects, and returns when the answer to the first report is there; most standby leases come after it.
async fn connect(control: &ControlPlane, number: usize) -> anyhow::Result<Node> {
    let channel = grpc::channel(&format!("http://{}", control.grpc_addr()), None)?;
    let token = NodeToken::new(&Secret::new(NODE_TOKEN.to_owned()))?;
    let mut client = QuotaServiceClient::new(InterceptedService::new(channel, token))
        .max_decoding_message_size(grpc::MAX_MESSAGE_BYTES);
    let (reports, stream) = mpsc::channel(1);
    let info = NodeInfo { node_id: format!("bench-{number}"), epoch: 1, ..NodeInfo::default() };
    reports.send(LeaseReport { info: Some(info), full: true, seq: 1, ..LeaseReport::default() }).await?;
    let directives = client.lease(ReceiverStream::new(stream)).await?.into_inner();
    let mut node = Node { number, reports, directives, seq: 1, held: HashMap::new() };
    node.hear().await?;
    Ok(node)
}

impl Node {
    /// Waits for the answer to the last report.
    async fn hear(&mut self) -> anyhow::Result<()> {
        loop {
            if self.hear_one().await? == self.seq {
                return Ok(());
            }
        }
    }

    /// Waits until it has leases of so many budgets.
    async fn hear_of(&mut self, budgets: usize) -> anyhow::Result<()> {
        while self.held.len() < budgets {
            self.hear_one().await?;
        }
        Ok(())
    }

    /// Returns the number of the report that this answers.
    async fn hear_one(&mut self) -> anyhow::Result<u64> {
        let directive = self.directives.message().await?.context("the stream has ended")?;
        for grant in directive.grants {
            let held = self.held.entry(grant.budget_id).or_insert((grant.lease_id.clone(), 0, 0));
            (held.0, held.1) = (grant.lease_id, grant.granted_total);
        }
        Ok(directive.answers)
    }

    async fn report(&mut self, budgets: Vec<BudgetReport>) -> anyhow::Result<()> {
        self.seq += 1;
        let report = LeaseReport { budgets, seq: self.seq, ..LeaseReport::default() };
        self.reports.send(report).await.ok().context("the stream has ended")?;
        self.hear().await
    }

    /// What has changed in an interval: every active budget's spend, and some slices that run low.
    async fn report_interval(&mut self, budgets: &[Bytes], round: usize, args: &Args) -> anyhow::Result<()> {
        // Each node has its own active ones; they overlap with those of others.
        let from = (self.number * 617 + round * 131) % budgets.len();
        let lines = (0..args.active.min(budgets.len())).map(|at| {
            let budget = &budgets[(from + at) % budgets.len()];
            let mut line = BudgetReport { budget_id: budget.clone(), ..BudgetReport::default() };
            if let Some((lease, _, spent)) = self.held.get_mut(budget) {
                *spent += 1000;
                (line.lease_id, line.spent_total) = (lease.clone(), *spent);
            }
            if at < args.asking {
                (line.wants, line.spend_rate) = (100_000_000, 100_000);
            }
            line
        });
        let lines = lines.collect();
        self.report(lines).await
    }
}

/// Requests that find nothing: one report each, answered before the next.
async fn ask_one_by_one(node: &mut Node, budgets: &[Bytes], count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(count);
    for at in 0..count {
        let budget = &budgets[(at * 37) % budgets.len()];
        let (lease_id, before) =
            node.held.get(budget).map(|held| (held.0.clone(), held.1)).unwrap_or_default();
        let ask = BudgetReport {
            budget_id: budget.clone(),
            lease_id,
            wants: 10_000_000,
            needs: 10_000_000,
            ..BudgetReport::default()
        };
        let began = Instant::now();
        node.report(vec![ask]).await?;
        took.push(began.elapsed());
        let after = node.held.get(budget).map_or(0, |held| held.1);
        anyhow::ensure!(after > before, "a request got nothing");
    }
    Ok(took)
}
