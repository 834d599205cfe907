//! Budgets of organizations, teams and keys, with what is left of their present window.
//!
//! An answer tells settled, reserved and outstanding money apart: what was spent, what requests in flight hold, and what
//! nodes hold altogether. The windows are the quota service's; a changed limit is written into those that have not ended,
//! in the same transaction. A budget keeps its window and what it is on for life.

use std::collections::HashMap;

use nemo_proto::admin::{
    Budget, CreateBudgetRequest, DeleteBudgetRequest, DeleteBudgetResponse, GetBudgetRequest,
    ListBudgetsRequest, ListBudgetsResponse, UpdateBudgetRequest,
};
use nemo_types::{BudgetId, Nanos};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{convert, list_filter};
use crate::{
    admin::{
        Action, Admin, AdminError, Call, ErrorKind, Written,
        limited::{self, On},
        page_token, validate,
    },
    quota::window::{MAX_ROLLING_HOURS, Window, WindowError},
    store::{
        TenantTx,
        budgets::{self, BudgetChange, BudgetRow, CrossingRow, NewBudget, WindowRow, leases},
    },
};

pub(in crate::admin) const WINDOWS: [&str; 5] = ["day", "week", "month", "rolling", "total"];
pub(in crate::admin) const OVER_BUDGET: [&str; 2] = ["cap", "reject"];
pub(in crate::admin) const NO_LEASE: [&str; 2] = ["deny", "allow"];
pub(in crate::admin) const LOST_LEASE: [&str; 2] = ["charge", "release"];
pub(in crate::admin) const RESERVATION: [&str; 2] = ["strict", "estimated"];

impl Admin {
    pub async fn create_budget(
        &self,
        call: &Call,
        request: CreateBudgetRequest,
    ) -> Result<Written<Budget>, AdminError> {
        validate::name("name", &request.name)?;
        let on = On::read(&request.team_id, &request.key_id)?;
        let limit = limited::amount("limit_usd", &request.limit_usd)?;
        let window = read_window(&request)?;
        let thresholds = limited::thresholds("thresholds", &request.thresholds)?;
        let policies = Policies::read(&request)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "budget.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        on.check(&mut write.tx).await?;
        on.room(budgets::beside(&mut write.tx, on.team, on.key).await?, "budgets")?;
        let new = NewBudget {
            id: BudgetId::generate().0,
            team_id: on.team,
            key_id: on.key,
            name: &request.name,
            limit_nanos: limit.0,
            window_kind: window.kind,
            window_hours: window.hours,
            time_zone: &window.time_zone,
            over_budget: policies.over_budget,
            no_lease: policies.no_lease,
            lost_lease: policies.lost_lease,
            reservation: policies.reservation,
            thresholds: &thresholds,
            disabled: request.disabled,
        };
        let row = budgets::insert(&mut write.tx, new).await?;
        let after = told(&mut write.tx, row).await?;
        write.done(after).await
    }

    pub async fn get_budget(&self, call: &Call, request: GetBudgetRequest) -> Result<Budget, AdminError> {
        let id: BudgetId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = budgets::get(&mut tx, id.0).await?.ok_or_else(|| AdminError::not_found("budget", id))?;
        told(&mut tx, row).await
    }

    pub async fn list_budgets(
        &self,
        call: &Call,
        request: ListBudgetsRequest,
    ) -> Result<ListBudgetsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let on = On::filter(&request.team_id, &request.key_id)?;
        let filter = list_filter!(request);
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = budgets::list(&mut tx, on.team, on.key, page, &filter).await?;
        Ok(ListBudgetsResponse {
            next_page_token: page_token::next(listed.next),
            budgets: all_told(&mut tx, listed.rows).await?,
        })
    }

    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a limit below what is spent of a window that has not ended.
    pub async fn update_budget(
        &self,
        call: &Call,
        request: UpdateBudgetRequest,
    ) -> Result<Written<Budget>, AdminError> {
        let id: BudgetId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let limit =
            request.limit_usd.as_deref().map(|text| limited::amount("limit_usd", text)).transpose()?;
        let thresholds =
            request.thresholds.as_ref().map(|it| limited::thresholds("thresholds.percent", &it.percent));
        let thresholds = thresholds.transpose()?;
        let word = |field, text: &Option<String>, words| {
            text.as_deref().map(|text| limited::word(field, text, words)).transpose()
        };
        let change = BudgetChange {
            name: request.name.as_deref(),
            limit_nanos: limit.map(|limit| limit.0),
            over_budget: word("over_budget", &request.over_budget, &OVER_BUDGET)?,
            no_lease: word("no_lease", &request.no_lease, &NO_LEASE)?,
            lost_lease: word("lost_lease", &request.lost_lease, &LOST_LEASE)?,
            reservation: word("reservation", &request.reservation, &RESERVATION)?,
            thresholds: thresholds.as_deref(),
            disabled: request.disabled,
        };
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "budget.update").await?;
        let before = budgets::get(&mut write.tx, id.0).await?;
        let before = match before {
            Some(row) => Some(told(&mut write.tx, row).await?),
            None => None,
        };
        let before = write.found::<Budget>(before, id)?;
        let now = validate::now();
        if let Some(limit) = limit {
            check_limit(&mut write.tx, id, &before, (limit, now)).await?;
        }
        let row = budgets::update(&mut write.tx, id.0, change).await?;
        if let Some(limit) = limit {
            // After the budget: a window that is made at this moment has been waited for, or is made with the new limit.
            budgets::set_window_limits(&mut write.tx, id.0, now, limit.0).await?;
        }
        let after = told(&mut write.tx, row.ok_or_else(|| AdminError::not_found("budget", id))?).await?;
        write.done(after).await
    }

    /// Deletes the budget with its windows and leases. Requests in flight are finished and logged, and charged to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] for an organization's balance, which is not made here.
    pub async fn delete_budget(
        &self,
        call: &Call,
        request: DeleteBudgetRequest,
    ) -> Result<Written<DeleteBudgetResponse>, AdminError> {
        let id: BudgetId = validate::id("id", &request.id)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "budget.delete").await?;
        let before = match budgets::get(&mut write.tx, id.0).await? {
            Some(row) => Some(told(&mut write.tx, row).await?),
            None => None,
        };
        let before = write.found::<Budget>(before, id)?;
        refuse_credit(&before, "it can't be deleted")?;
        // In the order in which grants and settlements lock: never the budget before its windows.
        budgets::lock_windows(&mut write.tx, id.0, OffsetDateTime::UNIX_EPOCH).await?;
        budgets::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}

/// Whether the windows that have not ended can have the limit. They are locked from then on.
async fn check_limit(
    tx: &mut TenantTx,
    id: BudgetId,
    before: &Budget,
    (limit, now): (Nanos, OffsetDateTime),
) -> Result<(), AdminError> {
    refuse_credit(before, "credits move its limit")?;
    let windows = budgets::lock_windows(tx, id.0, now).await?;
    let spent = windows.iter().map(WindowRow::spent).max().unwrap_or_default();
    if i128::from(limit.0) < spent {
        let spent = limited::shown(spent).unwrap_or_default().usd;
        let message = format!("{limit} is below what is spent in the present window");
        let expected = format!("at least {spent}, which stops it at once");
        return Err(AdminError::invalid("limit_usd", message, expected));
    }
    Ok(())
}

fn refuse_credit(budget: &Budget, what: &str) -> Result<(), AdminError> {
    if budget.kind != "credit" {
        return Ok(());
    }
    let message = format!("this is the organization's balance: {what}");
    Err(AdminError {
        expected: Some("the operations of credits".to_owned()),
        ..AdminError::new(ErrorKind::InUse, message)
    })
}

/// A window as it was asked for.
struct NewWindow {
    kind: &'static str,
    hours: Option<i32>,
    time_zone: String,
}

fn read_window(request: &CreateBudgetRequest) -> Result<NewWindow, AdminError> {
    let kinds = || format!("one of: {}", WINDOWS.join(", "));
    if request.window.is_empty() {
        return Err(AdminError::invalid("window", "missing", kinds()));
    }
    let kind = limited::word("window", &request.window, &WINDOWS)?;
    let hours = (request.window_hours != 0).then_some(request.window_hours);
    let time_zone = if request.time_zone.is_empty() { "UTC" } else { &request.time_zone };
    Window::parse(kind, hours.map(i64::from), time_zone).map_err(|error| match error {
        WindowError::Kind(kind) => AdminError::invalid("window", format!("{kind:?} is unknown"), kinds()),
        WindowError::HoursMissing => {
            let expected = format!("1 to {MAX_ROLLING_HOURS} hours");
            AdminError::invalid("window_hours", "missing for a rolling window", expected)
        }
        WindowError::Hours(hours) => {
            let expected = format!("1 to {MAX_ROLLING_HOURS} hours");
            AdminError::invalid("window_hours", format!("{hours} is no length of a rolling window"), expected)
        }
        WindowError::HoursUnasked => {
            let message = format!("a window of kind {kind} has no length of its own");
            AdminError::invalid("window_hours", message, "nothing, or window = rolling")
        }
        WindowError::Zone(zone) => {
            let expected = "an IANA time zone such as UTC, Europe/Berlin or America/New_York";
            AdminError::invalid("time_zone", format!("{zone:?} is no time zone"), expected)
        }
    })?;
    let hours = hours.and_then(|hours| i32::try_from(hours).ok());
    Ok(NewWindow { kind, hours, time_zone: time_zone.to_owned() })
}

struct Policies {
    over_budget: &'static str,
    no_lease: &'static str,
    lost_lease: &'static str,
    reservation: &'static str,
}

impl Policies {
    fn read(request: &CreateBudgetRequest) -> Result<Self, AdminError> {
        Ok(Self {
            over_budget: limited::word("over_budget", &request.over_budget, &OVER_BUDGET)?,
            no_lease: limited::word("no_lease", &request.no_lease, &NO_LEASE)?,
            lost_lease: limited::word("lost_lease", &request.lost_lease, &LOST_LEASE)?,
            reservation: limited::word("reservation", &request.reservation, &RESERVATION)?,
        })
    }
}

/// The budget with its present window.
async fn told(tx: &mut TenantTx, row: BudgetRow) -> Result<Budget, AdminError> {
    let id = row.id;
    let told = all_told(tx, vec![row]).await?.pop();
    told.ok_or_else(|| AdminError::not_found("budget", id))
}

async fn all_told(tx: &mut TenantTx, rows: Vec<BudgetRow>) -> Result<Vec<Budget>, AdminError> {
    let now = validate::now();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let windows = budgets::windows(tx, &ids, now).await?;
    let mut windows: HashMap<Uuid, WindowRow> = windows.into_iter().map(|row| (row.budget_id, row)).collect();
    let reserved = leases::reserved(tx, &ids).await?;
    let reserved: HashMap<_, i64> = reserved.into_iter().map(|(id, at, nanos)| ((id, at), nanos)).collect();
    let mut crossings: HashMap<Uuid, Vec<CrossingRow>> = HashMap::new();
    for row in budgets::crossings(tx, &ids).await? {
        crossings.entry(row.budget_id).or_default().push(row);
    }
    let tell = |row: BudgetRow| {
        let window = windows.remove(&row.id).or_else(|| unused(&row, now));
        let mut crossed = crossings.remove(&row.id).unwrap_or_default();
        crossed.retain(|it| window.as_ref().is_some_and(|window| window.window_start == it.window_start));
        let held =
            |window: &WindowRow| reserved.get(&(row.id, window.window_start)).copied().unwrap_or_default();
        let current = window.map(|window| convert::budget_window(&window, held(&window), crossed, now));
        Budget { current, ..row.into() }
    };
    Ok(rows.into_iter().map(tell).collect())
}

/// The window that `now` is in of a budget that nobody has used in it: nothing is spent of it.
fn unused(row: &BudgetRow, now: OffsetDateTime) -> Option<WindowRow> {
    let window = Window::parse(&row.window_kind, row.window_hours.map(i64::from), &row.time_zone).ok()?;
    let span = window.span(now.unix_timestamp());
    let moment = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok();
    Some(WindowRow {
        budget_id: row.id,
        window_start: moment(span.start)?,
        window_end: span.end.and_then(moment),
        limit_nanos: row.limit_nanos,
        settled_nanos: 0,
        outstanding_nanos: 0,
        overrun_nanos: 0,
        starved_at: None,
    })
}
