//! `nemo ledger …`: what happened to money, and whether it adds up.

use anyhow::bail;
use clap::Subcommand;
use nemo_proto::{
    Timestamp,
    admin::{LedgerEntry, ListLedgerRequest, VerifyLedgerRequest, VerifyLedgerResponse},
};

use super::{
    output::{Entity, json, rfc3339},
    session::Session,
    table::{Cell, Column, Table},
};
use crate::{
    admin_client::{PAGE, explain},
    cli::{Owner, Target, moment},
    console,
};

#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// List entries, the newest first
    #[command(after_help = "\
Examples:
  nemo ledger list
  nemo ledger list --org acme --since 1d --kind overrun
  nemo ledger list --budget 0198f3c2-… --limit 500 --json")]
    List {
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// At this moment or later: 2h (ago), 2026-11-21, 2026-11-21T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Timestamp>,
        /// Before this moment
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<Timestamp>,
        /// settle, overrun, forfeit, release, adjust, purchase, grant, refund or fee
        #[arg(long)]
        kind: Option<String>,
        /// About this budget only: id
        #[arg(long, value_name = "ID")]
        budget: Option<String>,
        /// About this lease of a node only: id
        #[arg(long, value_name = "ID")]
        lease: Option<String>,
        /// From this source only, as usage:<id of a request>
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Add everything up again and compare it with all running totals
    #[command(after_help = "\
Examples:
  nemo ledger verify
  nemo ledger verify --json | jq .differences

Compares budgets, leases, credits and the request log with the sums of their entries, in one snapshot: it may run while
requests do. Every difference is named. Exit code 1 when there is one.")]
    Verify {
        #[command(flatten)]
        target: Target,
    },
}

impl Entity for LedgerEntry {
    const KIND: &'static str = "ledger entry";
    const NOUN: &'static str = "ledger entries";
    const COLUMNS: &'static [Column] = &[
        Column::number("ID"),
        Column::whole("AT"),
        Column::whole("KIND"),
        Column::number("USD"),
        Column::whole("BUDGET"),
        Column::whole("WINDOW"),
        Column::text("SOURCE"),
    ];

    fn id(&self) -> &str {
        &self.source
    }

    fn name(&self) -> &str {
        &self.kind
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.id.to_string().into(),
            rfc3339(self.at).into(),
            self.kind.as_str().into(),
            self.usd.as_str().into(),
            self.budget_id.as_str().into(),
            window(self).into(),
            self.source.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, the control plane refuses, or the ledger does not add up.
pub async fn run(command: Ledger) -> anyhow::Result<()> {
    match command {
        Ledger::List { limit, since, until, kind, budget, lease, source, owner, target } => {
            let session = Session::reading(&target)?;
            let request = ListLedgerRequest {
                org_id: session.client.owner(owner.org.as_deref()).await?,
                kind: kind.unwrap_or_default(),
                budget_id: budget.unwrap_or_default(),
                lease_id: lease.unwrap_or_default(),
                source: source.unwrap_or_default(),
                after: since,
                before: until,
                ..Default::default()
            };
            session.out.list(&newest(&session, request, usize::try_from(limit)?).await?)
        }
        Ledger::Verify { target } => {
            let session = Session::reading(&target)?;
            let mut client = session.client.ledger();
            let answer =
                console::step("Adding up the ledger", client.verify_ledger(VerifyLedgerRequest {})).await;
            show(&session, &answer.map_err(explain)?.into_inner())
        }
    }
}

async fn newest(
    session: &Session,
    mut request: ListLedgerRequest,
    limit: usize,
) -> anyhow::Result<Vec<LedgerEntry>> {
    let mut entries: Vec<LedgerEntry> = Vec::new();
    loop {
        request.page_size = PAGE.min(u32::try_from(limit - entries.len())?);
        let page = session.client.ledger().list_ledger(request.clone()).await.map_err(explain)?.into_inner();
        entries.extend(page.entries);
        if entries.len() >= limit || page.next_page_token.is_empty() {
            entries.truncate(limit);
            return Ok(entries);
        }
        request.page_token = page.next_page_token;
    }
}

/// When the budget's window began; nothing for entries without one, and for windows that never end, which are kept under
/// the beginning of time.
fn window(entry: &LedgerEntry) -> String {
    rfc3339(entry.window_start.filter(|start| start.seconds != 0))
}

fn show(session: &Session, found: &VerifyLedgerResponse) -> anyhow::Result<()> {
    if session.out.json {
        json(found)?;
    } else if !session.out.quiet {
        summary(found);
    }
    if found.ok {
        return Ok(());
    }
    if !session.out.json {
        found.differences.iter().for_each(|difference| console::result(&difference.message));
    }
    let all = found.differences.len() as u64 + found.more;
    bail!("the ledger does not add up: {}", counted(all, "difference", "differences"));
}

/// What was compared with what.
fn summary(found: &VerifyLedgerResponse) {
    let mut table = Table::new(&[Column::whole("KIND"), Column::number("ENTRIES"), Column::number("USD")]);
    for kind in &found.kinds {
        table.row(vec![kind.kind.as_str().into(), kind.entries.to_string().into(), kind.usd.as_str().into()]);
    }
    table.print();
    lines(found).into_iter().for_each(console::result);
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn lines(found: &VerifyLedgerResponse) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{}: {} USD settled, {} USD overrun, {} USD held by {}",
            counted(found.windows, "window", "windows"),
            found.settled_usd,
            found.overrun_usd,
            found.outstanding_usd,
            counted(found.leases, "lease", "leases"),
        ),
        format!(
            "{} in the log with {}: {} USD",
            counted(found.requests, "request", "requests"),
            counted(found.charges, "charge", "charges"),
            found.charged_usd
        ),
    ];
    if found.log_from.is_some() {
        lines.push(format!("the log begins on {}", rfc3339(found.log_from)));
    }
    if found.unlogged > 0 {
        let requests = counted(found.unlogged, "request", "requests");
        lines.push(format!("{requests} settled without a row in the log"));
    }
    if found.deleted > 0 {
        let entries = counted(found.deleted, "entry", "entries");
        lines.push(format!("{entries} about budgets that were deleted"));
    }
    if found.ok {
        let entries = counted(found.entries, "entry", "entries");
        lines.push(format!("{entries}, and every total is their sum"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compared_is_told_with_counts_and_sums() {
        let found = VerifyLedgerResponse {
            ok: true,
            entries: 7,
            windows: 2,
            leases: 3,
            requests: 4,
            charges: 12,
            settled_usd: "1.5".into(),
            overrun_usd: "0".into(),
            outstanding_usd: "0.25".into(),
            charged_usd: "1.5".into(),
            deleted: 1,
            ..Default::default()
        };
        assert_eq!(
            lines(&found),
            [
                "2 windows: 1.5 USD settled, 0 USD overrun, 0.25 USD held by 3 leases",
                "4 requests in the log with 12 charges: 1.5 USD",
                "1 entry about budgets that were deleted",
                "7 entries, and every total is their sum",
            ]
        );
        assert!(!lines(&VerifyLedgerResponse::default()).iter().any(|line| line.contains("every total")));
    }
}
