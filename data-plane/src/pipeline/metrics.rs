//! Instruments of the data port. Label values come from enums and tables, never from a client. Handles are
//! resolved once, at start: recording costs no map lookup.

use std::time::Duration;

use nemo_llm::Endpoint;
use nemo_proto::usage::Outcome;
use nemo_types::Usage;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::context::{Cost, RequestContext};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

/// In the order of their numbers on the wire.
const OUTCOMES: [&str; 5] = ["unknown", "ok", "error", "cancelled", "interrupted"];
const DURATION_BUCKETS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const OVERHEAD_BUCKETS: [f64; 10] =
    [0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.1];

struct PerEndpoint {
    requests: [Counter; OUTCOMES.len()],
    duration: Histogram,
    overhead: Histogram,
    first_byte: Histogram,
}

/// The instruments.
pub struct Metrics {
    pub in_flight: Gauge,
    pub rejected: Counter,
    per_endpoint: [PerEndpoint; Endpoint::ALL.len()],
    statuses: Family<StatusLabels, Counter>,
    status_ok: Counter,
    input_tokens: Counter,
    output_tokens: Counter,
    cost_nanos: Counter,
    further_attempts: Counter,
    /// Requests that waited for a part of a budget.
    pub parked: Counter,
    /// Streams that were stopped because nothing paid for more of them.
    pub stopped: Counter,
    /// Requests whose output was limited to what can be paid for.
    pub capped: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let statuses = Family::<StatusLabels, Counter>::default();
        let tokens = Family::<DirectionLabels, Counter>::default();
        let histogram = |buckets: &'static [f64]| {
            Family::<EndpointLabels, Histogram, _>::new_with_constructor(move || {
                Histogram::new(buckets.iter().copied())
            })
        };
        let duration = histogram(&DURATION_BUCKETS);
        let overhead = histogram(&OVERHEAD_BUCKETS);
        let first_byte = histogram(&DURATION_BUCKETS);
        let (in_flight, rejected, cost_nanos) = (Gauge::default(), Counter::default(), Counter::default());
        let further_attempts = Counter::default();
        let (parked, stopped, capped) = (Counter::default(), Counter::default(), Counter::default());
        let metrics = Self {
            in_flight: in_flight.clone(),
            rejected: rejected.clone(),
            per_endpoint: Endpoint::ALL.map(|endpoint| {
                let labels = EndpointLabels { endpoint: endpoint.label() };
                PerEndpoint {
                    requests: OUTCOMES.map(|outcome| {
                        let labels = RequestLabels { endpoint: endpoint.label(), outcome };
                        requests.get_or_create_owned(&labels)
                    }),
                    duration: duration.get_or_create_owned(&labels),
                    overhead: overhead.get_or_create_owned(&labels),
                    first_byte: first_byte.get_or_create_owned(&labels),
                }
            }),
            status_ok: statuses.get_or_create_owned(&StatusLabels { status: 200 }),
            statuses: statuses.clone(),
            input_tokens: tokens.get_or_create_owned(&DirectionLabels { direction: "input" }),
            output_tokens: tokens.get_or_create_owned(&DirectionLabels { direction: "output" }),
            cost_nanos: cost_nanos.clone(),
            further_attempts: further_attempts.clone(),
            parked: parked.clone(),
            stopped: stopped.clone(),
            capped: capped.clone(),
        };
        registry.register("requests", "Requests by endpoint and outcome", requests);
        registry.register("responses", "Responses by HTTP status", statuses);
        registry.register("requests_in_flight", "Requests now in the gateway, streams included", in_flight);
        registry.register("requests_shed", "Requests refused because too many were in flight", rejected);
        registry.register("request_duration_seconds", "Until the last byte", duration);
        registry.register("gateway_overhead_seconds", "Spent in the gateway before dispatch", overhead);
        registry.register("first_byte_seconds", "Until the first byte of the answer", first_byte);
        registry.register("tokens", "Tokens as reported or estimated", tokens);
        registry.register("cost_nanos_usd", "Cost of all requests in nano-USD", cost_nanos);
        registry.register("further_attempts", "Attempts after a request's first", further_attempts);
        registry.register("budget_waits", "Requests that waited for a part of a budget", parked);
        registry.register("budget_stopped_streams", "Streams stopped because nothing paid for more", stopped);
        registry.register(
            "budget_capped",
            "Requests whose output was limited to what can be paid for",
            capped,
        );
        metrics
    }

    /// Records one ending.
    pub fn observe(
        &self,
        context: &RequestContext,
        outcome: Outcome,
        total: Duration,
        usage: Option<&Usage>,
        cost: Option<Cost>,
    ) {
        let per_endpoint = &self.per_endpoint[context.endpoint as usize];
        per_endpoint.requests[outcome as usize].inc();
        per_endpoint.duration.observe(total.as_secs_f64());
        if context.dispatched.is_some() {
            per_endpoint.overhead.observe(context.overhead.as_secs_f64());
        }
        if let Some(first_byte) = context.first_byte {
            per_endpoint.first_byte.observe(first_byte.as_secs_f64());
        }
        match context.status {
            200 => self.status_ok.inc(),
            // Only statuses of the table and of upstreams: at most a few hundred series.
            status => self.statuses.get_or_create(&StatusLabels { status }).inc(),
        };
        if let Some(usage) = usage {
            self.input_tokens.inc_by(usage.input.unwrap_or(0));
            self.output_tokens.inc_by(usage.output.unwrap_or(0));
        }
        if let Some(further @ 1..) = context.attempts.len().checked_sub(1) {
            self.further_attempts.inc_by(further as u64);
        }
        if let Some(cost) = cost.and_then(|cost| u64::try_from(cost.nanos.0).ok()) {
            self.cost_nanos.inc_by(cost);
        }
    }
}
