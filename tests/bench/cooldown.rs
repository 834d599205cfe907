//! `nemo-bench cooldown`: how long it takes until a node stops calling an upstream that tripped at another one: two
//! nodes, two control planes, a real etcd.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use nemo_tests::propagation::{Pair, percentiles};

/// What is published (README, Cooldowns).
const BOUND: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    /// Deployments that trip, one after the other.
    #[arg(long, default_value_t = 200)]
    samples: u32,
}

/// # Errors
/// When something does not start, or a cooldown does not arrive.
pub fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let took = runtime.block_on(async {
        let pair = Pair::start().await?;
        pair.trip(args.samples.max(1)).await
    })?;
    let (median, p99) = percentiles(&took);
    let mut out = std::io::stdout();
    writeln!(out, "cooldown from node to node, two control planes, etcd; {} samples", took.len())?;
    writeln!(out, "  p50 {:>7.1} ms", median.as_secs_f64() * 1e3)?;
    writeln!(out, "  p99 {:>7.1} ms   (bound: {} ms)", p99.as_secs_f64() * 1e3, BOUND.as_millis())?;
    Ok(if p99 < BOUND { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
