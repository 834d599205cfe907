//! What can be typed. Every command has examples in its help. What belongs to one noun is declared beside its code
//! in [`crate::commands`]; here is the whole, and what many commands share.

mod standalone;
mod target;
mod tls;
mod values;

use std::{fmt, path::PathBuf};

use clap::{Parser, Subcommand};

pub use self::{
    standalone::{LogFormat, Standalone},
    target::{Delete, Org, Owner, Target, Write},
    tls::PortTls,
    values::{Seconds, duration, moment},
};
use crate::commands::{
    apply::Apply, audit::Audit, budgets::Budgets, catalog::Catalog, completion::Completion,
    cooldowns::Cooldowns, credentials::Credentials, credits::Credits, deployments::Deployments, fleet::Fleet,
    groups::Groups, keys::Keys, ledger::Ledger, limits::Limits, members::Members, models::Models, orgs::Orgs,
    prices::Prices, replay::Replay, requests::Requests, rerate::Rerate, settings::Settings, teams::Teams,
    tokens::Tokens, usage, webhooks::Webhooks,
};

/// Nemo Router: a self-hosted, OpenAI-compatible gateway to language models.
#[derive(Debug, Parser)]
#[command(
    name = "nemo",
    version,
    after_help = "\
Examples:
  nemo standalone                      start everything on this machine
  OPENAI_API_KEY=sk-… nemo standalone  the same, with the models of OpenAI
  nemo keys create --name ci           issue another key
  nemo apply -f nemo.toml --dry-run    what a file would change
  nemo requests tail                   watch requests as they end
  nemo replay --with candidate.toml    what another routing policy would change

Commands about a running gateway find it by the data directory of `nemo standalone`, or by NEMO_ADMIN_URL (the gRPC
address of a control plane) and NEMO_ADMIN_TOKEN.

Exit codes: 0 done; 1 failed, with the reason on standard error; 2 the arguments make no sense, or
`nemo apply --dry-run` found changes."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the gateway with everything it needs: both planes and a database, in one process
    Standalone(Box<Standalone>),
    /// Make a running gateway as a file says: shows what differs, asks, then changes it
    Apply(Box<Apply>),
    /// Organizations: tenants that see nothing of each other
    #[command(subcommand, visible_alias = "organizations")]
    Orgs(Box<Orgs>),
    /// Teams of an organization
    #[command(subcommand)]
    Teams(Box<Teams>),
    /// People of an organization, with their roles
    #[command(subcommand)]
    Members(Box<Members>),
    /// Virtual keys: what clients authenticate with
    #[command(subcommand)]
    Keys(Box<Keys>),
    /// Budgets: money that may be spent within a window
    #[command(subcommand)]
    Budgets(Box<Budgets>),
    /// Rate limits: requests, tokens and concurrency
    #[command(subcommand)]
    Limits(Box<Limits>),
    /// Admin tokens: what this command line and other tools of operators authenticate with
    #[command(subcommand)]
    Tokens(Box<Tokens>),
    /// Credentials of providers, sealed
    #[command(subcommand)]
    Credentials(Box<Credentials>),
    /// Deployments: a model at a provider
    #[command(subcommand)]
    Deployments(Box<Deployments>),
    /// Models that can be asked for
    #[command(subcommand)]
    Models(Box<Models>),
    /// Model groups: names that clients send, with their pools in order
    #[command(subcommand)]
    Groups(Box<Groups>),
    /// Settings of an organization, or of the installation
    #[command(subcommand)]
    Settings(Box<Settings>),
    /// Cooldowns: deployments that the fleet keeps away from for a while
    #[command(subcommand)]
    Cooldowns(Box<Cooldowns>),
    /// Credits: the prepaid balance of an organization
    #[command(subcommand)]
    Credits(Box<Credits>),
    /// Webhooks: where an organization is told of events
    #[command(subcommand)]
    Webhooks(Box<Webhooks>),
    /// The request log
    #[command(subcommand)]
    Requests(Box<Requests>),
    /// Make logged routing decisions again, and see what another policy would change
    Replay(Box<Replay>),
    /// The price book: what models cost, since when and from when on
    #[command(subcommand)]
    Prices(Box<Prices>),
    /// The catalog of models: brought in step with public sources and the providers' own lists
    #[command(subcommand)]
    Catalog(Box<Catalog>),
    /// Compute what logged requests cost at other prices, and book the difference
    Rerate(Box<Rerate>),
    /// What was used and what it cost: spend, tokens, requests, errors, latency
    #[command(subcommand)]
    Usage(Box<usage::Usage>),
    /// What happened to money, and whether it adds up
    #[command(subcommand)]
    Ledger(Box<Ledger>),
    /// Who changed what
    #[command(subcommand)]
    Audit(Box<Audit>),
    /// The nodes of the data plane
    #[command(subcommand)]
    Fleet(Box<Fleet>),
    /// Providers that this build knows, with the variables that configure them
    #[command(after_help = "Examples:\n  nemo providers\n  nemo providers --json")]
    Providers {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a nemo.toml without starting anything
    #[command(after_help = "Examples:\n  nemo check-config nemo.toml")]
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// A script that completes this command line in a shell
    Completion(Completion),
    /// Print the version
    #[command(after_help = "Examples:\n  nemo version")]
    Version,
}

/// The command cannot be done as it was typed: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::error::Error for Usage {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str, found: &mut usize) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() && command.get_name() != "help" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let example = format!("{} ", path.trim());
                assert!(help.contains("Examples:\n"), "{path} has no examples");
                assert!(help.contains(example.trim()), "the examples of {path} are not about it: {help}");
                *found += 1;
            }
            command.get_subcommands().for_each(|inner| check(inner, &path, found));
        }
        let mut found = 0;
        check(&Cli::command(), "", &mut found);
        assert!(found > 50, "only {found} commands");
    }
}
