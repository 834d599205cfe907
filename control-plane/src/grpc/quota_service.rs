//! `QuotaService.Lease`: reports of a node in, directives out, one for each report, in order; and recalls in between,
//! when another node starves for what this one holds.
//!
//! The response stream drives itself, as those of the other services do. A report of a request that waits is answered at
//! once: long ones (a node's first) have places of their own, so that they can't be in its way.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, stream};
use nemo_proto::quota::{LeaseDirective, LeaseReport, quota_service_server};
use nemo_runtime::drain::DrainWatcher;
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    time::Instant,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    fleet::registry::check_node_id,
    quota::{Bank, BankError, NodeEpoch, WindowKey, bank::Given, metrics::QuotaMetrics, rates::Rates},
};

/// How long a node may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Budgets, and rate limits, of one report in all its parts.
const MAX_LINES: usize = 100_000;
/// A report of so many budgets is a long one.
const LONG: usize = 500;
/// Short and long reports that are worked on at once. Together below the connections that the system has.
const SHORT_PLACES: usize = 5;
const LONG_PLACES: usize = 2;
/// Windows that are starved for, as streams tell each other; a stream that misses some looks all the same.
const STARVED: usize = 256;
/// The same window is told of again after so long.
const TELL_AGAIN: Duration = Duration::from_millis(250);
/// Messages of grants that a node was not waiting for: more than a full pass over all it may be given takes.
const LATER: usize = 64;
/// Windows of which it is remembered when they were told of.
const MAX_TOLD: usize = 10_000;

#[derive(Clone)]
pub struct QuotaService {
    inner: Arc<Inner>,
}

struct Inner {
    bank: Arc<dyn Bank>,
    rates: Rates,
    metrics: QuotaMetrics,
    drain: DrainWatcher,
    short: Semaphore,
    long: Semaphore,
    streams: AtomicU64,
    /// The number of the stream whose node starves.
    starved: broadcast::Sender<u64>,
    told: Mutex<HashMap<WindowKey, Instant>>,
}

impl QuotaService {
    pub fn new(bank: Arc<dyn Bank>, rates: Rates, metrics: QuotaMetrics, drain: DrainWatcher) -> Self {
        let inner = Inner {
            bank,
            rates,
            metrics,
            drain,
            short: Semaphore::new(SHORT_PLACES),
            long: Semaphore::new(LONG_PLACES),
            streams: AtomicU64::new(0),
            starved: broadcast::channel(STARVED).0,
            told: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

type DirectiveStream = Pin<Box<dyn Stream<Item = Result<LeaseDirective, Status>> + Send>>;

#[tonic::async_trait]
impl quota_service_server::QuotaService for QuotaService {
    type LeaseStream = DirectiveStream;

    async fn lease(
        &self,
        request: Request<Streaming<LeaseReport>>,
    ) -> Result<Response<DirectiveStream>, Status> {
        let mut inbound = request.into_inner();
        let first = tokio::select! {
            () = self.inner.drain.signaled() => return Err(draining()),
            first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()) => {
                first.map_err(|_| Status::deadline_exceeded("no report within 10 s"))??
            }
        };
        let mut first = first.ok_or_else(|| Status::invalid_argument("expected a report"))?;
        let info = first
            .info
            .take()
            .ok_or_else(|| Status::invalid_argument("info: required in the first report"))?;
        check_node_id(&info.node_id).map_err(|error| Status::invalid_argument(format!("info.{error}")))?;
        let (later, given) = mpsc::channel(LATER);
        let session = Session {
            inbound,
            node: NodeEpoch { node_id: info.node_id.into(), epoch: info.epoch },
            number: self.inner.streams.fetch_add(1, Ordering::Relaxed),
            starved: self.inner.starved.subscribe(),
            service: self.inner.clone(),
            later,
            given,
            parts: None,
            first: Some(first),
        };
        let directives = stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(Some(directive)) => Some((Ok(directive), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(directives)))
    }
}

fn draining() -> Status {
    Status::unavailable("this control plane is stopping; connect again")
}

/// One node's stream.
struct Session {
    inbound: Streaming<LeaseReport>,
    node: NodeEpoch,
    number: u64,
    starved: broadcast::Receiver<u64>,
    service: Arc<Inner>,
    /// What the bank gives after its answer; it stops when this stream is gone.
    later: mpsc::Sender<Given>,
    given: mpsc::Receiver<Given>,
    /// Of a report that is not complete yet.
    parts: Option<LeaseReport>,
    first: Option<LeaseReport>,
}

impl Session {
    /// The next message for the node; `None` when it has left.
    async fn next(&mut self) -> Result<Option<LeaseDirective>, Status> {
        if let Some(first) = self.first.take()
            && let Some(report) = self.collect(first)?
        {
            return self.answer(report).await.map(Some);
        }
        loop {
            tokio::select! {
                biased;
                () = self.service.drain.signaled() => return Err(draining()),
                report = self.inbound.message() => match report? {
                    Some(part) => {
                        if let Some(report) = self.collect(part)? {
                            return self.answer(report).await.map(Some);
                        }
                    }
                    None => return Ok(None),
                },
                Some(given) = self.given.recv() => {
                    self.service.metrics.given(&given.tally);
                    return Ok(Some(LeaseDirective { grants: given.grants, ..LeaseDirective::default() }));
                }
                starved = self.starved.recv() => {
                    if starved.is_ok_and(|number| number == self.number) {
                        continue;
                    }
                    // Those that came in the meantime are answered by the same look.
                    while self.starved.try_recv().is_ok() {}
                    if let Some(directive) = self.call_back().await {
                        return Ok(Some(directive));
                    }
                }
            }
        }
    }

    /// Puts the parts of a report together; `None` until it is complete.
    fn collect(&mut self, part: LeaseReport) -> Result<Option<LeaseReport>, Status> {
        let more = part.more;
        let whole = match self.parts.take() {
            None => part,
            Some(mut whole) => {
                whole.full |= part.full;
                whole.budgets.extend(part.budgets);
                whole.rates.extend(part.rates);
                whole.closed_epochs.extend(part.closed_epochs);
                whole.seq = whole.seq.max(part.seq);
                whole
            }
        };
        if whole.budgets.len() > MAX_LINES || whole.rates.len() > MAX_LINES {
            return Err(Status::resource_exhausted("a report of more than 100000 budgets or rate limits"));
        }
        if more {
            self.parts = Some(whole);
            return Ok(None);
        }
        Ok(Some(whole))
    }

    async fn answer(&self, report: LeaseReport) -> Result<LeaseDirective, Status> {
        let began = Instant::now();
        let service = &*self.service;
        let long = report.full || report.budgets.len() > LONG;
        let places = if long { &service.long } else { &service.short };
        let place = places.acquire().await.map_err(|_| draining())?;
        let answered = service.bank.report_in_parts(&self.node, &report, &self.later).await;
        drop(place);
        let answer = answered.map_err(|error| self.refused(&error))?;
        service.metrics.answered(&answer.tally, began.elapsed().as_secs_f64());
        if !answer.starved.is_empty() && service.is_news(&answer.starved) {
            // Nobody else is connected.
            let _ = service.starved.send(self.number);
        }
        let mut directive = answer.directive;
        directive.rates =
            service.rates.report(&self.node.node_id, &report.rates, directive.nodes, report.full);
        Ok(directive)
    }

    async fn call_back(&self) -> Option<LeaseDirective> {
        let place = self.service.short.acquire().await.ok()?;
        let recalls = self.service.bank.recalls(&self.node).await;
        drop(place);
        match recalls {
            Ok(recalls) if !recalls.is_empty() => {
                Some(LeaseDirective { recalls, ..LeaseDirective::default() })
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(node = &*self.node.node_id, %error, "slices are called back with the next report");
                None
            }
        }
    }

    fn refused(&self, error: &BankError) -> Status {
        self.service.metrics.failed();
        match error {
            BankError::Fenced { .. } => {
                tracing::warn!(node = &*self.node.node_id, %error, "a former process of a node is refused");
                Status::failed_precondition(error.to_string())
            }
            BankError::Store(error) => {
                tracing::warn!(node = &*self.node.node_id, %error, "leases wait for the database");
                Status::unavailable("leases can't be granted now")
            }
        }
    }
}

impl Inner {
    /// Whether any of the windows was not told of a moment ago.
    fn is_news(&self, starved: &[WindowKey]) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() > MAX_TOLD {
            told.clear();
        }
        let mut news = false;
        for key in starved {
            let last = told.insert(*key, now);
            let recently = last.filter(|at| now.duration_since(*at) < TELL_AGAIN);
            if let Some(at) = recently {
                told.insert(*key, at);
            }
            news |= recently.is_none();
        }
        news
    }
}

#[cfg(test)]
mod tests;
