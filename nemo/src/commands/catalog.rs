//! `nemo catalog …`: the catalog of models, brought in step with its sources.

use clap::Subcommand;
use nemo_proto::admin::{
    CatalogChange, CatalogRun, CatalogSource, DecideCatalogChangeRequest, ListCatalogChangesRequest,
    ListCatalogRunsRequest, ModelLimits, Price, SyncCatalogRequest, SyncCatalogResponse,
};
use nemo_types::Nanos;

use super::{
    output::{Entity, json, rfc3339},
    session::{Session, list},
    table::{Cell, Column, Table},
};
use crate::{
    admin_client::explain,
    cli::{Target, Usage, Write},
    console,
};

#[derive(Debug, Subcommand)]
pub enum Catalog {
    /// Show what the sources say that is different, and write nothing
    #[command(after_help = "\
Examples:
  nemo catalog diff
  nemo catalog diff --json")]
    Diff {
        #[command(flatten)]
        target: Target,
    },
    /// Bring the catalog in step with its sources now
    #[command(after_help = "\
Examples:
  nemo catalog sync

The control plane's catalog_sources say who is asked: models.dev, openrouter, and the providers' own lists. New models and
plain changes are written. A price that is ten times another one, and a model that a source no longer lists, wait until
`nemo catalog approve` or `nemo catalog reject` is called. What an operator wrote is never changed.")]
    Sync {
        #[command(flatten)]
        write: Write,
    },
    /// List what the sync has changed and what it holds, newest first
    #[command(after_help = "\
Examples:
  nemo catalog changes --state held
  nemo catalog changes --model gpt-5-mini")]
    Changes {
        /// applied, held, approved, rejected or superseded [default: all]
        #[arg(long)]
        state: Option<String>,
        /// Of this model
        #[arg(long)]
        model: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Make changes that are held
    #[command(after_help = "\
Examples:
  nemo catalog approve 019a2f6e-…
  nemo catalog approve --all --yes")]
    Approve(Decision),
    /// Drop changes that are held; the same is not proposed again
    #[command(after_help = "Examples:\n  nemo catalog reject 019a2f6e-…")]
    Reject(Decision),
    /// List the latest runs of the sync
    #[command(after_help = "Examples:\n  nemo catalog runs")]
    Runs {
        #[command(flatten)]
        target: Target,
    },
}

/// Which changes are decided.
#[derive(Debug, clap::Args)]
pub struct Decision {
    /// Ids from `nemo catalog changes --state held`
    #[arg(required_unless_present = "all")]
    changes: Vec<String>,
    /// All that are held
    #[arg(long, conflicts_with = "changes")]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    write: Write,
}

impl Entity for CatalogChange {
    const KIND: &'static str = "catalog change";
    const NOUN: &'static str = "catalog changes";
    const COLUMNS: &'static [Column] = &[
        Column::whole("ID"),
        Column::text("STATE"),
        Column::text("MODEL"),
        Column::text("PROVIDER"),
        Column::text("CHANGE"),
        Column::text("SOURCE"),
        Column::text("WHY HELD"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.state.as_str().into(),
            self.model.as_str().into(),
            self.provider.as_str().into(),
            what(self).into(),
            self.source.as_str().into(),
            self.reason.as_str().into(),
        ]
    }
}

impl Entity for CatalogRun {
    const KIND: &'static str = "catalog run";
    const NOUN: &'static str = "catalog runs";
    const COLUMNS: &'static [Column] = &[
        Column::whole("ID"),
        Column::whole("STARTED"),
        Column::number("APPLIED"),
        Column::number("HELD"),
        Column::text("SOURCES"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<Cell> {
        let sources: Vec<String> = self.sources.iter().map(source).collect();
        vec![
            self.id.as_str().into(),
            rfc3339(self.started_at).into(),
            self.applied.to_string().into(),
            self.held.to_string().into(),
            sources.join("; ").into(),
        ]
    }
}

fn source(source: &CatalogSource) -> String {
    match source.error.as_str() {
        "" => format!("{}: {} models", source.name, source.models),
        error => format!("{}: {error}", source.name),
    }
}

/// In a few words.
fn what(change: &CatalogChange) -> String {
    match change.kind.as_str() {
        "model_added" => format!("new model{}", at(change.price_after.as_ref())),
        "offering_added" => {
            format!("new offering {}{}", change.upstream_model, at(change.price_after.as_ref()))
        }
        "price_changed" => prices(change.price_before.as_ref(), change.price_after.as_ref()),
        "limits_changed" => limits(change.limits_before.as_ref(), change.limits_after.as_ref()),
        "offering_vanished" => format!("{} is not listed any more", change.upstream_model),
        other => other.to_owned(),
    }
}

fn usd(nanos: Option<i64>) -> String {
    nanos.map_or_else(|| "?".to_owned(), |nanos| Nanos(nanos).to_decimal().as_str().to_owned())
}

fn at(price: Option<&Price>) -> String {
    price.map_or_else(
        || ", price unknown".to_owned(),
        |price| format!(", ${} in, ${} out per million", usd(price.input), usd(price.output)),
    )
}

fn prices(before: Option<&Price>, after: Option<&Price>) -> String {
    let none = Price::default();
    let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
    let parts = [
        ("input", before.input, after.input),
        ("output", before.output, after.output),
        ("cache read", before.cache_read, after.cache_read),
        ("cache write", before.cache_write, after.cache_write),
        ("reasoning", before.reasoning, after.reasoning),
    ];
    let changed = parts.into_iter().filter(|(_, before, after)| before != after);
    let changed: Vec<String> =
        changed.map(|(name, before, after)| format!("{name} ${} -> ${}", usd(before), usd(after))).collect();
    if changed.is_empty() { "price steps".to_owned() } else { changed.join(", ") }
}

fn limits(before: Option<&ModelLimits>, after: Option<&ModelLimits>) -> String {
    let (before, after) = (before.copied().unwrap_or_default(), after.copied().unwrap_or_default());
    let parts = [
        ("window", before.context_window, after.context_window),
        ("output", before.max_output_tokens, after.max_output_tokens),
    ];
    let changed = parts.into_iter().filter(|(_, before, after)| before != after);
    changed
        .map(|(name, before, after)| format!("{name} {before} -> {after} tokens"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Catalog) -> anyhow::Result<()> {
    match command {
        Catalog::Diff { target } => {
            let session = Session::reading(&target)?;
            let request = SyncCatalogRequest { dry_run: true, ..Default::default() };
            let mut client = session.client.catalog();
            let found = console::step("Asking the sources", client.sync_catalog(request)).await;
            show(&session, &found.map_err(explain)?.into_inner(), true)
        }
        Catalog::Sync { write } => {
            let session = Session::writing(&write)?;
            let mut client = session.client.catalog();
            let request = session.write(SyncCatalogRequest::default());
            let done = console::step("Asking the sources", client.sync_catalog(request)).await;
            show(&session, &done.map_err(explain)?.into_inner(), write.validate_only)
        }
        Catalog::Changes { state, model, target } => {
            let session = Session::reading(&target)?;
            let changes = changes(&session, &state.unwrap_or_default(), &model.unwrap_or_default()).await?;
            session.out.list(&changes)
        }
        Catalog::Approve(decision) => decide(decision, true).await,
        Catalog::Reject(decision) => decide(decision, false).await,
        Catalog::Runs { target } => {
            let session = Session::reading(&target)?;
            let request = ListCatalogRunsRequest::default();
            let runs = session.client.catalog().list_catalog_runs(request).await.map_err(explain)?;
            session.out.list(&runs.into_inner().runs)
        }
    }
}

async fn changes(session: &Session, state: &str, model: &str) -> anyhow::Result<Vec<CatalogChange>> {
    let client = &session.client;
    list!(client.catalog().list_catalog_changes -> changes, ListCatalogChangesRequest { state, model })
}

fn show(session: &Session, found: &SyncCatalogResponse, dry: bool) -> anyhow::Result<()> {
    if session.out.json {
        return json(found);
    }
    for failed in found.sources.iter().filter(|it| !it.error.is_empty()) {
        console::note(format_args!("{}", source(failed)));
    }
    if found.changes.is_empty() {
        console::note("the sources say nothing that the catalog does not say already");
    } else if !session.out.quiet {
        let mut table = Table::new(FOUND);
        found.changes.iter().for_each(|change| table.row(found_cells(change, dry)));
        table.print();
    }
    let would = if dry { "would be " } else { "" };
    console::result(format_args!("{} {would}applied, {} {would}held", found.applied, found.held));
    if found.held > 0 && !dry {
        console::note("`nemo catalog changes --state held` lists them; `nemo catalog approve ID` makes one");
    }
    Ok(())
}

/// Of what a run has found: an id has only what is stored.
const FOUND: &[Column] = CatalogChange::COLUMNS.split_at(1).1;

fn found_cells(change: &CatalogChange, dry: bool) -> Vec<Cell> {
    let state = if dry { format!("to be {}", change.state) } else { change.state.clone() };
    let mut cells = change.cells().split_off(1);
    cells[0] = state.into();
    cells
}

async fn decide(decision: Decision, approve: bool) -> anyhow::Result<()> {
    let session = Session::writing(&decision.write)?;
    let ids = match decision.all {
        true => changes(&session, "held", "").await?.into_iter().map(|change| change.id).collect(),
        false => decision.changes,
    };
    let verb = if approve { "Make" } else { "Drop" };
    let asked = decision.all && !decision.yes && !decision.write.validate_only && console::interactive();
    if asked && !console::confirm(&format!("{verb} all {} changes?", ids.len())) {
        return Err(Usage("nothing was decided".to_owned()).into());
    }
    let mut decided = Vec::new();
    for id in ids {
        let request = DecideCatalogChangeRequest { id, approve, ..Default::default() };
        let mut client = session.client.catalog();
        let answer = client.decide_catalog_change(session.write(request)).await.map_err(explain)?;
        decided.push(answer.into_inner());
    }
    session.out.list(&decided)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_a_few_words() {
        let price =
            |input, output| Some(Price { input: Some(input), output: Some(output), ..Price::default() });
        let change = CatalogChange {
            kind: "price_changed".into(),
            price_before: price(1_250_000_000, 10_000_000_000),
            price_after: price(1_000_000_000, 10_000_000_000),
            ..CatalogChange::default()
        };
        assert_eq!(what(&change), "input $1.25 -> $1");
        let new = CatalogChange {
            kind: "model_added".into(),
            price_after: price(0, 5),
            ..CatalogChange::default()
        };
        assert_eq!(what(&new), "new model, $0 in, $0.000000005 out per million");
        let limits = |context_window| Some(ModelLimits { context_window, max_output_tokens: 5 });
        let change = CatalogChange {
            kind: "limits_changed".into(),
            limits_before: limits(1000),
            limits_after: limits(2000),
            ..CatalogChange::default()
        };
        assert_eq!(what(&change), "window 1000 -> 2000 tokens");
    }

    #[test]
    fn a_run_that_writes_nothing_does_not_say_that_it_did() {
        let change = CatalogChange { model: "m".into(), state: "applied".into(), ..CatalogChange::default() };
        for (dry, state) in [(true, "to be applied"), (false, "applied")] {
            let cells = found_cells(&change, dry);
            assert_eq!((cells.len(), &cells[0]), (FOUND.len(), &Cell::from(state.to_owned())));
        }
    }
}
