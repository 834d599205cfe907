//! `nemo-bench scale`: what size does to the product. Many keys: how large a snapshot is, how long it takes to build,
//! load and resync, what a key costs a node in memory, and how long one changed key takes to reach fifty nodes, which
//! must not depend on how many keys there are. Many streams: memory per open stream, and how late chunks are.
//!
//! Called by `make bench-scale`.

mod gateway;
mod keys;
mod node;
mod streams;
mod upstream;

use std::io::Write as _;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use upstream::{Args as UpstreamArgs, main as upstream};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Numbers of keys to measure with.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    keys: Vec<u32>,
    /// Nodes that follow the configuration.
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// Changes of one key, one after the other.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Streams that are open at one time on one node; 0: leave them out.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Time between two chunks of a stream.
    #[arg(long, default_value_t = 1000)]
    pace_ms: u64,
    /// How long the streams are watched once all are open.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Let clients share HTTP/2 connections even if there are file descriptors for one each.
    #[arg(long)]
    http2: bool,
}

impl Args {
    fn shared_connections(&self) -> bool {
        self.http2 || !enough_files(2 * self.streams as u64 + SPARE_FILES)
    }
}

/// File descriptors besides those of streams.
const SPARE_FILES: u64 = 1000;

pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    raise_file_limit(args.streams as u64)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let mut measured = Vec::new();
    for &count in &args.keys {
        say(&format!("{count} keys"));
        measured.push(keys::measure(args, count).await?);
    }
    let mut table = keys::table(&measured, args);
    if args.streams > 0 {
        say(&format!("{} streams", args.streams));
        table += &streams::measure(args).await?.table();
    }
    write!(std::io::stdout(), "\n{table}")?;
    Ok(())
}

/// Progress, on standard error.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

fn enough_files(wanted: u64) -> bool {
    getrlimit(Resource::Nofile).current.is_none_or(|limit| limit >= wanted)
}

/// For this process and those that it starts, as far as we may. A proxy has two sockets per stream.
fn raise_file_limit(streams: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    for wanted in [2 * streams + SPARE_FILES, streams + SPARE_FILES] {
        if enough_files(wanted) {
            return Ok(());
        }
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!(
        "too few open files are allowed for {streams} streams: raise the limit or ask for fewer --streams"
    )
}
