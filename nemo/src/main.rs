//! The binary `nemo`: arguments, then a command, then an exit code: 0 after an orderly end, 1 with one line of
//! explanation otherwise, 2 for arguments that make no sense and for changes that `nemo apply --dry-run` found.

use std::process::ExitCode;

use clap::Parser;
use nemo::{
    cli::{Cli, Command, Usage},
    commands::{self, apply::Outcome},
    console, standalone,
};

/// As clap has it for arguments that make no sense.
const USAGE: u8 = 2;

/// A request allocates a few dozen small things and frees them on the same thread: mimalloc's home ground.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            console::note(format_args!("nemo: {error:#}"));
            if error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Apply(options) => {
            return match client(commands::apply::run(*options))? {
                Outcome::Done => Ok(ExitCode::SUCCESS),
                Outcome::Pending => Ok(ExitCode::from(USAGE)),
            };
        }
        Command::Replay(options) => {
            return client(commands::replay::run(*options))
                .map(|same| if same { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Standalone(options) => standalone::run(&options),
        Command::Orgs(command) => client(commands::orgs::run(*command)),
        Command::Teams(command) => client(commands::teams::run(*command)),
        Command::Members(command) => client(commands::members::run(*command)),
        Command::Keys(command) => client(commands::keys::run(*command)),
        Command::Budgets(command) => client(commands::budgets::run(*command)),
        Command::Limits(command) => client(commands::limits::run(*command)),
        Command::Tokens(command) => client(commands::tokens::run(*command)),
        Command::Credentials(command) => client(commands::credentials::run(*command)),
        Command::Deployments(command) => client(commands::deployments::run(*command)),
        Command::Models(command) => client(commands::models::run(*command)),
        Command::Groups(command) => client(commands::groups::run(*command)),
        Command::Settings(command) => client(commands::settings::run(*command)),
        Command::Requests(command) => client(commands::requests::run(*command)),
        Command::Prices(command) => client(commands::prices::run(*command)),
        Command::Catalog(command) => client(commands::catalog::run(*command)),
        Command::Rerate(command) => client(commands::rerate::run(*command)),
        Command::Usage(command) => client(commands::usage::run(*command)),
        Command::Ledger(command) => client(commands::ledger::run(*command)),
        Command::Audit(command) => client(commands::audit::run(*command)),
        Command::Credits(command) => client(commands::credits::run(*command)),
        Command::Webhooks(command) => client(commands::webhooks::run(*command)),
        Command::Cooldowns(command) => client(commands::cooldowns::run(*command)),
        Command::Fleet(command) => client(commands::fleet::run(*command)),
        Command::Completion(options) => commands::completion::run(&options),
        Command::Providers { json } => commands::providers(json),
        Command::CheckConfig { file } => commands::check_config(&file),
        Command::Version => {
            console::result(format_args!("nemo {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// One call or two: one thread is enough.
fn client<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(command))
}
