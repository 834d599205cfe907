//! What is done about credits again and again: tells organizations whose balance fell below what they set, once for each
//! fall, and forgets old events of payments. Run by `app.rs` on the replica that leads the job; should two do it, the
//! rows tell each fall once.

use std::time::Duration;

use nemo_runtime::drain::DrainWatcher;

use crate::{
    coordination::Election,
    store::{Store, StoreError, credits, payments},
};

/// How long a low balance can go untold.
const EVERY: Duration = Duration::from_secs(2);
/// Crossings that are told at once.
const BATCH: i64 = 500;
const PURGE_EVERY: Duration = Duration::from_secs(3600);
const PURGE_BATCH: i64 = 1000;
/// Providers repeat an event for some days.
const EVENT_DAYS: i32 = 180;

/// Until drain.
pub async fn run(store: Store, mut election: Election, drain: DrainWatcher) {
    let mut purged: Option<tokio::time::Instant> = None;
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = election.mine() => {}
        }
        if let Err(error) = look(&store).await {
            tracing::warn!(%error, "balances can't be looked at");
        }
        if purged.is_none_or(|at| at.elapsed() >= PURGE_EVERY) {
            purged = Some(tokio::time::Instant::now());
            if let Err(error) = purge(&store).await {
                tracing::warn!(%error, "old events of payments stay until the next try");
            }
        }
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Tells what fell below since the last time.
///
/// # Errors
/// When the database can't be reached.
pub async fn look(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.system().await?;
    let crossings = credits::crossings(&mut tx, BATCH).await?;
    for crossing in &crossings {
        credits::cross(&mut tx, crossing).await?;
    }
    tx.commit().await
}

async fn purge(store: &Store) -> Result<(), StoreError> {
    loop {
        let mut tx = store.system().await?;
        let removed = payments::purge(&mut tx, EVENT_DAYS, PURGE_BATCH).await?;
        tx.commit().await?;
        if removed < PURGE_BATCH.unsigned_abs() {
            return Ok(());
        }
    }
}
