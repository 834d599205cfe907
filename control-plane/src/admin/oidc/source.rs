//! Keeps an issuer's keys: fetched in the background, at intervals, and sooner when a token names a key that is not
//! there. Keys that were fetched once stay usable when the issuer can't be reached.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{discovery::IssuerClient, keys::KeySet};

/// How long keys are good without asking again. A key that is withdrawn is believed for so long.
const REFRESH: Duration = Duration::from_secs(10 * 60);
/// The issuer is not asked more often, whatever tokens come in.
const LEAST_BETWEEN: Duration = Duration::from_secs(5);
/// First and longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a request waits for keys that are being fetched.
const PATIENCE: Duration = Duration::from_secs(3);

/// The newest keys, and how the last attempt went.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) keys: Option<Arc<KeySet>>,
    /// The last attempt failed.
    pub(super) failing: bool,
    /// When the last attempt was over.
    tried: Option<Instant>,
}

#[derive(Clone)]
pub(super) struct KeySource {
    client: Arc<IssuerClient>,
    known: watch::Sender<Known>,
    wanted: Arc<Notify>,
}

impl KeySource {
    pub(super) fn new(client: IssuerClient) -> Self {
        let known = watch::Sender::new(Known::default());
        Self { client: Arc::new(client), known, wanted: Arc::default() }
    }

    pub(super) fn current(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Asks for newer keys and waits for them a little. When the issuer was asked just now, that was new enough.
    pub(super) async fn newer_than(&self, seen: &Known) -> Known {
        let mut changes = self.known.subscribe();
        let now = changes.borrow_and_update().clone();
        if now.tried != seen.tried {
            return now;
        }
        // Failures are repeated soon by themselves, and nobody should wait for each of them.
        if now.tried.is_some_and(|at| at.elapsed() < LEAST_BETWEEN) {
            return now;
        }
        self.wanted.notify_one();
        let _late_or_closed = tokio::time::timeout(PATIENCE, changes.changed()).await;
        self.current()
    }

    /// Fetches for ever.
    pub(super) async fn run(&self) {
        let mut pause = RETRY.0;
        loop {
            let fetched = self.client.fetch().await;
            let was_failing = self.known.borrow().failing;
            let issuer = self.client.issuer();
            let wait = match fetched {
                Ok(keys) => {
                    if was_failing || self.known.borrow().keys.is_none() {
                        tracing::info!(issuer, keys = keys.len(), "tokens of the OIDC issuer can be checked");
                    }
                    let keys = Some(Arc::new(keys));
                    self.known.send_replace(Known { keys, failing: false, tried: Some(Instant::now()) });
                    pause = RETRY.0;
                    REFRESH
                }
                Err(error) => {
                    if !was_failing {
                        tracing::warn!(issuer, %error, "can't fetch the OIDC issuer's keys; trying again");
                    }
                    self.known.send_modify(|known| {
                        known.failing = true;
                        known.tried = Some(Instant::now());
                    });
                    let wait = pause;
                    pause = (pause * 2).min(RETRY.1);
                    wait
                }
            };
            self.rest(wait).await;
        }
    }

    /// Until it is time for the next attempt, or somebody wants one and the last is not too near.
    async fn rest(&self, wait: Duration) {
        let begin = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.wanted.notified() => tokio::time::sleep_until(begin + LEAST_BETWEEN.min(wait)).await,
        }
    }
}
