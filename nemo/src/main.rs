//! The binary `nemo`: arguments, then a command, then an exit code: 0 after an orderly end, 1 with one line of
//! explanation otherwise, 2 for arguments that make no sense.

use std::process::ExitCode;

use clap::Parser;
use nemo::{
    cli::{Cli, Command},
    commands, console, standalone,
};

/// A request allocates a few dozen small things and frees them on the same thread: mimalloc's home ground.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(format_args!("nemo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Standalone(options) => standalone::run(&options),
        Command::Keys(command) => client(commands::keys::run(command)),
        Command::Models(command) => client(commands::models::run(command)),
        Command::Requests(command) => client(commands::requests::run(command)),
        Command::Providers { json } => commands::providers(json),
        Command::CheckConfig { file } => commands::check_config(&file),
        Command::Version => {
            console::result(format_args!("nemo {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    }
}

/// One call or two: one thread is enough.
fn client(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
