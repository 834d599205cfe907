//! Works the deliveries off: claims what is due, sends it with bounded concurrency, writes down what came of it. Run by
//! `app.rs` on the replica that leads the job; should two do it, they claim different deliveries.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use nemo_runtime::{clock, drain::DrainWatcher, metrics::Registry};
use nemo_types::Sealed;
use prometheus_client::metrics::{counter::Counter, family::Family};
use time::OffsetDateTime;

use super::{
    client::{Delivery, NotTaken, WebhookClient},
    seal_context,
    signature::SigningSecret,
};
use crate::{
    coordination::Election,
    sealing::Sealer,
    store::{
        Store, StoreError,
        webhooks::deliveries::{self, Attempt, Claimed},
    },
};

/// How often is looked for what is due.
const POLL: Duration = Duration::from_secs(1);
/// Requests at the same time.
const CONCURRENT: usize = 16;
/// Deliveries that are claimed at once.
const BATCH: i64 = 64;
/// Longer than all of a batch can take, so that nobody else sends the same meanwhile.
const LEASE: time::Duration = time::Duration::seconds(120);
/// The first pause after a failure, which doubles; and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(2 * 60 * 60));
/// How often old rows are removed, how many at once, and how old they are.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const PURGE_BATCH: i64 = 1000;
const KEPT_DAYS: i32 = 30;
/// Keys of events say what was told already, for longer than any window of a budget but the one without end.
const DEDUPE_DAYS: i32 = 800;

#[derive(Clone, Debug, Hash, PartialEq, Eq, prometheus_client::encoding::EncodeLabelSet)]
struct Labels {
    outcome: &'static str,
}

/// What became of attempts.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    attempts: Family<Labels, Counter>,
}

impl WebhookMetrics {
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        let attempts = metrics.attempts.clone();
        registry.register(|r| {
            let help = "Attempts to deliver an event to a webhook, by outcome: delivered, retried, failed";
            r.register("webhook_attempts", help, attempts);
        });
        metrics
    }

    fn count(&self, attempt: &Attempt<'_>) {
        let outcome = match (attempt.error, attempt.again_in) {
            ("", _) => "delivered",
            (_, Some(_)) => "retried",
            (_, None) => "failed",
        };
        self.attempts.get_or_create(&Labels { outcome }).inc();
    }
}

/// What the job works with.
#[derive(Clone)]
pub struct Courier {
    pub store: Store,
    pub sealer: Sealer,
    pub client: WebhookClient,
    pub metrics: WebhookMetrics,
}

impl Courier {
    /// Until drain.
    pub async fn run(self, mut election: Election, drain: DrainWatcher) {
        let mut purged: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                () = drain.signaled() => return,
                () = election.mine() => {}
            }
            // What was claimed and not sent when a drain starts comes again when its lease is over.
            let busy = tokio::select! {
                () = drain.signaled() => return,
                done = self.once() => done.unwrap_or_else(|error| {
                    tracing::warn!(%error, "webhooks wait: deliveries can't be read or written");
                    false
                }),
            };
            if purged.is_none_or(|at| at.elapsed() >= PURGE_EVERY) {
                purged = Some(tokio::time::Instant::now());
                if let Err(error) = self.purge().await {
                    tracing::warn!(%error, "old webhook deliveries stay until the next try");
                }
            }
            if !busy {
                tokio::select! {
                    () = drain.signaled() => return,
                    () = tokio::time::sleep(POLL) => {}
                }
            }
        }
    }

    /// Sends what is due. True: there may be more.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn once(&self) -> Result<bool, StoreError> {
        let mut tx = self.store.system().await?;
        let claimed = deliveries::claim(&mut tx, BATCH, LEASE).await?;
        tx.commit().await?;
        let more = !claimed.is_empty();
        // Owned, so that the futures borrow nothing.
        let send = |one: Claimed| {
            let courier = self.clone();
            async move { courier.deliver(&one).await }
        };
        let mut sending = stream::iter(claimed).map(send).buffer_unordered(CONCURRENT);
        let mut failed = None;
        while let Some(done) = sending.next().await {
            failed = done.err().or(failed);
        }
        failed.map_or(Ok(more), Err)
    }

    async fn deliver(&self, claimed: &Claimed) -> Result<(), StoreError> {
        let now = clock::unix_us() / 1_000_000;
        let sent = match self.secrets(claimed) {
            Some(secrets) => {
                let delivery = Delivery {
                    url: &claimed.url,
                    event_id: claimed.event_id,
                    unix_seconds: now,
                    body: &claimed.body,
                };
                self.client.send(&delivery, &secrets).await
            }
            None => Err(NotTaken::Connection("its secret can't be opened with the sealing keys".to_owned())),
        };
        let error = sent.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let status = sent.as_ref().map_or_else(NotTaken::status, |status| Some(*status));
        let again_in = sent.is_err().then(|| self.again_in(claimed)).flatten();
        let attempt = Attempt { status, error: &error, again_in };
        self.metrics.count(&attempt);
        let (webhook, delivery, attempts) = (claimed.webhook_id, claimed.id, claimed.attempts);
        match again_in {
            _ if error.is_empty() => tracing::debug!(%webhook, %delivery, attempts, "webhook delivered"),
            Some(wait) => {
                tracing::info!(%webhook, %delivery, attempts, error, again_in_s = wait.as_secs(), "webhook not taken");
            }
            None => tracing::warn!(%webhook, %delivery, attempts, error, "webhook given up"),
        }
        let mut tx = self.store.system().await?;
        deliveries::finish(&mut tx, claimed, &attempt).await?;
        tx.commit().await
    }

    /// `None`: a day is over.
    fn again_in(&self, claimed: &Claimed) -> Option<Duration> {
        let wait = pause(claimed.attempts, fastrand::f64());
        let now = OffsetDateTime::from_unix_timestamp(clock::unix_us() / 1_000_000).ok()?;
        (now + wait < claimed.give_up_at).then_some(wait)
    }

    fn secrets(&self, claimed: &Claimed) -> Option<Vec<SigningSecret>> {
        let context = seal_context(claimed.webhook_id);
        let open = |sealed: &Vec<u8>| {
            let bytes = self.sealer.open(&context, &Sealed::from_bytes(sealed.clone())).ok()?;
            SigningSecret::from_bytes(&bytes)
        };
        let current = open(&claimed.sealed)?;
        // The one before has only its last day left: without it the endpoint is still told.
        let previous = claimed.previous_sealed.as_ref().and_then(open);
        Some([current].into_iter().chain(previous).collect())
    }

    async fn purge(&self) -> Result<(), StoreError> {
        loop {
            let mut tx = self.store.system().await?;
            let removed = deliveries::purge(&mut tx, KEPT_DAYS, DEDUPE_DAYS, PURGE_BATCH).await?;
            tx.commit().await?;
            if removed < PURGE_BATCH.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// After the attempt of this number, from 1: doubles from two seconds to two hours, the half of it by chance.
fn pause(attempts: i32, random: f64) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(31);
    let bound = RETRY.0.saturating_mul(1 << doublings).min(RETRY.1);
    // Whole milliseconds: the database's intervals know no nanoseconds.
    let millis = bound.mul_f64(0.5 + random / 2.0).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
