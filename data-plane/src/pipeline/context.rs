//! What is known of one request: for its usage event, its metrics and its log line, never for control flow.
//!
//! Exactly one ending is recorded. When the client leaves, hyper drops whatever holds the context, and the drop
//! records that (C4: a client that leaves is still accounted for).

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use nemo_llm::{Asked, Endpoint, FinishReason, estimate_input_tokens, estimate_output_tokens};
use nemo_proto::usage::{CostSource, Outcome};
use nemo_runtime::clock;
use nemo_snapshot::{Deployment, KeyRecord, ModelGroup, Strategy};
use nemo_types::{Measure, Nanos, RequestId, Usage};

use super::{
    error::GatewayError,
    metrics::Metrics,
    telemetry::{Ended, Telemetry, Trace},
    upload::Upload,
};
use crate::usage::{Event, UsageBuffer};

/// Longest `model` of a client that is kept.
const MAX_REQUESTED_MODEL: usize = 256;

/// Where endings go.
pub struct Sinks {
    pub usage: UsageBuffer,
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
    pub config_revision: u64,
    pub stream: bool,
    pub client_request_id: Option<HeaderValue>,
    /// When the client is part of a trace, or traces are exported.
    pub trace: Option<Trace>,
    pub metadata: Option<Box<str>>,
    /// Time in which the client sent its body: not ours.
    pub body_read: Duration,
    pub dispatched: Option<Instant>,
    /// Waiting for the upstream: head, and for complete answers the body.
    pub upstream: Duration,
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
    /// Bytes of completion text that were seen, for when it never comes.
    pub output_bytes: u64,
    pub provider_cost: Option<Nanos>,
    /// What the request said of its own size, where that is not text alone.
    pub asked: Option<Box<Asked>>,
    /// The same for a form, which is read while it is sent.
    pub upload: Option<Arc<Upload>>,
    /// What the answer reported in other units than text tokens.
    pub measures: Vec<Measure>,
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
    /// The upstream broke off after the first content byte.
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
        Some(Box::new(Self {
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
            config_revision: 0,
            stream: false,
            client_request_id: None,
            trace: None,
            metadata: None,
            body_read: Duration::ZERO,
            dispatched: None,
            upstream: Duration::ZERO,
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
            asked: None,
            upload: None,
            measures: Vec::new(),
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
        self.overhead = now.duration_since(self.started).saturating_sub(self.body_read);
        self.dispatched = Some(now);
        now
    }

    /// The whole answer has come.
    pub fn answered(&mut self) {
        let now = Instant::now();
        self.upstream = now.duration_since(self.dispatched.unwrap_or(now));
        self.first_byte = Some(now.duration_since(self.started));
        self.finished = Some(now);
    }

    /// Reported usage, else what can be estimated of a request that was sent; with whether it is an estimate.
    fn measured(&self, ending: Ending<'_>) -> (Option<Usage>, bool) {
        if let Some(usage) = self.usage {
            return (Some(usage), false);
        }
        let billable = self.is_billable(ending);
        if !self.endpoint.is_text() {
            // Bytes of sound and images say nothing about tokens; what was counted in units is exact at the end only.
            return (None, billable && !matches!(ending, Ending::Complete));
        }
        let estimate = || Usage {
            input: Some(self.estimated_input()),
            output: Some(estimate_output_tokens(self.output_bytes)),
            ..Usage::default()
        };
        (billable.then(estimate), billable)
    }

    fn is_billable(&self, ending: Ending<'_>) -> bool {
        match ending {
            Ending::Complete | Ending::Interrupted(_) => true,
            Ending::Cancelled => self.dispatched.is_some(),
            Ending::Failed(_) | Ending::Refused { .. } => false,
        }
    }

    /// What was consumed in other units than text tokens.
    fn units(&self, ending: Ending<'_>) -> Vec<Measure> {
        if self.endpoint.is_text() || !self.is_billable(ending) {
            return Vec::new();
        }
        let form = self.upload.as_ref().map(|upload| upload.asked(self.endpoint));
        nemo_llm::measures(self.endpoint, form.as_ref().or(self.asked.as_deref()), self.measures.clone())
    }

    /// The cost of what was consumed: the upstream's own figure wins, else the price of the deployment.
    fn cost_of(&self, usage: Option<&Usage>, units: &[Measure], estimated: bool) -> Option<Cost> {
        if let Some(nanos) = self.provider_cost {
            return Some(Cost { nanos, source: CostSource::Provider });
        }
        let nanos = self.deployment.as_ref()?.price.as_ref()?.cost_of(usage, units)?;
        let source = if estimated { CostSource::Estimated } else { CostSource::Priced };
        Some(Cost { nanos, source })
    }

    /// What the request costs if it ended well now, for the response headers.
    pub fn cost(&self) -> Option<Cost> {
        let (usage, estimated) = self.measured(Ending::Complete);
        self.cost_of(usage.as_ref(), &self.units(Ending::Complete), estimated)
    }

    /// Records the ending. Only the first counts.
    pub fn finish(&mut self, ending: Ending<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let total =
            self.finished.map_or_else(|| self.started.elapsed(), |at| at.duration_since(self.started));
        let (usage, estimated) = self.measured(ending);
        let units = self.units(ending);
        let cost = self.cost_of(usage.as_ref(), &units, estimated);
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
        self.sinks.metrics.observe(self, outcome, total, usage.as_ref(), cost);
        if let Some(telemetry) = &self.sinks.telemetry {
            telemetry.observe(self, &Ended { outcome, code, total, usage: usage.as_ref(), cost });
        }
        if let Some(upload) = &self.upload {
            self.request_bytes = upload.received();
        }
        if let Some(key) = self.key.take() {
            let recorded = Recorded { outcome, code, total, usage: usage.as_ref(), estimated, cost };
            self.sinks.usage.push(&self.event(&key, &recorded, &units));
        }
    }

    fn event<'a>(&'a self, key: &'a KeyRecord, recorded: &Recorded<'a>, units: &'a [Measure]) -> Event<'a> {
        let Recorded { outcome, code, total, usage, estimated, cost } = *recorded;
        let deployment = self.deployment.as_deref();
        let price = deployment.and_then(|it| it.price.as_ref()).filter(|_| cost.is_some());
        Event {
            request_id: self.id.as_bytes(),
            org_id: key.org_id.as_bytes(),
            team_id: key.team_id.as_bytes(),
            key_id: key.id.as_bytes(),
            deployment_id: deployment.map(|it| it.id.as_bytes()),
            endpoint: self.endpoint.label(),
            requested_model: &self.requested_model,
            model: self.group.as_ref().map_or("", |group| &group.name),
            provider: deployment.map_or("", |it| &it.provider),
            upstream_model: deployment.map_or("", |it| &it.upstream_model),
            stream: self.stream,
            outcome,
            http_status: self.status,
            error_code: code,
            finish_reason: self.finish_reason.as_ref().map_or("", FinishReason::as_str),
            usage,
            usage_estimated: usage.is_some() && estimated,
            cost_nanos: cost.map(|cost| cost.nanos.0),
            cost_source: cost.map_or(CostSource::Unspecified, |cost| cost.source),
            price_id: price.map_or("", |price| &price.id),
            attempts: self.dispatched.is_some().into(),
            strategy: self.strategy.map_or("", Strategy::name),
            config_revision: self.config_revision,
            started_unix_us: self.started_unix_us,
            total_us: micros(total),
            upstream_us: micros(self.upstream),
            first_byte_us: self.first_byte.map(micros),
            overhead_us: micros(self.overhead),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            client_request_id: self.client_request_id.as_ref().map_or(b"", HeaderValue::as_bytes),
            metadata: self.metadata.as_deref().unwrap_or(&key.policy.metadata),
            units,
        }
    }
}

/// What an ending came to.
#[derive(Clone, Copy)]
struct Recorded<'a> {
    outcome: Outcome,
    code: &'a str,
    total: Duration,
    usage: Option<&'a Usage>,
    estimated: bool,
    cost: Option<Cost>,
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        self.finish(Ending::Cancelled);
        self.sinks.metrics.in_flight.dec();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
