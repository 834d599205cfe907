//! `nemo rerate`: what logged requests cost at other prices; shown, and if wanted booked.

use clap::Args;
use nemo_proto::{
    Timestamp,
    admin::{RerateRequest, RerateResponse, RerateRow},
};

use super::{
    output::json,
    session::Session,
    table::{Column, Table},
};
use crate::{
    admin_client::explain,
    cli::{Target, moment},
    console,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nemo rerate --from 2026-11-01 --model gpt-5-mini
  nemo rerate --from 2026-11-01 --to 2026-11-15 --model gpt-5-mini --book
  nemo rerate --from 7d --model qwen3-32b --price custom/qwen3-32b@2026-11-21T08:00:00Z

Takes each request's usage at the price that was in effect when it started, as the price book has it by now, or at the
one that is given. Requests whose cost the provider told stay as they are. With --book the differences go into the
ledger, as adjustments of the budgets that the requests were charged to; a second run finds none.")]
pub struct Rerate {
    /// Requests that started at this moment or later: 2026-11-01, 2026-11-01T08:00:00Z, 7d (ago)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Timestamp,
    /// And before this moment [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// Of this model: the catalog's name, or the name that was asked for
    #[arg(long)]
    model: String,
    /// At this price, by its id from `nemo prices list` [default: the one in effect at the time]
    #[arg(long, value_name = "ID")]
    price: Option<String>,
    /// Of this organization only: name or id [default: all]
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Book the differences
    #[arg(long)]
    book: bool,
    #[command(flatten)]
    target: Target,
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Rerate) -> anyhow::Result<()> {
    let session = Session::reading(&command.target)?;
    let org_id = match &command.org {
        Some(org) => session.client.organization(Some(org)).await?,
        None => String::new(),
    };
    let request = RerateRequest {
        from: Some(command.from),
        to: command.to,
        model: command.model,
        price_id: command.price.unwrap_or_default(),
        org_id,
        book: command.book,
        ..Default::default()
    };
    let mut client = session.client.catalog();
    let answer = console::step("Rating the requests", client.rerate(request)).await;
    show(&session, &answer.map_err(explain)?.into_inner())
}

fn show(session: &Session, found: &RerateResponse) -> anyhow::Result<()> {
    if session.out.json {
        return json(found);
    }
    let mut table = Table::new(&[
        Column::text("ORGANIZATION"),
        Column::text("MODEL"),
        Column::text("PROVIDER"),
        Column::number("REQUESTS"),
        Column::number("CHANGED"),
        Column::number("BOOKED USD"),
        Column::number("RERATED USD"),
        Column::number("DIFFERENCE USD"),
    ]);
    for row in &found.rows {
        table.row(vec![
            row.org_id.as_str().into(),
            row.model.as_str().into(),
            row.provider.as_str().into(),
            row.requests.to_string().into(),
            row.changed.to_string().into(),
            row.booked_usd.as_str().into(),
            row.rerated_usd.as_str().into(),
            row.difference_usd.as_str().into(),
        ]);
    }
    if !session.out.quiet {
        table.print();
    }
    let total = found.total.clone().unwrap_or_default();
    lines(found, &total).into_iter().for_each(console::result);
    Ok(())
}

fn lines(found: &RerateResponse, total: &RerateRow) -> Vec<String> {
    let mut lines = vec![format!(
        "{} of {} requests cost another amount: {} USD instead of {}, difference {} USD",
        total.changed, total.requests, total.rerated_usd, total.booked_usd, total.difference_usd
    )];
    if total.unpriced > 0 {
        lines.push(format!("{} of them had no cost before", total.unpriced));
    }
    if total.skipped > 0 {
        lines.push(format!(
            "{} stay as they are: the provider told their cost, they have no usage or no price, or the price given is \
             another provider's",
            total.skipped
        ));
    }
    match found.rerate_id.as_str() {
        "" if total.changed > 0 => lines.push("nothing was booked; --book does so".to_owned()),
        "" => {}
        _ if found.entries == 0 && total.changed == 0 => lines.push("there is nothing to book".to_owned()),
        id => lines.push(format!("booked as rerate:{id}, {} ledger entries", found.entries)),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_and_booked_is_told() {
        let total = RerateRow {
            requests: 5,
            changed: 3,
            unpriced: 1,
            skipped: 1,
            booked_usd: "1".into(),
            rerated_usd: "1.5".into(),
            difference_usd: "0.5".into(),
            ..RerateRow::default()
        };
        let dry = lines(&RerateResponse::default(), &total);
        assert_eq!(dry[0], "3 of 5 requests cost another amount: 1.5 USD instead of 1, difference 0.5 USD");
        assert_eq!((dry.len(), dry[3].as_str()), (4, "nothing was booked; --book does so"));
        let booked = RerateResponse { rerate_id: "x".into(), entries: 2, ..RerateResponse::default() };
        assert_eq!(lines(&booked, &total)[3], "booked as rerate:x, 2 ledger entries");
        assert_eq!(lines(&RerateResponse::default(), &RerateRow::default()).len(), 1);
        let again = RerateResponse { rerate_id: "x".into(), ..RerateResponse::default() };
        assert_eq!(lines(&again, &RerateRow::default())[1], "there is nothing to book");
    }
}
