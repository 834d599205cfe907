//! What a replica remembers between reports. Nothing but speed depends on it being there.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
};

use nemo_types::{BudgetId, LeaseId};
use tokio::time::{Duration, Instant};

use super::standby::Queue;
use crate::quota::{
    books::{Millis, WindowKey},
    desk::Terms,
};

/// How long a change of a budget's policies may take to count here.
const TERMS_TTL: Duration = Duration::from_secs(5);
/// Budgets, and windows, that are remembered; more are read again.
const MAX_REMEMBERED: usize = 100_000;
/// Leases that are remembered to be in order.
const MAX_LEASES: usize = 1_000_000;
/// For how long at most. A node whose lease was ended elsewhere hears of it so much later; it was counted all the while.
const LEASES_MS: Millis = 60_000;
/// Sessions look again at different times.
const SPREAD_MS: Millis = 20_000;

#[derive(Debug)]
pub(super) struct Memory {
    terms: Mutex<HashMap<BudgetId, (Terms, Instant)>>,
    /// Windows that have a row.
    made: Mutex<HashSet<WindowKey>>,
    /// By session.
    sessions: Mutex<HashMap<i64, SessionMemory>>,
    /// Windows that ended until then were seen to.
    pub(super) over_until: AtomicI64,
    pub(super) standby: Queue,
}

#[derive(Debug)]
struct SessionMemory {
    until: Millis,
    /// Leases that more can be granted to.
    in_order: HashSet<LeaseId>,
    /// Every transaction before this one was seen when new budgets were last looked for.
    horizon: Option<String>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            terms: Mutex::default(),
            made: Mutex::default(),
            sessions: Mutex::default(),
            over_until: AtomicI64::new(i64::MIN),
            standby: Queue::default(),
        }
    }

    /// Of budgets, the terms that are fresh; the others stay in `ids`.
    pub(super) fn fresh_terms(&self, ids: &mut Vec<BudgetId>) -> HashMap<BudgetId, Terms> {
        let now = Instant::now();
        let mut found = HashMap::with_capacity(ids.len());
        let terms = lock(&self.terms);
        ids.retain(|id| {
            let fresh = terms.get(id).filter(|(_, at)| now.duration_since(*at) < TERMS_TTL);
            fresh.is_none_or(|(it, _)| found.insert(*id, it.clone()).is_some())
        });
        found
    }

    pub(super) fn learn_terms(&self, read: &[Terms]) {
        let now = Instant::now();
        let mut terms = lock(&self.terms);
        if terms.len() + read.len() > MAX_REMEMBERED {
            terms.clear();
        }
        terms.extend(read.iter().map(|it| (it.budget, (it.clone(), now))));
    }

    pub(super) fn is_made(&self, key: WindowKey) -> bool {
        lock(&self.made).contains(&key)
    }

    /// These windows have committed rows.
    pub(super) fn made<'a>(&self, keys: impl IntoIterator<Item = &'a WindowKey>) {
        let mut made = lock(&self.made);
        if made.len() > MAX_REMEMBERED {
            made.clear();
        }
        made.extend(keys);
    }

    /// Leaves those leases of a session that are not known to be in order.
    pub(super) fn retain_unknown(&self, session: i64, now: Millis, ids: &mut Vec<LeaseId>) {
        let sessions = lock(&self.sessions);
        if let Some(known) = sessions.get(&session).filter(|it| now < it.until) {
            ids.retain(|id| !known.in_order.contains(id));
        }
    }

    /// These leases of a session are committed, and more can be granted to them.
    pub(super) fn in_order(&self, session: i64, now: Millis, ids: impl IntoIterator<Item = LeaseId>) {
        let mut sessions = lock(&self.sessions);
        fresh(&mut sessions, session, now).in_order.extend(ids);
        if sessions.values().map(|it| it.in_order.len()).sum::<usize>() > MAX_LEASES {
            sessions.clear();
        }
    }

    /// These leases of a session have ended.
    pub(super) fn ended(&self, session: i64, ids: impl IntoIterator<Item = LeaseId>) {
        if let Some(known) = lock(&self.sessions).get_mut(&session) {
            for id in ids {
                known.in_order.remove(&id);
            }
        }
    }

    /// Leases have ended.
    pub(super) fn doubt_leases(&self) {
        lock(&self.sessions).clear();
    }

    pub(super) fn horizon(&self, session: i64, now: Millis) -> Option<String> {
        lock(&self.sessions).get(&session).filter(|it| now < it.until)?.horizon.clone()
    }

    /// New budgets have been looked for, with everything before `horizon` in sight.
    pub(super) fn looked(&self, session: i64, now: Millis, horizon: String) {
        fresh(&mut lock(&self.sessions), session, now).horizon = Some(horizon);
    }
}

fn fresh(sessions: &mut HashMap<i64, SessionMemory>, session: i64, now: Millis) -> &mut SessionMemory {
    // Those that left are not missed.
    if !sessions.contains_key(&session) {
        sessions.retain(|_, it| now < it.until);
    }
    let until = now + LEASES_MS - session.wrapping_mul(7919).rem_euclid(SPREAD_MS);
    let new = || SessionMemory { until, in_order: HashSet::new(), horizon: None };
    let memory = sessions.entry(session).or_insert_with(new);
    if memory.until <= now {
        *memory = new();
    }
    memory
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
