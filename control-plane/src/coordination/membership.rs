//! Which nodes live, over all replicas: each holds a key for every node that is connected to it. Who waits for the whole
//! fleet goes by the leases in the database (`fleet/leases.rs`), which are written with what they speak of; this is for
//! those who only want to know how many there are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use nemo_runtime::drain::DrainWatcher;

use super::{Coordinator, HOLD_TTL, Hold};
use crate::{cooldown::value::NODES, fleet::Registry};

const LOOK: Duration = Duration::from_secs(1);

/// Keeps the members of this replica until drain.
pub async fn run(
    coordinator: Arc<dyn Coordinator>,
    registry: Registry,
    replica: String,
    drain: DrainWatcher,
) {
    let mut held = HashMap::new();
    loop {
        tokio::select! {
            () = drain.signaled() => return,
            () = async {
                tokio::time::sleep(LOOK).await;
                keep(&*coordinator, &registry.connected(), &replica, &mut held).await;
            } => {}
        }
    }
}

/// Holds what is connected, and lets go of the others.
async fn keep(
    coordinator: &dyn Coordinator,
    connected: &[String],
    replica: &str,
    held: &mut HashMap<String, Hold>,
) {
    held.retain(|node, hold| connected.contains(node) && !hold.is_lost());
    for node in connected.iter().filter(|node| !held.contains_key(*node)).cloned().collect::<Vec<_>>() {
        let value = Bytes::copy_from_slice(replica.as_bytes());
        match coordinator.hold(&format!("{NODES}{node}"), value, HOLD_TTL).await {
            // It was connected to another replica, which will notice.
            Ok(None) => {}
            Ok(Some(hold)) => drop(held.insert(node, hold)),
            Err(error) => {
                tracing::debug!(%error, "members are held when the coordinator answers");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::LocalCoordinator;

    #[tokio::test]
    async fn a_node_is_a_member_as_long_as_it_is_connected_somewhere() {
        let coordinator = LocalCoordinator::default();
        let members = async || coordinator.list(NODES).await.unwrap().entries.len();
        let (mut first, mut second) = (HashMap::new(), HashMap::new());
        let (a, b) = ("a".to_owned(), "b".to_owned());
        keep(&coordinator, &[a.clone(), b.clone()], "one", &mut first).await;
        assert_eq!(members().await, 2);
        keep(&coordinator, std::slice::from_ref(&b), "two", &mut second).await;
        assert!(second.is_empty(), "one replica holds it");
        keep(&coordinator, std::slice::from_ref(&a), "one", &mut first).await;
        assert_eq!(members().await, 1);
        keep(&coordinator, std::slice::from_ref(&b), "two", &mut second).await;
        assert_eq!((members().await, second.len()), (2, 1));
    }
}
