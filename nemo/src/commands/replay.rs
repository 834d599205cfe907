//! `nemo replay`: makes logged decisions again, and shows what another policy would change.

use std::path::PathBuf;

use clap::Args;
use nemo_proto::Timestamp;
use nemo_types::Nanos;

use super::{
    output::json,
    session::Session,
    table::{Cell, Column, Table},
};
use crate::{
    cli::{Target, moment},
    console::{self, Bar},
    replay::{Replay as Run, Report, candidate::Candidate, log::Log, tally::Tally},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nemo replay --since 24h                        every decision must come out as it was logged
  nemo replay --since 2h --with candidate.toml   what another policy would have changed
  nemo replay --since 7d --org acme --json

A decision is a function of the configuration, what the request asked for, the health that the node saw, and a seed. All
of it is in the log, so each decision is made again with the code of this binary and must come out the same.

--with takes model_groups, deployments (weight, rpm, tpm, price) and settings ([routing], [cooldown]) of a nemo.toml, and
lays them over the configuration that each request saw. Groups and settings of that name are replaced, everything else
stays. Costs are re-priced from the recorded usage. Nothing is said about latency or quality: what
another upstream would have answered, and when, nobody knows; and the load that a policy itself would have shifted does
not show in the health that was recorded.

Needs the operator's token. Exit codes: 0 every decision came out; 1 some did not, or the command failed.")]
pub struct Replay {
    /// Made at this moment or later: 24h (ago), 2026-11-21, 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "24h")]
    since: Timestamp,
    /// Made before this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Requests of this organization only: name or id
    #[arg(long, value_name = "ORG", env = "NEMO_ORG")]
    org: Option<String>,
    /// At most so many, the oldest first
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Another policy (TOML, as nemo.toml): show what it would change
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// Whether every decision came out as it was logged.
///
/// # Errors
/// When the file is wrong, nothing runs, or the control plane refuses.
pub async fn run(options: Replay) -> anyhow::Result<bool> {
    let candidate = options.with.as_deref().map(Candidate::read).transpose()?;
    let session = Session::reading(&options.target)?;
    let org_id = session.client.owner(options.org.as_deref()).await?;
    let talks = !session.out.json && !session.out.quiet;
    if let Some(ignored) = candidate.as_ref().map(Candidate::ignored).filter(|it| talks && !it.is_empty()) {
        console::note(format_args!("not part of a routing policy, so left alone: {}", ignored.join(", ")));
    }
    let log = Log::new(&session.client, org_id, Some(options.since), options.until, options.limit);
    let mut bar = Bar::new("Replaying", 0);
    let seen = |total: u64| {
        bar.set_total(usize::try_from(total).unwrap_or(usize::MAX));
        bar.advance();
    };
    let report = Box::pin(Run::new(log, candidate).run(seen)).await?;
    drop(bar);
    if session.out.json {
        json(&report)?;
    } else {
        print(&report);
    }
    Ok(report.failed == 0)
}

fn print(report: &Report) {
    let Report { requests, reproduced, not_routed, failed, revisions, .. } = report;
    console::result(format_args!(
        "{requests} requests, {revisions} revisions of the configuration: {reproduced} decisions came out as they \
         were logged, {failed} did not; {not_routed} requests were refused before they were routed"
    ));
    for failure in &report.failures {
        console::result(format_args!(
            "  {}  revision {}: {}",
            failure.request_id, failure.config_revision, failure.reason
        ));
    }
    if *failed > report.failures.len() as u64 {
        console::result(format_args!("  and {} more", failed - report.failures.len() as u64));
    }
    if let Some(tally) = &report.candidate {
        print_tally(tally);
    }
}

fn print_tally(tally: &Tally) {
    let compared = tally.compared;
    console::result("");
    console::result(format_args!(
        "With the other policy: {} of {compared} requests would have another first choice ({}), {} the same one with \
         others behind it",
        tally.changed,
        percent(tally.changed, compared),
        tally.chain_changed,
    ));
    if tally.not_compared > 0 {
        console::result(format_args!(
            "{} were not compared: {}",
            tally.not_compared, tally.not_compared_because
        ));
    }
    let columns = [
        Column::text("FIRST CHOICE"),
        Column::text("PROVIDER"),
        Column::text("MODEL"),
        Column::number("BEFORE"),
        Column::number("AFTER"),
        Column::number("CHANGE"),
    ];
    let mut table = Table::new(&columns);
    for share in tally.shares.values() {
        let change = i128::from(share.after) - i128::from(share.before);
        let style = if change == 0 { console::Style::Dim } else { console::Style::Change };
        table.row(vec![
            share.deployment.as_str().into(),
            share.provider.as_str().into(),
            share.model.as_str().into(),
            percent(share.before, compared).into(),
            percent(share.after, compared).into(),
            Cell::styled(format!("{change:+}"), style),
        ]);
    }
    for (name, before, after) in [
        ("(refused)", tally.refused_before, tally.refused_after),
        ("(of these, for tags)", tally.tag_refusals_before, tally.tag_refusals_after),
    ] {
        let change = i128::from(after) - i128::from(before);
        let (before, after) = (percent(before, compared), percent(after, compared));
        let none = Cell::default();
        table.row(vec![
            name.into(),
            none.clone(),
            none,
            before.into(),
            after.into(),
            format!("{change:+}").into(),
        ]);
    }
    table.print();
    print_cost(tally);
    for example in &tally.examples {
        let (id, model) = (&example.request_id, &example.model);
        console::result(format_args!("  {id}  {model}: {} → {}", example.before, example.after));
    }
    console::result(
        "This says nothing about latency or quality: what another upstream would have answered is not known.",
    );
}

fn print_cost(tally: &Tally) {
    let usd = |nanos: i128| i64::try_from(nanos).map_or_else(|_| "?".to_owned(), |it| Nanos(it).to_string());
    console::result(format_args!(
        "Cost of {} requests, re-priced from the recorded usage: {} USD before, {} USD after; {} more have no known \
         price after",
        tally.priced,
        usd(tally.cost_nanos_before),
        usd(tally.cost_nanos_after),
        tally.unpriced,
    ));
}

/// With one decimal.
fn percent(part: u64, whole: u64) -> String {
    let tenths =
        (u128::from(part) * 1000 + u128::from(whole) / 2).checked_div(u128::from(whole)).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_to_a_tenth_of_a_percent() {
        for (part, whole, text) in
            [(0, 0, "0.0 %"), (1, 3, "33.3 %"), (2, 3, "66.7 %"), (5, 5, "100.0 %"), (1, 10_000, "0.0 %")]
        {
            assert_eq!(percent(part, whole), text, "{part} of {whole}");
        }
    }
}
