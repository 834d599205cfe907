//! The runner: starts upstream, floors and gateway, loads them in interleaved rounds, reports.
//!
//! What is measured runs on one core, load generator and upstream on another, the control plane with its database on a
//! third, if there is one, else on the second between the measurements. All numbers come from one run on one machine,
//! because only their ratio means anything elsewhere, and ratios are taken within a round: what else such a machine does
//! changes by the minute. The gateway is the product with everything on: authentication, routing, three budgets, two rate
//! limits, the usage journal, metering, logging, metrics. What a measurement leaves it to do (usage events to be shipped)
//! is waited for and charged to it.

mod gateway;
mod measure;
mod metering;
mod report;
mod targets;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::ArgPredicate::IsPresent;

use crate::floor::ClientKind;
use gateway::Gateway;
use measure::Workload;
use report::Report;
use targets::Target;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Measure a gateway that listens here, for example http://127.0.0.1:8080, instead of the product's own binaries
    /// beside this one.
    #[arg(long)]
    pub(crate) gateway_url: Option<String>,
    /// Process of a gateway that is running already.
    #[arg(long, requires_all = ["gateway_url", "upstream_port"], conflicts_with = "gateway_cmd")]
    pub(crate) gateway_pid: Option<u32>,
    /// Shell command that starts the gateway; its process must stay the gateway's. `NEMO_BENCH_UPSTREAM` holds the
    /// base URL of the upstream.
    #[arg(long, requires = "gateway_url")]
    pub(crate) gateway_cmd: Option<String>,
    /// Key that the gateway at --gateway-url wants.
    #[arg(long, default_value = "sk-none")]
    pub(crate) api_key: String,
    /// Model that the gateway routes to the upstream.
    #[arg(long, default_value = "bench")]
    pub(crate) model: String,
    /// Port of the upstream, so that the configuration of a running gateway can name it; a free one by default.
    #[arg(long)]
    pub(crate) upstream_port: Option<u16>,
    /// Floors to measure; the first is the one that the gateway is compared with.
    #[arg(long, value_enum, default_values_t = [ClientKind::Legacy, ClientKind::Raw])]
    pub(crate) floor: Vec<ClientKind>,
    #[arg(long, default_value_t = 5, default_value_if("quick", IsPresent, "1"))]
    pub(crate) rounds: usize,
    /// Seconds of each measurement, after the warm-up. Fast ones end sooner, at 50,000 requests.
    #[arg(long, default_value_t = 3.0, default_value_if("quick", IsPresent, "1"))]
    pub(crate) seconds: f64,
    #[arg(long, default_value_t = 1.0, default_value_if("quick", IsPresent, "0.2"))]
    pub(crate) warmup_seconds: f64,
    /// One round of one second: shows that the bench works, not how fast the gateway is.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Core of floors and gateway.
    #[arg(long, default_value_t = 0)]
    pub(crate) target_core: usize,
    /// Core of load generator and upstream.
    #[arg(long, default_value_t = 1)]
    pub(crate) load_core: usize,
    /// Core of control plane and database; by default the third, if there is one, else the load core.
    #[arg(long)]
    pub(crate) control_core: Option<usize>,
    /// Leave placement and priorities to the kernel.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Measure a key without budgets and rate limits.
    #[arg(long)]
    pub(crate) no_limits: bool,
    /// Also write the result as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Fail when a goal is missed.
    #[arg(long)]
    pub(crate) check: bool,
}

impl Args {
    pub(crate) fn pinned(&self) -> bool {
        !self.no_pin
    }

    pub(crate) fn control_core(&self) -> usize {
        self.control_core.unwrap_or(self.load_core)
    }

    /// The core to run something on, unless nothing is pinned.
    pub(crate) fn core(&self, core: usize) -> Option<usize> {
        self.pinned().then_some(core)
    }
}

pub(crate) fn main(mut args: Args) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism()?.get();
    let others = (0..cores).find(|core| ![args.target_core, args.load_core].contains(core));
    args.control_core = args.control_core.or(others);
    if args.pinned() && cores <= args.target_core.max(args.load_core).max(args.control_core()) {
        say(&format!("only {cores} core(s): nothing is pinned, and the numbers mean little"));
        args.no_pin = true;
    }
    if let Some(core) = args.core(args.load_core) {
        // Before any thread or process starts: all inherit it, but for what is pinned elsewhere.
        targets::pin(std::process::id(), core)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(&args))?;
    write!(std::io::stdout(), "{}", report.table())?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    let missed = args.check && !report.goals_met();
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn run(args: &Args) -> anyhow::Result<Report> {
    warn_if_busy();
    let (upstream, address) = targets::upstream(args).await?;
    let mut targets = targets::start(args, address).await?;
    for target in &mut targets {
        target.note_idle_memory()?;
    }
    let mut report = Report::new(&targets);
    report.limited = !args.no_limits;
    report.translated = args.gateway_url.is_none();
    for round in 1..=args.rounds.max(1) {
        let mut workloads = vec![Workload::Small, Workload::Large, Workload::Stream, Workload::Paced];
        if report.translated {
            workloads.extend([Workload::Translated, Workload::TranslatedStream]);
        }
        for workload in workloads {
            for (index, target) in targets.iter().enumerate() {
                report.add(index, workload, step(args, round, target, workload).await?);
            }
        }
    }
    // Half of what the gateway can do, the same for all.
    let rate = report.saturation() / 2.0;
    report.rate = rate;
    let punctual = args.pinned() && targets::make_punctual(upstream.pid());
    for round in 1..=args.rounds.max(1) {
        for (index, target) in targets.iter().enumerate() {
            let workload = Workload::Open { rate, punctual };
            report.add(index, workload, step(args, round, target, workload).await?);
        }
    }
    for (index, target) in targets.iter().enumerate() {
        report.note_memory(index, target.idle_kib, target.memory()?);
        if let Some(gateway) = target.product() {
            report.metering = Some(gateway.metering(report.answered(index)).await?);
        }
    }
    for target in targets {
        target.stop().await?;
    }
    drop(upstream);
    Ok(report)
}

async fn step(
    args: &Args,
    round: usize,
    target: &Target,
    workload: Workload,
) -> anyhow::Result<crate::load::Outcome> {
    let load = async {
        let stopped = target.product().map(Gateway::stop_control_plane).transpose()?;
        let mut outcome = measure::load(args, target, workload)?;
        drop(stopped);
        if let Some(gateway) = target.product() {
            gateway.settle().await?;
            outcome.charge_later(target.cpu_us()?);
        }
        anyhow::Ok(outcome)
    };
    let outcome =
        load.await.with_context(|| format!("{} under {}{}", target.name, workload.name(), target.log()))?;
    say(&format!(
        "round {round}/{}  {:<10} {:<7} {:>7.0}/s  {}",
        args.rounds,
        target.name,
        workload.name(),
        outcome.requests_per_second(),
        workload.summary(&outcome)
    ));
    Ok(outcome)
}

/// Others that compute at the same time make tail latencies meaningless, and CPU times a little longer.
fn warn_if_busy() {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Option<f64> = text.split(' ').next().and_then(|first| first.parse().ok());
    if let Some(load) = load.filter(|load| *load > 0.5) {
        say(&format!("the machine is busy (load {load}): latencies will be noisy"));
    }
}

/// Progress, apart from the result.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
