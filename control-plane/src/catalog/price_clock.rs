//! Puts scheduled prices into effect when their time has come. One replica does it at a time; started by `app.rs`. The
//! change goes to the nodes like every other: the database records it, the publisher sends it.

use std::time::Duration;

use nemo_runtime::drain::DrainWatcher;

use crate::{
    coordination::Election,
    store::{Store, StoreError, prices},
};

/// Between two looks: how late a price takes effect at most, beside its way to the nodes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Puts into effect what is due; returns the ids of the prices that hold now.
///
/// # Errors
/// When the database can't be reached.
pub async fn run_once(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut tx = store.system().await?;
    if !prices::is_due(&mut tx).await? {
        return Ok(Vec::new());
    }
    let begun = prices::apply_due(&mut tx).await?;
    tx.commit().await?;
    Ok(begun)
}

/// Looks every second, until drain, while this replica leads the job or nobody can say who does.
pub async fn run(store: Store, mut election: Election, drain: DrainWatcher) {
    loop {
        if !election.is_mine() {
            tokio::select! {
                () = drain.signaled() => return,
                () = election.mine() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            continue;
        }
        tokio::select! {
            () = drain.signaled() => return,
            begun = run_once(&store) => match begun {
                Ok(prices) => {
                    for price in prices {
                        tracing::info!(price, "a scheduled price is in effect");
                    }
                }
                Err(error) => tracing::warn!(%error, "scheduled prices are looked for again in a second"),
            },
        }
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
