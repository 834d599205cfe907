//! The check that every running total is the sum of its entries: on demand by `admin/ops/ledger.rs`, and every night by
//! a job of one replica, started by `app.rs`.
//!
//! It reads one snapshot of the database and changes nothing. What differs is named: what it is, whose, what the entries
//! add up to, and what was found.

use std::{fmt, time::Duration};

use nemo_runtime::{drain::DrainWatcher, metrics::Registry};
use nemo_types::{BudgetId, LeaseId, Nanos, OrgId};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use time::{Date, OffsetDateTime};

use crate::{
    coordination::Election,
    store::{
        Store, StoreError,
        ledger::verify::{DifferenceRow, Verification},
    },
};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_secs(600);
/// From this hour on (UTC) the check of the day is due.
const HOUR: u8 = 3;
/// Differences of one check that are logged; all are counted.
const LOGGED: usize = 20;

macro_rules! whats {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $label:literal;)*) => {
        /// What differs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum What {
            $($(#[$doc])* $name,)*
            /// Of a newer release.
            Other,
        }

        impl What {
            /// As the API has it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "other",
                }
            }

            /// For people.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                    Self::Other => "something else",
                }
            }

            fn from_name(name: &str) -> Self {
                match name {
                    $($text => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

whats! {
    /// Entries of a window that has no row.
    WindowMissing = "window_missing", "a window that has entries and no row";
    WindowSettled = "window_settled", "what is settled of a window";
    WindowOverrun = "window_overrun", "what was overrun of a window";
    /// Against what its leases have outstanding.
    WindowOutstanding = "window_outstanding", "what the leases of a window hold";
    /// Against purchases, grants and refunds.
    CreditLimit = "credit_limit", "the balance of a credit";
    /// Against its hours.
    RollingSettled = "rolling_settled", "the hours of a rolling window (settled)";
    RollingOverrun = "rolling_overrun", "the hours of a rolling window (overrun)";
    LeaseSpent = "lease_spent", "what is spent of a lease";
    LeaseOverrun = "lease_overrun", "what was overrun of a lease";
    LeaseForfeited = "lease_forfeited", "what was forfeited of a lease";
    /// The request log's own charges against what was booked for requests.
    RequestLog = "request_log", "the charges in the request log";
    /// Charges that the bank refused.
    Unsettled = "unsettled", "requests whose charges could not be settled";
}

/// A total that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: What,
    pub org_id: OrgId,
    pub budget_id: Option<BudgetId>,
    pub window_start: Option<OffsetDateTime>,
    pub lease_id: Option<LeaseId>,
    /// What the entries add up to.
    pub expected: Nanos,
    pub found: Nanos,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.label())?;
        if let Some(budget) = self.budget_id {
            write!(f, ", budget {budget}")?;
        }
        if let Some(start) = self.window_start {
            write!(f, ", window {start}")?;
        }
        if let Some(lease) = self.lease_id {
            write!(f, ", lease {lease}")?;
        }
        write!(f, ", organization {}: expected {} USD, found {} USD", self.org_id, self.expected, self.found)
    }
}

/// Entries of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindTotal {
    pub kind: String,
    pub entries: u64,
    pub nanos: Nanos,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub kinds: Vec<KindTotal>,
    pub windows: u64,
    pub leases: u64,
    /// Requests in the log that are charged to something, and their charges.
    pub requests: u64,
    pub charges: u64,
    /// Requests that were settled without a row in the log.
    pub unlogged: u64,
    /// Entries about budgets that were deleted since.
    pub deleted: u64,
    /// Sums over all windows.
    pub settled: Nanos,
    pub overrun: Nanos,
    pub outstanding: Nanos,
    /// Sum over the charges of the log.
    pub charged: Nanos,
    /// First day that the request log has whole; `None`: all that ever were.
    pub log_from: Option<Date>,
    /// At most a thousand of each kind.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    pub more: u64,
}

impl Report {
    pub fn is_fine(&self) -> bool {
        self.differences.is_empty() && self.more == 0
    }

    /// All entries.
    pub fn entries(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.entries).sum()
    }
}

/// Sums over everything can be larger than an amount.
fn nanos(text: &str) -> Nanos {
    // Sums of integers may come with a point and zeros.
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let limit = if whole.starts_with('-') { i64::MIN } else { i64::MAX };
    Nanos(whole.parse().unwrap_or(limit))
}

impl From<DifferenceRow> for Difference {
    fn from(row: DifferenceRow) -> Self {
        Self {
            what: What::from_name(&row.what),
            org_id: OrgId(row.org_id),
            budget_id: row.budget_id.map(BudgetId),
            window_start: row.window_start,
            lease_id: row.lease_id.map(LeaseId),
            expected: nanos(&row.expected),
            found: nanos(&row.found),
        }
    }
}

impl From<Verification> for Report {
    fn from(found: Verification) -> Self {
        let compared = found.compared;
        let mut more = 0;
        let mut of_kind: std::collections::HashMap<String, (i64, i64)> = std::collections::HashMap::new();
        for row in &found.differences {
            let (told, all) = of_kind.entry(row.what.clone()).or_default();
            (*told, *all) = (*told + 1, row.of_kind.max(*all));
        }
        // Each unsettled line stands for several requests, but is one difference.
        for (what, (told, all)) in of_kind {
            if What::from_name(&what) != What::Unsettled {
                more += (all - told).max(0).unsigned_abs();
            }
        }
        let kinds = found.kinds.into_iter().map(|it| KindTotal {
            kind: it.kind,
            entries: it.entries.unsigned_abs(),
            nanos: nanos(&it.nanos),
        });
        Self {
            kinds: kinds.collect(),
            windows: compared.windows.unsigned_abs(),
            leases: compared.leases.unsigned_abs(),
            requests: compared.requests.unsigned_abs(),
            charges: compared.charges.unsigned_abs(),
            unlogged: compared.unlogged.unsigned_abs(),
            deleted: compared.deleted.unsigned_abs(),
            settled: nanos(&compared.settled),
            overrun: nanos(&compared.overrun),
            outstanding: nanos(&compared.outstanding),
            charged: nanos(&compared.charged),
            log_from: compared.log_from,
            differences: found.differences.into_iter().map(Into::into).collect(),
            more,
        }
    }
}

/// Adds everything up and compares.
///
/// # Errors
/// When the database can't be read.
pub async fn verify(store: &Store) -> Result<Report, StoreError> {
    Ok(store.verify_ledger().await?.into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Verdict {
    Fine,
    Differs,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verdict: Verdict,
}

/// Instruments of the job.
#[derive(Clone, Debug, Default)]
pub struct LedgerMetrics {
    checks: Family<Labels, Counter>,
    differences: Gauge,
    checked_unix: Gauge,
}

impl LedgerMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            let help = "Nightly checks of the ledger by this replica, by what they found";
            r.register("ledger_checks", help, it.checks.clone());
            let help =
                "Totals that the last check of this replica found different from their entries: must be zero";
            r.register("ledger_differences", help, it.differences.clone());
            let help = "When this replica last checked the ledger, in seconds since 1970";
            r.register("ledger_last_check_seconds", help, it.checked_unix.clone());
        });
        it
    }

    fn count(&self, verdict: Verdict) {
        self.checks.get_or_create(&Labels { verdict }).inc();
    }
}

/// One check, told to log and metrics.
pub async fn check(store: &Store, metrics: &LedgerMetrics) -> Result<Report, StoreError> {
    let report = verify(store).await.inspect_err(|error| {
        metrics.count(Verdict::Failed);
        tracing::warn!(%error, "the ledger could not be checked; tried again later");
    })?;
    for difference in report.differences.iter().take(LOGGED) {
        tracing::error!(%difference, "a total is not the sum of its ledger entries");
    }
    let differences = report.differences.len() as u64 + report.more;
    if report.is_fine() {
        tracing::info!(entries = report.entries(), windows = report.windows, "the ledger adds up");
    } else {
        tracing::error!(
            differences,
            "the ledger does not add up; `nemo ledger verify` names all differences"
        );
    }
    metrics.count(if report.is_fine() { Verdict::Fine } else { Verdict::Differs });
    metrics.differences.set(i64::try_from(differences).unwrap_or(i64::MAX));
    metrics.checked_unix.set(now().unix_timestamp());
    Ok(report)
}

/// Checks once a night, until drain, while this replica leads the job or nobody can say who does.
pub async fn run(store: Store, metrics: LedgerMetrics, election: Election, drain: DrainWatcher) {
    let mut last = now().date();
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        let now = now();
        if !is_due(now, last) {
            continue;
        }
        if !election.is_mine() {
            last = now.date();
            continue;
        }
        let checked = tokio::select! {
            () = drain.signaled() => return,
            checked = check(&store, &metrics) => checked,
        };
        if checked.is_ok() {
            last = now.date();
        }
    }
}

/// The first look after three in the morning (UTC) of a new day.
fn is_due(now: OffsetDateTime, last: Date) -> bool {
    now.date() > last && now.hour() >= HOUR
}

fn now() -> OffsetDateTime {
    let seconds = nemo_runtime::clock::unix_us() / 1_000_000;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
