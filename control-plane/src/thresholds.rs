//! The job that tells organizations when the spend of a budget crosses a threshold, and when nothing is left: each
//! crossing becomes one event of the webhooks. One replica does it at a time; started by `app.rs`.

use std::time::Duration;

use nemo_proto::Timestamp;
use nemo_runtime::{drain::DrainWatcher, metrics::Registry};
use nemo_types::Nanos;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    coordination::Election,
    store::{
        Store, StoreError,
        thresholds::{self, Crossed},
        webhooks,
    },
    webhooks::event_types::{BUDGET_EXHAUSTED, BUDGET_THRESHOLD},
};

/// Between two runs: spend is settled within seconds, and so it is told.
const INTERVAL: Duration = Duration::from_secs(2);
/// Until the next run when one failed.
const RETRY: Duration = Duration::from_secs(10);
/// Crossings that one transaction tells; more follow at once.
const MOST: i64 = 200;

/// Instruments of the job.
#[derive(Clone, Debug, Default)]
pub struct ThresholdMetrics {
    crossed: Counter,
    failed: Counter,
}

impl ThresholdMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            let help = "Thresholds of budgets that were crossed and told by this replica";
            r.register("budget_thresholds_crossed", help, it.crossed.clone());
            let help = "Runs of the job that looks at thresholds which failed and will be tried again";
            r.register("budget_threshold_failures", help, it.failed.clone());
        });
        it
    }
}

/// Tells what was crossed by `now`. Returns how much that was.
///
/// # Errors
/// When the database can't be written; what was told stays told, and nothing is told without being noted.
pub async fn run_once(store: &Store, now: OffsetDateTime) -> Result<usize, StoreError> {
    let mut tx = store.system().await?;
    thresholds::rearm(&mut tx, now).await?;
    tx.commit().await?;
    let mut told = 0;
    loop {
        let mut tx = store.system().await?;
        let crossed = thresholds::cross(&mut tx, now, MOST).await?;
        for it in &crossed {
            let (event_type, key) = event(it);
            webhooks::enqueue(&mut tx, it.org_id, event_type, &key, &data(it)).await?;
        }
        tx.commit().await?;
        told += crossed.len();
        if i64::try_from(crossed.len()).unwrap_or(i64::MAX) < MOST {
            return Ok(told);
        }
    }
}

/// Type, and what it is told once for: the same threshold of the same window can be crossed again after it was not.
fn event(it: &Crossed) -> (&'static str, String) {
    let event_type = if it.percent == 0 { BUDGET_EXHAUSTED } else { BUDGET_THRESHOLD };
    let (window, at) = (it.window_start.unix_timestamp(), it.crossed_at.unix_timestamp_nanos() / 1000);
    (event_type, format!("{event_type}:{}:{window}:{}:{at}", it.budget_id, it.percent))
}

/// What receivers are told.
fn data(it: &Crossed) -> Value {
    let money = |nanos: i64| json!({ "usd": Nanos(nanos).to_string(), "nanos": nanos });
    json!({
        "budget_id": it.budget_id,
        "name": it.name,
        "kind": it.kind,
        "org_id": it.org_id,
        "team_id": it.team_id,
        "key_id": it.key_id,
        "window": it.window_kind,
        "window_start": Timestamp::from(it.window_start),
        "window_end": it.window_end.map(Timestamp::from),
        "percent": (it.percent > 0).then_some(it.percent),
        "spent": money(it.spent_nanos),
        "limit": money(it.limit_nanos),
    })
}

/// Runs every few seconds until drain, while this replica leads the job or nobody can say who does.
pub async fn run(store: Store, metrics: ThresholdMetrics, mut election: Election, drain: DrainWatcher) {
    loop {
        if !election.is_mine() {
            tokio::select! {
                () = drain.signaled() => return,
                () = election.mine() => {}
            }
        }
        let micros = i128::from(nemo_runtime::clock::unix_us());
        let now = OffsetDateTime::from_unix_timestamp_nanos(micros * 1000);
        let pause = match run_once(&store, now.unwrap_or(OffsetDateTime::UNIX_EPOCH)).await {
            Ok(told) => {
                metrics.crossed.inc_by(u64::try_from(told).unwrap_or_default());
                INTERVAL
            }
            Err(error) => {
                tracing::warn!(%error, "thresholds of budgets can't be looked at; trying again");
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

#[cfg(test)]
mod tests;
