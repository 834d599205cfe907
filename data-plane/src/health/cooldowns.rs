//! What the control plane says is cooling down, swapped whole. Held by [`super::HealthBoard`], written by
//! `control/cooldown_stream.rs`; a node that loses the control plane keeps it until its entries run out.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use nemo_types::{DeploymentId, OrgId};

use super::breaker::{Cause, Millis};

/// Entries that are held; the control plane keeps fewer.
const MAX_ENTRIES: usize = 65_536;

/// Whom a cooldown keeps away from which deployment; no organization: all of them.
pub type Scope = (Option<OrgId>, DeploymentId);

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    pub scope: Scope,
    pub until: Millis,
    pub cause: Cause,
}

type Entries = HashMap<Scope, (Millis, Cause), ahash::RandomState>;

#[derive(Debug, Default)]
pub(super) struct Cooldowns {
    entries: ArcSwap<Entries>,
    /// One writer at a time: each must see what the one before wrote.
    writing: Mutex<()>,
}

impl Cooldowns {
    /// The longer of what keeps this organization away and what keeps all away.
    pub(super) fn remaining(
        &self,
        org: OrgId,
        deployment: DeploymentId,
        now: Millis,
    ) -> Option<(u64, Cause)> {
        let entries = self.entries.load();
        let found = |org| entries.get(&(org, deployment)).copied();
        let (until, cause) = match (found(Some(org)), found(None)) {
            (Some(own), Some(all)) => {
                if own.0 >= all.0 {
                    own
                } else {
                    all
                }
            }
            (own, all) => own.or(all)?,
        };
        (now < until).then(|| (until - now, cause))
    }

    /// Replaces everything.
    pub(super) fn replace(&self, all: &[Cooldown], trouble: &AtomicUsize) {
        self.change(trouble, |entries| {
            entries.clear();
            add(entries, all);
        });
    }

    /// What is longer wins.
    pub(super) fn set(&self, more: &[Cooldown], trouble: &AtomicUsize) {
        self.change(trouble, |entries| add(entries, more));
    }

    pub(super) fn clear(&self, scopes: &[Scope], trouble: &AtomicUsize) {
        self.change(trouble, |entries| {
            for scope in scopes {
                entries.remove(scope);
            }
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.load().len()
    }

    /// Forgets what is over.
    pub(super) fn sweep(&self, now: Millis, trouble: &AtomicUsize) {
        if self.entries.load().values().any(|(until, _)| *until <= now) {
            self.change(trouble, |entries| entries.retain(|_, (until, _)| *until > now));
        }
    }

    fn change(&self, trouble: &AtomicUsize, change: impl FnOnce(&mut Entries)) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.entries.load().as_ref().clone();
        let before = entries.len();
        change(&mut entries);
        let after = entries.len();
        // Counted before it can be seen: a request that misses the entry is one that came before it.
        trouble.fetch_add(after, Relaxed);
        self.entries.store(Arc::new(entries));
        trouble.fetch_sub(before, Relaxed);
    }
}

fn add(entries: &mut Entries, more: &[Cooldown]) {
    for Cooldown { scope, until, cause } in more {
        if let Some(held) = entries.get_mut(scope) {
            if *until > held.0 {
                *held = (*until, *cause);
            }
        } else if entries.len() < MAX_ENTRIES {
            entries.insert(*scope, (*until, *cause));
        }
    }
}
