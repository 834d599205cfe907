//! `nemo-bench`: what the gateway costs, against a minimal proxy on the same machine in the same run.
//!
//! - `run` starts everything, pins it to cores, measures in interleaved rounds and prints a table
//! - `upstream` answers with prepared bytes, `floor` is the minimal proxy, `load` is one measurement; `run` starts
//!   these as processes, and each can be used alone
//!
//! - `scale` measures what many keys and many streams do to it; `scale-upstream` is its upstream
//!
//! - `cooldown` measures how fast the fleet hears of an upstream that tripped
//!
//! - `grants` measures how fast slices of budgets are granted to nodes
//!
//! - `ingest` measures how fast usage events are logged and settled
//!
//! Called by `make bench` and `make bench-scale`.

mod cooldown;
mod floor;
mod grants;
mod histogram;
mod ingest;
mod load;
mod poll;
mod proc;
mod run;
mod scale;
mod upstream;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures the gateway against a minimal proxy")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure floor and gateway, print a table.
    Run(Box<run::Args>),
    /// Serve prepared OpenAI answers, as cheaply as possible.
    Upstream(upstream::Args),
    /// Run the minimal pass-through proxy.
    Floor(floor::Args),
    /// Measure the product with many keys and many streams, print a table.
    Scale(scale::Args),
    /// Keep streams open, with a chunk now and then.
    ScaleUpstream(scale::UpstreamArgs),
    /// Measure how fast one node's cooldown reaches another through etcd.
    Cooldown(cooldown::Args),
    /// Measure how fast usage events get into PostgreSQL, and what each costs.
    Ingest(ingest::Args),
    /// Measure how fast slices of many budgets are granted to many nodes.
    Grants(grants::Args),
    /// Load one server, print the result as JSON.
    Load(load::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Run(args) => run::main(*args),
        Command::Upstream(args) => upstream::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Floor(args) => floor::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Scale(args) => scale::main(&args),
        Command::ScaleUpstream(args) => scale::upstream(&args).map(|()| ExitCode::SUCCESS),
        Command::Cooldown(args) => cooldown::main(&args),
        Command::Ingest(args) => ingest::main(&args),
        Command::Grants(args) => grants::main(&args),
        Command::Load(args) => load::main(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        let _closed = writeln!(std::io::stderr(), "nemo-bench: {error:#}");
        ExitCode::FAILURE
    })
}
