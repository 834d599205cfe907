//! `nemo requests tail`: looks at the newest rows every second and shows those that were not there before.
//!
//! Rows come when requests end, and carry the time of their start: one that took long appears behind newer ones. So
//! what was seen is remembered by id, instead of asking for everything after the last moment.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use nemo_proto::admin::{ListRequestsRequest, RequestRecord};
use tokio::time::MissedTickBehavior;

use super::{
    output::Entity as _,
    session::Session,
    table::{Cell, Column, line},
};
use crate::{admin_client::explain, console};

const EVERY: Duration = Duration::from_secs(1);
/// Rows of one look.
const PAGE: u32 = 200;
/// Looks at older pages while all rows of a page are new: at most so many in one go.
const MOST_PAGES: usize = 20;
/// Ids that are remembered.
const REMEMBERED: usize = 20_000;
/// Failed looks in a row before the command gives up.
const PATIENCE: u32 = 30;

const COLUMNS: [Column; 9] = [
    Column::whole("STARTED, TOOK"),
    Column::whole("ID"),
    Column::text("MODEL"),
    Column::text("PROVIDER"),
    Column::text("OUTCOME"),
    Column::number("STATUS"),
    Column::number("IN"),
    Column::number("OUT"),
    Column::number("USD"),
];
/// Fixed, because lines are printed before those that follow are known.
const WIDTHS: [usize; 9] = [30, 36, 28, 14, 11, 6, 8, 8, 12];

/// Runs until Ctrl-C.
pub(super) async fn run(session: &Session, filter: ListRequestsRequest, lines: u32) -> anyhow::Result<()> {
    let shown = tail(session, filter, lines);
    tokio::select! {
        ended = shown => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn tail(session: &Session, filter: ListRequestsRequest, lines: u32) -> anyhow::Result<()> {
    let mut seen = Seen::default();
    let mut before = seen.new_of(page(session, &filter, "").await?.0);
    before.truncate(usize::try_from(lines)?);
    if !session.out.json && !session.out.quiet {
        let heading = COLUMNS.map(|column| Cell::styled(column.title(), console::Style::Heading));
        console::result(line(&COLUMNS, &WIDTHS, &heading));
    }
    show(session, &before)?;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        ticks.tick().await;
        match look(session, &filter, &mut seen).await {
            Ok(new) => {
                failures = 0;
                show(session, &new)?;
            }
            // A restart of the control plane is no reason to stop watching.
            Err(error) if failures >= PATIENCE => return Err(error),
            Err(error) => {
                if failures == 0 {
                    console::note(format_args!("{error:#}; still trying"));
                }
                failures += 1;
            }
        }
    }
}

/// What came since the last look, newest first.
async fn look(
    session: &Session,
    filter: &ListRequestsRequest,
    seen: &mut Seen,
) -> anyhow::Result<Vec<RequestRecord>> {
    let (mut new, mut token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let (rows, next) = page(session, filter, &token).await?;
        let total = rows.len();
        let of_page = seen.new_of(rows);
        let all_new = of_page.len() == total;
        new.extend(of_page);
        if !all_new || next.is_empty() {
            return Ok(new);
        }
        token = next;
    }
    console::note("more requests than can be shown; narrow them with --model, --key or --outcome");
    Ok(new)
}

async fn page(
    session: &Session,
    filter: &ListRequestsRequest,
    token: &str,
) -> anyhow::Result<(Vec<RequestRecord>, String)> {
    let request = ListRequestsRequest { page_size: PAGE, page_token: token.to_owned(), ..filter.clone() };
    let page = session.client.requests().list_requests(request).await.map_err(explain)?.into_inner();
    Ok((page.requests, page.next_page_token))
}

/// Oldest first, one a line.
fn show(session: &Session, newest_first: &[RequestRecord]) -> anyhow::Result<()> {
    for record in newest_first.iter().rev() {
        if session.out.json {
            console::result(serde_json::to_string(record)?);
        } else if session.out.quiet {
            console::result(&record.id);
        } else {
            console::result(line(&COLUMNS, &WIDTHS, &cells(record)));
        }
    }
    Ok(())
}

/// As in the list, with the duration beside the start.
fn cells(record: &RequestRecord) -> Vec<Cell> {
    let started = super::output::rfc3339(record.started_at);
    let mut cells = record.cells();
    cells[0] = format!("{started} +{} ms", record.total_us / 1000).into();
    cells.pop();
    cells
}

/// Ids of rows that were shown, as many as are remembered.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// The rows that are new, which are remembered.
    fn new_of(&mut self, rows: Vec<RequestRecord>) -> Vec<RequestRecord> {
        rows.into_iter().filter(|row| self.remember(&row.id)).collect()
    }

    fn remember(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_shown_once_and_memory_is_bounded() {
        let row = |id: usize| RequestRecord { id: id.to_string(), ..RequestRecord::default() };
        let mut seen = Seen::default();
        assert_eq!(seen.new_of(vec![row(2), row(1)]).len(), 2);
        assert_eq!(seen.new_of(vec![row(3), row(2), row(1)]).len(), 1);
        seen.new_of((0..REMEMBERED * 2).map(row).collect());
        assert_eq!((seen.ids.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn a_line_has_a_cell_for_each_column() {
        assert_eq!(cells(&RequestRecord::default()).len(), COLUMNS.len());
    }
}
