//! `nemo-bench ingest`: usage events through the real gRPC service into PostgreSQL, each charged to three budgets: rows
//! of the request log, rollups, settlement and ledger in one transaction per batch.
//!
//! Prints events per second, and what an event costs in CPU time: in the control plane, and in PostgreSQL.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nemo_proto::common::Usage;
use nemo_proto::usage::{
    Charge, CostSource, Outcome, UsageBatch, UsageEvent, usage_service_client::UsageServiceClient,
};
use nemo_runtime::grpc::{self, NodeToken};
use nemo_tests::control::ControlPlane;
use nemo_tests::site::NODE_TOKEN;
use nemo_types::{BudgetId, DeploymentId, KeyId, LeaseId, OrgId, RequestId, Secret, TeamId};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;

use super::proc::cpu_time;

#[derive(clap::Args)]
pub struct Args {
    /// Events in all.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Events of a batch; nodes send 500.
    #[arg(long, default_value_t = 500)]
    batch: u64,
    /// Nodes that send at the same time.
    #[arg(long, default_value_t = 4)]
    nodes: u64,
    /// Keys, each with a budget of its own beside those of its team and of its organization.
    #[arg(long, default_value_t = 100)]
    keys: usize,
}

/// Who pays for a request: a key with its three budgets, and a node's leases of them.
struct Payer {
    org: OrgId,
    team: TeamId,
    key: KeyId,
    budgets: [BudgetId; 3],
    /// By node.
    leases: Vec<[LeaseId; 3]>,
}

/// # Errors
/// When something does not start, or not every event arrives.
pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let control = ControlPlane::start_alone(&[]).await?;
    let mut database = PgConnection::connect(control.database.url()).await?;
    let payers = prepare(&mut database, args).await?;
    // Partitions, prepared statements and plans are there before the clock starts.
    let warm = Args { events: args.batch * args.nodes * 4, ..*args };
    send_all(&control, &payers, &warm, 1).await?;
    let backends = backends(&mut database).await?;
    let cpu = || -> anyhow::Result<(Duration, Duration)> {
        let postgres = backends.iter().map(|pid| cpu_time(*pid).unwrap_or_default()).sum();
        Ok((cpu_time(control.process.pid())?, postgres))
    };
    let (before, began) = (cpu()?, Instant::now());
    send_all(&control, &payers, args, 2).await?;
    let (took, after) = (began.elapsed(), cpu()?);

    let expected = i64::try_from(args.events + warm.events)?;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM request_log").fetch_one(&mut database).await?;
    let settled = "SELECT sum(settled_nanos)::bigint FROM budget_windows";
    let settled: i64 = sqlx::query_scalar(settled).fetch_one(&mut database).await?;
    anyhow::ensure!(rows == expected, "{rows} of {expected} events are in the log");
    anyhow::ensure!(
        settled == expected * 3 * COST,
        "{settled} nano-USD are settled of {}",
        expected * 3 * COST
    );
    let checked = Instant::now();
    let report = control.admin.get("/ledger/verification").await?;
    anyhow::ensure!(report["ok"] == true, "the ledger does not add up: {report}");
    print(args, took, (after.0 - before.0, after.1 - before.1), (checked.elapsed(), &report))?;
    Ok(ExitCode::SUCCESS)
}

fn print(
    args: &Args,
    took: Duration,
    (control, postgres): (Duration, Duration),
    (checked, report): (Duration, &serde_json::Value),
) -> anyhow::Result<()> {
    let events = u32::try_from(args.events)?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / f64::from(events);
    let (control, postgres) = (each(control), each(postgres));
    let mut out = std::io::stdout();
    writeln!(
        out,
        "usage ingest: {events} events with 3 charges each, {} nodes, batches of {}, {} budgets",
        args.nodes,
        args.batch,
        3 * args.keys
    )?;
    writeln!(
        out,
        "  {:>9.0} events/s ({:.1} s)",
        f64::from(events) / took.as_secs_f64(),
        took.as_secs_f64()
    )?;
    writeln!(out, "  {control:>9.1} us of CPU per event in the control plane")?;
    writeln!(out, "  {postgres:>9.1} us of CPU per event in PostgreSQL")?;
    writeln!(out, "  {:>9.0} events/s per core, both together", 1e6 / (control + postgres))?;
    writeln!(
        out,
        "  ledger verify: {} entries, {} charges, every total their sum, {:.2} s",
        report["entries"],
        report["charges"],
        checked.as_secs_f64()
    )?;
    Ok(())
}

/// What each request costs, in nano-USD.
const COST: i64 = 1_000;

/// Budgets, windows and leases as the quota service would have made them.
async fn prepare(database: &mut PgConnection, args: &Args) -> anyhow::Result<Vec<Payer>> {
    let (org, orgs_budget) = (OrgId::generate(), BudgetId::generate());
    let mut sql = format!("INSERT INTO organizations (id, name) VALUES ('{org}', 'bench');");
    let limit = i64::MAX / 4;
    let mut budget = |id: BudgetId, name: &str| -> Vec<LeaseId> {
        use std::fmt::Write as _;
        let leases: Vec<_> = (0..args.nodes).map(|_| LeaseId::generate()).collect();
        let granted = limit / 1024;
        let _ = write!(
            sql,
            "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind)
                 VALUES ('{id}', '{org}', '{name}', {limit}, 'total');
             INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos, outstanding_nanos)
                 VALUES ('{id}', '{org}', to_timestamp(0), {limit}, {granted} * {});",
            leases.len()
        );
        for (node, lease) in leases.iter().enumerate() {
            let _ = write!(
                sql,
                "INSERT INTO budget_leases (lease_id, budget_id, org_id, window_start, session_id, node_id, epoch,
                                            granted_nanos, ttl_ms)
                     VALUES ('{lease}', '{id}', '{org}', to_timestamp(0), {node} + 1000000, 'bench-{node}', 1,
                             {granted}, 3600000);"
            );
        }
        leases
    };
    let of_org = budget(orgs_budget, "organization");
    let teams: Vec<_> = (0..args.keys.div_ceil(10))
        .map(|at| {
            let id = BudgetId::generate();
            (TeamId::generate(), id, budget(id, &format!("team {at}")))
        })
        .collect();
    let payers = (0..args.keys)
        .map(|at| {
            let (team, teams_budget, of_team) = &teams[at / 10];
            let own = BudgetId::generate();
            let of_key = budget(own, &format!("key {at}"));
            let leases = of_org.iter().zip(of_team).zip(of_key).map(|((org, team), key)| [*org, *team, key]);
            Payer {
                org,
                team: *team,
                key: KeyId::generate(),
                budgets: [orgs_budget, *teams_budget, own],
                leases: leases.collect(),
            }
        })
        .collect();
    database.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    Ok(payers)
}

/// Every process of the server but the one of this connection.
async fn backends(database: &mut PgConnection) -> anyhow::Result<Vec<u32>> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(database).await?;
    Ok(pids.into_iter().map(i32::unsigned_abs).collect())
}

async fn send_all(control: &ControlPlane, payers: &[Payer], args: &Args, epoch: u64) -> anyhow::Result<()> {
    let each = args.events / args.nodes;
    let nodes = (0..args.nodes).map(|node| {
        // The first takes what does not divide.
        let events = if node == 0 { args.events - each * (args.nodes - 1) } else { each };
        send(control, payers, (node, epoch), (events, args.batch))
    });
    futures_util::future::try_join_all(nodes).await.map(drop)
}

/// As a node does: a batch, then its acknowledgement.
async fn send(
    control: &ControlPlane,
    payers: &[Payer],
    (node, epoch): (u64, u64),
    (events, batch): (u64, u64),
) -> anyhow::Result<()> {
    let channel = grpc::channel(&format!("http://{}", control.grpc_addr()), None)?;
    let token = NodeToken::new(&Secret::new(NODE_TOKEN.to_owned()))?;
    let mut client = UsageServiceClient::new(InterceptedService::new(channel, token));
    let (batches, stream) = mpsc::channel(1);
    let mut acks = client.ingest(ReceiverStream::new(stream)).await?.into_inner();
    let mut first_seq = 1;
    while first_seq <= events {
        let size = batch.min(events - first_seq + 1);
        let made = (0..size).map(|at| event(payers, node, first_seq + at)).collect::<anyhow::Result<_>>()?;
        let message =
            UsageBatch { node_id: format!("bench-{node}"), epoch, first_seq, events: made, dropped_total: 0 };
        batches.send(message).await.context("the stream has ended")?;
        first_seq += size;
        let ack = acks.message().await?.context("no acknowledgement")?;
        anyhow::ensure!(ack.through_seq + 1 == first_seq && ack.duplicates == 0, "{ack:?}");
    }
    Ok(())
}

fn event(payers: &[Payer], node: u64, seq: u64) -> anyhow::Result<UsageEvent> {
    let at = usize::try_from(seq.wrapping_mul(2_654_435_761) >> 7)? % payers.len();
    let payer = &payers[at];
    let bytes = |id: &[u8; 16]| id.to_vec().into();
    let leases = &payer.leases[usize::try_from(node)?];
    let charges = payer.budgets.iter().zip(leases).map(|(budget, lease)| Charge {
        budget_id: bytes(budget.as_bytes()),
        window_start_unix_s: 0,
        lease_id: bytes(lease.as_bytes()),
        nanos: COST,
    });
    Ok(UsageEvent {
        request_id: bytes(RequestId::generate().as_bytes()),
        org_id: bytes(payer.org.as_bytes()),
        team_id: bytes(payer.team.as_bytes()),
        key_id: bytes(payer.key.as_bytes()),
        deployment_id: bytes(DeploymentId::generate().as_bytes()),
        endpoint: "chat.completions".into(),
        requested_model: "gpt-5.2".into(),
        model: format!("openai/gpt-5.{}", at % 5),
        provider: "openai".into(),
        upstream_model: "gpt-5.2-2025-12-11".into(),
        stream: seq.is_multiple_of(2),
        outcome: Outcome::Ok.into(),
        http_status: 200,
        finish_reason: "stop".into(),
        usage: Some(Usage {
            input_tokens: Some(1200),
            output_tokens: Some(300),
            cache_read_tokens: Some(1000),
            ..Usage::default()
        }),
        cost_nanos: Some(COST),
        cost_source: CostSource::Priced.into(),
        price_id: "0198f3c2-1111-7000-8000-000000000001".into(),
        attempts: 1,
        strategy: "simple-shuffle".into(),
        config_revision: 42,
        started_unix_us: nemo_runtime::clock::unix_us(),
        total_us: 800_000 + seq % 1000,
        upstream_us: 700_000,
        first_byte_us: Some(200_000 + seq % 777),
        overhead_us: 90,
        request_bytes: 4_000,
        response_bytes: 12_000,
        // As large as those of a small model group.
        decision: vec![7; 160].into(),
        charges: charges.collect(),
        ..UsageEvent::default()
    })
}
