//! The jobs of quota: what time does to leases and rolling windows, and the exchange of demand for rates between
//! replicas. Started by `app.rs`.

use nemo_runtime::drain::DrainWatcher;
use tokio::time::Duration;

use super::{
    bank::{Bank as _, BankError, Expired},
    metrics::QuotaMetrics,
    rates::Rates,
};
use crate::{
    coordination::Election,
    store::{Store, leases::SqlBank, rate_demand},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Until the next look when there was something to do: there may be more.
const AGAIN: Duration = Duration::from_millis(50);
/// Looks between two sums of what is out.
const SUMS_EVERY: u32 = 3;
/// How often replicas exchange demand, and how often they repeat what has not changed.
const EXCHANGE: Duration = Duration::from_secs(2);
const REPEAT_EVERY: u32 = 5;

/// Expires leases until drain, while this replica leads the job or nobody can say who does. Two at it would do no harm.
pub async fn run(bank: SqlBank, metrics: QuotaMetrics, mut election: Election, drain: DrainWatcher) {
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = election.mine() => {}
        }
        let done = tokio::select! {
            () = drain.signaled() => return,
            done = look(&bank, &metrics, looks.is_multiple_of(SUMS_EVERY)) => done,
        };
        looks = looks.wrapping_add(1);
        let pause = match done {
            Ok(expired) if expired != Expired::default() => AGAIN,
            Ok(_) => INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "lost leases are looked for again later");
                INTERVAL
            }
        };
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(bank: &SqlBank, metrics: &QuotaMetrics, sums: bool) -> Result<Expired, BankError> {
    let expired = bank.expire().await?;
    metrics.expired(&expired);
    if expired.held > 0 || expired.closed > 0 {
        tracing::info!(
            lost = expired.held,
            closed = expired.closed,
            forfeited_nanos = expired.forfeited,
            "leases of lost nodes"
        );
    }
    if sums {
        let (outstanding, starved) = bank.sums().await?;
        metrics.stands(outstanding, starved);
    }
    Ok(expired)
}

/// Tells other replicas what this one's nodes want of rate limits, and hears what theirs do, until drain.
pub async fn exchange(store: Store, rates: Rates, drain: DrainWatcher) {
    let mut rounds = 0_u32;
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(EXCHANGE) => {}
        }
        let own = rates.take_changed(rounds.is_multiple_of(REPEAT_EVERY));
        rounds = rounds.wrapping_add(1);
        let exchanged = tokio::select! {
            () = drain.signaled() => return,
            exchanged = rate_demand::exchange(&store, &own) => exchanged,
        };
        match exchanged {
            Ok(all) => rates.heard(all),
            Err(error) => tracing::debug!(%error, "demand for rates is exchanged again later"),
        }
        rates.sweep();
    }
}
