//! Jobs that one replica should do for all: whoever leads one does it. Called by `app.rs` for the jobs that it starts.
//!
//! Leading is a saving, not a safeguard: every such job is safe to be done twice, by locks or conditions in the
//! database. So when nobody can say who leads, because the coordinator is away, everybody does it rather than nobody.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nemo_runtime::{TaskGroup, backoff::Backoff, drain::DrainWatcher};
use tokio::sync::watch;

use super::{Coordinator, HOLD_TTL, Unavailable, leader_key};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// What this replica is to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    /// The coordinator does not answer.
    Unknown,
}

/// A job's election, as this replica sees it. A clone sees the same.
#[derive(Clone, Debug)]
pub struct Election {
    role: watch::Receiver<Role>,
}

impl Election {
    /// Stands for the job until drain.
    pub fn stand(
        coordinator: Arc<dyn Coordinator>,
        (job, candidate): (&'static str, String),
        tasks: &TaskGroup,
        drain: DrainWatcher,
    ) -> Self {
        let (role, seen) = watch::channel(Role::Follower);
        tasks.spawn("election", async move {
            tokio::select! {
                () = drain.signaled() => {}
                () = campaign(coordinator, job, &candidate, &role) => {}
            }
        });
        Self { role: seen }
    }

    /// For a job that nobody else could do.
    pub fn unopposed() -> Self {
        // The last value of a channel outlives its sender.
        Self { role: watch::channel(Role::Leader).1 }
    }

    pub fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// Whether this replica should do the job now.
    pub fn is_mine(&self) -> bool {
        self.role() != Role::Follower
    }

    /// Resolves when this replica should do the job; at once when it should already.
    pub async fn mine(&mut self) {
        if self.role.wait_for(|role| *role != Role::Follower).await.is_err() {
            // Nobody stands any more: a drain.
            std::future::pending::<()>().await;
        }
    }
}

async fn campaign(
    coordinator: Arc<dyn Coordinator>,
    job: &'static str,
    candidate: &str,
    role: &watch::Sender<Role>,
) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let led = async {
            let value = Bytes::copy_from_slice(candidate.as_bytes());
            if let Some(hold) = coordinator.hold(&leader_key(job), value, HOLD_TTL).await? {
                return Ok(hold);
            }
            role.send_replace(Role::Follower);
            coordinator.campaign(job, candidate).await
        };
        match led.await {
            Ok(mut hold) => {
                backoff.reset();
                tracing::info!(job, "this replica leads");
                role.send_replace(Role::Leader);
                hold.lost().await;
                tracing::info!(job, "this replica leads no more");
            }
            Err(Unavailable(error)) => {
                tracing::debug!(job, error, "nobody can say who leads");
                role.send_replace(Role::Unknown);
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}
