//! The job that makes partitions ahead of time and drops expired ones. One replica does it at a time; started by
//! `app.rs`.
//!
//! Days and months are dropped whole, so what is older than the retention of a rollup goes with its month. Nothing is
//! deleted row by row, and a run that can't have a lock tries again later instead of holding up the ingest.

mod settings;

use std::time::Duration;

use nemo_runtime::{drain::DrainWatcher, metrics::Registry};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use time::{Date, OffsetDateTime};

pub use settings::{Retention, RetentionOptions, TooShort};

use crate::{
    coordination::Election,
    store::{
        Store, StoreError,
        retention::{Dropped, Kept},
    },
};

/// Days whose partitions are made before they are needed.
const DAYS_AHEAD: i64 = 7;
/// How long a revision is kept beyond the last request that is: a node that is cut off goes on with its own, and what it
/// reports later than after a month is refused.
const HISTORY_MARGIN: time::Duration = time::Duration::days(31);
/// Between two runs.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Until the next run when one failed.
const RETRY: Duration = Duration::from_secs(60);
/// Partitions of one table that one run drops; the rest waits for the next.
const MAX_DROPS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Table {
    RequestLog,
    UsageHourly,
    UsageDaily,
}

impl From<Kept> for Table {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::RequestLog => Self::RequestLog,
            Kept::UsageHourly => Self::UsageHourly,
            Kept::UsageDaily => Self::UsageDaily,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    table: Table,
}

/// Instruments of the job.
#[derive(Clone, Debug, Default)]
pub struct RetentionMetrics {
    dropped: Family<Labels, Counter>,
    failed: Counter,
    succeeded_unix: Gauge,
}

impl RetentionMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            let help = "Expired partitions that this replica has dropped";
            r.register("retention_partitions_dropped", help, it.dropped.clone());
            let help = "Runs of the retention job that failed and will be tried again";
            r.register("retention_failures", help, it.failed.clone());
            let help =
                "When the retention job last succeeded or found another replica at it, in seconds since 1970";
            r.register("retention_last_success_seconds", help, it.succeeded_unix.clone());
        });
        it
    }
}

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the partitions that are gone.
    pub dropped: Vec<String>,
    /// Another replica was at it.
    pub busy: bool,
}

/// Makes partitions from `today` on and drops what has expired by then.
///
/// # Errors
/// When the database or a lock is not to be had; what was done until then stays done.
pub async fn run_once(
    store: &Store,
    retention: Retention,
    today: Date,
    metrics: &RetentionMetrics,
) -> Result<Report, StoreError> {
    for days in 0..=DAYS_AHEAD {
        store.ensure_partitions(today.saturating_add(time::Duration::days(days))).await?;
    }
    let mut report = Report::default();
    for kept in Kept::ALL {
        let Some(before) = retention.before(kept, today) else { continue };
        for _ in 0..MAX_DROPS {
            match store.drop_expired(kept, before).await? {
                Dropped::Partition(partition) => {
                    tracing::info!(partition, %before, "dropped an expired partition");
                    metrics.dropped.get_or_create(&Labels { table: kept.into() }).inc();
                    report.dropped.push(partition);
                }
                Dropped::Nothing => break,
                Dropped::Busy => {
                    report.busy = true;
                    break;
                }
            }
        }
    }
    if let Some(before) = retention.before(Kept::RequestLog, today) {
        let before = before.saturating_sub(HISTORY_MARGIN).midnight().assume_utc();
        let gone = store.prune_config_history(before).await?;
        if gone > 0 {
            tracing::info!(gone, %before, "forgot revisions that no logged request can name");
        }
    }
    Ok(report)
}

/// Runs at once, then every hour, until drain, while this replica leads the job or nobody can say who does.
pub async fn run(
    store: Store,
    retention: Retention,
    metrics: RetentionMetrics,
    mut election: Election,
    drain: DrainWatcher,
) {
    loop {
        if !election.is_mine() {
            // Another replica is at it.
            metrics.succeeded_unix.set(now_unix());
            tokio::select! {
                () = drain.signaled() => return,
                () = election.mine() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            continue;
        }
        let now = OffsetDateTime::from_unix_timestamp(now_unix()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let done = tokio::select! {
            () = drain.signaled() => return,
            done = run_once(&store, retention, now.date(), &metrics) => done,
        };
        let pause = match done {
            Ok(_) => {
                metrics.succeeded_unix.set(now_unix());
                INTERVAL
            }
            Err(error) => {
                tracing::warn!(%error, "retention is tried again in a minute");
                metrics.failed.inc();
                RETRY
            }
        };
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn now_unix() -> i64 {
    nemo_runtime::clock::unix_us() / 1_000_000
}

#[cfg(test)]
mod tests;
