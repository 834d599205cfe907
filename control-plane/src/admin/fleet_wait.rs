//! `wait=fleet`: an answer that comes when every live node serves what was written. Called by both faces of the admin
//! API after a write.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Admin, AdminError, ErrorKind};
use crate::fleet::{Applied, NotApplied, applied_everywhere, renew_own};

/// Request metadata of gRPC, for what `?wait=` is over REST.
pub const WAIT: &str = "x-nemo-wait";
/// The value of either.
pub const FLEET: &str = "fleet";
/// How long a write is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everyone who waits asks the database again and again: so many at a time.
static WAITING: Semaphore = Semaphore::const_new(32);

impl Admin {
    /// Waits until every live node of the installation has applied `config_version`. The write itself is done,
    /// whatever comes of this.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] that names the nodes which lack it, or at once why it is refused by some of them
    /// or can't be sent to any.
    pub async fn wait_for_fleet(
        &self,
        config_version: u64,
        patience: Duration,
    ) -> Result<Applied, AdminError> {
        let _permit = WAITING.try_acquire().map_err(|_| {
            let message =
                format!("written as config version {config_version}, but too many wait for the fleet");
            AdminError::new(ErrorKind::TooManyRequests, message)
        })?;
        if let Some(nodes) = &self.fleet {
            renew_own(nodes, &self.store).await?;
        }
        let waited = applied_everywhere(&self.store, &self.unpublishable, config_version, patience).await;
        waited.map_err(|error| match error {
            NotApplied::Store(error) => error.into(),
            error => {
                let message = format!("written as config version {config_version}, but {error}");
                AdminError::new(ErrorKind::DeadlineExceeded, message)
            }
        })
    }
}

/// Whether a call over gRPC wants to wait. Asked before anything is written.
///
/// # Errors
/// When something else is to be waited for.
pub fn asked(wait: Option<&[u8]>) -> Result<bool, AdminError> {
    match wait {
        None => Ok(false),
        Some(what) if what == FLEET.as_bytes() => Ok(true),
        Some(_) => Err(AdminError::invalid(WAIT, "can't be waited for", FLEET)),
    }
}

#[cfg(test)]
mod tests {
    use nemo_proto::common::NodeInfo;
    use tokio::sync::watch;

    use super::*;
    use crate::{admin::tests::world, fleet::Registry, store::fleet_nodes};

    /// Before anything is written: a wait that is not understood must not leave a write behind.
    #[test]
    fn only_the_fleet_can_be_waited_for() {
        assert!(!asked(None).unwrap() && asked(Some(b"fleet")).unwrap());
        let error = asked(Some(b"planet")).unwrap_err();
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::InvalidArgument, Some(WAIT)));
    }

    #[tokio::test]
    async fn a_wait_that_is_too_long_names_the_nodes_and_says_that_the_write_is_done() {
        let world = world().await;
        let lease = fleet_nodes::lease("slow", 1);
        fleet_nodes::renew(&world.store.store, &[lease]).await.unwrap();
        let error = world.admin.wait_for_fleet(7, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::DeadlineExceeded);
        assert!(error.message.contains("config version 7") && error.message.contains("node slow"), "{error}");
        assert_eq!(world.admin.wait_for_fleet(1, Duration::ZERO).await.unwrap().nodes, 1);
    }

    /// Its lease is written by somebody else, sooner or later.
    #[tokio::test]
    async fn a_node_that_has_just_subscribed_is_waited_for() {
        let world = world().await;
        let registry = Registry::new(watch::channel(Default::default()).1);
        let node = NodeInfo { node_id: "new".into(), epoch: 1, ..NodeInfo::default() };
        let _connection = registry.connect(&node, 3).unwrap();
        let admin = Admin::new(world.store.store.clone(), world.keyring.clone());
        let admin = admin.with_fleet(registry, watch::channel(None).1);
        let error = admin.wait_for_fleet(4, Duration::ZERO).await.unwrap_err();
        assert!(error.message.contains("node new"), "{error}");
        assert_eq!(admin.wait_for_fleet(3, Duration::ZERO).await.unwrap().nodes, 1);
    }
}
