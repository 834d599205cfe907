//! `nemo budgets …`

mod lease;
mod present;

use clap::{Subcommand, ValueEnum};
use nemo_proto::admin::{
    Amount, Budget, CreateBudgetRequest, DeleteBudgetRequest, ListBudgetLeasesRequest, ListBudgetsRequest,
    ReleaseLeaseRequest, Thresholds, UpdateBudgetRequest,
};

use super::{
    output::{Entity, rfc3339},
    session::{Session, choose, confirm, list},
    subject::Subject,
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Org, Target, Write},
    console::{self, Style},
};

#[derive(Debug, Subcommand)]
pub enum Budgets {
    /// Make a budget: money that may be spent within a window
    #[command(after_help = "\
Examples:
  nemo budgets create monthly --limit 500 --window month --time-zone Europe/Berlin
  nemo budgets create ci-daily --limit 5.00 --window day --key ci --threshold 80 --threshold 100
  nemo budgets create burst --limit 20 --window rolling --hours 6 --team build --over-budget reject

Without --team and --key it is on the whole organization. A key's requests pass the budgets of the key, of its team and
of its organization. What a budget is on and its window stay as they are.")]
    Create {
        /// Name of the budget
        name: String,
        /// USD per window, as in 12.50
        #[arg(long, value_name = "USD", allow_hyphen_values = true)]
        limit: String,
        /// How long the money has to last
        #[arg(long, value_enum)]
        window: Window,
        /// Length of a rolling window, 1 to 744
        #[arg(long)]
        hours: Option<u32>,
        /// Where days, weeks and months begin, as in Europe/Berlin [default: UTC]
        #[arg(long, value_name = "ZONE")]
        time_zone: Option<String>,
        #[command(flatten)]
        policies: Policies,
        /// Percent of the limit at which webhooks are told; can be repeated
        #[arg(long = "threshold", value_name = "PERCENT")]
        thresholds: Vec<u32>,
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// List budgets, and how they stand
    #[command(after_help = "Examples:\n  nemo budgets list\n  nemo budgets list --team build --json")]
    List {
        #[command(flatten)]
        subject: Subject,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show one budget: its policies, and what is settled, held and left
    #[command(visible_alias = "show", after_help = "Examples:\n  nemo budgets get monthly")]
    Get {
        /// Name or id
        budget: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Change a budget
    #[command(after_help = "\
Examples:
  nemo budgets update monthly --limit 750
  nemo budgets update monthly --threshold 50 --threshold 90   replaces all thresholds
  nemo budgets update monthly --disabled true

A limit can't be set below what is spent in the present window. Set it to just that, and nothing more is spent.")]
    Update {
        /// Name or id
        budget: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// USD per window; holds for the present one too
        #[arg(long, value_name = "USD", allow_hyphen_values = true)]
        limit: Option<String>,
        #[command(flatten)]
        policies: Policies,
        /// All thresholds anew; 0 for none
        #[arg(long = "threshold", value_name = "PERCENT")]
        thresholds: Vec<u32>,
        /// Whether it is switched off: nothing is limited or counted by it
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a budget with its windows; the ledger keeps what was spent
    #[command(after_help = "Examples:\n  nemo budgets delete monthly\n  nemo budgets delete monthly --yes")]
    Delete {
        /// Name or id
        budget: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Delete,
    },
    /// List what nodes hold of a budget
    #[command(after_help = "\
Examples:
  nemo budgets leases monthly
  nemo budgets leases monthly --state closed --json")]
    Leases {
        /// Name or id
        budget: String,
        /// active, done, held or closed [default: all that are not closed]
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Give back what is held, or was charged, for a node that will not come back
    #[command(after_help = "\
Examples:
  nemo budgets release monthly 019acb51-7d3e-7c40-9d0a-3c1f2b4a5d6e

The lease must be held or closed; `nemo budgets leases monthly --state held` lists them. Do it when you know that the
node has not spent it.")]
    Release {
        /// Name or id
        budget: String,
        /// Id of the lease
        lease: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Window {
    Day,
    Week,
    Month,
    Rolling,
    Total,
}

/// What happens at the edge. Absent: the first of each, or as it is.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Policies {
    /// When a request could cost more than is left: cap (its output), reject
    #[arg(long, value_parser = ["cap", "reject"])]
    over_budget: Option<String>,
    /// While a node holds nothing and can't get anything: deny, allow
    #[arg(long, value_parser = ["deny", "allow"])]
    no_lease: Option<String>,
    /// What a node held that is gone for good: charge, release
    #[arg(long, value_parser = ["charge", "release"])]
    lost_lease: Option<String>,
    /// What is held for a request in flight: strict (the most it can cost), estimated
    #[arg(long, value_parser = ["strict", "estimated"])]
    reservation: Option<String>,
}

impl Entity for Budget {
    const KIND: &'static str = "budget";
    const NOUN: &'static str = "budgets";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("ON"),
        Column::text("WINDOW"),
        Column::number("LIMIT"),
        Column::number("SPENT"),
        Column::number("HELD"),
        Column::number("LEFT"),
        Column::text("STATE"),
        Column::whole("RESETS"),
        Column::whole("ID"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        let on = match (self.team_id.as_str(), self.key_id.as_str()) {
            ("", "") => "organization",
            ("", _) => "key",
            _ => "team",
        };
        let window = match self.window_hours {
            0 => self.window.clone(),
            hours => format!("{} {hours} h", self.window),
        };
        let current = self.current.clone().unwrap_or_default();
        let nanos = |amount: &Option<Amount>| amount.as_ref().map_or(0, |it| it.nanos);
        let spent = nemo_types::Nanos(nanos(&current.settled).saturating_add(nanos(&current.overrun)));
        let usd = |amount: Option<Amount>| Cell::from(amount.unwrap_or_default().usd);
        let state = match (self.disabled, current.exhausted) {
            (true, _) => Cell::enabled(true),
            (false, true) => Cell::styled("exhausted", Style::Bad),
            (false, false) => Cell::enabled(false),
        };
        vec![
            self.name.as_str().into(),
            on.into(),
            window.into(),
            // Of credit, the movements are what counts.
            current.limit.as_ref().map_or(&self.limit_usd, |limit| &limit.usd).as_str().into(),
            spent.to_string().into(),
            usd(current.outstanding),
            usd(current.remaining),
            state,
            rfc3339(current.end).into(),
            self.id.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Budgets) -> anyhow::Result<()> {
    match command {
        Budgets::Create {
            name,
            limit,
            window,
            hours,
            time_zone,
            policies,
            thresholds,
            subject,
            org,
            write,
        } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let (team_id, key_id) = subject.ids(&session.client, &org_id).await?;
            let window = window.to_possible_value().map(|it| it.get_name().to_owned());
            let request = CreateBudgetRequest {
                org_id,
                team_id,
                key_id,
                name,
                limit_usd: limit,
                window: window.unwrap_or_default(),
                window_hours: hours.unwrap_or_default(),
                time_zone: time_zone.unwrap_or_default(),
                over_budget: policies.over_budget.unwrap_or_default(),
                no_lease: policies.no_lease.unwrap_or_default(),
                lost_lease: policies.lost_lease.unwrap_or_default(),
                reservation: policies.reservation.unwrap_or_default(),
                thresholds,
                ..Default::default()
            };
            let mut client = session.client.budgets();
            session.put("created", client.create_budget(session.write(request))).await
        }
        Budgets::List { subject, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let (team_id, key_id) = subject.ids(&session.client, &org_id).await?;
            session.out.list(&all(&session.client, &org_id, &team_id, &key_id).await?)
        }
        Budgets::Get { budget, org, target } => {
            let session = Session::reading(&target)?;
            let budget = find(&session, &org, &budget).await?;
            if target.json || target.quiet {
                return session.out.one(&budget);
            }
            // What is said of the present window has lines of its own.
            session.out.one(&Budget { current: None, ..budget.clone() })?;
            present::lines(&budget.current.unwrap_or_default()).into_iter().for_each(console::result);
            Ok(())
        }
        Budgets::Update { budget, name, limit, policies, thresholds, disabled, org, write } => {
            let session = Session::writing(&write)?;
            let Budget { id, org_id, .. } = find(&session, &org, &budget).await?;
            let request = UpdateBudgetRequest {
                org_id,
                id,
                name,
                limit_usd: limit,
                over_budget: policies.over_budget,
                no_lease: policies.no_lease,
                lost_lease: policies.lost_lease,
                reservation: policies.reservation,
                thresholds: anew(thresholds),
                disabled,
                ..Default::default()
            };
            let mut client = session.client.budgets();
            session.put("updated", client.update_budget(session.write(request))).await
        }
        Budgets::Delete { budget, org, options } => {
            let session = Session::writing(&options.write)?;
            let budget = find(&session, &org, &budget).await?;
            confirm(&budget, &options)?;
            let (org_id, id) = (budget.org_id.clone(), budget.id.clone());
            let request = DeleteBudgetRequest { org_id, id, ..Default::default() };
            let mut client = session.client.budgets();
            session.delete(&budget, client.delete_budget(session.write(request))).await
        }
        Budgets::Leases { budget, state, org, target } => {
            let session = Session::reading(&target)?;
            let Budget { id, org_id, .. } = find(&session, &org, &budget).await?;
            let state = state.unwrap_or_default();
            let (client, org_id) = (&session.client, org_id.as_str());
            let leases = list!(client.budgets().list_budget_leases -> leases, ListBudgetLeasesRequest {
                org_id, id, state
            })?;
            session.out.list(&leases)
        }
        Budgets::Release { budget, lease, org, write } => {
            let session = Session::writing(&write)?;
            let Budget { id, org_id, .. } = find(&session, &org, &budget).await?;
            let request =
                ReleaseLeaseRequest { org_id, budget_id: id, lease_id: lease, ..Default::default() };
            let mut client = session.client.budgets();
            session.put("released", client.release_lease(session.write(request))).await
        }
    }
}

/// `None`: unchanged. Zero alone: none.
fn anew(mut percent: Vec<u32>) -> Option<Thresholds> {
    if percent.is_empty() {
        return None;
    }
    if percent == [0] {
        percent.clear();
    }
    Some(Thresholds { percent })
}

async fn all(client: &AdminClient, org_id: &str, team_id: &str, key_id: &str) -> anyhow::Result<Vec<Budget>> {
    list!(client.budgets().list_budgets -> budgets, ListBudgetsRequest { org_id, team_id, key_id })
}

async fn find(session: &Session, org: &Org, wanted: &str) -> anyhow::Result<Budget> {
    let org_id = session.client.organization(org.org.as_deref()).await?;
    choose(all(&session.client, &org_id, "", "").await?, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_threshold_leaves_them_and_zero_takes_them_away() {
        assert_eq!(anew(vec![]), None);
        assert_eq!(anew(vec![0]), Some(Thresholds { percent: vec![] }));
        assert_eq!(
            anew(vec![0, 50]),
            Some(Thresholds { percent: vec![0, 50] }),
            "the control plane says why not"
        );
    }
}
