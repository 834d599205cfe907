//! The coordinator of a single replica: everything in memory, for as long as the process. The same promises as etcd's,
//! kept by one lock; what is held ends with the process, so there is nothing to lose.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Coordinator, Ended, Entry, Event, Expect, Hold, Listing, Put, Unavailable, Watch};

/// Events that are kept for watchers; who is further behind lists again.
const LOG: usize = 4096;
/// Keys that are held.
const MAX_KEYS: usize = 200_000;

#[derive(Debug)]
struct Value {
    value: Bytes,
    revision: u64,
    expires: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    keys: BTreeMap<String, Value>,
    /// By revision; each write has one.
    log: VecDeque<(u64, Event)>,
    /// Newest revision that is no longer in the log.
    forgotten: u64,
    /// Nothing expires before.
    soonest: Option<Instant>,
}

impl State {
    /// What is over at `now` is deleted, as if somebody had done it.
    fn expire(&mut self, now: Instant) {
        if self.soonest.is_none_or(|at| at > now) {
            return;
        }
        let over = |value: &Value| value.expires.is_some_and(|at| at <= now);
        let keys: Vec<_> =
            self.keys.iter().filter(|(_, value)| over(value)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.remove(key));
        self.soonest = self.keys.values().filter_map(|value| value.expires).min();
    }

    fn remove(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            let revision = self.next_revision();
            self.note(revision, Event::Deleted { key: key.to_owned(), revision });
        }
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn note(&mut self, revision: u64, event: Event) {
        if self.log.len() >= LOG
            && let Some((oldest, _)) = self.log.pop_front()
        {
            self.forgotten = oldest;
        }
        self.log.push_back((revision, event));
    }

    fn entry(&self, key: &str, now: Instant) -> Option<Entry> {
        let held = self.keys.get(key)?;
        let ttl_left = held.expires.map(|at| at.saturating_duration_since(now));
        Some(Entry { key: key.to_owned(), value: held.value.clone(), revision: held.revision, ttl_left })
    }

    fn meets(&self, key: &str, expect: Expect) -> bool {
        let held = self.keys.get(key).map(|held| held.revision);
        match expect {
            Expect::Anything => true,
            Expect::Absent => held.is_none(),
            Expect::Revision(revision) => held == Some(revision),
        }
    }
}

/// See the module. A clone is another handle on the same.
#[derive(Clone, Debug)]
pub struct LocalCoordinator {
    state: Arc<Mutex<State>>,
    /// The newest revision, for watchers to wake up by.
    changed: watch::Sender<u64>,
}

impl Default for LocalCoordinator {
    fn default() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl LocalCoordinator {
    /// The state as of now.
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.expire(Instant::now());
        state
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        let revision = state.revision;
        drop(state);
        self.changed.send_replace(revision);
    }
}

#[tonic::async_trait]
impl Coordinator for LocalCoordinator {
    async fn list(&self, prefix: &str) -> Result<Listing, Unavailable> {
        let (state, now) = (self.lock(), Instant::now());
        let below = state.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let entries = below.filter_map(|(key, _)| state.entry(key, now)).collect();
        Ok(Listing { entries, revision: state.revision })
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        expect: Expect,
    ) -> Result<Put, Unavailable> {
        let (mut state, now) = (self.lock(), Instant::now());
        if !state.meets(key, expect) {
            return Ok(Put::Conflict(state.entry(key, now)));
        }
        if state.keys.len() >= MAX_KEYS && !state.keys.contains_key(key) {
            return Err(Unavailable(format!("it holds {MAX_KEYS} keys already")));
        }
        let (revision, expires) = (state.next_revision(), ttl.map(|ttl| now + ttl));
        state.soonest = state.soonest.into_iter().chain(expires).min();
        state.keys.insert(key.to_owned(), Value { value: value.clone(), revision, expires });
        state.note(revision, Event::Put(Entry { key: key.to_owned(), value, revision, ttl_left: ttl }));
        self.tell(state);
        Ok(Put::Done { revision })
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Unavailable> {
        let mut state = self.lock();
        if !state.keys.contains_key(key) || !state.meets(key, expect) {
            return Ok(false);
        }
        state.remove(key);
        self.tell(state);
        Ok(true)
    }

    async fn watch(&self, prefix: &str, revision: u64) -> Result<Box<dyn Watch>, Unavailable> {
        let changed = self.changed.subscribe();
        Ok(Box::new(LocalWatch {
            coordinator: self.clone(),
            prefix: prefix.to_owned(),
            seen: revision,
            changed,
        }))
    }

    async fn hold(&self, key: &str, value: Bytes, _: Duration) -> Result<Option<Hold>, Unavailable> {
        match self.put(key, value, None, Expect::Absent).await? {
            Put::Conflict(_) => Ok(None),
            Put::Done { revision } => {
                let (it, key, (kept, lost)) = (self.clone(), key.to_owned(), watch::channel(false));
                Ok(Some(Hold::new(lost, move || {
                    drop(kept);
                    let mut state = it.lock();
                    if state.meets(&key, Expect::Revision(revision)) {
                        state.remove(&key);
                    }
                    it.tell(state);
                })))
            }
        }
    }
}

#[derive(Debug)]
struct LocalWatch {
    coordinator: LocalCoordinator,
    prefix: String,
    seen: u64,
    changed: watch::Receiver<u64>,
}

#[tonic::async_trait]
impl Watch for LocalWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Ended> {
        loop {
            self.changed.mark_unchanged();
            let expiry = {
                let state = self.coordinator.lock();
                if self.seen < state.forgotten {
                    return Err(Ended::Compacted);
                }
                let news = state.log.iter().filter(|(revision, _)| *revision > self.seen);
                let below = |event: &Event| match event {
                    Event::Put(Entry { key, .. }) | Event::Deleted { key, .. } => {
                        key.starts_with(&self.prefix)
                    }
                };
                let events: Vec<_> =
                    news.map(|(_, event)| event).filter(|event| below(event)).cloned().collect();
                self.seen = self.seen.max(state.revision);
                if !events.is_empty() {
                    return Ok(events);
                }
                state.soonest
            };
            let expired = async {
                match expiry {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changed.changed() => if changed.is_err() {
                    return Err(Unavailable("it has ended".into()).into());
                },
                () = expired => {}
            }
        }
    }
}
