//! Slices that nodes are given unasked. When many nodes connect at once, each is to have one of every active budget: the
//! windows are gone through once for all of them, so that each row is locked and written once and not once per node.
//!
//! A few slices are given at once, with the answer to the report. More are queued: [`SqlBank::stand_by`], one task, gives
//! them in small transactions, so that whoever asks for one of these windows waits no longer than one of them takes.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nemo_runtime::drain::DrainWatcher;
use nemo_types::{BudgetId, LeaseId};
use tokio::sync::{Notify, mpsc};

use super::{SqlBank, TRIES, is_victim, key, rows};
use crate::{
    quota::{
        bank::{Given, NodeEpoch},
        books::{self, WindowKey},
        desk::{Answer, Rows, Visit},
        window::Span,
    },
    store::StoreError,
};

/// So many are given with the answer to the report.
pub(super) const AT_ONCE: usize = 100;
/// Leases of one transaction.
const BATCH: usize = 2000;
/// Grants of one message, but for the last.
const TOGETHER: usize = 500;

/// What is still to be given. Bounded by the streams, and by what each may be given.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Mutex<Vec<Job>>,
    more: Notify,
    /// Somebody works on it.
    attended: AtomicBool,
}

/// One node's.
#[derive(Debug)]
struct Job {
    to: Recipient,
    /// In order.
    left: VecDeque<(BudgetId, Span)>,
    /// Closed: its stream has ended.
    later: mpsc::Sender<Given>,
    unsent: Given,
}

/// Who is given something.
#[derive(Clone, Debug)]
pub(super) struct Recipient {
    pub(super) node: NodeEpoch,
    pub(super) session: i64,
    /// That live, this one included.
    pub(super) nodes: u32,
}

/// What is given in one transaction.
#[derive(Debug, Default)]
struct Batch {
    spans: Vec<(BudgetId, Span)>,
    /// And of which of these each is given a slice.
    takers: Vec<(Recipient, Vec<WindowKey>)>,
}

impl Queue {
    /// Takes on what a node is to be given, unless nobody works on it.
    pub(super) fn push(
        &self,
        to: &Recipient,
        standby: &[(BudgetId, Span)],
        later: &mpsc::Sender<Given>,
    ) -> bool {
        if !self.attended.load(Ordering::Acquire) {
            return false;
        }
        let mut jobs = self.lock();
        // A stream that says everything anew is given what is left anew.
        jobs.retain(|job| job.to.session != to.session);
        let left = standby.iter().copied().collect();
        jobs.push(Job { to: to.clone(), left, later: later.clone(), unsent: Given::default() });
        drop(jobs);
        self.more.notify_one();
        true
    }

    #[cfg(test)]
    pub(super) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Acquire)
    }

    /// The next windows, each for everybody who is to have it.
    fn next(&self) -> Option<Batch> {
        let mut jobs = self.lock();
        jobs.retain(|job| !job.later.is_closed() && !job.left.is_empty());
        let mut batch = Batch::default();
        let mut taken: HashMap<i64, Vec<WindowKey>> = HashMap::new();
        let mut pairs = 0;
        while pairs < BATCH {
            let first = jobs.iter().filter_map(|job| job.left.front()).min_by_key(|span| key(span)).copied();
            let Some(first) = first else { break };
            batch.spans.push(first);
            for job in jobs.iter_mut().filter(|job| job.left.front().map(key) == Some(key(&first))) {
                job.left.pop_front();
                taken.entry(job.to.session).or_default().push(key(&first));
                pairs += 1;
            }
        }
        let takers = jobs.iter().filter_map(|job| Some((job.to.clone(), taken.remove(&job.to.session)?)));
        batch.takers = takers.collect();
        (pairs > 0).then_some(batch)
    }

    /// Tells those who were given something, a good deal at a time.
    fn tell(&self, given: Vec<(i64, Given)>) {
        let mut given: HashMap<i64, Given> = given.into_iter().collect();
        for job in &mut *self.lock() {
            if let Some(more) = given.remove(&job.to.session) {
                job.unsent.add(more);
            }
            if job.unsent.grants.len() < TOGETHER && !job.left.is_empty() || job.unsent.grants.is_empty() {
                continue;
            }
            if let Err(mpsc::error::TrySendError::Full(unsent)) =
                job.later.try_send(std::mem::take(&mut job.unsent))
            {
                // With the next; if it is the last, the node hears of these when it asks.
                job.unsent = unsent;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        // No code that holds the lock can panic half-way through a change.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqlBank {
    /// Gives nodes what they are to have unasked, until drain.
    pub async fn stand_by(self, drain: DrainWatcher) {
        let queue = &self.memory.standby;
        queue.attended.store(true, Ordering::Release);
        loop {
            let Some(batch) = queue.next() else {
                tokio::select! {
                    () = drain.signaled() => break,
                    () = queue.more.notified() => continue,
                }
            };
            tokio::select! {
                () = drain.signaled() => break,
                given = self.give(&batch) => match given {
                    Ok(given) => queue.tell(given),
                    // They ask when they need some.
                    Err(error) => tracing::debug!(%error, "slices were not given unasked"),
                }
            }
        }
        queue.attended.store(false, Ordering::Release);
    }

    /// Gives one node a slice of each of these windows, unless it has one.
    pub(super) async fn give_at_once(
        &self,
        to: Recipient,
        standby: &[(BudgetId, Span)],
        answer: &mut Answer,
    ) -> Result<(), StoreError> {
        for spans in standby.chunks(BATCH) {
            let takers = vec![(to.clone(), spans.iter().map(key).collect())];
            for (_, given) in self.give(&Batch { spans: spans.to_vec(), takers }).await? {
                answer.directive.grants.extend(given.grants);
                answer.tally.add(&given.tally);
            }
        }
        Ok(())
    }

    async fn give(&self, batch: &Batch) -> Result<Vec<(i64, Given)>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_give(batch).await {
                Err(error) if tries < TRIES && is_victim(&error) => {}
                given => return given,
            }
        }
    }

    async fn try_give(&self, batch: &Batch) -> Result<Vec<(i64, Given)>, StoreError> {
        let mut tx = self.store.system().await?;
        let now = self.now(tx.conn()).await?;
        self.ensure(tx.conn(), &batch.spans).await?;
        let keys: Vec<WindowKey> = batch.spans.iter().map(key).collect();
        let before = rows::lock(tx.conn(), &keys).await?;
        let mut rows = Rows::of(before.clone());
        let nodes = batch.takers.iter().map(|(to, _)| to.nodes).max().unwrap_or(1);
        let mut mint = LeaseId::generate;
        let mut answers = Vec::with_capacity(batch.takers.len());
        for (to, keys) in &batch.takers {
            let answer = Answer::default();
            let mut visit =
                Visit { node: &to.node, settings: &self.settings, now, nodes, mint: &mut mint, answer };
            visit.stand_by(&mut rows, keys);
            answers.push((to.session, visit.answer));
        }
        let new: Vec<(LeaseId, i64)> = answers
            .iter()
            .flat_map(|(session, answer)| answer.grants().map(|(id, _)| (id, *session)))
            .collect();
        // Without looking first: nearly always there is none. One that there is stays, and what it was about to be given
        // is taken back before anybody sees it.
        let inserted = rows::insert_unless_open(tx.conn(), &rows, &new).await?;
        let refused: BTreeSet<LeaseId> =
            new.iter().map(|(id, _)| *id).filter(|id| !inserted.contains(id)).collect();
        for id in &refused {
            if let Some((window, lease)) = rows.both(*id) {
                books::withdraw(window, lease);
            }
            rows.forget(*id);
        }
        rows::save_windows(tx.conn(), &before, &rows, &rows::granted(&rows, &HashMap::new())).await?;
        tx.commit().await?;
        self.memory.made(before.keys());
        let given = answers.into_iter().map(|(session, mut answer)| {
            answer.retract(&refused);
            self.memory.in_order(session, now, answer.grants().map(|(id, _)| id));
            (session, Given { grants: answer.directive.grants, tally: answer.tally })
        });
        Ok(given.collect())
    }
}
