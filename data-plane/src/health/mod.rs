//! Health of upstreams: which deployments an organization's requests keep away from for a while, and how busy, fast and
//! reliable each deployment is.
//!
//! - [`breaker`]: the state machine of one (organization, deployment), pure; [`pairs`] holds those that failed lately
//! - [`cooldowns`]: what the control plane says for the whole fleet
//! - [`stats`]: numbers per deployment that rank candidates
//! - [`attempt`]: one try under way, which feeds both; [`view`]: what routing reads
//!
//! The node's own breaker needs nobody: without the control plane, or with its etcd gone, it is all there is, and no
//! request fails by that (I11). Called by `pipeline` (attempts), `routing` (the view) and `control/cooldown_stream.rs`.

pub mod attempt;
pub mod breaker;
pub mod cooldowns;
pub mod metrics;
pub mod pairs;
pub mod stats;
#[cfg(test)]
mod tests;
pub mod view;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nemo_runtime::drain::DrainWatcher;
use nemo_snapshot::Deployment;
use nemo_types::{DeploymentId, OrgId};
use tokio::sync::Notify;

pub use attempt::Attempt;
pub use breaker::{BreakerPolicy, Cause, FailureClass, Millis};
pub use cooldowns::{Cooldown, Scope};
pub use metrics::HealthMetrics;
pub use pairs::Observation;
pub use stats::DeploymentStats;
pub use view::LiveView;

use self::{
    breaker::Ticket,
    cooldowns::Cooldowns,
    pairs::{Failure, PairKey, Pairs},
};
use crate::config::Live;

/// Between two looks for what is over.
const SWEEP: Duration = Duration::from_secs(1);

/// Breakers and cooldowns of a node. Clones share them.
#[derive(Clone, Debug)]
pub struct HealthBoard {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Pairs and cooldowns that are held: 0 says that no request has to look any further.
    trouble: AtomicUsize,
    pairs: Pairs,
    cooldowns: Cooldowns,
    /// A breaker has opened that the control plane does not know of.
    opened: Notify,
    metrics: HealthMetrics,
    /// Milliseconds are counted from here.
    epoch: Instant,
    /// The time, at most [`SWEEP`] ago: enough for statistics over minutes, and cheaper than a look at the clock.
    about: AtomicU64,
}

/// No attempt may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub remaining_ms: u64,
    pub cause: Cause,
}

impl Default for HealthBoard {
    fn default() -> Self {
        Self::new(HealthMetrics::default())
    }
}

impl HealthBoard {
    pub fn new(metrics: HealthMetrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                trouble: AtomicUsize::new(0),
                pairs: Pairs::default(),
                cooldowns: Cooldowns::default(),
                opened: Notify::new(),
                metrics,
                epoch: Instant::now(),
                about: AtomicU64::new(0),
            }),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        u64::try_from(self.inner.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For statistics.
    fn about_now(&self) -> Millis {
        self.inner.about.load(Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.inner.trouble.load(Relaxed) == 0
    }

    /// The health of this snapshot's deployments, as that organization's requests see it now.
    pub fn view<'a>(&'a self, live: &'a Live, org: OrgId) -> LiveView<'a> {
        LiveView::new(self, live, org)
    }

    /// Begins an attempt: counts it in flight, and takes the probe of a breaker whose cooldown is over.
    ///
    /// # Errors
    /// [`Refused`] when the deployment is cooling down, or somebody else's probe is under way: since the decision was
    /// made, something has failed.
    pub fn begin(&self, live: &Live, org: OrgId, deployment: &Arc<Deployment>) -> Result<Attempt, Refused> {
        let pair = (org, deployment.id);
        let ticket = self.admit(&pair)?;
        let stats = live.upstreams.get(deployment.slot).map(|it| it.stats.clone()).unwrap_or_default();
        stats.begun(self.about_now());
        let (board, policy) = (self.clone(), BreakerPolicy::of(live.snapshot.routing.policy(org)));
        Ok(Attempt { board, stats, pair, ticket, policy, first_byte_us: None, judged: false })
    }

    fn admit(&self, pair: &PairKey) -> Result<Ticket, Refused> {
        if self.is_quiet() {
            return Ok(Ticket { generation: 0, probe: false });
        }
        let now = self.now();
        if let Some((remaining_ms, cause)) = self.inner.cooldowns.remaining(pair.0, pair.1, now) {
            return Err(Refused { remaining_ms, cause });
        }
        let refused = |(remaining_ms, cause)| Refused { remaining_ms, cause };
        self.inner.pairs.begin(pair, now).map_err(refused)
    }

    fn succeeded(&self, pair: &PairKey, ticket: Ticket) {
        if !self.is_quiet() {
            self.inner.pairs.succeeded(pair, ticket, self.now());
        }
    }

    fn failed(&self, failure: Failure) {
        let (pair, class, now) = (failure.pair, failure.class, self.now());
        if self.inner.pairs.failed(failure, now, fastrand::u64(..), &self.inner.trouble) {
            self.inner.metrics.breaker_openings.inc();
            self.inner.opened.notify_one();
            tracing::info!(
                org = %pair.0,
                deployment = %pair.1,
                class = class.label(),
                hint_ms = failure.hint_ms,
                "a deployment cools down for this organization"
            );
        }
    }

    fn released(&self, pair: &PairKey, ticket: Ticket) {
        self.inner.pairs.released(pair, ticket, self.now());
    }

    /// Resolves when a breaker has opened that [`HealthBoard::observations`] has not told of.
    pub async fn opened(&self) {
        self.inner.opened.notified().await;
    }

    /// What is to be told since the last call; `all`: also breakers that are open since longer.
    pub fn observations(&self, all: bool) -> Vec<Observation> {
        if self.is_quiet() {
            return Vec::new();
        }
        self.inner.pairs.observations(self.now(), all)
    }

    /// The control plane's board, whole.
    pub fn replace(&self, all: &[(Scope, Duration, Cause)]) {
        self.inner.cooldowns.replace(&self.received(all), &self.inner.trouble);
        self.count_cooldowns();
    }

    /// What has come to the control plane's board, with what remains of it.
    pub fn set(&self, more: &[(Scope, Duration, Cause)]) {
        let more = self.received(more);
        self.inner.cooldowns.set(&more, &self.inner.trouble);
        self.count_cooldowns();
    }

    /// What has left the control plane's board; `lifted`: before its time, so that this node's own breakers close.
    pub fn clear(&self, scopes: &[Scope], lifted: bool) {
        self.inner.cooldowns.clear(scopes, &self.inner.trouble);
        self.count_cooldowns();
        if lifted {
            scopes.iter().for_each(|(org, deployment)| self.inner.pairs.reset(*org, *deployment));
        }
    }

    /// Deadlines by this node's clock, from now on (I13). What failed elsewhere is probed here as well, afterwards.
    fn received(&self, entries: &[(Scope, Duration, Cause)]) -> Vec<Cooldown> {
        let now = self.now();
        let entry = |(scope, remaining, cause): &(Scope, Duration, Cause)| {
            let until = now.saturating_add(u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX));
            if let (Some(org), Cause::Failure(class)) = (scope.0, *cause) {
                self.inner.pairs.cool((org, scope.1), until, class, now, &self.inner.trouble);
            }
            Cooldown { scope: *scope, until, cause: *cause }
        };
        entries.iter().map(entry).collect()
    }

    fn sweep(&self) {
        let now = self.now();
        let open = self.inner.pairs.sweep(now, &self.inner.trouble);
        self.inner.cooldowns.sweep(now, &self.inner.trouble);
        self.inner.metrics.breakers_open.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.count_cooldowns();
    }

    fn count_cooldowns(&self) {
        self.inner.metrics.cooldowns.set(i64::try_from(self.inner.cooldowns.len()).unwrap_or(i64::MAX));
    }

    /// What remains for this pair, of breaker and cooldowns: the longer.
    pub fn remaining(&self, org: OrgId, deployment: DeploymentId) -> Option<(Duration, Cause)> {
        match self.admission(&(org, deployment), self.now()) {
            breaker::Admission::Cooling { remaining_ms, cause } => {
                Some((Duration::from_millis(remaining_ms), cause))
            }
            breaker::Admission::Ready | breaker::Admission::Probe => None,
        }
    }

    fn admission(&self, pair: &PairKey, now: Millis) -> breaker::Admission {
        use breaker::Admission;
        if self.is_quiet() {
            return Admission::Ready;
        }
        let own = self.inner.pairs.admission(pair, now);
        match (self.inner.cooldowns.remaining(pair.0, pair.1, now), own) {
            (Some((fleet, _)), Admission::Cooling { remaining_ms, .. }) if remaining_ms >= fleet => own,
            (Some((remaining_ms, cause)), _) => Admission::Cooling { remaining_ms, cause },
            (None, own) => own,
        }
    }
}

/// Forgets what is over, and keeps the time for statistics, until drain.
pub async fn run(board: HealthBoard, drain: DrainWatcher) {
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        board.inner.about.store(board.now(), Relaxed);
        if !board.is_quiet() || board.inner.metrics.breakers_open.get() != 0 {
            board.sweep();
        }
    }
}
