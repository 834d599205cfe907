//! The gateway that is measured: the product's two planes as processes, set up through the admin API.
//!
//! The data plane has the target core for itself, with one worker thread as an operator would set it for one core.
//! Control plane and PostgreSQL have the control core. On a machine of two cores that is the load generator's, and there
//! they must not keep requests from being sent: PostgreSQL gets only time that it leaves, and the control plane is
//! stopped while the load is on, as if it could not be reached. What it then has to write down waits in the node, and is
//! shipped and charged afterwards. Where it was left to run, the gateway waited for the load generator for up to half of
//! the time, and a server that waits pays for more wake-ups with each request: the floor at the same rate does too.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use nemo_tests::admin::{Admin, ServedModel, Tenant};
use nemo_tests::client::Client;
use nemo_tests::eventually::eventually_within;
use nemo_tests::postgres::{Database, Server};
use nemo_tests::process::{Place, Process};
use nemo_tests::site::{Site, wait_ready};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::Connection as _;

use super::Args;
use super::measure::translated_model;
use super::metering::{Counts, Metering};
use crate::proc;

/// What the upstream calls the model. Not what clients call it, so that every request is edited.
const UPSTREAM_MODEL: &str = "bench-upstream-2026-01";
const UPSTREAM_KEY: &str = "sk-bench-upstream";
/// A full buffer of usage events takes seconds to write, a debug build ten times as long.
const SETTLE: Duration = Duration::from_secs(180);
/// A million requests cost a tenth of it.
const SLICE_USD: u32 = 10_000;
/// Between two looks at the metrics, which cost the gateway CPU time.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The running product. Dropped in the order of its fields.
pub(super) struct Gateway {
    data_plane: Process,
    control_plane: Process,
    site: Site,
    database: Database,
    key: String,
    /// The key has budgets and rate limits.
    limited: bool,
    /// CPU time of the control plane before the first load.
    control_plane_idle: Duration,
    /// The control plane is on the load generator's core.
    shares_load_core: bool,
}

/// The control plane does not run until this is dropped.
pub(super) struct Stopped<'a>(Option<&'a Process>);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let _gone = self.0.map(|process| process.signal(Signal::CONT));
    }
}

impl Gateway {
    /// Starts everything; serves the model when this returns.
    pub(super) async fn start(args: &Args, upstream: SocketAddr) -> anyhow::Result<Self> {
        // Placed by hand or not at all: on a busy machine idle processes may never get ready.
        let place = Place { core: args.core(args.control_core()), idle: args.pinned() };
        let database = Server::shared_at(place).await?.create_database().await?;
        let site = Site::new(database.url())?;
        // The node holds what the whole load costs, as one does that has used a budget for a while: the control plane gets
        // no time to grant more while the load generator has its core.
        let slice = SLICE_USD.to_string();
        let control_plane = site
            .control_plane()?
            .env("NEMO_QUOTA__MIN_SLICE", &slice)
            .env("NEMO_QUOTA__MAX_SLICE", &slice)
            .place(place)
            .spawn()?;
        wait_ready(&control_plane, site.ports.control_ops).await?;
        let key = provision(&site, args, upstream).await.with_context(|| control_plane.log())?;

        let spec = site.data_plane()?.env("TOKIO_WORKER_THREADS", "1").core(args.core(args.target_core));
        let data_plane = spec.spawn()?;
        let mut gateway = Self {
            data_plane,
            control_plane,
            site,
            database,
            key,
            limited: !args.no_limits,
            control_plane_idle: Duration::ZERO,
            shares_load_core: args.pinned() && args.control_core() == args.load_core,
        };
        gateway.ready(&args.model).await.with_context(|| gateway.log())?;
        gateway.control_plane_idle = proc::cpu_time(gateway.control_plane.pid())?;
        Ok(gateway)
    }

    /// Waits until the node has the model, then looks at what the measured path does to a stream.
    async fn ready(&self, model: &str) -> anyhow::Result<()> {
        wait_ready(&self.data_plane, self.site.ports.ops).await?;
        let client = Client::new(self.addr()).bearer(&self.key);
        // Not with a chat: refused ones would be in the counts.
        nemo_tests::eventually("the node to have the model", async || {
            let listed = client.get("/v1/models").await?.text();
            anyhow::ensure!(listed.contains(&format!("\"{model}\"")), "{listed}");
            Ok(())
        })
        .await?;
        let body = json!({
            "model": model, "stream": true, "messages": [{ "role": "user", "content": "Hi" }],
        });
        // On a machine that stands still the first part of a budget comes too late for the first request, which then has
        // a row in the log like any other.
        let answer = nemo_tests::eventually("a part of each budget", async || {
            let answer = client.post("/v1/chat/completions", body.to_string()).await?;
            anyhow::ensure!(!answer.text().contains("budget_unavailable"), "{}", answer.text());
            Ok(answer)
        })
        .await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        let edits = answer.header("x-nemo-edits");
        anyhow::ensure!(edits == Some("model,usage"), "a stream is measured with other edits: {edits:?}");
        let with_usage = answer.chunks()?.iter().filter(|chunk| !chunk["usage"].is_null()).count();
        anyhow::ensure!(with_usage == 0, "the usage chunk was not cut: {}", answer.text());
        Ok(())
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.site.ports.data
    }

    /// Leaves the load core to the load generator.
    pub(super) fn stop_control_plane(&self) -> anyhow::Result<Stopped<'_>> {
        let stopped = Stopped(self.shares_load_core.then_some(&self.control_plane));
        if let Some(process) = stopped.0 {
            process.signal(Signal::STOP)?;
        }
        Ok(stopped)
    }

    /// Of the data plane: what is measured.
    pub(super) fn pid(&self) -> u32 {
        self.data_plane.pid()
    }

    pub(super) fn api_key(&self) -> &str {
        &self.key
    }

    /// What both planes have written.
    pub(super) fn log(&self) -> String {
        [&self.data_plane, &self.control_plane].map(Process::log).concat()
    }

    /// Ends the data plane as an operator would, then the rest.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let status = self.data_plane.stop().await?;
        anyhow::ensure!(status.success(), "the data plane ended with {status}");
        Ok(())
    }

    async fn counts(&self) -> anyhow::Result<Counts> {
        let answer = Client::new(self.site.ports.ops).get("/metrics").await?;
        Counts::parse(&answer.text())
    }

    /// Waits until every request has ended and its usage event is shipped or dropped, so that the next measurement
    /// has the machine for itself.
    pub(super) async fn settle(&self) -> anyhow::Result<Counts> {
        eventually_within(SETTLE, "the usage events to be shipped", async || {
            let counts = self.counts().await?;
            if !counts.settled() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            anyhow::ensure!(counts.settled(), "{counts:?}");
            Ok(counts)
        })
        .await
    }

    /// What became of the requests so far, of which the load generator counted so many answers.
    pub(super) async fn metering(&self, answered: u64) -> anyhow::Result<Metering> {
        let counts = self.settle().await?;
        let mut connection = sqlx::PgConnection::connect(self.database.url()).await?;
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM request_log").fetch_one(&mut connection).await?;
        let charged = if self.limited { Some(charged(&mut connection).await?) } else { None };
        connection.close().await?;
        let spent = proc::cpu_time(self.control_plane.pid())?.saturating_sub(self.control_plane_idle);
        let control_plane_us = spent.as_secs_f64() * 1e6;
        Ok(Metering { counts, answered, rows: rows.cast_unsigned(), charged, control_plane_us })
    }
}

/// The cost of all requests, and what of it each budget has: nano-USD.
async fn charged(connection: &mut sqlx::PgConnection) -> anyhow::Result<[i64; 4]> {
    let log: i64 = sqlx::query_scalar("SELECT coalesce(sum(cost_nanos), 0)::bigint FROM request_log")
        .fetch_one(&mut *connection)
        .await?;
    let budgets: Vec<i64> = sqlx::query_scalar(
        "SELECT sum(settled_nanos + overrun_nanos)::bigint FROM budget_windows GROUP BY budget_id",
    )
    .fetch_all(connection)
    .await?;
    let [first, second, third] = budgets[..] else { anyhow::bail!("{} budgets have windows", budgets.len()) };
    Ok([log, first, second, third])
}

/// Makes an organization, a team, a key, and the priced model; returns the key.
async fn provision(site: &Site, args: &Args, upstream: SocketAddr) -> anyhow::Result<String> {
    let admin = Admin::new(site.ports.rest, &site.operator_token().await?);
    let tenant = admin.create_tenant("bench", "bench").await?;
    let credential_id = &admin.create_credential(UPSTREAM_KEY).await?;
    let served = ServedModel {
        id: &args.model,
        endpoints: &["chat.completions"],
        upstream_model: UPSTREAM_MODEL,
        base_url: &format!("http://{upstream}/v1"),
        credential_id,
    };
    let (key_id, key) = admin.issue_key(&tenant, json!({ "name": "bench" })).await?;
    if !args.no_limits {
        limit(&admin, &tenant, &key_id).await?;
    }
    translated(&admin, args, upstream).await?;
    // Last: a node that has the model has the key and all its limits too.
    admin.serve_model(&served).await?;
    Ok(key)
}

/// The same model at the same price, called in the words of Anthropic.
async fn translated(admin: &Admin, args: &Args, upstream: SocketAddr) -> anyhow::Result<()> {
    let (id, provider) = (translated_model(&args.model), "anthropic");
    let price = json!({ "input": 2_500_000_000_i64, "output": 10_000_000_000_i64 });
    let entry = json!({
        "id": id, "display_name": id, "owned_by": "tests", "context_window": 128_000, "max_output_tokens": 4096,
        "endpoints": ["chat.completions"],
        "offerings": [{ "provider": provider, "upstream_model": UPSTREAM_MODEL, "price": price }],
    });
    admin.put(&format!("/models/{id}"), json!({ "model": entry })).await?;
    let credential = json!({ "name": "anthropic", "provider": provider, "secret": UPSTREAM_KEY });
    let credential = admin.post("/credentials", credential).await?;
    let deployment = json!({
        "provider": provider, "base_url": format!("http://{upstream}/v1"), "credential_id": credential["id"],
        "model": id, "upstream_model": UPSTREAM_MODEL,
    });
    admin.post("/deployments", deployment).await?;
    Ok(())
}

/// Budgets on organization, team and key, and rate limits on organization and key: more than the load can use up.
async fn limit(admin: &Admin, tenant: &Tenant, key_id: &str) -> anyhow::Result<()> {
    let org = format!("/organizations/{}", tenant.org_id);
    let team = json!({ "team_id": tenant.team_id });
    for (scope, window) in [(json!({}), "total"), (team, "month"), (json!({ "key_id": key_id }), "day")] {
        let mut budget = json!({ "name": window, "limit_usd": "1000000", "window": window });
        merge(&mut budget, scope);
        admin.post(&format!("{org}/budgets"), budget).await?;
    }
    for (name, scope) in [("organization", json!({})), ("key", json!({ "key_id": key_id }))] {
        let mut limit = json!({
            "name": name, "requests_per_minute": 1_000_000_000_u64, "tokens_per_minute": 1_000_000_000_000_u64,
        });
        merge(&mut limit, scope);
        admin.post(&format!("{org}/rate-limits"), limit).await?;
    }
    Ok(())
}

fn merge(into: &mut Value, members: Value) {
    if let (Some(into), Value::Object(members)) = (into.as_object_mut(), members) {
        into.extend(members);
    }
}
