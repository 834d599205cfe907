//! What a collector is told of a request: a span for it, one for its attempt, and metrics, all by the GenAI semantic
//! conventions of OpenTelemetry. Off unless a collector is set; then nothing here is allocated or measured.
//!
//! No prompt, no answer, no secret is in any of it. Labels of metrics come from the configuration: a name that a client
//! made up is `other`. Called by [`super::context`] at a request's end, by [`super::dispatch`] for `traceparent`.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use nemo_llm::{Endpoint, FinishReason};
use nemo_proto::usage::Outcome;
use nemo_runtime::{
    otlp::{
        Otlp, Span,
        api::{
            KeyValue,
            metrics::{Counter, Histogram},
            trace::SpanKind,
        },
    },
    trace_context::{SpanId, TraceContext, TraceId},
};
use nemo_snapshot::Deployment;
use nemo_types::Usage;

use super::{
    attempts::AttemptRecord,
    context::{Cost, RequestContext},
    reserve::refusal,
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// In place of a model that is not configured.
const OTHER: &str = "other";

/// A request's place in its trace.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    pub id: TraceId,
    /// The caller's span.
    parent: Option<SpanId>,
    /// Ours: the request, and its attempt.
    request: SpanId,
    attempt: SpanId,
    sampled: bool,
}

/// The export, with its instruments.
pub struct Telemetry {
    otlp: Otlp,
    duration: Histogram<f64>,
    first_byte: Histogram<f64>,
    tokens: Histogram<u64>,
    cost: Counter<f64>,
}

impl Telemetry {
    pub fn new(otlp: Otlp) -> Self {
        let meter = otlp.meter();
        let seconds = |name, description, bounds: &[f64]| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(bounds.to_vec()).build()
        };
        // The bounds that the conventions ask for.
        let durations =
            [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
        let tokens: Vec<f64> = (0..14).map(|power| 4_f64.powi(power)).collect();
        Self {
            duration: seconds("gen_ai.server.request.duration", "Until the last byte", &durations),
            first_byte: seconds("gen_ai.server.time_to_first_token", "Until the first byte", &durations),
            tokens: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_description("Tokens as reported or estimated")
                .with_boundaries(tokens)
                .build(),
            cost: meter
                .f64_counter("nemo.cost")
                .with_unit("USD")
                .with_description("Cost of requests")
                .build(),
            otlp,
        }
    }

    /// Sends what waits. Blocks for a few seconds at most.
    pub fn shutdown(&self) {
        self.otlp.shutdown();
    }

    /// The place of a request that came with this `traceparent`.
    pub fn begin(telemetry: Option<&Self>, traceparent: Option<&HeaderValue>) -> Option<Trace> {
        let sent = traceparent.and_then(|value| TraceContext::parse(value.as_bytes()));
        if telemetry.is_none() && sent.is_none() {
            return None;
        }
        let id = sent.map_or_else(TraceId::random, |sent| sent.trace_id);
        let sampled = telemetry
            .is_some_and(|telemetry| sent.map_or_else(|| telemetry.otlp.samples(id), |sent| sent.sampled));
        let (request, attempt) = (SpanId::random(), SpanId::random());
        Some(Trace { id, parent: sent.map(|sent| sent.parent), request, attempt, sampled })
    }

    /// Records one ending.
    pub fn observe(&self, context: &RequestContext, ended: &Ended<'_>) {
        let labels = Labels::of(context);
        self.measure(context, &labels, ended);
        let Some(trace) = context.trace.filter(|trace| trace.sampled) else { return };
        let start = SystemTime::UNIX_EPOCH + Duration::from_micros(context.started_unix_us().unsigned_abs());
        if let Some(dispatched) = context.dispatched {
            let begin = start + dispatched.duration_since(context.started);
            let last = context.attempts.last().map_or(context.upstream, AttemptRecord::took);
            let end = if context.stream { start + ended.total } else { begin + last };
            // One that failed is its own end, when it was the last.
            let failed = context.attempts.iter().filter(|attempt| attempt.span.is_some());
            for attempt in failed.clone() {
                self.otlp.export(failed_attempt(attempt, trace, &labels, start));
            }
            if failed.count() < context.attempts.len() {
                self.otlp.export(attempt(context, trace, &labels, ended, (begin, end)));
            }
        }
        self.otlp.export(request(context, trace, &labels, ended, (start, start + ended.total)));
    }

    fn measure(&self, context: &RequestContext, labels: &Labels<'_>, ended: &Ended<'_>) {
        let mut attributes = labels.attributes();
        if let Some(usage) = ended.usage {
            for (kind, count) in [("input", usage.input), ("output", usage.output)] {
                if let Some(count) = count {
                    attributes.push(KeyValue::new("gen_ai.token.type", kind));
                    self.tokens.record(count, &attributes);
                    attributes.pop();
                }
            }
        }
        if let Some(cost) = ended.cost {
            #[expect(clippy::cast_precision_loss, reason = "a metric; the money is in the ledger")]
            self.cost.add(cost.nanos.0.max(0) as f64 / 1e9, &attributes);
        }
        if let Some(first) = context.first_byte {
            self.first_byte.record(first.as_secs_f64(), &attributes);
        }
        if let Some(code) = ended.error() {
            attributes.push(KeyValue::new("error.type", code));
        }
        self.duration.record(ended.total.as_secs_f64(), &attributes);
    }
}

impl Trace {
    /// The attempt has failed: returns its span, and the next one has another.
    pub fn next_attempt(&mut self) -> SpanId {
        std::mem::replace(&mut self.attempt, SpanId::random())
    }

    /// Puts our span in the place of the caller's: what the upstream does is a child of the attempt. When nothing is
    /// exported the caller's own stays, or its trace would have a hole.
    pub fn onto(self, telemetry: Option<&Telemetry>, headers: &mut HeaderMap) {
        if telemetry.is_none() {
            return;
        }
        let own = TraceContext { trace_id: self.id, parent: self.attempt, sampled: self.sampled };
        if let Ok(value) = HeaderValue::try_from(own.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        if self.parent.is_none() {
            // It belonged to a trace that could not be read.
            headers.remove(TRACESTATE);
        }
    }
}

/// How a request ended, for [`Telemetry::observe`].
pub struct Ended<'a> {
    pub outcome: Outcome,
    /// Empty when nothing went wrong.
    pub code: &'a str,
    pub total: Duration,
    pub usage: Option<&'a Usage>,
    pub cost: Option<Cost>,
}

impl Ended<'_> {
    /// One of a fixed set: codes of the error table, never text of an upstream.
    fn error(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Ok | Outcome::Unspecified => None,
            Outcome::Cancelled => Some("client_disconnected"),
            Outcome::Interrupted | Outcome::Lost => Some("interrupted"),
            Outcome::Error => Some(known_code(self.code)),
        }
    }
}

/// The code as a label: codes are from a table, apart from those that a timeout or an upstream gives.
fn known_code(code: &str) -> &'static str {
    const MORE: [&str; 8] = [
        "connect_timeout",
        "first_byte_timeout",
        "idle_timeout",
        "total_timeout",
        "upstream_rejected",
        refusal::MAX_COST,
        refusal::UNBOUNDED,
        refusal::JOURNAL_FULL,
    ];
    let known = super::error::TABLE.iter().map(|row| row.code).chain(MORE);
    known.into_iter().find(|known| *known == code).unwrap_or("_OTHER")
}

/// What the request was about, by names of the configuration.
struct Labels<'a> {
    operation: &'static str,
    model: &'a str,
    provider: Option<&'a str>,
    upstream_model: Option<&'a str>,
}

impl<'a> Labels<'a> {
    fn of(context: &'a RequestContext) -> Self {
        let deployment = context.deployment.as_deref();
        Self {
            operation: operation(context.endpoint),
            model: context.group.as_ref().map_or(OTHER, |group| &group.name),
            provider: deployment.map(|it| &*it.provider),
            upstream_model: deployment.map(|it| &*it.upstream_model),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(12);
        attributes.push(KeyValue::new("gen_ai.operation.name", self.operation));
        attributes.push(KeyValue::new("gen_ai.request.model", self.model.to_owned()));
        if let Some(provider) = self.provider {
            attributes.push(KeyValue::new("gen_ai.provider.name", provider.to_owned()));
        }
        if let Some(model) = self.upstream_model {
            attributes.push(KeyValue::new("gen_ai.response.model", model.to_owned()));
        }
        attributes
    }
}

/// `gen_ai.operation.name`: the well-known ones where there is one.
fn operation(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Responses => "chat",
        Endpoint::Completions => "text_completion",
        Endpoint::Embeddings => "embeddings",
        other => other.label(),
    }
}

type Times = (SystemTime, SystemTime);

fn request(
    context: &RequestContext,
    trace: Trace,
    labels: &Labels<'_>,
    ended: &Ended<'_>,
    (start, end): Times,
) -> Span {
    let mut attributes = labels.attributes();
    attributes.push(KeyValue::new("nemo.request.id", context.id.to_string()));
    attributes.push(KeyValue::new("http.request.method", "POST"));
    attributes.push(KeyValue::new("http.response.status_code", i64::from(context.status)));
    attributes.push(KeyValue::new("nemo.config.revision", signed(context.config_revision)));
    if let Some(strategy) = context.strategy {
        attributes.push(KeyValue::new("nemo.routing.strategy", strategy.name()));
    }
    if let Some(key) = &context.key {
        attributes.push(KeyValue::new("nemo.org.id", key.org_id.to_string()));
        attributes.push(KeyValue::new("nemo.team.id", key.team_id.to_string()));
        attributes.push(KeyValue::new("nemo.key.id", key.id.to_string()));
    }
    usage(context, ended, &mut attributes);
    Span {
        trace_id: trace.id,
        id: trace.request,
        parent: trace.parent,
        remote_parent: trace.parent.is_some(),
        kind: SpanKind::Server,
        name: name(labels.operation, labels.model),
        start,
        end,
        attributes,
        error: failure(ended),
    }
}

fn attempt(
    context: &RequestContext,
    trace: Trace,
    labels: &Labels<'_>,
    ended: &Ended<'_>,
    (start, end): Times,
) -> Span {
    let mut attributes = labels.attributes();
    let model = labels.upstream_model.unwrap_or(labels.model);
    attributes.retain(|it| it.key.as_str() != "gen_ai.request.model");
    attributes.push(KeyValue::new("gen_ai.request.model", model.to_owned()));
    if let Some(deployment) = &context.deployment {
        called(deployment, &mut attributes);
    }
    usage(context, ended, &mut attributes);
    Span {
        trace_id: trace.id,
        id: trace.attempt,
        parent: Some(trace.request),
        remote_parent: false,
        kind: SpanKind::Client,
        name: name(labels.operation, model),
        start,
        end,
        attributes,
        error: failure(ended),
    }
}

/// An attempt after which another one was made, or could not be made.
fn failed_attempt(record: &AttemptRecord, trace: Trace, labels: &Labels<'_>, start: SystemTime) -> Span {
    let model = &*record.deployment.upstream_model;
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", labels.operation),
        KeyValue::new("gen_ai.request.model", model.to_owned()),
        KeyValue::new("gen_ai.provider.name", record.deployment.provider.to_string()),
        KeyValue::new("error.type", record.error.unwrap_or("_OTHER")),
    ];
    if record.status > 0 {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(record.status)));
    }
    called(&record.deployment, &mut attributes);
    let start = start + Duration::from_micros(record.started_us.into());
    Span {
        trace_id: trace.id,
        id: record.span.unwrap_or(trace.attempt),
        parent: Some(trace.request),
        remote_parent: false,
        kind: SpanKind::Client,
        name: name(labels.operation, model),
        start,
        end: start + record.took(),
        attributes,
        error: record.error,
    }
}

/// Who was called.
fn called(deployment: &Deployment, attributes: &mut Vec<KeyValue>) {
    attributes.push(KeyValue::new("nemo.deployment", deployment.name.to_string()));
    let base: Option<http::Uri> = deployment.base_url.parse().ok();
    if let Some(host) = base.as_ref().and_then(http::Uri::host) {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
    }
    if let Some(port) = base.as_ref().and_then(http::Uri::port_u16) {
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
}

fn name(operation: &str, model: &str) -> Cow<'static, str> {
    format!("{operation} {model}").into()
}

/// A client that leaves is no error of the request.
fn failure(ended: &Ended<'_>) -> Option<&'static str> {
    ended.error().filter(|_| ended.outcome != Outcome::Cancelled)
}

fn usage(context: &RequestContext, ended: &Ended<'_>, attributes: &mut Vec<KeyValue>) {
    if let Some(usage) = ended.usage {
        let counts =
            [("gen_ai.usage.input_tokens", usage.input), ("gen_ai.usage.output_tokens", usage.output)];
        for (key, count) in counts {
            attributes.extend(count.map(|count| KeyValue::new(key, signed(count))));
        }
    }
    if let Some(reason) = context.finish_reason.as_ref().map(FinishReason::as_str) {
        let reasons: Vec<nemo_runtime::otlp::api::StringValue> = vec![reason.to_owned().into()];
        attributes.push(KeyValue::new(
            "gen_ai.response.finish_reasons",
            nemo_runtime::otlp::api::Value::Array(reasons.into()),
        ));
    }
    if let Some(code) = ended.error() {
        attributes.push(KeyValue::new("error.type", code));
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(SENT));
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        headers
    }

    #[test]
    fn without_an_export_the_callers_trace_passes_unchanged() {
        assert!(Telemetry::begin(None, None).is_none());
        let mut headers = headers();
        let trace = Telemetry::begin(None, headers.get(TRACEPARENT)).unwrap();
        assert_eq!(trace.id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        trace.onto(None, &mut headers);
        assert_eq!(headers[TRACEPARENT], SENT);
    }

    /// I12: labels are from fixed sets.
    #[test]
    fn error_labels_come_from_the_table() {
        assert_eq!(known_code("idle_timeout"), "idle_timeout");
        assert_eq!(known_code("no_snapshot"), "no_snapshot");
        assert_eq!(known_code("what an upstream said"), "_OTHER");
        let operations: std::collections::HashSet<_> = Endpoint::ALL.into_iter().map(operation).collect();
        assert!(operations.len() <= Endpoint::ALL.len());
    }
}
