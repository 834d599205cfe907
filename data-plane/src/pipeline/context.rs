//! What is known of one request: for its usage event, its metrics and its log line, never for control flow.
//!
//! Exactly one ending is recorded. When the client leaves, hyper drops whatever holds the context, and the drop
//! records that (C4: a client that leaves is still accounted for).

mod billing;
mod cost;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use nemo_llm::{
    Asked, Endpoint, FinishReason, Pricing, ServiceTier, estimate_input_tokens, estimate_output_tokens,
};
use nemo_proto::usage::{self as wire, CostSource, Outcome};
use nemo_runtime::{clock, in_place};
use nemo_snapshot::{Deployment, KeyRecord, ModelGroup, Strategy};
use nemo_types::{Measure, Nanos, RequestId, Usage};
use smallvec::SmallVec;

use self::billing::Recorded;
use super::{
    attempts::{AttemptRecord, Attempts, micros as micros32},
    error::GatewayError,
    failure::Failure,
    metrics::Metrics,
    reserve::{
        refusal,
        spending::{Charges, Spending},
    },
    telemetry::{Ended, Telemetry, Trace},
    throttle,
    upload::Upload,
};
use crate::{
    health::{self, FailureClass},
    quota::{Charge, Pass},
    routing::{Pick, record},
    usage::{
        Event, Journal,
        journal::{Full, Ticket},
    },
};

/// Longest `model` of a client that is kept.
const MAX_REQUESTED_MODEL: usize = 256;

/// Where endings go.
pub struct Sinks {
    pub journal: Journal,
    pub metrics: Metrics,
    /// `None`: nothing is exported.
    pub telemetry: Option<Telemetry>,
    /// More requests at once are refused.
    pub max_in_flight: i64,
}

/// One request on its way through the pipeline.
pub struct RequestContext {
    sinks: Arc<Sinks>,
    pub id: RequestId,
    pub endpoint: Endpoint,
    /// The other side of the connection.
    pub peer: Option<IpAddr>,
    pub started: Instant,
    started_unix_us: i64,
    pub key: Option<Arc<KeyRecord>>,
    pub requested_model: Box<str>,
    pub group: Option<Arc<ModelGroup>>,
    pub deployment: Option<Arc<Deployment>>,
    pub strategy: Option<Strategy>,
    /// The record of the decision, as [`crate::routing::record`] began it.
    pub decision: Vec<u8>,
    pub config_revision: u64,
    pub stream: bool,
    pub client_request_id: Option<HeaderValue>,
    /// When the client is part of a trace, or traces are exported.
    pub trace: Option<Trace>,
    pub metadata: Option<Box<str>>,
    /// Time in which the client sent its body: not ours.
    pub body_read: Duration,
    pub dispatched: Option<Instant>,
    /// Waiting for upstreams, all attempts: head, and for complete answers the body.
    pub upstream: Duration,
    /// The part of it that attempts took which failed.
    upstream_before: Duration,
    /// What was tried; the last one is under way, or brought the answer.
    pub attempts: Attempts,
    /// That one, as health counts it.
    pub health: Option<health::Attempt>,
    pub first_byte: Option<Duration>,
    /// When the answer was complete, if its ending has read the clock already.
    finished: Option<Instant>,
    pub overhead: Duration,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Until the estimate is made of it, or the request is over.
    body: Bytes,
    input_estimate: u64,
    /// Status sent to the client; 0 until then.
    pub status: u16,
    pub finish_reason: Option<FinishReason>,
    /// As the upstream reported it.
    pub usage: Option<Usage>,
    /// Bytes of completion text that were seen after it, for when it never comes, or comes before its time.
    pub output_bytes: u64,
    pub provider_cost: Option<Nanos>,
    /// The tier that the answer was served in.
    pub service_tier: ServiceTier,
    /// The client wants its usage in the answer, and so its cost.
    pub usage_asked: bool,
    /// Rather no answer than one without regard to all that was asked for.
    pub refuse_unsupported: bool,
    /// What it names by URL may be fetched.
    pub fetches: bool,
    /// What the request said of its own size, where that is not text alone.
    pub asked: Option<Box<Asked>>,
    /// The same for a form, which is read while it is sent.
    pub upload: Option<Arc<Upload>>,
    /// What the answer reported in other units than text tokens.
    pub measures: Vec<Measure>,
    /// Of the journal, from when the request is about to be sent until it is over.
    pub ticket: Option<Ticket>,
    /// What the request counts against rate limits, and its place among the requests at once.
    pub pass: Option<Pass>,
    /// What the answer tells of rate limits.
    pub rates: throttle::Told,
    /// What is held of budgets; `None`: nothing limits what the request costs.
    pub spending: Option<Box<Spending>>,
    ended: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub enum Ending<'a> {
    Complete,
    /// The client was told so.
    Failed(&'a GatewayError),
    /// The upstream's own refusal was passed on.
    Refused {
        status: u16,
    },
    /// The upstream broke off after the first content byte, or nobody answered a stream that was kept alive.
    Interrupted(&'static str),
    /// The client left.
    Cancelled,
}

/// What a request cost, and how that is known (B8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub nanos: Nanos,
    pub source: CostSource,
}

impl RequestContext {
    /// `None` when too many requests are in flight. The place is given back by the drop, after the last byte.
    pub fn open(sinks: Arc<Sinks>, endpoint: Endpoint) -> Option<Box<Self>> {
        if sinks.metrics.in_flight.inc() >= sinks.max_in_flight {
            sinks.metrics.in_flight.dec();
            sinks.metrics.rejected.inc();
            return None;
        }
        let started_unix_us = clock::unix_us();
        Some(in_place(|| Self {
            sinks,
            id: RequestId::at(started_unix_us),
            endpoint,
            peer: None,
            started: Instant::now(),
            started_unix_us,
            key: None,
            requested_model: "".into(),
            group: None,
            deployment: None,
            strategy: None,
            decision: Vec::new(),
            config_revision: 0,
            stream: false,
            client_request_id: None,
            trace: None,
            metadata: None,
            body_read: Duration::ZERO,
            dispatched: None,
            upstream: Duration::ZERO,
            upstream_before: Duration::ZERO,
            attempts: Attempts::new(),
            health: None,
            first_byte: None,
            finished: None,
            overhead: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            body: Bytes::new(),
            input_estimate: 0,
            status: 0,
            finish_reason: None,
            usage: None,
            output_bytes: 0,
            provider_cost: None,
            service_tier: ServiceTier::default(),
            usage_asked: false,
            refuse_unsupported: false,
            fetches: false,
            asked: None,
            upload: None,
            measures: Vec::new(),
            ticket: None,
            pass: None,
            rates: None,
            spending: None,
            ended: false,
        }))
    }

    /// Where endings go.
    pub fn telemetry(&self) -> Option<&Telemetry> {
        self.sinks.telemetry.as_ref()
    }

    pub fn started_unix_us(&self) -> i64 {
        self.started_unix_us
    }

    pub fn now_ms(&self) -> i64 {
        self.started_unix_us / 1000
    }

    /// Keeps the requested name, cut to a bound.
    pub fn requested(&mut self, model: &str) {
        self.requested_model = model[..model.floor_char_boundary(MAX_REQUESTED_MODEL)].into();
    }

    /// The model, where the request's path names it and not its body.
    pub fn path_model(&self) -> &str {
        if self.endpoint.is_named_in_path() { &self.requested_model } else { "" }
    }

    pub fn accepted_body(&mut self, body: &Bytes) {
        self.request_bytes = body.len() as u64;
        self.body = body.clone();
    }

    /// Makes the estimate now and lets go of the body: a stream may last for minutes.
    pub fn release_body(&mut self) {
        self.input_estimate = estimate_input_tokens(&std::mem::take(&mut self.body));
    }

    fn estimated_input(&self) -> u64 {
        if self.body.is_empty() { self.input_estimate } else { estimate_input_tokens(&self.body) }
    }

    /// The request goes upstream now; what passed so far was ours, but for the client's body.
    pub fn dispatching(&mut self) -> Instant {
        let now = Instant::now();
        if self.dispatched.is_none() {
            self.overhead = now.duration_since(self.started).saturating_sub(self.body_read);
        }
        self.dispatched = Some(now);
        now
    }

    /// An attempt begins, after this pause since the one before.
    pub fn attempting(&mut self, pick: &Pick, waited: Duration) -> Instant {
        let now = self.dispatching();
        if !self.deployment.as_ref().is_some_and(|it| Arc::ptr_eq(it, &pick.deployment)) {
            self.deployment = Some(pick.deployment.clone());
        }
        self.attempts.push(AttemptRecord {
            deployment: pick.deployment.clone(),
            link: pick.link,
            status: 0,
            error: None,
            started_us: micros32(now.duration_since(self.started)),
            took_us: 0,
            waited_us: micros32(waited),
            cost: None,
            span: None,
        });
        now
    }

    /// The gateway answers for this candidate, which is not called.
    pub fn answering_for(&mut self, pick: &Pick) {
        self.dispatching();
        self.deployment = Some(pick.deployment.clone());
    }

    /// The head of the answer to what was sent then has come, or has not (status 0).
    pub fn head_came(&mut self, sent: Instant, status: u16) {
        // An answer that comes whole tells the time at its end.
        if self.stream || !(200..300).contains(&status) {
            self.upstream = self.upstream_before + sent.elapsed();
        }
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.status = status;
        }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.sinks.metrics
    }

    /// Closes the record of the attempt under way; health is to be told by the caller.
    pub fn attempt_failed(&mut self, failure: &Failure) -> Option<health::Attempt> {
        let took = self.dispatched.map_or(Duration::ZERO, |sent| sent.elapsed());
        self.upstream_before += took;
        self.upstream = self.upstream_before;
        let price = self.deployment.as_ref().and_then(|it| it.price.as_ref());
        let priced = failure.usage.as_ref().zip(price).and_then(|(usage, price)| price.cost(usage));
        let mut cost = failure.provider_cost.or(priced);
        if let Some(spending) = &mut self.spending {
            match cost {
                Some(cost) => spending.failed(cost),
                // What it has cost nobody knows; that it was read is likely (D 3).
                None if failure.is_ambiguous() => cost = Some(spending.no_answer()),
                None => {}
            }
        }
        if let Some(attempt) = self.attempts.last_mut() {
            (attempt.status, attempt.error) = (failure.status, Some(failure.error()));
            (attempt.took_us, attempt.cost) = (micros32(took), cost);
            attempt.span = self.trace.as_mut().map(Trace::next_attempt);
        }
        // What was seen of its answer is not of the next one's.
        (self.usage, self.provider_cost, self.finish_reason) = (None, None, None);
        self.service_tier = ServiceTier::default();
        (self.status, self.finished, self.first_byte) = (0, None, None);
        self.health.take()
    }

    /// The first byte of the answer that the client gets.
    pub fn content_came(&mut self, at: Instant) {
        let Some(sent) = self.dispatched else { return };
        let after = at.saturating_duration_since(sent);
        if self.upstream == self.upstream_before {
            self.upstream += after;
        }
        if let Some(health) = &mut self.health {
            health.first_byte(after);
        }
    }

    /// The same of an answer that came whole.
    pub fn answer_came(&mut self) {
        if let Some(at) = self.finished {
            self.content_came(at);
        }
    }

    /// How the attempt under way has ended.
    fn close_attempt(&mut self, ending: Ending<'_>, total: Duration, usage: Option<&Usage>) {
        let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.error.is_none()) else {
            return;
        };
        attempt.took_us = micros32(total).saturating_sub(attempt.started_us);
        let health = self.health.take();
        match (ending, health) {
            (Ending::Complete, Some(mut health)) => {
                let output = usage.and_then(|it| it.output).unwrap_or(0);
                let tokens = usage.and_then(|it| it.input).unwrap_or(0).saturating_add(output);
                health.succeeded(tokens, output, Duration::from_micros(attempt.took_us.into()));
            }
            (Ending::Interrupted(code), health) => {
                attempt.error = Some(code);
                let class = match code {
                    // The client's fault, or so late that it says nothing.
                    "total_timeout" | "upstream_rejected" => None,
                    // We stopped it ourselves.
                    _ if refusal::stops_streams(code) => None,
                    "upstream_rate_limited" => Some(FailureClass::RateLimited),
                    "upstream_credential_rejected" => Some(FailureClass::Credential),
                    "idle_timeout" | "first_byte_timeout" => Some(FailureClass::Timeout),
                    "upstream_error" => Some(FailureClass::Server),
                    _ => Some(FailureClass::Interrupted),
                };
                if let (Some(mut health), Some(class)) = (health, class) {
                    health.failed(class, None);
                }
            }
            (Ending::Cancelled, _) => attempt.error = Some("cancelled"),
            (Ending::Complete | Ending::Failed(_) | Ending::Refused { .. }, _) => {}
        }
    }

    /// The whole answer has come.
    pub fn answered(&mut self) {
        let now = Instant::now();
        self.upstream = self.upstream_before + now.duration_since(self.dispatched.unwrap_or(now));
        self.first_byte = Some(now.duration_since(self.started));
        self.finished = Some(now);
    }

    /// Records the ending. Only the first counts.
    pub fn finish(&mut self, ending: Ending<'_>) {
        self.finish_at(ending, None);
    }

    /// The same for an answer that came whole, whose [`Self::cost`] the headers have told already.
    pub fn completed(&mut self, cost: Option<Cost>) {
        self.finish_at(Ending::Complete, Some(cost));
    }

    fn finish_at(&mut self, ending: Ending<'_>, known: Option<Option<Cost>>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let total =
            self.finished.map_or_else(|| self.started.elapsed(), |at| at.duration_since(self.started));
        let (usage, estimated) = self.measured(ending);
        let units = self.units(ending);
        let cost = known.unwrap_or_else(|| self.cost_of(ending, usage.as_ref(), &units, estimated));
        let (cost, charges) = self.settle(ending, cost, usage.as_ref());
        let (outcome, code) = match ending {
            Ending::Complete => (Outcome::Ok, ""),
            Ending::Failed(error) => (Outcome::Error, error.code()),
            Ending::Refused { .. } => (Outcome::Error, "upstream_rejected"),
            Ending::Interrupted(code) => (Outcome::Interrupted, code),
            Ending::Cancelled => (Outcome::Cancelled, "client_disconnected"),
        };
        self.status = match ending {
            Ending::Failed(error) => error.kind.row().status,
            Ending::Refused { status } => status,
            Ending::Cancelled if self.status == 0 => 499,
            _ => self.status,
        };
        self.close_attempt(ending, total, usage.as_ref());
        self.sinks.metrics.observe(self, outcome, total, usage.as_ref(), cost);
        if let Some(telemetry) = &self.sinks.telemetry {
            telemetry.observe(self, &Ended { outcome, code, total, usage: usage.as_ref(), cost });
        }
        if let Some(upload) = &self.upload {
            self.request_bytes = upload.received();
        }
        if let Some(key) = self.key.take() {
            let decision =
                record::finish(std::mem::take(&mut self.decision), self.attempts.iter().map(Into::into));
            let recorded = Recorded {
                outcome,
                code,
                total,
                usage: usage.as_ref(),
                estimated,
                cost,
                decision: &decision,
                charges: &charges,
            };
            let ticket = self.ticket.take();
            self.sinks.journal.closed(ticket, &self.event(&key, &recorded, &units));
        }
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        self.finish(Ending::Cancelled);
        self.sinks.metrics.in_flight.dec();
    }
}
