//! `nemo apply`: shows what a file changes at a running gateway, asks, then changes it.

mod show;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use nemo_proto::admin::{Credential, ModelGroup};

use self::show::Report;
use crate::{
    admin_client::AdminClient,
    cli::{Org, Target, Usage},
    console::{self, Bar},
    providers::{
        Desired, DesiredCredential, FILE,
        apply::{
            Applied,
            backend::Remote,
            execute::Executor,
            plan::{self, Change, Rules, hint},
            state::State,
        },
        file,
    },
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nemo apply -f nemo.toml               show what differs, ask, change it
  nemo apply -f nemo.toml --dry-run     only show; exit code 2 when there is something to change
  nemo apply -f nemo.toml --yes --wait  for CI: do not ask, return when every node has it
  nemo apply -f nemo.toml --prune       also remove what an earlier file declared and this one does not

The file is that of `nemo standalone --config`. What others made is left alone. Without --prune nothing is removed,
but for what the file moved to what it can't become: a deployment or credential to another model or provider, a budget
to another window, team or key. --prune removes credentials, deployments, budgets and limits that came from a file, and
model groups that consist of such deployments; never organizations, teams, keys or settings. Secrets cannot be read back: one is sent again when its last four characters differ, or with --update-secrets.

Exit codes: 0 nothing to change, or changed; 1 failed; 2 changes found by --dry-run, or --yes is missing.")]
pub struct Apply {
    /// What there shall be (TOML)
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Only show what differs
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Remove what an earlier file declared and this one does not
    #[arg(long)]
    prune: bool,
    /// Send every secret again, also those that look unchanged
    #[arg(long)]
    update_secrets: bool,
    /// Do not ask; needed where nobody can be asked
    #[arg(long, short)]
    yes: bool,
    /// Return only when every live node has applied the last change
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    org: Org,
    #[command(flatten)]
    target: Target,
}

/// What the command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Only shown.
    Pending,
}

/// # Errors
/// When the file is wrong, nothing runs, or the control plane refuses.
pub async fn run(options: Apply) -> anyhow::Result<Outcome> {
    let file = file::read(&options.file, |name| std::env::var(name).ok())?;
    let client = AdminClient::open(&options.target)?;
    let org_id = client.organization(options.org.org.as_deref()).await?;
    let backend = Remote::new(client);
    let (desired, state) = console::step("Comparing", Box::pin(compare(&file, &backend, &org_id))).await?;
    for note in &desired.notes {
        console::note(note);
    }
    let changes = changes(&options, &desired, &state);
    let mut report = Report::new(&changes);
    let silent = options.target.json || options.target.quiet;
    if !silent {
        report.print_changes();
    }
    let outcome = if changes.is_empty() {
        Outcome::Done
    } else if options.dry_run {
        Outcome::Pending
    } else {
        approve(&options)?;
        let applied = Box::pin(make(&options, &backend, &state, &changes)).await?;
        for warning in &applied.warnings {
            console::note(warning);
        }
        report.done(applied);
        Outcome::Done
    };
    if options.target.json {
        report.print_json()?;
    } else {
        report.print_end(options.target.quiet);
    }
    Ok(outcome)
}

async fn compare(
    file: &file::ConfigFile,
    backend: &Remote,
    org_id: &str,
) -> anyhow::Result<(Desired, State)> {
    // The file is read against the catalog: which models a provider has, and what it calls them.
    let catalog = State::read(backend, &Desired::default(), org_id).await?.models;
    let desired = file.desired(&catalog).await?;
    let state = State::read(backend, &desired, org_id).await?;
    Ok((desired, state))
}

fn changes(options: &Apply, desired: &Desired, state: &State) -> Vec<Change> {
    let of_file = |id: &str| {
        let found = state.deployments.iter().find(|deployment| deployment.id == id);
        found.is_some_and(|found| found.name.starts_with(FILE))
    };
    let rules = Rules {
        same_secret: &|found: &Credential, wanted: &DesiredCredential| {
            !options.update_secrets && found.hint == hint(wanted.secret.expose())
        },
        removes: &|name: &str| options.prune && name.starts_with(FILE),
        removes_group: &|group: &ModelGroup| {
            let mut members = group.links.iter().flat_map(|link| &link.deployments).peekable();
            options.prune && members.peek().is_some() && members.all(|member| of_file(&member.deployment_id))
        },
        // Whether an earlier file or somebody else set it, nobody can say.
        removes_setting: &|_: Option<&str>, _: &str| false,
        removes_demo: false,
    };
    plan::plan(desired, state, &rules)
}

fn approve(options: &Apply) -> anyhow::Result<()> {
    if options.yes {
        return Ok(());
    }
    if !console::interactive() {
        return Err(
            Usage("nobody can be asked here: repeat with --yes, or look with --dry-run".to_owned()).into()
        );
    }
    if !console::confirm("Apply this?") {
        bail!("nothing was changed");
    }
    Ok(())
}

async fn make(
    options: &Apply,
    backend: &Remote,
    state: &State,
    changes: &[Change],
) -> anyhow::Result<Applied> {
    let mut executor = Executor::new(backend, state);
    let mut bar = Bar::new("Applying", changes.len());
    for (at, change) in changes.iter().enumerate() {
        // Nodes apply in order: who has the last change has them all.
        if options.wait && at + 1 == changes.len() {
            backend.wait_from_now_on();
        }
        let made = Box::pin(executor.make(change)).await;
        made.map_err(|error| match at {
            0 => error,
            done => {
                error.context(format!("{done} of {} changes were made; apply again to go on", changes.len()))
            }
        })?;
        bar.advance();
    }
    Ok(executor.applied())
}
