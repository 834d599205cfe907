//! What a process still waits for before it may receive traffic. Asked by `/readyz` ([`crate::ops_server`]).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Shared by everything that must be ready first.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<BTreeMap<&'static str, usize>>,
    draining: AtomicBool,
}

/// One thing that is not ready yet. [`Guard::ready`] or dropping it says that it is.
#[derive(Debug)]
#[must_use = "dropping the guard marks it ready"]
pub struct Guard {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something to wait for. The same name may be registered several times.
    pub fn register(&self, name: &'static str) -> Guard {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending.entry(name).or_default() += 1;
        Guard { shared: Arc::clone(&self.shared), name }
    }

    /// What is not ready, in alphabetical order.
    pub fn pending(&self) -> Vec<&'static str> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// From now on never ready again.
    pub fn set_draining(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.pending().is_empty()
    }
}

impl Guard {
    /// Says that this is ready now.
    pub fn ready(self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pending.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                pending.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_everything_registered_has_become_ready() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (snapshot, listener) = (readiness.register("snapshot"), readiness.clone().register("listener"));
        let again = readiness.register("snapshot");
        assert_eq!(readiness.pending(), ["listener", "snapshot"]);
        snapshot.ready();
        drop(listener);
        assert_eq!(readiness.pending(), ["snapshot"]);
        again.ready();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_draining_process_is_never_ready() {
        let readiness = Readiness::new();
        readiness.set_draining();
        assert!(readiness.pending().is_empty() && !readiness.is_ready());
    }
}
